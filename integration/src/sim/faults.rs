//! What happens to a fleet, drawn from the seed.
//!
//! Some things are for a person, and a run ends with a fleet that has mended itself: data of the instance that leads are
//! never lost, nor those under a server that Docker has lost (it would keep the port), and the agent's account stays.

use std::time::Duration;

use schemadock_agent_plan::observed::ThreadState;
use schemadock_schema::proposal::Write;
use schemadock_schema::request::{Request, RequestKind};
use schemadock_schema::secrets::AGENT_USER;
use schemadock_schema::{HostName, InstanceName};
use serde_json::json;

use super::containers::{DaemonFault, START_FAILS, UNKNOWN_VARIABLE};
use super::fleet::{Fleet, PORT, Target, host, host_of, instance};
use super::trouble::pause;
use super::world::{Pid, State};

/// The documents of a master and its minions, one on each host.
pub fn documents(hosts: u8) -> Vec<(InstanceName, Target)> {
    let minion = json!({"role": "minion", "port": PORT, "master_host": host(1), "master_port": PORT});
    let master = json!({"role": "master", "port": PORT});
    (1..=hosts).map(|n| (instance(n), if n == 1 { master.clone() } else { minion.clone() })).collect()
}

/// Lets so many faults happen, one after the other, each after a pause of its own; then mends everything that does not
/// mend itself and puts the documents back.
pub async fn happen(fleet: &Fleet, documents: &[(InstanceName, Target)], count: u64) {
    for _ in 0..count {
        if fleet.world.broken().is_some() {
            return;
        }
        pause(fleet).await;
        strike(fleet, documents).await;
    }
    mend(fleet, documents).await;
}

/// Ends everything that disturbs machines.
pub fn mend_machines(fleet: &Fleet) {
    fleet.world.note("--- everything is mended");
    fleet.world.etcd().start();
    for host in fleet.machines() {
        fleet.world.freeze(host, false);
        fleet.way(host).mend();
        fleet.way(host).delay(Duration::ZERO);
        fleet.way(host).lose_answers(0);
        fleet.world.change(|state| {
            let here = state.host(host);
            (here.ends_in, here.isolated, here.full) = (None, false, false);
            here.daemon.set_fault(DaemonFault::None);
        });
    }
}

async fn mend(fleet: &Fleet, documents: &[(InstanceName, Target)]) {
    mend_machines(fleet);
    // One that Docker has lost is left serving until somebody asks for a restart.
    let lost = fleet.world.look(|state| {
        let lost = state.servers.values().filter(|server| server.container.is_empty());
        lost.map(|server| server.instance.clone()).collect::<Vec<_>>()
    });
    for name in lost {
        ask(fleet, RequestKind::Restart, &name).await;
    }
    let all: Vec<_> = documents.iter().map(|(name, target)| (name.clone(), Some(target.clone()))).collect();
    fleet.apply(&all).await;
}

async fn strike(fleet: &Fleet, documents: &[(InstanceName, Target)]) {
    let world = &fleet.world;
    let name = documents[world.draw(0..documents.len() as u64) as usize].0.clone();
    let on = host_of(&name);
    match world.draw(0..100) {
        0..20 => crash(fleet, &on),
        20..24 => world.end_life(&on, "a person kills it"),
        24..27 => fleet.stop_process(&on),
        27..30 => boot(fleet, &on),
        30..41 => store(fleet, &on).await,
        41..45 => docker(fleet, &on),
        45..48 => isolate(fleet, &on),
        48..50 => fill_disk(fleet, &on),
        50..52 => freeze(fleet, &name),
        52..63 => world.change(|state| state.hurt_container(&on, &name)),
        63..79 => world.change(|state| state.tamper(&name)),
        79..82 => world.change(State::purge_logs),
        82..85 => world.change(|state| state.lose_data(&name)),
        85..89 => request(fleet, &name).await,
        _ => edit(fleet, documents, &name).await,
    }
}

/// The process ends within some of its next questions to the world.
pub(super) fn crash(fleet: &Fleet, on: &HostName) {
    let questions = fleet.world.draw(0..300) as u32;
    fleet.world.change(|state| state.host(on).ends_in = Some(questions));
}

pub(super) fn boot(fleet: &Fleet, on: &HostName) {
    fleet.world.end_life(on, "the host boots");
    fleet.world.change(|state| state.reboot(on));
}

/// For a while.
pub(super) fn undo_later(fleet: &Fleet, undo: impl FnOnce(&Fleet) + Send + 'static) {
    let after = Duration::from_millis(fleet.world.draw(100..30_000));
    let fleet = fleet.clone();
    tokio::spawn(async move {
        tokio::time::sleep(after).await;
        undo(&fleet);
    });
}

