//! A small fleet: a store, agents that do one thing at a time, and a controller that may end anywhere.
//!
//! Agents here obey what the design asks of them in the shortest way; what they report is what the plan relies on.

use std::collections::{BTreeMap, BTreeSet};

use schemadock_controller_plan::plan::{Planned, all_clusters, plan};
use schemadock_controller_plan::since::{Bounds, Since};
use schemadock_controller_plan::view::{FleetView, Raw};
use schemadock_schema::keys::Keys;
use schemadock_schema::leadership::{Handover, Leadership, LeadershipPhase, LineageEntry};
use schemadock_schema::operation::{Operation, Request};
use schemadock_schema::proposal::{Guard, Proposal, Write};
use schemadock_schema::target::{Role, Target};
use schemadock_schema::{ClusterName, Timestamp};
use serde_json::{Value, json};

use crate::judge;

/// What a member is, beyond what etcd says.
#[derive(Debug, Clone, Default)]
pub(crate) struct Server {
    uuid: String,
    runs: bool,
    fenced: bool,
    term: u64,
    image: String,
    /// Address and port that it receives from.
    source: Option<(String, u16)>,
    acknowledges: bool,
    /// The leadership revision that is in force on it.
    in_force: Option<i64>,
    restart_pending: bool,
    broken: bool,
    /// Its receiver does not reach its master.
    deaf: bool,
}

/// A key's document.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) value: Vec<u8>,
    pub(crate) written: i64,
    created: i64,
}

/// See the module.
pub(crate) struct World {
    pub(crate) keys: Keys,
    pub(crate) store: BTreeMap<String, Entry>,
    pub(crate) revision: i64,
    pub(crate) millis: i64,
    servers: BTreeMap<String, Server>,
    pub(crate) dead: BTreeSet<String>,
    since: Since,
    /// What a controller remembers that looks only where something has changed.
    follower: Follower,
    made: u32,
    /// How each handover is to end, one after another: `true` as wished.
    pub(crate) handovers: Vec<bool>,
    /// Images on which servers do not come up.
    pub(crate) bad_images: BTreeSet<String>,
    pub(crate) said: Vec<String>,
}

pub(crate) const PORT: u16 = 3306;

/// A controller that looks at the clusters with news, and at those that are restless.
#[derive(Default)]
struct Follower {
    seen: FleetView,
    due: BTreeSet<ClusterName>,
    since: Since,
}

impl Follower {
    fn plan(&mut self, view: FleetView, keys: &Keys, now: Timestamp) -> Planned {
        let all: BTreeSet<&String> = self.seen.revisions.keys().chain(view.revisions.keys()).collect();
        for key in all {
            if self.seen.revision_of(key) != view.revision_of(key) {
                self.due.extend(self.seen.concerned(keys, key));
                self.due.extend(view.concerned(keys, key));
            }
        }
        self.since.notice(&view, &self.due, now);
        let planned = plan(&view, keys, &self.due, &self.since, now, &Bounds::default());
        self.due.clone_from(&planned.restless);
        self.seen = view;
        planned
    }
}

impl World {
    pub(crate) fn new(hosts: u32) -> World {
        let mut world = World {
            keys: Keys::new("/p"),
            store: BTreeMap::new(),
            revision: 1,
            millis: 1_800_000_000_000,
            servers: BTreeMap::new(),
            dead: BTreeSet::new(),
            since: Since::default(),
            follower: Follower::default(),
            made: 0,
            handovers: Vec::new(),
            bad_images: BTreeSet::new(),
            said: Vec::new(),
        };
        world.put("fleet", &json!({"id": "f"}));
        for number in 1..=hosts {
            let name = format!("h{number}");
            let host = json!({
                "name": name, "address": format!("10.0.0.{number}"), "zone": format!("z{}", number % 3),
                "capacity": {"memory": 8u64 << 30, "cpus": 4.0, "disk": null},
                "allocated": {"memory": 0, "cpus": 0.0, "disk": null}, "free_disk": 100u64 << 30,
                "store": {"state": "ok", "expected": null, "found": null}, "agent_version": "1",
                "docker_version": "1", "updated_at": world.now().to_string(), "zone": null,
            });
            world.put(&format!("hosts/{name}"), &host);
            world.put(&format!("alive/{name}"), &json!({"agent": name}));
        }
        world
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_millisecond(self.millis).unwrap()
    }

