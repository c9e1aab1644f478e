//! Real agents and controllers on the simulated world, the documents that people write, and clients.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use schemadock_agent::host::{Parts, run};
use schemadock_agent::settings::Settings;
use schemadock_controller::office;
use schemadock_schema::gtid::GtidSet;
use schemadock_schema::keys::Keys;
use schemadock_schema::operation::ControllerCopy;
use schemadock_schema::proposal::{Proposal, Write};
use schemadock_schema::size::{GIB, Resources};
use schemadock_schema::status::Status;
use schemadock_schema::{ClusterName, HostName, InstanceName, Timestamp};
use schemadock_store::{Committed, Selector, Store as _};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::containers::SimContainers;
use super::disk::SimDisk;
use super::judge::FLEET;
use super::life::{Life, LifeStore};
use super::mysqld::SimMysqld;
use super::store::SimStore;
use super::world::World;

/// The port of every instance.
pub const PORT: u16 = 7335;
/// The cluster.
pub const CLUSTER: &str = "mezzanine-cluster1";
/// What clients do, in milliseconds between two writes.
const WRITES: std::ops::Range<u64> = 20..400;
/// While a handover is under way, so that it meets writes.
const HURRIED: std::ops::Range<u64> = 1..8;
/// How long a process that was ended is away, in milliseconds.
const AWAY: std::ops::Range<u64> = 100..15_000;

/// See the module.
#[derive(Clone)]
pub struct Fleet {
    /// The world it lives in.
    pub world: World,
    /// Where documents stand.
    pub keys: Keys,
    hosts: Arc<Vec<HostName>>,
    /// The machines of the controllers.
    offices: Arc<Vec<HostName>>,
    ways: Arc<BTreeMap<HostName, SimStore>>,
    person: SimStore,
    began: (Timestamp, Instant),
    clients: CancellationToken,
    /// What stops agents and controllers.
    stops: Arc<Mutex<BTreeMap<HostName, CancellationToken>>>,
}

/// A target: what people write under `data`.
pub type Target = serde_json::Value;

impl Fleet {
    /// Hosts with agents, machines with a controller each, and nothing for them to do yet. A process that is ended comes
    /// back after a while.
    pub async fn start(seed: u64, hosts: u8, controllers: u8) -> Fleet {
        let world = World::new(seed);
        let keys = Keys::new("/schemadock");
        let names: Vec<HostName> = (1..=hosts).map(host).collect();
        let offices: Vec<HostName> = (1..=controllers).map(office).collect();
        let machines = names.iter().chain(&offices);
        let ways = machines.map(|name| (name.clone(), world.etcd().client())).collect();
        let wall: Timestamp = "2026-11-21T12:00:00Z".parse().expect("it is one");
        let fleet = Fleet {
            person: world.etcd().client(),
            hosts: Arc::new(names),
            offices: Arc::new(offices),
            ways: Arc::new(ways),
            began: (wall, Instant::now()),
            clients: CancellationToken::new(),
            stops: Arc::default(),
            world,
            keys,
        };
        let cluster: ClusterName = CLUSTER.parse().expect("it is one");
        fleet.world.change(|state| state.judge.know(&fleet.keys, [cluster].into()));
        for (n, name) in (1..).zip(fleet.hosts.iter()) {
            fleet.world.add_host(name, &format!("10.0.0.{n}"));
        }
        for (n, name) in (1..).zip(fleet.offices.iter()) {
            fleet.world.add_host(name, &format!("10.0.1.{n}"));
        }
        fleet.write(vec![Write::document(fleet.keys.fleet(), &serde_json::json!({"id": FLEET}))]).await;
        tokio::spawn(fleet.clone().revive());
        fleet
    }

    /// Its hosts.
    pub fn hosts(&self) -> &[HostName] {
        &self.hosts
    }

    /// All machines: those of the agents, then those of the controllers.
    pub fn machines(&self) -> impl Iterator<Item = &HostName> {
        self.hosts.iter().chain(self.offices.iter())
    }

    /// A machine's way to the store.
    pub fn way(&self, host: &HostName) -> &SimStore {
        &self.ways[host]
    }

    /// The wall time.
    pub fn now(&self) -> Timestamp {
        self.began.0.saturating_add(self.began.1.elapsed()).unwrap_or(self.began.0)
    }

