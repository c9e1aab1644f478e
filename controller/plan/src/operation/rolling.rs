//! What goes through the members one by one: `cluster upgrade`, `set mysql.…`, `resize`.
//!
//! The minions first, each out of the voters meanwhile; then one of them leads, and the former master comes last.

use std::collections::BTreeMap;

use schemadock_schema::operation::Memory;
use schemadock_schema::request::{REQUEST_SECONDS, Request, RequestKind};
use schemadock_schema::size::Size;
use schemadock_schema::status::{LAG_WELL, Phase};
use schemadock_schema::target::{Target, VariableValue};
use schemadock_schema::{InstanceName, Timestamp};

use super::movement::{moved, room_for};
use super::step::{Goal, handed_over, handing_over, out, targets, well, whole};
use super::{Scene, Step};
use crate::changes::Changes;
use crate::cluster::{Cluster, Member};

/// How long the status of a member that was restarted may take to say so, in milliseconds.
const TAKEN_WITHIN: i64 = 60_000;

pub(super) fn upgrade<'a>(scene: &Scene<'a>, image: &str, soak: u64) -> Step<'a> {
    ended(scene, upgraded(scene, image, soak))
}

pub(super) fn set<'a>(scene: &Scene<'a>, mysql: &BTreeMap<String, Option<VariableValue>>) -> Step<'a> {
    ended(scene, were_set(scene, mysql))
}

pub(super) fn resize<'a>(scene: &Scene<'a>, size: &Size) -> Step<'a> {
    ended(scene, resized(scene, size))
}

/// A handover that was taken back does not undo what was done to the members.
fn ended<'a>(scene: &Scene<'a>, goal: Goal<'a, String>) -> Step<'a> {
    match goal {
        Ok(outcome) => Step::Done(outcome),
        Err(Step::Undone(why)) => Step::Failed(format!("{why}; what was done to the other members stays")),
        Err(_) if scene.operation.cancel && !hands_over(scene) => {
            let memory = &scene.operation.memory;
            let begun: Vec<_> = memory.current.iter().chain(&memory.added).cloned().collect();
            Step::Cancelled(format!(
                "dealt with: {}; begun: {}; the others are as they were",
                listed(&memory.done),
                listed(&begun)
            ))
        }
        Err(step) => step,
    }
}

fn hands_over(scene: &Scene<'_>) -> bool {
    let cluster = scene.operation.clusters.first();
    cluster.is_some_and(|name| handing_over(scene, &Cluster::of(scene.view, name)))
}

fn listed(names: &[InstanceName]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    names.iter().map(InstanceName::as_str).collect::<Vec<_>>().join(", ")
}