    pub(crate) fn put(&mut self, tail: &str, value: &Value) {
        self.revision += 1;
        let (key, revision) = (format!("/p/{tail}"), self.revision);
        let created = self.store.get(&key).map_or(revision, |entry| entry.created);
        self.store.insert(key, Entry { value: value.to_string().into_bytes(), written: revision, created });
    }

    pub(crate) fn delete(&mut self, tail: &str) {
        self.revision += 1;
        self.store.remove(&format!("/p/{tail}"));
    }

    pub(crate) fn get<T: serde::de::DeserializeOwned>(&self, tail: &str) -> Option<T> {
        serde_json::from_slice(&self.store.get(&format!("/p/{tail}"))?.value).ok()
    }

    pub(crate) fn view(&self) -> FleetView {
        let entries = self.store.iter().map(|(key, entry)| Raw {
            key,
            value: &entry.value,
            mod_revision: entry.written,
            create_revision: entry.created,
        });
        FleetView::read(&self.keys, self.revision, entries)
    }

    /// All or nothing; `false`: a guard did not hold.
    pub(crate) fn commit(&mut self, proposal: &Proposal) -> bool {
        let holds = |guard: &Guard| match guard {
            Guard::Absent { key } => !self.store.contains_key(key),
            Guard::At { key, mod_revision } => {
                self.store.get(key).is_some_and(|entry| entry.written == *mod_revision)
            }
            Guard::Created { key, create_revision } => {
                self.store.get(key).is_some_and(|entry| entry.created == *create_revision)
            }
            Guard::PrefixUnchanged { prefix, revision } => {
                self.store.iter().all(|(key, entry)| !key.starts_with(prefix) || entry.written <= *revision)
            }
        };
        if !proposal.guards.iter().all(holds) {
            return false;
        }
        let before = self.store.clone();
        self.revision += 1;
        for write in &proposal.writes {
            match write {
                Write::Put { key, value, .. } => {
                    let created = self.store.get(key).map_or(self.revision, |entry| entry.created);
                    let entry = Entry { value: value.clone(), written: self.revision, created };
                    self.store.insert(key.clone(), entry);
                }
                Write::Delete { key } => drop(self.store.remove(key)),
            }
        }
        judge::commit(self, &before, proposal);
        true
    }

    pub(crate) fn ask(&mut self, request: Request, cluster: Option<&str>) -> String {
        self.made += 1;
        let id = format!("{:013}-test-{:06}", self.millis, self.made);
        let mut clusters: Vec<ClusterName> = cluster.map(|name| name.parse().unwrap()).into_iter().collect();
        // The command line names all that a drain may come to.
        if let Request::Drain { host, .. } = &request {
            let view = self.view();
            let here = view.all_targets().filter(|(_, stored)| stored.host == *host);
            let here: BTreeSet<ClusterName> = here.filter_map(|(_, stored)| stored.cluster.clone()).collect();
            clusters.extend(here);
        }
        let operation = Operation::queued(id.clone(), request, clusters, "test", self.now());
        self.put(&format!("operations/{id}"), &json!(operation));
        id
    }

    pub(crate) fn operation(&self, id: &str) -> Operation {
        self.get(&format!("operations/{id}")).unwrap()
    }

