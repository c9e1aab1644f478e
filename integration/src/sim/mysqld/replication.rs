//! Replication: it goes on by itself, whenever something has changed.

use schemadock_agent_plan::observed::ThreadState;

use super::server::Server;
use crate::sim::world::{Happening, Pid, State};

/// How long a slow server takes for what others do in milliseconds, in microseconds.
const SLOWLY: std::ops::Range<u64> = 10_000..500_000;
/// MySQL: the source refuses to send (purged), and: both have one `server_uuid`.
const FATAL: u32 = 13114;
const EQUAL_UUIDS: u32 = 13117;
/// MySQL: the source cannot be reached, or the login fails.
const UNREACHABLE: u32 = 2003;
const DENIED: u32 = 1045;

impl State {
    /// What each server does next.
    pub(in crate::sim) fn take_its_course(&mut self) {
        let pids: Vec<Pid> = self.servers.keys().copied().collect();
        for pid in pids {
            self.freeze_when_idle(pid);
            let server = &self.servers[&pid];
            if !server.up || server.paused {
                continue;
            }
            let Some(channel) = &self.data[&server.data].channel else { continue };
            let executed = &self.data[&server.data].executed;
            let connecting = server.receiver.state == ThreadState::Connecting && !server.receiver.busy;
            let applies = server.applier.state == ThreadState::On
                && !server.applier.busy
                && !executed.contains(&channel.retrieved);
            let mut lost = false;
            let mut arrives = false;
            if server.receiver.state == ThreadState::On {
                match server.source.and_then(|source| self.servers.get(&source)) {
                    None => lost = true,
                    Some(source) => {
                        let there = self.data[&source.data].sent();
                        let here = executed.union(&channel.retrieved);
                        let silent = source.paused || self.apart(&server.host, &source.host);
                        arrives = !silent && !server.receiver.busy && !here.contains(&there);
                    }
                }
            }
            if lost {
                self.with_receiver(pid, |server| {
                    server.receiver.state = ThreadState::Connecting;
                    server.receiver.error = Some((UNREACHABLE, "the source is gone".to_owned()));
                });
            }
            if connecting || lost {
                // SOURCE_CONNECT_RETRY is at least 1 s.
                let after = if self.servers[&pid].receiver.error.is_some() {
                    1_000_000..1_020_000
                } else {
                    3_000..20_000
                };
                self.with_receiver(pid, |server| server.receiver.busy = true);
                self.later(after, Happening::Connect(pid));
            }
            let slow = self.servers[&pid].slow;
            if arrives {
                self.with_receiver(pid, |server| server.receiver.busy = true);
                self.later(if slow { SLOWLY } else { 500..8_000 }, Happening::Arrive(pid));
            }
            if applies {
                self.with_receiver(pid, |server| server.applier.busy = true);
                self.later(if slow { SLOWLY } else { 500..20_000 }, Happening::Apply(pid));
            }
        }
    }

    fn with_receiver(&mut self, pid: Pid, change: impl FnOnce(&mut Server)) {
        if let Some(server) = self.servers.get_mut(&pid) {
            change(server);
        }
    }

    pub(in crate::sim) fn receiver_connects(&mut self, pid: Pid) {
        let Some(server) = self.servers.get_mut(&pid) else { return };
        server.receiver.busy = false;
        if server.receiver.state != ThreadState::Connecting || server.paused {
            return;
        }
        let server = &self.servers[&pid];
        let data = &self.data[&server.data];
        let Some(channel) = &data.channel else { return };
        let source = self.listener(&channel.host, channel.port);
        let source = source.filter(|source| !source.paused && !self.apart(&server.host, &source.host));
        let found = match source {
            None => Err((UNREACHABLE, "connection refused".to_owned(), false)),
            Some(source) => {
                let there = &self.data[&source.data];
                let account = there.accounts.get(&(channel.user.clone(), "%".to_owned()));
                if account.is_none_or(|kept| kept.locked || kept.password != channel.password.expose()) {
                    Err((DENIED, format!("access denied for {}", channel.user), false))
                } else if there.uuid == data.uuid {
                    Err((EQUAL_UUIDS, "source and replica have equal server UUIDs".to_owned(), true))
                } else if !data.received().contains(&there.purged) {
                    let why = "the source has purged required binary logs: 1236".to_owned();
                    Err((FATAL, why, true))
                } else {
                    Ok((source.pid, there.uuid.clone()))
                }
            }
        };
        let id = server.data;
        match found {
            Ok((source, uuid)) => {
                self.with_receiver(pid, |server| {
                    server.receiver.state = ThreadState::On;
                    server.receiver.error = None;
                    server.source = Some(source);
                });
                if let Some(channel) = self.data.get_mut(&id).and_then(|data| data.channel.as_mut()) {
                    channel.source_uuid = uuid;
                }
            }
            Err((number, text, fatal)) => self.with_receiver(pid, |server| {
                server.receiver.error = Some((number, text));
                if fatal {
                    server.receiver.state = ThreadState::Off;
                }
            }),
        }
    }

    pub(in crate::sim) fn transactions_arrive(&mut self, pid: Pid) {
        let Some(server) = self.servers.get_mut(&pid) else { return };
        server.receiver.busy = false;
        if server.receiver.state != ThreadState::On || server.paused {
            return;
        }
        let (own, source) = (server.data, server.source);
        let Some(source) = source.and_then(|source| self.servers.get(&source)) else { return };
        if source.paused || self.apart(&self.servers[&pid].host, &source.host) {
            return;
        }
        let (source, there) = (source.pid, self.data[&source.data].sent());
        let Some(data) = self.data.get_mut(&own) else { return };
        let news = there.minus(&data.received());
        if let Some(channel) = &mut data.channel {
            channel.retrieved = channel.retrieved.union(&news);
        }
        self.acknowledges(pid, source, &news);
    }

    pub(in crate::sim) fn transactions_are_applied(&mut self, pid: Pid) {
        let Some(server) = self.servers.get_mut(&pid) else { return };
        server.applier.busy = false;
        if server.applier.state != ThreadState::On || server.paused {
            return;
        }
        let id = server.data;
        let Some(data) = self.data.get_mut(&id) else { return };
        data.executed = data.received();
    }
}
