//! What the agent keeps of an instance on its own disk, outside the data directory.

use std::collections::BTreeSet;

use schemadock_schema::leadership::Durability;
use schemadock_schema::{ClusterName, InstanceName, Timestamp};
use serde::{Deserialize, Serialize};

/// One instance's record. Written by temp file, fsync, rename, fsync of the directory, before the effect it is about.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Record {
    /// Given out in etcd; a new one with each new data directory (L8).
    #[serde(default)]
    pub server_id: Option<u32>,
    /// The identity of the data directory that is this instance's; none before its first start.
    #[serde(default)]
    pub server_uuid: Option<String>,
    /// Where the data directory comes from and how far it is.
    #[serde(default)]
    pub data: DataOrigin,
    /// The newest term accepted, of which cluster. It belongs to the data directory.
    #[serde(default)]
    pub accepted: Option<AcceptedTerm>,
    /// The newest term voted for in etcd.
    #[serde(default)]
    pub voted: Option<AcceptedTerm>,
    /// The durability of the last term in which this data directory was master.
    #[serde(default)]
    pub led_under: Option<Durability>,
    /// The term in which the scheduled events of the one that led before were looked at.
    #[serde(default)]
    pub events_term: Option<u64>,
    /// Schemas that were made READ ONLY here because the cluster's policy names them as frozen: ours to be thawed.
    #[serde(default)]
    pub frozen: BTreeSet<String>,
    /// The file last found good by `mysqld --validate-config`, as a hash, with the image.
    #[serde(default)]
    pub validated: Option<String>,
    /// The file whose settings are in force: the one of the last start, with what was changed live since.
    #[serde(default)]
    pub in_force: Option<String>,
    /// The data are to be set aside and made anew, and why.
    #[serde(default)]
    pub replacing: Option<Replacing>,
    /// A changed configuration with which the server did not come up: its hash, and the error.
    #[serde(default)]
    pub rejected: Option<RejectedConfig>,
    /// How often the present step was tried.
    #[serde(default)]
    pub attempts: u32,
    /// Since when the instance waits, and on what; kept over restarts of the agent.
    #[serde(default)]
    pub waiting_since: Option<(String, Timestamp)>,
}

/// Where a data directory comes from and how far it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "stage")]
pub enum DataOrigin {
    /// No data directory was made yet.
    #[default]
    None,
    /// A copy of the template is being made: what is there may be half a copy.
    Copying,
    /// Made from the template, never opened, nothing executed, no term accepted.
    Template,
    /// A CLONE into it has begun: what is there may be half of it.
    Cloning {
        /// The member the data come from.
        donor: InstanceName,
        /// Since when.
        since: Timestamp,
    },
    /// It holds data of the cluster.
    Own,
}

/// The newest term accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptedTerm {
    /// The cluster.
    pub cluster: ClusterName,
    /// The term.
    pub term: u64,
}

/// Data that are to be set aside and made anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replacing {
    /// A person asked for it.
    pub asked: bool,
    /// Why.
    pub why: String,
}

/// A configuration with which the server did not come up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectedConfig {
    /// The file, as a hash, with the image.
    pub hash: String,
    /// What the server said.
    pub error: String,
}
