//! The fleet's identity: `P/fleet`. What an agent remembers: `P/caches/<host>/<cluster>`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::leadership::Leadership;
use crate::policy::ClusterPolicy;
use crate::secrets::Secrets;
use crate::target::Document;
use crate::{ClusterName, HostName, InstanceName, Timestamp};

/// `P/fleet`: created once, never changed but by `fleet accept`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fleet {
    /// Random.
    pub id: String,
    /// Stores that a person has declared to be this fleet's.
    #[serde(default)]
    pub accepted: Vec<Accepted>,
}

/// One such declaration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Accepted {
    /// The fleet id that agents had remembered.
    pub id: String,
    /// The revision up to which they had seen that store.
    pub revision: i64,
    /// Who.
    pub by: String,
    /// When.
    pub at: Timestamp,
}

/// `P/caches/<host>/<cluster>`: what an agent remembers of a cluster, published on request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cache {
    /// The agent's host.
    pub host: HostName,
    /// The cluster.
    pub cluster: ClusterName,
    /// The fleet id remembered.
    pub fleet: Option<String>,
    /// The last revision seen.
    pub revision: i64,
    /// The newest term that each instance has accepted.
    #[serde(default)]
    pub terms: BTreeMap<InstanceName, u64>,
    /// The leadership as last seen.
    pub leadership: Option<Leadership>,
    /// The policy as last seen.
    pub policy: Option<ClusterPolicy>,
    /// The targets of this host in that cluster.
    #[serde(default)]
    pub targets: BTreeMap<InstanceName, Document>,
    /// The credentials.
    pub secrets: Option<Secrets>,
    /// The server ids of this host's instances of that cluster.
    #[serde(default)]
    pub server_ids: BTreeMap<InstanceName, u32>,
}
