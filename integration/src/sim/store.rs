//! A simulated etcd, for tokio's paused time.
//!
//! [`SimEtcd`] is the server; each [`SimStore`] is one client's way to it, with faults of its own. What etcd does is
//! in [`data`]; the suite `store_seam` holds it against the real one.
//!
//! *Caveats*: answers are never reordered; a lease ends exactly when it is due, while the real etcd takes up to a second
//! longer; the real etcd raises very short leases.

mod data;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use schemadock_schema::proposal::Proposal;
use schemadock_store::etcd::DEADLINE;
use schemadock_store::{Change, Committed, Entry, Selector, Snapshot, Store, StoreError, watch};
use tokio::time::Instant;

use data::Data;

/// How long a client takes to notice that nobody is at the other end of a watch.
const DEAD_AFTER: Duration = Duration::from_secs(8);

/// The server. Clones are the same server.
#[derive(Clone)]
pub struct SimEtcd {
    server: Arc<Mutex<Server>>,
    /// Changes whenever a watch may have something to do.
    stirred: Arc<watch::Sender<u64>>,
}

struct Server {
    data: Data,
    /// Goes up when the server restarts: all connections end.
    life: u64,
    up: bool,
}

/// A copy of all that an etcd holds, to go back to.
#[derive(Clone)]
pub struct Backup(Data);

impl Default for SimEtcd {
    fn default() -> Self {
        Self::new()
    }
}

impl SimEtcd {
    /// An empty store that answers.
    pub fn new() -> Self {
        let server = Server { data: Data::new(), life: 0, up: true };
        Self { server: Arc::new(Mutex::new(server)), stirred: Arc::new(watch::Sender::new(0)) }
    }

    /// One more client.
    pub fn client(&self) -> SimStore {
        SimStore {
            etcd: self.clone(),
            faults: Arc::new(watch::Sender::new(Faults::default())),
            deadline: DEADLINE,
            heard: Arc::new(Mutex::new(Instant::now())),
        }
    }

    /// The newest revision.
    pub fn revision(&self) -> i64 {
        self.lock().data.revision()
    }

    /// What is at a key, asked by nobody.
    pub fn peek(&self, key: &str) -> Option<Entry> {
        self.lock().data.entry(key).cloned()
    }

    /// What is below a prefix, asked by nobody.
    pub fn peek_below(&self, prefix: &str) -> Vec<Entry> {
        let read = self.lock().data.read(&[Selector::Prefix(prefix.to_owned())]);
        read.entries.into_values().collect()
    }

    /// Forgets the history before this revision.
    pub fn compact(&self, revision: i64) {
        self.lock().data.compact(revision);
        self.stir();
    }

    /// Goes down: nobody listens. Leases run on.
    pub fn stop(&self) {
        let mut server = self.lock();
        server.up = false;
        server.life += 1;
        drop(server);
        self.stir();
    }

    /// Comes up again with what it held; as the real one does, it gives every lease its full time again.
    pub fn start(&self) {
        let mut server = self.lock();
        server.up = true;
        server.data.renew_leases(Instant::now());
        drop(server);
        self.stir();
    }

    /// What it holds now.
    pub fn backup(&self) -> Backup {
        Backup(self.lock().data.clone())
    }

    /// Comes up with what a backup holds.
    pub fn restore(&self, backup: &Backup) {
        self.stop();
        let mut server = self.lock();
        let mut data = backup.0.clone();
        data.continue_leases_of(&server.data);
        server.data = data;
        drop(server);
        self.start();
    }

    /// Comes up with nothing in it.
    pub fn wipe(&self) {
        self.restore(&Backup(Data::new()));
    }

