//! The etcd seam of agent, controller and command line.
//!
//! * [`Store`]: the seam. [`etcd::Etcd`] is the real one; the simulated one lives with the tests.
//! * [`Mirror`](mirror::Mirror): keeps a chosen part of the store at hand, by watch, and relists by itself. It
//!   believes only the store that its [`Gate`](mirror::Gate) knows.
//! * [`KeptLease`](lease::KeptLease), [`HourlyLease`](lease::HourlyLease): a life to be seen, and events that go away.
//! * [`watch`]: values that others watch, in an order that a seed can replay.
//! * [`Delays`](backoff::Delays): how long to wait before trying again, everywhere in the project.
//! * [`clock`], [`failpoints`]: what the processes that use the store share beside it.
//!
//! There is one way to write: [`Store::commit`]. Linearizable reads are a method of their own.

#![cfg_attr(not(test), warn(clippy::disallowed_methods, clippy::disallowed_types))]

pub mod backoff;
pub mod clock;
pub mod etcd;
pub mod failpoints;
pub mod lease;
pub mod mirror;
pub mod watch;

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use schemadock_schema::proposal::Proposal;

/// How many keys one linearizable read, and how many writes or guards one commit may have: etcd takes 128 operations
/// a transaction where nobody has raised it.
pub const MAX_OPERATIONS: usize = 120;

/// One key with its document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The document, as bytes.
    pub value: Vec<u8>,
    /// When it was last written.
    pub mod_revision: i64,
    /// When it was created.
    pub create_revision: i64,
    /// The lease it lives by; 0 for none.
    pub lease: i64,
}

/// What a read found, all at one revision.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// The revision.
    pub revision: i64,
    /// What is there.
    pub entries: BTreeMap<String, Entry>,
}

impl Snapshot {
    /// One key.
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// All below a prefix.
    pub fn below<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a Entry> {
        self.entries
            .range(prefix.to_owned()..)
            .map(|(_, entry)| entry)
            .take_while(move |e| e.key.starts_with(prefix))
    }
}

/// A part of the store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Selector {
    /// One key.
    Key(String),
    /// All keys that begin so (a trailing slash is part of it).
    Prefix(String),
}

impl Selector {
    /// The key, or the prefix: where the part begins.
    pub fn start(&self) -> &str {
        match self {
            Selector::Key(start) | Selector::Prefix(start) => start,
        }
    }

    /// Whether the key belongs to this part.
    pub fn covers(&self, key: &str) -> bool {
        match self {
            Selector::Key(own) => own == key,
            Selector::Prefix(prefix) => key.starts_with(prefix.as_str()),
        }
    }
}

/// How a commit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    /// All was written, at this revision.
    Written {
        /// The revision.
        revision: i64,
    },
    /// A guard did not hold; nothing was written. Read and plan anew.
    Conflict,
}

/// A change seen by a watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The key holds this now.
    Put(Entry),
    /// The key is gone.
    Delete {
        /// The key.
        key: String,
        /// When.
        revision: i64,
    },
}

/// Why the store could not be asked. After [`StoreError::Deadline`] and
/// [`StoreError::Unreachable`] a write may or may not have been made; after the others it was not.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Nobody answered within the deadline.
    #[error("etcd at {endpoints} did not answer {what} within {seconds:.1} s")]
    Deadline {
        /// Where it was looked for.
        endpoints: String,
        /// What was asked.
        what: &'static str,
        /// The deadline.
        seconds: f64,
    },
    /// The connection failed.
    #[error("etcd at {endpoints} cannot be reached: {why}")]
    Unreachable {
        /// Where it was looked for.
        endpoints: String,
        /// The transport's reason.
        why: String,
    },
    /// etcd answered with an error.
    #[error("etcd refused {what}: {why}")]
    Refused {
        /// What was asked.
        what: &'static str,
        /// Its reason.
        why: String,
    },
    /// The revision asked for has been compacted away: list anew.
    #[error("etcd has compacted the revision asked for")]
    Compacted,
    /// The lease named is not known (any more): nothing was written, take a new one.
    #[error("etcd does not know the lease (any more)")]
    LeaseNotFound,
    /// The address given cannot be used.
    #[error("`{found}` is no list of etcd URLs: {why}; expected http://HOST:PORT[,…]")]
    Address {
        /// What was given, without credentials.
        found: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// The seam. Every call has a deadline of its own.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Reads several parts at one and the same revision, paged. Linearizable at its first page: what it returns is
    /// not older than the call.
    async fn read(&self, parts: &[Selector]) -> Result<Snapshot, StoreError>;

    /// Reads these keys (at most [`MAX_OPERATIONS`]) in one linearizable transaction: the only read on whose word a
    /// server may be opened.
    async fn read_linearizable(&self, keys: &[String]) -> Result<Snapshot, StoreError>;

    /// Writes all or nothing, if all guards hold; at most [`MAX_OPERATIONS`] writes, and as many guards.
    async fn commit(&self, proposal: &Proposal) -> Result<Committed, StoreError>;

    /// The changes of one part after a revision, batch by batch with the revision they reach up to; ends at the
    /// first error. Progress notifications come as empty batches.
    async fn watch(
        &self,
        part: &Selector,
        after: i64,
    ) -> Result<BoxStream<'static, Result<(i64, Vec<Change>), StoreError>>, StoreError>;

    /// Takes a lease of `ttl`. It is not kept alive by itself.
    async fn grant_lease(&self, ttl: Duration) -> Result<i64, StoreError>;

    /// Keeps a lease alive once. `false`: it is gone.
    async fn keep_lease(&self, lease: i64) -> Result<bool, StoreError>;

    /// Gives a lease up; its keys go with it.
    async fn revoke_lease(&self, lease: i64) -> Result<(), StoreError>;

    /// How long ago the store last answered anything.
    fn last_heard(&self) -> Duration;
}
