//! The channel `''`.

use std::time::Duration;

use mysql_async::Row;
use schemadock_agent_plan::accounts::quote;
use tokio::time::Instant;

use super::sessions;
use super::wire::{DEADLINE, LONG, Wire, number, text};
use crate::mysqld::{MysqlError, SourceSpec};

/// Between two looks at a thread about to stop.
const STEP: Duration = Duration::from_millis(5);
/// MySQL: `rpl_stop_replica_timeout` has passed for the applier, the receiver; it is still to stop.
const ER_STOP_TIMEOUT: [u16; 2] = [1875, 1876];

/// A replication thread.
#[derive(Clone, Copy)]
pub(super) enum Thread {
    Receiver,
    Applier,
}

impl Thread {
    fn sql(self) -> &'static str {
        match self {
            Thread::Receiver => "IO_THREAD",
            Thread::Applier => "SQL_THREAD",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Thread::Receiver => "the receiver",
            Thread::Applier => "the applier",
        }
    }

    fn table(self) -> &'static str {
        match self {
            Thread::Receiver => "replication_connection_status",
            Thread::Applier => "replication_applier_status",
        }
    }
}

/// The retry count is the largest: 0, which the manual calls endless, ends after the second lost connection in a row
/// that brought no event. All that a person may have set on the channel is set back.
pub(super) async fn change_source(wire: &mut Wire, source: &SourceSpec) -> Result<(), MysqlError> {
    let sql = format!(
        "CHANGE REPLICATION SOURCE TO SOURCE_HOST = {}, SOURCE_PORT = {}, SOURCE_USER = {}, SOURCE_PASSWORD = {}, \
         SOURCE_AUTO_POSITION = 1, SOURCE_SSL = 1, SOURCE_SSL_VERIFY_SERVER_CERT = 0, GET_SOURCE_PUBLIC_KEY = 0, \
         SOURCE_CONNECT_RETRY = 1, SOURCE_RETRY_COUNT = 4294967295, SOURCE_HEARTBEAT_PERIOD = 0.2, SOURCE_DELAY = 0, \
         SOURCE_CONNECTION_AUTO_FAILOVER = 0, PRIVILEGE_CHECKS_USER = NULL FOR CHANNEL ''",
        quote(&source.host),
        source.port,
        quote(&source.user),
        quote(source.password.expose())
    );
    wire.run_secret("CHANGE REPLICATION SOURCE", &sql, &source.password, LONG).await
}

/// L6. Where the applier is off the server would throw the relay logs away: refused.
pub(super) async fn repoint(wire: &mut Wire, host: &str, port: u16) -> Result<(), MysqlError> {
    const WHAT: &str = "the change of the source's address";
    let state = state(wire, WHAT, Thread::Applier).await?;
    if state.as_deref() != Some("ON") {
        let why = format!(
            "the applier is {}, not ON, and so what was received would be lost",
            state.as_deref().unwrap_or("not there")
        );
        return Err(MysqlError::Answer { what: WHAT, why });
    }
    let sql = format!(
        "CHANGE REPLICATION SOURCE TO SOURCE_HOST = {}, SOURCE_PORT = {port} FOR CHANNEL ''",
        quote(host)
    );
    wire.run(WHAT, &sql, LONG).await
}

pub(super) async fn start(wire: &mut Wire, thread: Thread) -> Result<(), MysqlError> {
    let what = match thread {
        Thread::Receiver => "the receiver's start",
        Thread::Applier => "the applier's start",
    };
    wire.run(what, &format!("START REPLICA {} FOR CHANNEL ''", thread.sql()), LONG).await
}