/// The next member to deal with: minions first; the master once another one leads. None: all are done.
fn next_member<'a, 'b>(scene: &Scene<'a>, cluster: &'b Cluster<'a>) -> Goal<'a, Option<&'b Member<'a>>> {
    let done = &scene.operation.memory.done;
    let undone = |member: &&Member<'_>| !done.contains(member.name) && !member.target.disabled;
    if let Some(minion) = cluster.minions().find(undone) {
        return Ok(Some(minion));
    }
    let Some(master) = cluster.master().filter(|master| !done.contains(master.name)) else {
        return Ok(None);
    };
    if cluster.members.len() == 1 {
        return Ok(Some(master));
    }
    handed_over(scene, cluster, |_| true)?;
    Err(Step::Wait(format!("{} to be a minion", master.name)))
}

fn finished(name: &InstanceName) -> impl FnOnce(&mut Memory) {
    let name = name.clone();
    move |memory| {
        memory.out.retain(|other| *other != name);
        memory.done.push(name);
        (memory.since, memory.until) = (None, None);
        memory.current = None;
    }
}

fn upgraded<'a>(scene: &Scene<'a>, image: &str, soak: u64) -> Goal<'a, String> {
    let cluster = scene.own_cluster()?;
    let count = scene.operation.memory.done.len() as u32;
    let Some(member) = next_member(scene, &cluster)? else {
        return image_in_policy(scene, &cluster, image);
    };
    let name = member.name;
    let has = |member: &Member<'_>| {
        let container = member.status.and_then(|status| status.container.as_ref());
        container.is_some_and(|container| container.image == image)
    };
    let told = member.target.image.as_deref() == Some(image);
    if !told && !has(member) {
        // The others are whole before one more is touched.
        if !scene.operation.memory.out.contains(name) {
            whole(&cluster)?;
        }
        out(scene, &cluster, name)?;
        let target = Target { image: Some(image.to_owned()), ..member.target.clone() };
        let changed = BTreeMap::from([(name.clone(), Some((member.host.clone(), target)))]);
        let mut memory = scene.memory();
        memory.current = Some(name.clone());
        memory.since = None;
        memory.until = Timestamp::from_millisecond(scene.now.as_millisecond() + scene.bounds.member).ok();
        return Err(targets(scene, &cluster, &changed, memory, format!("{name} gets {image}")).after(count));
    }
    let late = scene.operation.memory.until.is_some_and(|until| scene.now >= until);
    let late = late && scene.operation.memory.since.is_none();
    let runs_well = || match well(&cluster, member) {
        // What is known of its container may be older, or nothing while Docker is away.
        Ok(()) if !has(member) => Err(Step::Wait(format!("{name} to run {image}"))),
        goal => goal,
    };
    let unwell = || match runs_well() {
        Err(Step::Wait(why)) if late => Some(why),
        _ => None,
    };
    let why = failed(member).or_else(unwell);
    if let Some(why) = why {
        return Err(Step::Failed(format!(
            "{name} does not come up well on {image}: {why}; the other members are left as they are. To go back: put \
             its former image into its document (`schemadock edit {name}`), then `schemadock reseed {name}`"
        )));
    }
    match scene.operation.memory.since {
        None => {
            runs_well()?;
            let watched = |memory: &mut Memory| memory.since = Some(scene.now);
            Err(scene.remember(watched, format!("{name} runs {image} and is watched for {soak} s")))
        }
        Some(since) => {
            let stays_well = has(member) && (cluster.leads(name) || member.follows(LAG_WELL));
            if !stays_well {
                // Its receiver may just be started anew; one that comes and goes runs into the bound above.
                let anew = format!("{name} is not well on {image} for the moment: it is watched anew");
                return Err(scene.remember(|memory| memory.since = None, anew));
            }
            if !scene.longer(since, soak as i64 * scene.bounds.scale) {
                return Err(Step::Wait(format!("{name} to stay well for {soak} s")));
            }
            Err(scene.remember(finished(name), format!("{name} is well on {image}")).after(count + 1))
        }
    }
}

/// What says that a member will not come up by itself.
fn failed(member: &Member<'_>) -> Option<String> {
    let status = member.status.filter(|status| status.target_revision == Some(member.target_revision))?;
    (status.phase == Phase::Failed).then(|| status.message.clone())
}

/// At the end the image stands in the policy, and in no member's document.
fn image_in_policy<'a>(scene: &Scene<'a>, cluster: &Cluster<'a>, image: &str) -> Goal<'a, String> {
    let named: BTreeMap<_, _> = cluster
        .members
        .values()
        .filter(|member| member.target.image.is_some())
        .map(|member| {
            let target = Target { image: None, ..member.target.clone() };
            (member.name.clone(), Some((member.host.clone(), target)))
        })
        .collect();
    if !named.is_empty() || cluster.policy.image.as_deref() != Some(image) {
        let mut policy = cluster.policy.clone();
        policy.image = Some(image.to_owned());
        let mut changes = scene.changes();
        changes.targets(cluster.name, &named);
        changes.policy(cluster.name, &policy);
        let what = format!("{image} is the image of {}", cluster.name);
        return Err(Step::write(changes, scene.memory(), what));
    }
    whole(cluster)?;
    Ok(format!("all members of {} run {image}", cluster.name))
}