    /// Starts the process of a machine.
    fn begin_process(&self, machine: &HostName) {
        match self.offices.contains(machine) {
            true => self.start_controller(machine),
            false => self.start_agent(machine),
        }
    }

    /// Starts the controller of a machine. It forgets which fleet it served: its memory is not on a simulated disk.
    fn start_controller(&self, machine: &HostName) {
        let life = Life::begin(&self.world, machine);
        let settings = office::Settings {
            copy: ControllerCopy {
                id: format!("copy{}", life.number()),
                host: machine.to_string(),
                pid: 1,
                version: "sim".to_owned(),
                since: self.now(),
            },
            state_dir: None,
            time_scale: 1.0,
            now: self.now(),
            seed: self.world.draw(0..u64::MAX),
            until: None,
        };
        let store = LifeStore::new(life, self.ways[machine].clone());
        let stop = self.stop_of(machine);
        let run = office::run(store, self.keys.clone(), settings, || {}, stop.clone());
        self.spawn(machine, stop, run);
    }

    /// What stops the next process of a machine.
    fn stop_of(&self, machine: &HostName) -> CancellationToken {
        let stop = CancellationToken::new();
        self.stops.lock().unwrap_or_else(PoisonError::into_inner).insert(machine.clone(), stop.clone());
        stop
    }

    /// Lets a process run; only one that was stopped may end.
    fn spawn<E: std::fmt::Debug>(
        &self,
        machine: &HostName,
        stop: CancellationToken,
        run: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let (world, machine) = (self.world.clone(), machine.clone());
        tokio::spawn(async move {
            match run.await {
                Ok(()) if stop.is_cancelled() => world.end_life(&machine, "it was stopped"),
                ended => {
                    let why = format!("{machine}: the process ended by itself: {ended:?}");
                    world.change(|state| state.break_rule(why));
                }
            }
        });
    }

    /// Starts the agent of a host.
    fn start_agent(&self, host: &HostName) {
        let life = Life::begin(&self.world, host);
        let address = self.world.look(|state| state.hosts[host].address.clone());
        let parts = Parts {
            settings: settings(host, &address),
            store: LifeStore::new(life.clone(), self.ways[host].clone()),
            containers: Arc::new(SimContainers::new(life.clone())),
            mysqld: Arc::new(SimMysqld::new(life.clone())),
            disk: Arc::new(SimDisk::new(life.clone())),
            now: self.now(),
            machine: Resources { memory: 8 * GIB, cpus: 2.0, disk: None },
            seed: self.world.draw(0..u64::MAX),
            notifier: Box::new(|_| {}),
        };
        let stop = self.stop_of(host);
        self.spawn(host, stop.clone(), run(parts, stop));
    }

    /// Stops the process of a machine in order, as the service manager does.
    pub fn stop_process(&self, host: &HostName) {
        self.world.note(format!("{host}: its process is stopped"));
        if let Some(stop) = self.stops.lock().unwrap_or_else(PoisonError::into_inner).get(host) {
            stop.cancel();
        }
    }

    /// Processes come back.
    async fn revive(self) {
        let mut ends = self.world.ends();
        for machine in self.machines() {
            self.begin_process(machine);
        }
        let mut followed: BTreeMap<HostName, u64> = BTreeMap::new();
        while ends.changed().await.is_ok() {
            let ended = self.world.look(|state| {
                state.hosts.iter().map(|(name, here)| (name.clone(), here.ended)).collect::<Vec<_>>()
            });
            for (host, lives) in ended {
                if followed.insert(host.clone(), lives).unwrap_or(0) != lives {
                    let fleet = self.clone();
                    tokio::spawn(async move {
                        tokio::time::sleep(Duration::from_millis(fleet.world.draw(AWAY))).await;
                        fleet.begin_process(&host);
                    });
                }
            }
        }
    }

    /// Writes as a person does. The person's way to the store is never disturbed, but the store may be down.
    pub async fn write(&self, writes: Vec<Write>) {
        let proposal = Proposal { writes, ..Proposal::default() };
        while self.commit(&proposal).await.is_none() {}
    }

    /// Commits as a person does; nothing: the store does not answer, and is given time.
    pub async fn commit(&self, proposal: &Proposal) -> Option<Committed> {
        let answer = self.person.commit(proposal).await.ok();
        if answer.is_none() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        answer
    }

