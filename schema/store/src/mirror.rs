//! A chosen part of the store, kept at hand by watch.
//!
//! *Expected flow*: [`Mirror::want`] names the parts; [`Mirror::view`] is what is known of them; [`Mirror::changed`]
//! wakes up whoever waits for news. The mirror lists (paged), watches, and lists anew whenever a watch ends: it never
//! resumes a watch, since another store may answer by then.
//!
//! *Guarantees*: a view holds only what a believed store said (see [`Gate`]); what a disbelieved one says (blank,
//! foreign, older) changes nothing but [`View::store`]. A part never listed is unknown, not absent. Each list is made
//! together with `P/fleet`, and before a deletion is believed `P/fleet` is looked at again, so that a store wiped
//! while it is watched takes nothing away either.
//!
//! *Caveats*: parts follow each other closely, not in step; [`View::reached`] says how far each is. A guard on a
//! prefix needs that revision, not [`View::revision`].

mod follower;
mod gate;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use schemadock_schema::keys::Keys;
use schemadock_schema::known::{Known, WhyUnknown};
use schemadock_schema::status::StoreReport;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{Entry, Selector, Store, watch};
use follower::Follower;
pub use gate::Gate;

/// What is known of the parts that are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct View {
    /// All entries of the parts that have been listed.
    pub entries: BTreeMap<String, Arc<Entry>>,
    /// The parts that have been listed at least once, with the revision that each has reached.
    pub listed: BTreeMap<Selector, i64>,
    /// The newest revision that any part has reached.
    pub revision: i64,
    /// Whether the store is believed; none before the first answer.
    pub store: Option<StoreReport>,
    /// The fleet that all this was said of; none before a store was believed.
    pub fleet: Option<String>,
    /// Creation revision of `P/fleet`, for guards.
    pub fleet_created: Option<i64>,
}

impl View {
    /// One key: unknown while no listed part covers it.
    pub fn get(&self, key: &str) -> Known<&Entry> {
        match self.entries.get(key) {
            Some(entry) => Known::Present(entry),
            None if self.listed.keys().any(|part| part.covers(key)) => Known::Absent,
            None => Known::Unknown(WhyUnknown::NotYet),
        }
    }

    /// All below a prefix, in order of their keys. Whether that is all there is, [`View::reached`] says.
    pub fn below<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a Entry> {
        self.entries
            .range(prefix.to_owned()..)
            .map(|(_, entry)| &**entry)
            .take_while(move |entry| entry.key.starts_with(prefix))
    }

    /// The revision at which everything below this prefix (or this key) is known; none while it is not known at all.
    pub fn reached(&self, prefix: &str) -> Option<i64> {
        self.listed.iter().filter(|(part, _)| part.covers(prefix)).map(|(_, revision)| *revision).max()
    }

    /// Whether anything but revisions differs.
    fn tells_more_than(&self, older: &View) -> bool {
        self.entries != older.entries
            || self.store != older.store
            || self.fleet != older.fleet
            || self.fleet_created != older.fleet_created
            || !self.listed.keys().eq(older.listed.keys())
    }
}

/// See the module. Clones share the watches; each has its own idea of what is news. They end with the last clone.
#[derive(Clone)]
pub struct Mirror {
    store: Arc<dyn Store>,
    wanted: Arc<watch::Sender<BTreeSet<Selector>>>,
    gate: Arc<watch::Sender<Gate>>,
    view: watch::Receiver<Arc<View>>,
    stop: CancellationToken,
    _ends_with_the_last_clone: Arc<DropGuard>,
}

impl std::fmt::Debug for Mirror {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mirror").field("wanted", &*self.wanted.borrow()).finish_non_exhaustive()
    }
}

impl Mirror {
    /// Begins to follow `P/fleet`, on the current tokio runtime. The seed spreads the retries of many mirrors.
    pub fn start(store: Arc<dyn Store>, keys: Keys, gate: Gate, rng_seed: u64) -> Self {
        let stop = CancellationToken::new();
        let (wanted, wanted_seen) = watch::channel(BTreeSet::new());
        let (gate, gate_seen) = watch::channel(gate);
        let (shown, view) = watch::channel(Arc::new(View::default()));
        let follower = Follower::new(store.clone(), keys.fleet(), wanted_seen, gate_seen, shown, rng_seed);
        let stopped = stop.clone();
        tokio::spawn(async move { stopped.run_until_cancelled(follower.run()).await });
        Self {
            store,
            wanted: Arc::new(wanted),
            gate: Arc::new(gate),
            view,
            _ends_with_the_last_clone: Arc::new(stop.clone().drop_guard()),
            stop,
        }
    }

    /// Replaces the wanted parts. What no wanted part covers disappears from the view.
    pub fn want(&self, parts: BTreeSet<Selector>) {
        self.wanted.send_if_modified(|wanted| {
            let news = *wanted != parts;
            *wanted = parts;
            news
        });
    }

    /// What is known now.
    pub fn view(&self) -> Arc<View> {
        self.view.borrow().clone()
    }

    /// Returns when there is a view that this clone has not been told of yet; at once if there is one already. Never
    /// returns after the mirror was stopped.
    pub async fn changed(&mut self) {
        if self.view.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The store that is followed.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Replaces what is remembered of the store, and judges it anew.
    pub fn set_gate(&self, gate: Gate) {
        self.gate.send_replace(gate);
    }

    /// Stops following, for all clones. The last view stays.
    pub fn stop(&self) {
        self.stop.cancel();
    }
}
