//! The real store: etcd 3.4 or newer.
//!
//! *Guarantees*: connecting is lazy, so a store that is away at the start is no error until something is asked of
//! it. Every round trip has the deadline; one that meets it gives up its connection, the next call makes a new one, to
//! the next of the members given. What writes is never repeated by itself.
//! Watches that stand on the old one live on; a dead connection under them is noticed by unanswered pings.

mod connection;
mod failure;
mod requests;

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{Client, Error, GetResponse, Txn, TxnOp, TxnOpResponse, WatchOptions, WatchStream};
use futures::stream::BoxStream;
use schemadock_schema::proposal::Proposal;

use crate::{Change, Committed, MAX_OPERATIONS, Selector, Snapshot, Store, StoreError};
use connection::{Connection, Repeat};

/// The deadline of a round trip where nothing else is said.
pub const DEADLINE: Duration = Duration::from_secs(3);

/// How often a paged read is begun again when its revision is compacted under it.
const COMPACTED_READS: u32 = 3;

/// A client of etcd. Clones share its connection.
#[derive(Debug, Clone)]
pub struct Etcd {
    connection: Connection,
}

impl Etcd {
    /// A client of the etcd at these comma-separated URLs. Nothing is sent before the first call.
    ///
    /// Fails only on URLs that cannot be used.
    pub async fn connect(endpoints: &str, deadline: Duration) -> Result<Self, StoreError> {
        Ok(Self { connection: Connection::new(endpoints, deadline)? })
    }

    /// The same client with another deadline, and a connection of its own.
    pub fn with_deadline(&self, deadline: Duration) -> Self {
        Self { connection: self.connection.with_deadline(deadline) }
    }

    /// Where it looks for etcd, for people.
    pub fn endpoints(&self) -> &str {
        self.connection.endpoints()
    }

    /// Runs one transaction that only reads.
    async fn read_once(&self, operations: Vec<TxnOp>) -> Result<(i64, Vec<GetResponse>), StoreError> {
        let answer = self
            .connection
            .call("a read", Repeat::Harmless, |client| {
                let txn = Txn::new().and_then(operations.clone());
                async move { requests::kv(&client).txn(txn).await }
            })
            .await?;
        let revision = answer.header().map_or(0, |header| header.revision());
        let found = answer.op_responses().into_iter().filter_map(|one| match one {
            TxnOpResponse::Get(found) => Some(found),
            TxnOpResponse::Put(_) | TxnOpResponse::Delete(_) | TxnOpResponse::Txn(_) => None,
        });
        Ok((revision, found.collect()))
    }

    /// All parts at one revision: the first pages of all of them together, which fixes the revision, then the rest.
    async fn read_paged(&self, parts: &[Selector]) -> Result<Snapshot, StoreError> {
        let mut snapshot = Snapshot::default();
        let mut long = Vec::new();
        for some in parts.chunks(MAX_OPERATIONS) {
            let operations = some.iter().map(|part| requests::first_page(part, snapshot.revision)).collect();
            let (revision, pages) = self.read_once(operations).await?;
            if snapshot.revision == 0 {
                snapshot.revision = revision;
            }
            for (part, page) in some.iter().zip(pages) {
                if let Some(last) = requests::collect(&page, &mut snapshot.entries) {
                    long.push((part, last));
                }
            }
        }
        for (part, mut last) in long {
            let revision = snapshot.revision;
            loop {
                let page = self
                    .connection
                    .call("a page", Repeat::Harmless, |client| {
                        let (from, options) = requests::next_page(part, &last, revision);
                        async move { requests::kv(&client).get(from, Some(options)).await }
                    })
                    .await?;
                match requests::collect(&page, &mut snapshot.entries) {
                    Some(next) => last = next,
                    None => break,
                }
            }
        }
        Ok(snapshot)
    }
}

#[async_trait]
impl Store for Etcd {
    async fn read(&self, parts: &[Selector]) -> Result<Snapshot, StoreError> {
        if parts.is_empty() {
            return self.read_linearizable(&[]).await;
        }
        let mut tried = 1;
        loop {
            match self.read_paged(parts).await {
                Err(StoreError::Compacted) if tried < COMPACTED_READS => tried += 1,
                ended => return ended,
            }
        }
    }

    async fn read_linearizable(&self, keys: &[String]) -> Result<Snapshot, StoreError> {
        requests::check_size(keys.len(), "a read", "keys")?;
        // Without any operation etcd answers from whatever it has at hand.
        let operations = match keys {
            [] => vec![requests::anything()],
            keys => keys.iter().map(|key| TxnOp::get(key.as_str(), None)).collect(),
        };
        let (revision, found) = self.read_once(operations).await?;
        let mut entries = BTreeMap::new();
        if !keys.is_empty() {
            for page in &found {
                requests::collect(page, &mut entries);
            }
        }
        Ok(Snapshot { revision, entries })
    }