/// A statement that returned may have stopped nothing: only the state tells.
pub(super) async fn stop(wire: &mut Wire, thread: Thread, deadline: Duration) -> Result<(), MysqlError> {
    let what = match thread {
        Thread::Receiver => "the receiver's stop",
        Thread::Applier => "the applier's stop",
    };
    let until = Instant::now() + deadline;
    let sql = format!("STOP REPLICA {} FOR CHANNEL ''", thread.sql());
    match wire.run(what, &sql, deadline).await {
        Err(error) if error.number().is_some_and(|number| ER_STOP_TIMEOUT.contains(&number)) => {}
        other => other?,
    }
    loop {
        match state(wire, what, thread).await?.as_deref() {
            None | Some("OFF") => return Ok(()),
            Some(state) if Instant::now() >= until => {
                let why = format!("{} is still {state} after {:.1} s", thread.name(), deadline.as_secs_f64());
                return Err(MysqlError::Answer { what, why });
            }
            Some(_) => tokio::time::sleep(STEP).await,
        }
    }
}

/// With the receiver off, a transaction of which only a part has come is rolled back; it comes again with the receiver's
/// next start. A statement would wait a minute for the rest, and so would a shutdown, from which on no KILL helps; so it
/// comes before. An applier that has not got there within half of the deadline is stopped on its way.
pub(super) async fn stop_applier(wire: &mut Wire, deadline: Duration) -> Result<(), MysqlError> {
    let until = Instant::now() + deadline;
    while let Some(half) = half(wire).await? {
        if half.is_reached {
            for id in half.held_by {
                sessions::kill(wire, "the applier's threads", id).await?;
            }
            break;
        }
        if until.saturating_duration_since(Instant::now()) < deadline / 2 {
            break;
        }
        tokio::time::sleep(STEP).await;
    }
    stop(wire, Thread::Applier, until.saturating_duration_since(Instant::now())).await
}

/// A transaction of which the receiver, which is off, got only a part.
struct Half {
    /// The applier waits for its rest.
    is_reached: bool,
    /// The connections of the threads that do.
    held_by: Vec<u64>,
}

async fn half(wire: &mut Wire) -> Result<Option<Half>, MysqlError> {
    let sql = "SELECT t.PROCESSLIST_ID, h.GTID = q.GTID, t.NAME = 'thread/sql/replica_sql' FROM \
               (SELECT QUEUEING_TRANSACTION AS GTID FROM performance_schema.replication_connection_status \
               WHERE CHANNEL_NAME = '' AND SERVICE_STATE = 'OFF' AND QUEUEING_TRANSACTION LIKE '%:%' \
               AND NOT GTID_SUBSET(QUEUEING_TRANSACTION, RECEIVED_TRANSACTION_SET)) q \
               JOIN (SELECT THREAD_ID, PROCESSING_TRANSACTION AS GTID \
               FROM performance_schema.replication_applier_status_by_coordinator WHERE CHANNEL_NAME = '' UNION ALL \
               SELECT THREAD_ID, APPLYING_TRANSACTION FROM performance_schema.replication_applier_status_by_worker \
               WHERE CHANNEL_NAME = '') h JOIN performance_schema.threads t ON t.THREAD_ID = h.THREAD_ID";
    let rows = wire.rows("what was received half", sql, DEADLINE).await?;
    if rows.is_empty() {
        return Ok(None);
    }
    let is = |row: &Row, column| number::<u8>(row, column) == Some(1);
    // The one that hands out work ends first: then what the others do is given up at once.
    let (mut ends, others): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(|row| is(row, 2));
    ends.extend(others.into_iter().filter(|row| is(row, 1)));
    Ok(Some(Half {
        is_reached: rows.iter().any(|row| is(row, 1)),
        held_by: ends.into_iter().filter_map(|row| number::<u64>(row, 0)).collect(),
    }))
}

async fn state(wire: &mut Wire, what: &'static str, thread: Thread) -> Result<Option<String>, MysqlError> {
    let sql =
        format!("SELECT SERVICE_STATE FROM performance_schema.{} WHERE CHANNEL_NAME = ''", thread.table());
    let rows = wire.rows(what, &sql, DEADLINE).await?;
    Ok(rows.first().and_then(|row| text(row, 0).map(|state| state.into_owned())))
}
