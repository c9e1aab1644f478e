//! What the agents remember, put together. Pure.

use std::collections::BTreeMap;

use schemadock_schema::fleet::Cache;
use schemadock_schema::keys::Keys;
use schemadock_schema::leadership::Leadership;
use schemadock_schema::policy::ClusterPolicy;
use schemadock_schema::proposal::Write;
use schemadock_schema::secrets::Secrets;
use schemadock_schema::target::Document;
use schemadock_schema::{ClusterName, HostName, InstanceName, Timestamp};
use schemadock_store::Snapshot;
use serde::Serialize;
use serde_json::json;

/// The fleet as its agents remember it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Merged {
    /// The id that all remember.
    pub(super) id: String,
    /// The newest revision that any has seen.
    pub(super) revision: i64,
    /// The clusters.
    pub(super) clusters: BTreeMap<ClusterName, Part>,
    /// Who has which server id.
    pub(super) ids: BTreeMap<u32, InstanceName>,
    /// What a person should know.
    pub(super) warnings: Vec<String>,
}

/// One cluster as it is remembered.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Part {
    /// The record of the highest term.
    pub(super) leadership: Option<Leadership>,
    /// The policy last seen.
    pub(super) policy: Option<ClusterPolicy>,
    /// The newest credentials.
    pub(super) secrets: Option<Secrets>,
    /// The targets, each as its own host knows it.
    pub(super) targets: BTreeMap<(HostName, InstanceName), Document>,
}

/// Puts together what agents have published.
///
/// # Errors
/// When nobody remembers a fleet, or not all remember the same one.
pub(super) fn merge(caches: &[Cache]) -> Result<Merged, String> {
    let mut remembered: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for cache in caches {
        if let Some(id) = &cache.fleet {
            remembered.entry(id).or_default().push(cache.host.as_str());
        }
    }
    let id = match remembered.len() {
        0 => return Err("no agent that was asked remembers anything of a fleet".to_owned()),
        1 => remembered.keys().next().copied().unwrap_or_default().to_owned(),
        _ => {
            let all = remembered.iter().map(|(id, hosts)| format!("{id} by {}", hosts.join(", ")));
            let all = all.collect::<Vec<_>>().join("; ");
            return Err(format!("the agents remember different fleets, expected one: {all}"));
        }
    };
    // Of equal terms and versions what was seen last counts.
    let mut newest_last: Vec<&Cache> = caches.iter().collect();
    newest_last.sort_by_key(|cache| cache.revision);
    let mut merged = Merged {
        id,
        revision: newest_last.last().map_or(0, |cache| cache.revision),
        clusters: BTreeMap::new(),
        ids: BTreeMap::new(),
        warnings: Vec::new(),
    };
    for cache in &newest_last {
        let part = merged.clusters.entry(cache.cluster.clone()).or_default();
        if let Some(record) = &cache.leadership
            && part.leadership.as_ref().is_none_or(|known| record.term >= known.term)
        {
            part.leadership = Some(record.clone());
        }
        if let Some(secrets) = &cache.secrets
            && part.secrets.as_ref().is_none_or(|known| secrets.version >= known.version)
        {
            part.secrets = Some(secrets.clone());
        }
        if let Some(policy) = &cache.policy {
            part.policy = Some(policy.clone());
        }
        let own =
            cache.targets.iter().map(|(name, target)| ((cache.host.clone(), name.clone()), target.clone()));
        part.targets.extend(own);
        merged.ids.extend(cache.server_ids.iter().map(|(name, id)| (*id, name.clone())));
    }
    merged.warnings = unknown_terms(caches, &merged.clusters);
    Ok(merged)
}

/// Terms that were accepted although nobody remembers their record: nothing opens then (S2).
fn unknown_terms(caches: &[Cache], clusters: &BTreeMap<ClusterName, Part>) -> Vec<String> {
    let mut found = Vec::new();
    for cache in caches {
        let record = clusters.get(&cache.cluster).and_then(|part| part.leadership.as_ref());
        let known = record.map_or(0, |record| record.term);
        for (name, term) in cache.terms.iter().filter(|(_, term)| **term > known) {
            found.push(format!(
                "{name} has accepted term {term} of {}, but the newest record that anybody remembers is of term \
                 {known}: its servers stay closed for writes until an agent that knows more is asked, too",
                cache.cluster
            ));
        }
    }
    found
}

/// Instances that records and targets speak of, and whose hosts were not asked.
pub(super) fn missing_members(merged: &Merged) -> Vec<String> {
    let mut found = Vec::new();
    for (cluster, part) in &merged.clusters {
        let known = |name: &InstanceName| part.targets.keys().any(|(_, own)| own == name);
        let voters = part.leadership.iter().flat_map(|record| record.voters.iter().map(|voter| &voter.name));
        let master = part.leadership.iter().filter_map(|record| record.master.as_ref());
        for name in master.chain(voters).filter(|name| !known(name)) {
            found.push(format!("{cluster}: nobody who was asked has {name}; its target is not restored"));
        }
    }
    found
}