    /// Writes targets, or takes them away, with the cluster's list of members.
    pub async fn apply(&self, targets: &[(InstanceName, Option<Target>)]) {
        let mut members: BTreeSet<String> = self.targets().into_keys().map(|name| name.to_string()).collect();
        let mut writes = Vec::new();
        for (name, target) in targets {
            let key = self.keys.target(&host_of(name), name);
            match target {
                Some(target) => {
                    members.insert(name.to_string());
                    writes.push(Write::document(key, &serde_json::json!({ "data": target })));
                }
                None => {
                    members.remove(name.as_str());
                    writes.push(Write::Delete { key });
                }
            }
            self.world.note(format!("a person writes {name}: {}", target.clone().unwrap_or_default()));
        }
        let cluster: ClusterName = CLUSTER.parse().expect("it is one");
        let listed = serde_json::json!({ "members": members });
        writes.push(Write::document(self.keys.members(&cluster), &listed));
        self.write(writes).await;
    }

    /// The targets in the store, each with its revision.
    pub fn targets(&self) -> BTreeMap<InstanceName, (Target, i64)> {
        let entries = self.world.etcd().peek_below(&self.keys.targets());
        let all = entries.into_iter().filter_map(|entry| {
            let (_, name) = self.keys.host_and_instance(&entry.key)?;
            let document: serde_json::Value = serde_json::from_slice(&entry.value).ok()?;
            Some((name, (document.get("data")?.clone(), entry.mod_revision)))
        });
        all.collect()
    }

    /// Lets clients write until [`Fleet::end_clients`].
    pub fn begin_clients(&self) {
        let (world, clients) = (self.world.clone(), self.clients.clone());
        tokio::spawn(clients.run_until_cancelled_owned(async move {
            loop {
                let hurry = world.look(|state| state.judge.handing_over());
                let pause = world.draw(if hurry { HURRIED } else { WRITES });
                tokio::time::sleep(Duration::from_millis(pause)).await;
                world.change(|state| state.client_writes());
            }
        }));
    }

    /// Ends the clients.
    pub fn end_clients(&self) {
        self.clients.cancel();
    }

    /// Why the fleet is not as its documents say, if it is not.
    pub fn not_converged(&self) -> Option<String> {
        for (name, (target, revision)) in self.targets() {
            let entry = self.world.etcd().peek(&self.keys.status(&host_of(&name), &name));
            let Some(status) = entry.and_then(|entry| serde_json::from_slice::<Status>(&entry.value).ok())
            else {
                return Some(format!("{name} has no status"));
            };
            if !status.converged || status.target_revision != Some(revision) {
                return Some(format!(
                    "{name} is {} (converged {}), waits on {:?}: {}",
                    status.phase, status.converged, status.waiting_on, status.message
                ));
            }
            if target.get("disabled") == Some(&true.into()) {
                continue;
            }
            let lacks = self.world.look(|state| {
                let server = state.server_of(&name).filter(|server| server.up)?;
                let drifted = server.variables.get("sync_binlog").is_none_or(|value| value != "1");
                if server.by_hand || server.offline_mode || drifted {
                    return None;
                }
                Some(state.judge.acknowledged.minus(&state.data[&server.data].executed))
            });
            match lacks {
                None => return Some(format!("{name} is said to be converged, and is not")),
                Some(lacks) if self.clients.is_cancelled() && !lacks.is_empty() => {
                    return Some(format!("{name} lacks {lacks}"));
                }
                Some(_) => {}
            }
        }
        None
    }

    /// Waits until all is as the documents say.
    ///
    /// # Errors
    /// What is missing after `within`, or the rule that has broken.
    pub async fn converge(&self, within: Duration) -> Result<(), String> {
        let until = Instant::now() + within;
        loop {
            self.unbroken()?;
            let Some(missing) = self.not_converged() else {
                let took = within - until.saturating_duration_since(Instant::now());
                self.world.note(format!("--- converged after {:.1} s", took.as_secs_f64()));
                return Ok(());
            };
            if Instant::now() >= until {
                return Err(format!("after {within:?}: {missing}"));
            }
            self.rest(Duration::from_millis(200)).await;
        }
    }

