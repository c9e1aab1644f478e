//! What happens to the three, and that it always ends well.

use proptest::prelude::*;
use schemadock_schema::target::{Role, VariableValue};

use super::*;

fn document(n: u8) -> Target {
    if n == 1 { target(Role::Master, None) } else { target(Role::Minion, Some(1)) }
}

/// What a person, a machine or a client does.
#[derive(Debug, Clone, Copy)]
enum Event {
    Pass,
    Write,
    Kill,
    RemoveContainer,
    Pause,
    StopReceiver,
    StopApplier,
    PointElsewhere,
    ForgetSource,
    Open,
    Close,
    DropAccounts,
    Wipe,
    LosePart,
    PurgeLogs,
    OwnTransaction,
    EtcdAway,
    EtcdBack,
    DockerAway,
    DockerBack,
    AgentRestarts,
    Disable,
    Enable,
    Delete,
    PutBack,
    Garbage,
    Maintenance,
    Image,
    Size,
    Variable,
    Restart,
    Reseed,
}

use Event::*;

const EVENTS: [Event; 32] = [
    Pass,
    Write,
    Kill,
    RemoveContainer,
    Pause,
    StopReceiver,
    StopApplier,
    PointElsewhere,
    ForgetSource,
    Open,
    Close,
    DropAccounts,
    Wipe,
    LosePart,
    PurgeLogs,
    OwnTransaction,
    EtcdAway,
    EtcdBack,
    DockerAway,
    DockerBack,
    AgentRestarts,
    Disable,
    Enable,
    Delete,
    PutBack,
    Garbage,
    Maintenance,
    Image,
    Size,
    Variable,
    Restart,
    Reseed,
];

impl World {
    fn happens(&mut self, n: u8, event: Event) {
        let leads = self.leader() == Some(n);
        let edit = |world: &mut World, change: &dyn Fn(&mut Target)| {
            if let Some(document) = world.targets.get_mut(&n) {
                change(&mut document.target);
            }
        };
        match event {
            Pass => {
                self.pass(n);
            }
            Write => self.write(),
            Kill => self.end(n),
            RemoveContainer => {
                self.end(n);
                self.hosts.get_mut(&n).unwrap().seen.container = Known::Absent;
            }
            Pause => {
                self.keep(n);
                let seen = &mut self.hosts.get_mut(&n).unwrap().seen;
                if let Known::Present(container) = &mut seen.container
                    && container.state == ContainerState::Running
                {
                    container.state = ContainerState::Paused;
                }
            }
            StopReceiver => {
                if let Some(channel) = self.channel(n) {
                    channel.receiver = ThreadState::Off;
                }
            }
            StopApplier => {
                if let Some(channel) = self.channel(n) {
                    channel.applier = ThreadState::Off;
                }
            }
            PointElsewhere => {
                if let Some(channel) = self.channel(n) {
                    channel.host = "10.9.9.9".to_owned();
                }
            }
            ForgetSource => {
                if let Some(server) = self.server(n) {
                    server.channel = None;
                }
            }
            Open => {
                if let Some(server) = self.server(n).filter(|server| server.channel.is_some()) {
                    (server.super_read_only, server.read_only) = (false, false);
                }
            }
            Close => {
                if let Some(server) = self.server(n) {
                    server.super_read_only = true;
                }
            }
            DropAccounts => {
                let seen = &mut self.hosts.get_mut(&n).unwrap().seen;
                if let Known::Present(accounts) = &mut seen.accounts {
                    accounts.truncate(1);
                }
            }
            // A leader that has lost its data waits for a person; here nobody comes.
            Wipe if !leads && n != 1 => {
                let host = self.hosts.get_mut(&n).unwrap();
                host.seen.data = Known::Absent;
                host.disk = Disk::default();
            }
            LosePart if !leads && n != 1 => {
                self.end(n);
                if let Known::Present(data) = &mut self.hosts.get_mut(&n).unwrap().seen.data {
                    data.complete = false;
                }
            }
            PurgeLogs => {
                if let Some(server) = self.server(n) {
                    server.gtid_purged = server.gtid_executed.clone();
                }
            }
            OwnTransaction if !leads => {
                let Some(server) = self.server(n).filter(|server| !server.offline_mode) else { return };
                let uuid = server.server_uuid.clone();
                let next = server.gtid_executed.of_uuid(&uuid).count() + 1;
                let own: GtidSet = format!("{uuid}:{next}").parse().unwrap();
                server.gtid_executed = server.gtid_executed.union(&own);
            }
            EtcdAway => {
                let known = (self.leadership.clone().into(), self.secrets.clone().into());
                self.hosts.get_mut(&n).unwrap().cut_off.get_or_insert(known);
            }
            EtcdBack => self.hosts.get_mut(&n).unwrap().cut_off = None,
            DockerAway => self.hosts.get_mut(&n).unwrap().docker = false,
            DockerBack => self.hosts.get_mut(&n).unwrap().docker = true,
            AgentRestarts => self.restart_agent(n),
            Disable => edit(self, &|target| target.disabled = true),
            Enable => edit(self, &|target| target.disabled = false),
            Delete if n != 1 => {
                self.targets.remove(&n);
            }
            PutBack => {
                self.targets.entry(n).or_insert(Document { target: document(n), garbage: false });
            }
            Garbage => {
                if let Some(document) = self.targets.get_mut(&n) {
                    document.garbage = !document.garbage;
                }
            }
            Maintenance => edit(self, &|target| target.maintenance = !target.maintenance),
            Image => edit(self, &|target| target.image = Some("mysql:9.7".to_owned())),
            Size => edit(self, &|target| target.size = "half".parse().unwrap()),
            Variable => edit(self, &|target| {
                target.mysql.insert("max_connections".to_owned(), VariableValue::Integer(77));
            }),
            Restart => self.hosts.get_mut(&n).unwrap().restart = true,
            // A request to the leader is refused, and with that gone.
            Reseed if !leads && n != 1 => self.hosts.get_mut(&n).unwrap().reseed = true,
            _ => {}
        }
    }

