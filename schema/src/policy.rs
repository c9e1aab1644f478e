//! What people wish of a whole cluster.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::size::Size;
use crate::target::VariableValue;

/// `P/clusters/<cluster>`. Every field may be missing; an instance's own field wins over it, it over the
/// agent's default.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct ClusterPolicy {
    /// The durability wished for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub durability: Option<WishedDurability>,
    /// How many voters must acknowledge a commit, 1 or 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acks: Option<u32>,
    /// The least number of copies under which writes go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_copies: Option<u32>,
    /// Whether a dead master is replaced without asking.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failover: Option<FailoverMode>,
    /// How many failovers in 10 minutes are made without asking.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failover_limit: Option<u32>,
    /// The image of members whose own document names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The size of members that are added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Size>,
    /// How many minions there are to be; only then is the cluster refilled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
    /// Seconds after which a member lost with its host is replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replace_after: Option<u64>,
    /// While true nothing of the cluster is started, mended, seeded, restarted, re-pointed or opened.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// Schemas whose copies here are frozen; changed by operations only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub frozen: Vec<FrozenSchema>,
    /// Standing channels from other clusters; changed by operations only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<serde_json::Value>,
    /// Server variables of all members.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub mysql: BTreeMap<String, VariableValue>,
}

/// What people may wish for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WishedDurability {
    /// A commit is on `acks` voters before the client hears of it.
    Lossless,
    /// A commit is on the master.
    Async,
}

/// Whether a dead master is replaced without asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FailoverMode {
    /// By itself.
    Auto,
    /// Only when a person says so.
    Manual,
}

/// A schema whose copy in this cluster takes no writes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FrozenSchema {
    /// The schema.
    pub schema: String,
    /// Since when, RFC 3339.
    pub since: String,
    /// The operation that froze it.
    pub operation: String,
}

impl ClusterPolicy {
    /// The durability in wish: lossless unless said otherwise.
    pub fn wished_durability(&self) -> WishedDurability {
        self.durability.unwrap_or(WishedDurability::Lossless)
    }
}
