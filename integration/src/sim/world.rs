//! The state of everything outside agents and controllers, and what changes it.
//!
//! There is one lock and one way to change anything: [`World::change`]. After each change things take their course
//! (replication, ends of processes), and the [judge](super::judge) looks at the result. One seed gives one run.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use schemadock_schema::{HostName, InstanceName};
use schemadock_store::watch;
use tokio::time::Instant;

use super::containers::Daemon;
use super::disk::Rooms;
use super::judge::Judge;
use super::mysqld::data::Data;
use super::mysqld::server::Server;
use super::store::SimEtcd;

/// How many lines of a run are kept.
const TRACE: usize = 4000;
/// So many questions at one and the same moment mean that somebody asks in a circle.
const TOO_MANY: u32 = 20_000;

/// See the module. Clones are the same world.
#[derive(Clone)]
pub struct World(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    etcd: SimEtcd,
    broken: watch::Sender<bool>,
    ended: watch::Sender<u64>,
    thawed: watch::Sender<u64>,
}

/// A data directory, wherever it lies.
pub(super) type DataId = u64;
/// A process of some host.
pub(super) type Pid = i32;

pub(super) struct State {
    pub(super) rng: StdRng,
    pub(super) hosts: BTreeMap<HostName, Host>,
    pub(super) data: BTreeMap<DataId, Data>,
    pub(super) servers: BTreeMap<Pid, Server>,
    pub(super) judge: Judge,
    /// What follows from the change under way, and after how long.
    pub(super) coming: Vec<(Duration, Happening)>,
    trace: VecDeque<String>,
    broken: Option<String>,
    started: Instant,
    last_id: u64,
    asked: (Instant, u32),
}

/// One machine.
pub(super) struct Host {
    pub(super) address: String,
    pub(super) rooms: Rooms,
    pub(super) daemon: Daemon,
    /// The life of its process, if there is one: an agent, or a controller.
    pub(super) life: Option<u64>,
    /// How many lives have ended.
    pub(super) ended: u64,
    /// At which of its next questions the process ends.
    pub(super) ends_in: Option<u32>,
    /// Its process is stopped by a signal.
    pub(super) frozen: bool,
    /// Nothing comes from or goes to other hosts; connections stay.
    pub(super) isolated: bool,
    /// There is no room on its disk.
    pub(super) full: bool,
}

/// Something that happens by itself.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Happening {
    /// A server has read its data, and listens or ends.
    Started(Pid),
    /// A receiver tries to reach its source.
    Connect(Pid),
    /// Transactions arrive.
    Arrive(Pid),
    /// A replica's acknowledgement comes to its source.
    Acknowledged { source: Pid, host: HostName, server_id: u32, ticket: u64 },
    /// Transactions are applied.
    Apply(Pid),
    /// A CLONE into this server comes to its end.
    Cloned(Pid),
    /// A server has shut down.
    ShutDown(Pid),
    /// A short-lived container ends.
    ErrandDone(HostName, u64),
}

impl World {
    /// An empty world.
    pub fn new(seed: u64) -> World {
        let now = Instant::now();
        let state = State {
            rng: StdRng::seed_from_u64(seed),
            hosts: BTreeMap::new(),
            data: BTreeMap::new(),
            servers: BTreeMap::new(),
            judge: Judge::default(),
            coming: Vec::new(),
            trace: VecDeque::new(),
            broken: None,
            started: now,
            last_id: 0,
            asked: (now, 0),
        };
        World(Arc::new(Shared {
            state: Mutex::new(state),
            etcd: SimEtcd::new(),
            broken: watch::Sender::new(false),
            ended: watch::Sender::new(0),
            thawed: watch::Sender::new(0),
        }))
    }

    /// Adds a machine.
    pub fn add_host(&self, host: &HostName, address: &str) {
        let new = Host {
            address: address.to_owned(),
            rooms: Rooms::default(),
            daemon: Daemon::default(),
            life: None,
            ended: 0,
            ends_in: None,
            frozen: false,
            isolated: false,
            full: false,
        };
        self.change(|state| state.hosts.insert(host.clone(), new));
    }

    /// The store of this world.
    pub fn etcd(&self) -> &SimEtcd {
        &self.0.etcd
    }

    /// What has broken a rule, if anything has.
    pub fn broken(&self) -> Option<String> {
        self.lock().broken.clone()
    }

    /// Returns when something has broken a rule.
    pub async fn breaks(&self) {
        let mut broken = self.0.broken.subscribe();
        while !*broken.borrow_and_update() && broken.changed().await.is_ok() {}
    }

    /// Changes whenever a life has ended.
    pub(super) fn ends(&self) -> watch::Receiver<u64> {
        self.0.ended.subscribe()
    }

    /// Changes whenever a process goes on after it was frozen.
    pub(super) fn thaws(&self) -> watch::Receiver<u64> {
        self.0.thawed.subscribe()
    }

    /// Stops the process of a host as SIGSTOP does, or lets it go on.
    pub fn freeze(&self, host: &HostName, frozen: bool) {
        self.change(|state| {
            state.note(format!("{host}: the process is stopped by a signal: {frozen}"));
            state.host(host).frozen = frozen;
        });
        if !frozen {
            self.0.thawed.send_modify(|thaws| *thaws += 1);
        }
    }

    /// The last lines of what has happened, the oldest first.
    pub fn trace(&self) -> Vec<String> {
        self.lock().trace.iter().cloned().collect()
    }

