//! Writes events, in order, as long as it takes: a store that is away delays them, up to a bound.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use schemadock_schema::event::{Event, event_id};
use schemadock_schema::keys::Keys;
use schemadock_schema::proposal::{Guard, Proposal, Write};
use schemadock_schema::{ClusterName, HostName, InstanceName};
use schemadock_store::backoff::Delays;
use schemadock_store::lease::HourlyLease;
use schemadock_store::mirror::Mirror;
use schemadock_store::watch;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::context::Whose;

/// How many events wait at most while the store is away; older ones go first.
const BOUND: usize = 1000;

/// See the module.
#[derive(Debug, Clone)]
pub struct Events {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    queue: Mutex<VecDeque<Event>>,
    news: Notify,
    counter: AtomicU32,
    host: HostName,
    keys: Keys,
    clock: Clock,
    lease: HourlyLease,
    not_before: Mutex<Instant>,
}

impl Events {
    /// Starts the writer. The seed is for the jitter of its tries.
    pub fn start(
        mirror: &Mirror,
        keys: Keys,
        host: HostName,
        clock: Clock,
        seed: u64,
        whose_name: watch::Receiver<Whose>,
        stop: CancellationToken,
    ) -> Events {
        let lease = HourlyLease::new(mirror.store().clone());
        let inner = Arc::new(Inner {
            queue: Mutex::default(),
            news: Notify::new(),
            counter: AtomicU32::new(0),
            host,
            keys,
            clock,
            lease,
            not_before: Mutex::new(Instant::now()),
        });
        let delays = Delays::new(seed ^ 4, Duration::from_millis(200), Duration::from_secs(10));
        tokio::spawn(write(inner.clone(), mirror.clone(), delays, whose_name, stop));
        Events { inner }
    }

    /// An event about an instance, or about the host itself; it is written in the background.
    pub fn tell(
        &self,
        cluster: Option<&ClusterName>,
        instance: Option<&InstanceName>,
        kind: &str,
        message: impl Into<String>,
    ) {
        let event = self.event(cluster, instance, kind, message.into(), serde_json::Value::Null);
        tracing::info!(kind, instance = instance.map(InstanceName::as_str), "{}", event.message);
        let mut queue = self.inner.queue.lock().expect("no holder panics");
        if queue.len() == BOUND {
            queue.pop_front();
        }
        queue.push_back(event);
        self.inner.news.notify_one();
    }

    /// Until then none is written.
    pub fn hold_until(&self, until: Instant) {
        *self.inner.not_before.lock().expect("no holder panics") = until;
    }

    /// An event, not yet written.
    pub fn event(
        &self,
        cluster: Option<&ClusterName>,
        instance: Option<&InstanceName>,
        kind: &str,
        message: String,
        details: serde_json::Value,
    ) -> Event {
        let time = self.inner.clock.now();
        let counter = self.inner.counter.fetch_add(1, Ordering::Relaxed);
        Event {
            id: event_id(time, self.inner.host.as_str(), counter),
            time,
            cluster: cluster.cloned(),
            instance: instance.cloned(),
            host: Some(self.inner.host.clone()),
            kind: kind.to_owned(),
            message,
            by: format!("agent {}", self.inner.host),
            details,
        }
    }

    /// The write of an event, under this hour's lease.
    ///
    /// # Errors
    /// When no lease can be had.
    pub async fn write_of(&self, event: &Event) -> Result<Write, schemadock_store::StoreError> {
        let lease = self.inner.lease.id().await?;
        let cluster = event.cluster.as_ref().map_or("-", ClusterName::as_str);
        let key = self.inner.keys.event(cluster, &event.id);
        let value = serde_json::to_vec(event).expect("events serialize");
        Ok(Write::Put { key, value, lease: Some(lease) })
    }
}

async fn write(
    inner: Arc<Inner>,
    mirror: Mirror,
    mut delays: Delays,
    whose_name: watch::Receiver<Whose>,
    stop: CancellationToken,
) {
    let events = Events { inner: inner.clone() };
    loop {
        let batch: Vec<Event> = {
            let queue = inner.queue.lock().expect("no holder panics");
            queue.iter().take(50).cloned().collect()
        };
        if batch.is_empty() {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = inner.news.notified() => continue,
            }
        }
        let not_before = *inner.not_before.lock().expect("no holder panics");
        if not_before > Instant::now() {
            tokio::select! {
                biased;
                // What is there is written before the end.
                () = stop.cancelled() => {}
                () = tokio::time::sleep_until(not_before) => continue,
            }
        }
        // Only a believed store gets events (the contract's list of what a strange store gets does not have them).
        let ours = *whose_name.borrow() == Whose::Ours;
        let created = mirror.view().fleet_created.filter(|_| ours);
        let written = match created {
            None => false,
            Some(create_revision) => {
                let mut proposal = Proposal::default();
                proposal.guards.push(Guard::Created { key: inner.keys.fleet(), create_revision });
                let mut all = true;
                for event in &batch {
                    match events.write_of(event).await {
                        Ok(write) => proposal.writes.push(write),
                        Err(_) => all = false,
                    }
                }
                all && matches!(
                    mirror.store().commit(&proposal).await,
                    Ok(schemadock_store::Committed::Written { .. })
                )
            }
        };
        if written {
            delays.reset();
            let mut queue = inner.queue.lock().expect("no holder panics");
            while queue.front().is_some_and(|event| batch.iter().any(|done| done.id == event.id)) {
                queue.pop_front();
            }
        } else {
            // A lease that a write failed with may be gone; one that was not tried is kept.
            if created.is_some()
                && let Ok(lease) = inner.lease.id().await
            {
                inner.lease.forget(lease).await;
            }
            let delay = delays.next_delay();
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(delay) => {}
            }
        }
    }
}