    /// A controller plans; it dies after `lives` writes.
    pub(crate) fn controller(&mut self, lives: usize) -> bool {
        let view = self.view();
        let all = all_clusters(&view);
        self.since.notice(&view, &all, self.now());
        let bounds = Bounds::default();
        let planned = plan(&view, &self.keys, &all, &self.since, self.now(), &bounds);
        let said = |planned: &Planned| planned.doings.iter().map(|one| one.what.clone()).collect::<Vec<_>>();
        let followed = self.follower.plan(view, &self.keys, self.now());
        assert_eq!(
            said(&followed),
            said(&planned),
            "a controller that looks only where something has changed"
        );
        let mut wrote = false;
        for doing in planned.doings.into_iter().take(lives) {
            if self.commit(&doing.proposal) {
                self.said.push(doing.what.clone());
                wrote = true;
            }
        }
        wrote
    }

    /// The names of all that agents look after.
    pub(crate) fn agents(&self) -> Vec<(String, String)> {
        let mut names: BTreeSet<(String, String)> = BTreeSet::new();
        for kind in ["targets", "status"] {
            let prefix = format!("/p/{kind}/");
            let below = self.store.keys().filter_map(|key| key.strip_prefix(&prefix));
            names.extend(below.filter_map(|tail| {
                tail.split_once('/').map(|(host, name)| (host.to_owned(), name.to_owned()))
            }));
        }
        names.into_iter().filter(|(host, _)| !self.dead.contains(host)).collect()
    }

    fn record(&self, cluster: &str) -> Option<(Leadership, Leadership, i64)> {
        let entry = self.store.get(&format!("/p/leadership/{cluster}"))?;
        let record: Leadership = serde_json::from_slice(&entry.value).unwrap();
        let ended: Option<Handover> = self.get(&format!("handover/{cluster}/{}", record.term));
        Some((record.clone(), record.with_handover(ended.as_ref()), entry.written))
    }

    /// One agent looks after one instance, once.
    pub(crate) fn agent(&mut self, host: &str, name: &str) {
        let cluster = self.cluster_of(host, name);
        let target: Option<Target> = self
            .get::<Value>(&format!("targets/{host}/{name}"))
            .map(|value| serde_json::from_value(value["data"].clone()).unwrap());
        let mut server = self.servers.get(name).cloned().unwrap_or_default();
        let voter = self.record(&cluster).is_some_and(|(_, record, _)| {
            record.acks > 0 && record.voters.iter().any(|voter| voter.name.as_str() == name)
        });
        let all_stop = self.targets_of(&cluster).iter().all(|(_, target)| target.disabled);
        match &target {
            None if voter && !all_stop => {}
            None => {
                self.servers.remove(name);
                self.delete(&format!("status/{host}/{name}"));
                self.release(&cluster);
                return;
            }
            Some(target) if target.disabled => {
                if !voter || all_stop {
                    server = Server { runs: false, in_force: None, acknowledges: false, ..server };
                }
            }
            Some(target) => self.look_after(&cluster, host, name, target, &mut server),
        }
        self.restart_if_asked(host, name, &mut server);
        self.servers.insert(name.to_owned(), server.clone());
        self.report(&cluster, host, name, target.as_ref(), &server);
    }

    fn cluster_of(&self, host: &str, name: &str) -> String {
        let rest = name.strip_prefix(&format!("{host}-")).unwrap_or(name);
        rest.rsplit_once('-').map_or("c", |(cluster, _)| cluster).to_owned()
    }

    pub(crate) fn targets_of(&self, cluster: &str) -> Vec<(String, Target)> {
        let below = self.store.iter().filter(|(key, _)| key.starts_with("/p/targets/"));
        below
            .filter_map(|(key, entry)| {
                let value: Value = serde_json::from_slice(&entry.value).unwrap();
                let target: Target = serde_json::from_value(value["data"].clone()).unwrap();
                let own = target.cluster.as_ref().is_some_and(|own| own.as_str() == cluster);
                own.then(|| (key.rsplit('/').next().unwrap().to_owned(), target))
            })
            .collect()
    }

