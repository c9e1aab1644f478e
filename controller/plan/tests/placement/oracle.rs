//! The rules once more, as plainly as can be, and every assignment that keeps them.

use std::collections::BTreeMap;

use schemadock_controller_plan::placement::{Ask, Place};
use schemadock_schema::size::{MIB, Resources};

use crate::fleet::{CPUS, Fleet, Machine};

/// What each member of a machine takes.
fn taken(fleet: &Fleet, machine: &Machine) -> Vec<Resources> {
    let of_policy =
        |cluster: &str| fleet.policies.iter().find(|(name, _)| *name == cluster).map(|(_, size)| size);
    let limits = machine.members.iter().map(|member| {
        let wished = member.wished().or_else(|| of_policy(&member.cluster).cloned());
        wished.unwrap_or_default().limits(&machine.offered())
    });
    limits.collect()
}

/// The port that one more member would get.
fn free_port(machine: &Machine, ask: &Ask) -> Option<u16> {
    let free = |port: &u16| machine.members.iter().all(|member| member.port != *port);
    ask.port.map_or_else(|| (3306..=65535).find(free), |port| Some(port).filter(free))
}

/// Whether one more member may go to a machine.
pub(crate) fn fits(fleet: &Fleet, machine: &Machine, ask: &Ask) -> bool {
    let limits = ask.size.limits(&machine.offered());
    let all = || taken(fleet, machine).into_iter().chain([limits]);
    let memory: u64 = all().map(|one| one.memory).sum();
    let cpus: f64 = all().map(|one| one.cpus).sum();
    let zone = machine.zone.unwrap_or("-").to_owned();
    machine.alive
        && !machine.cordoned
        && (ask.hosts.is_empty() || ask.hosts.contains(&machine.name))
        && !ask.without.contains(&machine.name)
        && (ask.zones.is_empty() || ask.zones.contains(&zone))
        && ask.labels.get("disk").is_none_or(|value| machine.label == Some(value))
        && machine.members.iter().all(|member| member.cluster != ask.cluster.as_str())
        && free_port(machine, ask).is_some()
        && limits.memory >= 512 * MIB
        && memory <= machine.memory
        && limits.cpus <= CPUS
        && cpus <= 4.0 * CPUS
        && (limits.disk.is_none() || machine.free_disk.is_none() || limits.disk <= machine.free_disk)
}

/// How many members of the cluster each zone has, the most first; those on hosts to be left are not counted.
pub(crate) fn spread(fleet: &Fleet, ask: &Ask) -> Vec<usize> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for machine in fleet.machines.iter().filter(|machine| !ask.without.contains(&machine.name)) {
        let own = machine.members.iter().filter(|member| member.cluster == ask.cluster.as_str()).count();
        *counts.entry(machine.zone.unwrap_or(machine.name.as_str())).or_default() += own;
    }
    let mut counts: Vec<usize> = counts.into_values().filter(|count| *count > 0).collect();
    counts.sort_by(|a, b| b.cmp(a));
    counts
}

/// Puts members where they were placed, one after the other, each by the rules as they are then.
pub(crate) fn checked(fleet: &Fleet, ask: &Ask, places: &[Place]) -> Result<Fleet, String> {
    if places.len() != ask.count {
        return Err(format!("{} places for {} members", places.len(), ask.count));
    }
    places.iter().try_fold(fleet.clone(), |fleet, place| {
        let machine =
            fleet.machines.iter().find(|machine| machine.name == place.host).ok_or("no such host")?;
        if !fits(&fleet, machine, ask) || free_port(machine, ask) != Some(place.port) {
            return Err(format!("{place:?} breaks a rule"));
        }
        Ok(fleet.with(ask, std::slice::from_ref(place)))
    })
}

/// The evenest spread that any assignment reaches; none where there is no assignment.
pub(crate) fn best_spread(fleet: &Fleet, ask: &Ask) -> Option<Vec<usize>> {
    rest(fleet, ask, ask.count)
}

fn rest(fleet: &Fleet, ask: &Ask, missing: usize) -> Option<Vec<usize>> {
    if missing == 0 {
        return Some(spread(fleet, ask));
    }
    let able = fleet.machines.iter().filter(|machine| fits(fleet, machine, ask));
    let each = able.filter_map(|machine| {
        let place = Place { host: machine.name.clone(), port: free_port(machine, ask)? };
        rest(&fleet.with(ask, &[place]), ask, missing - 1)
    });
    each.min()
}
