//! Putting writes together with what they were judged by.

use std::collections::{BTreeMap, BTreeSet};

use schemadock_schema::keys::Keys;
use schemadock_schema::leadership::Leadership;
use schemadock_schema::operation::{Route, RouteTo};
use schemadock_schema::policy::ClusterPolicy;
use schemadock_schema::proposal::{Guard, Proposal, Write};
use schemadock_schema::status::Phase;
use schemadock_schema::target::{Document, Role, Target};
use schemadock_schema::{ClusterName, HostName, InstanceName};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::view::FleetView;

/// Writes with their guards. A key is written once; it is guarded at the revision at which it was read.
#[derive(Debug, Clone)]
pub struct Changes<'a> {
    view: &'a FleetView,
    keys: &'a Keys,
    writes: BTreeMap<String, Write>,
    guards: BTreeMap<String, Guard>,
}

impl<'a> Changes<'a> {
    /// None yet.
    pub fn new(view: &'a FleetView, keys: &'a Keys) -> Self {
        Changes { view, keys, writes: BTreeMap::new(), guards: BTreeMap::new() }
    }

    /// What they were judged by.
    pub fn judged_by(&mut self, key: String) {
        let guard = Guard::unchanged(key.clone(), self.view.revision_of(&key));
        self.guards.insert(key, guard);
    }

    /// Puts a document where it was read, or where nothing was.
    pub fn put(&mut self, key: String, document: &impl serde::Serialize) {
        self.judged_by(key.clone());
        self.writes.insert(key.clone(), Write::document(key, document));
    }

    /// Removes a document.
    pub fn delete(&mut self, key: String) {
        if self.view.revision_of(&key).is_some() {
            self.judged_by(key.clone());
            self.writes.insert(key.clone(), Write::Delete { key });
        }
    }

    /// Puts and deletes targets of one cluster, with the list of its members. Placement was judged by the targets of
    /// the hosts concerned.
    pub fn targets(
        &mut self,
        cluster: &ClusterName,
        changed: &BTreeMap<InstanceName, Option<(HostName, Target)>>,
    ) {
        let mut members: BTreeSet<InstanceName> =
            self.view.targets_of(cluster).map(|(name, _)| name.clone()).collect();
        for (name, change) in changed {
            match change {
                Some((host, target)) => {
                    members.insert(name.clone());
                    let target =
                        Target { host: Some(host.clone()), cluster: Some(cluster.clone()), ..target.clone() };
                    let new = self.view.one_target(name).is_none();
                    self.put(self.keys.target(host, name), &Document { data: target });
                    if new {
                        self.judged_by(self.keys.cordon(host));
                        let prefix = self.keys.targets_of(host);
                        let revision = self.view.revision;
                        self.guards.insert(prefix.clone(), Guard::PrefixUnchanged { prefix, revision });
                    }
                }
                None => {
                    members.remove(name);
                    if let Some(stored) = self.view.one_target(name) {
                        self.delete(stored.key.clone());
                    }
                }
            }
        }
        self.put(self.keys.members(cluster), &json!({ "members": members }));
    }

    /// Puts a policy, with what this program does not know of it.
    pub fn policy(&mut self, cluster: &ClusterName, policy: &ClusterPolicy) {
        let mut raw = self.view.raw_policies.get(cluster).cloned().unwrap_or_else(|| json!({}));
        let before = json!(self.view.policy(cluster));
        let (Value::Object(raw_fields), Value::Object(after)) = (&mut raw, json!(policy)) else { return };
        if let Value::Object(before) = before {
            before.keys().for_each(|field| drop(raw_fields.remove(field)));
        }
        raw_fields.extend(after);
        self.put(self.keys.cluster(cluster), &raw);
    }

    /// Puts a leadership record, and the route that it means.
    pub fn leadership(&mut self, cluster: &Cluster<'_>, record: &Leadership) {
        self.put(self.keys.leadership(cluster.name), record);
        self.route(cluster, record);
    }

    /// Puts the route of a cluster, if it is another than before.
    pub fn route(&mut self, cluster: &Cluster<'_>, record: &Leadership) {
        let route = route(cluster, record);
        if self.view.routes.get(cluster.name) != Some(&route) {
            self.put(self.keys.route(cluster.name), &route);
        }
    }

    /// Writes every member's role as leadership has it: the master follows nobody, and whoever followed a member that
    /// led follows it. Members that follow another minion are left as they are.
    pub fn roles(&mut self, cluster: &Cluster<'_>, record: &Leadership) {
        let changed = roles(cluster, record);
        if !changed.is_empty() {
            self.targets(cluster.name, &changed);
        }
    }

    /// All together.
    pub fn proposal(self) -> Proposal {
        Proposal {
            writes: self.writes.into_values().collect(),
            guards: self.guards.into_values().collect(),
            report: Vec::new(),
        }
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }
}

/// Where clients find the members.
pub fn route(cluster: &Cluster<'_>, record: &Leadership) -> Route {
    let to = |name: &InstanceName| {
        let member = cluster.members.get(name)?;
        Some(RouteTo { name: name.clone(), host: member.address?.to_owned(), port: member.target.port })
    };
    let replicas = cluster.members.values().filter(|member| {
        let serves = member.status.is_some_and(|status| status.phase == Phase::Running);
        record.master.as_ref() != Some(member.name) && !member.target.disabled && serves
    });
    Route {
        term: record.term,
        master: record.master.as_ref().and_then(to),
        replicas: replicas.filter_map(|member| to(member.name)).collect(),
        schemas: None,
        moved: Vec::new(),
    }
}

/// Targets whose roles are not what leadership says, as they are to be.
pub fn roles(
    cluster: &Cluster<'_>,
    record: &Leadership,
) -> BTreeMap<InstanceName, Option<(HostName, Target)>> {
    let Some(master) = record.master.as_ref().and_then(|name| cluster.members.get(name)) else {
        return BTreeMap::new();
    };
    let led = |name: &InstanceName| record.lineage.iter().any(|entry| entry.name == *name);
    let at = |source: Option<(&HostName, u16)>| {
        let (host, port) = source?;
        cluster.members.values().find(|member| member.host == host && member.target.port == port)
    };
    let mut changed = BTreeMap::new();
    for member in cluster.members.values() {
        let mut target = member.target.clone();
        if member.name == master.name {
            (target.role, target.master_host, target.master_port) = (Role::Master, None, None);
        } else {
            let source = at(member.target.source());
            // A `master` that follows another cluster is for a split.
            let elsewhere = member.target.source().is_some() && source.is_none();
            let behind_a_minion = source.is_some_and(|source| {
                source.name != master.name && source.name != member.name && !led(source.name)
            });
            if behind_a_minion || (elsewhere && member.target.role == Role::Master) {
                continue;
            }
            target.role = Role::Minion;
            (target.master_host, target.master_port) = (Some(master.host.clone()), Some(master.target.port));
        }
        if target != *member.target {
            changed.insert(member.name.clone(), Some((member.host.clone(), target)));
        }
    }
    changed
}
