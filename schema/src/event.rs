//! What happened: `P/events/<cluster>/<id>`, kept for 7 days by a lease.

use serde::{Deserialize, Serialize};

use crate::{ClusterName, HostName, InstanceName, Timestamp};

/// How long events are kept, in seconds.
pub const EVENT_SECONDS: i64 = 7 * 24 * 3600;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Milliseconds (13 digits), writer, counter.
    pub id: String,
    /// When.
    pub time: Timestamp,
    /// To which cluster; none for a host's own.
    pub cluster: Option<ClusterName>,
    /// To which instance.
    pub instance: Option<InstanceName>,
    /// On which host.
    pub host: Option<HostName>,
    /// One word for scripts, for example `mended`, `request`, `seeded`.
    pub kind: String,
    /// One sentence for people.
    pub message: String,
    /// Who wrote it.
    pub by: String,
    /// More, for scripts.
    #[serde(default)]
    pub details: serde_json::Value,
}

/// An event's id: sorts by time, then by writer.
pub fn event_id(time: Timestamp, writer: &str, counter: u32) -> String {
    format!("{:013}-{writer}-{counter:06}", time.as_millisecond())
}