    fn look_after(&mut self, cluster: &str, host: &str, name: &str, target: &Target, server: &mut Server) {
        if server.uuid.is_empty() {
            self.made += 1;
            server.uuid = format!("u{}", self.made);
        }
        let policy: Value = self.get(&format!("clusters/{cluster}")).unwrap_or_default();
        let image = target.image.clone().or(policy["image"].as_str().map(str::to_owned));
        let image = image.unwrap_or("img:1".to_owned());
        if server.image != image {
            server.image.clone_from(&image);
            server.runs = false;
            server.acknowledges = false;
            server.in_force = None;
            return;
        }
        if self.bad_images.contains(&image) {
            server.broken = true;
            return;
        }
        server.broken = false;
        if !server.runs {
            (server.runs, server.fenced) = (true, true);
            return;
        }
        let Some((_, record, revision)) = self.record(cluster) else {
            if target.role == Role::Master && target.master_host.is_none() {
                self.claim(cluster, name, server, None);
            }
            return;
        };
        if record.master.is_none() {
            if target.role == Role::Master {
                self.claim(cluster, name, server, Some(record));
            }
            return;
        }
        server.term = server.term.max(record.term);
        if record.phase == LeadershipPhase::Handover {
            self.decide(cluster, &record, revision);
            return;
        }
        if record.master.as_ref().is_some_and(|master| master.as_str() == name) {
            self.lead(cluster, &record, revision, server);
        } else {
            self.follow(cluster, host, name, &record, revision, target, server);
        }
    }

    fn claim(&mut self, cluster: &str, name: &str, server: &Server, before: Option<Leadership>) {
        let term = before.as_ref().map_or(1, |record| record.term + 1);
        let entry = LineageEntry {
            term,
            name: name.parse().unwrap(),
            server_uuid: server.uuid.clone(),
            base: Default::default(),
        };
        let record = json!({
            "term": term, "master": name, "phase": "steady", "voters": [], "acks": 0, "durability": "async",
            "founder": server.uuid, "lineage": [entry], "by": "agent", "reason": "claimed",
        });
        self.put(&format!("leadership/{cluster}"), &record);
    }

    fn release(&mut self, cluster: &str) {
        if let Some((mut record, _, _)) = self.record(cluster)
            && self.targets_of(cluster).is_empty()
            && record.master.is_some()
        {
            (record.master, record.voters, record.acks) = (None, Vec::new(), 0);
            self.put(&format!("leadership/{cluster}"), &json!(record));
        }
    }

    /// Either agent may end it; which way is told beforehand.
    fn decide(&mut self, cluster: &str, record: &Leadership, _revision: i64) {
        let key = format!("handover/{cluster}/{}", record.term);
        let (Some(from), Some(to)) = (&record.master, &record.to) else { return };
        if self.store.contains_key(&format!("/p/{key}")) {
            return;
        }
        let there =
            |name: &str, servers: &BTreeMap<String, Server>| servers.get(name).is_some_and(|s| s.runs);
        if !there(from.as_str(), &self.servers) {
            return;
        }
        let as_wished = self.handovers.pop().unwrap_or(true) && there(to.as_str(), &self.servers);
        let winner = if as_wished { to } else { from };
        let uuid = self.servers.get(winner.as_str()).map(|server| server.uuid.clone()).unwrap_or_default();
        self.put(&key, &json!({"winner": winner, "server_uuid": uuid, "base": ""}));
    }

    fn lead(&mut self, cluster: &str, record: &Leadership, revision: i64, server: &mut Server) {
        server.source = None;
        server.acknowledges = false;
        let me = record.master.clone().unwrap();
        // Its commits, its barrier among them, need that many voters that are there.
        let needed = record.acks_next.unwrap_or(record.acks) as usize;
        let here = record
            .voters
            .iter()
            .filter(|voter| !record.leaving.contains(&voter.name))
            .filter(|voter| self.receivers(cluster, me.as_str()).contains(&voter.name.to_string()))
            .filter(|voter| self.servers.get(voter.name.as_str()).is_some_and(|s| s.acknowledges && !s.deaf))
            .count();
        if here >= needed {
            server.fenced = false;
            server.in_force = Some(revision);
        }
    }

