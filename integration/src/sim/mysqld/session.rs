//! The verbs of a session.

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use schemadock_agent::mysqld::{LockSeen, MysqlError, Position, ScheduledEvent, Session, SourceSpec};
use schemadock_agent_plan::accounts::{Account, AccountKind};
use schemadock_agent_plan::frozen::Schemas;
use schemadock_agent_plan::observed::{
    AccountSeen, CloneSeen, ServerSeen, SourceSeen, ThreadState, Variables,
};
use schemadock_schema::gtid::GtidSet;
use tokio::time::Instant;

use super::data::{AccountKept, Channel};
use super::server::Server;
use super::statement::{STEP, SimSession, refused};
use crate::sim::containers::START_FAILS;
use crate::sim::world::State;

/// Variables that only a start can set.
const STATIC: [&str; 8] = [
    "port",
    "bind_address",
    "datadir",
    "socket",
    "log_bin",
    "innodb_buffer_pool_chunk_size",
    "report_host",
    START_FAILS,
];
const LOCK: &str = "the lock by name";

/// A replication thread must be off for this.
fn off(what: &'static str, thread: ThreadState, number: u16) -> Result<(), MysqlError> {
    match thread {
        ThreadState::Off => Ok(()),
        _ => refused(what, number, "a replication thread runs"),
    }
}

#[async_trait]
impl Session for SimSession {
    async fn observe(&mut self) -> Result<ServerSeen, MysqlError> {
        self.look("the observation", State::server_seen).await
    }

    async fn position(&mut self) -> Result<Position, MysqlError> {
        self.look("the look at the position", |state, server| {
            let seen = state.server_seen(server);
            Position {
                server_uuid: seen.server_uuid,
                super_read_only: seen.super_read_only,
                applies: seen.channel.is_some_and(|channel| channel.applier != ThreadState::Off),
                executed: seen.gtid_executed,
            }
        })
        .await
    }

    async fn observe_source(&mut self, account: &str) -> Result<SourceSeen, MysqlError> {
        self.look("the look at the source", |state, server| state.source_seen(server, account)).await
    }

    async fn variables(&mut self, names: &[&str]) -> Result<Variables, MysqlError> {
        self.look("the variables", |_, server| {
            let asked = names.iter().filter_map(|name| server.variables.get_key_value(*name));
            asked.map(|(name, value)| (name.clone(), value.clone())).collect()
        })
        .await
    }

    async fn set_variable(&mut self, name: &str, value: Option<&str>) -> Result<(), MysqlError> {
        const WHAT: &str = "the change of a variable";
        let (name, value) = (name.to_owned(), value.map(str::to_owned));
        self.set(WHAT, |server, _| {
            if STATIC.contains(&name.as_str()) {
                return refused(WHAT, 1238, "it is a read only variable");
            }
            match value {
                Some(value) => drop(server.variables.insert(name, value)),
                None => drop(server.variables.remove(&name)),
            }
            Ok(())
        })
        .await
    }

    async fn set_offline_mode(&mut self, on: bool) -> Result<(), MysqlError> {
        let what = if on { "offline_mode=ON" } else { "offline_mode=OFF" };
        self.change(what, |state, pid| {
            let server = state.server_and_data(pid).0;
            server.offline_mode = on;
            let told = format!("{}: {} is told: {what}", server.host, server.instance);
            state.note(told);
            if on {
                state.clients_are_cut_off(pid);
            }
            Ok(())
        })
        .await
    }

    async fn set_super_read_only(&mut self, on: bool, deadline: Duration) -> Result<(), MysqlError> {
        let what = if on { "super_read_only=ON" } else { "super_read_only=OFF" };
        let own = self.id;
        self.set(what, |server, _| {
            // It comes into force as soon as no commit is under way.
            server.freezing = (on && !server.super_read_only).then_some(own);
            server.super_read_only &= on;
            Ok(())
        })
        .await?;
        if !on {
            return Ok(());
        }
        let until = Instant::now() + deadline;
        loop {
            let freezes = |_: &State, server: &Server| (server.freezing == Some(own), server.super_read_only);
            match self.look(what, freezes).await? {
                (false, true) => return Ok(()),
                (false, false) => return refused(what, 1317, "the statement was ended"),
                (true, _) if Instant::now() >= until => {
                    self.set("the end of a freeze", |server, _| {
                        server.freezing.take_if(|freezing| *freezing == own);
                        Ok(())
                    })
                    .await?;
                }
                (true, _) => tokio::time::sleep(STEP).await,
            }
        }
    }

