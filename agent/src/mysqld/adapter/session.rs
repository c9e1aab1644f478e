//! The verbs of a session. What is waited for is asked again in short steps; nothing waits without an end.

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use schemadock_agent_plan::accounts::{Account, quote};
use schemadock_agent_plan::frozen::Schemas;
use schemadock_agent_plan::observed::{AccountSeen, CloneSeen, ServerSeen, SourceSeen, Variables};
use schemadock_schema::gtid::GtidSet;

use super::observing::Sets;
use super::replication::Thread;
use super::sessions::MARKER;
use super::wire::{DEADLINE, LONG, Sealed, Wire, number, owned};
use super::{
    accounts, binlog, closing, events, literal, locks, observing, replication, schemas, seeding, sessions,
};
use crate::mysqld::{LockSeen, MysqlError, Position, ScheduledEvent, Session, SourceSpec};

/// MySQL: a variable takes no value of this type.
const ER_WRONG_TYPE_FOR_VAR: u16 = 1232;

pub(super) struct Connected {
    wire: Wire,
    sets: Sets,
}

impl Connected {
    pub(super) fn new(wire: Wire) -> Self {
        Self { wire, sets: Sets::default() }
    }

    async fn set(&mut self, what: &'static str, name: &str, value: &str) -> Result<(), MysqlError> {
        self.wire.run(what, &format!("SET GLOBAL {name} = {value}"), DEADLINE).await
    }
}

#[async_trait]
impl Session for Connected {
    async fn observe(&mut self) -> Result<ServerSeen, MysqlError> {
        observing::server(&mut self.wire, &mut self.sets).await
    }

    async fn position(&mut self) -> Result<Position, MysqlError> {
        observing::position(&mut self.wire, &mut self.sets).await
    }

    async fn observe_source(&mut self, account: &str) -> Result<SourceSeen, MysqlError> {
        observing::source(&mut self.wire, &mut self.sets, account).await
    }

    async fn variables(&mut self, names: &[&str]) -> Result<Variables, MysqlError> {
        if names.is_empty() {
            return Ok(Variables::new());
        }
        let list = names.iter().map(|name| quote(name)).collect::<Vec<_>>().join(", ");
        let sql = format!(
            "SELECT VARIABLE_NAME, VARIABLE_VALUE FROM performance_schema.global_variables WHERE VARIABLE_NAME IN \
             ({list})"
        );
        let rows = self.wire.rows("the variables", &sql, DEADLINE).await?;
        Ok(rows.iter().filter_map(|row| Some((owned(row, 0)?, owned(row, 1)?))).collect())
    }

    async fn set_variable(&mut self, name: &str, value: Option<&str>) -> Result<(), MysqlError> {
        const WHAT: &str = "the change of a variable";
        if !literal::is_name(name) {
            return Err(MysqlError::Answer { what: WHAT, why: format!("{name:?} is no name of a variable") });
        }
        let Some(value) = value else {
            return self.wire.run(WHAT, &format!("SET GLOBAL {name} = DEFAULT"), LONG).await;
        };
        let sql = |value: String| format!("SET GLOBAL {name} = {value}");
        match self.wire.run(WHAT, &sql(literal::literal(value)), LONG).await {
            // A text that looks like a number.
            Err(error) if error.number() == Some(ER_WRONG_TYPE_FOR_VAR) => {
                let again = self.wire.run(WHAT, &sql(literal::as_text(value)), LONG).await;
                again.map_err(|other| if other.is_broken() { other } else { error })
            }
            other => other,
        }
    }

    async fn set_offline_mode(&mut self, on: bool) -> Result<(), MysqlError> {
        self.set("offline_mode", "offline_mode", switch(on)).await
    }

    async fn set_super_read_only(&mut self, on: bool, deadline: Duration) -> Result<(), MysqlError> {
        if on {
            return closing::switch_on(&mut self.wire, deadline).await;
        }
        self.wire.run("super_read_only", "SET GLOBAL super_read_only = OFF", deadline).await
    }

