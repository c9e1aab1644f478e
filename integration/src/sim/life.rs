//! One life of an agent, or of a controller: each is the only process of ours on its host.
//!
//! Everything that it asks of the world goes through [`Life::call`]. Before and after each effect the life can end:
//! then nothing it asks for is ever answered, as for a process that SIGKILL has ended, and no cleanup of its own runs.

use std::future::pending;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use schemadock_schema::HostName;
use schemadock_schema::proposal::{Proposal, Write};
use schemadock_store::{Change, Committed, Selector, Snapshot, Store, StoreError};

use super::store::SimStore;
use super::world::{State, World};

/// See the module. Clones are the same life.
#[derive(Clone)]
pub struct Life {
    world: World,
    host: HostName,
    number: u64,
}

impl Life {
    /// Begins the life of a host's process.
    pub fn begin(world: &World, host: &HostName) -> Life {
        let number = world.change(|state| {
            let number = state.next_id();
            state.host(host).life = Some(number);
            state.note(format!("{host}: its process begins"));
            number
        });
        Life { world: world.clone(), host: host.clone(), number }
    }

    pub(super) fn world(&self) -> &World {
        &self.world
    }

    pub(super) fn host(&self) -> &HostName {
        &self.host
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// A moment at which the life can end. Then this never returns.
    pub(super) async fn moment(&self) {
        self.thawed().await;
        if !self.world.asks(&self.host, self.number) {
            pending::<()>().await;
        }
    }

    /// Returns while its process is not frozen.
    async fn thawed(&self) {
        let mut thaws = self.world.thaws();
        let _seen = *thaws.borrow_and_update();
        while self.world.look(|state| state.hosts.get(&self.host).is_some_and(|here| here.frozen)) {
            if thaws.changed().await.is_err() {
                return;
            }
        }
    }

    /// Lets time pass, between these microseconds.
    pub(super) async fn pause(&self, micros: &Range<u64>) {
        let pause = self.world.between(micros);
        tokio::time::sleep(pause).await;
    }

    /// Asks, waits, has its effect, waits, answers.
    pub(super) async fn call<T>(&self, micros: Range<u64>, effect: impl FnOnce(&mut State) -> T) -> T {
        self.moment().await;
        self.pause(&micros).await;
        self.moment().await;
        let answer = self.world.change(effect);
        self.moment().await;
        answer
    }

    /// Asks for something that changes nothing.
    pub(super) async fn ask<T>(&self, micros: Range<u64>, look: impl FnOnce(&State) -> T) -> T {
        self.moment().await;
        self.pause(&micros).await;
        self.moment().await;
        self.world.look(look)
    }

    /// Never returns before the life has ended.
    async fn over(&self) {
        let mut ends = self.world.ends();
        let alive = || self.world.look(|state| state.hosts.get(&self.host).and_then(|here| here.life));
        while alive() == Some(self.number) {
            if ends.changed().await.is_err() {
                return;
            }
        }
    }
}

/// The store, as one life reaches it.
pub struct LifeStore {
    life: Life,
    client: SimStore,
}

impl LifeStore {
    /// By this client.
    pub fn new(life: Life, client: SimStore) -> Arc<LifeStore> {
        Arc::new(LifeStore { life, client })
    }

    async fn call<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        const ROUND_TRIP: Range<u64> = 200..3000;
        self.life.moment().await;
        self.life.pause(&ROUND_TRIP).await;
        self.life.moment().await;
        let answer = call.await;
        self.life.moment().await;
        answer
    }
}

#[async_trait]
impl Store for LifeStore {
    async fn read(&self, parts: &[Selector]) -> Result<Snapshot, StoreError> {
        self.call(self.client.read(parts)).await
    }

    async fn read_linearizable(&self, keys: &[String]) -> Result<Snapshot, StoreError> {
        self.call(self.client.read_linearizable(keys)).await
    }

    async fn commit(&self, proposal: &Proposal) -> Result<Committed, StoreError> {
        let committed = self.call(self.client.commit(proposal)).await;
        self.life.world.change(|state| {
            let keys: Vec<String> = proposal.writes.iter().map(told).collect();
            let end = match &committed {
                Ok(Committed::Written { .. }) => "",
                Ok(Committed::Conflict) => " (conflict)",
                Err(_) => " (no answer)",
            };
            state.note(format!("{}: writes {}{end}", self.life.host, keys.join(", ")));
            state.judge_write(&self.life.host);
        });
        committed
    }

    async fn watch(
        &self,
        part: &Selector,
        after: i64,
    ) -> Result<BoxStream<'static, Result<(i64, Vec<Change>), StoreError>>, StoreError> {
        let changes = self.call(self.client.watch(part, after)).await?;
        let life = self.life.clone();
        let over = async move { life.over().await };
        let reader = self.life.clone();
        let changes = changes.then(move |change| {
            let reader = reader.clone();
            async move {
                reader.thawed().await;
                change
            }
        });
        Ok(changes.take_until(Box::pin(over)).chain(futures::stream::pending()).boxed())
    }

    async fn grant_lease(&self, ttl: Duration) -> Result<i64, StoreError> {
        self.call(self.client.grant_lease(ttl)).await
    }

    async fn keep_lease(&self, lease: i64) -> Result<bool, StoreError> {
        self.call(self.client.keep_lease(lease)).await
    }

    async fn revoke_lease(&self, lease: i64) -> Result<(), StoreError> {
        self.call(self.client.revoke_lease(lease)).await
    }

    fn last_heard(&self) -> Duration {
        self.client.last_heard()
    }
}

/// A write in the trace; an event with its words.
fn told(write: &Write) -> String {
    let (key, value) = match write {
        Write::Put { key, value, .. } => (key, Some(value)),
        Write::Delete { key } => (key, None),
    };
    let Some(value) = value else { return format!("-{key}") };
    let value: serde_json::Value = serde_json::from_slice(value).unwrap_or_default();
    let words: Vec<&str> = ["phase", "message"].iter().filter_map(|name| value.get(name)?.as_str()).collect();
    format!("{key} [{}]", words.join(": "))
}
