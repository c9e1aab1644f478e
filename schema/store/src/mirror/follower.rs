//! The task behind a mirror: list, judge, watch; and again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{BoxStream, FuturesUnordered, SelectAll, StreamExt as _, TryStreamExt as _};
use futures::{FutureExt as _, TryFutureExt as _};
use schemadock_schema::status::{StoreReport, StoreState};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Gate, View};
use crate::backoff::Delays;
use crate::{Change, Selector, Snapshot, Store, StoreError, watch};

/// The first delay after a failure; enough for an etcd that merely restarts its connection.
const FIRST_DELAY: Duration = Duration::from_millis(50);
/// The longest delay: how late a store that came back may be noticed.
const LONGEST_DELAY: Duration = Duration::from_secs(3);
/// Batches that are folded into one view at most, so that a flood does not keep the view back.
const BURST: usize = 1000;

type Batch = Result<(i64, Vec<Change>), StoreError>;

/// What ended a round.
enum Ended {
    /// Judge anew at once.
    Anew,
    /// Try again after a delay.
    Later,
}

/// The watches that stand. Dropping a part's sender ends its watch.
#[derive(Default)]
struct Watches {
    batches: SelectAll<BoxStream<'static, (Selector, Option<Batch>)>>,
    ends: BTreeMap<Selector, oneshot::Sender<()>>,
}

impl Watches {
    fn add(&mut self, part: Selector, stream: BoxStream<'static, Batch>) {
        let (end, ended) = oneshot::channel();
        let name = part.clone();
        let batches = stream
            .map(Some)
            .chain(futures::stream::once(std::future::ready(None)))
            .map(move |batch| (name.clone(), batch))
            .take_until(ended);
        self.batches.push(batches.boxed());
        self.ends.insert(part, end);
    }
}

pub(super) struct Follower {
    store: Arc<dyn Store>,
    fleet: Selector,
    wanted: watch::Receiver<BTreeSet<Selector>>,
    gates: watch::Receiver<Gate>,
    shown: watch::Sender<Arc<View>>,
    gate: Gate,
    /// What is being made of the news; shown when it is believed.
    view: View,
    delays: Delays,
    /// Whether the last thing that was logged is that etcd cannot be asked.
    lost: bool,
}

impl Follower {
    pub(super) fn new(
        store: Arc<dyn Store>,
        fleet: String,
        wanted: watch::Receiver<BTreeSet<Selector>>,
        gates: watch::Receiver<Gate>,
        shown: watch::Sender<Arc<View>>,
        seed: u64,
    ) -> Self {
        let gate = gates.borrow().clone();
        let delays = Delays::new(seed, FIRST_DELAY, LONGEST_DELAY);
        let view = View::default();
        Self { store, fleet: Selector::Key(fleet), wanted, gates, shown, gate, view, delays, lost: false }
    }

    pub(super) async fn run(mut self) {
        loop {
            match self.round().await {
                Ended::Anew => {}
                Ended::Later => self.pause().await,
            }
        }
    }

    /// Lists, judges, watches, until something ends it.
    async fn round(&mut self) -> Ended {
        if self.gates.has_changed().unwrap_or(false) {
            self.gate = self.gates.borrow_and_update().clone();
        }
        let parts = self.take_wanted();
        let mut watches = Watches::default();
        if let Err(ended) = self.list(&parts, true, &mut watches).await {
            return ended;
        }
        let since = Instant::now();
        let ended = self.watch(watches).await;
        // A store whose watches break at once is asked ever less often.
        if since.elapsed() >= LONGEST_DELAY {
            self.delays.reset();
        }
        ended
    }

