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
/// Connections that receive with semi-sync, by their thread `t`; a receiver says it in a variable of its session. One that
/// is ended and not gone yet is still there.
macro_rules! acknowledgers {
    () => {
        "performance_schema.threads t \
         JOIN performance_schema.user_variables_by_thread u ON u.THREAD_ID = t.THREAD_ID \
         WHERE t.PROCESSLIST_COMMAND LIKE 'Binlog Dump%' \
         AND u.VARIABLE_NAME IN ('rpl_semi_sync_replica', 'rpl_semi_sync_slave') AND u.VARIABLE_VALUE <> '0'"
    };
}
pub(super) use acknowledgers;

/// Threads of the server itself, and logins under way.
const NOBODY: [&str; 3] = ["system user", "event_scheduler", "unauthenticated user"];

/// All other sessions of this session's user.
pub(super) async fn end_own(wire: &mut Wire) -> Result<u32, MysqlError> {
    let user = wire.user().to_owned();
    end(wire, "the end of own sessions", |other| other == user, Duration::ZERO).await
}

/// All sessions of these users.
pub(super) async fn end_of(wire: &mut Wire, users: &[String], grace: Duration) -> Result<u32, MysqlError> {
    end(wire, "the end of receivers", |other| users.iter().any(|user| user == other), grace).await
}

/// All sessions of users none of whose accounts has CONNECTION_ADMIN or SUPER.
pub(super) async fn end_clients(wire: &mut Wire) -> Result<u32, MysqlError> {
    const WHAT: &str = "the end of client sessions";
    let sql = "SELECT USER FROM mysql.global_grants WHERE PRIV = 'CONNECTION_ADMIN' UNION SELECT User FROM mysql.user \
               WHERE Super_priv = 'Y'";
    let rows = wire.rows(WHAT, sql, DEADLINE).await?;
    let kept: BTreeSet<String> = rows.iter().filter_map(|row| owned(row, 0)).collect();
    end(wire, WHAT, |user| !kept.contains(user) && !NOBODY.contains(&user), Duration::ZERO).await
}

async fn end(
    wire: &mut Wire,
    what: &'static str,
    whose: impl Fn(&str) -> bool,
    grace: Duration,
) -> Result<u32, MysqlError> {
    let until = Instant::now() + LONG;
    let by_force = Instant::now() + grace;
    let mut asked = BTreeSet::new();
    loop {
        let left = list(wire, what, &whose).await?;
        if left.is_empty() {
            return Ok(asked.len() as u32);
        }
        if Instant::now() >= until {
            return Err(MysqlError::Remains { what, count: left.len(), seconds: LONG.as_secs() });
        }
        for id in left {
            if Instant::now() < by_force || !asked.insert(id) {
                continue;
            }
            kill(wire, what, id).await?;
        }
        tokio::time::sleep(STEP).await;
    }
}

/// Connections that receive with semi-sync, but for those of these users.
pub(super) async fn end_acknowledgers(
    wire: &mut Wire,
    kept: &BTreeSet<String>,
) -> Result<BTreeSet<String>, MysqlError> {
    const WHAT: &str = "the end of strangers";
    const SQL: &str = concat!("SELECT t.PROCESSLIST_ID, t.PROCESSLIST_USER FROM ", acknowledgers!());
    let until = Instant::now() + DEADLINE;
    let (mut asked, mut whose) = (BTreeSet::new(), BTreeSet::new());
    loop {
        let rows = wire.rows(WHAT, SQL, DEADLINE).await?;
        let strangers = rows.iter().filter_map(|row| Some((number::<u64>(row, 0)?, owned(row, 1)?)));
        let left: Vec<(u64, String)> = strangers.filter(|(_, user)| !kept.contains(user)).collect();
        if left.is_empty() {
            return Ok(whose);
        }
        if Instant::now() >= until {
            let seconds = DEADLINE.as_secs();
            return Err(MysqlError::Remains { what: WHAT, count: left.len(), seconds });
        }
        for (id, user) in left {
            if asked.insert(id) {
                kill(wire, WHAT, id).await?;
                whose.insert(user);
            }
        }
        tokio::time::sleep(STEP).await;
    }
}

/// Ends one; one that has ended is none.
pub(super) async fn kill(wire: &mut Wire, what: &'static str, id: u64) -> Result<(), MysqlError> {
    match wire.run(what, &format!("KILL CONNECTION {id}"), DEADLINE).await {
        Err(error) if error.number() == Some(ER_NO_SUCH_THREAD) => Ok(()),
        ended => ended,
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
