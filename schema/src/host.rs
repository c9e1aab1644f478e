//! What an agent reports of its host: `P/hosts/<host>`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::size::Resources;
use crate::status::StoreReport;
use crate::{HostName, InstanceName, Timestamp};

/// A host as its agent sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// The host.
    pub name: HostName,
    /// Where its servers listen.
    pub address: String,
    /// What fails together.
    pub zone: Option<String>,
    /// For placement.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// What the agent offers to instances.
    pub capacity: Resources,
    /// The sum of the limits of its instances.
    pub allocated: Resources,
    /// Bytes free where the data lie.
    pub free_disk: Option<u64>,
    /// Data set aside.
    #[serde(default)]
    pub retired: Vec<RetiredData>,
    /// How many instances it has.
    #[serde(default)]
    pub instances: u32,
    /// What a person should mend.
    #[serde(default)]
    pub warnings: Vec<HostWarning>,
    /// Whether etcd is the one the agent knows.
    pub store: StoreReport,
    /// The agent's version.
    pub agent_version: String,
    /// The Docker daemon's version.
    pub docker_version: Option<String>,
    /// When it was written.
    pub updated_at: Timestamp,
}

/// Data set aside in `retired/`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RetiredData {
    /// Whose they were.
    pub instance: InstanceName,
    /// How much disk they take.
    pub bytes: u64,
    /// Since when.
    pub since: Timestamp,
}

/// Something that a person should mend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostWarning {
    /// One word for scripts.
    pub kind: String,
    /// What was found.
    pub message: String,
    /// How to mend it.
    pub hint: String,
}