    /// Lists these parts at one revision, takes them in if the store is believed, and begins to watch them.
    async fn list(
        &mut self,
        parts: &BTreeSet<Selector>,
        everything: bool,
        watches: &mut Watches,
    ) -> Result<(), Ended> {
        let mut read: Vec<Selector> = parts.iter().cloned().collect();
        if !parts.contains(&self.fleet) {
            read.push(self.fleet.clone());
        }
        let snapshot = self.store.read(&read).await.map_err(|why| self.lose(why))?;
        self.judge(&snapshot).await?;
        let revision = snapshot.revision;
        self.view.entries.retain(|key, _| !parts.iter().any(|part| part.covers(key)));
        self.view.entries.extend(snapshot.entries.into_iter().map(|(key, entry)| (key, Arc::new(entry))));
        self.view.listed.extend(parts.iter().map(|part| (part.clone(), revision)));
        self.view.revision = if everything { revision } else { self.view.revision.max(revision) };
        self.show();
        let store = &self.store;
        let begun =
            parts.iter().map(|part| store.watch(part, revision).map_ok(move |stream| (part.clone(), stream)));
        let begun: Vec<_> =
            begun.collect::<FuturesUnordered<_>>().try_collect().await.map_err(|why| self.lose(why))?;
        for (part, stream) in begun {
            watches.add(part, stream);
        }
        if std::mem::take(&mut self.lost) {
            tracing::info!("etcd answers again");
        }
        Ok(())
    }

    /// Follows the watches until one ends or the store has to be judged anew.
    async fn watch(&mut self, mut watches: Watches) -> Ended {
        loop {
            tokio::select! {
                biased;
                Ok(()) = self.gates.changed() => {
                    self.gate = self.gates.borrow().clone();
                    return Ended::Anew;
                }
                Ok(()) = self.wanted.changed() => {
                    let parts = self.take_wanted();
                    watches.ends.retain(|part, _| parts.contains(part));
                    let added = parts.into_iter().filter(|part| !watches.ends.contains_key(part)).collect::<BTreeSet<_>>();
                    if added.is_empty() {
                        self.show();
                    } else if let Err(ended) = self.list(&added, false, &mut watches).await {
                        return ended;
                    }
                }
                Some((part, batch)) = watches.batches.next() => {
                    if let Err(ended) = self.take_burst(part, batch, &mut watches).await {
                        return ended;
                    }
                }
            }
        }
    }

    /// Takes in a batch and all that are ready behind it, then shows them as one view.
    async fn take_burst(
        &mut self,
        part: Selector,
        batch: Option<Batch>,
        watches: &mut Watches,
    ) -> Result<(), Ended> {
        let mut doubtful = self.take_batch(part, batch)?;
        for _ in 1..BURST {
            let Some(Some((part, batch))) = watches.batches.next().now_or_never() else {
                break;
            };
            doubtful |= self.take_batch(part, batch)?;
        }
        if doubtful {
            let snapshot =
                self.store.read(std::slice::from_ref(&self.fleet)).await.map_err(|why| self.lose(why))?;
            self.judge(&snapshot).await?;
        }
        self.show();
        Ok(())
    }

    /// Takes in a batch, not yet shown. Says whether it takes something away or touches the fleet's own document, so
    /// that the store must be looked at again first.
    fn take_batch(&mut self, part: Selector, batch: Option<Batch>) -> Result<bool, Ended> {
        let (revision, changes) = match batch {
            Some(Ok(batch)) => batch,
            Some(Err(why)) => return Err(self.lose(why)),
            None => {
                self.forget_unshown();
                return Err(Ended::Later);
            }
        };
        // A part that is not wanted any more may have had a batch on its way.
        let Some(&reached) = self.view.listed.get(&part) else {
            return Ok(false);
        };
        if revision < reached {
            tracing::warn!(?part, reached, revision, "etcd's revision went back; listing anew");
            self.forget_unshown();
            return Err(Ended::Later);
        }
        let mut doubtful = false;
        for change in changes {
            let (key, at) = match &change {
                Change::Put(entry) => (&entry.key, entry.mod_revision),
                Change::Delete { key, revision } => (key, *revision),
            };
            // Where parts overlap, the one that is ahead has told it, and perhaps what came after it.
            let known =
                |(other, reached): (&Selector, &i64)| *other != part && other.covers(key) && *reached >= at;
            if self.view.listed.iter().any(known) {
                continue;
            }
            doubtful |= self.fleet.covers(key);
            match change {
                Change::Put(entry) => {
                    self.view.entries.insert(entry.key.clone(), Arc::new(entry));
                }
                Change::Delete { key, .. } => doubtful |= self.view.entries.remove(&key).is_some(),
            }
        }
        self.view.listed.insert(part, revision);
        self.view.revision = self.view.revision.max(revision);
        Ok(doubtful)
    }

