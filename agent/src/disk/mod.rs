//! The seam to the host's disk: data directories, templates, retired data, records.
//!
//! ```text
//! STATE/agent.json                      the agent's id, fleet, last revision
//! STATE/cache/…                         targets, policies, leaderships, secrets as last seen (0600)
//! STATE/templates/<key>/data, version   one per image
//! STATE/instances/<instance>/record.json
//! STATE/instances/<instance>/mount/     mounted into the container: data/, my.cnf, my.cnf.good, init.sql
//! STATE/retired/<instance>/<time>/      record.json, mount/, why.json
//! RUN/<short>/                          mounted into the container: mysqld.sock
//! ```

mod files;
pub mod local;
mod process;
mod retired;
mod template;

use std::collections::BTreeMap;
use std::path::PathBuf;

use async_trait::async_trait;
use schemadock_agent_plan::observed::{DataSeen, ProcessSeen};
use schemadock_agent_plan::record::Record;
use schemadock_schema::known::Known;
use schemadock_schema::{InstanceName, Timestamp};
use serde::{Deserialize, Serialize};

/// Why the disk did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// No room.
    #[error("no room on the disk at {path}: free some space there")]
    Full {
        /// Where.
        path: String,
    },
    /// Any other error of the system.
    #[error("{what} {path}: {source}")]
    Io {
        /// What was done.
        what: &'static str,
        /// To what.
        path: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file that cannot be read as what it is.
    #[error("{path} cannot be read: {why}; it was left as it is")]
    Garbage {
        /// Which.
        path: String,
        /// Why.
        why: String,
    },
    /// Another agent uses the state directory.
    #[error(
        "{path} is in use by another agent (process {pid}): stop that one, or give this one another state_dir"
    )]
    Locked {
        /// The state directory.
        path: String,
        /// The other agent's process id, as it wrote it.
        pid: String,
    },
    /// No answer within the deadline.
    #[error("the disk did not answer {what} within {seconds:.0} s")]
    Deadline {
        /// What was asked.
        what: &'static str,
        /// The deadline.
        seconds: f64,
    },
}

/// Data set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retired {
    /// Whose.
    pub instance: InstanceName,
    /// Name of its directory below `retired/<instance>/`.
    pub name: String,
    /// Since when.
    pub since: Timestamp,
    /// How much disk it takes.
    pub bytes: u64,
    /// Why.
    pub why: RetiredWhy,
    /// Its identity.
    pub server_uuid: Option<String>,
}

/// Why data were set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RetiredWhy {
    /// The target was deleted: putting it back takes them up again.
    Deleted,
    /// A person asked for a reseed.
    Reseed,
    /// They could not be used any more, and a live member holds all that the cluster has acknowledged.
    Replaced,
}

/// The files of an instance that both its container and its agent see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// Mounted at `/schemadock`.
    pub mount: PathBuf,
    /// Mounted at `/schemadock-run`.
    pub run: PathBuf,
    /// The server's socket on the host.
    pub socket: PathBuf,
}

/// A small file of an instance that its container sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstanceFile {
    /// `my.cnf`.
    Config,
    /// `my.cnf.good`: the last with which the server came up.
    GoodConfig,
    /// `my.cnf.candidate`: for mysqld to check before it becomes `my.cnf`.
    CandidateConfig,
    /// `init.sql`: holds passwords; removed after the first start.
    Init,
}

