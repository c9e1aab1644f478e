//! What the plans look at, in one round trip: one statement, one row.

use std::collections::BTreeSet;

use mysql_async::Row;
use schemadock_agent_plan::observed::{AcksSeen, ChannelSeen, ServerSeen, SourceSeen, ThreadState};
use schemadock_schema::gtid::GtidSet;

use super::sessions::acknowledgers;
use super::wire::{DEADLINE, Wire, number, owned, text};
use crate::mysqld::{MysqlError, Position};

/// One row, whether there is a channel or not. The tables named here answer also where performance_schema is off, but for
/// those that tell who acknowledges: nobody is seen to, then.
///
/// Behind its source by: the oldest transaction that a worker applies now. Its commit's time is NULL or 0 where the
/// source did not tell it.
const OBSERVE: &str = concat!(
    "SELECT @@GLOBAL.server_uuid, @@GLOBAL.server_id, @@GLOBAL.version, @@GLOBAL.offline_mode, \
     @@GLOBAL.super_read_only, @@GLOBAL.read_only, @@GLOBAL.gtid_executed, @@GLOBAL.gtid_purged, \
     @@GLOBAL.rpl_semi_sync_source_enabled, @@GLOBAL.rpl_semi_sync_replica_enabled, \
     v.UPTIME, \
     c.HOST, c.PORT, c.USER, c.AUTO_POSITION, c.SSL_ALLOWED, f.DESIRED_DELAY, \
     s.SERVICE_STATE, g.SERVICE_STATE, s.RECEIVED_TRANSACTION_SET, s.LAST_ERROR_NUMBER, s.LAST_ERROR_MESSAGE, \
     a.LAST_ERROR_NUMBER, a.LAST_ERROR_MESSAGE, w.FAILED, s.SOURCE_UUID, w.BEHIND, \
     @@GLOBAL.rpl_semi_sync_source_wait_for_replica_count, v.WORKING, v.CLIENTS, v.WAITING, v.ANSWERED, v.REPLICA, \
     (SELECT JSON_ARRAYAGG(USER) FROM information_schema.processlist WHERE COMMAND LIKE 'Binlog Dump%'), \
     @@GLOBAL.event_scheduler, v.UNACKNOWLEDGED, \
     (SELECT JSON_ARRAYAGG(t.PROCESSLIST_USER) FROM ",
    acknowledgers!(),
    ") \
     FROM (SELECT 1) AS one \
     LEFT JOIN (SELECT \
       MAX(IF(VARIABLE_NAME = 'Uptime', VARIABLE_VALUE, NULL)) AS UPTIME, \
       MAX(IF(VARIABLE_NAME = 'Rpl_semi_sync_source_status', VARIABLE_VALUE, NULL)) AS WORKING, \
       MAX(IF(VARIABLE_NAME = 'Rpl_semi_sync_source_clients', VARIABLE_VALUE, NULL)) AS CLIENTS, \
       MAX(IF(VARIABLE_NAME = 'Rpl_semi_sync_source_wait_sessions', VARIABLE_VALUE, NULL)) AS WAITING, \
       MAX(IF(VARIABLE_NAME = 'Rpl_semi_sync_source_yes_tx', VARIABLE_VALUE, NULL)) AS ANSWERED, \
       MAX(IF(VARIABLE_NAME = 'Rpl_semi_sync_source_no_tx', VARIABLE_VALUE, NULL)) AS UNACKNOWLEDGED, \
       MAX(IF(VARIABLE_NAME = 'Rpl_semi_sync_replica_status', VARIABLE_VALUE, NULL)) AS REPLICA \
       FROM performance_schema.global_status WHERE VARIABLE_NAME IN ('Uptime', 'Rpl_semi_sync_source_status', \
       'Rpl_semi_sync_source_clients', 'Rpl_semi_sync_source_wait_sessions', 'Rpl_semi_sync_source_yes_tx', \
       'Rpl_semi_sync_source_no_tx', 'Rpl_semi_sync_replica_status')) AS v ON TRUE \
     LEFT JOIN performance_schema.replication_connection_configuration AS c ON c.CHANNEL_NAME = '' AND c.HOST <> '' \
     LEFT JOIN performance_schema.replication_connection_status AS s ON s.CHANNEL_NAME = '' \
     LEFT JOIN performance_schema.replication_applier_configuration AS f ON f.CHANNEL_NAME = '' \
     LEFT JOIN performance_schema.replication_applier_status AS g ON g.CHANNEL_NAME = '' \
     LEFT JOIN performance_schema.replication_applier_status_by_coordinator AS a ON a.CHANNEL_NAME = '' \
     LEFT JOIN (SELECT MAX(IF(LAST_ERROR_NUMBER > 0, CONCAT(LAST_ERROR_NUMBER, ' ', LAST_ERROR_MESSAGE), NULL)) AS \
       FAILED, MAX(IF(APPLYING_TRANSACTION <> '', UNIX_TIMESTAMP(NOW(6)) - \
       NULLIF(UNIX_TIMESTAMP(APPLYING_TRANSACTION_ORIGINAL_COMMIT_TIMESTAMP), 0), NULL)) AS BEHIND \
       FROM performance_schema.replication_applier_status_by_worker WHERE CHANNEL_NAME = '') AS w ON TRUE"
);

