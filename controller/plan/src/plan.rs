//! All that a controller would write now.

use std::collections::BTreeSet;

use schemadock_schema::keys::Keys;
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

/// What a look at a fleet comes to.
#[derive(Debug, Clone, Default)]
pub struct Planned {
    /// Everything to be written now: one transaction for each cluster at most, and those of operations that touch none
    /// yet.
    pub doings: Vec<Doing>,
    /// Which of the clusters that were looked at are to be looked at again, also without news of theirs.
    pub restless: BTreeSet<ClusterName>,
}

/// Looks at these clusters, and at all operations that are not over.
pub fn plan(
    view: &FleetView,
    keys: &Keys,
    clusters: &BTreeSet<ClusterName>,
    since: &Since,
    now: Timestamp,
    bounds: &Bounds,
) -> Planned {
    let mut doings = Vec::new();
    let mut restless = BTreeSet::new();
    let mut busy = BTreeSet::new();
    let there =
        |name: &ClusterName| view.leaderships.contains_key(name) || view.targets_of(name).next().is_some();
    for name in clusters.iter().filter(|name| there(name)) {
        let (doing, again) = of_cluster(view, keys, name, since, now, bounds);
        if again || doing.is_some() {
            restless.insert(name.clone());
        }
        if let Some(doing) = doing {
            busy.insert(name);
            doings.push(doing);
        }
    }
    // A cluster's own needs come before what is asked of it.
    for stored in view.operations.values().filter(|stored| !stored.value.state.is_over()) {
        let operation = &stored.value;
        if operation::touched(view, operation).any(|name| busy.contains(name)) {
            continue;
        }
        let Some(advanced) = operation::advance(view, keys, operation, since, now, bounds) else { continue };
        doings.push(Doing {
            cluster: operation::touched(view, operation).next().cloned(),
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
    Planned { doings, restless }
}

/// All clusters that there are: those with targets, and those that somebody led.
pub fn all_clusters(view: &FleetView) -> BTreeSet<ClusterName> {
    let mut names = view.clusters();
    names.extend(view.leaderships.keys().cloned());
    names
}

/// What is to be written of a cluster, and whether it is to be looked at again without news.
fn of_cluster(
    view: &FleetView,
    keys: &Keys,
    name: &ClusterName,
    since: &Since,
    now: Timestamp,
    bounds: &Bounds,
) -> (Option<Doing>, bool) {
    let cluster = Cluster::of(view, name);
    let change = durability::change(&cluster, since, now, bounds);
    let restless = matches!(change, Change::Wait(_)) || upkeep::is_restless(view, &cluster, since);
    (doing(view, keys, &cluster, change, since, now, bounds), restless)
}

fn doing(
    view: &FleetView,
    keys: &Keys,
    cluster: &Cluster<'_>,
    change: Change,
    since: &Since,
    now: Timestamp,
    bounds: &Bounds,
) -> Option<Doing> {
    let name = cluster.name;
    let doing = |kind, what: String, told, changes: Changes<'_>| Doing {
        cluster: Some(name.clone()),
        kind,
        what,
        by: upkeep::BY.to_owned(),
        told,
        proposal: changes.proposal(),
    };
    if let Some((changes, what)) = leader::folded(view, keys, cluster) {
        return Some(doing("leadership", what, true, changes));
    }
    match change {
        Change::Record(record, why) => {
            let mut changes = Changes::new(view, keys);
            changes.leadership(cluster, &record);
            changes.judged_by(keys.cluster(name));
            changes.judged_by(keys.members(name));
            return Some(doing("voters", why, true, changes));
        }
        Change::Wait(_) | Change::None => {}
    }
    if let Some(changes) = leader::followed(view, keys, cluster) {
        let what = "documents and route say what leadership says".to_owned();
        return Some(doing("leadership", what, false, changes));
    }
    if let Some(changes) = leader::tidied(view, keys, cluster) {
        return Some(doing("leadership", "handovers long over are forgotten".to_owned(), false, changes));
    }
    let asked = leader::asked_by_documents(view, cluster, now)
        .or_else(|| upkeep::mended(view, keys, cluster, since, now, bounds))?;
    let mut changes = Changes::new(view, keys);
    changes.put(keys.operation(&asked.id), &asked);
    // Two controllers, one after the other, make one of it.
    changes.judged_by(keys.lock(name));
    changes.judged_by(keys.members(name));
    changes.judged_by(keys.leadership(name));
    let what = format!("{} is asked for by {}", asked.request.kind(), asked.requested_by);
    Some(doing("operation", what, true, changes))
}