    fn receivers(&self, cluster: &str, master: &str) -> Vec<String> {
        let targets = self.targets_of(cluster);
        let Some((_, leads)) = targets.iter().find(|(name, _)| name == master) else { return Vec::new() };
        let address = self.address(leads.host.as_ref().unwrap().as_str());
        let record = self.record(cluster).map(|(_, record, _)| record);
        let shut_out = |name: &str| {
            record.as_ref().is_some_and(|record| record.leaving.iter().any(|other| other.as_str() == name))
        };
        let receives = |name: &str| {
            self.servers.get(name).is_some_and(|server| {
                // A cut network does not end the master's side of a connection.
                let source = server.source.as_ref() == Some(&(address.clone(), leads.port));
                server.runs && source
            })
        };
        let alive = |target: &Target| !self.dead.contains(target.host.as_ref().unwrap().as_str());
        targets
            .iter()
            .filter(|(name, target)| name != master && alive(target) && receives(name) && !shut_out(name))
            .map(|(name, _)| name.clone())
            .collect()
    }

    fn address(&self, host: &str) -> String {
        self.get::<Value>(&format!("hosts/{host}")).unwrap()["address"].as_str().unwrap().to_owned()
    }

    #[allow(clippy::too_many_arguments)]
    fn follow(
        &mut self,
        cluster: &str,
        _host: &str,
        name: &str,
        record: &Leadership,
        revision: i64,
        _target: &Target,
        server: &mut Server,
    ) {
        let leader = record.master.as_ref().unwrap().as_str();
        let targets = self.targets_of(cluster);
        let Some((_, leads)) = targets.iter().find(|(other, _)| other == leader) else { return };
        let address = self.address(leads.host.as_ref().unwrap().as_str());
        server.source = Some((address, leads.port));
        server.fenced = false;
        let voter = record.voters.iter().any(|v| v.name.as_str() == name && v.server_uuid == server.uuid);
        let counts = record.acks > 0 || record.acks_next.is_some();
        server.acknowledges = voter && counts && !record.leaving.iter().any(|other| other.as_str() == name);
        server.in_force = Some(revision);
    }

    fn restart_if_asked(&mut self, host: &str, name: &str, server: &mut Server) {
        let prefix = format!("/p/requests/{host}/");
        let own: Vec<String> = self
            .store
            .iter()
            .filter(|(key, entry)| {
                let request: Value = serde_json::from_slice(&entry.value).unwrap_or_default();
                key.starts_with(&prefix) && request["instance"] == name
            })
            .map(|(key, _)| key.clone())
            .collect();
        for key in own {
            self.revision += 1;
            self.store.remove(&key);
            (server.runs, server.acknowledges, server.in_force) = (false, false, None);
            server.restart_pending = false;
        }
    }

    /// Something has come up that waits for a restart of every server.
    pub(crate) fn pend_restarts(&mut self) {
        self.servers.values_mut().for_each(|server| server.restart_pending = true);
    }

