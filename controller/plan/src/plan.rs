//! All that a controller would write now.

use schemadock_schema::keys::Keys;
use schemadock_schema::operation::{Operation, Request};
use schemadock_schema::proposal::Proposal;
use schemadock_schema::{ClusterName, Timestamp};

use crate::changes::Changes;
use crate::cluster::Cluster;
use crate::durability::{self, Change};
use crate::since::{Bounds, Since};
use crate::view::FleetView;
use crate::{leader, operation, upkeep};

/// One transaction, and what people read of it.
#[derive(Debug, Clone)]
pub struct Doing {
    /// The cluster.
    pub cluster: Option<ClusterName>,
    /// One word for scripts: an event's kind.
    pub kind: &'static str,
    /// One sentence.
    pub what: String,
    /// Who asked for it.
    pub by: String,
    /// Whether it is worth an event.
    pub told: bool,
    /// The transaction, the guards of the office aside.
    pub proposal: Proposal,
}

/// Everything to be written now: one transaction for each cluster at most, and those of operations that touch none yet.
pub fn plan(view: &FleetView, keys: &Keys, since: &Since, now: Timestamp, bounds: &Bounds) -> Vec<Doing> {
    let mut doings = Vec::new();
    let mut names = view.clusters();
    names.extend(view.leaderships.keys().cloned());
    let mut busy = std::collections::BTreeSet::new();
    for name in &names {
        if let Some(doing) = of_cluster(view, keys, name, since, now, bounds) {
            busy.insert(name);
            doings.push(doing);
        }
    }
    // A cluster's own needs come before what is asked of it.
    for stored in view.operations.values().filter(|stored| !stored.value.state.is_over()) {
        let operation = &stored.value;
        if concerned(view, operation).any(|name| busy.contains(name)) {
            continue;
        }
        let Some(advanced) = operation::advance(view, keys, operation, since, now, bounds) else { continue };
        doings.push(Doing {
            cluster: concerned(view, operation).next().cloned(),
            kind: "operation",
            what: advanced.what,
            by: operation.requested_by.clone(),
            told: advanced.told,
            proposal: advanced.proposal,
        });
    }
    for (cluster, id) in upkeep::stale_locks(view) {
        let mut changes = Changes::new(view, keys);
        changes.judged_by(keys.operation(id));
        changes.delete(keys.lock(cluster));
        doings.push(Doing {
            cluster: Some(cluster.clone()),
            kind: "operation",
            what: format!("operation {id} is over: its lock is given back"),
            by: upkeep::BY.to_owned(),
            told: false,
            proposal: changes.proposal(),
        });
    }
    for id in upkeep::forgotten(view, now) {
        let mut changes = Changes::new(view, keys);
        changes.delete(keys.operation(id));
        doings.push(Doing {
            cluster: None,
            kind: "operation",
            what: format!("operation {id} is forgotten"),
            by: upkeep::BY.to_owned(),
            told: false,
            proposal: changes.proposal(),
        });
    }
    doings
}

/// The clusters that an operation touches now.
fn concerned<'a>(view: &'a FleetView, operation: &'a Operation) -> impl Iterator<Item = &'a ClusterName> {
    let held = view.locks.iter().filter(|(_, id)| **id == operation.id).map(|(name, _)| name);
    // A drain names all that it will come to.
    let drains = matches!(operation.request, Request::Drain { .. });
    operation.clusters.iter().filter(move |_| !drains).chain(held)
}

fn of_cluster(
    view: &FleetView,
    keys: &Keys,
    name: &ClusterName,
    since: &Since,
    now: Timestamp,
    bounds: &Bounds,
) -> Option<Doing> {
    let cluster = Cluster::of(view, name);
    let doing = |kind, what: String, told, changes: Changes<'_>| Doing {
        cluster: Some(name.clone()),
        kind,
        what,
        by: upkeep::BY.to_owned(),
        told,
        proposal: changes.proposal(),
    };
    if let Some((changes, what)) = leader::folded(view, keys, &cluster) {
        return Some(doing("leadership", what, true, changes));
    }
    match durability::change(&cluster, since, now, bounds) {
        Change::Record(record, why) => {
            let mut changes = Changes::new(view, keys);
            changes.leadership(&cluster, &record);
            changes.judged_by(keys.cluster(name));
            changes.judged_by(keys.members(name));
            return Some(doing("voters", why, true, changes));
        }
        Change::Wait(_) | Change::None => {}
    }
    if let Some(changes) = leader::followed(view, keys, &cluster) {
        let what = "documents and route say what leadership says".to_owned();
        return Some(doing("leadership", what, false, changes));
    }
    if let Some(changes) = leader::tidied(view, keys, &cluster) {
        return Some(doing("leadership", "handovers long over are forgotten".to_owned(), false, changes));
    }
    let asked = leader::asked_by_documents(view, &cluster, now)
        .or_else(|| upkeep::mended(view, keys, &cluster, since, now, bounds))?;
    let mut changes = Changes::new(view, keys);
    changes.put(keys.operation(&asked.id), &asked);
    // Two controllers, one after the other, make one of it.
    changes.judged_by(keys.lock(name));
    changes.judged_by(keys.members(name));
    changes.judged_by(keys.leadership(name));
    let what = format!("{} is asked for by {}", asked.request.kind(), asked.requested_by);
    Some(doing("operation", what, true, changes))
}
