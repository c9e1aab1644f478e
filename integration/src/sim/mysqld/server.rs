//! A running mysqld: what is gone when it ends.

use std::collections::BTreeMap;

use schemadock_agent::disk::InstanceFile;
use schemadock_agent_plan::observed::{
    AcksSeen, ChannelSeen, ContainerState, ServerSeen, SourceSeen, ThreadState,
};
use schemadock_schema::gtid::GtidSet;
use schemadock_schema::{HostName, InstanceName};
use tokio::time::Instant;

use super::semisync::Waiting;
use crate::sim::containers::{START_FAILS, VERSION};
use crate::sim::disk::instance_at;
use crate::sim::world::{DataId, Happening, Pid, State};

/// A process.
pub(in crate::sim) struct Server {
    pub(in crate::sim) pid: Pid,
    pub(in crate::sim) host: HostName,
    pub(in crate::sim) instance: InstanceName,
    pub(in crate::sim) container: String,
    pub(in crate::sim) data: DataId,
    /// It listens.
    pub(in crate::sim) up: bool,
    pub(in crate::sim) paused: bool,
    /// It takes its time to receive and to apply.
    pub(in crate::sim) slow: bool,
    pub(in crate::sim) since: Instant,
    pub(in crate::sim) address: String,
    pub(in crate::sim) port: u16,
    pub(in crate::sim) server_id: u32,
    pub(in crate::sim) variables: BTreeMap<String, String>,
    pub(in crate::sim) offline_mode: bool,
    pub(in crate::sim) super_read_only: bool,
    pub(in crate::sim) read_only: bool,
    pub(in crate::sim) semi_sync_source: bool,
    /// How many acknowledgements a commit waits for.
    pub(in crate::sim) acks: u32,
    /// Commits that were acknowledged, and those that wait.
    pub(in crate::sim) answered: u64,
    pub(in crate::sim) waiting: Vec<Waiting>,
    /// The last ticket of a commit, and up to which one each replica has acknowledged, by `server_id`.
    pub(super) ticket: u64,
    pub(super) acknowledged: BTreeMap<u32, u64>,
    /// The session whose `super_read_only=ON` waits for commits.
    pub(super) freezing: Option<u64>,
    pub(in crate::sim) semi_sync_replica: bool,
    /// The receiver was started with it.
    pub(in crate::sim) acknowledging: bool,
    pub(in crate::sim) receiver: Thread,
    pub(in crate::sim) applier: Thread,
    /// The process that the receiver is connected to.
    pub(in crate::sim) source: Option<Pid>,
    pub(in crate::sim) sessions: BTreeMap<u64, Login>,
    /// Locks by name, and the session of each; one that has ended has none.
    pub(super) locks: BTreeMap<String, u64>,
    pub(in crate::sim) donors: String,
    pub(in crate::sim) cloning: Option<Cloning>,
    /// A person has opened it.
    pub(in crate::sim) by_hand: bool,
}

/// A replication thread.
pub(in crate::sim) struct Thread {
    pub(in crate::sim) state: ThreadState,
    pub(in crate::sim) error: Option<(u32, String)>,
    /// Something of it is on its way.
    pub(in crate::sim) busy: bool,
}

/// A session's owner.
pub(in crate::sim) struct Login {
    pub(in crate::sim) user: String,
    /// The agent's life, where it is an agent.
    pub(in crate::sim) life: Option<u64>,
}

/// A CLONE under way.
pub(in crate::sim) struct Cloning {
    pub(in crate::sim) donor: Pid,
    pub(in crate::sim) session: u64,
}

impl Thread {
    fn off() -> Thread {
        Thread { state: ThreadState::Off, error: None, busy: false }
    }
}

impl Server {
    pub(in crate::sim) fn writable(&self) -> bool {
        self.up && !self.offline_mode && !self.super_read_only && !self.read_only
    }

    /// The session that has this lock.
    pub(super) fn lock_of(&self, name: &str) -> Option<u64> {
        self.locks.get(name).copied().filter(|session| self.sessions.contains_key(session))
    }

    fn flag(&self, name: &str) -> bool {
        self.variables.get(name).is_some_and(|value| value == "ON")
    }
}

