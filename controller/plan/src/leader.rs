//! What follows from who leads: the end of a handover is folded in, documents and routes say what leadership says.

use schemadock_schema::keys::Keys;
use schemadock_schema::operation::{Operation, Request};
use schemadock_schema::target::Role;
use schemadock_schema::{InstanceName, Timestamp};

use crate::changes::{Changes, roles, route};
use crate::cluster::Cluster;
use crate::view::FleetView;

/// Who asks, where roles were swapped in documents.
pub const DOCUMENTS: &str = "documents";

/// A handover that was decided: the record says it, with roles and route, in one transaction.
pub fn folded<'a>(
    view: &'a FleetView,
    keys: &'a Keys,
    cluster: &Cluster<'_>,
) -> Option<(Changes<'a>, String)> {
    let stored = cluster.record.filter(|_| !cluster.steady())?;
    let term = stored.value.term;
    view.handovers.get(&(cluster.name.clone(), term))?;
    let meant = cluster.meant?;
    let mut changes = Changes::new(view, keys);
    changes.judged_by(keys.handover(cluster.name, term));
    changes.leadership(cluster, meant);
    changes.roles(cluster, meant);
    let leader = meant.master.as_ref().map_or("nobody", InstanceName::as_str);
    let what = match stored.value.master == meant.master {
        true => format!("the handover of term {term} was taken back: {leader} leads"),
        false => format!("{leader} leads in term {term}"),
    };
    Some((changes, what))
}

/// Ends of handovers whose terms are over are not needed any more. There is time for that once the new master is open.
pub fn tidied<'a>(view: &'a FleetView, keys: &'a Keys, cluster: &Cluster<'_>) -> Option<Changes<'a>> {
    let record = cluster.record.filter(|_| cluster.steady())?;
    let status = cluster.master().and_then(|master| master.status);
    if status.is_none_or(|status| status.term != Some(record.value.term) || status.writable != Some(true)) {
        return None;
    }
    let from = (cluster.name.clone(), 0);
    let until = (cluster.name.clone(), record.value.term);
    let mut changes = Changes::new(view, keys);
    for ((name, term), _) in view.handovers.range(from..until) {
        changes.delete(keys.handover(name, *term));
    }
    (!changes.is_empty()).then_some(changes)
}

/// Documents that still name a former master, and a route that is not what it is to be.
pub fn followed<'a>(view: &'a FleetView, keys: &'a Keys, cluster: &Cluster<'_>) -> Option<Changes<'a>> {
    let record = cluster.meant.filter(|_| cluster.steady() && cluster.size > 0)?;
    if cluster.unreadable.is_some() {
        return None;
    }
    let mut changes = Changes::new(view, keys);
    if view.routes.get(cluster.name) != Some(&route(cluster, record)) {
        changes.judged_by(keys.leadership(cluster.name));
        changes.route(cluster, record);
    }
    let unwritten = roles(cluster, record);
    // Roles swapped by hand are a wish, until it was carried out or refused.
    let wished = swapped(cluster).is_some() && !answered(view, cluster);
    if !unwritten.is_empty() && !wished && cluster.operation.is_none() {
        changes.judged_by(keys.leadership(cluster.name));
        changes.targets(cluster.name, &unwritten);
    }
    (!changes.is_empty()).then_some(changes)
}

/// The member that people have made the master by swapping the roles in two documents.
pub fn swapped(cluster: &Cluster<'_>) -> Option<InstanceName> {
    let master = cluster.master().filter(|_| cluster.steady())?;
    if master.target.role != Role::Minion {
        return None;
    }
    let mut named = cluster.named_masters();
    let wanted = named.next()?;
    named.next().is_none().then(|| wanted.name.clone())
}

/// What the documents of a cluster were when they asked: the newest revision of any.
fn asking(cluster: &Cluster<'_>) -> i64 {
    cluster.members.values().map(|member| member.target_revision).max().unwrap_or(0)
}

fn asked<'a>(view: &'a FleetView, cluster: &Cluster<'_>) -> Option<&'a Operation> {
    let tail = format!("-{DOCUMENTS}-{}", asking(cluster));
    let own = |operation: &&Operation| {
        operation.clusters.first() == Some(cluster.name) && operation.id.ends_with(&tail)
    };
    view.operations.values().map(|stored| &stored.value).find(own)
}

/// Whether what the documents ask for was carried out or refused already.
fn answered(view: &FleetView, cluster: &Cluster<'_>) -> bool {
    asked(view, cluster).is_some_and(|operation| operation.state.is_over())
}

/// The operation that roles swapped by hand ask for, once.
pub fn asked_by_documents(view: &FleetView, cluster: &Cluster<'_>, now: Timestamp) -> Option<Operation> {
    let to = swapped(cluster)?;
    if cluster.operation.is_some() || cluster.policy.paused || asked(view, cluster).is_some() {
        return None;
    }
    let id = format!("{:013}-{DOCUMENTS}-{}", now.as_millisecond(), asking(cluster));
    let request = Request::Switchover { to: Some(to) };
    Some(Operation::queued(id, request, vec![cluster.name.clone()], DOCUMENTS, now))
}
