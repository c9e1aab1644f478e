//! A fleet under test on real parts: its own etcd, agents as child processes, containers of the real Docker.
//!
//! Each fleet has a name of its own (`it-<pid>-<n>`, also its id in `P/fleet` and so the label of its containers), a
//! directory `schemadock-it-<pid>-<n>` in the temporary directory, and a block of addresses `127.0.M.x`. What a run
//! that was killed has left is removed before the next one starts. Nothing here sleeps: waiting is for what etcd
//! tells ([`Fleet::until`]), or for a process to end.
//!
//! Waits here panic with what was seen; they are for tests and benchmarks only.

mod agent;
mod cleaning;
mod cli;
mod cluster;
mod controller;
mod daemon;
mod etcd;
mod local;
mod place;
mod process;
mod proxy;
mod roamer;
mod sql;
mod world;
mod writer;

pub use agent::Agent;
pub use cleaning::docker;
pub use cli::{Cli, Output};
pub use cluster::number_of;
pub use controller::Controller;
pub use daemon::{Daemon, in_own_network};
pub use etcd::EtcdServer;
pub use local::{Ended, Local};
pub use process::Process;
pub use proxy::{Mode, Proxy};
pub use roamer::{Ledger, Roamer};
pub use sql::Sql;
pub use world::World;
pub use writer::Writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use schemadock_schema::keys::Keys;
use schemadock_schema::proposal::{Proposal, Write};
use schemadock_schema::secrets::Secrets;
use schemadock_schema::status::Status;
use schemadock_store::Store;
use schemadock_store::etcd::Etcd;
use serde_json::{Value, json};

use place::Place;
use world::Watcher;

/// How long anything may take before a test calls it not happening.
pub const PATIENCE: Duration = Duration::from_secs(90);
/// The image under test.
pub const IMAGE: &str = "schemadock-mysql:debian";
/// The port of the servers in the documents here.
pub const PORT: u16 = 7335;
/// The cluster in the documents here.
pub const CLUSTER: &str = "mezzanine-cluster1";

/// How a fleet is to be made.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many hosts.
    pub hosts: u8,
    /// Agents reach etcd through a proxy each.
    pub etcd_proxy: bool,
    /// Agents reach Docker through a proxy each.
    pub docker_proxy: bool,
    /// Templates made by earlier fleets are put in place.
    pub templates: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Fleet {
    /// Its name, and its id in etcd.
    pub name: String,
    /// Its etcd.
    pub etcd: EtcdServer,
    /// Its hosts' agents, in order; none runs at first.
    pub agents: Vec<Agent>,
    /// Copies of its controller; none runs at first.
    pub controllers: Vec<Controller>,
    /// Its keys.
    pub keys: Keys,
    store: Arc<Etcd>,
    watcher: Watcher,
    place: Place,
}

impl Options {
    /// That many hosts without proxies.
    pub fn hosts(hosts: u8) -> Options {
        Options { hosts, etcd_proxy: false, docker_proxy: false, templates: true }
    }
}

/// The name of host `number`, from 1 on.
pub fn host(number: u8) -> String {
    format!("schemadock{number:02}")
}

/// The name of the member on host `number` of [`CLUSTER`].
pub fn member(number: u8) -> String {
    format!("{}-{CLUSTER}-db{number}", host(number))
}

/// The document of a master.
pub fn master() -> Value {
    json!({"data": {"disabled": false, "role": "master", "port": PORT, "size": "all"}})
}

/// The document of a minion of host 1's server.
pub fn minion() -> Value {
    json!({"data": {"disabled": false, "role": "minion", "port": PORT, "size": "all",
                    "master_host": host(1), "master_port": PORT}})
}

/// The original document with that many members, the first of them the master.
pub fn documents(members: u8) -> Value {
    let all = (1..=members).map(|n| (member(n), if n == 1 { master() } else { minion() }));
    Value::Object(all.collect())
}