/// What is to be written so that the store says what is remembered; one group for each cluster, then the ids. What
/// the store has newer, or just the same, is left.
pub(super) fn writes_of(merged: &Merged, current: &Snapshot, keys: &Keys, now: Timestamp) -> Vec<Vec<Write>> {
    let mut groups = Vec::new();
    for (cluster, part) in &merged.clusters {
        let mut writes = Vec::new();
        for ((host, name), target) in &part.targets {
            put(&mut writes, current, keys.target(host, name), target);
        }
        let names: Vec<&InstanceName> = part.targets.keys().map(|(_, name)| name).collect();
        put(&mut writes, current, keys.members(cluster), &json!({ "members": names }));
        if let Some(record) = &part.leadership
            && read(current, &keys.leadership(cluster))
                .is_none_or(|found: Leadership| found.term < record.term)
        {
            put(&mut writes, current, keys.leadership(cluster), record);
        }
        if let Some(secrets) = &part.secrets
            && read(current, &keys.secrets(cluster))
                .is_none_or(|found: Secrets| found.version < secrets.version)
        {
            put(&mut writes, current, keys.secrets(cluster), secrets);
        }
        if let Some(policy) = &part.policy {
            put(&mut writes, current, keys.cluster(cluster), policy);
        }
        groups.push(writes);
    }
    let free = merged.ids.iter().filter(|(id, _)| current.get(&keys.id(**id)).is_none());
    groups.push(
        free.map(|(id, name)| Write::document(keys.id(*id), &json!({"instance": name, "at": now}))).collect(),
    );
    groups
}

fn read<T: serde::de::DeserializeOwned>(current: &Snapshot, key: &str) -> Option<T> {
    serde_json::from_slice(&current.get(key)?.value).ok()
}

fn put(writes: &mut Vec<Write>, current: &Snapshot, key: String, document: &impl Serialize) {
    let new = Write::document(key, document);
    let same = matches!(&new, Write::Put { key, value, .. } if current.get(key).is_some_and(|entry| {
        let parsed = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).ok();
        parsed(&entry.value) == parsed(value)
    }));
    if !same {
        writes.push(new);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(host: &str, revision: i64, term: u64, master: &str) -> Cache {
        let name = format!("{host}-c-db");
        serde_json::from_value(json!({
            "host": host, "cluster": "c", "fleet": "f", "revision": revision,
            "terms": { name.as_str(): term },
            "leadership": {"term": term, "master": master, "phase": "steady", "durability": "async", "founder": "u"},
            "policy": null,
            "targets": { name.as_str(): {"data": {"role": "master", "port": 1}} },
            "secrets": {"version": term, "agent": "a", "admin": "b", "replication": "c",
                        "application": {"user": "app", "password": "d"}},
            "server_ids": { name.as_str(): 1000 + term }
        }))
        .unwrap()
    }

    #[test]
    fn the_highest_term_counts_whoever_saw_more() {
        let merged = merge(&[cache("h1", 90, 3, "h1-c-db"), cache("h2", 50, 4, "h2-c-db")]).unwrap();
        assert_eq!((merged.id.as_str(), merged.revision), ("f", 90));
        let part = &merged.clusters[&"c".parse::<ClusterName>().unwrap()];
        assert_eq!(part.leadership.as_ref().unwrap().term, 4);
        assert_eq!(part.secrets.as_ref().unwrap().version, 4);
        assert_eq!(part.targets.len(), 2);
        assert_eq!(merged.ids.len(), 2);
        assert!(merged.warnings.is_empty() && missing_members(&merged).is_empty());
    }

    #[test]
    fn what_nobody_remembers_is_said() {
        let mut one = cache("h1", 9, 3, "gone");
        one.terms.insert("h1-c-db".parse().unwrap(), 5);
        let merged = merge(&[one]).unwrap();
        assert!(merged.warnings[0].contains("accepted term 5"));
        assert!(missing_members(&merged)[0].contains("gone"));
    }

    #[test]
    fn two_fleets_are_not_one() {
        let mut other = cache("h2", 1, 1, "x");
        other.fleet = Some("g".to_owned());
        assert!(merge(&[cache("h1", 1, 1, "x"), other]).unwrap_err().contains("f by h1; g by h2"));
        assert!(merge(&[]).is_err());
    }

    #[test]
    fn a_second_rebuild_writes_nothing() {
        let merged = merge(&[cache("h1", 9, 3, "h1-c-db")]).unwrap();
        let keys = Keys::new("/p");
        let mut store = Snapshot::default();
        let first: Vec<Write> = writes_of(&merged, &store, &keys, Timestamp::UNIX_EPOCH).concat();
        assert_eq!(first.len(), 5);
        for write in first {
            let Write::Put { key, value, .. } = write else { panic!() };
            let entry = schemadock_store::Entry {
                key: key.clone(),
                value,
                mod_revision: 1,
                create_revision: 1,
                lease: 0,
            };
            store.entries.insert(key, entry);
        }
        assert!(writes_of(&merged, &store, &keys, Timestamp::UNIX_EPOCH).concat().is_empty());
    }
}