    async fn commit(&self, proposal: &Proposal) -> Result<Committed, StoreError> {
        let txn = requests::transaction(proposal)?;
        let answer = self
            .connection
            .call("a write", Repeat::Never, |client| {
                let txn = txn.clone();
                async move { requests::kv(&client).txn(txn).await }
            })
            .await?;
        Ok(match answer.succeeded() {
            true => Committed::Written { revision: answer.header().map_or(0, |header| header.revision()) },
            false => Committed::Conflict,
        })
    }

    async fn watch(
        &self,
        part: &Selector,
        after: i64,
    ) -> Result<BoxStream<'static, Result<(i64, Vec<Change>), StoreError>>, StoreError> {
        let (key, options) = match part {
            Selector::Key(key) => (key, WatchOptions::new()),
            Selector::Prefix(prefix) => (prefix, WatchOptions::new().with_prefix()),
        };
        let options = options.with_start_revision(after + 1).with_progress_notify();
        let stream = self
            .connection
            .call("a watch", Repeat::Harmless, |client| begin(client, key.clone(), options.clone()))
            .await??;
        Ok(follow(self.connection.clone(), stream))
    }

    async fn grant_lease(&self, ttl: Duration) -> Result<i64, StoreError> {
        // etcd counts whole seconds; a shorter lease than asked for would end under a punctual holder.
        let seconds = ttl.as_secs() as i64 + i64::from(ttl.subsec_nanos() > 0);
        let answer = self
            .connection
            .call("a lease", Repeat::Never, |client| async move {
                client.lease_client().grant(seconds.max(1), None).await
            })
            .await?;
        Ok(answer.id())
    }

    async fn keep_lease(&self, lease: i64) -> Result<bool, StoreError> {
        self.connection
            .call("a lease's renewal", Repeat::Harmless, |client| async move {
                match client.lease_client().keep_alive(lease).await {
                    Ok(_) => Ok(true),
                    // The only way in which etcd-client says that etcd does not know the lease.
                    Err(Error::LeaseKeepAliveError(_)) => Ok(false),
                    Err(why) => Err(why),
                }
            })
            .await
    }

    async fn revoke_lease(&self, lease: i64) -> Result<(), StoreError> {
        let revoked = self
            .connection
            .call("a lease's end", Repeat::Harmless, |client| async move {
                client.lease_client().revoke(lease).await
            })
            .await;
        match revoked {
            Ok(_) | Err(StoreError::LeaseNotFound) => Ok(()),
            Err(why) => Err(why),
        }
    }

    fn last_heard(&self) -> Duration {
        self.connection.last_heard()
    }
}

/// Begins a watch. etcd says first that it stands, or why it does not.
async fn begin(
    client: Client,
    key: String,
    options: WatchOptions,
) -> Result<Result<WatchStream, StoreError>, Error> {
    let mut stream = requests::watches(&client).watch(key, Some(options)).await?;
    match stream.message().await? {
        Some(first) if first.created() && !first.canceled() => Ok(Ok(stream)),
        Some(first) if first.canceled() && first.compact_revision() > 0 => Ok(Err(StoreError::Compacted)),
        Some(first) => {
            Ok(Err(StoreError::Refused { what: "a watch", why: first.cancel_reason().to_owned() }))
        }
        None => Err(Error::WatchError("etcd ended the watch before it stood".to_owned())),
    }
}

/// The batches of a watch, up to and with its first error.
fn follow(
    connection: Connection,
    stream: WatchStream,
) -> BoxStream<'static, Result<(i64, Vec<Change>), StoreError>> {
    let batches = futures::stream::unfold(Some(stream), move |stream| {
        let connection = connection.clone();
        async move {
            let mut stream = stream?;
            let batch = match stream.message().await {
                Ok(Some(answer)) => {
                    connection.heard();
                    requests::batch(&answer)
                }
                Ok(None) => Err(StoreError::Unreachable {
                    endpoints: connection.endpoints().to_owned(),
                    why: "etcd ended the watch".to_owned(),
                }),
                Err(why) => {
                    Err(failure::classify("a watch", connection.endpoints(), connection.deadline(), why))
                }
            };
            let rest = batch.is_ok().then_some(stream);
            Some((batch, rest))
        }
    });
    Box::pin(batches)
}