/// The options of a file, without quotes.
fn options(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
    lines.map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned())).collect()
}

impl State {
    /// A container's process begins. It takes the lock of the data directory at once.
    pub(in crate::sim) fn server_begins(&mut self, host: &HostName, container: &str) {
        let pid = 1000 + self.next_id() as Pid;
        let here = self.host(host);
        let Some(found) = here.daemon.containers.get_mut(container) else { return };
        found.state = ContainerState::Running;
        let mount = found.spec.mounts.first().and_then(|(mount, _)| instance_at(mount));
        let instance = found.spec.instance.clone();
        here.daemon.stir();
        let home = mount.and_then(|mount| here.rooms.homes.get(&mount));
        let data = home.and_then(|home| home.data);
        let config = home.and_then(|home| home.file(InstanceFile::Config)).map(|text| options(text));
        let variables = config.unwrap_or_default();
        let (Some(data), false) = (data, variables.is_empty()) else {
            self.exited(
                host,
                container,
                1,
                "[ERROR] [MY-010123] the data directory or the file is not there",
            );
            return;
        };
        if let Some(holder) = self.holder(data) {
            let other = holder.pid;
            self.break_rule(format!("{instance}: a second server begins on the data of process {other}"));
        }
        let number = |name: &str| variables.get(name).and_then(|value| value.parse().ok()).unwrap_or(0);
        let mut server = Server {
            pid,
            host: host.clone(),
            instance: instance.clone(),
            container: container.to_owned(),
            data,
            up: false,
            paused: false,
            slow: false,
            since: Instant::now(),
            address: variables.get("bind_address").cloned().unwrap_or_default(),
            port: number("port") as u16,
            server_id: number("server_id"),
            offline_mode: false,
            super_read_only: false,
            read_only: false,
            semi_sync_source: false,
            acks: 1,
            answered: 0,
            waiting: Vec::new(),
            ticket: 0,
            acknowledged: BTreeMap::new(),
            freezing: None,
            semi_sync_replica: false,
            acknowledging: false,
            receiver: Thread::off(),
            applier: Thread::off(),
            source: None,
            sessions: BTreeMap::new(),
            locks: BTreeMap::new(),
            donors: String::new(),
            cloning: None,
            by_hand: false,
            variables,
        };
        server.offline_mode = server.flag("offline_mode");
        server.super_read_only = server.flag("super_read_only");
        server.read_only = server.flag("read_only") || server.super_read_only;
        server.semi_sync_source = server.flag("rpl_semi_sync_source_enabled");
        self.servers.insert(pid, server);
        self.note(format!("{host}: mysqld of {instance} begins as process {pid}"));
        self.later(300_000..1_500_000, Happening::Started(pid));
    }

    /// It listens, or ends.
    pub(in crate::sim) fn server_started(&mut self, pid: Pid) {
        let Some(server) = self.servers.get(&pid) else { return };
        let (host, instance, data) = (server.host.clone(), server.instance.clone(), server.data);
        if !self.data[&data].complete {
            return self.server_ends(pid, 1, "[ERROR] [MY-010020] Data Dictionary initialization failed.");
        }
        if server.variables.contains_key(START_FAILS) {
            return self.server_ends(pid, 1, "[ERROR] [MY-012592] Operating system error number 2");
        }
        let taken = self.listener(&server.address, server.port).is_some();
        if taken {
            return self.server_ends(pid, 1, "[ERROR] [MY-010262] Can't start server: Bind on TCP/IP port");
        }
        let init = server.variables.contains_key("init_file").then(|| {
            let home = self.hosts[&host].rooms.homes.get(&instance);
            home.and_then(|home| home.file(InstanceFile::Init).cloned())
        });
        if init == Some(None) {
            return self.server_ends(pid, 1, "[ERROR] [MY-010456] Could not open the init file.");
        }
        let uuid = self.uuid();
        if let Some(data) = self.data.get_mut(&data) {
            data.uuid.get_or_insert(uuid);
            data.executed = data.sent();
            data.written = GtidSet::new();
            if let Some(text) = init.flatten() {
                data.run_init(&text);
            }
        }
        if let Some(server) = self.servers.get_mut(&pid) {
            server.up = true;
            server.since = Instant::now();
        }
        self.note(format!("{host}: {instance} listens"));
        self.judge_start(pid);
    }

