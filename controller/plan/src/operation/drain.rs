//! `host drain`: masters, and with `--evict` replicas, go off a host, one after another; each cluster is whole again
//! before the next member is touched.

use schemadock_schema::operation::{Lock, Memory};
use schemadock_schema::{ClusterName, HostName, InstanceName};

use super::movement::moved;
use super::step::{Goal, best, gone, led_by, whole};
use super::{Scene, Step};
use crate::cluster::Cluster;

pub(super) fn next<'a>(scene: &Scene<'a>, host: &HostName, evict: bool) -> Step<'a> {
    match drained(scene, host, evict) {
        Ok(outcome) => Step::Done(outcome),
        Err(Step::Undone(why)) => Step::Failed(format!("{why}; what went off {host} so far stays away")),
        Err(step) => step,
    }
}

fn drained<'a>(scene: &Scene<'a>, host: &HostName, evict: bool) -> Goal<'a, String> {
    let memory = &scene.operation.memory;
    if let Some(name) = &memory.current {
        dealt_with(scene, host, evict, name)?;
    }
    if scene.operation.cancel {
        return Err(Step::Cancelled(format!("what went off {host} so far stays away; it is cordoned still")));
    }
    let on_host = scene.view.all_targets().filter(|(_, stored)| stored.host == *host);
    for (name, stored) in on_host {
        let Some(cluster) = stored.cluster.as_ref().map(|cluster| scene.cluster(cluster)) else { continue };
        let stopped = cluster.stopped();
        if evict && stopped {
            return Err(Step::Failed(format!(
                "{name} cannot go elsewhere: {0} is stopped; `schemadock cluster start {0}`, then drain again",
                cluster.name
            )));
        }
        if evict || cluster.leads(name) && !stopped {
            return Err(begun(scene, cluster.name, name));
        }
    }
    Ok(match evict {
        true => format!("{host} holds nothing any more"),
        false => format!("no server on {host} leads"),
    })
}

/// Its cluster is locked with the first write about it.
fn begun<'a>(scene: &Scene<'a>, cluster: &ClusterName, name: &InstanceName) -> Step<'a> {
    if let Some(other) = scene.view.locks.get(cluster).filter(|id| **id != scene.operation.id) {
        return Step::Wait(format!("operation {other} holds {cluster}"));
    }
    let mut changes = scene.changes();
    changes.put(scene.keys.lock(cluster), &Lock { operation: scene.operation.id.clone() });
    let mut memory = scene.memory();
    (memory.term, memory.candidate, memory.taken_back) = (None, None, 0);
    memory.added.clear();
    memory.current = Some(name.clone());
    Step::write(changes, memory, format!("{name} is next"))
}

/// The member in hand; `Err` until its cluster is whole and its lock is given back.
fn dealt_with<'a>(scene: &Scene<'a>, host: &HostName, evict: bool, name: &InstanceName) -> Goal<'a> {
    let held = scene.view.locks.iter().find(|(_, id)| **id == scene.operation.id);
    let Some((cluster, _)) = held else { return Ok(()) };
    let cluster = scene.cluster(cluster);
    let done = scene.operation.memory.done.len() as u32;
    match (cluster.members.get(name), evict) {
        (Some(member), true) => {
            // With other members there, leading is handed to one of them; the new one is a minion.
            if cluster.leads(name) && cluster.members.len() > 1 {
                handed_over(scene, &cluster, host)?;
            }
            let like = member.target.size.clone();
            let current = scene.operation.memory.added.is_empty();
            if current || cluster.members.contains_key(name) {
                moved(scene, &cluster, member, None, &like)?;
            }
        }
        (Some(_), false) if cluster.leads(name) => handed_over(scene, &cluster, host)?,
        (Some(_), false) => {}
        (None, _) => gone(scene, &cluster, name)?,
    }
    whole(&cluster)?;
    let mut changes = scene.changes();
    changes.delete(scene.keys.lock(cluster.name));
    let mut memory: Memory = scene.memory();
    memory.done.push(name.clone());
    memory.current = None;
    memory.out.clear();
    Err(Step::write(changes, memory, format!("{} is whole", cluster.name)).after(done + 1))
}

fn handed_over<'a>(scene: &Scene<'a>, cluster: &Cluster<'a>, host: &HostName) -> Goal<'a> {
    let Some(candidate) = &scene.operation.memory.candidate else {
        let found = best(cluster, |member| member.host != host && !scene.view.cordons.contains(member.host));
        let Some(found) = found else {
            return Err(Step::Wait(format!("a member of {} that can lead elsewhere", cluster.name)));
        };
        let what = format!("{found} is to lead");
        return Err(scene.remember(|memory| memory.candidate = Some(found.clone()), what));
    };
    led_by(scene, cluster, candidate, false)
}
