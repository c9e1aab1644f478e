//! Commits that wait for acknowledgements (`AFTER_SYNC`), and the freeze that waits for them.
//!
//! An acknowledgement says how far a replica is, and counts for all commits up to there; it is sent only for what has
//! just arrived (L13). The server remembers it when the replica has gone.

use schemadock_schema::HostName;
use schemadock_schema::gtid::GtidSet;

use crate::sim::world::{Happening, Pid, State};

/// A commit that is in the binary log, and waits.
pub(in crate::sim) struct Waiting {
    /// Its place among the commits of this process.
    pub(super) ticket: u64,
    gtid: GtidSet,
    /// A client waits for the answer, not an agent.
    client: bool,
}

/// How many clients wait before others find no connection.
const CLIENTS: usize = 8;

impl State {
    /// A commit begins; the ticket of one that waits.
    pub(super) fn commit(&mut self, pid: Pid, client: bool) -> Option<u64> {
        let (server, data) = self.server_and_data(pid);
        if !server.semi_sync_source {
            let gtid = data.commit();
            if client {
                let instance = server.instance.clone();
                self.client_is_told(&instance, &gtid);
            }
            return None;
        }
        server.ticket += 1;
        let ticket = server.ticket;
        server.waiting.push(Waiting { ticket, gtid: data.write(), client });
        Some(ticket)
    }

    /// Clients write to the server that is open, if one is.
    pub(in crate::sim) fn client_writes(&mut self) {
        let open = self.servers.values().find(|server| {
            let busy = server.waiting.iter().filter(|commit| commit.client).count() >= CLIENTS;
            server.writable() && !server.by_hand && !server.paused && server.freezing.is_none() && !busy
        });
        let Some(pid) = open.map(|server| server.pid) else { return };
        for _ in 0..self.between(&(1..4)).as_micros() {
            self.commit(pid, true);
        }
    }

    /// What has arrived at a receiver that acknowledges is acknowledged.
    pub(super) fn acknowledges(&mut self, receiver: Pid, source: Pid, news: &GtidSet) {
        let (Some(server), Some(source)) = (self.servers.get(&receiver), self.servers.get(&source)) else {
            return;
        };
        let arrived = source.waiting.iter().filter(|commit| news.contains(&commit.gtid));
        let Some(ticket) = arrived.map(|commit| commit.ticket).max().filter(|_| server.acknowledging) else {
            return;
        };
        let (source, host, server_id) = (source.pid, server.host.clone(), server.server_id);
        self.later(100..3_000, Happening::Acknowledged { source, host, server_id, ticket });
    }

    pub(in crate::sim) fn acknowledged(&mut self, source: Pid, host: &HostName, server_id: u32, ticket: u64) {
        let Some(server) = self.servers.get(&source) else { return };
        if server.paused || self.apart(host, &server.host) {
            let host = host.clone();
            return self.later(100_000..200_000, Happening::Acknowledged { source, host, server_id, ticket });
        }
        if let Some(server) = self.servers.get_mut(&source) {
            let known = server.acknowledged.entry(server_id).or_insert(0);
            *known = ticket.max(*known);
        }
        self.release(source);
    }

    /// Commits that wait for nothing any more are committed, and those who wait are told.
    fn release(&mut self, pid: Pid) {
        let Some(server) = self.servers.get_mut(&pid) else { return };
        let (count, acknowledged) = (server.acks as usize, &server.acknowledged);
        let enough = |commit: &Waiting| {
            acknowledged.values().filter(|ticket| **ticket >= commit.ticket).count() >= count
        };
        let released = server.waiting.iter().take_while(|commit| enough(commit)).count();
        let released: Vec<Waiting> = server.waiting.drain(..released).collect();
        self.committed(pid, released, true);
    }

    fn committed(&mut self, pid: Pid, commits: Vec<Waiting>, told: bool) {
        for commit in commits {
            let (server, data) = self.server_and_data(pid);
            data.executed = data.executed.union(&commit.gtid);
            data.written = data.written.minus(&commit.gtid);
            server.answered += u64::from(told);
            let instance = server.instance.clone();
            if commit.client && told {
                self.client_is_told(&instance, &commit.gtid);
            }
        }
    }

    /// F16: a polite shutdown, and semi-sync turned off, answer OK to what waits.
    pub(in crate::sim) fn all_are_told(&mut self, pid: Pid) {
        let Some(server) = self.servers.get_mut(&pid) else { return };
        let all = std::mem::take(&mut server.waiting);
        self.committed(pid, all, true);
    }

    /// `offline_mode=ON`: clients hear nothing of their commits any more; markers are an administrator's.
    pub(super) fn clients_are_cut_off(&mut self, pid: Pid) {
        let Some(server) = self.servers.get_mut(&pid) else { return };
        let (clients, others) =
            std::mem::take(&mut server.waiting).into_iter().partition(|commit| commit.client);
        server.waiting = others;
        self.committed(pid, clients, false);
    }

    pub(super) fn set_semi_sync(&mut self, pid: Pid, acks: Option<u32>) {
        let Some(server) = self.servers.get_mut(&pid) else { return };
        server.semi_sync_source = acks.is_some();
        server.acks = acks.unwrap_or(server.acks);
        match acks {
            Some(_) => self.release(pid),
            None => {
                server.acknowledged.clear();
                self.all_are_told(pid);
            }
        }
    }

    /// A freeze comes into force once no commit is under way, whoever has asked for it.
    pub(super) fn freeze_when_idle(&mut self, pid: Pid) {
        let Some(server) = self.servers.get_mut(&pid) else { return };
        if server.freezing.is_some() && server.waiting.is_empty() {
            (server.super_read_only, server.read_only) = (true, true);
            (server.by_hand, server.freezing) = (false, None);
        }
    }
}