    /// Changes whenever the store may have changed.
    pub(super) fn stirs(&self) -> watch::Receiver<u64> {
        self.stirred.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Server> {
        let mut server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        if server.up && server.data.expire(Instant::now()) {
            self.stir();
        }
        server
    }

    fn stir(&self) {
        self.stirred.send_modify(|stirs| *stirs += 1);
    }
}

/// What is wrong between one client and the server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Faults {
    link: Link,
    /// Goes up when the connection is broken: watches of before end.
    connection: u64,
    delay: Duration,
    lose_answers: u32,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Link {
    #[default]
    Whole,
    Cut,
    Silent,
    Held,
}

/// One client's way to the store. Clones share it.
#[derive(Clone)]
pub struct SimStore {
    etcd: SimEtcd,
    faults: Arc<watch::Sender<Faults>>,
    deadline: Duration,
    heard: Arc<Mutex<Instant>>,
}

impl SimStore {
    /// The same way with another deadline.
    pub fn with_deadline(&self, deadline: Duration) -> Self {
        Self { deadline, ..self.clone() }
    }

    /// Refuses connections from now on, and breaks the one there is.
    pub fn cut_off(&self) {
        self.faults.send_modify(|faults| {
            faults.link = Link::Cut;
            faults.connection += 1;
        });
    }

    /// Swallows everything from now on: what is asked does not arrive.
    pub fn silence(&self) {
        self.faults.send_modify(|faults| faults.link = Link::Silent);
    }

    /// Lets what is asked arrive, but holds back all answers.
    pub fn hold_answers(&self) {
        self.faults.send_modify(|faults| faults.link = Link::Held);
    }

    /// Ends what the three above began; answers held back arrive now.
    pub fn mend(&self) {
        self.faults.send_modify(|faults| faults.link = Link::Whole);
    }

    /// Loses the answers to the next so many commits, after they were made.
    pub fn lose_answers(&self, commits: u32) {
        self.faults.send_modify(|faults| faults.lose_answers = commits);
    }

    /// How long a round trip takes from now on.
    pub fn delay(&self, round_trip: Duration) {
        self.faults.send_modify(|faults| faults.delay = round_trip);
    }

    fn faults(&self) -> Faults {
        *self.faults.borrow()
    }

    fn heard(&self) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn unreachable(&self) -> StoreError {
        StoreError::Unreachable { endpoints: "sim".to_owned(), why: "connection refused".to_owned() }
    }

    /// One round trip.
    async fn call<T>(
        &self,
        what: &'static str,
        serve: impl FnOnce(&mut Data, Instant) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let deadline =
            StoreError::Deadline { endpoints: "sim".to_owned(), what, seconds: self.deadline.as_secs_f64() };
        let round_trip = async {
            let delay = self.faults().delay / 2;
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            self.pass(|link| link != Link::Silent).await?;
            let answer = {
                let mut server = self.etcd.lock();
                if !server.up {
                    return Err(self.unreachable());
                }
                let before = server.data.stirs();
                let answer = serve(&mut server.data, Instant::now());
                if server.data.stirs() != before {
                    self.etcd.stir();
                }
                answer
            };
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            self.pass(|link| link == Link::Whole).await?;
            self.heard();
            answer
        };
        tokio::time::timeout(self.deadline, round_trip).await.unwrap_or(Err(deadline))
    }

    /// Waits until the link lets it through.
    async fn pass(&self, through: impl Fn(Link) -> bool) -> Result<(), StoreError> {
        let mut faults = self.faults.subscribe();
        loop {
            let link = faults.borrow_and_update().link;
            if link == Link::Cut {
                return Err(self.unreachable());
            }
            if through(link) {
                return Ok(());
            }
            if faults.changed().await.is_err() {
                return Err(self.unreachable());
            }
        }
    }
}

#[async_trait]
impl Store for SimStore {
    async fn read(&self, parts: &[Selector]) -> Result<Snapshot, StoreError> {
        self.call("a read", |data, _| Ok(data.read(parts))).await
    }