const WHAT: &str = "the observation";

/// The sets of the last answers, so that what has not changed is not read again.
#[derive(Default)]
pub(super) struct Sets {
    executed: Parsed,
    purged: Parsed,
    retrieved: Parsed,
}

#[derive(Default)]
struct Parsed {
    text: String,
    set: GtidSet,
}

impl Parsed {
    fn read(&mut self, row: &Row, column: usize, what: &'static str) -> Result<GtidSet, MysqlError> {
        let text = text(row, column).unwrap_or_default();
        if self.text != text {
            self.set = text
                .parse()
                .map_err(|error| MysqlError::Answer { what, why: format!("column {column}: {error}") })?;
            self.text = text.into_owned();
        }
        Ok(self.set.clone())
    }
}

pub(super) async fn server(wire: &mut Wire, sets: &mut Sets) -> Result<ServerSeen, MysqlError> {
    let row = &wire.row(WHAT, OBSERVE, DEADLINE).await?;
    Ok(ServerSeen {
        server_uuid: needed(row, 0, WHAT)?,
        server_id: numeric(row, 1)?,
        version: plain_version(&needed(row, 2, WHAT)?),
        offline_mode: flag(row, 3),
        super_read_only: flag(row, 4),
        read_only: flag(row, 5),
        gtid_executed: sets.executed.read(row, 6, WHAT)?,
        gtid_purged: sets.purged.read(row, 7, WHAT)?,
        channel: channel(row, sets)?,
        semi_sync_source: flag(row, 8),
        acks: AcksSeen {
            count: numeric(row, 27)?,
            working: flag(row, 28),
            clients: numeric(row, 29)?,
            waiting: numeric(row, 30)?,
            answered: numeric(row, 31)?,
            unanswered: numeric(row, 35)?,
        },
        semi_sync_replica: flag(row, 9),
        acknowledging: flag(row, 32),
        receivers: users(row, 33)?,
        acknowledgers: users(row, 36)?,
        events: flag(row, 34),
        uptime: numeric(row, 10)?,
    })
}

/// The users of a JSON list; NULL is the list of nobody.
fn users(row: &Row, column: usize) -> Result<BTreeSet<String>, MysqlError> {
    let Some(list) = text(row, column) else { return Ok(BTreeSet::new()) };
    let users: BTreeSet<Option<String>> = serde_json::from_str(&list)
        .map_err(|error| MysqlError::Answer { what: WHAT, why: format!("column {column}: {error}") })?;
    Ok(users.into_iter().flatten().collect())
}

fn channel(row: &Row, sets: &mut Sets) -> Result<Option<ChannelSeen>, MysqlError> {
    let Some(host) = owned(row, 11) else { return Ok(None) };
    let error = |number_at: usize, text_at: usize| {
        let number: u32 = number(row, number_at).filter(|number| *number > 0)?;
        Some((number, owned(row, text_at).unwrap_or_default()))
    };
    // The coordinator's own error only says that a worker has one.
    let worker_error = text(row, 24).and_then(|all| {
        let (number, text) = all.split_once(' ')?;
        Some((number.parse().ok()?, text.to_owned()))
    });
    Ok(Some(ChannelSeen {
        host,
        port: numeric(row, 12)?,
        user: owned(row, 13).unwrap_or_default(),
        auto_position: flag(row, 14),
        ssl: flag(row, 15),
        delay: number(row, 16).unwrap_or(0),
        receiver: thread(row, 17)?,
        applier: thread(row, 18)?,
        retrieved: sets.retrieved.read(row, 19, WHAT)?,
        receiver_error: error(20, 21),
        applier_error: worker_error.or(error(22, 23)),
        source_uuid: owned(row, 25).filter(|uuid| !uuid.is_empty()),
        // Clocks of two hosts may differ a little.
        lag_seconds: number::<f64>(row, 26).map(|seconds| seconds.max(0.0)),
    }))
}