    async fn set_read_only(&mut self, on: bool) -> Result<(), MysqlError> {
        self.set("read_only", "read_only", switch(on)).await
    }

    async fn marker(&mut self, deadline: Duration) -> Result<(), MysqlError> {
        // One that waits holds the lock of its table's name: every session has a name of its own.
        let sql = format!("{MARKER}_{}", self.wire.id());
        self.wire.run("the marker", &sql, deadline).await
    }

    async fn set_semi_sync_source(&mut self, acks: Option<u32>) -> Result<(), MysqlError> {
        const WHAT: &str = "semi-sync towards replicas";
        match acks {
            // It takes a second.
            None => self.wire.run(WHAT, "SET GLOBAL rpl_semi_sync_source_enabled = OFF", LONG).await,
            Some(acks) => {
                let sql = format!(
                    "SET GLOBAL rpl_semi_sync_source_wait_for_replica_count = {acks}, \
                     GLOBAL rpl_semi_sync_source_enabled = ON"
                );
                self.wire.run(WHAT, &sql, LONG).await?;
                observing::waits_for(&mut self.wire, WHAT, acks).await
            }
        }
    }

    async fn set_semi_sync_replica(&mut self, on: bool) -> Result<(), MysqlError> {
        self.set("semi-sync towards the source", "rpl_semi_sync_replica_enabled", switch(on)).await
    }

    async fn change_source(&mut self, source: &SourceSpec) -> Result<(), MysqlError> {
        replication::change_source(&mut self.wire, source).await
    }

    async fn repoint(&mut self, host: &str, port: u16) -> Result<(), MysqlError> {
        replication::repoint(&mut self.wire, host, port).await
    }

    async fn start_receiver(&mut self) -> Result<(), MysqlError> {
        replication::start(&mut self.wire, Thread::Receiver).await
    }

    async fn stop_receiver(&mut self, deadline: Duration) -> Result<(), MysqlError> {
        replication::stop(&mut self.wire, Thread::Receiver, deadline).await
    }

    async fn start_applier(&mut self) -> Result<(), MysqlError> {
        replication::start(&mut self.wire, Thread::Applier).await
    }

    async fn stop_applier(&mut self, deadline: Duration) -> Result<(), MysqlError> {
        replication::stop_applier(&mut self.wire, deadline).await
    }

    async fn forget_source(&mut self) -> Result<(), MysqlError> {
        self.wire.run("RESET REPLICA", "RESET REPLICA ALL FOR CHANNEL ''", LONG).await
    }

    async fn accounts(&mut self) -> Result<Vec<AccountSeen>, MysqlError> {
        accounts::list(&mut self.wire).await
    }

    async fn ensure_account(&mut self, account: &Account) -> Result<(), MysqlError> {
        accounts::ensure(&mut self.wire, account).await
    }

    async fn lock_accounts(&mut self, lock: &[String], unlock: &[String]) -> Result<(), MysqlError> {
        accounts::lock(&mut self.wire, lock, unlock).await
    }

    async fn schemas(&mut self) -> Result<Schemas, MysqlError> {
        schemas::list(&mut self.wire).await
    }

    async fn set_schema_read_only(&mut self, schema: &str, on: bool) -> Result<(), MysqlError> {
        schemas::set_read_only(&mut self.wire, schema, on).await
    }

    async fn tables_that_clone_empties(&mut self) -> Result<Vec<String>, MysqlError> {
        seeding::emptied_tables(&mut self.wire).await
    }

    async fn set_clone_donors(&mut self, donors: &str) -> Result<(), MysqlError> {
        seeding::set_donors(&mut self.wire, donors).await
    }

    async fn clone_from(&mut self, donor: &SourceSpec) -> Result<(), MysqlError> {
        seeding::clone_from(&mut self.wire, donor).await
    }

    async fn clone_progress(&mut self) -> Result<CloneSeen, MysqlError> {
        seeding::progress(&mut self.wire).await
    }

    async fn end_own_sessions(&mut self) -> Result<u32, MysqlError> {
        sessions::end_own(&mut self.wire).await
    }