    async fn set_read_only(&mut self, on: bool) -> Result<(), MysqlError> {
        let what = if on { "read_only=ON" } else { "read_only=OFF" };
        self.set(what, |server, _| {
            server.read_only = on;
            server.super_read_only &= on;
            // Whatever a person did before: from here on it is the agent's doing.
            server.by_hand = false;
            Ok(())
        })
        .await
    }

    async fn marker(&mut self, deadline: Duration) -> Result<(), MysqlError> {
        const WHAT: &str = "the marker";
        let until = Instant::now() + deadline;
        // Behind a freeze that waits, every commit waits.
        while self.look(WHAT, |_, server| server.freezing.is_some()).await? {
            if Instant::now() >= until {
                return Err(self.late(WHAT, deadline));
            }
            tokio::time::sleep(STEP).await;
        }
        let ticket = self
            .change(WHAT, |state, pid| {
                let server = &state.servers[&pid];
                if server.super_read_only {
                    return refused(WHAT, 1290, "the server is super_read_only");
                }
                state.note(format!("{}: {} commits a marker", server.host, server.instance));
                Ok(state.commit(pid, false))
            })
            .await?;
        let waits = |server: &Server| server.waiting.iter().any(|commit| Some(commit.ticket) == ticket);
        while self.look(WHAT, |_, server| waits(server)).await? {
            if Instant::now() >= until {
                return Err(self.late(WHAT, deadline));
            }
            tokio::time::sleep(STEP).await;
        }
        Ok(())
    }

    async fn set_semi_sync_source(&mut self, acks: Option<u32>) -> Result<(), MysqlError> {
        self.change("semi-sync towards replicas", |state, pid| {
            let server = &state.servers[&pid];
            state.note(format!("{}: {} waits for {acks:?} acknowledgements", server.host, server.instance));
            state.set_semi_sync(pid, acks);
            Ok(())
        })
        .await
    }

    async fn set_semi_sync_replica(&mut self, on: bool) -> Result<(), MysqlError> {
        self.set("semi-sync towards the source", |server, _| {
            server.semi_sync_replica = on;
            Ok(())
        })
        .await
    }

    async fn change_source(&mut self, source: &SourceSpec) -> Result<(), MysqlError> {
        const WHAT: &str = "CHANGE REPLICATION SOURCE";
        let channel = Channel {
            host: source.host.clone(),
            port: source.port,
            user: source.user.clone(),
            password: source.password.clone(),
            retrieved: GtidSet::new(),
            source_uuid: None,
        };
        self.change(WHAT, |state, pid| {
            let server = &state.servers[&pid];
            off(WHAT, server.receiver.state, 3021)?;
            off(WHAT, server.applier.state, 1192)?;
            state.judge_relay_logs(pid, WHAT);
            let (server, data) = state.server_and_data(pid);
            let told = format!(
                "{}: {} is to follow {}:{}",
                server.host, server.instance, channel.host, channel.port
            );
            (server.receiver.error, server.applier.error) = (None, None);
            data.channel = Some(channel);
            state.note(told);
            Ok(())
        })
        .await
    }

    async fn repoint(&mut self, host: &str, port: u16) -> Result<(), MysqlError> {
        const WHAT: &str = "the change of the source's address";
        let host = host.to_owned();
        self.set(WHAT, |server, data| {
            off(WHAT, server.receiver.state, 3021)?;
            if server.applier.state != ThreadState::On {
                return Err(MysqlError::Answer { what: WHAT, why: "the applier is not ON".to_owned() });
            }
            let Some(channel) = &mut data.channel else { return refused(WHAT, 1617, "no channel") };
            (channel.host, channel.port, channel.source_uuid) = (host, port, None);
            server.receiver.error = None;
            Ok(())
        })
        .await
    }

