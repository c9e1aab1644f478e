//! What is known of one instance and its surroundings. Each part is kept by its own observer; a pass reads anew
//! only what its step changed.

use std::collections::{BTreeMap, BTreeSet};

use schemadock_schema::gtid::GtidSet;
use schemadock_schema::known::Known;
use schemadock_schema::leadership::Vote;
use schemadock_schema::size::Resources;

use crate::frozen::Schemas;

/// A container as Docker sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerSeen {
    /// Docker's id.
    pub id: String,
    /// The image as it was written when the container was made.
    pub image: String,
    /// The id of the image that it runs.
    pub image_id: String,
    /// What it does.
    pub state: ContainerState,
    /// The host's process id of its first process, while it runs.
    pub pid: Option<i32>,
    /// Hash over what only a new container can change (mounts, user, command, network, stop signal), from its label.
    pub shape: Option<String>,
    /// Memory limit in bytes; 0 for none.
    pub memory: u64,
    /// CPU limit in billionths of a core; 0 for none.
    pub nano_cpus: u64,
}

/// What a container does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerState {
    /// Made, never started.
    Created,
    /// Runs.
    Running,
    /// Frozen by `docker pause`.
    Paused,
    /// Being started again by Docker itself.
    Restarting,
    /// Ended.
    Exited {
        /// Its exit code.
        code: i64,
        /// Ended by the kernel for want of memory.
        out_of_memory: bool,
    },
    /// Being removed, or dead: it can only be removed.
    Dead,
}

impl ContainerState {
    /// Docker's word for it.
    pub fn word(&self) -> &'static str {
        match self {
            ContainerState::Created => "created",
            ContainerState::Running => "running",
            ContainerState::Paused => "paused",
            ContainerState::Restarting => "restarting",
            ContainerState::Exited { .. } => "exited",
            ContainerState::Dead => "dead",
        }
    }
}

/// A mysqld process that holds the data directory, whatever Docker says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessSeen {
    /// Its process id on the host.
    pub pid: i32,
    /// Start time in clock ticks since boot, so that a reused pid is recognised.
    pub started: u64,
}

/// Memory that a server occupies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resident {
    /// Without what the kernel can take back, in bytes.
    pub bytes: u64,
    /// It has been looked at for long enough: what a smaller buffer pool gives back was given back.
    pub lasting: bool,
}

/// What lies in the data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataSeen {
    /// From `auto.cnf`; none before the first start.
    pub server_uuid: Option<String>,
    /// Whether it looks like a data directory of mysqld (`ibdata1` and `mysql.ibd` are there).
    pub complete: bool,
}

/// A container image that is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSeen {
    /// Docker's id.
    pub id: String,
}

/// The template of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TemplateSeen {
    /// Not made yet.
    Missing,
    /// Being made.
    Making,
    /// Ready.
    Ready {
        /// What `mysqld --version` said, for example `8.4.3`.
        version: String,
    },
    /// Could not be made.
    Failed {
        /// Why, for people.
        reason: String,
    },
}

/// A running server, as its agent sees it over the socket.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerSeen {
    /// Its identity.
    pub server_uuid: String,
    /// Its id in replication.
    pub server_id: u32,
    /// For example `8.4.3`.
    pub version: String,
    /// Takes no sessions without CONNECTION_ADMIN.
    pub offline_mode: bool,
    /// Takes no writes from anybody.
    pub super_read_only: bool,
    /// Takes no writes without CONNECTION_ADMIN.
    pub read_only: bool,
    /// Executed.
    pub gtid_executed: GtidSet,
    /// Executed and no longer in the binary log.
    pub gtid_purged: GtidSet,
    /// The channel `''`, if it is configured.
    pub channel: Option<ChannelSeen>,
    /// Semi-sync towards replicas is switched on.
    pub semi_sync_source: bool,
    /// How it stands towards replicas.
    pub acks: AcksSeen,
    /// Semi-sync towards the source is switched on.
    pub semi_sync_replica: bool,
    /// The receiver that runs was started with it, and acknowledges.
    pub acknowledging: bool,
    /// Accounts that receive from this server now.
    pub receivers: BTreeSet<String>,
    /// Those of them that acknowledge what they receive; none is seen where performance_schema is off.
    pub acknowledgers: BTreeSet<String>,
    /// Scheduled events run (`event_scheduler`).
    pub events: bool,
    /// Seconds since the server started.
    pub uptime: u64,
}