    async fn end_client_sessions(&mut self) -> Result<u32, MysqlError> {
        sessions::end_clients(&mut self.wire).await
    }

    async fn end_sessions_of(&mut self, users: &[String], grace: Duration) -> Result<u32, MysqlError> {
        sessions::end_of(&mut self.wire, users, grace).await
    }

    async fn end_acknowledgers(&mut self, kept: &BTreeSet<String>) -> Result<BTreeSet<String>, MysqlError> {
        sessions::end_acknowledgers(&mut self.wire, kept).await
    }

    async fn enabled_events(&mut self) -> Result<Vec<ScheduledEvent>, MysqlError> {
        events::enabled(&mut self.wire).await
    }

    async fn enable_events(&mut self, events: &[ScheduledEvent]) -> Result<u32, MysqlError> {
        events::enable(&mut self.wire, events).await
    }

    async fn inject_empty(&mut self, gtids: &GtidSet) -> Result<(), MysqlError> {
        const WHAT: &str = "an empty transaction";
        let mut sealed = Sealed::begin(&mut self.wire);
        let wire = sealed.wire();
        let mut result = Ok(());
        for gtid in gtids.iter() {
            let sql = format!("SET SESSION gtid_next = {}", quote(&gtid));
            result = async {
                wire.run(WHAT, &sql, DEADLINE).await?;
                wire.run(WHAT, "BEGIN", DEADLINE).await?;
                wire.run(WHAT, "COMMIT", LONG).await
            }
            .await;
            if result.is_err() {
                break;
            }
        }
        let restored = async {
            if result.is_err() {
                wire.run(WHAT, "ROLLBACK", DEADLINE).await?;
            }
            wire.run(WHAT, "SET SESSION gtid_next = 'AUTOMATIC'", DEADLINE).await
        }
        .await;
        if restored.is_ok() {
            sealed.finish();
        }
        result.and(restored)
    }

    async fn harmless(&mut self, gtids: &GtidSet) -> Result<GtidSet, MysqlError> {
        if gtids.is_empty() {
            return Ok(GtidSet::new());
        }
        binlog::harmless(&mut self.wire, gtids).await
    }

    async fn error_log(&mut self, lines: usize) -> Result<Vec<String>, MysqlError> {
        let sql = format!(
            "SELECT CONCAT(LOGGED, ' [', PRIO, '] [', ERROR_CODE, '] ', DATA) FROM performance_schema.error_log ORDER \
             BY LOGGED DESC LIMIT {lines}"
        );
        let rows = self.wire.rows("the error log", &sql, DEADLINE).await?;
        let mut lines: Vec<String> = rows.iter().filter_map(|row| owned(row, 0)).collect();
        lines.reverse();
        Ok(lines)
    }

    async fn wait_executed(&mut self, gtids: &GtidSet, deadline: Duration) -> Result<bool, MysqlError> {
        if gtids.is_empty() {
            return Ok(true);
        }
        let set = quote(&gtids.to_string());
        // The server takes 0 for endless.
        let seconds = deadline.max(Duration::from_millis(1)).as_secs_f64();
        let sql = format!("SELECT WAIT_FOR_EXECUTED_GTID_SET({set}, {seconds})");
        let row = self.wire.row("the wait for transactions", &sql, deadline + DEADLINE).await?;
        Ok(number::<u32>(&row, 0) == Some(0))
    }

    async fn take_lock(&mut self, lock: &str) -> Result<bool, MysqlError> {
        locks::take(&mut self.wire, lock).await
    }

    async fn exchange_lock(&mut self, first: &str, second: &str) -> Result<(), MysqlError> {
        locks::exchange(&mut self.wire, first, second).await
    }

    async fn await_exchange(
        &mut self,
        first: &str,
        second: &str,
        user: &str,
        deadline: Duration,
    ) -> Result<LockSeen, MysqlError> {
        locks::await_exchange(&mut self.wire, first, second, user, deadline).await
    }
}

fn switch(on: bool) -> &'static str {
    if on { "ON" } else { "OFF" }
}
