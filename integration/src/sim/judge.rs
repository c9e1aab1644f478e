//! What must hold after every change of the world, whatever has happened: the rules of the project's leadership design
//! as far as one agent a host can break them. The first rule that breaks ends the run.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use schemadock_agent_plan::record::Record;
use schemadock_schema::fleet::Fleet;
use schemadock_schema::gtid::GtidSet;
use schemadock_schema::keys::Keys;
use schemadock_schema::leadership::{Durability, Handover, Leadership, LeadershipPhase, LineageEntry};
use schemadock_schema::{ClusterName, HostName, InstanceName};
use schemadock_store::Entry;
use tokio::time::Instant;

use super::fleet::cluster_of;
use super::mysqld::server::Server;
use super::store::SimEtcd;
use super::world::{DataId, Pid, State};

/// More writes of one host than any change needs, within a time.
const WRITES: u32 = 150;
const WINDOW: Duration = Duration::from_secs(10);

/// The id of the fleet.
pub const FLEET: &str = "sim";

/// What the judge remembers.
#[derive(Default)]
pub(super) struct Judge {
    keys: Option<Keys>,
    clusters: BTreeSet<ClusterName>,
    /// Who leads, as etcd has it now: what the record means with how its handover ended, and the revisions of both.
    records: BTreeMap<ClusterName, ((i64, i64), Option<Leadership>)>,
    terms: BTreeMap<ClusterName, u64>,
    /// The newest term that each data directory has accepted.
    accepted: BTreeMap<(DataId, ClusterName), u64>,
    /// The store is not this fleet's, or went back.
    pub(super) strange: bool,
    /// How often each host has written since when.
    writes: BTreeMap<HostName, (Instant, u32)>,
    /// Commits that clients were told of.
    pub(super) acknowledged: GtidSet,
    /// Those that they were told of while leadership said that they are on voters.
    promised: GtidSet,
    /// Servers that were open for writes.
    open: BTreeSet<Pid>,
}

impl Judge {
    /// Tells which clusters there are.
    pub(super) fn know(&mut self, keys: &Keys, clusters: BTreeSet<ClusterName>) {
        self.keys = Some(keys.clone());
        self.clusters = clusters;
    }

    /// Whether a handover is under way.
    pub(super) fn handing_over(&self) -> bool {
        let records = self.records.values().filter_map(|(_, record)| record.as_ref());
        records.into_iter().any(|record| record.phase == LeadershipPhase::Handover)
    }

    pub(super) fn record_of(&self, instance: &InstanceName) -> Option<&Leadership> {
        self.records.get(&cluster_of(instance))?.1.as_ref()
    }
}

impl State {
    /// What must hold at every moment.
    pub(super) fn pass_judgement(&mut self, etcd: &SimEtcd) {
        self.read_leaderships(etcd);
        let mut open: BTreeMap<ClusterName, InstanceName> = BTreeMap::new();
        let before = std::mem::take(&mut self.judge.open);
        let mut now_open = BTreeSet::new();
        let mut wrong = None;
        for server in self.servers.values() {
            let data = &self.data[&server.data];
            if server.up && !server.offline_mode && data.gutted && server.cloning.is_none() {
                wrong = Some(format!("{} takes clients on data that a CLONE has emptied", server.instance));
            }
            if !server.writable() || server.by_hand {
                continue;
            }
            now_open.insert(server.pid);
            let record = self.judge.record_of(&server.instance);
            let undecided = record.is_some_and(|record| record.phase == LeadershipPhase::Handover);
            if undecided && !before.contains(&server.pid) {
                wrong =
                    Some(format!("{} opens for writes in a handover that is not decided", server.instance));
            }
            let lacks = self.judge.promised.minus(&data.executed);
            if !lacks.is_empty() {
                wrong = Some(format!("{} is open for writes and lacks {lacks}", server.instance));
            }
            if let Some(other) = open.insert(cluster_of(&server.instance), server.instance.clone()) {
                wrong = Some(format!("{other} and {} are both open for writes", server.instance));
            }
            if !self.leads(server) {
                wrong = Some(format!(
                    "{} is open for writes on data that leadership does not name",
                    server.instance
                ));
            }
        }
        self.judge.open = now_open;
        if let Some(wrong) = wrong {
            self.break_rule(wrong);
        }
    }