impl Fleet {
    /// A fleet whose etcd runs and knows it, and whose agents do not run yet.
    pub async fn bare(options: Options) -> Fleet {
        // A second installation is refused, and is no matter.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let place = Place::take();
        let mut etcd = EtcdServer::new(&place.dir, &place.address(254), 2379);
        etcd.up().await;
        let store = Arc::new(etcd.client(Duration::from_secs(5)).await);
        let keys = Keys::new("/schemadock");
        let fleet = json!({"id": place.name, "accepted": []});
        let mut agents = Vec::new();
        for number in 1..=options.hosts {
            agents.push(Agent::new(&place, number, &etcd.url(), &options).await);
        }
        let watcher = Watcher::start(store.clone(), keys.clone());
        let fleet_key = keys.fleet();
        let name = place.name.clone();
        let made = Fleet { name, etcd, agents, controllers: Vec::new(), keys, store, watcher, place };
        made.put(&fleet_key, &fleet).await;
        made
    }

    /// A fleet whose agents run and have registered.
    pub async fn start(hosts: u8) -> Fleet {
        let mut fleet = Fleet::bare(Options::hosts(hosts)).await;
        fleet.start_agents().await;
        fleet
    }

    /// Starts all agents, and waits until they have registered.
    pub async fn start_agents(&mut self) {
        for agent in &mut self.agents {
            agent.start(&[]);
        }
        let hosts: Vec<String> = self.agents.iter().map(|agent| agent.host.clone()).collect();
        self.until("all hosts registered and alive", |world| {
            hosts.iter().all(|host| world.host(host).is_some() && world.is_alive(host)).then_some(())
        })
        .await;
    }

    /// Starts one more copy of the controller, with that in its environment.
    pub fn start_controller(&mut self, environment: &[(&str, &str)]) -> &mut Controller {
        let number = self.controllers.len() + 1;
        let mut controller = Controller::new(&self.place.dir, number, &self.etcd.url());
        controller.start(environment);
        self.controllers.push(controller);
        self.controllers.last_mut().expect("just put there")
    }

    /// Runs a command to its end, and hears of all that it wrote: what is read afterwards is not older.
    pub async fn run(&self, arguments: &[&str]) -> Output {
        let output = self.cli(arguments).run().await;
        self.watcher.heard(self.revision().await).await;
        output
    }

    /// Runs a command, and insists that it worked.
    pub async fn done(&self, arguments: &[&str]) -> Output {
        let output = self.run(arguments).await;
        assert_eq!(
            output.code,
            0,
            "{arguments:?}: {}\n{}\n{}",
            output.stdout,
            output.stderr,
            self.describe()
        );
        output
    }

    /// A fleet with the three-instance document, converged.
    pub async fn converged(members: u8) -> Fleet {
        let fleet = Fleet::start(members).await;
        fleet.apply(&documents(members)).await;
        fleet.until_converged(members).await;
        fleet
    }

    /// Waits until the first members of [`CLUSTER`] have converged.
    pub async fn until_converged(&self, members: u8) {
        let names: Vec<String> = (1..=members).map(member).collect();
        self.until_all_converged(&names).await;
    }

    /// Waits until these have converged.
    pub async fn until_all_converged(&self, names: &[String]) {
        self.until(&format!("{names:?} converged"), |world| {
            names.iter().all(|name| world.converged(name)).then_some(())
        })
        .await;
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.place.dir
    }

    /// The address of host `number`.
    pub fn address(&self, number: u8) -> String {
        self.place.address(number)
    }

    /// The agent of host `number`.
    pub fn agent(&mut self, number: u8) -> &mut Agent {
        &mut self.agents[usize::from(number) - 1]
    }

    /// The directory of an instance on host `number`.
    pub fn home(&self, number: u8, instance: &str) -> PathBuf {
        self.agents[usize::from(number) - 1].state_dir().join("instances").join(instance)
    }

    /// The data directory of an instance on host `number`.
    pub fn data(&self, number: u8, instance: &str) -> PathBuf {
        self.home(number, instance).join("mount/data")
    }

    /// etcd, straight.
    pub fn store(&self) -> &Arc<Etcd> {
        &self.store
    }

    /// The store's revision now: it rises with every write.
    pub async fn revision(&self) -> i64 {
        self.store.read_linearizable(&[]).await.expect("etcd answers").revision
    }

    /// Writes a document under a key, as a hand would.
    pub async fn put(&self, key: &str, value: &Value) -> i64 {
        self.put_raw(key, value.to_string().into_bytes()).await
    }

