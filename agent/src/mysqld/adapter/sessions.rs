//! Ending sessions, and seeing them gone.

use std::collections::BTreeSet;
use std::time::Duration;

use mysql_async::Row;
use tokio::time::Instant;

use super::wire::{DEADLINE, LONG, Wire, number, owned, text};
use crate::mysqld::MysqlError;

/// Between two looks at sessions about to end.
const STEP: Duration = Duration::from_millis(5);
/// MySQL: there is no such session (any more).
const ER_NO_SUCH_THREAD: u16 = 1094;
/// What a marker's statement begins with.
pub(super) const MARKER: &str = "DROP TABLE IF EXISTS schemadock.none";
/// Threads of the server itself, and logins under way.
const NOBODY: [&str; 3] = ["system user", "event_scheduler", "unauthenticated user"];

/// All other sessions of this session's user.
pub(super) async fn end_own(wire: &mut Wire) -> Result<u32, MysqlError> {
    let user = wire.user().to_owned();
    end(wire, "the end of own sessions", |other| other == user).await
}

/// All sessions of these users.
pub(super) async fn end_of(wire: &mut Wire, users: &[String]) -> Result<u32, MysqlError> {
    end(wire, "the end of receivers", |other| users.iter().any(|user| user == other)).await
}

/// All sessions of users none of whose accounts has CONNECTION_ADMIN or SUPER.
pub(super) async fn end_clients(wire: &mut Wire) -> Result<u32, MysqlError> {
    const WHAT: &str = "the end of client sessions";
    let sql = "SELECT USER FROM mysql.global_grants WHERE PRIV = 'CONNECTION_ADMIN' UNION SELECT User FROM mysql.user \
               WHERE Super_priv = 'Y'";
    let rows = wire.rows(WHAT, sql, DEADLINE).await?;
    let kept: BTreeSet<String> = rows.iter().filter_map(|row| owned(row, 0)).collect();
    end(wire, WHAT, |user| !kept.contains(user) && !NOBODY.contains(&user)).await
}

async fn end(wire: &mut Wire, what: &'static str, whose: impl Fn(&str) -> bool) -> Result<u32, MysqlError> {
    let until = Instant::now() + LONG;
    let mut asked = BTreeSet::new();
    loop {
        let left = list(wire, what, &whose).await?;
        if left.is_empty() {
            return Ok(asked.len() as u32);
        }
        if Instant::now() >= until {
            let why = format!("{} sessions did not end within {} s", left.len(), LONG.as_secs());
            return Err(MysqlError::Answer { what, why });
        }
        for id in left {
            if !asked.insert(id) {
                continue;
            }
            match wire.run(what, &format!("KILL CONNECTION {id}"), DEADLINE).await {
                Ok(()) => {}
                Err(error) if error.number() == Some(ER_NO_SUCH_THREAD) => {}
                Err(error) => return Err(error),
            }
        }
        tokio::time::sleep(STEP).await;
    }
}

/// The other sessions of these users. `performance_schema.processlist` is empty where performance_schema is off, this
/// one is not; that the own session is in it proves that it is whole.
async fn list(
    wire: &mut Wire,
    what: &'static str,
    whose: &impl Fn(&str) -> bool,
) -> Result<Vec<u64>, MysqlError> {
    let own = u64::from(wire.id());
    let rows = wire.rows(what, "SHOW PROCESSLIST", DEADLINE).await?;
    if !rows.iter().any(|row| number(row, 0) == Some(own)) {
        let why = "the list of sessions lacks the asking one; is performance_schema off?".to_owned();
        return Err(MysqlError::Answer { what, why });
    }
    // A session that waits for an acknowledgement stays until it comes, also a killed one.
    let stays = |row: &Row| {
        text(row, 4).as_deref() == Some("Killed") && text(row, 7).is_some_and(|info| info.starts_with(MARKER))
    };
    let others = rows.iter().filter(|row| !stays(row) && text(row, 1).is_some_and(|user| whose(&user)));
    Ok(others.filter_map(|row| number(row, 0)).filter(|id| *id != own).collect())
}