    async fn start_receiver(&mut self) -> Result<(), MysqlError> {
        const WHAT: &str = "the receiver's start";
        self.set(WHAT, |server, data| {
            if data.channel.is_none() {
                return refused(WHAT, 1200, "the server is not configured as replica");
            }
            if server.receiver.state == ThreadState::Off {
                server.receiver.state = ThreadState::Connecting;
                server.acknowledging = server.semi_sync_replica;
                server.receiver.error = None;
            }
            Ok(())
        })
        .await
    }

    async fn stop_receiver(&mut self, deadline: Duration) -> Result<(), MysqlError> {
        const WHAT: &str = "the receiver's stop";
        // One that is connecting takes 2 s.
        let connecting =
            self.look(WHAT, |_, server| server.receiver.state == ThreadState::Connecting).await?;
        if connecting {
            self.life.pause(&(1_000_000..2_000_000)).await;
        }
        self.set(WHAT, |server, _| {
            server.receiver.state = ThreadState::Off;
            server.acknowledging = false;
            server.source = None;
            Ok(())
        })
        .await?;
        self.await_off(WHAT, |server| server.receiver.state, deadline).await
    }

    async fn start_applier(&mut self) -> Result<(), MysqlError> {
        const WHAT: &str = "the applier's start";
        self.set(WHAT, |server, data| {
            if data.channel.is_none() {
                return refused(WHAT, 1200, "the server is not configured as replica");
            }
            server.applier.state = ThreadState::On;
            server.applier.error = None;
            Ok(())
        })
        .await
    }

    async fn stop_applier(&mut self, deadline: Duration) -> Result<(), MysqlError> {
        const WHAT: &str = "the applier's stop";
        self.set(WHAT, |server, _| {
            server.applier.state = ThreadState::Off;
            Ok(())
        })
        .await?;
        self.await_off(WHAT, |server| server.applier.state, deadline).await
    }

    async fn forget_source(&mut self) -> Result<(), MysqlError> {
        const WHAT: &str = "RESET REPLICA ALL";
        self.change(WHAT, |state, pid| {
            let server = &state.servers[&pid];
            off(WHAT, server.receiver.state, 3081)?;
            off(WHAT, server.applier.state, 3081)?;
            state.judge_relay_logs(pid, WHAT);
            let (server, data) = state.server_and_data(pid);
            let told = format!("{}: {} forgets its source", server.host, server.instance);
            (server.receiver.error, server.applier.error) = (None, None);
            data.channel = None;
            state.note(told);
            Ok(())
        })
        .await
    }

    async fn accounts(&mut self) -> Result<Vec<AccountSeen>, MysqlError> {
        self.look("the accounts", |state, server| {
            let accounts = &state.data[&server.data].accounts;
            let seen = accounts.iter().map(|((user, host), kept)| AccountSeen {
                user: user.clone(),
                host: host.clone(),
                locked: kept.locked,
            });
            seen.collect()
        })
        .await
    }

    async fn ensure_account(&mut self, account: &Account) -> Result<(), MysqlError> {
        const WHAT: &str = "an account";
        let who = (account.user.clone(), account.host.to_owned());
        let locked = false;
        let kept = AccountKept { password: account.password.expose().to_owned(), locked };
        debug_assert!(account.kind != AccountKind::Agent || account.host == "localhost");
        self.set(WHAT, |server, data| {
            if server.super_read_only {
                return refused(WHAT, 1290, "the server is super_read_only");
            }
            let locked = data.accounts.get(&who).is_some_and(|before| before.locked);
            data.accounts.insert(who, AccountKept { locked, ..kept });
            Ok(())
        })
        .await
    }