/// Semi-sync towards replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AcksSeen {
    /// How many replicas a commit waits for, where it waits at all.
    pub count: u32,
    /// It is in operation (`Rpl_semi_sync_source_status`).
    pub working: bool,
    /// Connections that acknowledge. One that was broken counts until the source notices.
    pub clients: u32,
    /// Sessions that wait for an acknowledgement; those in line behind the first are not counted.
    pub waiting: u32,
    /// Commits that were acknowledged since the server started.
    pub answered: u64,
    /// Commits that semi-sync let pass without an acknowledgement since the server started
    /// (`Rpl_semi_sync_source_no_tx`).
    pub unanswered: u64,
}

/// A marker of the change of voters: committed after the departed were shut out, and looked for on those that stay (V3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BarrierSeen {
    /// The record that it is about, by its revision.
    pub revision: i64,
    /// Enough voters hold the marker.
    pub passed: bool,
}

/// What this life of the agent knows of the voters' acknowledgements, beside what the server shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VotingSeen {
    /// The last barrier.
    pub barrier: Option<BarrierSeen>,
    /// Commits wait, and none was acknowledged for a while.
    pub stalled: bool,
    /// The marker of the opening waits for its acknowledgement.
    pub opening: bool,
    /// A marker that is to wake waiting commits is on its way (L13).
    pub nudging: bool,
    /// Commits have passed without an acknowledgement since the record in force asks for them.
    pub unanswered: bool,
    /// No commit is acknowledged any more though enough voters are connected, and a connection that was killed stays: the
    /// server's own thread for acknowledgements hangs.
    pub hangs: bool,
}

/// What this life of the agent has done in a handover.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HandoverSeen {
    /// The freeze, on the old master.
    pub freeze: Option<FreezeSeen>,
    /// The record's deadline is past.
    pub late: bool,
    /// All who move have been behind the candidate for a moment: what they missed on their way has arrived.
    pub settled: bool,
    /// This life has frozen the server a moment ago.
    pub just_frozen: bool,
    /// The old master's vote, its final set, as its server has told the candidate: before it is in etcd.
    pub heard: Option<Vote>,
    /// The term whose decision this server has won.
    pub won: Option<u64>,
}

/// A freeze of this life of the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FreezeSeen {
    /// The term of the handover.
    pub term: u64,
    /// How it ended.
    pub state: FreezeState,
}

/// How a freeze ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FreezeState {
    /// Writes did not end in time: it was given up, and they go on.
    GivenUp,
    /// `super_read_only=ON` has returned.
    Frozen {
        /// The final set is published.
        published: bool,
        /// It lasts for longer than the candidate may take.
        overdue: bool,
    },
}

impl ServerSeen {
    /// How many acknowledgements a commit waits for now.
    pub fn acks_in_force(&self) -> u32 {
        if self.semi_sync_source { self.acks.count.max(1) } else { 0 }
    }

    /// Whether its receiver may acknowledge, or would after its next start.
    pub fn may_acknowledge(&self) -> bool {
        self.semi_sync_replica || self.acknowledging
    }

    /// Whether what it has is the channel over which an old master receives from its successor before it hands over: that
    /// is never applied while its own commits wait for others.
    pub fn received_early(&self) -> bool {
        let held = self.channel.as_ref().is_some_and(|channel| channel.applier == ThreadState::Off);
        held && self.semi_sync_source
    }

    /// Executed and retrieved.
    pub fn received(&self) -> GtidSet {
        match &self.channel {
            None => self.gtid_executed.clone(),
            Some(channel) => self.gtid_executed.union(&channel.retrieved),
        }
    }

    /// Whether nobody can write, however many rights he has.
    pub fn closed(&self) -> bool {
        self.read_only && self.super_read_only
    }