pub(super) async fn store(fleet: &Fleet, on: &HostName) {
    let way = fleet.way(on).clone();
    let back = way.clone();
    let what = match fleet.world.draw(0..6) {
        0 => {
            way.cut_off();
            "refuses"
        }
        1 => {
            way.silence();
            "is silent"
        }
        2 => {
            way.hold_answers();
            "holds its answers back"
        }
        3 => {
            way.lose_answers(fleet.world.draw(1..4) as u32);
            "loses answers"
        }
        4 => {
            way.delay(Duration::from_millis(fleet.world.draw(1..2500)));
            "is slow"
        }
        _ => {
            fleet.world.note("etcd is down");
            fleet.world.etcd().stop();
            return undo_later(fleet, |fleet| {
                fleet.world.note("etcd is up");
                fleet.world.etcd().start();
            });
        }
    };
    fleet.world.note(format!("{on}: the way to etcd {what}"));
    undo_later(fleet, move |_| {
        back.mend();
        back.delay(Duration::ZERO);
    });
}

pub(super) fn docker(fleet: &Fleet, on: &HostName) {
    let fault = if fleet.world.draw(0..2) == 0 { DaemonFault::Away } else { DaemonFault::Hung };
    fleet.world.note(format!("{on}: Docker is {fault:?}"));
    fleet.world.change(|state| state.host(on).daemon.set_fault(fault));
    let on = on.clone();
    undo_later(fleet, move |fleet| {
        fleet.world.note(format!("{on}: Docker is back"));
        fleet.world.change(|state| state.host(&on).daemon.set_fault(DaemonFault::None));
    });
}

/// The host hears nobody and is heard by nobody, etcd included.
pub(super) fn isolate(fleet: &Fleet, on: &HostName) {
    fleet.world.note(format!("{on}: the host is cut off"));
    fleet.world.change(|state| state.host(on).isolated = true);
    fleet.way(on).silence();
    let on = on.clone();
    undo_later(fleet, move |fleet| {
        fleet.world.note(format!("{on}: the host is back"));
        fleet.world.change(|state| state.host(&on).isolated = false);
        fleet.way(&on).mend();
    });
}

fn fill_disk(fleet: &Fleet, on: &HostName) {
    fleet.world.note(format!("{on}: the disk is full"));
    fleet.world.change(|state| state.host(on).full = true);
    let on = on.clone();
    undo_later(fleet, move |fleet| {
        fleet.world.note(format!("{on}: the disk has room again"));
        fleet.world.change(|state| state.host(&on).full = false);
    });
}

/// SIGSTOP, which Docker does not see; then SIGCONT.
pub(super) fn freeze(fleet: &Fleet, name: &InstanceName) {
    let pid = fleet.world.look(|state| state.server_of(name).map(|server| server.pid));
    let Some(pid) = pid else { return };
    let name = name.clone();
    let set = move |fleet: &Fleet, paused: bool| {
        fleet.world.change(|state| {
            state.note(format!("mysqld of {name} is stopped by a signal: {paused}"));
            if let Some(server) = state.servers.get_mut(&pid) {
                server.paused = paused;
            }
        });
    };
    set(fleet, true);
    undo_later(fleet, move |fleet| set(fleet, false));
}

pub(super) async fn request(fleet: &Fleet, name: &InstanceName) {
    let kind = if fleet.world.draw(0..2) == 0 { RequestKind::Restart } else { RequestKind::Reseed };
    ask(fleet, kind, name).await;
}

async fn ask(fleet: &Fleet, kind: RequestKind, name: &InstanceName) {
    fleet.world.note(format!("a person asks for a {kind} of {name}"));
    let at = fleet.now();
    let not_after = at.saturating_add(Duration::from_secs(600)).unwrap_or(at);
    let id = format!("r{}", fleet.world.draw(0..u64::MAX));
    let request = Request { kind, instance: Some(name.clone()), by: "a person".to_owned(), at, not_after };
    fleet.write(vec![Write::document(fleet.keys.request(&host_of(name), &id), &request)]).await;
}

async fn edit(fleet: &Fleet, documents: &[(InstanceName, Target)], name: &InstanceName) {
    let mut target =
        documents.iter().find(|(own, _)| own == name).map(|(_, t)| t.clone()).unwrap_or_default();
    let leads = *name == instance(1);
    match fleet.world.draw(0..10) {
        0 => target["mysql"] = json!({"max_connections": fleet.world.draw(50..500)}),
        1 if fleet.world.draw(0..2) == 0 => target["mysql"] = json!({UNKNOWN_VARIABLE: 1}),
        1 => target["mysql"] = json!({START_FAILS: "/nowhere"}),
        2 => target["size"] = json!("half"),
        3 if !leads => target["port"] = json!(PORT + 1),
        4 if !leads => target["disabled"] = json!(true),
        5 => target["maintenance"] = json!(true),
        6 if !leads => {
            return fleet.apply(&[(name.clone(), None)]).await;
        }
        7 => {
            let all: Vec<_> = documents.iter().map(|(name, _)| (name.clone(), None)).collect();
            return fleet.apply(&all).await;
        }
        8 => {
            let stopped = documents.iter().map(|(name, target)| {
                let mut target = target.clone();
                target["disabled"] = json!(true);
                (name.clone(), Some(target))
            });
            let all: Vec<_> = stopped.collect();
            return fleet.apply(&all).await;
        }
        _ => {
            let all: Vec<_> =
                documents.iter().map(|(name, target)| (name.clone(), Some(target.clone()))).collect();
            return fleet.apply(&all).await;
        }
    }
    fleet.apply(&[(name.clone(), Some(target))]).await;
}

