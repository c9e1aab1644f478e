//! What is to be written for targets that are wished for, given what etcd holds. Pure.

use std::collections::{BTreeMap, BTreeSet};

use schemadock_schema::keys::Keys;
use schemadock_schema::proposal::{Guard, Proposal, Write};
use schemadock_schema::refusal::Refusal;
use schemadock_schema::target::{Document, Target};
use schemadock_schema::validate::{self, Picture, Placed};
use schemadock_schema::{ClusterName, HostName, InstanceName};
use serde_json::{Value, json};

use super::Failure;
use super::seen::{Seen, StoredTarget};

mod roles;

/// A document of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Given {
    /// The file.
    pub file: String,
    /// The instance.
    pub name: InstanceName,
    /// What it is to be.
    pub target: Target,
}

/// What somebody wishes of the targets.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    /// Documents to add or to change.
    pub given: Vec<Given>,
    /// Instances to delete, by name.
    pub delete: BTreeSet<InstanceName>,
    /// Whether to delete what `given` leaves out, of the clusters that it names.
    pub prune: bool,
    /// The revisions that documents must still have where they are changed.
    pub expected: BTreeMap<InstanceName, i64>,
    /// Whether a master that the files name is to lead, where leadership has another.
    pub move_master: bool,
}

/// One change.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The instance.
    pub name: InstanceName,
    /// Its host.
    pub host: HostName,
    /// What etcd holds, where it can be read.
    pub before: Option<Target>,
    /// What it is to hold; none for a deletion.
    pub after: Option<Target>,
    /// The key's revision, where it exists.
    pub mod_revision: Option<i64>,
}

/// What is to be written, cluster by cluster.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TargetPlan {
    /// The changes of each cluster; clusters without any are left out.
    pub changes: BTreeMap<ClusterName, Vec<Change>>,
    /// The transaction of each of these clusters.
    pub proposals: BTreeMap<ClusterName, Proposal>,
    /// The members that are to lead by a switchover, once all else is written.
    pub moves: BTreeMap<ClusterName, InstanceName>,
    /// What was decided for the user.
    pub notes: Vec<String>,
    /// What the user should know.
    pub warnings: Vec<String>,
    /// Operations that hold clusters which would change.
    pub locked: Vec<Refusal>,
}

impl TargetPlan {
    /// Nothing is to be written.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// All changes with their clusters.
    pub fn all(&self) -> impl Iterator<Item = (&ClusterName, &Change)> {
        self.changes.iter().flat_map(|(cluster, changes)| changes.iter().map(move |change| (cluster, change)))
    }
}

/// Judges files as far as that goes without etcd.
pub fn judge_files(given: &[Given]) -> Vec<Refusal> {
    let own = given.iter().filter_map(|given| given.target.host.clone());
    let named = given.iter().filter_map(|given| given.target.master_host.clone());
    place_all(&Seen::default(), given, &own.chain(named).collect()).err().unwrap_or_default()
}

type Instances = BTreeMap<InstanceName, Placed>;

/// Places the documents and judges them among themselves.
fn place_all(seen: &Seen, given: &[Given], hosts: &BTreeSet<HostName>) -> Result<Instances, Vec<Refusal>> {
    let mut refusals = Vec::new();
    let mut instances = Instances::new();
    for Given { file, name, target } in given {
        let stored = seen.one_target(name).and_then(|one| Some((&one.host, one.cluster.as_ref()?)));
        // What contradicts etcd is judged later; here the file counts.
        let place = stored.map(|(host, cluster)| (host.clone(), cluster.clone()));
        let place = place.map_or_else(|| validate::place(file, name, target, None, hosts), Ok);
        match place {
            Ok((host, cluster)) => {
                let mut target = target.clone();
                (target.host, target.cluster) = (Some(host.clone()), Some(cluster.clone()));
                let placed = Placed { host, cluster, target, before: None, file: Some(file.clone()) };
                if let Some(first) = instances.insert(name.clone(), placed) {
                    refusals.push(refusal(
                        Some(file.clone()),
                        name.to_string(),
                        format!("a second document; the first is in {}", first.file.unwrap_or_default()),
                        "one document for each instance",
                        None,
                    ));
                }
            }
            Err(found) => refusals.extend(found),
        }
    }
    let picture = Picture { instances, ..Picture::default() };
    refusals.extend(validate::check_files(&picture));
    if refusals.is_empty() { Ok(picture.instances) } else { Err(refusals) }
}

fn refusal(
    file: Option<String>,
    path: String,
    found: impl Into<String>,
    expected: impl Into<String>,
    hint: Option<String>,
) -> Refusal {
    Refusal { file, path: Some(path), found: found.into(), expected: expected.into(), hint }
}

