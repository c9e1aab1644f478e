//! The READ ONLY flags of schemas.

use schemadock_agent_plan::accounts::quote;
use schemadock_agent_plan::frozen::Schemas;

use super::literal::identifier;
use super::observing::needed;
use super::wire::{DEADLINE, Wire, owned, text};
use crate::mysqld::MysqlError;

const WHAT: &str = "the schemas";
/// How long a change of a flag waits for transactions under way, in seconds: everybody else waits behind it.
const WAITS: u32 = 1;
/// MySQL: a lock was not to be had in time.
const ER_LOCK_WAIT_TIMEOUT: u16 = 1205;
/// How many of those that are in the way are named.
const NAMED: usize = 3;

/// All but the server's own.
pub(super) async fn list(wire: &mut Wire) -> Result<Schemas, MysqlError> {
    let sql = "SELECT SCHEMA_NAME, OPTIONS LIKE '%READ ONLY=1%' FROM information_schema.SCHEMATA_EXTENSIONS WHERE \
               SCHEMA_NAME NOT IN ('mysql', 'sys', 'performance_schema', 'information_schema')";
    let rows = wire.rows(WHAT, sql, DEADLINE).await?;
    rows.iter().map(|row| Ok((needed(row, 0, WHAT)?, text(row, 1).as_deref() == Some("1")))).collect()
}

/// Not logged: see the plan's `frozen`.
pub(super) async fn set_read_only(wire: &mut Wire, schema: &str, on: bool) -> Result<(), MysqlError> {
    let wait = format!("SET SESSION lock_wait_timeout = {WAITS}");
    let alter = format!("ALTER DATABASE {} READ ONLY = {}", identifier(schema), u8::from(on));
    let result = wire.run_unlogged(WHAT, &[wait, alter], None).await;
    if wire.is_poisoned() {
        return result;
    }
    let named = match result {
        Err(error) if error.number() == Some(ER_LOCK_WAIT_TIMEOUT) => {
            Err(in_the_way(wire, schema, error).await)
        }
        other => other,
    };
    named.and(wire.run(WHAT, "SET SESSION lock_wait_timeout = DEFAULT", DEADLINE).await)
}

/// The same error, with whose transactions it waited for.
async fn in_the_way(wire: &mut Wire, schema: &str, error: MysqlError) -> MysqlError {
    let sql = format!(
        "SELECT CONCAT('connection ', t.PROCESSLIST_ID, ' of ', t.PROCESSLIST_USER, '@', t.PROCESSLIST_HOST, \
         ' (', LOWER(t.PROCESSLIST_COMMAND), ' for ', t.PROCESSLIST_TIME, ' s)') \
         FROM performance_schema.metadata_locks m JOIN performance_schema.threads t ON t.THREAD_ID = m.OWNER_THREAD_ID \
         WHERE m.OBJECT_SCHEMA = {} AND m.LOCK_STATUS = 'GRANTED' AND t.PROCESSLIST_ID <> CONNECTION_ID() \
         GROUP BY t.PROCESSLIST_ID, t.PROCESSLIST_USER, t.PROCESSLIST_HOST, t.PROCESSLIST_COMMAND, t.PROCESSLIST_TIME \
         ORDER BY t.PROCESSLIST_TIME DESC LIMIT {NAMED}",
        quote(schema)
    );
    let Ok(rows) = wire.rows(WHAT, &sql, DEADLINE).await else { return error };
    let names: Vec<String> = rows.iter().filter_map(|row| owned(row, 0)).collect();
    let whose = match names.as_slice() {
        [] => "a transaction".to_owned(),
        names => names.join(", "),
    };
    let message = format!(
        "schema {schema} is in use: {whose} did not end within {WAITS} s; it is tried again; `KILL` ends a connection"
    );
    MysqlError::Server { what: WHAT, number: ER_LOCK_WAIT_TIMEOUT, message }
}
