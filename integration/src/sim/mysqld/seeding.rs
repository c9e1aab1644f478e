//! CLONE.

use std::time::Duration;

use schemadock_agent::mysqld::{MysqlError, SourceSpec};
use schemadock_agent_plan::observed::{CloneSeen, CloneState};

use super::server::Cloning;
use super::statement::refused;
use crate::sim::world::{DataId, Happening, Pid, State};

const BYTES: u64 = 1 << 30;
/// MySQL: the donor is not among those set; it cannot be reached or refuses; the statement was ended.
const NOT_SET: u16 = 3869;
const DONOR: u16 = 3862;
const ENDED: u16 = 1317;

impl State {
    pub(super) fn clone_begins(
        &mut self,
        pid: Pid,
        session: u64,
        donor: &SourceSpec,
    ) -> Result<(), MysqlError> {
        const WHAT: &str = "CLONE";
        let server = &self.servers[&pid];
        let id = server.data;
        if server.cloning.is_some() {
            return refused(WHAT, 3634, "too many concurrent clone operations");
        }
        if server.donors != format!("{}:{}", donor.host, donor.port) {
            return refused(WHAT, NOT_SET, "the donor is not in clone_valid_donor_list");
        }
        if server.super_read_only {
            return refused(WHAT, 1290, "the server is super_read_only");
        }
        let account = (donor.user.clone(), "%".to_owned());
        let found = self.listener(&donor.host, donor.port).filter(|there| {
            let kept = self.data[&there.data].accounts.get(&account);
            let reached = !there.paused && !self.apart(&server.host, &there.host);
            reached && kept.is_some_and(|kept| !kept.locked && kept.password == donor.password.expose())
        });
        let Some(from) = found.map(|there| there.pid).filter(|from| *from != pid) else {
            return refused(WHAT, DONOR, "the donor cannot be reached");
        };
        self.judge_seed(pid);
        self.note(format!("{}: CLONE into {} begins", self.servers[&pid].host, self.servers[&pid].instance));
        if let Some(server) = self.servers.get_mut(&pid) {
            server.cloning = Some(Cloning { donor: from, session });
        }
        if let Some(data) = self.data.get_mut(&id) {
            data.gutted = true;
            data.cloned =
                CloneSeen { state: CloneState::InProgress, bytes: 0, bytes_total: BYTES, error: None };
        }
        let after = self.between(&(1_000_000..6_000_000));
        self.coming.push((after.max(Duration::from_secs(1)), Happening::Cloned(pid)));
        Ok(())
    }

    /// The recipient keeps its `auto.cnf`; its logs begin behind what came; accounts and the channel's settings come,
    /// too. Then the server ends, with code 0.
    pub(in crate::sim) fn clone_ends(&mut self, pid: Pid) {
        let Some(server) = self.servers.get(&pid) else { return };
        let (id, instance) = (server.data, server.instance.clone());
        let Some(cloning) = &server.cloning else { return };
        let donor = self.servers.get(&cloning.donor);
        let donor = donor.filter(|donor| donor.up && !self.apart(&server.host, &donor.host));
        let Some(donor) = donor.map(|donor| self.data[&donor.data].clone()) else {
            if let Some(server) = self.servers.get_mut(&pid) {
                server.cloning = None;
            }
            return self.clone_failed(id, DONOR, "the donor is gone");
        };
        let Some(data) = self.data.get_mut(&id) else { return };
        let channel = donor.channel.map(|mut channel| {
            channel.retrieved = Default::default();
            channel
        });
        data.purged = donor.executed.clone();
        data.executed = donor.executed;
        data.written = Default::default();
        data.accounts = donor.accounts;
        data.channel = channel;
        data.gutted = donor.gutted;
        data.cloned =
            CloneSeen { state: CloneState::Completed, bytes: BYTES, bytes_total: BYTES, error: None };
        if let Some(server) = self.servers.get_mut(&pid) {
            server.cloning = None;
        }
        self.note(format!("CLONE into {instance} is complete"));
        self.server_ends(pid, 0, "a CLONE ends with a restart, and nobody restarts it");
    }

    pub(super) fn clone_failed(&mut self, data: DataId, number: u16, why: &str) {
        if let Some(data) = self.data.get_mut(&data) {
            let error = Some((u32::from(number), why.to_owned()));
            data.cloned = CloneSeen { state: CloneState::Failed, bytes: 0, bytes_total: 0, error };
        }
    }

    /// Ends a session; what it was at is given up.
    pub(super) fn end_session(&mut self, pid: Pid, session: u64) {
        let Some(server) = self.servers.get_mut(&pid) else { return };
        server.sessions.remove(&session);
        server.freezing.take_if(|freezing| *freezing == session);
        if server.cloning.as_ref().is_some_and(|cloning| cloning.session == session) {
            let data = server.data;
            server.cloning = None;
            self.clone_failed(data, ENDED, "the statement was ended");
        }
    }
}
