//! `cluster stop`, `start` and `delete`: all members at once.

use std::collections::BTreeMap;

use schemadock_schema::InstanceName;
use schemadock_schema::status::Phase;
use schemadock_schema::target::Target;

use super::step::{Goal, targets, whole};
use super::{Scene, Step};
use crate::cluster::Cluster;

pub(super) fn stop<'a>(scene: &Scene<'a>) -> Step<'a> {
    finish(scene, |scene| {
        let cluster = scene.own_cluster()?;
        stopped(scene, &cluster)?;
        let away: Vec<&str> = cluster
            .members
            .values()
            .filter(|member| !member.alive)
            .map(|member| member.name.as_str())
            .collect();
        Ok(match away.is_empty() {
            true => format!("all members of {} are stopped, their data are kept", cluster.name),
            false => format!(
                "all members of {} whose agents live are stopped; told, but not heard of: {}",
                cluster.name,
                away.join(", ")
            ),
        })
    })
}

pub(super) fn start<'a>(scene: &Scene<'a>) -> Step<'a> {
    finish(scene, |scene| {
        let cluster = scene.own_cluster()?;
        disabled(scene, &cluster, false)?;
        whole(&cluster)?;
        Ok(format!("all members of {} run", cluster.name))
    })
}

pub(super) fn delete<'a>(scene: &Scene<'a>) -> Step<'a> {
    finish(scene, |scene| {
        let cluster = scene.own_cluster()?;
        if !cluster.members.is_empty() {
            stopped(scene, &cluster)?;
            let names: Vec<InstanceName> =
                scene.view.targets_of(cluster.name).map(|(name, _)| name.clone()).collect();
            let changed: BTreeMap<_, _> = names.iter().map(|name| (name.clone(), None)).collect();
            let mut memory = scene.memory();
            memory.done = names;
            let mut changes = scene.changes();
            changes.targets(cluster.name, &changed);
            changes.delete(scene.keys.cluster(cluster.name));
            changes.delete(scene.keys.route(cluster.name));
            return Err(Step::write(changes, memory, "the targets are taken away").after(2));
        }
        let left = scene.operation.memory.done.iter().find(|name| {
            scene.view.statuses.get(*name).is_some_and(|status| scene.view.alive.contains(&status.host))
        });
        if let Some(name) = left {
            return Err(Step::Wait(format!("{name} to be taken down")));
        }
        Ok(format!(
            "{} is gone; its data are kept on its hosts until `schemadock purge INSTANCE`",
            cluster.name
        ))
    })
}

fn finish<'a>(scene: &Scene<'a>, goal: impl FnOnce(&Scene<'a>) -> Goal<'a, String>) -> Step<'a> {
    match goal(scene) {
        Ok(outcome) => Step::Done(outcome),
        Err(_) if scene.operation.cancel => {
            Step::Cancelled("what was asked of the members so far stays asked".to_owned())
        }
        Err(step) => step,
    }
}

/// In one transaction: where every member is told to stop, nobody leaves the voters.
fn disabled<'a>(scene: &Scene<'a>, cluster: &Cluster<'a>, disabled: bool) -> Goal<'a> {
    let differing = cluster.members.values().filter(|member| member.target.disabled != disabled);
    let changed: BTreeMap<_, _> = differing
        .map(|member| {
            let target = Target { disabled, ..member.target.clone() };
            (member.name.clone(), Some((member.host.clone(), target)))
        })
        .collect();
    if changed.is_empty() {
        return Ok(());
    }
    let what = if disabled { "all members are told to stop" } else { "all members are told to start" };
    Err(targets(scene, cluster, &changed, scene.memory(), what).after(1))
}

fn stopped<'a>(scene: &Scene<'a>, cluster: &Cluster<'a>) -> Goal<'a> {
    disabled(scene, cluster, true)?;
    let runs = cluster.members.values().find(|member| {
        member.alive
            && member.status.is_none_or(|status| {
                status.phase != Phase::Stopped || status.target_revision != Some(member.target_revision)
            })
    });
    match runs {
        Some(member) => Err(Step::Wait(format!("{} to stop", member.name))),
        None => Ok(()),
    }
}