/// What is to be written.
///
/// # Errors
/// [`Failure::Files`] with what the files alone show to be wrong, else [`Failure::Refused`] with what etcd holds
/// against it.
pub fn plan(keys: &Keys, seen: &Seen, wish: &Wish) -> Result<TargetPlan, Failure> {
    let hosts: BTreeSet<HostName> = seen.hosts.keys().cloned().collect();
    let given = place_all(seen, &wish.given, &hosts).map_err(Failure::Files)?;
    let mut refusals = Vec::new();
    for Given { file, name, target } in &wish.given {
        refusals.extend(contradictions(seen, file, name, target, &hosts));
    }

    let named: BTreeSet<ClusterName> = given.values().map(|placed| placed.cluster.clone()).collect();
    let mut picture = Picture {
        hosts: seen.hosts.clone(),
        policies: seen.policies.iter().map(|(name, policy)| (name.clone(), policy.value.clone())).collect(),
        leaderships: seen
            .leaderships
            .iter()
            .map(|(name, record)| (name.clone(), record.value.clone()))
            .collect(),
        ..Picture::default()
    };
    let mut gone: Vec<(&InstanceName, &StoredTarget)> = Vec::new();
    for (name, stored) in seen.all_targets() {
        let pruned = wish.prune
            && !given.contains_key(name)
            && stored.cluster.as_ref().is_some_and(|cluster| named.contains(cluster));
        let delete = pruned || wish.delete.contains(name);
        if delete {
            gone.push((name, stored));
        }
        let (Ok(target), Some(cluster)) = (&stored.target, &stored.cluster) else { continue };
        let placed = Placed {
            host: stored.host.clone(),
            cluster: cluster.clone(),
            target: target.clone(),
            before: Some(target.clone()),
            file: None,
        };
        let into = if delete { &mut picture.deleted } else { &mut picture.instances };
        into.insert(name.clone(), placed);
    }
    for (name, mut placed) in given {
        placed.before = picture.instances.remove(&name).and_then(|stored| stored.before);
        picture.instances.insert(name, placed);
    }

    let mut planned = TargetPlan::default();
    for cluster in &named {
        refusals.extend(roles::write(seen, cluster, wish.move_master, &mut picture.instances, &mut planned));
    }
    refusals.extend(overtaken(seen, wish, &picture.instances));
    let findings = validate::check(&picture);
    refusals.extend(findings.refusals);
    planned.warnings.extend(findings.warnings);
    if !refusals.is_empty() {
        return Err(Failure::Refused(refusals));
    }
    write(keys, seen, &picture, &gone, &mut planned)?;
    Ok(planned)
}

/// What a file says of host or cluster against what is stored.
fn contradictions(
    seen: &Seen,
    file: &str,
    name: &InstanceName,
    target: &Target,
    hosts: &BTreeSet<HostName>,
) -> Vec<Refusal> {
    let Some(all) = seen.targets.get(name) else { return Vec::new() };
    match all.as_slice() {
        [StoredTarget { host, cluster: Some(cluster), .. }] => {
            validate::place(file, name, target, Some((host, cluster)), hosts).err().unwrap_or_default()
        }
        [_] => Vec::new(),
        _ => {
            let keys: Vec<&str> = all.iter().map(|one| one.key.as_str()).collect();
            vec![refusal(
                Some(file.to_owned()),
                name.to_string(),
                format!("{} targets of this name in etcd", all.len()),
                "one",
                Some(format!("take all but one away by hand: {}", keys.join(", "))),
            )]
        }
    }
}

/// Documents that somebody else has changed since they were read.
fn overtaken(seen: &Seen, wish: &Wish, instances: &Instances) -> Vec<Refusal> {
    let lost = |name: &InstanceName, read: i64| {
        let now = seen.one_target(name).map(|stored| stored.mod_revision);
        now != Some(read) && instances.get(name).is_some_and(Placed::changed)
    };
    let lost = wish.expected.iter().filter(|(name, read)| lost(name, **read));
    lost.map(|(name, _)| {
        let found = "that somebody else has changed it meanwhile";
        refusal(
            None,
            name.to_string(),
            found,
            "the document as it was read",
            Some("edit it again".to_owned()),
        )
    })
    .collect()
}

