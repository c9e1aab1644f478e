//! Leases: a life that others can see, and documents that go away by themselves.

use std::sync::Arc;
use std::time::Duration;

use schemadock_schema::event::EVENT_SECONDS;
use tokio::sync::Mutex;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{Store, StoreError, watch};

/// A lease that is kept alive, and replaced when it is lost: what `P/alive/<host>` lives by.
///
/// *Guarantees*: the id shown was alive at some moment within the last `ttl`; a lease that could not be renewed for so
/// long is no longer shown, and shown again if it turns out to have lived on. Renewal and every further attempt come
/// once each `every`, without any chance in it.
///
/// *Caveats*: the key that lives by it is written by its owner, whenever the id changes.
#[derive(Debug, Clone)]
pub struct KeptLease {
    current: watch::Receiver<Option<i64>>,
    stop: CancellationToken,
    _ends_with_the_last_clone: Arc<DropGuard>,
}

impl KeptLease {
    /// Takes a lease of `ttl`, on the current tokio runtime, and renews it each `every` until the last clone is gone.
    pub fn start(store: Arc<dyn Store>, ttl: Duration, every: Duration) -> Self {
        let (shown, current) = watch::channel(None);
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        tokio::spawn(async move { stopped.run_until_cancelled(keep(store, ttl, every, shown)).await });
        Self { current, _ends_with_the_last_clone: Arc::new(stop.clone().drop_guard()), stop }
    }

    /// The lease, if there is one now.
    pub fn id(&self) -> Option<i64> {
        *self.current.borrow()
    }

    /// The lease from now on.
    pub fn watch(&self) -> watch::Receiver<Option<i64>> {
        self.current.clone()
    }

    /// Stops the renewal, for all clones. The lease ends by itself, with its keys; to end it at once, revoke it.
    pub fn stop(&self) {
        self.stop.cancel();
    }
}

async fn keep(store: Arc<dyn Store>, ttl: Duration, every: Duration, shown: watch::Sender<Option<i64>>) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The lease held, and when the last request that was answered for it had been sent.
    let mut held: Option<(i64, Instant)> = None;
    loop {
        ticks.tick().await;
        let sent = Instant::now();
        held = match held {
            None => match store.grant_lease(ttl).await {
                Ok(lease) => Some((lease, sent)),
                Err(why) => {
                    tracing::debug!("no lease: {why}");
                    None
                }
            },
            Some((lease, renewed)) => match renew(&*store, lease, renewed + ttl, &shown).await {
                Ok(true) => Some((lease, sent)),
                Ok(false) => {
                    tracing::info!(lease, "the lease has ended; taking a new one");
                    ticks.reset_immediately();
                    None
                }
                Err(why) => {
                    tracing::debug!(lease, "the lease was not renewed: {why}");
                    Some((lease, renewed))
                }
            },
        };
        show(&shown, held.filter(|(_, renewed)| renewed.elapsed() < ttl).map(|(lease, _)| lease));
    }
}

/// Renews a lease. It is not shown beyond its end, however long the answer takes.
async fn renew(
    store: &dyn Store,
    lease: i64,
    ends: Instant,
    shown: &watch::Sender<Option<i64>>,
) -> Result<bool, StoreError> {
    let mut answer = store.keep_lease(lease);
    match tokio::time::timeout_at(ends, &mut answer).await {
        Ok(answer) => answer,
        Err(_) => {
            show(shown, None);
            answer.await
        }
    }
}

fn show(shown: &watch::Sender<Option<i64>>, alive: Option<i64>) {
    shown.send_if_modified(|shown| std::mem::replace(shown, alive) != alive);
}

/// How long one lease for events is used.
const RENEWED_AFTER: Duration = Duration::from_secs(3600);

/// The lease that events live by: one of [`EVENT_SECONDS`], a new one every hour, taken when it is first needed.
pub struct HourlyLease {
    store: Arc<dyn Store>,
    taken: Mutex<Option<(i64, Instant)>>,
}

impl HourlyLease {
    /// Asks nothing of the store yet.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, taken: Mutex::new(None) }
    }

    /// The lease to write an event with.
    pub async fn id(&self) -> Result<i64, StoreError> {
        let mut taken = self.taken.lock().await;
        match *taken {
            Some((lease, at)) if at.elapsed() < RENEWED_AFTER => Ok(lease),
            _ => {
                let lease = self.store.grant_lease(Duration::from_secs(EVENT_SECONDS as u64)).await?;
                *taken = Some((lease, Instant::now()));
                Ok(lease)
            }
        }
    }

    /// Forgets a lease that a write was refused for ([`StoreError::LeaseNotFound`]); the next call takes a new one.
    pub async fn forget(&self, lease: i64) {
        let mut taken = self.taken.lock().await;
        taken.take_if(|(held, _)| *held == lease);
    }
}

impl std::fmt::Debug for HourlyLease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HourlyLease").finish_non_exhaustive()
    }
}