impl State {
    pub(super) fn reboot(&mut self, host: &HostName) {
        let pids: Vec<Pid> =
            self.servers.values().filter(|server| server.host == *host).map(|server| server.pid).collect();
        for pid in pids {
            self.server_ends(pid, 137, "its host boots");
        }
    }

    fn hurt_container(&mut self, host: &HostName, name: &InstanceName) {
        let Some(id) = self.container_of(host, name) else { return };
        match self.dice(5) {
            4 => self.lose_container(host, &id),
            0 => {
                self.note(format!("a person removes the container of {name}"));
                self.remove_container(host, &id);
            }
            1 => self.set_paused(host, &id, true),
            _ => {
                if let Some(pid) = self.pid_of(host, &id) {
                    self.server_ends(pid, 137, "a person kills it");
                }
            }
        }
    }

    /// A person, or a program, changes a running server.
    fn tamper(&mut self, name: &InstanceName) {
        let Some(server) = self.server_of(name).filter(|server| server.up) else { return };
        let (pid, id) = (server.pid, server.data);
        let writable = server.writable();
        let follows = self.data[&id].channel.is_some();
        let what = self.dice(10);
        let Some(server) = self.servers.get_mut(&pid) else { return };
        let Some(data) = self.data.get_mut(&id) else { return };
        let told = match what {
            0 | 1 if follows => {
                (server.receiver.state, server.source) = (ThreadState::Off, None);
                "stops the receiver"
            }
            2 if follows => {
                server.applier.state = ThreadState::Off;
                "stops the applier"
            }
            3 if follows => {
                (server.receiver.state, server.applier.state) = (ThreadState::Off, ThreadState::Off);
                server.source = None;
                data.channel = None;
                "forgets the source"
            }
            4 if !writable => {
                (server.super_read_only, server.read_only, server.by_hand) = (false, false, true);
                "opens the server for writes"
            }
            4 => {
                server.super_read_only = true;
                server.read_only = true;
                "closes the server for writes"
            }
            5 => {
                server.offline_mode = true;
                "sets offline_mode"
            }
            6 => {
                server.variables.insert("sync_binlog".to_owned(), "0".to_owned());
                "sets sync_binlog"
            }
            7 => {
                data.accounts.retain(|(user, _), _| user == AGENT_USER || user == "root");
                "drops accounts"
            }
            8 if follows => {
                let flushed = data.commit();
                data.harmless = data.harmless.union(&flushed);
                "says FLUSH"
            }
            9 => {
                server.sessions.clear();
                "ends all sessions"
            }
            _ => return,
        };
        self.note(format!("a person {told} on {name}"));
    }

    /// The server that is open forgets its binary logs; who is behind must be seeded. So that somebody is, one of the
    /// others forgets its source first.
    fn purge_logs(&mut self) {
        let open = self.servers.values().find(|server| server.writable() && !server.by_hand);
        let Some(id) = open.map(|server| server.data) else { return };
        let behind = self.servers.values().find(|server| server.receiver.state == ThreadState::On);
        if let Some(pid) = behind.map(|server| server.pid)
            && let Some(server) = self.servers.get_mut(&pid)
        {
            (server.receiver.state, server.source) = (ThreadState::Off, None);
        }
        for _ in 0..3 {
            self.client_writes();
        }
        if let Some(data) = self.data.get_mut(&id) {
            data.purged = data.executed.clone();
        }
        self.note("a person purges the binary logs of the server that is open");
    }

    /// What is not the leader's is made anew.
    fn lose_data(&mut self, name: &InstanceName) {
        let lost = self.server_of(name).is_some_and(|server| server.container.is_empty());
        if *name == instance(1) || lost {
            return;
        }
        let whole = self.dice(2) == 0;
        let home = self.host(&host_of(name)).rooms.homes.get_mut(name);
        let Some(home) = home else { return };
        let Some(data) = home.data else { return };
        if whole {
            home.data = None;
        } else if let Some(data) = self.data.get_mut(&data) {
            data.complete = false;
        }
        self.note(format!("the data of {name} are lost (all: {whole})"));
    }

    fn dice(&mut self, sides: u64) -> u64 {
        self.between(&(0..sides)).as_micros() as u64
    }
}
