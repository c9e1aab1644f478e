//! What etcd holds, followed by watch and believed as it is: tests judge it themselves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use schemadock_schema::event::Event;
use schemadock_schema::host::Host;
use schemadock_schema::keys::Keys;
use schemadock_schema::leadership::Leadership;
use schemadock_schema::operation::Operation;
use schemadock_schema::status::Status;
use schemadock_store::etcd::Etcd;
use schemadock_store::{Change, Entry, Selector, Store as _, StoreError};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::task::JoinHandle;

type Entries = BTreeMap<String, Entry>;

/// What was heard, and up to which revision.
#[derive(Debug, Clone, Default)]
struct Heard {
    revision: i64,
    entries: Arc<Entries>,
}

/// All that etcd held at one moment.
#[derive(Debug, Clone)]
pub struct World {
    entries: Arc<Entries>,
    keys: Keys,
}

/// Follows etcd over every outage.
#[derive(Debug)]
pub(super) struct Watcher {
    seen: watch::Receiver<Heard>,
    keys: Keys,
    following: JoinHandle<()>,
}

impl Watcher {
    pub(super) fn start(store: Arc<Etcd>, keys: Keys) -> Watcher {
        let (tell, seen) = watch::channel(Heard::default());
        let prefix = format!("{}/", keys.prefix());
        let following = tokio::spawn(async move {
            loop {
                // Whatever ended it: list anew.
                let _ = follow(&store, &prefix, &tell).await;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        Watcher { seen, keys, following }
    }

    pub(super) fn world(&self) -> World {
        World { entries: self.seen.borrow().entries.clone(), keys: self.keys.clone() }
    }

    /// Waits until everything up to a revision was heard.
    pub(super) async fn heard(&self, revision: i64) {
        let mut seen = self.seen.clone();
        let hearing = seen.wait_for(|heard| heard.revision >= revision);
        let heard = tokio::time::timeout(Duration::from_secs(20), hearing).await;
        assert!(heard.is_ok_and(|heard| heard.is_ok()), "revision {revision} was never heard of");
    }

    /// The first time that `seen` finds something; none if it does not within `bound`.
    pub(super) async fn until<T>(
        &self,
        bound: Duration,
        mut seen: impl FnMut(&World) -> Option<T>,
    ) -> Option<T> {
        let mut news = self.seen.clone();
        let search = async {
            loop {
                news.borrow_and_update();
                if let Some(found) = seen(&self.world()) {
                    return Some(found);
                }
                if news.changed().await.is_err() {
                    return None;
                }
            }
        };
        tokio::time::timeout(bound, search).await.ok().flatten()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.following.abort();
    }
}

async fn follow(store: &Etcd, prefix: &str, tell: &watch::Sender<Heard>) -> Result<(), StoreError> {
    let part = Selector::Prefix(prefix.to_owned());
    let snapshot = store.read(std::slice::from_ref(&part)).await?;
    let mut entries: Entries = snapshot.entries.into_iter().collect();
    tell.send_replace(Heard { revision: snapshot.revision, entries: Arc::new(entries.clone()) });
    let mut changes = store.watch(&part, snapshot.revision).await?;
    while let Some(batch) = changes.next().await {
        let (revision, batch) = batch?;
        for change in batch {
            match change {
                Change::Put(entry) => entries.insert(entry.key.clone(), entry),
                Change::Delete { key, .. } => entries.remove(&key),
            };
        }
        tell.send_replace(Heard { revision, entries: Arc::new(entries.clone()) });
    }
    Ok(())
}

impl World {
    /// One key.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// All keys that begin so.
    pub fn below<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a Entry> {
        let from = self.entries.range(prefix.to_owned()..);
        from.map(|(_, entry)| entry).take_while(move |entry| entry.key.starts_with(prefix))
    }

    fn document<T: DeserializeOwned>(&self, key: &str) -> Option<T> {
        serde_json::from_slice(&self.entries.get(key)?.value).ok()
    }

    fn of_instance(&self, kind: &str, instance: &str) -> String {
        let host = instance.split('-').next().unwrap_or_default();
        format!("{}/{kind}/{host}/{instance}", self.keys.prefix())
    }

    /// An instance's status.
    pub fn status(&self, instance: &str) -> Option<Status> {
        self.document(&self.of_instance("status", instance))
    }

    /// A host's document.
    pub fn host(&self, host: &str) -> Option<Host> {
        self.document(&format!("{}/hosts/{host}", self.keys.prefix()))
    }

    /// Whether a host's agent lives.
    pub fn is_alive(&self, host: &str) -> bool {
        self.entries.contains_key(&format!("{}/alive/{host}", self.keys.prefix()))
    }

    /// A cluster's leadership.
    pub fn leadership(&self, cluster: &str) -> Option<Leadership> {
        self.document(&format!("{}/leadership/{cluster}", self.keys.prefix()))
    }

    /// The members of a cluster that have targets: name, address, port.
    pub fn members(&self, cluster: &str) -> Vec<(String, String, u16)> {
        let prefix = self.keys.targets();
        let targets = self.below(&prefix).filter_map(|entry| {
            let value: serde_json::Value = serde_json::from_slice(&entry.value).ok()?;
            let name = Keys::last_part(&entry.key);
            let host = entry.key.rsplit('/').nth(1)?;
            let own = value["data"]["cluster"] == cluster;
            let port = value["data"]["port"].as_u64()?;
            own.then_some((name.to_owned(), self.host(host)?.address, port as u16))
        });
        targets.collect()
    }

    /// An operation.
    pub fn operation(&self, id: &str) -> Option<Operation> {
        self.document(&format!("{}/operations/{id}", self.keys.prefix()))
    }

    /// The reader's judgement: the agent said so, at the current target, and it lives.
    pub fn converged(&self, instance: &str) -> bool {
        let Some(status) = self.status(instance) else { return false };
        let target = self.entries.get(&self.of_instance("targets", instance));
        let policy = status.cluster.as_ref().and_then(|c| self.entries.get(&self.keys.cluster(c)));
        status.converged
            && status.target_revision == target.map(|entry| entry.mod_revision)
            && status.policy_revision.unwrap_or(0) == policy.map_or(0, |entry| entry.mod_revision)
            && self.is_alive(status.host.as_str())
    }

    /// All events, oldest first.
    pub fn events(&self) -> Vec<Event> {
        let mut all: Vec<Event> = self
            .below(&self.keys.events())
            .filter_map(|entry| serde_json::from_slice(&entry.value).ok())
            .collect();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }

    /// How many events of an instance are of that kind and have those words in their message.
    pub fn told(&self, instance: &str, kind: &str, words: &str) -> usize {
        let about = |event: &Event| event.instance.as_ref().is_some_and(|name| name.as_str() == instance);
        let all = self.events().into_iter();
        all.filter(|event| about(event) && event.kind == kind && event.message.contains(words)).count()
    }

    /// For people: statuses and the last events.
    pub fn describe(&self) -> String {
        let mut text = String::from("--- statuses:\n");
        for entry in self.below(&self.keys.statuses()) {
            let Ok(status) = serde_json::from_slice::<Status>(&entry.value) else {
                text.push_str(&format!("{}: cannot be read\n", entry.key));
                continue;
            };
            let waiting = status
                .waiting_on
                .as_ref()
                .map(|w| format!(" waits for {} {}", w.kind, w.name))
                .unwrap_or_default();
            text.push_str(&format!(
                "{}: {} converged={} data={:?} term={:?} target={:?}{waiting}: {}\n",
                status.name,
                status.phase,
                self.converged(status.name.as_str()),
                status.data.state,
                status.term,
                status.target_revision,
                status.message
            ));
        }
        text.push_str("--- last events:\n");
        let events = self.events();
        for event in &events[events.len().saturating_sub(15)..] {
            let instance = event.instance.as_ref().map(|name| name.as_str()).unwrap_or("-");
            text.push_str(&format!("{} {} {instance}: {}\n", event.time, event.kind, event.message));
        }
        text
    }
}
