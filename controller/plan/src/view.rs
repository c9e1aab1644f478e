//! What etcd holds, read into documents.
//!
//! Programs' documents are read leniently; what cannot be read at all is kept as a complaint, and nothing else of
//! the fleet suffers from it. One key after another can be applied, so that news cost what they are.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use schemadock_schema::host::Host;
use schemadock_schema::keys::Keys;
use schemadock_schema::leadership::{Handover, Leadership};
use schemadock_schema::names;
use schemadock_schema::operation::{Lock, Operation, Route};
use schemadock_schema::policy::ClusterPolicy;
use schemadock_schema::status::Status;
use schemadock_schema::target::Target;
use schemadock_schema::{ClusterName, HostName, InstanceName};
use serde::de::DeserializeOwned;

/// One key as the store has it.
#[derive(Debug, Clone, Copy)]
pub struct Raw<'a> {
    /// The key.
    pub key: &'a str,
    /// The document, as bytes.
    pub value: &'a [u8],
    /// When it was last written.
    pub mod_revision: i64,
    /// When it was created.
    pub create_revision: i64,
}

/// A document with the revision at which it was last written.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored<T> {
    /// The document.
    pub value: T,
    /// Its revision.
    pub mod_revision: i64,
}

/// A target as it stands in etcd.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredTarget {
    /// Its key.
    pub key: String,
    /// The host of its key.
    pub host: HostName,
    /// The cluster that it names, else the one of its name.
    pub cluster: Option<ClusterName>,
    /// The document with host and cluster in it, or why it cannot be read.
    pub target: Result<Target, String>,
    /// The document as it stands; null where it is no JSON.
    pub raw: serde_json::Value,
    /// When it was last written.
    pub mod_revision: i64,
}

/// What etcd holds, at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FleetView {
    /// The revision of all this.
    pub revision: i64,
    /// Creation revision of `P/fleet`.
    pub fleet_created: Option<i64>,
    /// Targets; more than one of a name only where somebody wrote them by hand.
    pub targets: BTreeMap<InstanceName, Vec<StoredTarget>>,
    /// Which instances have targets of a cluster.
    members: BTreeMap<ClusterName, BTreeSet<InstanceName>>,
    /// What agents report of instances.
    pub statuses: BTreeMap<InstanceName, Status>,
    /// What agents report of hosts.
    pub hosts: BTreeMap<HostName, Host>,
    /// The hosts whose agents live.
    pub alive: BTreeSet<HostName>,
    /// The hosts that take nothing new.
    pub cordons: BTreeSet<HostName>,
    /// Policies.
    pub policies: BTreeMap<ClusterName, Stored<ClusterPolicy>>,
    /// The same as they stand, with what this program does not know.
    pub raw_policies: BTreeMap<ClusterName, serde_json::Value>,
    /// Leadership records with the ends of their handovers folded in, at the records' own revisions.
    pub leaderships: BTreeMap<ClusterName, Stored<Leadership>>,
    /// The records as they stand.
    pub records: BTreeMap<ClusterName, Stored<Leadership>>,
    /// How handovers ended.
    pub handovers: BTreeMap<(ClusterName, u64), Stored<Handover>>,
    /// When each key was last written, whether it can be read or not.
    pub revisions: BTreeMap<String, i64>,
    /// The operations that hold clusters.
    pub locks: BTreeMap<ClusterName, String>,
    /// Operations that were asked for.
    pub operations: BTreeMap<String, Stored<Operation>>,
    /// Where clients find the members of clusters.
    pub routes: BTreeMap<ClusterName, Route>,
    /// The id of the controller in office.
    pub controller: Option<String>,
    /// Controllers and events, as they stand.
    pub plain: BTreeMap<String, serde_json::Value>,
    /// Keys whose documents cannot be read, and why.
    pub complaints: BTreeMap<String, String>,
}

