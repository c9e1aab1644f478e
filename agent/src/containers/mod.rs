//! The seam to Docker. [`docker::Docker`] is the real one.

pub mod docker;

use async_trait::async_trait;
use futures::stream::BoxStream;
use schemadock_agent_plan::observed::{ContainerSeen, DaemonSeen, ImageSeen};
use schemadock_schema::known::Known;
use schemadock_schema::size::Resources;
use schemadock_schema::{ClusterName, HostName, InstanceName};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Label: id of the fleet.
pub const LABEL_FLEET: &str = "schemadock.fleet";
/// Label: the instance.
pub const LABEL_INSTANCE: &str = "schemadock.instance";
/// Label: the host.
pub const LABEL_HOST: &str = "schemadock.host";
/// Label: the cluster at creation; nothing compares it.
pub const LABEL_CLUSTER: &str = "schemadock.cluster";
/// Label: hash over what only a new container can change.
pub const LABEL_SHAPE: &str = "schemadock.shape";
/// Label: a short-lived container, and of which life of the agent.
pub const LABEL_ERRAND: &str = "schemadock.errand";

/// Why Docker did not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ContainerError {
    /// No answer within the deadline; whether it was done is unknown.
    #[error("Docker did not answer {what} within {seconds:.0} s")]
    Deadline {
        /// What was asked.
        what: &'static str,
        /// The deadline.
        seconds: f64,
    },
    /// The daemon cannot be reached.
    #[error("Docker cannot be reached at {socket}: {why}; is the daemon running?")]
    Unreachable {
        /// Where.
        socket: String,
        /// The transport's reason.
        why: String,
    },
    /// There is no such container or image (404).
    #[error("Docker knows no {what}")]
    NotFound {
        /// What was asked for.
        what: String,
    },
    /// The state or name is in the way (409).
    #[error("Docker: {why}")]
    Conflict {
        /// Docker's words.
        why: String,
    },
    /// The image cannot be had.
    #[error("image {image} cannot be had: {why}; load or tag it on this host, or name another image")]
    Image {
        /// As written.
        image: String,
        /// Docker's words.
        why: String,
    },
    /// Any other answer.
    #[error("Docker refused {what} ({status}): {why}")]
    Refused {
        /// What was asked.
        what: &'static str,
        /// HTTP status.
        status: u16,
        /// Docker's words.
        why: String,
    },
}

/// A container as it is to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerSpec {
    /// The instance's name, in a local fleet with the fleet's before it.
    pub name: String,
    /// As written.
    pub image: String,
    /// For labels.
    pub instance: InstanceName,
    /// For labels.
    pub cluster: ClusterName,
    /// Arguments after the entrypoint, which is `mysqld`.
    pub command: Vec<String>,
    /// `uid:gid` of the server.
    pub user: String,
    /// Mounts: directory on the host, directory inside.
    pub mounts: Vec<(PathBuf, String)>,
    /// `host`, or `container:NAME`.
    pub network: String,
    /// Memory (with swap) and cores.
    pub limits: Resources,
}

/// Whose containers these are: an agent sees and touches no others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Fleet ids that are or were this fleet's; the last one is put on new containers.
    pub fleets: Vec<String>,
    /// The host.
    pub host: HostName,
}

/// A short-lived container, removed when it ends.
#[derive(Debug, Clone, PartialEq)]
pub struct Errand {
    /// As written.
    pub image: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// `uid:gid`.
    pub user: String,
    /// Mounts: directory on the host, directory inside.
    pub mounts: Vec<(PathBuf, String)>,
}

/// How an errand ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrandEnd {
    /// Exit code.
    pub code: i64,
    /// The last 64 KiB of its output and error output.
    pub output: String,
}

/// The seam. Every call has a deadline; a call that met it says nothing about what was done.
#[async_trait]
pub trait Containers: Send + Sync + 'static {
    /// Finds out ahead of time what the first container would have to wait for; what fails is found out then.
    async fn prepare(&self, _owner: &Owner, _image: &str) {}

    /// The daemon.
    async fn daemon(&self) -> Result<DaemonSeen, ContainerError>;

    /// This owner's containers by instance; two for one instance: the running one, else the newest. One whose inspection
    /// hangs or fails is unknown and delays no other beyond its deadline.
    async fn list(
        &self,
        owner: &Owner,
    ) -> Result<BTreeMap<InstanceName, Known<ContainerSeen>>, ContainerError>;

    /// One container anew.
    async fn inspect(&self, id: &str) -> Result<Option<ContainerSeen>, ContainerError>;

    /// Wakes up at every change of this owner's containers; ends when the connection does. What happened before its
    /// first poll is missed: list after it is open.
    async fn changes(&self, owner: &Owner) -> Result<BoxStream<'static, ()>, ContainerError>;

    /// An image that is here.
    async fn image(&self, image: &str) -> Result<Option<ImageSeen>, ContainerError>;

    /// Fetches an image. Long: to be started and observed.
    async fn pull(&self, image: &str) -> Result<(), ContainerError>;

    /// Makes a container (not started) and returns its id. One of this owner that is in the way of the name and does
    /// not run is removed first; one of anybody else is a conflict.
    async fn create(&self, owner: &Owner, spec: &ContainerSpec) -> Result<String, ContainerError>;

    /// Starts one; nothing happens where it runs.
    async fn start(&self, id: &str) -> Result<(), ContainerError>;

    /// Thaws one; nothing happens where it is not paused.
    async fn unpause(&self, id: &str) -> Result<(), ContainerError>;

    /// SIGKILL; nothing happens where it does not run. A paused one is killed, too.
    async fn kill(&self, id: &str) -> Result<(), ContainerError>;

    /// SIGTERM, and waits for the end; to be called only after the server was made read-only (L5). One that does not
    /// answer yet ignores the signal.
    async fn terminate(&self, id: &str, grace_seconds: u64) -> Result<(), ContainerError>;

    /// Removes one that does not run; nothing happens where it is gone.
    async fn remove(&self, id: &str) -> Result<(), ContainerError>;

    /// Sets the limits of a living one.
    async fn set_limits(&self, id: &str, limits: &Resources) -> Result<(), ContainerError>;

    /// The last lines of its output.
    async fn output(&self, id: &str, lines: usize) -> Result<Vec<String>, ContainerError>;

    /// Runs an errand to its end, at most `seconds`; then it is killed.
    async fn run(&self, owner: &Owner, errand: &Errand, seconds: u64) -> Result<ErrandEnd, ContainerError>;

    /// Why a server could not listen there now, for people; none where it could.
    async fn port_taken(&self, address: &str, port: u16) -> Option<String>;

    /// Kills and removes the errands that earlier lives of the agent left, and says how many there were.
    async fn remove_errands(&self, owner: &Owner) -> Result<usize, ContainerError>;
}

/// Hash over what only a new container can change.
pub fn shape(spec: &ContainerSpec) -> String {
    use sha2::{Digest, Sha256};
    let mut hash = Sha256::new();
    hash.update(format!("{:?}{:?}{:?}{:?}", spec.command, spec.user, spec.mounts, spec.network));
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
