//! `cluster scale`: as many minions as are asked for.

use std::collections::BTreeMap;

use schemadock_schema::target::{Promotion, Target};
use schemadock_schema::{HostName, InstanceName};

use super::step::{Goal, follower, gone, member_name, seen, settled, well};
use super::{Scene, Step};
use crate::cluster::{Cluster, Member};
use crate::placement::{Ask, NoRoom, Place, Rooms, Strategy, place};
use crate::view::FleetView;

pub(super) fn next<'a>(scene: &Scene<'a>, replicas: u32, hosts: &[HostName]) -> Step<'a> {
    match scaled(scene, replicas, hosts) {
        Ok(outcome) => Step::Done(outcome),
        Err(step) => step,
    }
}

fn scaled<'a>(scene: &Scene<'a>, replicas: u32, hosts: &[HostName]) -> Goal<'a, String> {
    let cluster = scene.own_cluster()?;
    if scene.operation.cancel {
        return Err(Step::Cancelled("what was added or taken away stays so".to_owned()));
    }
    seen(scene, &cluster)?;
    if cluster.policy.replicas != Some(replicas) {
        let mut policy = cluster.policy.clone();
        policy.replicas = Some(replicas);
        let mut changes = scene.changes();
        changes.policy(cluster.name, &policy);
        let what = format!("the policy asks for {replicas} minions");
        return Err(Step::write(changes, scene.memory(), what).after(1));
    }
    let lacking = (replicas as usize).saturating_sub(cluster.minions().count());
    if lacking > 0 {
        return Err(more(scene, &cluster, lacking, hosts));
    }
    // One that is being taken away is taken away first.
    let current = scene.operation.memory.current.clone();
    let surplus = current.clone().or_else(|| {
        (cluster.minions().count() > replicas as usize).then(|| surplus(scene.view, &cluster)).flatten()
    });
    if let Some(name) = surplus {
        if current.as_ref() != Some(&name) {
            let what = format!("{name} is to go");
            return Err(scene.remember(|memory| memory.current = Some(name.clone()), what));
        }
        gone(scene, &cluster, &name)?;
        return Err(scene.remember(|memory| memory.current = None, format!("{name} is gone")));
    }
    for member in scene.operation.memory.added.iter().filter_map(|name| cluster.members.get(name)) {
        well(&cluster, member)?;
    }
    settled(&cluster)?;
    Ok(format!("{} has {} members", cluster.name, cluster.members.len()))
}

/// Where further members would be placed.
pub(super) fn placed(
    view: &FleetView,
    cluster: &Cluster<'_>,
    count: usize,
    hosts: &[HostName],
) -> Result<Vec<Place>, NoRoom> {
    let like = cluster.master().map(|master| master.target);
    let size = like.map(|target| target.size.clone()).or(cluster.policy.size.clone()).unwrap_or_default();
    let ask = Ask { hosts: hosts.to_vec(), ..Ask::new(cluster.name.clone(), size, count) };
    place(&mut Rooms::of(view), &ask, Strategy::Spread)
}

fn more<'a>(scene: &Scene<'a>, cluster: &Cluster<'a>, count: usize, hosts: &[HostName]) -> Step<'a> {
    let places = match placed(scene.view, cluster, count, hosts) {
        Ok(places) => places,
        Err(no_room) => return Step::Failed(format!("there is no room: {no_room}")),
    };
    let Some(master) = cluster.master() else {
        return Step::Wait("a master to follow".to_owned());
    };
    let like = Target { promotion: Promotion::Neutral, ..master.target.clone() };
    let mut changed = BTreeMap::new();
    let mut names = Vec::new();
    for place in places {
        let target = follower(cluster, place.port, &like);
        let name = member_name(scene, cluster.name, &place.host, &names);
        let (Some(name), Some(target)) = (name, target) else {
            return Step::Failed(format!("`{}-{}-db1` is no name", place.host, cluster.name));
        };
        names.push(name.clone());
        changed.insert(name, Some((place.host, target)));
    }
    let mut memory = scene.memory();
    let text: Vec<&str> = names.iter().map(InstanceName::as_str).collect();
    let what = format!("added: {}", text.join(", "));
    memory.added.extend(names);
    super::step::targets(scene, cluster, &changed, memory, what).after(2)
}

/// The minion that is missed least: away, on a cordoned host, not to be promoted, the last by name.
pub(super) fn surplus(view: &FleetView, cluster: &Cluster<'_>) -> Option<InstanceName> {
    let rank = |member: &&Member<'_>| {
        let zone = |host: &HostName| view.hosts.get(host).and_then(|host| host.zone.clone());
        let crowd = cluster.members.values().filter(|other| zone(other.host) == zone(member.host)).count();
        (
            !member.runs(),
            view.cordons.contains(member.host),
            member.target.promotion == Promotion::Never,
            member.target.promotion != Promotion::Prefer,
            crowd,
            member.name.clone(),
        )
    };
    cluster.minions().max_by_key(rank).map(|member| member.name.clone())
}
