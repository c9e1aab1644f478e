//! What a case needs of the world: a store, and ways to hurt it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use schemadock_integration::sim::store::{Backup, SimEtcd, SimStore};
use schemadock_schema::proposal::{Guard, Proposal, Write};
use schemadock_store::etcd::Etcd;
use schemadock_store::{Committed, Store};

use crate::fixture::EtcdServer;

/// How long anything may take to be seen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

#[async_trait]
pub(crate) trait World: Send {
    /// The store that the case uses. Always the same client.
    fn store(&self) -> Arc<dyn Store>;
    /// Forgets the history before this revision.
    async fn compact(&self, revision: i64);
    async fn down(&mut self);
    async fn up(&mut self);
    /// Keeps a copy of all that there is; only while down.
    async fn back_up(&mut self);
    /// Goes back to the copy; only while down.
    async fn restore(&mut self);
    /// Forgets everything; only while down.
    async fn wipe(&mut self);
}

pub(crate) struct Real {
    server: EtcdServer,
    client: Etcd,
}

impl Real {
    pub(crate) async fn start() -> Self {
        let server = EtcdServer::start().await;
        let client = server.client(Duration::from_secs(3)).await;
        Self { server, client }
    }
}

#[async_trait]
impl World for Real {
    fn store(&self) -> Arc<dyn Store> {
        Arc::new(self.client.clone())
    }

    async fn compact(&self, revision: i64) {
        self.server.compact(revision).await;
    }

    async fn down(&mut self) {
        self.server.down();
    }

    async fn up(&mut self) {
        self.server.up().await;
    }

    async fn back_up(&mut self) {
        self.server.back_up();
    }

    async fn restore(&mut self) {
        self.server.restore();
    }

    async fn wipe(&mut self) {
        self.server.wipe();
    }
}

pub(crate) struct Simulated {
    server: SimEtcd,
    client: SimStore,
    backup: Option<Backup>,
}

impl Simulated {
    pub(crate) fn start() -> Self {
        let server = SimEtcd::new();
        let client = server.client();
        Self { server, client, backup: None }
    }
}

#[async_trait]
impl World for Simulated {
    fn store(&self) -> Arc<dyn Store> {
        Arc::new(self.client.clone())
    }

    async fn compact(&self, revision: i64) {
        self.server.compact(revision);
    }

    async fn down(&mut self) {
        self.server.stop();
    }

    async fn up(&mut self) {
        self.server.start();
    }

    async fn back_up(&mut self) {
        self.backup = Some(self.server.backup());
    }

    async fn restore(&mut self) {
        self.server.restore(self.backup.as_ref().unwrap());
    }

    async fn wipe(&mut self) {
        self.server.wipe();
    }
}

pub(crate) fn put(key: &str, value: &str) -> Write {
    Write::Put { key: key.to_owned(), value: value.as_bytes().to_vec(), lease: None }
}

pub(crate) fn leased(key: &str, value: &str, lease: i64) -> Write {
    Write::Put { key: key.to_owned(), value: value.as_bytes().to_vec(), lease: Some(lease) }
}

pub(crate) fn delete(key: &str) -> Write {
    Write::Delete { key: key.to_owned() }
}

/// Writes without a guard; returns the revision.
pub(crate) async fn write(store: &dyn Store, writes: Vec<Write>) -> i64 {
    match store.commit(&Proposal { writes, ..Proposal::default() }).await.unwrap() {
        Committed::Written { revision } => revision,
        Committed::Conflict => panic!("nothing was compared"),
    }
}

/// Whether a write under these guards was made.
pub(crate) async fn guarded(store: &dyn Store, guards: Vec<Guard>) -> bool {
    let proposal = Proposal { writes: vec![put("/guarded", "x")], guards, ..Proposal::default() };
    match store.commit(&proposal).await.unwrap() {
        Committed::Written { .. } => true,
        Committed::Conflict => false,
    }
}

/// All below a prefix, with their values.
pub(crate) async fn all(store: &dyn Store, prefix: &str) -> BTreeMap<String, String> {
    let snapshot = store.read(&[schemadock_store::Selector::Prefix(prefix.to_owned())]).await.unwrap();
    snapshot.entries.into_iter().map(|(key, entry)| (key, String::from_utf8(entry.value).unwrap())).collect()
}