    /// Writes anything under a key.
    pub async fn put_raw(&self, key: &str, value: Vec<u8>) -> i64 {
        self.write(Write::Put { key: key.to_owned(), value, lease: None }).await
    }

    /// Removes a key.
    pub async fn remove(&self, key: &str) -> i64 {
        self.write(Write::Delete { key: key.to_owned() }).await
    }

    async fn write(&self, write: Write) -> i64 {
        let proposal = Proposal { writes: vec![write], ..Proposal::default() };
        match self.store.commit(&proposal).await.expect("etcd answers") {
            schemadock_store::Committed::Written { revision } => {
                self.watcher.heard(revision).await;
                revision
            }
            schemadock_store::Committed::Conflict => panic!("nothing was compared"),
        }
    }

    /// The key of an instance's target.
    pub fn target_key(&self, instance: &str) -> String {
        let host = instance.split('-').next().unwrap_or_default();
        format!("{}/targets/{host}/{instance}", self.keys.prefix())
    }

    /// Changes fields of a target in etcd, as a hand would; `null` takes a field away.
    pub async fn edit(&self, instance: &str, change: Value) -> i64 {
        let key = self.target_key(instance);
        let world = self.world();
        let entry = world.entry(&key).unwrap_or_else(|| panic!("{key} is not there"));
        let mut document: Value = serde_json::from_slice(&entry.value).expect("targets are JSON");
        let data = document["data"].as_object_mut().expect("targets have data");
        for (name, value) in change.as_object().expect("an object") {
            match value {
                Value::Null => data.remove(name),
                value => data.insert(name.clone(), value.clone()),
            };
        }
        self.put(&key, &document).await
    }

    /// The command line against this fleet, to be run beside other things.
    pub fn cli(&self, arguments: &[&str]) -> Cli {
        Cli::new(&self.etcd.url(), self.keys.prefix(), arguments)
    }

    /// Applies documents, and insists that it worked.
    pub async fn apply(&self, documents: &Value) -> Output {
        let done = self.cli(&["apply", "-f", "-", "--yes"]).stdin(&documents.to_string()).run().await;
        assert_eq!(done.code, 0, "apply failed: {done:?}");
        self.watcher.heard(self.revision().await).await;
        done
    }

    /// What etcd holds now, as far as it was heard.
    pub fn world(&self) -> World {
        self.watcher.world()
    }

    /// Waits for something to be so in etcd; panics with what is instead after [`PATIENCE`].
    pub async fn until<T>(&self, what: &str, seen: impl FnMut(&World) -> Option<T>) -> T {
        self.until_within(PATIENCE, what, seen).await
    }

    /// The same with a bound of its own.
    pub async fn until_within<T>(
        &self,
        bound: Duration,
        what: &str,
        seen: impl FnMut(&World) -> Option<T>,
    ) -> T {
        match self.watcher.until(bound, seen).await {
            Some(value) => value,
            None => panic!("not within {bound:?}: {what}\n{}", self.describe()),
        }
    }

    /// Waits until an instance's status is so.
    pub async fn until_status(&self, instance: &str, what: &str, seen: impl Fn(&Status) -> bool) -> Status {
        self.until(&format!("{instance}: {what}"), |world| {
            world.status(instance).filter(|status| seen(status))
        })
        .await
    }

    /// Waits until something holds all the time for `bound`; panics as soon as it does not.
    pub async fn holds_for(&self, bound: Duration, what: &str, holds: impl Fn(&World) -> bool) {
        if self.watcher.until(bound, |world| (!holds(world)).then_some(())).await.is_some() {
            panic!("does not hold: {what}\n{}", self.describe());
        }
    }

    /// The credentials of [`CLUSTER`].
    pub fn secrets(&self) -> Secrets {
        self.secrets_of(CLUSTER)
    }

    /// The credentials of a cluster.
    pub fn secrets_of(&self, cluster: &str) -> Secrets {
        let key = format!("{}/secrets/{cluster}", self.keys.prefix());
        let world = self.world();
        let entry = world.entry(&key).expect("the cluster has credentials");
        serde_json::from_slice(&entry.value).expect("credentials can be read")
    }

