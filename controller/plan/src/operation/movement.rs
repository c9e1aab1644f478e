//! `cluster move`: a member goes to another host. A new one is added there and catches up, leads if the old one led, and
//! the old one is taken away.

use std::collections::BTreeMap;

use schemadock_schema::operation::Memory;
use schemadock_schema::size::Size;
use schemadock_schema::target::Target;
use schemadock_schema::{HostName, InstanceName};

use super::step::{Goal, follower, gone, handing_over, led_by, member_name, seen, settled, targets, well};
use super::{Scene, Step};
use crate::cluster::{Cluster, Member};
use crate::placement::{Ask, NoRoom, Place, Rooms, Strategy, place};
use crate::view::FleetView;

pub(super) fn next<'a>(scene: &Scene<'a>, instance: &InstanceName, to: &HostName) -> Step<'a> {
    match done(scene, instance, to) {
        Ok(outcome) => Step::Done(outcome),
        Err(Step::Undone(why)) => Step::Failed(format!("{why}; the member added on {to} stays")),
        Err(step) => step,
    }
}

fn done<'a>(scene: &Scene<'a>, instance: &InstanceName, to: &HostName) -> Goal<'a, String> {
    let cluster = scene.own_cluster()?;
    // Once the old one is gone, the new one is needed.
    if scene.operation.cancel && cluster.members.contains_key(instance) && !handing_over(scene, &cluster) {
        return Err(cancelled(scene, &cluster));
    }
    match cluster.members.get(instance) {
        Some(member) => moved(scene, &cluster, member, Some(to), &member.target.size.clone())?,
        None => gone(scene, &cluster, instance)?,
    }
    settled(&cluster)?;
    let new = scene.operation.memory.added.last().map_or("it", InstanceName::as_str);
    Ok(format!("{new} has taken the place of {instance}"))
}

/// The member that was added goes again, unless it leads already.
fn cancelled<'a>(scene: &Scene<'a>, cluster: &Cluster<'a>) -> Step<'a> {
    for name in &scene.operation.memory.added {
        if cluster.leads(name) {
            return Step::Cancelled(format!(
                "{name}, which was added, leads; the member it was to replace stays"
            ));
        }
        if let Err(step) = gone(scene, cluster, name) {
            return step;
        }
    }
    Step::Cancelled("the member that was added is gone again".to_owned())
}

/// Where a member would go: to the host that is named, or to the best.
pub(super) fn placed(
    view: &FleetView,
    cluster: &Cluster<'_>,
    to: Option<&HostName>,
    size: &Size,
) -> Result<Place, NoRoom> {
    let ask =
        Ask { hosts: to.cloned().into_iter().collect(), ..Ask::new(cluster.name.clone(), size.clone(), 1) };
    let mut places = place(&mut Rooms::of(view), &ask, Strategy::Spread)?;
    Ok(places.remove(0))
}

/// Whether a member's own host has room for it at another size.
pub(super) fn room_for(view: &FleetView, member: &Member<'_>, size: &Size) -> bool {
    let Some(host) = view.hosts.get(member.host) else { return true };
    let others =
        view.all_targets().filter(|(name, stored)| stored.host == *member.host && *name != member.name);
    let taken: u64 = others
        .filter_map(|(_, stored)| stored.target.as_ref().ok())
        .map(|target| target.size.limits(&host.capacity).memory)
        .sum();
    taken + size.limits(&host.capacity).memory <= host.capacity.memory
}

/// The place of `old` is taken by a new member, whose name the memory keeps under `added` while `old` is `current`.
pub(super) fn moved<'a>(
    scene: &Scene<'a>,
    cluster: &Cluster<'a>,
    old: &Member<'a>,
    to: Option<&HostName>,
    size: &Size,
) -> Goal<'a> {
    let memory = &scene.operation.memory;
    let new = memory.added.last().filter(|_| memory.current.as_ref() == Some(old.name));
    let Some(new) = new else {
        return Err(added(scene, cluster, old, to, size));
    };
    seen(scene, cluster)?;
    let Some(member) = cluster.members.get(new) else {
        return Err(Step::Wait(format!("the target of {new}")));
    };
    well(cluster, member)?;
    if cluster.leads(old.name) {
        led_by(scene, cluster, new, false)?;
        return Err(Step::Wait(format!("{} to be a minion", old.name)));
    }
    // With the new one among the voters, the old one is not missed.
    let lossless = cluster.meant.is_some_and(|record| record.acks > 0);
    if lossless && !cluster.votes(new) && !cluster.leads(new) {
        return Err(Step::Wait(format!("{new} to vote")));
    }
    gone(scene, cluster, old.name)
}

fn added<'a>(
    scene: &Scene<'a>,
    cluster: &Cluster<'a>,
    old: &Member<'a>,
    to: Option<&HostName>,
    size: &Size,
) -> Step<'a> {
    let place = match placed(scene.view, cluster, to, size) {
        Ok(place) => place,
        Err(no_room) => return Step::Failed(format!("there is no room for {}: {no_room}", old.name)),
    };
    let like = Target { size: size.clone(), ..old.target.clone() };
    let name = member_name(scene, cluster.name, &place.host, &[]);
    let (Some(name), Some(target)) = (name, follower(cluster, place.port, &like)) else {
        return Step::Wait("a master to follow".to_owned());
    };
    let mut memory: Memory = scene.memory();
    memory.added.push(name.clone());
    memory.current = Some(old.name.clone());
    memory.term = None;
    let what = format!("{name} is added, to take the place of {}", old.name);
    let changed = BTreeMap::from([(name, Some((place.host, target)))]);
    targets(scene, cluster, &changed, memory, what).after(1)
}