    async fn read_linearizable(&self, keys: &[String]) -> Result<Snapshot, StoreError> {
        data::check_size(keys.len(), "a read")?;
        let parts: Vec<Selector> = keys.iter().cloned().map(Selector::Key).collect();
        self.call("a read", |data, _| Ok(data.read(&parts))).await
    }

    async fn commit(&self, proposal: &Proposal) -> Result<Committed, StoreError> {
        data::check_size(proposal.writes.len(), "a write")?;
        data::check_size(proposal.guards.len(), "a write")?;
        let committed = self.call("a write", |data, _| data.commit(proposal)).await?;
        let mut lost = false;
        self.faults.send_if_modified(|faults| {
            lost = faults.lose_answers > 0;
            faults.lose_answers = faults.lose_answers.saturating_sub(1);
            lost
        });
        match lost {
            true => Err(StoreError::Unreachable {
                endpoints: "sim".to_owned(),
                why: "the connection broke before the answer".to_owned(),
            }),
            false => Ok(committed),
        }
    }

    async fn watch(
        &self,
        part: &Selector,
        after: i64,
    ) -> Result<BoxStream<'static, Result<(i64, Vec<Change>), StoreError>>, StoreError> {
        self.call("a watch", |_, _| Ok(())).await?;
        let watch = Watch {
            store: self.clone(),
            part: part.clone(),
            after,
            life: self.etcd.lock().life,
            connection: self.faults().connection,
            stirs: self.etcd.stirred.subscribe(),
            faults: self.faults.subscribe(),
        };
        Ok(Box::pin(futures::stream::unfold(Some(watch), async |watch| {
            let mut watch = watch?;
            let batch = watch.next().await;
            let rest = batch.is_ok().then_some(watch);
            Some((batch, rest))
        })))
    }

    async fn grant_lease(&self, ttl: Duration) -> Result<i64, StoreError> {
        self.call("a lease", |data, now| Ok(data.grant(ttl, now))).await
    }

    async fn keep_lease(&self, lease: i64) -> Result<bool, StoreError> {
        self.call("a lease's renewal", |data, now| Ok(data.keep(lease, now))).await
    }

    async fn revoke_lease(&self, lease: i64) -> Result<(), StoreError> {
        self.call("a lease's end", |data, _| {
            data.revoke(lease);
            Ok(())
        })
        .await
    }

    fn last_heard(&self) -> Duration {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}

struct Watch {
    store: SimStore,
    part: Selector,
    after: i64,
    life: u64,
    connection: u64,
    stirs: watch::Receiver<u64>,
    faults: watch::Receiver<Faults>,
}

impl Watch {
    /// The next batch, or what ends the watch.
    async fn next(&mut self) -> Result<(i64, Vec<Change>), StoreError> {
        let mut silent_since = None;
        loop {
            let _seen = *self.stirs.borrow_and_update();
            let faults = *self.faults.borrow_and_update();
            if faults.connection != self.connection {
                return Err(self.store.unreachable());
            }
            let mut wake = None;
            if faults.link == Link::Whole {
                silent_since = None;
                let server = self.store.etcd.lock();
                if server.life != self.life {
                    return Err(self.store.unreachable());
                }
                if self.after + 1 < server.data.compacted() {
                    return Err(StoreError::Compacted);
                }
                if let Some((revision, changes)) = server.data.changes(&self.part, self.after) {
                    self.after = revision;
                    self.store.heard();
                    return Ok((revision, changes));
                }
                wake = server.data.next_expiry();
            } else {
                let since: Instant = *silent_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= DEAD_AFTER {
                    return Err(StoreError::Unreachable {
                        endpoints: "sim".to_owned(),
                        why: "keep-alive timed out".to_owned(),
                    });
                }
                wake = wake.or(Some(since + DEAD_AFTER));
            }
            let woken = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                _ = self.stirs.changed() => {}
                _ = self.faults.changed() => {}
                () = woken => {}
            }
        }
    }
}
