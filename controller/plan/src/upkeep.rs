//! What nobody asks for: a member lost with its host is replaced, a cluster below its `replicas` is refilled, operations
//! that are long over go away.

use std::collections::BTreeSet;

use schemadock_schema::keys::Keys;
use schemadock_schema::operation::{Operation, Request};
use schemadock_schema::{ClusterName, HostName, InstanceName, Timestamp};

use crate::cluster::Cluster;
use crate::operation::preflight;
use crate::placement::{Ask, Rooms, Strategy, place};
use crate::since::{Bounds, Fact, Since};
use crate::view::FleetView;

/// How many clusters are mended so at once, over the whole fleet.
const AT_ONCE: usize = 3;
/// Who asks, in operations that this module makes.
pub const BY: &str = "controller";
/// How long operations that are over can be looked at, in milliseconds.
const KEPT: i64 = 7 * 24 * 3_600_000;

/// Operations that are to be forgotten.
pub fn forgotten(view: &FleetView, now: Timestamp) -> impl Iterator<Item = &String> {
    view.operations.iter().filter_map(move |(id, stored)| {
        let age = now.as_millisecond() - stored.value.updated_at.as_millisecond();
        (stored.value.state.is_over() && age > KEPT).then_some(id)
    })
}

/// Locks of operations that are over, or gone.
pub fn stale_locks(view: &FleetView) -> impl Iterator<Item = (&ClusterName, &String)> {
    let over = |id: &String| view.operations.get(id).is_none_or(|stored| stored.value.state.is_over());
    view.locks.iter().filter(move |(_, id)| over(id))
}

/// Whether so many hosts are gone together that it is rather this controller that is cut off from them: more than one,
/// and more than a third of the registered ones that have instances. A host whose members were all replaced long ago
/// counts no more.
pub fn cut_off(view: &FleetView) -> bool {
    let used = view.all_targets().map(|(_, stored)| &stored.host);
    let used: BTreeSet<&HostName> = used.filter(|host| view.hosts.contains_key(*host)).collect();
    let gone = used.iter().filter(|host| !view.alive.contains(**host)).count();
    gone > 1 && gone * 3 > used.len()
}

/// Whether a cluster's plan may change with time alone, or with what happens to others: it is looked at again without
/// news of its own.
pub fn is_restless(view: &FleetView, cluster: &Cluster<'_>, since: &Since) -> bool {
    cluster.operation.is_some()
        || lacks(cluster).is_some()
        || !cluster.steady()
        || cluster.members.values().any(|member| !member.alive)
        || since.knows(cluster.name)
        || is_asked_for(view, cluster)
}

/// How many replicas are wished, where there are fewer.
fn lacks(cluster: &Cluster<'_>) -> Option<u32> {
    cluster.policy.replicas.filter(|replicas| (cluster.minions().count() as u32) < *replicas)
}

/// Whether an operation on it is under way, or waits.
fn is_asked_for(view: &FleetView, cluster: &Cluster<'_>) -> bool {
    let of = |operation: &Operation| !operation.state.is_over() && operation.clusters.contains(cluster.name);
    view.operations.values().any(|stored| of(&stored.value))
}

/// The operation that mends this cluster, if there is one to make.
pub fn mended(
    view: &FleetView,
    keys: &Keys,
    cluster: &Cluster<'_>,
    since: &Since,
    now: Timestamp,
    bounds: &Bounds,
) -> Option<Operation> {
    let master = cluster.master().filter(|master| master.alive)?;
    let idle = cluster.steady() && cluster.operation.is_none() && !cluster.policy.paused;
    if !idle
        || cluster.policy.replicas.is_none()
        || is_asked_for(view, cluster)
        || master.target.disabled
        || cut_off(view)
        || under_way(view) >= AT_ONCE
    {
        return None;
    }
    // What was tried is not tried again at once: a host with room does not appear by itself.
    let tried = view.operations.values().any(|stored| {
        let operation = &stored.value;
        let age = now.as_millisecond() - operation.updated_at.as_millisecond();
        operation.requested_by == BY && operation.clusters.contains(cluster.name) && age < bounds.member
    });
    let request = match lost(view, cluster, since, now, bounds) {
        _ if tried => return None,
        Some((lost, to)) => Request::Move { instance: lost, to },
        None => Request::Scale { replicas: lacks(cluster)?, hosts: Vec::new() },
    };
    let id = format!("{:013}-{BY}-{}", now.as_millisecond(), view.revision);
    let asked = Operation::queued(id, request, vec![cluster.name.clone()], BY, now);
    preflight(view, keys, &asked.request, &asked.clusters).is_empty().then_some(asked)
}

fn under_way(view: &FleetView) -> usize {
    let own = |operation: &Operation| operation.requested_by == BY && !operation.state.is_over();
    view.operations.values().filter(|stored| own(&stored.value)).count()
}

/// A minion whose host has been gone for too long, and where another one would go.
fn lost(
    view: &FleetView,
    cluster: &Cluster<'_>,
    since: &Since,
    now: Timestamp,
    bounds: &Bounds,
) -> Option<(InstanceName, HostName)> {
    let after =
        cluster.policy.replace_after.map_or(bounds.replace_after, |seconds| seconds as i64 * bounds.scale);
    let lost = cluster.minions().find(|member| {
        !member.target.disabled && since.longer(&Fact::HostGone(member.host.clone()), now, after)
    })?;
    let ask = Ask {
        without: [lost.host.clone()].into(),
        ..Ask::new(cluster.name.clone(), lost.target.size.clone(), 1)
    };
    let places = place(&mut Rooms::of(view), &ask, Strategy::Spread).ok()?;
    Some((lost.name.clone(), places.into_iter().next()?.host))
}
