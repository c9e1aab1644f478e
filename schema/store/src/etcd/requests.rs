//! Questions to etcd, and its answers.

use std::collections::BTreeMap;

use etcd_client::{
    Client, Compare, CompareOp, EventType, GetOptions, GetResponse, KeyValue, KvClient, PutOptions, Txn,
    TxnOp, WatchClient, WatchResponse,
};
use schemadock_schema::proposal::{Guard, Proposal, Write};

use crate::{Change, Entry, MAX_OPERATIONS, Selector, StoreError};

/// Keys a page.
const PAGE: i64 = 500;
/// A page of 500 keys can be larger than the 4 MiB that are the default; etcd itself bounds what one key can hold.
const MAX_ANSWER: usize = i32::MAX as usize;

/// Reads and writes that take answers of any size.
pub(super) fn kv(client: &Client) -> KvClient {
    client.kv_client().max_decoding_message_size(MAX_ANSWER)
}

/// Watches that take answers of any size.
pub(super) fn watches(client: &Client) -> WatchClient {
    client.watch_client().max_decoding_message_size(MAX_ANSWER)
}

/// The entry that etcd's answer describes.
fn entry(kv: &KeyValue) -> Entry {
    Entry {
        key: String::from_utf8_lossy(kv.key()).into_owned(),
        value: kv.value().to_vec(),
        mod_revision: kv.mod_revision(),
        create_revision: kv.create_revision(),
        lease: kv.lease(),
    }
}

/// A page's size and revision.
fn page_options(revision: i64) -> GetOptions {
    GetOptions::new().with_limit(PAGE).with_revision(revision)
}

/// A read whose answer does not matter.
pub(super) fn anything() -> TxnOp {
    TxnOp::get("/", Some(GetOptions::new().with_count_only()))
}

/// The first page of a part, at a revision, or with 0 at the newest.
pub(super) fn first_page(part: &Selector, revision: i64) -> TxnOp {
    let options = page_options(revision);
    match part {
        Selector::Key(key) => TxnOp::get(key.as_str(), Some(options)),
        Selector::Prefix(prefix) => TxnOp::get(prefix.as_str(), Some(options.with_prefix())),
    }
}

/// Where the page after `last` begins, and its options.
pub(super) fn next_page(part: &Selector, last: &[u8], revision: i64) -> (Vec<u8>, GetOptions) {
    let mut from = last.to_vec();
    from.push(0);
    let end = match part {
        Selector::Key(key) => key.as_bytes().to_vec(),
        Selector::Prefix(prefix) => end_of(prefix.as_bytes()),
    };
    (from, page_options(revision).with_range(end))
}

/// Takes a page in; returns its last key if there are more.
pub(super) fn collect(page: &GetResponse, entries: &mut BTreeMap<String, Entry>) -> Option<Vec<u8>> {
    for kv in page.kvs() {
        let entry = entry(kv);
        entries.insert(entry.key.clone(), entry);
    }
    match page.more() {
        true => page.kvs().last().map(|kv| kv.key().to_vec()),
        false => None,
    }
}

/// The first key after all that begin with the prefix; `\0` when there is none, which etcd reads as no end.
fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

/// Refuses what etcd would refuse, with the reason.
pub(super) fn check_size(found: usize, what: &'static str, of: &str) -> Result<(), StoreError> {
    match found > MAX_OPERATIONS {
        true => Err(StoreError::Refused {
            what,
            why: format!("it has {found} {of}, at most {MAX_OPERATIONS} fit into one transaction: split it"),
        }),
        false => Ok(()),
    }
}

/// A proposal as a transaction.
pub(super) fn transaction(proposal: &Proposal) -> Result<Txn, StoreError> {
    check_size(proposal.writes.len(), "a write", "writes")?;
    check_size(proposal.guards.len(), "a write", "guards")?;
    let compares: Vec<Compare> = proposal.guards.iter().map(compare).collect();
    let operations: Vec<TxnOp> = match proposal.writes.is_empty() {
        // A transaction without any operation is answered from whatever etcd has at hand.
        true => vec![anything()],
        false => proposal.writes.iter().map(operation).collect(),
    };
    Ok(Txn::new().when(compares).and_then(operations))
}

fn compare(guard: &Guard) -> Compare {
    match guard {
        Guard::Absent { key } => Compare::create_revision(key.as_str(), CompareOp::Equal, 0),
        Guard::At { key, mod_revision } => {
            Compare::mod_revision(key.as_str(), CompareOp::Equal, *mod_revision)
        }
        Guard::Created { key, create_revision } => {
            Compare::create_revision(key.as_str(), CompareOp::Equal, *create_revision)
        }
        Guard::PrefixUnchanged { prefix, revision } => {
            Compare::mod_revision(prefix.as_str(), CompareOp::Less, revision + 1).with_prefix()
        }
    }
}

fn operation(write: &Write) -> TxnOp {
    match write {
        Write::Put { key, value, lease } => {
            let options = lease.map(|lease| PutOptions::new().with_lease(lease));
            TxnOp::put(key.as_str(), value.as_slice(), options)
        }
        Write::Delete { key } => TxnOp::delete(key.as_str(), None),
    }
}

/// A watch's answer: the revision it reaches up to, and the changes.
pub(super) fn batch(answer: &WatchResponse) -> Result<(i64, Vec<Change>), StoreError> {
    if answer.compact_revision() > 0 {
        return Err(StoreError::Compacted);
    }
    if answer.canceled() {
        return Err(StoreError::Refused { what: "a watch", why: answer.cancel_reason().to_owned() });
    }
    let mut changes = Vec::with_capacity(answer.events().len());
    let mut reached = None;
    for event in answer.events() {
        let Some(kv) = event.kv() else { continue };
        let entry = entry(kv);
        // What a watch is behind with comes in several answers, all with etcd's newest revision in their header:
        // only the events themselves say how far it is.
        reached = reached.max(Some(entry.mod_revision));
        changes.push(match event.event_type() {
            EventType::Put => Change::Put(entry),
            EventType::Delete => Change::Delete { revision: entry.mod_revision, key: entry.key },
        });
    }
    let header = answer.header().map_or(0, |header| header.revision());
    Ok((reached.unwrap_or(header), changes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_where_the_next_one_begins() {
        assert_eq!(end_of(b"/p/"), b"/p0");
        assert_eq!(end_of(b"a\xff"), b"b");
        assert_eq!(end_of(b"\xff"), [0]);
    }
}
