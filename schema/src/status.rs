//! What an agent reports of an instance: `P/status/<host>/<instance>`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::gtid::GtidSet;
use crate::size::Resources;
use crate::target::Role;
use crate::{ClusterName, HostName, InstanceName, Timestamp};

/// Seconds behind its source that are told when they are crossed, either way: what is decided by, is one of these.
pub const LAG_TOLD: [f64; 5] = [LAG_CLOSE, LAG_WELL, 10.0, 60.0, 600.0];
/// Behind by no more than this a member may take over: it has the rest in a moment, and while it is the only one who
/// acknowledges commits wait for that moment.
pub const LAG_CLOSE: f64 = 1.0;
/// Behind by no more than this a member is well.
pub const LAG_WELL: f64 = 5.0;

/// An instance as its agent sees it. Every field is always written, `null` when unknown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The instance.
    pub name: InstanceName,
    /// Its host.
    pub host: HostName,
    /// Its cluster.
    pub cluster: Option<ClusterName>,
    /// Where clients reach it; the port stands beside.
    pub address: Option<String>,
    /// The port it is meant to listen on.
    pub port: Option<u16>,
    /// The role that the target names.
    pub role: Option<Role>,
    /// Whether the target says so.
    #[serde(default)]
    pub disabled: bool,
    /// Whether the target says so.
    #[serde(default)]
    pub maintenance: bool,
    /// What it does.
    pub observed_role: ObservedRole,
    /// Where it stands on its way.
    pub phase: Phase,
    /// The agent's word that nothing is left to do, at `target_revision` and `policy_revision`.
    pub converged: bool,
    /// What it waits for, if it waits.
    pub waiting_on: Option<WaitingOn>,
    /// One sentence for people.
    #[serde(default)]
    pub message: String,
    /// What its data directory holds.
    pub data: DataReport,
    /// Transactions that its master lacks.
    pub foreign: Option<ForeignReport>,
    /// Whether etcd is the one the agent knows.
    pub store: StoreReport,
    /// How often the present step was tried.
    #[serde(default)]
    pub attempts: u32,
    /// Whether clients can write.
    pub writable: Option<bool>,
    /// The newest term accepted.
    pub term: Option<u64>,
    /// Executed and retrieved.
    pub received: Option<GtidSet>,
    /// The data directory's identity.
    pub server_uuid: Option<String>,
    /// Unique in the fleet.
    pub server_id: Option<u32>,
    /// Executed.
    pub gtid_executed: Option<GtidSet>,
    /// What it replicates from.
    pub source: Option<SourceReport>,
    /// The revision of the leadership record that is wholly in force on this server: whose acknowledgements the master
    /// waits for and whose it has shut out, with the barrier of V3; whether a minion acknowledges.
    #[serde(default)]
    pub leadership_revision: Option<i64>,
    /// A minion: whether its receiver may acknowledge. Only `false` is a promise.
    #[serde(default)]
    pub acknowledges: Option<bool>,
    /// The master: how many acknowledgements a commit waits for; 0 where it waits for none.
    #[serde(default)]
    pub acks: Option<u32>,
    /// The master: the members that receive from it.
    #[serde(default)]
    pub receivers: Vec<InstanceName>,
    /// The master: how many sessions wait for an acknowledgement, as far as it was looked at.
    #[serde(default)]
    pub commits_waiting: Option<u32>,
    /// Schemas that take no writes here because the cluster's policy names them as frozen: READ ONLY, as last seen.
    #[serde(default)]
    pub frozen: Vec<String>,
    /// A seed under way.
    pub seed: Option<SeedReport>,
    /// Settings that wait for a restart.
    #[serde(default)]
    pub restart_pending: Vec<RestartPending>,
    /// Its container.
    pub container: Option<ContainerReport>,
    /// The server's version.
    pub mysql_version: Option<String>,
    /// The limits in force.
    pub size: Option<Resources>,
    /// The revision of the target that all this is about.
    pub target_revision: Option<i64>,
    /// The revision of the cluster's policy that all this is about; 0 where there is none.
    pub policy_revision: Option<i64>,
    /// When it was written.
    pub updated_at: Timestamp,
}

/// What an instance does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ObservedRole {
    /// Leads.
    Master,
    /// Follows.
    Minion,
    /// Neither.
    None,
}

