//! What etcd holds, read into documents.
//!
//! Programs' documents are read leniently; what cannot be read at all is kept as a complaint, and nothing else of
//! the fleet suffers from it.

use std::collections::{BTreeMap, BTreeSet};

use schemadock_schema::host::Host;
use schemadock_schema::keys::Keys;
use schemadock_schema::leadership::{Handover, Leadership};
use schemadock_schema::names;
use schemadock_schema::policy::ClusterPolicy;
use schemadock_schema::status::Status;
use schemadock_schema::target::Target;
use schemadock_schema::{ClusterName, HostName, InstanceName};
use schemadock_store::{Entry, Selector};
use serde::de::DeserializeOwned;

use super::{Context, Failure};

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
pub struct Seen {
    /// The revision of all this.
    pub revision: i64,
    /// Creation revision of `P/fleet`.
    pub fleet_created: Option<i64>,
    /// Targets; more than one of a name only where somebody wrote them by hand.
    pub targets: BTreeMap<InstanceName, Vec<StoredTarget>>,
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
    /// When each key was last written, whether it can be read or not.
    pub revisions: BTreeMap<String, i64>,
    /// The operations that hold clusters.
    pub locks: BTreeMap<ClusterName, String>,
    /// The controller in office.
    pub controller: Option<String>,
    /// Controllers, operations and events, as they stand.
    pub plain: BTreeMap<String, serde_json::Value>,
    /// Keys whose documents cannot be read, and why.
    pub complaints: BTreeMap<String, String>,
}

/// The parts that say what is wished and what is.
pub fn parts(keys: &Keys) -> Vec<Selector> {
    let prefixes = [
        keys.targets(),
        keys.statuses(),
        keys.hosts(),
        keys.alive_all(),
        keys.cordons(),
        keys.clusters(),
        keys.leaderships(),
        keys.handovers(),
        keys.members_all(),
        keys.locks(),
    ];
    let single = [keys.fleet(), keys.controller_leader()];
    prefixes.into_iter().map(Selector::Prefix).chain(single.map(Selector::Key)).collect()
}

/// Reads the [`parts`], and further ones, at one revision.
///
/// # Errors
/// When etcd does not answer.
pub async fn look(ctx: &Context, further: Vec<Selector>) -> Result<Seen, Failure> {
    let mut wanted = parts(&ctx.keys);
    wanted.extend(further);
    let snapshot = ctx.store().await?.read(&wanted).await?;
    Ok(Seen::read(&ctx.keys, snapshot.revision, snapshot.entries.values()))
}