    async fn lock_accounts(&mut self, lock: &[String], unlock: &[String]) -> Result<(), MysqlError> {
        const WHAT: &str = "the lock of accounts";
        self.set(WHAT, |server, data| {
            if server.super_read_only {
                return refused(WHAT, 1290, "the server is super_read_only");
            }
            for ((user, _), account) in &mut data.accounts {
                account.locked = (account.locked || lock.contains(user)) && !unlock.contains(user);
            }
            Ok(())
        })
        .await
    }

    async fn schemas(&mut self) -> Result<Schemas, MysqlError> {
        self.look("the schemas", |state, server| state.data[&server.data].schemas.clone()).await
    }

    async fn set_schema_read_only(&mut self, schema: &str, on: bool) -> Result<(), MysqlError> {
        const WHAT: &str = "the schemas";
        self.set(WHAT, |server, data| {
            if server.super_read_only {
                return refused(WHAT, 1290, "the server is super_read_only");
            }
            match data.schemas.get_mut(schema) {
                Some(read_only) => *read_only = on,
                None => return refused(WHAT, 3503, "there is no such schema"),
            }
            Ok(())
        })
        .await
    }

    async fn end_acknowledgers(&mut self, kept: &BTreeSet<String>) -> Result<BTreeSet<String>, MysqlError> {
        let users = self
            .look("the end of strangers", |state, server| {
                let acknowledging = state.receivers_of(server.pid).filter(|receiver| receiver.acknowledging);
                let users = acknowledging.filter_map(|receiver| state.user_of(receiver));
                users.filter(|user| !kept.contains(user)).collect::<BTreeSet<String>>()
            })
            .await?;
        let list: Vec<String> = users.iter().cloned().collect();
        if !list.is_empty() {
            self.end_sessions_of(&list, Duration::ZERO).await?;
        }
        Ok(users)
    }

    async fn end_sessions_of(&mut self, users: &[String], _grace: Duration) -> Result<u32, MysqlError> {
        self.change("the end of receivers", |state, pid| {
            let cut = state
                .receivers_of(pid)
                .filter(|receiver| state.user_of(receiver).is_some_and(|user| users.contains(&user)));
            let cut: Vec<i32> = cut.map(|receiver| receiver.pid).collect();
            for receiver in &cut {
                if let Some(server) = state.servers.get_mut(receiver) {
                    server.receiver.state = ThreadState::Connecting;
                    server.source = None;
                }
            }
            Ok(cut.len() as u32)
        })
        .await
    }

    async fn tables_that_clone_empties(&mut self) -> Result<Vec<String>, MysqlError> {
        self.look("the engines of all tables", |_, _| Vec::new()).await
    }

    async fn set_clone_donors(&mut self, donors: &str) -> Result<(), MysqlError> {
        let donors = donors.to_owned();
        self.set("the donors", |server, _| {
            server.donors = donors;
            Ok(())
        })
        .await
    }

    async fn clone_from(&mut self, donor: &SourceSpec) -> Result<(), MysqlError> {
        let id = self.id;
        self.change("CLONE", |state, pid| state.clone_begins(pid, id, donor)).await?;
        loop {
            self.life.pause(&(20_000..40_000)).await;
            self.life.moment().await;
            let ended = self.life.world().look(|state| match state.servers.get(&self.pid) {
                // It has ended with the server, or the connection has broken: the server's agent looks.
                None => Some(None),
                Some(server) if server.cloning.is_none() => {
                    Some(state.data[&server.data].cloned.error.clone())
                }
                Some(_) => None,
            });
            match ended {
                Some(None) => return Ok(()),
                Some(Some((number, message))) => return refused("CLONE", number as u16, &message),
                None => {}
            }
        }
    }

    async fn clone_progress(&mut self) -> Result<CloneSeen, MysqlError> {
        self.look("the CLONE's progress", |state, server| state.data[&server.data].cloned.clone()).await
    }