    /// Looks whether a steady fleet writes nothing, clients apart.
    ///
    /// # Errors
    /// What was written, or the rule that has broken.
    pub async fn quiet(&self, during: Duration) -> Result<(), String> {
        let before = self.world.etcd().revision();
        self.rest(during).await;
        self.unbroken()?;
        if self.world.etcd().revision() == before {
            return Ok(());
        }
        let all = self.person.read(&[Selector::Prefix(String::new())]).await.map_err(|e| e.to_string())?;
        let new = all.entries.values().filter(|entry| entry.mod_revision > before);
        let new: Vec<String> =
            new.map(|entry| format!("{}: {}", entry.key, String::from_utf8_lossy(&entry.value))).collect();
        Err(format!("a steady fleet wrote to the store: {}", new.join("; ")))
    }

    /// All servers hold the same transactions, and all that clients were told of.
    ///
    /// # Errors
    /// Who lacks what.
    pub fn same_everywhere(&self) -> Result<(), String> {
        self.world.look(|state| {
            let sets = state.servers.values().filter(|server| server.up);
            let sets: BTreeMap<String, GtidSet> = sets
                .map(|server| (server.instance.to_string(), state.data[&server.data].executed.clone()))
                .collect();
            let differ = sets.values().any(|set| Some(set) != sets.values().next());
            let lost = sets.values().any(|set| !set.contains(&state.judge.acknowledged));
            match differ || lost {
                true => Err(format!("clients were told of {}, but: {sets:?}", state.judge.acknowledged)),
                false => Ok(()),
            }
        })
    }

    /// Says whether the store is to be taken for another one from now on: then nothing may follow from what it holds.
    pub fn declare_strange(&self, strange: bool) {
        self.world.change(|state| state.judge.strange = strange);
    }

    /// Who runs on which data, and who takes writes.
    pub fn standing(&self) -> BTreeMap<InstanceName, (u64, bool)> {
        self.world.look(|state| {
            let all = state.servers.values().filter(|server| server.up);
            all.map(|server| (server.instance.clone(), (server.data, server.writable()))).collect()
        })
    }

    /// Ends the server of an instance, as a person does.
    pub fn kill_server(&self, name: &InstanceName) {
        self.world.change(|state| {
            if let Some(pid) = state.server_of(name).map(|server| server.pid) {
                state.server_ends(pid, 137, "a person kills it");
            }
        });
    }

    /// Lets time pass, unless a rule breaks.
    pub async fn rest(&self, time: Duration) {
        tokio::select! {
            biased;
            () = self.world.breaks() => {}
            () = tokio::time::sleep(time) => {}
        }
    }

    /// # Errors
    /// The rule that has broken.
    pub fn unbroken(&self) -> Result<(), String> {
        self.world.broken().map_or(Ok(()), Err)
    }
}

/// The name of host number `n`.
pub fn host(n: u8) -> HostName {
    format!("schemadock{n:02}").parse().expect("it is one")
}

/// The name of the instance on host number `n`.
pub fn instance(n: u8) -> InstanceName {
    format!("schemadock{n:02}-{CLUSTER}-db{n}").parse().expect("it is one")
}

/// The machine of controller number `n`.
fn office(n: u8) -> HostName {
    format!("controller{n:02}").parse().expect("it is one")
}

/// The cluster that an instance belongs to.
pub fn cluster_of(instance: &InstanceName) -> ClusterName {
    let text = instance.as_str();
    let inner = text.split_once('-').and_then(|(_, rest)| rest.rsplit_once('-')).map(|(cluster, _)| cluster);
    inner.and_then(|name| name.parse().ok()).expect("names here are host, cluster, member")
}

/// The host that an instance is on.
pub fn host_of(instance: &InstanceName) -> HostName {
    let text = instance.as_str();
    text.split('-').next().and_then(|host| host.parse().ok()).expect("names here begin with their host")
}

fn settings(host: &HostName, address: &str) -> Settings {
    Settings {
        host: host.clone(),
        address: address.to_owned(),
        etcd: "sim".to_owned(),
        prefix: "/schemadock".to_owned(),
        state_dir: "/sim/state".into(),
        run_dir: "/sim/run".into(),
        docker: "/sim/docker.sock".to_owned(),
        image: "mysql:sim".to_owned(),
        memory: None,
        cpus: None,
        zone: None,
        labels: BTreeMap::new(),
        container_prefix: String::new(),
        network: "host".to_owned(),
        mysqld_user: (999, 999),
        time_scale: 1.0,
    }
}
