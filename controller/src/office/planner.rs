//! Follows what etcd holds, and writes what the plan says.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use schemadock_controller_plan::plan::{Doing, Planned, all_clusters, plan};
use schemadock_controller_plan::since::{Bounds, Since};
use schemadock_controller_plan::view::{FleetView, Raw};
use schemadock_schema::ClusterName;
use schemadock_schema::event::{Event, event_id};
use schemadock_schema::keys::Keys;
use schemadock_schema::proposal::{Guard, Write};
use schemadock_schema::status::StoreState;
use schemadock_store::clock::Clock;
use schemadock_store::lease::{HourlyLease, KeptLease};
use schemadock_store::mirror::{Mirror, View};
use schemadock_store::{Committed, Entry, Selector, Store, StoreError, failpoints};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::election::{self, Office};
use super::memory::Memory;
use super::{KEPT_EVERY, OfficeError, Settings, TTL};

/// How soon a pass that could not write is made again.
const AGAIN: Duration = Duration::from_millis(200);
/// How often something that lasts is looked at: an operation under way, an office that others hold.
const TICK: Duration = Duration::from_secs(1);
/// After this without a look, nothing is known of since when anything has been so; and what was written and is not seen
/// by then is waited for no more.
const UNSEEN: Duration = Duration::from_secs(3);
/// How long all else waits once somebody else leads: whoever it is opens to its clients just now.
const LEFT_TO_CLIENTS: Duration = Duration::from_millis(50);
/// How often the revision seen is kept on disk.
const SAVED_EVERY: Duration = Duration::from_secs(10);

/// See the module.
pub(super) struct Planner {
    store: Arc<dyn Store>,
    keys: Keys,
    mirror: Mirror,
    clock: Clock,
    bounds: Bounds,
    memory: Memory,
    settings: Settings,
    wanted: BTreeSet<Selector>,
    /// What `fleet` was made of.
    seen: Arc<View>,
    fleet: FleetView,
    /// The clusters that are to be looked at: those with news, and those that change by themselves.
    due: BTreeSet<ClusterName>,
    since: Since,
    events: HourlyLease,
    counter: u32,
    registered: Option<i64>,
    saved_at: Instant,
    looked_at: Option<Instant>,
    /// What was written, until it is seen: parts of the view are not in step, and half of a transaction tells a
    /// story of its own.
    unseen: Vec<Unseen>,
    unseen_until: Instant,
    /// Until when nothing is planned.
    rests_until: Instant,
}

/// A key that this copy has written, and the revision; a deleted one is to be gone.
struct Unseen {
    key: String,
    revision: i64,
    deleted: bool,
}

/// The parts of the store that are followed.
fn parts(keys: &Keys) -> BTreeSet<Selector> {
    let prefixes = [
        keys.targets(),
        keys.statuses(),
        keys.hosts(),
        keys.alive_all(),
        keys.cordons(),
        keys.clusters(),
        keys.leaderships(),
        keys.handovers(),
        keys.members_all(),
        keys.locks(),
        keys.operations(),
        keys.routes(),
        keys.requests(),
    ];
    let single = [keys.fleet(), keys.controller_leader()];
    prefixes.into_iter().map(Selector::Prefix).chain(single.map(Selector::Key)).collect()
}

impl Planner {
    pub(super) fn new(
        store: Arc<dyn Store>,
        keys: Keys,
        mirror: Mirror,
        clock: Clock,
        bounds: Bounds,
        memory: Memory,
        settings: Settings,
    ) -> Self {
        let wanted = parts(&keys);
        mirror.want(wanted.clone());
        Planner {
            events: HourlyLease::new(store.clone()),
            store,
            keys,
            mirror,
            clock,
            bounds,
            memory,
            settings,
            wanted,
            seen: Arc::new(View::default()),
            fleet: FleetView::default(),
            due: BTreeSet::new(),
            since: Since::default(),
            counter: 0,
            registered: None,
            saved_at: Instant::now(),
            looked_at: None,
            unseen: Vec::new(),
            unseen_until: Instant::now(),
            rests_until: Instant::now(),
        }
    }