fn were_set<'a>(scene: &Scene<'a>, mysql: &BTreeMap<String, Option<VariableValue>>) -> Goal<'a, String> {
    let cluster = scene.own_cluster()?;
    let mut policy = cluster.policy.clone();
    for (name, value) in mysql {
        match value {
            Some(value) => drop(policy.mysql.insert(name.clone(), value.clone())),
            None => drop(policy.mysql.remove(name)),
        }
    }
    let hiding: BTreeMap<_, _> = cluster
        .members
        .values()
        .filter(|member| mysql.keys().any(|name| member.target.mysql.contains_key(name)))
        .map(|member| {
            let mut target = member.target.clone();
            target.mysql.retain(|name, _| !mysql.contains_key(name));
            (member.name.clone(), Some((member.host.clone(), target)))
        })
        .collect();
    if policy != cluster.policy || !hiding.is_empty() {
        let mut changes = scene.changes();
        changes.policy(cluster.name, &policy);
        if !hiding.is_empty() {
            changes.targets(cluster.name, &hiding);
        }
        return Err(Step::write(changes, scene.memory(), "the policy says it").after(1));
    }
    restarted(scene, &cluster)?;
    whole(&cluster)?;
    Ok(format!("{} is in force on all members of {}", listed_names(mysql), cluster.name))
}

fn listed_names(mysql: &BTreeMap<String, Option<VariableValue>>) -> String {
    mysql.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// Members on which something waits for a restart are restarted, one by one.
fn restarted<'a>(scene: &Scene<'a>, cluster: &Cluster<'a>) -> Goal<'a> {
    let heard = |member: &&Member<'_>| {
        let known = member.status.is_some_and(|status| {
            status.policy_revision == Some(cluster.policy_revision)
                && status.target_revision == Some(member.target_revision)
                && (status.converged || !status.restart_pending.is_empty())
        });
        member.alive && known
    };
    if scene.operation.memory.current.is_none()
        && let Some(member) = cluster.members.values().find(|member| !heard(member))
    {
        return Err(Step::Wait(
            member.missing(cluster.policy_revision).unwrap_or(format!("{} to report", member.name)),
        ));
    }
    let pending = |member: &Member<'_>| {
        member.status.is_some_and(|status| !status.restart_pending.is_empty())
            && !scene.operation.memory.done.contains(member.name)
    };
    if cluster.members.values().all(|member| !pending(member)) && scene.operation.memory.current.is_none() {
        return Ok(());
    }
    let current = scene.operation.memory.current.clone();
    let minion = cluster.minions().find(|member| pending(member) || current.as_ref() == Some(member.name));
    let member = match minion {
        Some(member) => member,
        None => {
            let Some(master) = cluster.master() else { return Err(Step::Wait("a master".to_owned())) };
            if cluster.members.len() > 1 && current.as_ref() != Some(master.name) {
                whole_but_pending(cluster)?;
                handed_over(scene, cluster, |member| !pending(member))?;
                return Err(Step::Wait(format!("{} to be a minion", master.name)));
            }
            master
        }
    };
    let name = member.name;
    if current.as_ref() == Some(name) {
        return Err(restart_ended(scene, cluster, member));
    }
    if cluster.members.len() > 1 {
        if !scene.operation.memory.out.contains(name) {
            whole_but_pending(cluster)?;
        }
        out(scene, cluster, name)?;
    }
    Err(ask_restart(scene, cluster, member))
}

/// As [`whole`]; what waits for a restart does not count.
fn whole_but_pending<'a>(cluster: &Cluster<'_>) -> Goal<'a> {
    let unmet = cluster.members.values().find(|member| {
        let pends = member.status.is_some_and(|status| !status.restart_pending.is_empty());
        !(member.converged(cluster.policy_revision) || pends && member.runs())
    });
    if let Some(member) = unmet {
        return Err(Step::Wait(member.missing(cluster.policy_revision).unwrap_or_default()));
    }
    if !cluster.durable() {
        return Err(Step::Wait("the durability that is wished".to_owned()));
    }
    Ok(())
}

