//! CLONE.

use std::time::Duration;

use schemadock_agent_plan::accounts::quote;
use schemadock_agent_plan::observed::{CloneSeen, CloneState};

use super::wire::{DEADLINE, LONG, Wire, number, owned, text};
use crate::mysqld::{MysqlError, SourceSpec};

/// How long a CLONE may take.
const CLONE: Duration = Duration::from_secs(24 * 3600);
/// How long a CLONE waits for DDL under way, in seconds.
const WAIT_FOR_DDL: u32 = 60;
/// MySQL: the CLONE is complete, but nobody is there to start the server again; its agent is.
const ER_RESTART_SERVER_FAILED: u16 = 3707;

/// Tables whose rows a CLONE from this server would leave out, with their engines.
pub(super) async fn emptied_tables(wire: &mut Wire) -> Result<Vec<String>, MysqlError> {
    let sql = "SELECT CONCAT(TABLE_SCHEMA, '.', TABLE_NAME, ' (', ENGINE, ')') FROM information_schema.TABLES WHERE \
               TABLE_TYPE = 'BASE TABLE' AND ENGINE <> 'InnoDB' AND TABLE_SCHEMA NOT IN ('mysql', 'sys', \
               'performance_schema', 'information_schema') ORDER BY TABLE_SCHEMA, TABLE_NAME";
    let rows = wire.rows("the engines of all tables", sql, LONG).await?;
    Ok(rows.iter().filter_map(|row| owned(row, 0)).collect())
}

pub(super) async fn set_donors(wire: &mut Wire, donors: &str) -> Result<(), MysqlError> {
    let sql = format!(
        "SET GLOBAL clone_valid_donor_list = {}, GLOBAL clone_ddl_timeout = {WAIT_FOR_DDL}",
        quote(donors)
    );
    wire.run("the donors", &sql, DEADLINE).await
}

/// 3707 means that all is here and the server has ended. A connection that breaks means that the server has ended or
/// started again, too: whether the CLONE was complete stands in `clone_status` then.
pub(super) async fn clone_from(wire: &mut Wire, donor: &SourceSpec) -> Result<(), MysqlError> {
    let unusable = wire.is_poisoned();
    let sql = format!(
        "CLONE INSTANCE FROM {}@{}:{} IDENTIFIED BY {} REQUIRE SSL",
        quote(&donor.user),
        quote(&donor.host),
        donor.port,
        quote(donor.password.expose())
    );
    match wire.run_secret("CLONE", &sql, &donor.password, CLONE).await {
        Err(error) if error.number() == Some(ER_RESTART_SERVER_FAILED) => Ok(()),
        Err(MysqlError::Connection { .. }) if !unusable => Ok(()),
        other => other,
    }
}

pub(super) async fn progress(wire: &mut Wire) -> Result<CloneSeen, MysqlError> {
    const WHAT: &str = "the CLONE's progress";
    let sql = "SELECT STATE, ERROR_NO, ERROR_MESSAGE, (SELECT SUM(DATA) FROM performance_schema.clone_progress), \
               (SELECT SUM(ESTIMATE) FROM performance_schema.clone_progress) FROM performance_schema.clone_status \
               LIMIT 1";
    let rows = wire.rows(WHAT, sql, DEADLINE).await?;
    let Some(row) = rows.first() else {
        return Ok(CloneSeen { state: CloneState::None, bytes: 0, bytes_total: 0, error: None });
    };
    let state = match text(row, 0).as_deref() {
        Some("Completed") => CloneState::Completed,
        Some("Failed") => CloneState::Failed,
        Some("In Progress") => CloneState::InProgress,
        Some("Not Started") => CloneState::None,
        other => {
            let why = format!("the state is {other:?}");
            return Err(MysqlError::Answer { what: WHAT, why });
        }
    };
    let code: u32 = number(row, 1).unwrap_or(0);
    Ok(CloneSeen {
        state,
        bytes: number(row, 3).unwrap_or(0),
        bytes_total: number(row, 4).unwrap_or(0),
        error: (code > 0).then(|| (code, owned(row, 2).unwrap_or_default())),
    })
}