/// The seam. All files are 0600, all directories 0700; those that the server sees belong to its user.
#[async_trait]
pub trait Disk: Send + Sync + 'static {
    /// Where an instance's files are. Makes the directories.
    async fn places(&self, instance: &InstanceName) -> Result<Places, DiskError>;

    /// Instances that have a directory here.
    async fn instances(&self) -> Result<Vec<InstanceName>, DiskError>;

    /// An instance's record; the default where there is none.
    async fn record(&self, instance: &InstanceName) -> Result<Record, DiskError>;

    /// Writes it: temp file, fsync, rename, fsync of the directory.
    async fn write_record(&self, instance: &InstanceName, record: &Record) -> Result<(), DiskError>;

    /// What lies in its data directory: absent where there is none or an empty one.
    async fn data(&self, instance: &InstanceName) -> Known<DataSeen>;

    /// The process that holds its data directory, whatever Docker says.
    async fn process(&self, instance: &InstanceName) -> Known<ProcessSeen>;

    /// The memory in bytes that this process occupies, without what the kernel can take back.
    async fn resident(&self, process: &ProcessSeen) -> Known<u64>;

    /// SIGKILL to that process, if it is still the same one.
    async fn kill_process(&self, process: &ProcessSeen) -> Result<(), DiskError>;

    /// A small file.
    async fn read_file(
        &self,
        instance: &InstanceName,
        file: InstanceFile,
    ) -> Result<Option<String>, DiskError>;

    /// Writes a small file, or removes it.
    async fn write_file(
        &self,
        instance: &InstanceName,
        file: InstanceFile,
        text: Option<&str>,
    ) -> Result<(), DiskError>;

    /// A template's version, if it is ready.
    async fn template(&self, key: &str) -> Result<Option<String>, DiskError>;

    /// An empty directory (mounted at `/schemadock`) in which a template can be made; what was left of an earlier try is
    /// removed.
    async fn begin_template(&self, key: &str) -> Result<PathBuf, DiskError>;

    /// Declares it ready (fsync, rename).
    async fn finish_template(&self, key: &str, version: &str) -> Result<(), DiskError>;

    /// Copies (or reflinks) the template as the instance's data directory, without `auto.cnf` and `*.pem`. Half a copy of
    /// an earlier try is removed first, a whole one that never started is taken; anything else that is there is an error.
    async fn copy_template(&self, key: &str, instance: &InstanceName) -> Result<(), DiskError>;

    /// Sets the instance's data and record aside.
    async fn retire(&self, instance: &InstanceName, now: Timestamp, why: RetiredWhy)
    -> Result<(), DiskError>;

    /// All data set aside.
    async fn retired(&self) -> Result<Vec<Retired>, DiskError>;

    /// Takes data up again, with their record.
    async fn take_up(&self, retired: &Retired) -> Result<(), DiskError>;

    /// Destroys the retired data of an instance; returns the bytes.
    async fn purge(&self, instance: &InstanceName) -> Result<u64, DiskError>;

    /// Removes an instance's directories once nothing of value is in them.
    async fn forget(&self, instance: &InstanceName) -> Result<(), DiskError>;

    /// Bytes free where the data lie.
    async fn free_bytes(&self) -> Result<u64, DiskError>;

    /// What the agent remembers of the store, by key.
    async fn read_cache(&self) -> Result<BTreeMap<String, Vec<u8>>, DiskError>;

    /// Writes it.
    async fn write_cache(&self, cache: &BTreeMap<String, Vec<u8>>) -> Result<(), DiskError>;

    /// The agent's own identity; made at the first call.
    async fn agent(&self) -> Result<AgentRecord, DiskError>;

    /// Writes it.
    async fn write_agent(&self, record: &AgentRecord) -> Result<(), DiskError>;
}

/// The agent's own identity, under a file lock.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AgentRecord {
    /// Random, made once.
    pub id: String,
    /// The fleet remembered.
    #[serde(default)]
    pub fleet: Option<String>,
    /// Fleets it had been part of.
    #[serde(default)]
    pub former_fleets: Vec<String>,
    /// The last revision seen.
    #[serde(default)]
    pub revision: i64,
    /// The store was seen at an older one since, and nobody has accepted that.
    #[serde(default)]
    pub went_back: bool,
    /// Requests taken up: their ids.
    #[serde(default)]
    pub requests: Vec<String>,
}