    /// All faults are gone, and everything is wished for as it was.
    fn heal(&mut self) {
        for n in [1, 2, 3] {
            self.register(n);
            self.happens(n, PutBack);
            let document = self.targets.get_mut(&n).unwrap();
            (document.garbage, document.target.disabled, document.target.maintenance) = (false, false, false);
            let host = self.hosts.get_mut(&n).unwrap();
            (host.cut_off, host.docker, host.reseed) = (None, true, false);
        }
    }
}

fn founded() -> World {
    let mut world = World::new();
    for n in [1, 2, 3] {
        world.register(n);
        world.apply(n, document(n));
    }
    world.settle().unwrap();
    world.judge().unwrap();
    world
}

#[test]
fn it_converges_in_every_order_of_arrival() {
    for order in [[1, 2, 3], [1, 3, 2], [2, 1, 3], [2, 3, 1], [3, 1, 2], [3, 2, 1]] {
        // Targets and hosts come one by one, and everybody goes as far as he can in between.
        let mut world = World::new();
        for n in order {
            world.register(n);
            world.settle().unwrap();
            world.apply(n, document(n));
            world.settle().unwrap();
        }
        world.judge().unwrap_or_else(|failure| panic!("{order:?}: {failure}"));
        assert_eq!(world.leader(), Some(1), "{order:?}");
    }
}

#[test]
fn a_minion_may_follow_a_minion() {
    let mut world = World::new();
    for n in [3, 2, 1] {
        world.register(n);
        world.apply(n, document(n));
    }
    world.targets.get_mut(&3).unwrap().target.master_host = Some(host(2));
    world.settle().unwrap();
    world.write();
    world.settle().unwrap();
    world.judge().unwrap();
    assert_eq!(world.channel(3).unwrap().host, address(2));
}

#[test]
fn a_cluster_stops_and_comes_back_whole() {
    for order in [[1, 2, 3], [3, 2, 1], [2, 1, 3]] {
        let mut world = founded();
        world.write();
        for event in [Disable, Enable] {
            for n in order {
                world.happens(n, event);
                world.settle().unwrap();
            }
            let running = world.hosts.values().filter(|host| host.seen.server.present().is_some()).count();
            assert_eq!(running, if matches!(event, Disable) { 0 } else { 3 });
        }
        world.judge().unwrap();
    }
}

#[test]
fn a_deleted_cluster_is_released_and_put_back_with_its_data() {
    let mut world = founded();
    world.write();
    for n in [2, 3, 1] {
        world.targets.remove(&n);
        world.settle_until_gone(n);
    }
    assert!(world.leadership.as_ref().unwrap().is_released());
    for n in [2, 3, 1] {
        world.apply(n, document(n));
        world.settle().unwrap();
    }
    world.judge().unwrap();
    assert_eq!(world.leadership.as_ref().unwrap().term, 2);
}

impl World {
    fn settle_until_gone(&mut self, n: u8) {
        for _ in 0..20 {
            if self.hosts[&n].seen.data.is_absent() && self.leader() != Some(n) {
                return;
            }
            self.pass(n);
        }
        panic!("db{n} is not gone: {}", self.describe());
    }
}

fn stories() -> impl Strategy<Value = Vec<(u8, usize)>> {
    // Between two events somebody usually has time to do something.
    let one = (1u8..=3, prop_oneof![2 => Just(0usize), 3 => 0..EVENTS.len()]);
    proptest::collection::vec(one, 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_it_comes_back(story in stories()) {
        let mut world = founded();
        // Own transactions of a member whose master has purged its logs are a case for a person.
        let purges = story.iter().any(|(_, at)| matches!(EVENTS[*at], PurgeLogs));
        for (n, at) in &story {
            if !(purges && matches!(EVENTS[*at], OwnTransaction)) {
                world.happens(*n, EVENTS[*at]);
            }
        }
        world.heal();
        let told: Vec<_> = story.iter().map(|(n, at)| (n, EVENTS[*at])).collect();
        let tell = |failure: String| TestCaseError::fail(format!("{told:?}: {failure}"));
        world.settle().map_err(tell)?;
        world.judge().map_err(tell)?;
    }
}