    /// A process ends, whatever the reason; what is on disk stays.
    pub(in crate::sim) fn server_ends(&mut self, pid: Pid, code: i64, why: &str) {
        let Some(server) = self.servers.remove(&pid) else { return };
        if server.cloning.is_some() {
            self.clone_failed(server.data, 1, "the server ended");
        }
        self.note(format!("{}: mysqld of {} ends with {code}: {why}", server.host, server.instance));
        self.exited(&server.host, &server.container, code, why);
    }

    fn exited(&mut self, host: &HostName, container: &str, code: i64, line: &str) {
        let daemon = &mut self.host(host).daemon;
        if let Some(container) = daemon.containers.get_mut(container) {
            container.state = ContainerState::Exited { code, out_of_memory: false };
            container.output.push(line.to_owned());
        }
        daemon.stir();
    }

    /// The server that listens there.
    pub(in crate::sim) fn listener(&self, address: &str, port: u16) -> Option<&Server> {
        self.servers.values().find(|server| server.up && server.address == address && server.port == port)
    }

    pub(in crate::sim) fn uuid(&mut self) -> String {
        let number = self.next_id();
        format!("00000000-0000-4000-8000-{number:012x}")
    }

    pub(super) fn server_seen(&self, server: &Server) -> ServerSeen {
        let data = &self.data[&server.data];
        let channel = data.channel.as_ref().map(|channel| ChannelSeen {
            host: channel.host.clone(),
            port: channel.port,
            user: channel.user.clone(),
            auto_position: true,
            ssl: true,
            receiver: server.receiver.state,
            applier: server.applier.state,
            retrieved: channel.retrieved.clone(),
            receiver_error: server.receiver.error.clone(),
            applier_error: server.applier.error.clone(),
            source_uuid: channel.source_uuid.clone(),
            lag_seconds: None,
            delay: 0,
        });
        ServerSeen {
            server_uuid: data.uuid.clone().unwrap_or_default(),
            server_id: server.server_id,
            version: VERSION.to_owned(),
            offline_mode: server.offline_mode,
            super_read_only: server.super_read_only || server.freezing.is_some(),
            read_only: server.read_only,
            gtid_executed: data.executed.clone(),
            gtid_purged: data.purged.clone(),
            channel,
            semi_sync_source: server.semi_sync_source,
            acks: AcksSeen {
                count: server.acks,
                working: server.semi_sync_source,
                clients: self.receivers_of(server.pid).filter(|receiver| receiver.acknowledging).count()
                    as u32,
                waiting: server.waiting.len() as u32,
                answered: server.answered,
                unanswered: 0,
            },
            semi_sync_replica: server.semi_sync_replica,
            acknowledging: server.acknowledging,
            receivers: self.receivers_of(server.pid).filter_map(|receiver| self.user_of(receiver)).collect(),
            acknowledgers: self
                .receivers_of(server.pid)
                .filter(|receiver| receiver.acknowledging)
                .filter_map(|receiver| self.user_of(receiver))
                .collect(),
            events: server.flag("event_scheduler"),
            uptime: server.since.elapsed().as_secs(),
        }
    }

    /// Servers whose receivers are connected to this process.
    pub(super) fn receivers_of(&self, pid: Pid) -> impl Iterator<Item = &Server> {
        self.servers.values().filter(move |other| {
            other.up && other.source == Some(pid) && other.receiver.state == ThreadState::On
        })
    }

    /// The account by which a server receives.
    pub(super) fn user_of(&self, server: &Server) -> Option<String> {
        self.data[&server.data].channel.as_ref().map(|channel| channel.user.clone())
    }

    pub(super) fn source_seen(&self, server: &Server, account: &str) -> SourceSeen {
        let data = &self.data[&server.data];
        SourceSeen {
            server_uuid: data.uuid.clone().unwrap_or_default(),
            version: VERSION.to_owned(),
            gtid_executed: data.executed.clone(),
            gtid_purged: data.purged.clone(),
            writable: server.writable(),
            account: data.accounts.keys().any(|(user, _)| user == account),
        }
    }
}
