//! Scheduled events of MySQL: on a replica they are all off, whether the source runs them or not, and stay so when it
//! is made a source. Which ones run, only the source knows.

use schemadock_agent_plan::accounts::quote;

use super::literal::identifier;
use super::observing::needed;
use super::wire::{DEADLINE, Wire, text};
use crate::mysqld::{MysqlError, ScheduledEvent};

const WHAT: &str = "the scheduled events";

/// Those that run here.
pub(super) async fn enabled(wire: &mut Wire) -> Result<Vec<ScheduledEvent>, MysqlError> {
    let sql = "SELECT EVENT_SCHEMA, EVENT_NAME FROM information_schema.EVENTS WHERE STATUS = 'ENABLED'";
    let rows = wire.rows(WHAT, sql, DEADLINE).await?;
    rows.iter()
        .map(|row| Ok(ScheduledEvent { schema: needed(row, 0, WHAT)?, name: needed(row, 1, WHAT)? }))
        .collect()
}

/// Enables those of them that are here and do not run; how many. Those of READ ONLY schemas cannot be changed, nor run. An event keeps its definer, and the SQL mode, time zone
/// and character sets that it is to run with: ALTER would write this session's.
pub(super) async fn enable(wire: &mut Wire, events: &[ScheduledEvent]) -> Result<u32, MysqlError> {
    let mut count = 0;
    for event in events {
        let sql = format!(
            "SELECT DEFINER, SQL_MODE, TIME_ZONE, CHARACTER_SET_CLIENT, COLLATION_CONNECTION \
             FROM information_schema.EVENTS WHERE EVENT_SCHEMA = {} AND EVENT_NAME = {} AND STATUS <> 'ENABLED' \
             AND EVENT_SCHEMA NOT IN (SELECT SCHEMA_NAME FROM information_schema.SCHEMATA_EXTENSIONS \
             WHERE OPTIONS LIKE '%READ ONLY=1%')",
            quote(&event.schema),
            quote(&event.name),
        );
        let rows = wire.rows(WHAT, &sql, DEADLINE).await?;
        let Some(row) = rows.first() else { continue };
        let column = |at: usize| quote(&text(row, at).unwrap_or_default());
        let settings = format!(
            "SET SESSION sql_mode = {}, time_zone = {}, character_set_client = {}, collation_connection = {}",
            column(1),
            column(2),
            column(3),
            column(4),
        );
        let definer = needed(row, 0, WHAT)?;
        let (user, host) = definer.rsplit_once('@').unwrap_or((&definer, "%"));
        let alter = format!(
            "ALTER DEFINER = {}@{} EVENT {}.{} ENABLE",
            identifier(user),
            identifier(host),
            identifier(&event.schema),
            identifier(&event.name)
        );
        wire.run(WHAT, &settings, DEADLINE).await?;
        wire.run(WHAT, &alter, DEADLINE).await?;
        count += 1;
    }
    Ok(count)
}
