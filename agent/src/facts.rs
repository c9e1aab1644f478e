//! What is known of the store: what the mirror has listed, else what the agent remembers from an earlier life.

use std::collections::{BTreeMap, BTreeSet};

use schemadock_schema::keys::Keys;
use schemadock_schema::known::{Known, WhyUnknown};
use schemadock_store::Selector;
use schemadock_store::mirror::View;
use serde::de::DeserializeOwned;

/// What the agent remembers of the store, by key.
pub type Cache = BTreeMap<String, Vec<u8>>;

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// What the mirror knows.
    pub view: &'a View,
    /// What is remembered.
    pub cache: &'a Cache,
    /// Where documents stand.
    pub keys: &'a Keys,
}

/// A document with the revision at which it was written; none where it comes from memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Doc<T> {
    /// The document.
    pub value: T,
    /// Its revision.
    pub revision: Option<i64>,
}

impl<'a> Facts<'a> {
    /// The bytes at a key.
    pub fn bytes(&self, key: &str) -> Known<(&'a [u8], Option<i64>)> {
        match self.view.get(key) {
            Known::Present(entry) => Known::Present((entry.value.as_slice(), Some(entry.mod_revision))),
            Known::Absent => Known::Absent,
            Known::Unknown(why) => match self.cache.get(key) {
                Some(bytes) => Known::Present((bytes.as_slice(), None)),
                None => Known::Unknown(why),
            },
        }
    }

    /// A document that a program wrote. One that cannot be read is unknown, not absent.
    pub fn document<T: DeserializeOwned>(&self, key: &str) -> Known<Doc<T>> {
        match self.bytes(key) {
            Known::Absent => Known::Absent,
            Known::Unknown(why) => Known::Unknown(why),
            Known::Present((bytes, revision)) => match serde_json::from_slice(bytes) {
                Ok(value) => Known::Present(Doc { value, revision }),
                Err(error) => Known::Unknown(WhyUnknown::Error(format!(
                    "the document at {key} cannot be read: {error}"
                ))),
            },
        }
    }

    /// All keys below a prefix that are known, in order.
    pub fn below(&self, prefix: &'a str) -> Vec<(&'a str, &'a [u8], Option<i64>)> {
        if self.listed(prefix) {
            return self
                .view
                .below(prefix)
                .map(|entry| (entry.key.as_str(), entry.value.as_slice(), Some(entry.mod_revision)))
                .collect();
        }
        self.cache
            .range(prefix.to_owned()..)
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, bytes)| (key.as_str(), bytes.as_slice(), None))
            .collect()
    }

    /// Whether the store itself has told what is below the prefix.
    pub fn listed(&self, prefix: &str) -> bool {
        self.view.reached(prefix).is_some()
    }
}

/// What is worth remembering of a view: documents that a server is run by, not what others report.
pub fn worth_remembering(facts: &Facts<'_>, interest: &BTreeSet<Selector>) -> Cache {
    let statuses = facts.keys.statuses();
    let alive = facts.keys.alive_all();
    let requests = format!("{}/requests/", facts.keys.prefix());
    let votes = facts.keys.votes();
    let passing =
        |key: &str| [&statuses, &alive, &requests, &votes].iter().any(|prefix| key.starts_with(*prefix));
    let mut cache = Cache::new();
    for part in interest {
        let (Selector::Key(start) | Selector::Prefix(start)) = part;
        if passing(start) {
            continue;
        }
        let entries: Vec<(String, Vec<u8>)> = match part {
            Selector::Key(key) => match facts.bytes(key) {
                Known::Present((bytes, _)) => vec![(key.clone(), bytes.to_vec())],
                _ => Vec::new(),
            },
            Selector::Prefix(prefix) if facts.listed(prefix) => {
                facts.view.below(prefix).map(|entry| (entry.key.clone(), entry.value.clone())).collect()
            }
            Selector::Prefix(prefix) => facts
                .cache
                .range(prefix.clone()..)
                .take_while(|(key, _)| key.starts_with(prefix.as_str()))
                .map(|(key, bytes)| (key.clone(), bytes.clone()))
                .collect(),
        };
        cache.extend(entries);
    }
    cache
}
