//! Locks by name: they belong to a session, end with it, and are no part of any transaction.

use std::time::Duration;

use schemadock_agent_plan::accounts::quote;

use super::wire::{DEADLINE, Wire, number};
use crate::mysqld::{LockSeen, MysqlError};

const WHAT: &str = "the lock by name";

pub(super) async fn take(wire: &mut Wire, lock: &str) -> Result<bool, MysqlError> {
    let sql = format!("SELECT IF(RELEASE_ALL_LOCKS() >= 0, GET_LOCK({}, 0), 0)", quote(lock));
    let row = wire.row(WHAT, &sql, DEADLINE).await?;
    Ok(number::<u8>(&row, 0) == Some(1))
}

pub(super) async fn exchange(wire: &mut Wire, first: &str, second: &str) -> Result<(), MysqlError> {
    let (first, second) = (quote(first), quote(second));
    let sql = format!(
        "SELECT IF(IS_USED_LOCK({first}) = CONNECTION_ID(), IF(GET_LOCK({second}, 0) = 1, RELEASE_LOCK({first}), 0), 0)"
    );
    let row = wire.row(WHAT, &sql, DEADLINE).await?;
    match number::<u8>(&row, 0) {
        Some(1) => Ok(()),
        _ => Err(MysqlError::Answer { what: WHAT, why: format!("{first} was not exchanged for {second}") }),
    }
}

pub(super) async fn await_exchange(
    wire: &mut Wire,
    first: &str,
    second: &str,
    user: &str,
    deadline: Duration,
) -> Result<LockSeen, MysqlError> {
    let (first, second, user) = (quote(first), quote(second), quote(user));
    let exchanged = format!(
        "EXISTS (SELECT 1 FROM performance_schema.threads WHERE PROCESSLIST_USER = {user} \
         AND PROCESSLIST_ID = IS_USED_LOCK({second}))"
    );
    // The server looks at the cases in turn. It counts in whole seconds.
    let sql = format!(
        "SELECT CASE WHEN {exchanged} THEN 2 WHEN IS_USED_LOCK({first}) IS NULL THEN 0 \
         WHEN COALESCE(GET_LOCK({first}, {}), 0) = 0 THEN 1 ELSE 3 * RELEASE_LOCK({first}) END",
        deadline.as_secs()
    );
    let mut row = wire.row(WHAT, &sql, deadline + DEADLINE).await?;
    if number::<u8>(&row, 0) == Some(3) {
        // It was given up meanwhile. In one statement the server would answer this as it stood when that began.
        row = wire.row(WHAT, &format!("SELECT 2 * {exchanged}"), DEADLINE).await?;
    }
    match number::<u8>(&row, 0) {
        Some(0) => Ok(LockSeen::Free),
        Some(1) => Ok(LockSeen::Held),
        Some(2) => Ok(LockSeen::Exchanged),
        other => Err(MysqlError::Answer { what: WHAT, why: format!("{other:?}") }),
    }
}
