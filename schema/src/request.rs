//! Single requests to an agent: `P/requests/<host>/<id>`.

use serde::{Deserialize, Serialize};

use crate::{InstanceName, Timestamp};

/// How long a request is good for, in seconds.
pub const REQUEST_SECONDS: i64 = 600;

/// Something asked of an agent once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// What.
    pub kind: RequestKind,
    /// Of which instance; for `cache` none.
    pub instance: Option<InstanceName>,
    /// Who asks.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// After this it is not done any more.
    pub not_after: Timestamp,
}

/// What can be asked of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RequestKind {
    /// Destroy retired data.
    Purge,
    /// Set the data aside and seed anew.
    Reseed,
    /// Stop safely and start, with what was pending.
    Restart,
    /// Write the status now.
    Refresh,
    /// Publish what the agent remembers.
    Cache,
}

impl std::fmt::Display for RequestKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            RequestKind::Purge => "purge",
            RequestKind::Reseed => "reseed",
            RequestKind::Restart => "restart",
            RequestKind::Refresh => "refresh",
            RequestKind::Cache => "cache",
        })
    }
}

/// How a request ended; stands in the event's `details`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestOutcome {
    /// The request's id.
    pub request: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Why, where it was not done.
    pub reason: Option<String>,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// As asked.
    Done,
    /// Not done, for the reason given.
    Refused,
    /// Too late.
    Expired,
}