    fn report(&mut self, cluster: &str, host: &str, name: &str, target: Option<&Target>, server: &Server) {
        let record = self.record(cluster).map(|(_, record, _)| record);
        let leads = record.as_ref().is_some_and(|r| r.master.as_ref().is_some_and(|m| m.as_str() == name));
        let steady = record.as_ref().is_some_and(|record| record.phase == LeadershipPhase::Steady);
        let disabled = target.is_some_and(|target| target.disabled);
        let phase = match () {
            () if server.broken => "failed",
            () if disabled && !server.runs => "stopped",
            () if !server.runs => "starting",
            () if server.fenced => "fenced",
            () => "running",
        };
        let source = server.source.as_ref().filter(|_| server.runs && !leads);
        let locked = record.as_ref().is_some_and(|r| r.leaving.iter().any(|other| other.as_str() == name));
        let source = source.map(|(address, port)| {
            json!({
                "host": null, "port": port, "address": address, "io": if locked || server.deaf { "CONNECTING" } else { "ON" },
                "sql": "ON", "lag_seconds": 0.0, "error": null
            })
        });
        let written = |tail: String| self.store.get(&format!("/p/{tail}")).map(|entry| entry.written);
        let target_revision = written(format!("targets/{host}/{name}"));
        let policy_revision = written(format!("clusters/{cluster}")).unwrap_or(0);
        let converged = match phase {
            "stopped" => true,
            "running" => steady && (leads || source.is_some()),
            _ => false,
        };
        let size = target.map(|_| json!({"memory": 1u64 << 30, "cpus": 0.5, "disk": null}));
        let pending = json!([{"variable": "x", "reason": "static"}]);
        let receivers = if leads { self.receivers(cluster, name) } else { Vec::new() };
        let status = json!({
            "name": name, "host": host, "cluster": cluster, "address": self.address(host), "port": PORT,
            "role": target.map(|target| target.role), "disabled": disabled, "observed_role": "none",
            "phase": phase, "converged": converged, "waiting_on": null,
            "message": if server.broken { "it does not come up" } else { "" },
            "data": {"state": "own", "server_uuid": server.uuid},
            "foreign": null, "store": {"state": "ok", "expected": null, "found": null},
            "writable": server.runs && leads && steady && !server.fenced, "term": server.term, "received": "",
            "server_uuid": server.uuid, "server_id": 1, "gtid_executed": "", "source": source, "seed": null,
            "leadership_revision": server.in_force, "acknowledges": server.acknowledges, "acks": null,
            "receivers": receivers, "commits_waiting": null,
            "restart_pending": if server.restart_pending { pending } else { json!([]) },
            "container": {"id": "1", "image": server.image, "state": "running"}, "mysql_version": "9.0.0",
            "size": size, "target_revision": target_revision, "policy_revision": policy_revision,
            "updated_at": "2026-01-02T03:04:05Z",
        });
        let tail = format!("status/{host}/{name}");
        if self.get::<Value>(&tail).as_ref() != Some(&status) {
            self.put(&tail, &status);
        }
    }

    /// The receiver of one server loses its way, or all find it again.
    pub(crate) fn deafen(&mut self, which: Option<usize>) {
        let count = self.servers.len().max(1);
        for (at, server) in self.servers.values_mut().enumerate() {
            server.deaf = which.is_some_and(|which| which % count == at);
        }
    }

    /// What is wished of durability.
    pub(crate) fn wish(&mut self, durability: &str) {
        let mut policy: Value = self.get("clusters/c").unwrap_or_else(|| json!({}));
        if policy["durability"] != durability {
            policy["durability"] = json!(durability);
            self.put("clusters/c", &policy);
        }
    }

    /// A host is cut off, with its agent.
    pub(crate) fn kill(&mut self, host: &str) {
        self.dead.insert(host.to_owned());
        self.delete(&format!("alive/{host}"));
    }

    pub(crate) fn heal(&mut self, host: &str) {
        if self.dead.remove(host) {
            self.put(&format!("alive/{host}"), &json!({"agent": host}));
        }
    }

    /// Everybody acts in turn until nothing changes any more, or the time is up.
    pub(crate) fn settle(&mut self, rounds: u32) {
        let mut quiet = 0;
        for _ in 0..rounds {
            let before = self.revision;
            self.millis += 500;
            for (host, name) in self.agents() {
                self.agent(&host, &name);
            }
            self.controller(usize::MAX);
            quiet = if self.revision == before { quiet + 1 } else { 0 };
            // Lost voters, soaks and the like take their time.
            if quiet > 30 {
                return;
            }
        }
    }
}