    /// Whether an earlier look showed the same, positions and times aside. Transactions of its own on a server that
    /// follows are no position: they may be foreign.
    pub fn stands_like(&self, before: &ServerSeen) -> bool {
        let own = |server: &ServerSeen| match &server.channel {
            Some(_) => server.gtid_executed.of_uuid(&server.server_uuid),
            None => GtidSet::default(),
        };
        if own(self) != own(before) {
            return false;
        }
        let timeless = |server: &ServerSeen| {
            let channel = server.channel.clone().map(|channel| ChannelSeen {
                retrieved: GtidSet::default(),
                lag_seconds: channel.lag_seconds.map(|lag| lag.floor()),
                ..channel
            });
            ServerSeen {
                gtid_executed: GtidSet::default(),
                gtid_purged: GtidSet::default(),
                uptime: 0,
                acks: AcksSeen { waiting: 0, answered: 0, unanswered: 0, ..server.acks },
                channel,
                ..server.clone()
            }
        };
        timeless(self) == timeless(before)
    }

    /// Whether ordinary clients can write.
    pub fn writable(&self) -> bool {
        !self.read_only && !self.super_read_only && !self.offline_mode
    }
}

/// The cluster's own replication channel.
#[derive(Debug, Clone, PartialEq)]
pub struct ChannelSeen {
    /// Address of the source.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The account used.
    pub user: String,
    /// Positions are found by GTID.
    pub auto_position: bool,
    /// The connection is encrypted.
    pub ssl: bool,
    /// The receiver.
    pub receiver: ThreadState,
    /// The applier (coordinator and all workers).
    pub applier: ThreadState,
    /// Received since the relay logs were last made.
    pub retrieved: GtidSet,
    /// MySQL's number and text of the receiver's last error.
    pub receiver_error: Option<(u32, String)>,
    /// The same of the applier or one of its workers.
    pub applier_error: Option<(u32, String)>,
    /// Identity of the source as the receiver has learned it.
    pub source_uuid: Option<String>,
    /// Seconds that the transaction now applied is behind its commit on the source; none when idle.
    pub lag_seconds: Option<f64>,
    /// Delay asked for, in seconds.
    pub delay: u32,
}

/// A replication thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThreadState {
    /// Runs.
    On,
    /// Stopped.
    Off,
    /// Tries to reach the source.
    Connecting,
}

impl ThreadState {
    /// MySQL's word.
    pub fn word(&self) -> &'static str {
        match self {
            ThreadState::On => "ON",
            ThreadState::Off => "OFF",
            ThreadState::Connecting => "CONNECTING",
        }
    }
}

/// The server that an instance is to follow, as asked over TCP.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceSeen {
    /// Its identity.
    pub server_uuid: String,
    /// For example `8.4.3`.
    pub version: String,
    /// Executed.
    pub gtid_executed: GtidSet,
    /// Executed and no longer in its binary log.
    pub gtid_purged: GtidSet,
    /// Whether it takes writes of ordinary clients.
    pub writable: bool,
    /// Whether this instance's replication account is there.
    pub account: bool,
}

/// A CLONE on its recipient (`performance_schema.clone_status` and `clone_progress`).
#[derive(Debug, Clone, PartialEq)]
pub struct CloneSeen {
    /// How it stands.
    pub state: CloneState,
    /// Bytes copied.
    pub bytes: u64,
    /// Estimated bytes to copy.
    pub bytes_total: u64,
    /// MySQL's number and text, when it failed.
    pub error: Option<(u32, String)>,
}

/// How a CLONE stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloneState {
    /// Never asked for.
    None,
    /// Under way.
    InProgress,
    /// All data are here.
    Completed,
    /// It ended with an error.
    Failed,
}

/// An account on a server.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct AccountSeen {
    /// User.
    pub user: String,
    /// Host part.
    pub host: String,
    /// Whether it is locked.
    pub locked: bool,
}

/// The Docker daemon of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DaemonSeen {
    /// Its version.
    pub version: String,
    /// Whether containers outlive it.
    pub live_restore: bool,
    /// Whether memory, swap and CPU limits can be set.
    pub limits: bool,
}