    /// A client hears that its commit is done (I2).
    pub(super) fn client_is_told(&mut self, instance: &InstanceName, gtid: &GtidSet) {
        let record = self.judge.record_of(instance);
        let promised =
            record.is_some_and(|record| record.durability == Durability::Lossless && record.acks > 0);
        self.judge.acknowledged = self.judge.acknowledged.union(gtid);
        if promised {
            self.judge.promised = self.judge.promised.union(gtid);
        }
    }

    /// L2: this master, this data directory; steady, or about to hand over.
    fn leads(&self, server: &Server) -> bool {
        let uuid = self.data[&server.data].uuid.as_deref();
        self.judge.record_of(&server.instance).is_some_and(|record| {
            record.phase != LeadershipPhase::Revoking
                && record.master.as_ref() == Some(&server.instance)
                && record.last_lineage().map(|last| last.server_uuid.as_str()) == uuid
        })
    }

    /// I3: terms never go back, and whoever leads anew leads in a new one. What a store says that is not this fleet's, or
    /// went back, is not believed; while it is there nobody opens.
    fn read_leaderships(&mut self, etcd: &SimEtcd) {
        let Some(keys) = self.judge.keys.clone() else { return };
        let fleet =
            etcd.peek(&keys.fleet()).and_then(|entry| serde_json::from_slice::<Fleet>(&entry.value).ok());
        let ours = fleet.is_some_and(|fleet| fleet.id == FLEET) && !self.judge.strange;
        if !ours {
            return;
        }
        let clusters: Vec<ClusterName> = self.judge.clusters.iter().cloned().collect();
        for cluster in clusters {
            let entry = etcd.peek(&keys.leadership(&cluster));
            let record: Option<Leadership> =
                entry.as_ref().and_then(|entry| serde_json::from_slice(&entry.value).ok());
            let end = record.as_ref().and_then(|record| etcd.peek(&keys.handover(&cluster, record.term)));
            let revision = |entry: &Option<Entry>| entry.as_ref().map_or(0, |entry| entry.mod_revision);
            let revisions = (revision(&entry), revision(&end));
            let before = self.judge.records.get(&cluster);
            if before.is_some_and(|(known, _)| *known == revisions) {
                continue;
            }
            let end: Option<Handover> = end.and_then(|entry| serde_json::from_slice(&entry.value).ok());
            let record = record.map(|record| record.with_handover(end.as_ref()));
            let led = |record: Option<&Leadership>| record.and_then(|record| record.lineage.last().cloned());
            let (old, new) = (before.and_then(|(_, old)| led(old.as_ref())), led(record.as_ref()));
            let anew = new.as_ref().is_some_and(|new| {
                Some(new) != old.as_ref() && old.as_ref().is_some_and(|old| new.term <= old.term)
            });
            let released = before.and_then(|(_, old)| old.as_ref()).is_some_and(Leadership::is_released);
            let uuid = |led: &Option<LineageEntry>| led.as_ref().map(|led| led.server_uuid.clone());
            let founded_anew = released && uuid(&new) != uuid(&old);
            let term = record.as_ref().map_or(0, |record| record.term);
            let last = self.judge.terms.insert(cluster.clone(), term).unwrap_or(0);
            if term < last || anew {
                self.break_rule(format!(
                    "the term of {cluster} is {term} after {last}, and who leads is {new:?}"
                ));
            }
            // A deleted cluster's data are set aside for people; one of the same name that is founded anew owes them nothing.
            if founded_anew {
                (self.judge.acknowledged, self.judge.promised) = Default::default();
            }
            self.judge.records.insert(cluster, (revisions, record));
        }
    }