    /// Notes something that a person or a test does.
    pub fn note(&self, what: impl Into<String>) {
        let what = what.into();
        self.lock().note(what);
    }

    /// A number of the run's own.
    pub fn draw(&self, range: Range<u64>) -> u64 {
        self.lock().rng.random_range(range)
    }

    pub(super) fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.lock())
    }

    /// A duration between these, in microseconds, of the run's own.
    pub(super) fn between(&self, micros: &Range<u64>) -> Duration {
        self.lock().between(micros)
    }

    /// Changes the world; then things take their course, and the result is judged.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let answer = change(&mut state);
        state.take_its_course();
        state.pass_judgement(&self.0.etcd);
        let coming = std::mem::take(&mut state.coming);
        self.tell_broken(&state);
        drop(state);
        for (after, happening) in coming {
            self.bring(after, happening);
        }
        answer
    }

    fn bring(&self, after: Duration, happening: Happening) {
        // Sessions that go with the runtime change nothing any more.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let world = self.clone();
        runtime.spawn(async move {
            tokio::time::sleep(after).await;
            world.change(|state| state.happen(happening));
        });
    }

    /// The same for a moment at which a process asks; `false`: it is dead, or dies here.
    pub(super) fn asks(&self, host: &HostName, life: u64) -> bool {
        let mut state = self.lock();
        if state.spins() {
            state.break_rule(format!("{host}: somebody asks in a circle without letting time pass"));
            self.tell_broken(&state);
            return false;
        }
        let Some(here) = state.hosts.get_mut(host).filter(|here| here.life == Some(life)) else {
            return false;
        };
        match &mut here.ends_in {
            Some(0) => {}
            Some(left) => {
                *left -= 1;
                return true;
            }
            None => return true,
        }
        drop(state);
        self.end_life(host, "it was killed");
        false
    }

    /// Ends the process of a host as SIGKILL does: nothing it has asked for and not got is done.
    pub fn end_life(&self, host: &HostName, how: &str) {
        let ended = self.change(|state| state.end_life(host, how));
        if ended {
            self.0.ended.send_modify(|ends| *ends += 1);
        }
    }

    fn tell_broken(&self, state: &State) {
        if state.broken.is_some() {
            self.0.broken.send_if_modified(|broken| !std::mem::replace(broken, true));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    pub(super) fn note(&mut self, what: impl Into<String>) {
        let at = self.started.elapsed();
        if self.trace.len() == TRACE {
            self.trace.pop_front();
        }
        self.trace.push_back(format!("{:>9.3} {}", at.as_secs_f64(), what.into()));
    }

    /// The first rule that breaks is the one that is told.
    pub(super) fn break_rule(&mut self, what: String) {
        self.note(format!("BROKEN: {what}"));
        self.broken.get_or_insert(what);
    }

    /// Never the same twice.
    pub(super) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// A duration between these, in microseconds.
    pub(super) fn between(&mut self, micros: &Range<u64>) -> Duration {
        Duration::from_micros(self.rng.random_range(micros.clone()))
    }

    /// Lets something happen after so many microseconds.
    pub(super) fn later(&mut self, micros: Range<u64>, happening: Happening) {
        let after = self.between(&micros);
        self.coming.push((after, happening));
    }

    pub(super) fn host(&mut self, host: &HostName) -> &mut Host {
        self.hosts.get_mut(host).expect("hosts are added first and never taken away")
    }

    /// Puts an end to a life. Sessions close with their process; statements under way are not undone.
    fn end_life(&mut self, host: &HostName, how: &str) -> bool {
        let here = self.host(host);
        (here.ends_in, here.frozen) = (None, false);
        let Some(life) = here.life.take() else { return false };
        here.ended += 1;
        for server in self.servers.values_mut() {
            server.sessions.retain(|_, session| session.life != Some(life));
        }
        self.note(format!("{host}: its process ends ({how})"));
        true
    }

    fn spins(&mut self) -> bool {
        let now = Instant::now();
        if self.asked.0 == now {
            self.asked.1 += 1;
        } else {
            self.asked = (now, 0);
        }
        self.asked.1 > TOO_MANY
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Started(pid) | Happening::ShutDown(pid)
                if self.servers.get(&pid).is_some_and(|server| server.paused) =>
            {
                self.later(100_000..200_000, happening);
            }
            Happening::Started(pid) => self.server_started(pid),
            Happening::Connect(pid) => self.receiver_connects(pid),
            Happening::Arrive(pid) => self.transactions_arrive(pid),
            Happening::Acknowledged { source, host, server_id, ticket } => {
                self.acknowledged(source, &host, server_id, ticket);
            }
            Happening::Apply(pid) => self.transactions_are_applied(pid),
            Happening::Cloned(pid) => self.clone_ends(pid),
            Happening::ShutDown(pid) => {
                self.all_are_told(pid);
                self.server_ends(pid, 0, "it has shut down");
            }
            Happening::ErrandDone(host, id) => self.errand_done(&host, id),
        }
    }

    /// Whether the network is cut between two hosts.
    pub(super) fn apart(&self, one: &HostName, other: &HostName) -> bool {
        one != other && (self.hosts[one].isolated || self.hosts[other].isolated)
    }

    /// The server that runs in a data directory.
    pub(super) fn holder(&self, data: DataId) -> Option<&Server> {
        self.servers.values().find(|server| server.data == data)
    }

    pub(super) fn server_of(&self, instance: &InstanceName) -> Option<&Server> {
        self.servers.values().find(|server| server.instance == *instance)
    }
}
