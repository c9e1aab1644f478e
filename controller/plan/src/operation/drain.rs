//! `host drain`: masters, and with `--evict` replicas, go off a host, one after another; each cluster is whole again
//! before the next member is touched.

use schemadock_schema::operation::{Lock, Memory};
use schemadock_schema::{ClusterName, HostName, InstanceName};

use super::movement::moved;
use super::step::{Goal, gone, handed_over, handing_over, settled};
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
    let current =
        memory.cluster.as_ref().filter(|name| scene.view.locks.get(*name) == Some(&scene.operation.id));
    // The name lives as long as the view.
    let current =
        current.and_then(|name| scene.view.locks.get_key_value(name)).map(|(name, _)| scene.cluster(name));
    if scene.operation.cancel && !current.as_ref().is_some_and(|cluster| handing_over(scene, cluster)) {
        let added: Vec<&str> = memory.added.iter().map(InstanceName::as_str).collect();
        let left =
            if added.is_empty() { String::new() } else { format!("; added and left: {}", added.join(", ")) };
        return Err(Step::Cancelled(format!(
            "what went off {host} so far stays away, it is cordoned still{left}"
        )));
    }
    match (&memory.current, &current, &memory.cluster) {
        (Some(name), Some(cluster), _) => dealt_with(scene, host, evict, name, cluster)?,
        // The lock is there, and not seen yet.
        (Some(_), None, Some(cluster)) if scene.view.revision_of(&scene.keys.lock(cluster)).is_none() => {
            return Err(Step::Wait(format!("the lock of {cluster}")));
        }
        _ => {}
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
    if let Some(other) = super::holder(scene, cluster).filter(|id| *id != scene.operation.id) {
        return Step::Wait(format!("operation {other}, which holds {cluster}"));
    }
    let mut changes = scene.changes();
    changes.put(scene.keys.lock(cluster), &Lock { operation: scene.operation.id.clone() });
    let mut memory = scene.memory();
    (memory.term, memory.candidate, memory.taken_back) = (None, None, 0);
    memory.added.clear();
    memory.current = Some(name.clone());
    memory.cluster = Some(cluster.clone());
    Step::write(changes, memory, format!("{name} is next"))
}

/// The member in hand; `Err` until its cluster is whole and its lock is given back.
fn dealt_with<'a>(
    scene: &Scene<'a>,
    host: &HostName,
    evict: bool,
    name: &InstanceName,
    cluster: &Cluster<'a>,
) -> Goal<'a> {
    let done = scene.operation.memory.done.len() as u32;
    match (cluster.members.get(name), evict) {
        (Some(member), true) => {
            // With other members there, leading is handed to one of them; the new one is a minion.
            if cluster.leads(name) && cluster.members.len() > 1 {
                handed_over(scene, cluster, |member| member.host != host)?;
            }
            let like = member.target.size.clone();
            moved(scene, cluster, member, None, &like)?;
        }
        // The others may have gone since it was asked for.
        (Some(_), false) if cluster.leads(name) && cluster.members.len() == 1 => {
            return Err(Step::Failed(format!(
                "{name} leads and is the only member of {0}; `schemadock cluster scale {0} --replicas 1`, then drain \
                 again, or with --evict",
                cluster.name
            )));
        }
        (Some(_), false) if cluster.leads(name) => handed_over(scene, cluster, |member| member.host != host)?,
        (Some(_), false) => {}
        (None, _) => gone(scene, cluster, name)?,
    }
    settled(cluster)?;
    let mut changes = scene.changes();
    changes.delete(scene.keys.lock(cluster.name));
    let mut memory: Memory = scene.memory();
    memory.done.push(name.clone());
    (memory.current, memory.cluster) = (None, None);
    memory.added.clear();
    memory.out.clear();
    Err(Step::write(changes, memory, format!("{} is whole", cluster.name)).after(done + 1))
}
