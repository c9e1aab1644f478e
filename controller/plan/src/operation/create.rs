//! `cluster create`.

use std::collections::BTreeMap;

use schemadock_schema::operation::Create;
use schemadock_schema::policy::ClusterPolicy;
use schemadock_schema::size::Size;
use schemadock_schema::target::{Role, Target};
use schemadock_schema::{ClusterName, InstanceName};

use super::step::{Goal, member_name, seen, whole};
use super::{Scene, Step};
use crate::placement::{Ask, NoRoom, Place, Rooms, Strategy, place};
use crate::view::FleetView;

/// Where the members would be placed.
pub(super) fn placed(view: &FleetView, cluster: &ClusterName, create: &Create) -> Result<Vec<Place>, NoRoom> {
    let ask = Ask {
        port: create.port,
        zones: create.zones.clone(),
        hosts: create.hosts.clone(),
        labels: create.labels.clone(),
        ..Ask::new(cluster.clone(), size(create), create.replicas as usize + 1)
    };
    place(&mut Rooms::of(view), &ask, Strategy::Spread)
}

/// A whole host is no sensible share where several clusters are to be.
fn size(create: &Create) -> Size {
    create.size.clone().unwrap_or(Size::Small)
}

pub(super) fn next<'a>(scene: &Scene<'a>, create: &Create) -> Step<'a> {
    match made(scene, create) {
        Ok(outcome) => Step::Done(outcome),
        Err(step) => step,
    }
}

fn made<'a>(scene: &Scene<'a>, create: &Create) -> Goal<'a, String> {
    let cluster = scene.own_cluster()?;
    if scene.operation.memory.added.is_empty() {
        if scene.operation.cancel {
            return Err(Step::Cancelled("nothing was made".to_owned()));
        }
        return Err(founded(scene, cluster.name, create));
    }
    if scene.operation.cancel {
        return Err(Step::Cancelled(format!(
            "its members stay; `schemadock cluster delete {}` takes them away",
            cluster.name
        )));
    }
    seen(scene, &cluster)?;
    whole(&cluster)?;
    let master = cluster.master().map_or("nobody", |master| master.name.as_str());
    Ok(format!("{} has {} members, {master} leads", cluster.name, cluster.members.len()))
}

/// Who has led a deleted cluster of this name: their data are kept, and a new cluster could not be founded beside them.
fn led(view: &FleetView, cluster: &ClusterName) -> Vec<InstanceName> {
    let lineage = view.leaderships.get(cluster).into_iter().flat_map(|record| &record.value.lineage);
    lineage.map(|entry| entry.name.clone()).collect()
}

fn founded<'a>(scene: &Scene<'a>, cluster: &ClusterName, create: &Create) -> Step<'a> {
    let places = match placed(scene.view, cluster, create) {
        Ok(places) => places,
        Err(no_room) => return Step::Failed(format!("there is no room any more: {no_room}")),
    };
    let Some(first) = places.first() else { return Step::Failed("no member is asked for".to_owned()) };
    let mut changed = BTreeMap::new();
    let mut names: Vec<InstanceName> = Vec::new();
    let mut taken = led(scene.view, cluster);
    for place in &places {
        let Some(name) = member_name(scene, cluster, &place.host, &taken) else {
            return Step::Failed(format!("`{}-{cluster}-db1` is no name", place.host));
        };
        let leads = names.is_empty();
        let target = Target {
            role: if leads { Role::Master } else { Role::Minion },
            port: place.port,
            master_host: (!leads).then(|| first.host.clone()),
            master_port: (!leads).then_some(first.port),
            disabled: false,
            size: size(create),
            host: None,
            cluster: None,
            image: None,
            mysql: BTreeMap::new(),
            promotion: Default::default(),
            maintenance: false,
            schemas: None,
        };
        names.push(name.clone());
        taken.push(name.clone());
        changed.insert(name, Some((place.host.clone(), target)));
    }
    let policy = ClusterPolicy {
        durability: create.durability,
        image: create.image.clone(),
        size: Some(size(create)),
        replicas: Some(create.replicas),
        ..scene.view.policy(cluster)
    };
    let mut changes = scene.changes();
    changes.targets(cluster, &changed);
    changes.policy(cluster, &policy);
    changes.judged_by(scene.keys.leadership(cluster));
    let mut memory = scene.memory();
    let what = format!(
        "its members are written: {}",
        names.iter().map(InstanceName::as_str).collect::<Vec<_>>().join(", ")
    );
    memory.added = names;
    Step::write(changes, memory, what).after(1)
}
