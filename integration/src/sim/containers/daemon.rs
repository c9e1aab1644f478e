//! Docker on one host: its containers, and what becomes of them.

use std::collections::BTreeMap;

use schemadock_agent::containers::{ContainerSpec, Errand, ErrandEnd, shape};
use schemadock_agent::disk::InstanceFile;
use schemadock_agent_plan::observed::{ContainerSeen, ContainerState};
use schemadock_schema::size::Resources;
use schemadock_schema::{HostName, InstanceName};
use schemadock_store::watch;

use super::{UNKNOWN_VARIABLE, VERSION};
use crate::sim::disk::{instance_at, template_at};
use crate::sim::mysqld::server::Server;
use crate::sim::world::{Pid, State};

/// Docker on one host.
#[derive(Default)]
pub(in crate::sim) struct Daemon {
    pub(in crate::sim) fault: DaemonFault,
    pub(in crate::sim) containers: BTreeMap<String, Container>,
    pub(super) errands: BTreeMap<u64, RunningErrand>,
    pub(super) stirs: watch::Sender<u64>,
    /// Goes up when the daemon goes away: streams of events end.
    pub(super) ends: watch::Sender<u64>,
}

/// What is wrong with a daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::sim) enum DaemonFault {
    #[default]
    None,
    Away,
    Hung,
}

pub(in crate::sim) struct Container {
    pub(super) owner: String,
    pub(in crate::sim) spec: ContainerSpec,
    pub(in crate::sim) state: ContainerState,
    pub(super) made: u64,
    pub(super) limits: Resources,
    pub(in crate::sim) output: Vec<String>,
}

pub(super) struct RunningErrand {
    pub(super) errand: Errand,
    pub(super) end: Option<ErrandEnd>,
}

impl Daemon {
    pub(in crate::sim) fn stir(&self) {
        self.stirs.send_modify(|stirs| *stirs += 1);
    }

    pub(in crate::sim) fn set_fault(&mut self, fault: DaemonFault) {
        if fault == DaemonFault::Away {
            self.ends.send_modify(|ends| *ends += 1);
        }
        self.fault = fault;
    }
}
impl State {
    pub(super) fn seen(&self, id: &str, container: &Container) -> ContainerSeen {
        ContainerSeen {
            id: id.to_owned(),
            image: container.spec.image.clone(),
            image_id: format!("sha256:{}", container.spec.image.replace([':', '/'], "")),
            state: container.state,
            pid: self.servers.values().find(|server| server.container == id).map(|server| server.pid),
            shape: Some(shape(&container.spec)),
            memory: container.limits.memory,
            nano_cpus: (container.limits.cpus * 1e9) as u64,
        }
    }

    /// The process of a container.
    pub(in crate::sim) fn pid_of(&self, host: &HostName, id: &str) -> Option<Pid> {
        let own = |server: &&Server| server.host == *host && server.container == id;
        self.servers.values().find(own).map(|server| server.pid)
    }

    /// The container of an instance, the newest first.
    pub(in crate::sim) fn container_of(&self, host: &HostName, instance: &InstanceName) -> Option<String> {
        let own = self.hosts[host].daemon.containers.iter().filter(|(_, c)| c.spec.instance == *instance);
        own.max_by_key(|(_, container)| container.made).map(|(id, _)| id.clone())
    }

    /// Freezes or thaws a container that runs.
    pub(in crate::sim) fn set_paused(&mut self, host: &HostName, id: &str, paused: bool) {
        let Some(pid) = self.pid_of(host, id) else { return };
        let daemon = &mut self.host(host).daemon;
        if let Some(container) = daemon.containers.get_mut(id) {
            container.state = if paused { ContainerState::Paused } else { ContainerState::Running };
        }
        daemon.stir();
        if let Some(server) = self.servers.get_mut(&pid) {
            server.paused = paused;
        }
        self.note(format!("{host}: container {id} is {}", if paused { "frozen" } else { "thawed" }));
    }

    /// Removes a container; its server ends.
    pub(in crate::sim) fn remove_container(&mut self, host: &HostName, id: &str) {
        if let Some(pid) = self.pid_of(host, id) {
            self.server_ends(pid, 137, "its container is removed");
        }
        let daemon = &mut self.host(host).daemon;
        if daemon.containers.remove(id).is_some() {
            daemon.stir();
            self.note(format!("{host}: container {id} is removed"));
        }
    }

    /// Docker says that a container has ended, and its server runs on (a shim that died), on data that are there.
    pub(in crate::sim) fn lose_container(&mut self, host: &HostName, id: &str) {
        let Some(pid) = self.pid_of(host, id) else { return };
        let server = &self.servers[&pid];
        let home = self.hosts[host].rooms.homes.get(&server.instance);
        if home.and_then(|home| home.data) != Some(server.data) {
            return;
        }
        if let Some(server) = self.servers.get_mut(&pid) {
            server.container.clear();
        }
        let daemon = &mut self.host(host).daemon;
        if let Some(container) = daemon.containers.get_mut(id) {
            container.state = ContainerState::Exited { code: 0, out_of_memory: false };
        }
        daemon.stir();
        self.note(format!("{host}: Docker has lost the server of container {id}"));
    }

    pub(in crate::sim) fn errand_done(&mut self, host: &HostName, number: u64) {
        let here = self.host(host);
        let Some(running) = here.daemon.errands.get_mut(&number) else { return };
        let mount = running.errand.mounts.first().map(|(mount, _)| mount.clone()).unwrap_or_default();
        let asked = |option: &str| running.errand.command.iter().any(|part| part == option);
        let mut end = ErrandEnd { code: 0, output: String::new() };
        if asked("--version") {
            end.output = format!("mysqld  Ver {VERSION} for Linux on x86_64 (simulated)");
        } else if asked("--initialize-insecure") {
            if let Some(made) = template_at(&mount).and_then(|key| here.rooms.unfinished.get_mut(&key)) {
                *made = true;
            }
        } else if asked("--validate-config") {
            let home = instance_at(&mount).and_then(|instance| here.rooms.homes.get(&instance));
            let file = home.and_then(|home| home.file(InstanceFile::CandidateConfig));
            if file.is_none_or(|text| text.contains(&format!("\n{UNKNOWN_VARIABLE}="))) {
                let output = format!("[ERROR] [MY-000067] [Server] unknown variable '{UNKNOWN_VARIABLE}'.");
                end = ErrandEnd { code: 1, output };
            }
        }
        running.end = Some(end);
    }
}
