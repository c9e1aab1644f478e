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
}

impl<'a> Follow<'a> {
    /// Begins to follow the usual parts and further ones.
    ///
    /// # Errors
    /// When etcd cannot be reached at the start.
    pub async fn start(ctx: &'a Context, further: Vec<Selector>) -> Result<Self, Failure> {
        let seed = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.subsec_nanos());
        let mirror = Mirror::start(ctx.store().await?, ctx.keys.clone(), Gate::default(), u64::from(seed));
        let mut wanted = parts(&ctx.keys);
        wanted.extend(further);
        mirror.want(wanted.iter().cloned().collect());
        Ok(Self { ctx, mirror, wanted, told: false })
    }

    /// The next state in which every part is known; none when `deadline` comes first.
    pub async fn next(&mut self, deadline: Option<Instant>) -> Option<Seen> {
        loop {
            let patience = Instant::now() + PATIENCE;
            let until = match deadline {
                Some(deadline) if self.told => deadline,
                Some(deadline) => deadline.min(patience),
                None if self.told => patience + Duration::from_secs(3600),
                None => patience,
            };
            let news = timeout_at(until, self.mirror.changed()).await;
            let view = self.mirror.view();
            if news.is_err() {
                if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                    return None;
                }
                self.complain(view.store.as_ref().map(|store| store.state));
                continue;
            }
            if self.wanted.iter().all(|part| view.listed.contains_key(part)) {
                self.told = false;
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