/// Where an instance stands on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Nothing was done yet.
    Pending,
    /// Image, data and container are being made.
    Provisioning,
    /// The server starts.
    Starting,
    /// Data come from another member.
    Seeding,
    /// The server runs; it takes up its source, or the leadership.
    Attaching,
    /// All is as it is to be.
    Running,
    /// The server is stopped, as wished.
    Stopped,
    /// The server runs and takes no clients.
    Fenced,
    /// Something must be mended first; the message says what.
    Failed,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Phase::Pending => "pending",
            Phase::Provisioning => "provisioning",
            Phase::Starting => "starting",
            Phase::Seeding => "seeding",
            Phase::Attaching => "attaching",
            Phase::Running => "running",
            Phase::Stopped => "stopped",
            Phase::Fenced => "fenced",
            Phase::Failed => "failed",
        })
    }
}

/// What an instance waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingOn {
    /// What kind of thing.
    pub kind: WaitKind,
    /// Which one.
    pub name: String,
    /// Since when.
    pub since: Timestamp,
}

/// The kinds of things that are waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WaitKind {
    /// The store has no fleet yet.
    Fleet,
    /// etcd does not answer, or is not ours.
    Etcd,
    /// The Docker daemon does not answer.
    Docker,
    /// The image is not here yet.
    Image,
    /// The template of the image is being made.
    Template,
    /// The port is taken by somebody else.
    Port,
    /// The disk is full.
    Disk,
    /// The host named is not registered.
    Host,
    /// The master is not ready.
    Master,
    /// Another member has not reported.
    Members,
    /// Nobody leads.
    Leadership,
    /// A live member to be seeded from.
    Donor,
    /// The seed to arrive.
    Seed,
    /// Transactions to be applied.
    Applier,
    /// The server to answer.
    Server,
    /// Other servers of the host start first.
    Slot,
    /// Its place among the voters must be given up first.
    Voters,
    /// A controller in office.
    Controller,
    /// A person's decision.
    Person,
    /// `maintenance` in its target.
    Maintenance,
    /// `paused` in the cluster's policy.
    Paused,
    /// A target that can be read.
    Target,
}

impl fmt::Display for WaitKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = serde_json::to_value(self).ok();
        f.pad(text.as_ref().and_then(|v| v.as_str()).unwrap_or("?"))
    }
}

/// What a data directory holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataReport {
    /// In one word.
    pub state: DataState,
    /// Its identity, if it has one.
    pub server_uuid: Option<String>,
}

/// What a data directory holds, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DataState {
    /// Nothing.
    None,
    /// Made from the template, never opened, nothing executed, no term accepted.
    Template,
    /// The recorded `server_uuid`.
    Own,
    /// Another `server_uuid`.
    Foreign,
    /// Could not be looked at.
    Unknown,
}

/// Transactions of a member that its master lacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignReport {
    /// Which.
    pub gtids: GtidSet,
    /// Whether they touch no row of a base table (L7 b).
    pub harmless: bool,
}

/// Whether etcd is the one that the agent knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreReport {
    /// In one word.
    pub state: StoreState,
    /// The fleet id remembered.
    pub expected: Option<String>,
    /// The fleet id found.
    pub found: Option<String>,
}

/// Whether etcd is the one that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreState {
    /// It is.
    Ok,
    /// It holds no fleet.
    Blank,
    /// It holds another fleet.
    Foreign,
    /// It has gone back in time.
    Older,
}

/// What a server replicates from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SourceReport {
    /// The registered host; none where the address belongs to none.
    pub host: Option<HostName>,
    /// The port.
    pub port: u16,
    /// The address in the channel.
    pub address: String,
    /// The receiver: `ON`, `OFF` or `CONNECTING`.
    pub io: String,
    /// The applier: `ON` or `OFF`.
    pub sql: String,
    /// Seconds behind, as told by the newest transaction in the queue; 0 when it is empty.
    pub lag_seconds: Option<f64>,
    /// The last error of either thread.
    pub error: Option<String>,
}

/// A seed under way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeedReport {
    /// `clone`.
    pub method: String,
    /// The member the data come from.
    pub donor: InstanceName,
    /// 0 to 100.
    pub percent: Option<f64>,
    /// Bytes copied.
    pub bytes: Option<u64>,
    /// Bytes to copy.
    pub bytes_total: Option<u64>,
    /// Seconds left at the present pace.
    pub eta_seconds: Option<u64>,
}

/// A setting that waits for a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartPending {
    /// The server variable, or `image`.
    pub variable: String,
    /// Why it is not in force.
    pub reason: String,
}

/// An instance's container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerReport {
    /// Docker's id.
    pub id: String,
    /// The image as written.
    pub image: String,
    /// Docker's word for its state.
    pub state: String,
}