    async fn end_own_sessions(&mut self) -> Result<u32, MysqlError> {
        let own = self.id;
        self.change("the end of own sessions", |state, pid| {
            let server = &state.servers[&pid];
            let user = server.sessions.get(&own).map(|login| login.user.clone());
            let others = server
                .sessions
                .iter()
                .filter(|(id, login)| **id != own && Some(&login.user) == user.as_ref());
            let ended: Vec<u64> = others.map(|(id, _)| *id).collect();
            for id in &ended {
                state.end_session(pid, *id);
            }
            // A statement outlives the session that asked for it; it is the same user's.
            state.server_and_data(pid).0.freezing.take_if(|freezing| *freezing != own);
            Ok(ended.len() as u32)
        })
        .await
    }

    async fn end_client_sessions(&mut self) -> Result<u32, MysqlError> {
        self.look("the end of client sessions", |_, _| 0).await
    }

    async fn enabled_events(&mut self) -> Result<Vec<ScheduledEvent>, MysqlError> {
        self.look("the scheduled events", |_, _| Vec::new()).await
    }

    async fn enable_events(&mut self, _events: &[ScheduledEvent]) -> Result<u32, MysqlError> {
        self.look("the scheduled events", |_, _| 0).await
    }

    async fn inject_empty(&mut self, gtids: &GtidSet) -> Result<(), MysqlError> {
        let gtids = gtids.clone();
        self.set("empty transactions", |_, data| {
            data.executed = data.executed.union(&gtids);
            Ok(())
        })
        .await
    }

    async fn harmless(&mut self, gtids: &GtidSet) -> Result<GtidSet, MysqlError> {
        let gtids = gtids.clone();
        self.look("the binary log", move |state, server| {
            gtids.minus(&gtids.minus(&state.data[&server.data].harmless))
        })
        .await
    }

    async fn error_log(&mut self, _lines: usize) -> Result<Vec<String>, MysqlError> {
        self.look("the error log", |_, _| Vec::new()).await
    }

    async fn wait_executed(&mut self, gtids: &GtidSet, deadline: Duration) -> Result<bool, MysqlError> {
        let until = Instant::now() + deadline;
        loop {
            let there = |state: &State, server: &Server| state.data[&server.data].executed.contains(gtids);
            if self.look("the wait for transactions", there).await? {
                return Ok(true);
            }
            if Instant::now() >= until {
                return Ok(false);
            }
            tokio::time::sleep(STEP).await;
        }
    }

    async fn take_lock(&mut self, lock: &str) -> Result<bool, MysqlError> {
        let own = self.id;
        self.change(LOCK, |state, pid| {
            let server = state.server_and_data(pid).0;
            server.locks.retain(|_, session| *session != own);
            let free = server.lock_of(lock).is_none();
            if free {
                server.locks.insert(lock.to_owned(), own);
            }
            Ok(free)
        })
        .await
    }

    async fn exchange_lock(&mut self, first: &str, second: &str) -> Result<(), MysqlError> {
        let own = self.id;
        self.set(LOCK, |server, _| {
            if server.lock_of(first) != Some(own) || server.lock_of(second).is_some() {
                return Err(MysqlError::Answer { what: LOCK, why: "it is not this session's".to_owned() });
            }
            server.locks.remove(first);
            server.locks.insert(second.to_owned(), own);
            Ok(())
        })
        .await
    }

    async fn await_exchange(
        &mut self,
        first: &str,
        second: &str,
        user: &str,
        deadline: Duration,
    ) -> Result<LockSeen, MysqlError> {
        let until = Instant::now() + deadline;
        loop {
            let locks = |_: &State, server: &Server| {
                let of_user = |session: &u64| server.sessions[session].user == user;
                (server.lock_of(first), server.lock_of(second).filter(of_user))
            };
            match self.look(LOCK, locks).await? {
                (_, Some(_)) => return Ok(LockSeen::Exchanged),
                (None, None) => return Ok(LockSeen::Free),
                (Some(_), None) if Instant::now() >= until => return Ok(LockSeen::Held),
                (Some(_), None) => tokio::time::sleep(STEP).await,
            }
        }
    }
}
