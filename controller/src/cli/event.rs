//! Events that the command line writes: who asked for what.

use std::time::Duration;

use schemadock_schema::event::{EVENT_SECONDS, Event, event_id};
use schemadock_schema::proposal::Write;
use schemadock_schema::{ClusterName, HostName, Timestamp};
use serde_json::Value;

use super::{Context, Failure};

/// What an event is about, and what it says.
#[derive(Debug, Default)]
pub struct Said {
    /// The cluster; none for a host's own event.
    pub cluster: Option<ClusterName>,
    /// The host.
    pub host: Option<HostName>,
    /// One word for scripts.
    pub kind: &'static str,
    /// One sentence for people.
    pub message: String,
    /// More, for scripts.
    pub details: Value,
}

/// An id of now: no other process makes the same.
pub fn new_id(ctx: &Context, now: Timestamp) -> String {
    event_id(now, &writer(&ctx.who), std::process::id())
}

/// Who asks, in the characters that a key may have.
fn writer(who: &str) -> String {
    let clean: String = who
        .to_lowercase()
        .chars()
        .map(|char| if char.is_ascii_lowercase() || char.is_ascii_digit() { char } else { '-' })
        .collect();
    let clean = clean.split('-').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-");
    if clean.is_empty() { "cli".to_owned() } else { clean }
}

/// The writes of events, all under one lease that ends when they are no longer of use.
///
/// # Errors
/// When etcd gives no lease.
pub async fn writes(ctx: &Context, id: &str, now: Timestamp, said: Vec<Said>) -> Result<Vec<Write>, Failure> {
    if said.is_empty() {
        return Ok(Vec::new());
    }
    let lease = ctx.store().await?.grant_lease(Duration::from_secs(EVENT_SECONDS.unsigned_abs())).await?;
    let write = |said: Said| {
        let key = ctx.keys.event(said.cluster.as_ref().map_or("-", ClusterName::as_str), id);
        let event = Event {
            id: id.to_owned(),
            time: now,
            cluster: said.cluster,
            instance: None,
            host: said.host,
            kind: said.kind.to_owned(),
            message: said.message,
            by: ctx.who.clone(),
            details: said.details,
        };
        let value = serde_json::to_vec(&event).expect("events serialize");
        Write::Put { key, value, lease: Some(lease) }
    };
    Ok(said.into_iter().map(write).collect())
}

#[cfg(test)]
mod tests {
    use super::writer;

    #[test]
    fn a_writer_is_made_of_what_keys_may_have() {
        assert_eq!(writer("Ann.Other@db-1.example"), "ann-other-db-1-example");
        assert_eq!(writer("root@/"), "root");
        assert_eq!(writer("ä@é"), "cli");
    }
}