    /// SQL on the member of host `number`, as administrator over TCP. A server that is being started is waited for.
    pub async fn sql(&self, number: u8) -> Sql {
        let secrets = self.secrets();
        let user = schemadock_schema::secrets::ADMIN_USER;
        let address = self.address(number);
        let deadline = tokio::time::Instant::now() + Duration::from_secs(15);
        loop {
            match Sql::try_connect(&address, PORT, user, secrets.admin.expose()).await {
                Ok(sql) => return sql,
                Err(why) if tokio::time::Instant::now() > deadline => {
                    panic!("host {number} does not answer: {why}\n{}", self.describe())
                }
                // A server tells nobody that it listens.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// The container's name of an instance on host `number`.
    pub fn container(&self, instance: &str) -> String {
        format!("{}-{instance}", self.name)
    }

    /// A writer with a ledger, on the member of host `number`.
    pub async fn writer(&self, number: u8) -> Writer {
        self.writer_of(CLUSTER, number).await
    }

    /// The same as the application of any cluster.
    pub async fn writer_of(&self, cluster: &str, number: u8) -> Writer {
        Writer::start(&self.address(number), PORT, &self.secrets_of(cluster)).await
    }

    /// An application that tries all members of a cluster, the master first.
    pub async fn roamer(&self, cluster: &str) -> Roamer {
        let world = self.world();
        let members = world.members(cluster);
        let master = world.leadership(cluster).and_then(|record| record.master);
        let first =
            members.iter().position(|(name, ..)| Some(name.as_str()) == master.as_ref().map(|m| m.as_str()));
        let places = members.iter().map(|(_, address, port)| (address.clone(), *port)).collect();
        let secrets = self.secrets_of(cluster);
        let application = &secrets.application;
        Roamer::start(places, first.unwrap_or(0), &application.user, application.password.expose()).await
    }

    /// SQL on a member, as administrator over TCP.
    pub async fn sql_of(&self, cluster: &str, member: &str) -> Sql {
        let members = self.world().members(cluster);
        let (_, address, port) = members.iter().find(|(name, ..)| name == member).expect("a member");
        let secrets = self.secrets_of(cluster);
        Sql::connect(address, *port, schemadock_schema::secrets::ADMIN_USER, secrets.admin.expose()).await
    }

    /// Panics unless every member of a cluster holds every acknowledged row, once it has applied what the master has.
    pub async fn verify(&self, cluster: &str, ledger: &Ledger) {
        let leads =
            self.world().leadership(cluster).and_then(|record| record.master).expect("somebody leads");
        let executed = self.sql_of(cluster, leads.as_str()).await.text("SELECT @@GLOBAL.gtid_executed").await;
        for (name, ..) in self.world().members(cluster) {
            let mut sql = self.sql_of(cluster, &name).await;
            sql.text(&format!("SELECT WAIT_FOR_EXECUTED_GTID_SET('{executed}', 25)")).await;
            Writer::verify(&ledger.acknowledged, &mut sql).await;
        }
    }

    /// What there is to see when something did not happen.
    pub fn describe(&self) -> String {
        let mut text = self.world().describe();
        for agent in &self.agents {
            text.push_str(&agent.last_lines(25));
        }
        for controller in &self.controllers {
            text.push_str(&controller.last_lines(25));
        }
        text
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.controllers.iter_mut().for_each(|controller| controller.kill());
        for agent in &mut self.agents {
            agent.kill();
        }
        self.etcd.down();
        cleaning::remove_containers(&self.name);
        if std::thread::panicking() {
            let kept = std::env::temp_dir().join(format!("schemadock-it-failed-{}", std::process::id()));
            for agent in &self.agents {
                // Only for whoever looks at the failure.
                let _ = std::fs::create_dir_all(&kept);
                let _ = std::fs::copy(agent.log(), kept.join(format!("{}-{}.log", self.name, agent.host)));
            }
            for (controller, number) in self.controllers.iter().zip(1..) {
                let _ = std::fs::copy(
                    controller.log(),
                    kept.join(format!("{}-controller{number}.log", self.name)),
                );
            }
            eprintln!("the logs are kept in {}", kept.display());
        } else {
            for agent in &self.agents {
                place::keep_templates(&agent.state_dir());
            }
        }
        cleaning::remove_dir(&self.place.dir);
    }
}