    /// Nobody writes to the store in a circle.
    pub(super) fn judge_write(&mut self, host: &HostName) {
        let now = Instant::now();
        let (since, count) = self.judge.writes.entry(host.clone()).or_insert((now, 0));
        if now.duration_since(*since) > WINDOW {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        if *count > WRITES {
            self.break_rule(format!("{host} wrote to the store {WRITES} times within {WINDOW:?}"));
        }
    }

    /// I3, for a data directory.
    pub(super) fn judge_record(&mut self, host: &HostName, instance: &InstanceName, record: &Record) {
        let data = self.hosts[host].rooms.homes.get(instance).and_then(|home| home.data);
        let (Some(data), Some(accepted)) = (data, &record.accepted) else { return };
        let key = (data, accepted.cluster.clone());
        let before = self.judge.accepted.insert(key, accepted.term).unwrap_or(0);
        if accepted.term < before {
            self.break_rule(format!("{instance} accepts term {} after {before}", accepted.term));
        }
    }

    /// I4: data that are set aside are nobody's at work, and not the leader's while it is to run.
    pub(super) fn judge_retiring(&mut self, host: &HostName, instance: &InstanceName) {
        let Some(data) = self.hosts[host].rooms.homes.get(instance).and_then(|home| home.data) else {
            return;
        };
        if self.holder(data).is_some() {
            self.break_rule(format!("the data of {instance} are set aside under a running server"));
        }
    }

    /// L5: a server that may have commits waiting is never shut down politely.
    pub(super) fn judge_polite_end(&mut self, pid: Pid) {
        let server = &self.servers[&pid];
        if server.up && !server.super_read_only {
            let instance = server.instance.clone();
            self.break_rule(format!("{instance} is shut down politely while it takes writes"));
        }
    }

    /// L1: every server starts closed. L8: server ids are unique. Nobody gets in as root.
    pub(super) fn judge_start(&mut self, pid: Pid) {
        let server = &self.servers[&pid];
        let instance = server.instance.clone();
        let closed = server.offline_mode && server.super_read_only && server.read_only;
        let id = server.server_id;
        let twin = self.servers.values().find(|other| other.pid != pid && other.up && other.server_id == id);
        let twin = twin.map(|other| other.instance.clone());
        let root = ("root".to_owned(), "localhost".to_owned());
        let root_open = self.data[&server.data].accounts.get(&root).is_some_and(|root| !root.locked);
        if !closed {
            self.break_rule(format!("{instance} starts open"));
        }
        if let Some(twin) = twin {
            self.break_rule(format!("{instance} and {twin} have the same server_id {id}"));
        }
        if root_open {
            self.break_rule(format!("{instance} listens while root needs no password"));
        }
    }

    /// L6: relay logs are thrown away only when all in them is executed, or foreign (L7 a).
    pub(super) fn judge_relay_logs(&mut self, pid: Pid, what: &str) {
        let server = &self.servers[&pid];
        let data = &self.data[&server.data];
        let Some(channel) = &data.channel else { return };
        let thrown = channel.retrieved.minus(&data.executed);
        let leader = self.judge.record_of(&server.instance).and_then(Leadership::last_lineage);
        let leader = leader.and_then(|last| {
            self.data.values().find(|data| data.uuid.as_deref() == Some(last.server_uuid.as_str()))
        });
        let foreign = leader.map_or_else(GtidSet::new, |leader| thrown.minus(&leader.executed));
        if thrown != foreign {
            let instance = server.instance.clone();
            self.break_rule(format!("{instance}: {what} throws away {thrown}, which is not applied"));
        }
    }

    /// A CLONE goes into nothing, and never into the leader.
    pub(super) fn judge_seed(&mut self, pid: Pid) {
        let server = &self.servers[&pid];
        let (instance, data) = (server.instance.clone(), &self.data[&server.data]);
        let full = !data.executed.is_empty() && !data.gutted;
        let record = self.judge.record_of(&instance);
        if record.is_some_and(|record| record.master.as_ref() == Some(&instance)) {
            self.break_rule(format!("a CLONE into {instance}, which leads"));
        } else if full {
            self.break_rule(format!("a CLONE over the data of {instance}"));
        }
    }
}