impl FleetView {
    /// Reads what the store holds at a revision.
    pub fn read<'a>(keys: &Keys, revision: i64, entries: impl Iterator<Item = Raw<'a>> + Clone) -> Self {
        let mut view = FleetView::default();
        // An instance's name is read by the names of the hosts.
        let (hosts, prefix) = (entries.clone(), keys.hosts());
        hosts.filter(|raw| raw.key.starts_with(&prefix)).for_each(|raw| view.apply(keys, raw));
        entries.filter(|raw| !raw.key.starts_with(&prefix)).for_each(|raw| view.apply(keys, raw));
        view.revision = revision;
        view
    }

    /// Takes a key as it is now. A host that is new may change how older names are read: then read all anew.
    pub fn apply(&mut self, keys: &Keys, raw: Raw<'_>) {
        self.remove(keys, raw.key);
        self.revisions.insert(raw.key.to_owned(), raw.mod_revision);
        let Some((kind, parts)) = split(keys, raw.key) else { return };
        let stored_at = raw.mod_revision;
        match (kind, parts.as_slice()) {
            ("fleet", []) => self.fleet_created = Some(raw.create_revision),
            ("targets", _) => self.target(keys, raw),
            ("status", [_, name]) => self.put(raw, name, |view, name, value| {
                view.statuses.insert(name, value);
            }),
            ("hosts", [name]) => self.put(raw, name, |view, name, value| {
                view.hosts.insert(name, value);
            }),
            ("alive", [name]) => self.alive.extend(name.parse::<HostName>()),
            ("cordons", [name]) => self.cordons.extend(name.parse::<HostName>()),
            ("clusters", [name]) => {
                let json = serde_json::from_slice(raw.value).unwrap_or_default();
                self.put(raw, name, |view, name: ClusterName, value| {
                    view.raw_policies.insert(name.clone(), json);
                    view.policies.insert(name, Stored { value, mod_revision: stored_at });
                });
            }
            ("leadership", [name]) => self.put(raw, name, |view, name: ClusterName, value| {
                view.records.insert(name.clone(), Stored { value, mod_revision: stored_at });
                view.fold(&name);
            }),
            ("handover", [name, term]) => {
                let Ok(term) = term.parse::<u64>() else { return };
                self.put(raw, name, |view, name: ClusterName, value| {
                    view.handovers.insert((name.clone(), term), Stored { value, mod_revision: stored_at });
                    view.fold(&name);
                });
            }
            ("locks", [name]) => self.put(raw, name, |view, name, value: Lock| {
                view.locks.insert(name, value.operation);
            }),
            ("operations", [id]) => {
                if let Some(value) = self.document(raw) {
                    self.operations.insert((*id).to_owned(), Stored { value, mod_revision: stored_at });
                }
            }
            ("routes", [name]) => self.put(raw, name, |view, name, value| {
                view.routes.insert(name, value);
            }),
            ("controller", ["leader"]) => {
                self.controller = Some(String::from_utf8_lossy(raw.value).trim_matches('"').to_owned());
            }
            ("controllers" | "events", _) => {
                if let Some(value) = self.document(raw) {
                    self.plain.insert(raw.key.to_owned(), value);
                }
            }
            _ => {}
        }
    }

    /// Forgets a key.
    pub fn remove(&mut self, keys: &Keys, key: &str) {
        if self.revisions.remove(key).is_none() {
            return;
        }
        self.complaints.remove(key);
        let Some((kind, parts)) = split(keys, key) else { return };
        match (kind, parts.as_slice()) {
            ("fleet", []) => self.fleet_created = None,
            ("targets", [_, name]) => {
                let Some((name, mut all)) = self.targets.remove_entry(*name) else { return };
                let clusters: Vec<ClusterName> = all.iter().filter_map(|one| one.cluster.clone()).collect();
                all.retain(|one| one.key != key);
                for cluster in clusters {
                    let still = all.iter().any(|one| one.cluster.as_ref() == Some(&cluster));
                    if let Some(members) = self.members.get_mut(&cluster).filter(|_| !still) {
                        members.remove(&name);
                        if members.is_empty() {
                            self.members.remove(&cluster);
                        }
                    }
                }
                if !all.is_empty() {
                    self.targets.insert(name, all);
                }
            }
            ("status", [_, name]) => drop(self.statuses.remove(*name)),
            ("hosts", [name]) => drop(self.hosts.remove(*name)),
            ("alive", [name]) => drop(self.alive.remove(*name)),
            ("cordons", [name]) => drop(self.cordons.remove(*name)),
            ("clusters", [name]) => {
                self.policies.remove(*name);
                self.raw_policies.remove(*name);
            }
            ("leadership", [name]) => {
                self.records.remove(*name);
                self.leaderships.remove(*name);
            }
            ("handover", [name, term]) => {
                if let (Ok(name), Ok(term)) = (name.parse::<ClusterName>(), term.parse()) {
                    self.handovers.remove(&(name.clone(), term));
                    self.fold(&name);
                }
            }
            ("locks", [name]) => drop(self.locks.remove(*name)),
            ("operations", [id]) => drop(self.operations.remove(*id)),
            ("routes", [name]) => drop(self.routes.remove(*name)),
            ("controller", ["leader"]) => self.controller = None,
            ("controllers" | "events", _) => drop(self.plain.remove(key)),
            _ => {}
        }
    }

    fn fold(&mut self, cluster: &ClusterName) {
        let Some(record) = self.records.get(cluster) else { return };
        let ended = self.handovers.get(&(cluster.clone(), record.value.term)).map(|ended| &ended.value);
        let value = record.value.with_handover(ended);
        let mod_revision = record.mod_revision;
        self.leaderships.insert(cluster.clone(), Stored { value, mod_revision });
    }

    fn put<N: FromStr, T: DeserializeOwned>(
        &mut self,
        raw: Raw<'_>,
        name: &str,
        keep: impl FnOnce(&mut Self, N, T),
    ) {
        if let (Ok(name), Some(value)) = (name.parse(), self.document(raw)) {
            keep(self, name, value);
        }
    }

    fn document<T: DeserializeOwned>(&mut self, raw: Raw<'_>) -> Option<T> {
        match serde_json::from_slice(raw.value) {
            Ok(value) => Some(value),
            Err(why) => {
                self.complaints.insert(raw.key.to_owned(), why.to_string());
                None
            }
        }
    }

    fn target(&mut self, keys: &Keys, entry: Raw<'_>) {
        let Some((host, name)) = keys.host_and_instance(entry.key) else {
            let why = "its last two parts are no host and no instance".to_owned();
            self.complaints.insert(entry.key.to_owned(), why);
            return;
        };
        let mut target = Target::read_leniently(entry.value);
        // A garbled document may still say where it belongs.
        let raw: serde_json::Value = serde_json::from_slice(entry.value).unwrap_or_default();
        let said =
            raw.pointer("/data/cluster").and_then(|value| value.as_str()).and_then(|text| text.parse().ok());
        let cluster = said.or_else(|| {
            let hosts: BTreeSet<HostName> = self.hosts.keys().cloned().collect();
            names::read_name(&name, &hosts).ok().map(|parts| parts.cluster)
        });
        match &mut target {
            Ok(target) => (target.host, target.cluster) = (Some(host.clone()), cluster.clone()),
            Err(why) => drop(self.complaints.insert(entry.key.to_owned(), why.clone())),
        }
        if let Some(cluster) = &cluster {
            self.members.entry(cluster.clone()).or_default().insert(name.clone());
        }
        let (key, mod_revision) = (entry.key.to_owned(), entry.mod_revision);
        self.targets.entry(name).or_default().push(StoredTarget {
            key,
            host,
            cluster,
            target,
            raw,
            mod_revision,
        });
    }

    /// The target of an instance, if exactly one stands there.
    pub fn one_target(&self, name: &InstanceName) -> Option<&StoredTarget> {
        match self.targets.get(name)?.as_slice() {
            [one] => Some(one),
            _ => None,
        }
    }

    /// All targets with their names.
    pub fn all_targets(&self) -> impl Iterator<Item = (&InstanceName, &StoredTarget)> {
        self.targets.iter().flat_map(|(name, all)| all.iter().map(move |one| (name, one)))
    }

    /// The targets of one cluster.
    pub fn targets_of(&self, cluster: &ClusterName) -> impl Iterator<Item = (&InstanceName, &StoredTarget)> {
        let names = self.members.get(cluster).into_iter().flatten();
        let targets = names.filter_map(|name| self.targets.get_key_value(name));
        let targets = targets.flat_map(|(name, all)| all.iter().map(move |one| (name, one)));
        targets.filter(move |(_, stored)| stored.cluster.as_ref() == Some(cluster))
    }

    /// The clusters that have targets.
    pub fn clusters(&self) -> BTreeSet<ClusterName> {
        self.members.keys().cloned().collect()
    }

    /// The clusters for which what this key holds matters. A key that changes may matter to some before, to others
    /// afterwards.
    pub fn concerned(&self, keys: &Keys, key: &str) -> BTreeSet<ClusterName> {
        let Some((kind, parts)) = split(keys, key) else { return BTreeSet::new() };
        match (kind, parts.as_slice()) {
            ("targets" | "status", [_, name]) => {
                self.targets.get(*name).into_iter().flatten().filter_map(|one| one.cluster.clone()).collect()
            }
            ("hosts" | "alive" | "cordons", [host]) => {
                let here = self.all_targets().filter(|(_, stored)| stored.host.as_str() == *host);
                here.filter_map(|(_, stored)| stored.cluster.clone()).collect()
            }
            ("operations", [id]) => {
                let asked = self.operations.get(*id).into_iter().flat_map(|stored| &stored.value.clusters);
                let held = self.locks.iter().filter(|(_, by)| by == id).map(|(name, _)| name);
                asked.chain(held).cloned().collect()
            }
            ("clusters" | "leadership" | "handover" | "locks" | "members" | "routes", [name, ..]) => {
                name.parse().into_iter().collect()
            }
            _ => BTreeSet::new(),
        }
    }

    /// The key of a cluster's that cannot be read, if there is one: its policy, its leadership, its lock, a target.
    pub fn unreadable(&self, cluster: &ClusterName) -> Option<String> {
        let tails = ["clusters", "leadership", "locks"].map(|kind| format!("/{kind}/{cluster}"));
        let own = self.complaints.keys().find(|key| tails.iter().any(|tail| key.ends_with(tail)));
        let target =
            || self.targets_of(cluster).find(|(_, one)| one.target.is_err()).map(|(_, one)| &one.key);
        own.or_else(target).cloned()
    }

    /// The revision of a cluster's policy; 0 where there is none.
    pub fn policy_revision(&self, cluster: &ClusterName) -> i64 {
        self.policies.get(cluster).map_or(0, |policy| policy.mod_revision)
    }

    /// What is wished of a cluster.
    pub fn policy(&self, cluster: &ClusterName) -> ClusterPolicy {
        self.policies.get(cluster).map(|policy| policy.value.clone()).unwrap_or_default()
    }

    /// When a key was last written; none where it is not there.
    pub fn revision_of(&self, key: &str) -> Option<i64> {
        self.revisions.get(key).copied()
    }
}

/// The kind of a key, and what stands behind it.
fn split<'a>(keys: &Keys, key: &'a str) -> Option<(&'a str, Vec<&'a str>)> {
    let mut parts = key.strip_prefix(keys.prefix())?.strip_prefix('/')?.split('/');
    Some((parts.next()?, parts.collect()))
}