/// The id of the request to restart a member, one for each operation.
fn request_id(scene: &Scene<'_>, member: &Member<'_>) -> String {
    format!("{}-{}", scene.operation.id, member.name)
}

/// Done when nothing waits for a restart any more. Where the agent has taken the request and something still does, a
/// restart does not settle it.
fn restart_ended<'a>(scene: &Scene<'a>, cluster: &Cluster<'a>, member: &Member<'_>) -> Step<'a> {
    let name = member.name;
    let pending = member.status.map(|status| status.restart_pending.clone()).unwrap_or_default();
    let asked = scene.keys.request(member.host, &request_id(scene, member));
    if scene.view.revision_of(&asked).is_some() {
        return Step::Wait(format!("{name} to be restarted"));
    }
    match pending.first() {
        Some(pending) if scene.longer(scene.operation.updated_at, TAKEN_WITHIN) && member.runs() => {
            Step::Failed(format!(
                "{name}: {} is not in force after its restart was asked: {}; see its events",
                pending.variable, pending.reason
            ))
        }
        Some(_) => Step::Wait(format!("{name} to be restarted")),
        None => match well(cluster, member) {
            Err(step) => step,
            Ok(()) => scene.remember(finished(name), format!("{name} was restarted")),
        },
    }
}

fn ask_restart<'a>(scene: &Scene<'a>, cluster: &Cluster<'_>, member: &Member<'_>) -> Step<'a> {
    let mut changes: Changes<'a> = scene.changes();
    let until = scene.now.as_millisecond() + REQUEST_SECONDS * 1_000;
    let request = Request {
        kind: RequestKind::Restart,
        instance: Some(member.name.clone()),
        by: scene.operation.requested_by.clone(),
        at: scene.now,
        not_after: Timestamp::from_millisecond(until).unwrap_or(scene.now),
    };
    changes.put(scene.keys.request(member.host, &request_id(scene, member)), &request);
    changes.judged_by(scene.keys.leadership(cluster.name));
    let mut memory = scene.memory();
    memory.current = Some(member.name.clone());
    Step::write(changes, memory, format!("{} is restarted", member.name))
}

fn resized<'a>(scene: &Scene<'a>, size: &Size) -> Goal<'a, String> {
    let cluster = scene.own_cluster()?;
    // A member whose host has no room for it goes to another one.
    let current = scene.operation.memory.current.as_ref();
    let homeless = cluster.members.values().find(|member| {
        Some(member.name) == current && !scene.operation.memory.added.is_empty()
            || member.target.size != *size && !room_for(scene.view, member, size)
    });
    if let Some(member) = homeless {
        moved(scene, &cluster, member, None, size)?;
    } else if let Some(member) = current.filter(|_| !scene.operation.memory.added.is_empty()) {
        // Its target is gone already; what is left of it is waited for.
        super::step::gone(scene, &cluster, member)?;
        let settled = |memory: &mut Memory| {
            memory.current = None;
            memory.added.clear();
        };
        return Err(scene.remember(settled, format!("{member} has moved")));
    }
    let differing: BTreeMap<_, _> = cluster
        .members
        .values()
        .filter(|member| member.target.size != *size)
        .map(|member| {
            let target = Target { size: size.clone(), ..member.target.clone() };
            (member.name.clone(), Some((member.host.clone(), target)))
        })
        .collect();
    if !differing.is_empty() || cluster.policy.size.as_ref() != Some(size) {
        let mut policy = cluster.policy.clone();
        policy.size = Some(size.clone());
        let mut changes = scene.changes();
        changes.policy(cluster.name, &policy);
        changes.targets(cluster.name, &differing);
        return Err(Step::write(changes, scene.memory(), "the members have the new size").after(1));
    }
    restarted(scene, &cluster)?;
    whole(&cluster)?;
    Ok(format!("all members of {} have the new size", cluster.name))
}