pub(super) async fn position(wire: &mut Wire, sets: &mut Sets) -> Result<Position, MysqlError> {
    const WHAT: &str = "the look at the position";
    const SQL: &str = "SELECT @@GLOBAL.server_uuid, @@GLOBAL.super_read_only, @@GLOBAL.gtid_executed, \
         (SELECT COUNT(*) FROM performance_schema.replication_applier_status \
         WHERE CHANNEL_NAME = '' AND SERVICE_STATE <> 'OFF')";
    let row = &wire.row(WHAT, SQL, DEADLINE).await?;
    Ok(Position {
        server_uuid: needed(row, 0, WHAT)?,
        super_read_only: flag(row, 1),
        executed: sets.executed.read(row, 2, WHAT)?,
        applies: number::<u32>(row, 3) != Some(0),
    })
}

pub(super) async fn source(
    wire: &mut Wire,
    sets: &mut Sets,
    account: &str,
) -> Result<SourceSeen, MysqlError> {
    const WHAT: &str = "the look at the source";
    let account = schemadock_agent_plan::accounts::quote(account);
    let sql = format!(
        "SELECT @@GLOBAL.server_uuid, @@GLOBAL.version, @@GLOBAL.gtid_executed, @@GLOBAL.gtid_purged, \
         NOT (@@GLOBAL.read_only OR @@GLOBAL.super_read_only OR @@GLOBAL.offline_mode), \
         (SELECT COUNT(*) FROM mysql.user WHERE User = {account})"
    );
    let row = &wire.row(WHAT, &sql, DEADLINE).await?;
    Ok(SourceSeen {
        server_uuid: needed(row, 0, WHAT)?,
        version: plain_version(&needed(row, 1, WHAT)?),
        gtid_executed: sets.executed.read(row, 2, WHAT)?,
        gtid_purged: sets.purged.read(row, 3, WHAT)?,
        writable: flag(row, 4),
        account: number::<u32>(row, 5).is_some_and(|count| count > 0),
    })
}

/// Whether commits wait for so many acknowledgements.
pub(super) async fn waits_for(wire: &mut Wire, what: &'static str, acks: u32) -> Result<(), MysqlError> {
    const SQL: &str = "SELECT VARIABLE_VALUE, @@GLOBAL.rpl_semi_sync_source_wait_for_replica_count \
         FROM performance_schema.global_status WHERE VARIABLE_NAME = 'Rpl_semi_sync_source_status'";
    let row = &wire.row(what, SQL, DEADLINE).await?;
    let (working, count) = (flag(row, 0), number::<u32>(row, 1));
    if working && count == Some(acks) {
        return Ok(());
    }
    let why = format!("in operation: {working}, a commit waits for {count:?} replicas, expected {acks}");
    Err(MysqlError::Answer { what, why })
}

/// `8.4.3` out of `8.4.3-3.1`.
fn plain_version(text: &str) -> String {
    text.split('-').next().unwrap_or(text).to_owned()
}

pub(super) fn needed(row: &Row, column: usize, what: &'static str) -> Result<String, MysqlError> {
    owned(row, column).ok_or_else(|| MysqlError::Answer { what, why: format!("column {column} is NULL") })
}

fn numeric<T: std::str::FromStr>(row: &Row, column: usize) -> Result<T, MysqlError> {
    number(row, column).ok_or_else(|| {
        let found = text(row, column);
        MysqlError::Answer { what: WHAT, why: format!("column {column} is {found:?}, not a number") }
    })
}

fn flag(row: &Row, column: usize) -> bool {
    matches!(text(row, column).as_deref(), Some("1" | "ON" | "YES"))
}

/// Unknown is not taken for off.
fn thread(row: &Row, column: usize) -> Result<ThreadState, MysqlError> {
    match text(row, column).as_deref() {
        Some("ON") => Ok(ThreadState::On),
        Some("OFF") => Ok(ThreadState::Off),
        Some("CONNECTING") => Ok(ThreadState::Connecting),
        other => Err(MysqlError::Answer { what: WHAT, why: format!("a thread's state is {other:?}") }),
    }
}