fn write(
    keys: &Keys,
    seen: &Seen,
    picture: &Picture,
    gone: &[(&InstanceName, &StoredTarget)],
    planned: &mut TargetPlan,
) -> Result<(), Failure> {
    for (name, placed) in
        picture.instances.iter().filter(|(_, placed)| placed.file.is_some() && placed.changed())
    {
        planned.changes.entry(placed.cluster.clone()).or_default().push(Change {
            name: name.clone(),
            host: placed.host.clone(),
            before: placed.before.clone(),
            after: Some(placed.target.clone()),
            mod_revision: seen.one_target(name).map(|stored| stored.mod_revision),
        });
    }
    for (name, stored) in gone {
        let Some(cluster) = &stored.cluster else {
            let hint = "its name says no cluster either; remove the key by hand".to_owned();
            let found = "a target that cannot be read";
            return Err(Failure::Refused(vec![refusal(
                None,
                stored.key.clone(),
                found,
                "a target",
                Some(hint),
            )]));
        };
        planned.changes.entry(cluster.clone()).or_default().push(Change {
            name: (*name).clone(),
            host: stored.host.clone(),
            before: stored.target.clone().ok(),
            after: None,
            mod_revision: Some(stored.mod_revision),
        });
    }
    for (cluster, changes) in &planned.changes {
        if let Some(operation) = seen.locks.get(cluster).filter(|_| !changes.iter().all(only_maintenance)) {
            planned.locked.push(refusal(
                None,
                cluster.to_string(),
                format!("operation {operation}, which holds the cluster"),
                "no operation under way",
                Some(format!("`operation wait {operation}` or `operation cancel {operation}`")),
            ));
        }
        planned.proposals.insert(cluster.clone(), proposal(keys, seen, cluster, changes));
    }
    Ok(())
}

/// Maintenance is switched also while an operation holds the cluster.
fn only_maintenance(change: &Change) -> bool {
    match (&change.before, &change.after) {
        (Some(before), Some(after)) => Target { maintenance: after.maintenance, ..before.clone() } == *after,
        _ => false,
    }
}

/// One cluster's writes with everything that they were judged by.
fn proposal(keys: &Keys, seen: &Seen, cluster: &ClusterName, changes: &[Change]) -> Proposal {
    let mut members: BTreeSet<InstanceName> = BTreeSet::new();
    let mut hosts: BTreeSet<HostName> = BTreeSet::new();
    for (name, stored) in seen.all_targets().filter(|(_, stored)| stored.cluster.as_ref() == Some(cluster)) {
        members.insert(name.clone());
        hosts.insert(stored.host.clone());
    }
    let mut made = Proposal::default();
    for change in changes {
        let key = keys.target(&change.host, &change.name);
        hosts.insert(change.host.clone());
        made.guards.push(Guard::unchanged(key.clone(), change.mod_revision));
        match &change.after {
            Some(target) => {
                members.insert(change.name.clone());
                made.writes.push(Write::document(key, &Document { data: target.clone() }));
            }
            None => {
                members.remove(&change.name);
                made.writes.push(Write::Delete { key });
            }
        }
    }
    // Always written: two people who change one cluster at once see each other here.
    made.writes.push(Write::document(keys.members(cluster), &json!({ "members": members })));
    for judged in [keys.members(cluster), keys.leadership(cluster), keys.cluster(cluster)] {
        let read = seen.revisions.get(&judged).copied();
        made.guards.push(Guard::unchanged(judged, read));
    }
    if !changes.iter().all(only_maintenance) {
        made.guards.push(Guard::Absent { key: keys.lock(cluster) });
    }
    for host in hosts {
        made.guards.push(Guard::PrefixUnchanged { prefix: keys.targets_of(&host), revision: seen.revision });
    }
    if let Some(create_revision) = seen.fleet_created {
        made.guards.push(Guard::Created { key: keys.fleet(), create_revision });
    }
    made
}

/// The fields that differ: path, before, after; `null` for a field that is left out.
pub fn fields(before: Option<&Target>, after: Option<&Target>) -> Vec<(String, Value, Value)> {
    let flat = |target: Option<&Target>| -> BTreeMap<String, Value> {
        let Some(Value::Object(map)) = target.map(|target| json!(target)) else { return BTreeMap::new() };
        map.into_iter()
            .flat_map(|(field, value)| match value {
                Value::Object(inner) if field == "mysql" => {
                    inner.into_iter().map(|(name, value)| (format!("mysql.{name}"), value)).collect()
                }
                value => vec![(field, value)],
            })
            .collect()
    };
    let (before, after) = (flat(before), flat(after));
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    names
        .into_iter()
        .filter(|name| before.get(*name) != after.get(*name))
        .map(|name| {
            let value = |side: &BTreeMap<String, Value>| side.get(name).cloned().unwrap_or_default();
            (name.clone(), value(&before), value(&after))
        })
        .collect()
}

#[cfg(test)]
#[path = "target_plan_tests.rs"]
mod tests;
