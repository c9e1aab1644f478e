//! What nobody asks for: a member lost with its host is replaced, a cluster below its `replicas` is refilled, operations
//! that are long over go away.

use schemadock_schema::keys::Keys;
use schemadock_schema::operation::{Operation, OperationState, Request};
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
/// and more than a third of those that are registered.
pub fn cut_off(view: &FleetView) -> bool {
    let gone = view.hosts.keys().filter(|host| !view.alive.contains(*host)).count();
    gone > 1 && gone * 3 > view.hosts.len()
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
    let queued = view
        .operations
        .values()
        .any(|stored| !stored.value.state.is_over() && stored.value.clusters.contains(cluster.name));
    let replicas = cluster.policy.replicas?;
    if !idle || queued || master.target.disabled || cut_off(view) || under_way(view) >= AT_ONCE {
        return None;
    }
    // What failed is not tried again at once: a host with room does not appear by itself.
    let failed = view.operations.values().any(|stored| {
        let operation = &stored.value;
        let age = now.as_millisecond() - operation.updated_at.as_millisecond();
        operation.requested_by == BY && operation.clusters.contains(cluster.name) && age < bounds.member
    });
    let wanting = (cluster.minions().count() as u32) < replicas;
    let request = match lost(view, cluster, since, now, bounds) {
        _ if failed => return None,
        Some((lost, to)) => Request::Move { instance: lost, to },
        None if wanting => Request::Scale { replicas, hosts: Vec::new() },
        None => return None,
    };
    let asked = asked(view, cluster, request, now);
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

fn asked(view: &FleetView, cluster: &Cluster<'_>, request: Request, now: Timestamp) -> Operation {
    Operation {
        id: format!("{:013}-controller-{}", now.as_millisecond(), view.revision),
        request,
        clusters: vec![cluster.name.clone()],
        state: OperationState::Queued,
        step: None,
        waiting_on: None,
        progress: Default::default(),
        plan: Vec::new(),
        requested_by: BY.to_owned(),
        requested_at: now,
        updated_at: now,
        outcome: None,
        cancel: false,
        memory: Default::default(),
    }
}