impl Seen {
    /// Reads entries of any of the [`parts`], and of controllers, operations and events.
    pub fn read<'a>(keys: &Keys, revision: i64, entries: impl Iterator<Item = &'a Entry> + Clone) -> Self {
        let mut seen = Seen { revision, ..Seen::default() };
        let below = |prefix: String| entries.clone().filter(move |entry| entry.key.starts_with(&prefix));
        for entry in below(keys.hosts()) {
            if let (Some(name), Some(host)) = (last(entry), seen.document(entry)) {
                seen.hosts.insert(name, host);
            }
        }
        let hosts: BTreeSet<HostName> = seen.hosts.keys().cloned().collect();
        for entry in below(keys.targets()) {
            seen.target(keys, entry, &hosts);
        }
        for entry in below(keys.statuses()) {
            if let (Some((_, name)), Some(status)) =
                (keys.host_and_instance(&entry.key), seen.document(entry))
            {
                seen.statuses.insert(name, status);
            }
        }
        seen.alive = below(keys.alive_all()).filter_map(last).collect();
        seen.cordons = below(keys.cordons()).filter_map(last).collect();
        for entry in below(keys.clusters()) {
            if let (Some(name), Some(value)) = (last(entry), seen.document(entry)) {
                seen.raw_policies.insert(
                    ClusterName::clone(&name),
                    serde_json::from_slice(&entry.value).unwrap_or_default(),
                );
                seen.policies.insert(name, Stored { value, mod_revision: entry.mod_revision });
            }
        }
        let mut handovers: BTreeMap<(ClusterName, u64), Handover> = BTreeMap::new();
        for entry in below(keys.handovers()) {
            let place =
                keys.parts(&entry.key).and_then(|(c, term)| Some((c.parse().ok()?, term.parse().ok()?)));
            if let (Some(place), Some(handover)) = (place, seen.document(entry)) {
                handovers.insert(place, handover);
            }
        }
        for entry in below(keys.leaderships()) {
            if let (Some(name), Some(record)) =
                (last::<ClusterName>(entry), seen.document::<Leadership>(entry))
            {
                let value = record.with_handover(handovers.get(&(name.clone(), record.term)));
                seen.leaderships.insert(name, Stored { value, mod_revision: entry.mod_revision });
            }
        }
        seen.revisions = entries.clone().map(|entry| (entry.key.clone(), entry.mod_revision)).collect();
        for entry in below(keys.locks()) {
            if let Some(name) = last(entry) {
                seen.locks.insert(name, operation_of(&entry.value));
            }
        }
        for entry in entries.clone() {
            if entry.key == keys.fleet() {
                seen.fleet_created = Some(entry.create_revision);
            } else if entry.key == keys.controller_leader() {
                seen.controller = Some(String::from_utf8_lossy(&entry.value).into_owned());
            }
        }
        for prefix in [keys.controllers(), keys.operations(), keys.events()] {
            for entry in below(prefix) {
                if let Some(value) = seen.document(entry) {
                    seen.plain.insert(entry.key.clone(), value);
                }
            }
        }
        seen
    }

    fn document<T: DeserializeOwned>(&mut self, entry: &Entry) -> Option<T> {
        match serde_json::from_slice(&entry.value) {
            Ok(value) => Some(value),
            Err(why) => {
                self.complaints.insert(entry.key.clone(), why.to_string());
                None
            }
        }
    }

    fn target(&mut self, keys: &Keys, entry: &Entry, hosts: &BTreeSet<HostName>) {
        let Some((host, name)) = keys.host_and_instance(&entry.key) else {
            self.complaints
                .insert(entry.key.clone(), "its last two parts are no host and no instance".to_owned());
            return;
        };
        let mut target = Target::read_leniently(&entry.value);
        // A garbled document may still say where it belongs.
        let raw: serde_json::Value = serde_json::from_slice(&entry.value).unwrap_or_default();
        let said =
            raw.pointer("/data/cluster").and_then(|value| value.as_str()).and_then(|text| text.parse().ok());
        let cluster = said.or_else(|| names::read_name(&name, hosts).ok().map(|parts| parts.cluster));
        match &mut target {
            Ok(target) => (target.host, target.cluster) = (Some(host.clone()), cluster.clone()),
            Err(why) => drop(self.complaints.insert(entry.key.clone(), why.clone())),
        }
        let mod_revision = entry.mod_revision;
        let stored = StoredTarget { key: entry.key.clone(), host, cluster, target, raw, mod_revision };
        self.targets.entry(name).or_default().push(stored);
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

    /// The clusters that have targets.
    pub fn clusters(&self) -> BTreeSet<ClusterName> {
        self.all_targets().filter_map(|(_, target)| target.cluster.clone()).collect()
    }

    /// The revision of a cluster's policy; 0 where there is none.
    pub fn policy_revision(&self, cluster: &ClusterName) -> i64 {
        self.policies.get(cluster).map_or(0, |policy| policy.mod_revision)
    }
}

fn last<T: std::str::FromStr>(entry: &Entry) -> Option<T> {
    Keys::last_part(&entry.key).parse().ok()
}

/// The operation that a lock names.
fn operation_of(value: &[u8]) -> String {
    let json: serde_json::Value = serde_json::from_slice(value).unwrap_or_default();
    let named = json.get("operation").or_else(|| json.get("id")).unwrap_or(&json).as_str().map(str::to_owned);
    named.unwrap_or_else(|| String::from_utf8_lossy(value).into_owned())
}