    /// Judges the store by a read that holds `P/fleet`. Disbelieved, it is only reported, and this returns when it may
    /// have changed.
    async fn judge(&mut self, snapshot: &Snapshot) -> Result<(), Ended> {
        let found = snapshot.get(self.fleet.start());
        match self.gate.judge(found, snapshot.revision) {
            Ok(gate) => {
                if !self.view.store.as_ref().is_none_or(|report| report.state == StoreState::Ok) {
                    tracing::info!(fleet = gate.expected, "this store is believed (again)");
                }
                self.view.store = Some(StoreReport {
                    state: StoreState::Ok,
                    expected: gate.expected.clone(),
                    found: gate.expected.clone(),
                });
                self.view.fleet = gate.expected.clone();
                self.view.fleet_created = found.map(|entry| entry.create_revision);
                self.gate = gate;
                Ok(())
            }
            Err(report) => {
                self.forget_unshown();
                self.gate.went_back |= report.state == StoreState::Older;
                if self.view.store.as_ref() != Some(&report) {
                    tracing::warn!(
                        state = ?report.state,
                        expected = report.expected,
                        found = report.found,
                        revision = snapshot.revision,
                        last_seen = self.gate.revision,
                        "this store is not believed; what is known is kept"
                    );
                }
                self.view.store = Some(report);
                self.show();
                self.await_fleet(snapshot.revision).await;
                Err(Ended::Anew)
            }
        }
    }

    /// Returns when `P/fleet` or the gate changes, or after a delay.
    async fn await_fleet(&mut self, after: i64) {
        let store = self.store.clone();
        let fleet = self.fleet.clone();
        let news = async {
            if let Ok(mut changes) = store.watch(&fleet, after).await {
                while let Some(Ok((_, changes))) = changes.next().await {
                    if !changes.is_empty() {
                        return;
                    }
                }
            }
            std::future::pending().await
        };
        let delay = self.delays.next_delay();
        tokio::select! {
            biased;
            Ok(()) = self.gates.changed() => self.gate = self.gates.borrow().clone(),
            () = news => {}
            () = tokio::time::sleep(delay) => {}
        }
    }

    /// Waits before the next attempt. What is no longer wanted disappears all the same.
    async fn pause(&mut self) {
        let until = Instant::now() + self.delays.next_delay();
        loop {
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(until) => return,
                Ok(()) = self.wanted.changed() => {
                    self.take_wanted();
                    self.show();
                }
            }
        }
    }

    /// The parts to follow; drops from the view what none of them covers.
    fn take_wanted(&mut self) -> BTreeSet<Selector> {
        let mut parts = self.wanted.borrow_and_update().clone();
        parts.insert(self.fleet.clone());
        self.view.listed.retain(|part, _| parts.contains(part));
        let listed = &self.view.listed;
        self.view.entries.retain(|key, _| listed.keys().any(|part| part.covers(key)));
        parts
    }

    /// Notes that etcd cannot be asked.
    fn lose(&mut self, why: StoreError) -> Ended {
        self.forget_unshown();
        match why {
            // Nothing is wrong: the watch was too far behind.
            StoreError::Compacted => tracing::debug!("etcd has compacted what was watched; listing anew"),
            why if !self.lost => {
                self.lost = true;
                tracing::warn!("{why}; what is known is kept, trying again");
            }
            why => tracing::debug!("{why}"),
        }
        Ended::Later
    }

    /// Goes back to what is shown: the rest came from a store that has not been judged since.
    fn forget_unshown(&mut self) {
        self.view = (**self.shown.borrow()).clone();
    }

    /// Shows the view. Wakes nobody for revisions alone.
    fn show(&mut self) {
        self.gate.revision = self.gate.revision.max(self.view.revision);
        let view = Arc::new(self.view.clone());
        self.shown.send_if_modified(|shown| {
            let news = view.tells_more_than(shown);
            *shown = view;
            news
        });
    }
}