    pub(super) async fn run(
        mut self,
        ready: impl FnOnce(),
        stop: CancellationToken,
    ) -> Result<(), OfficeError> {
        let lease = KeptLease::start(self.store.clone(), TTL, KEPT_EVERY);
        let mut lease_news = lease.watch();
        let mut mirror = self.mirror.clone();
        let mut ready = Some(ready);
        let mut office = Office::Unknown;
        loop {
            let id = *lease_news.borrow_and_update();
            self.refresh()?;
            let now = self.office(id);
            if now != office {
                tracing::info!(copy = self.settings.copy.id, "the office: {now:?}");
                office = now;
            }
            let mut pause = TICK;
            if self.wanted.iter().all(|part| self.seen.listed.contains_key(part)) {
                if let Some(ready) = ready.take() {
                    ready();
                }
                pause = match self.act(&office, id).await {
                    Ok(pause) => pause,
                    Err(why) => {
                        tracing::warn!("{why}");
                        self.since.clear();
                        TICK
                    }
                };
                if let Some(over) = self.over(&office) {
                    if let Some(id) = id {
                        let _ = self.store.revoke_lease(id).await;
                    }
                    return over;
                }
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => {
                    self.memory.save()?;
                    // The office is free at once for the next one.
                    if let Some(id) = id {
                        let _ = self.store.revoke_lease(id).await;
                    }
                    return Ok(());
                }
                () = mirror.changed() => {}
                changed = lease_news.changed() => if changed.is_err() { return Ok(()) },
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn office(&self, lease: Option<i64>) -> Office {
        Office::of(&self.seen, &self.keys, &self.settings.copy.id, lease)
    }

    /// A copy that is for one operation ends with it, or at once where another one is in office.
    fn over(&self, office: &Office) -> Option<Result<(), OfficeError>> {
        let operation = self.settings.until.as_ref()?;
        if let Office::Other(id) = office {
            return Some(Err(OfficeError::Taken(id.clone())));
        }
        let stored = self.fleet.operations.get(operation)?;
        stored.value.state.is_over().then_some(Ok(()))
    }

    /// Takes over what has changed since the last view.
    fn refresh(&mut self) -> Result<(), OfficeError> {
        let view = self.mirror.view();
        let urgent = self.memory.learn(&view);
        if urgent || self.saved_at.elapsed() >= SAVED_EVERY {
            self.memory.save()?;
            self.saved_at = Instant::now();
        }
        if Arc::ptr_eq(&view, &self.seen) {
            return Ok(());
        }
        let hosts = self.keys.hosts();
        // A host that comes or goes may change how names are read.
        let known = |view: &View| view.below(&hosts).map(|entry| entry.key.clone()).collect::<Vec<_>>();
        if known(&view) == known(&self.seen) {
            self.apply(&view);
        } else {
            let entries = view.entries.values().map(|entry| raw(entry));
            self.fleet = FleetView::read(&self.keys, view.revision, entries);
            self.due.extend(all_clusters(&self.fleet));
        }
        // Guards on targets are right up to the revision that these have reached.
        self.fleet.revision = view.reached(&self.keys.targets()).unwrap_or(0);
        self.seen = view;
        Ok(())
    }

    fn apply(&mut self, view: &View) {
        for key in self.seen.entries.keys().filter(|key| !view.entries.contains_key(*key)) {
            self.due.extend(self.fleet.concerned(&self.keys, key));
            self.fleet.remove(&self.keys, key);
        }
        for (key, entry) in &view.entries {
            // A part that was listed anew holds other copies of the same.
            let same =
                self.seen.entries.get(key).is_some_and(|before| before.mod_revision == entry.mod_revision);
            if !same {
                self.due.extend(self.fleet.concerned(&self.keys, key));
                self.fleet.apply(&self.keys, raw(entry));
                self.due.extend(self.fleet.concerned(&self.keys, key));
            }
        }
    }

    /// Takes the office where it is free; plans and writes where it is ours. Returns how long to rest.
    async fn act(&mut self, office: &Office, lease: Option<i64>) -> Result<Duration, StoreError> {
        let believed = self.seen.store.as_ref().is_some_and(|store| store.state == StoreState::Ok);
        let (Some(lease), Some(fleet_created)) = (lease, self.seen.fleet_created.filter(|_| believed)) else {
            self.since.clear();
            return Ok(TICK);
        };
        let id = self.settings.copy.id.clone();
        if self.registered != Some(lease) {
            let copy = &self.settings.copy;
            if election::register(&*self.store, &self.keys, copy, lease, fleet_created).await? {
                self.registered = Some(lease);
            }
        }
        match office {
            Office::Free => {
                if let Err(why) = self.memory.holds(lease) {
                    tracing::warn!("{why}");
                }
                if election::take(&*self.store, &self.keys, &id, lease, fleet_created).await? {
                    tracing::info!(copy = id, "takes the office");
                }
                Ok(TICK)
            }
            Office::Ours { created } => {
                let guards = [
                    Guard::Created { key: self.keys.controller_leader(), create_revision: *created },
                    election::fleet(&self.keys, fleet_created),
                ];
                self.pass(&guards).await
            }
            Office::Unknown | Office::Other(_) => {
                self.since.clear();
                let Some(former) = self.held_by_former_life() else { return Ok(TICK) };
                // What that life may still have on its way compares a key that is gone then.
                tracing::info!("an earlier life of this copy held the office: that is over");
                match self.store.revoke_lease(former).await {
                    Ok(()) | Err(StoreError::LeaseNotFound) => Ok(AGAIN),
                    Err(why) => Err(why),
                }
            }
        }
    }

    /// The lease of the office, where an earlier life of this copy took it.
    fn held_by_former_life(&self) -> Option<i64> {
        let office = self.keys.controller_leader();
        let lease = self.seen.get(&office).present().map(|entry| entry.lease);
        lease.filter(|lease| self.memory.former_lease() == Some(*lease))
    }

    async fn pass(&mut self, office: &[Guard]) -> Result<Duration, StoreError> {
        let rest = self.rests_until.saturating_duration_since(Instant::now());
        if !rest.is_zero() {
            return Ok(rest);
        }
        let fleet = &self.fleet;
        self.unseen.retain(|unseen| match fleet.revision_of(&unseen.key) {
            Some(seen) => seen < unseen.revision,
            None => !unseen.deleted,
        });
        if !self.unseen.is_empty() && Instant::now() < self.unseen_until {
            return Ok(AGAIN);
        }
        self.unseen.clear();
        let now = self.clock.now();
        // What was not looked at for a while may have ended and begun anew.
        if self.looked_at.is_none_or(|at| at.elapsed() > UNSEEN) {
            self.since.clear();
            self.due = all_clusters(&self.fleet);
        }
        self.looked_at = Some(Instant::now());
        self.since.notice(&self.fleet, &self.due, now);
        let Planned { doings, restless } =
            plan(&self.fleet, &self.keys, &self.due, &self.since, now, &self.bounds);
        self.due = restless;
        let mut lost = false;
        for doing in doings {
            lost |= !self.write(doing, office).await?;
        }
        if lost {
            return Ok(AGAIN);
        }
        let due = self.since.next(now, &self.bounds).map(|at| at.duration_since(now));
        let due = due.and_then(|due| Duration::try_from(due).ok()).unwrap_or(TICK);
        Ok(due.clamp(Duration::from_millis(10), TICK))
    }

    /// `false`: what it was judged by had changed.
    async fn write(&mut self, doing: Doing, office: &[Guard]) -> Result<bool, StoreError> {
        let mut proposal = doing.proposal.clone();
        proposal.guards.extend(office.iter().cloned());
        if doing.told {
            let lease = self.events.id().await?;
            proposal.writes.push(self.event(&doing, lease));
        }
        let moment = moment(&doing);
        failpoints::reach(&moment, "before");
        let written = self.store.commit(&proposal).await;
        failpoints::reach(&moment, "after");
        let cluster = doing.cluster.as_ref().map_or("-", |cluster| cluster.as_str());
        match written {
            Ok(Committed::Written { revision }) => {
                self.unseen_until = Instant::now() + UNSEEN;
                let wrote =
                    |prefix: String| doing.proposal.writes.iter().any(|w| w.key().starts_with(&prefix));
                if wrote(self.keys.leaderships()) && wrote(self.keys.routes()) {
                    self.rests_until = Instant::now() + LEFT_TO_CLIENTS;
                }
                self.unseen.extend(doing.proposal.writes.iter().map(|write| Unseen {
                    key: write.key().to_owned(),
                    revision,
                    deleted: matches!(write, Write::Delete { .. }),
                }));
                tracing::info!(cluster, revision, "{}", doing.what);
                Ok(true)
            }
            Ok(Committed::Conflict) => {
                tracing::debug!(cluster, "changed meanwhile, planned anew: {}", doing.what);
                Ok(false)
            }
            Err(StoreError::LeaseNotFound) => {
                let lease = self.events.id().await?;
                self.events.forget(lease).await;
                Ok(false)
            }
            Err(why) => Err(why),
        }
    }

    fn event(&mut self, doing: &Doing, lease: i64) -> Write {
        self.counter += 1;
        let time = self.clock.now();
        let id = event_id(time, &self.settings.copy.id, self.counter);
        let cluster = doing.cluster.clone();
        let key = self.keys.event(cluster.as_ref().map_or("-", |cluster| cluster.as_str()), &id);
        let event = Event {
            id,
            time,
            cluster,
            instance: None,
            host: None,
            kind: doing.kind.to_owned(),
            message: doing.what.clone(),
            by: doing.by.clone(),
            details: serde_json::Value::Null,
        };
        let value = serde_json::to_vec(&event).unwrap_or_default();
        Write::Put { key, value, lease: Some(lease) }
    }
}

/// The name of the moment at which something is written, for tests: what it is about, without names of members.
fn moment(doing: &Doing) -> String {
    let words = doing.what.split_whitespace().filter(|word| word.chars().all(|c| c.is_ascii_lowercase()));
    let words: Vec<&str> = words.take(4).collect();
    format!("{}-{}", doing.kind, words.join("-"))
}

fn raw(entry: &Entry) -> Raw<'_> {
    Raw {
        key: &entry.key,
        value: &entry.value,
        mod_revision: entry.mod_revision,
        create_revision: entry.create_revision,
    }
}
