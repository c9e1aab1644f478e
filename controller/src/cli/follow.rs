//! Following what etcd holds, by watch.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use schemadock_schema::status::StoreState;
use schemadock_store::Selector;
use schemadock_store::mirror::{Gate, Mirror};
use tokio::time::{Instant, timeout_at};

use super::seen::{self, Seen, parts};
use super::{Context, Failure};

/// How long etcd may say nothing before the user hears of it.
const PATIENCE: Duration = Duration::from_secs(3);

/// What etcd holds, again and again.
pub struct Follow<'a> {
    ctx: &'a Context,
    mirror: Mirror,
    wanted: Vec<Selector>,
    told: bool,
    heard: Instant,
}

impl<'a> Follow<'a> {
    /// Begins to follow the usual parts and further ones.
    ///
    /// # Errors
    /// When etcd cannot be reached at the start.
    pub async fn start(ctx: &'a Context, further: Vec<Selector>) -> Result<Self, Failure> {
        let mut wanted = parts(&ctx.keys);
        wanted.extend(further);
        Self::only(ctx, wanted).await
    }

    /// Begins to follow these parts and no others.
    ///
    /// # Errors
    /// When etcd cannot be reached at the start.
    pub async fn only(ctx: &'a Context, wanted: Vec<Selector>) -> Result<Self, Failure> {
        let seed = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.subsec_nanos());
        let mirror = Mirror::start(ctx.store().await?, ctx.keys.clone(), Gate::default(), u64::from(seed));
        mirror.want(wanted.iter().cloned().collect());
        Ok(Self { ctx, mirror, wanted, told: false, heard: Instant::now() })
    }

    /// The next state in which every part is known; none when `deadline` comes first.
    pub async fn next(&mut self, deadline: Option<Instant>) -> Option<Seen> {
        loop {
            let patience = (!self.told).then(|| self.heard + PATIENCE);
            let news = match deadline.into_iter().chain(patience).min() {
                Some(until) => timeout_at(until, self.mirror.changed()).await.is_ok(),
                None => {
                    self.mirror.changed().await;
                    true
                }
            };
            let view = self.mirror.view();
            if !news {
                let now = Instant::now();
                if patience.is_some_and(|patience| patience <= now) {
                    self.complain(view.store.as_ref().map(|store| store.state));
                }
                if deadline.is_some_and(|deadline| deadline <= now) {
                    return None;
                }
                continue;
            }
            if self.wanted.iter().all(|part| view.listed.contains_key(part)) {
                (self.told, self.heard) = (false, Instant::now());
                let entries = view.entries.values().map(|entry| &**entry);
                return Some(seen::read(&self.ctx.keys, view.revision, entries));
            }
        }
    }

    /// Silence is normal in a quiet fleet; not while nothing was ever heard.
    fn complain(&mut self, store: Option<StoreState>) {
        let listed = self.mirror.view().listed.len();
        let what = match store {
            Some(StoreState::Ok) if listed > 0 => None,
            Some(StoreState::Blank) => Some("etcd holds no fleet yet; waiting for one"),
            Some(StoreState::Foreign | StoreState::Older) => {
                Some("etcd holds another fleet now; waiting for ours")
            }
            Some(StoreState::Ok) | None => Some("etcd does not answer; waiting for it"),
        };
        if let Some(what) = what.filter(|_| !self.told) {
            anstream::eprintln!("{what}");
        }
        self.told = true;
    }
}