/// What a machine has.
#[derive(Debug, Clone, PartialEq)]
pub struct MachineSeen {
    /// Memory and cores of the machine.
    pub resources: Resources,
    /// Bytes free where the data lie.
    pub free_disk: u64,
}

/// The variables of a server that were asked for; unknown names are missing.
pub type Variables = BTreeMap<String, String>;

/// Data set aside on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetiredSeen {
    /// Directory below `retired/<instance>/`.
    pub name: String,
    /// Set aside because the target was deleted.
    pub deleted: bool,
    /// Its identity.
    pub server_uuid: Option<String>,
}

/// Long work that was started and is observed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Work {
    /// Nothing under way.
    #[default]
    Idle,
    /// Under way.
    Running,
    /// It ended with an error.
    Failed(String),
}

/// How far a stop is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stopping {
    /// Nobody wants to stop the server.
    #[default]
    No,
    /// The converge lane asks the standing lane to close it.
    Asked,
    /// It takes no clients; `read_only_returned`: it also takes no writes, and none is under way.
    Closed {
        /// `super_read_only=ON` has returned.
        read_only_returned: bool,
    },
}

/// Foreign transactions of this server, judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    /// Which.
    pub gtids: GtidSet,
    /// Whether they touch no row of a base table.
    pub harmless: bool,
}

/// All that is known of one instance on its host.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// What the agent keeps on its disk.
    pub record: crate::record::Record,
    /// The data directory.
    pub data: Known<DataSeen>,
    /// Data set aside.
    pub retired: Vec<RetiredSeen>,
    /// `my.cnf` as it lies there.
    pub config: Option<String>,
    /// The last one with which the server came up.
    pub good_config: Option<String>,
    /// Whether the statements of the first start lie there.
    pub init: bool,
    /// Its container.
    pub container: Known<ContainerSeen>,
    /// Shape of the container as it is to be.
    pub shape: String,
    /// Who holds the data directory.
    pub process: Known<ProcessSeen>,
    /// Docker says that the container runs, but for longer than a start takes nobody has held the data directory.
    pub unheld: bool,
    /// What the server occupies, looked at while it is to have less memory.
    pub resident: Known<Resident>,
    /// Its image.
    pub image: Known<ImageSeen>,
    /// Fetching of the image.
    pub pull: Work,
    /// The image's template.
    pub template: TemplateSeen,
    /// Why the port cannot be used, if somebody else has it.
    pub port_taken: Option<String>,
    /// A place among the servers that start.
    pub start_slot: bool,
    /// The server: absent when nobody listens on its socket.
    pub server: Known<ServerSeen>,
    /// What the server's end was about, when it ended right after its start.
    pub start_error: Option<String>,
    /// Verified variables that differ: name, wanted, found.
    pub differing: Known<Vec<(String, String, String)>>,
    /// Variables of `mysql` that the running server was refused or cannot change: name, reason.
    pub unsettable: BTreeMap<String, String>,
    /// The accounts that were seen.
    pub accounts: Known<Vec<AccountSeen>>,
    /// The version of the credentials that the accounts were last made with.
    pub accounts_version: Option<u64>,
    /// Its schemas; looked at where some are frozen, or were.
    pub schemas: Known<Schemas>,
    /// The server it is to follow.
    pub source: Known<SourceSeen>,
    /// The server that leads.
    pub leader: Known<SourceSeen>,
    /// The last CLONE into this server.
    pub clone: Known<CloneSeen>,
    /// A CLONE under way.
    pub seed: Work,
    /// How far a stop is.
    pub stopping: Stopping,
    /// Foreign transactions, judged.
    pub judged: Option<Judged>,
    /// The voters' acknowledgements.
    pub voting: VotingSeen,
    /// A handover.
    pub handover: HandoverSeen,
}

impl Seen {
    /// Whether the container's process runs, as far as Docker says.
    pub fn container_runs(&self) -> bool {
        self.container
            .present()
            .is_some_and(|c| matches!(c.state, ContainerState::Running | ContainerState::Paused))
    }
}
