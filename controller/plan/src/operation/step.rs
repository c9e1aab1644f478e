//! What an operation does next, and the goals that operations share.
//!
//! A goal is reached (`Ok`), or there is something to do or to wait for first (`Err`): goals are asked one after another,
//! each time from the first.

use std::collections::BTreeMap;

use schemadock_schema::leadership::LeadershipPhase;
use schemadock_schema::operation::Memory;
use schemadock_schema::status::{LAG_CLOSE, LAG_WELL};
use schemadock_schema::target::{Promotion, Role, Target};
use schemadock_schema::{ClusterName, HostName, InstanceName, Timestamp};

use super::Scene;
use crate::changes::Changes;
use crate::cluster::{Cluster, Member};
use crate::durability::{self, Change};

/// How often a handover that was taken back is tried again within a longer operation.
const TRIES: u32 = 3;

/// What an operation does next.
pub(crate) enum Step<'a> {
    /// Writes, with what it remembers from then on.
    Write {
        /// The writes.
        changes: Box<Changes<'a>>,
        /// What it remembers.
        memory: Box<Memory>,
        /// One sentence.
        what: String,
        /// How many steps are done then.
        done: Option<u32>,
    },
    /// Nothing yet; what is waited for.
    Wait(String),
    /// All was done.
    Done(String),
    /// What was done was taken back.
    Undone(String),
    /// It cannot go on.
    Failed(String),
    /// It was ended as asked.
    Cancelled(String),
}

impl<'a> Step<'a> {
    pub(crate) fn write(changes: Changes<'a>, memory: Memory, what: impl Into<String>) -> Self {
        Step::Write { changes: Box::new(changes), memory: Box::new(memory), what: what.into(), done: None }
    }

    pub(crate) fn after(self, steps: u32) -> Self {
        match self {
            Step::Write { changes, memory, what, .. } => {
                Step::Write { changes, memory, what, done: Some(steps) }
            }
            other => other,
        }
    }
}

/// See the module.
pub(crate) type Goal<'a, T = ()> = Result<T, Step<'a>>;

impl<'a> Scene<'a> {
    pub(crate) fn cluster(&self, name: &'a ClusterName) -> Cluster<'a> {
        Cluster::of(self.view, name)
    }

    /// The one cluster of most operations.
    pub(crate) fn own_cluster(&self) -> Goal<'a, Cluster<'a>> {
        match self.operation.clusters.first() {
            Some(name) => Ok(self.cluster(name)),
            None => Err(Step::Failed("it names no cluster".to_owned())),
        }
    }

    pub(crate) fn longer(&self, since: Timestamp, millis: i64) -> bool {
        self.now.as_millisecond() - since.as_millisecond() >= millis
    }

    /// Writes memory alone.
    pub(crate) fn remember(&self, edit: impl FnOnce(&mut Memory), what: impl Into<String>) -> Step<'a> {
        let mut memory = self.memory();
        edit(&mut memory);
        Step::write(self.changes(), memory, what)
    }
}

/// Whether a handover of this operation is under way: then it is too late to end it.
pub(crate) fn handing_over(scene: &Scene<'_>, cluster: &Cluster<'_>) -> bool {
    let term = scene.operation.memory.term;
    !cluster.steady() && term.is_some() && cluster.record.map(|stored| stored.value.term) == term
}

/// The members on living hosts are as they are to be, and the durability is as wished.
pub(crate) fn settled<'a>(cluster: &Cluster<'_>) -> Goal<'a> {
    match cluster.missing_of_living() {
        None => Ok(()),
        Some(missing) => Err(Step::Wait(missing)),
    }
}

/// Members that this operation has written are in the view: its parts are not in step.
pub(crate) fn seen<'a>(scene: &Scene<'a>, cluster: &Cluster<'_>) -> Goal<'a> {
    match scene.operation.memory.added.iter().find(|name| !cluster.members.contains_key(*name)) {
        Some(name) => Err(Step::Wait(format!("the target of {name}"))),
        None => Ok(()),
    }
}

/// Every member is as it is to be, and the durability is as wished.
pub(crate) fn whole<'a>(cluster: &Cluster<'_>) -> Goal<'a> {
    match cluster.missing() {
        None => Ok(()),
        Some(missing) => Err(Step::Wait(missing)),
    }
}

/// A member is kept out of the voters, and no other one: two at once would cost the others their promise.
pub(crate) fn out<'a>(scene: &Scene<'a>, cluster: &Cluster<'_>, name: &InstanceName) -> Goal<'a> {
    if scene.operation.memory.out != [name.clone()] {
        let what = format!("{name} is taken out of the voters");
        return Err(scene.remember(|memory| memory.out = vec![name.clone()], what));
    }
    // Without acknowledgements its place promises nothing.
    let counts = cluster.meant.is_some_and(|record| record.acks_wanted() > 0);
    if counts && cluster.votes(name) {
        let why = match durability::change(cluster, scene.since, scene.now, scene.bounds) {
            Change::Wait(why) => format!(", and that waits for {why}"),
            _ => String::new(),
        };
        return Err(Step::Wait(format!("{name} to leave the voters{why}")));
    }
    Ok(())
}

/// Targets of a cluster become these.
pub(crate) fn targets<'a>(
    scene: &Scene<'a>,
    cluster: &Cluster<'_>,
    changed: &BTreeMap<InstanceName, Option<(HostName, Target)>>,
    memory: Memory,
    what: impl Into<String>,
) -> Step<'a> {
    let mut changes = scene.changes();
    changes.targets(cluster.name, changed);
    changes.judged_by(scene.keys.leadership(cluster.name));
    Step::write(changes, memory, what)
}

/// A member is as its target says, follows and is close behind.
pub(crate) fn well<'a>(cluster: &Cluster<'_>, member: &Member<'_>) -> Goal<'a> {
    if let Some(missing) = member.missing(cluster.policy_revision) {
        return Err(Step::Wait(missing));
    }
    if !cluster.leads(member.name) && !member.follows(LAG_WELL) {
        return Err(Step::Wait(format!("{} to catch up", member.name)));
    }
    Ok(())
}

/// A member is no member any more, and its agent has cleared up after it; a dead host's agent does that when it is back.
pub(crate) fn gone<'a>(scene: &Scene<'a>, cluster: &Cluster<'a>, name: &InstanceName) -> Goal<'a> {
    if let Some(member) = cluster.members.get(name) {
        if cluster.leads(name) {
            return Err(Step::Failed(format!("{name} leads: another member must lead before it can go")));
        }
        out(scene, cluster, name)?;
        let mut memory = scene.memory();
        memory.out.retain(|other| other != name);
        let mut changed = BTreeMap::from([(name.clone(), None)]);
        // Whoever follows it follows the leader from then on.
        for other in cluster.members.values().filter(|other| other.name != name) {
            if other.target.source() == Some((member.host, member.target.port))
                && let Some(target) = follower(cluster, other.target.port, other.target)
            {
                let target = Target { disabled: other.target.disabled, ..target };
                changed.insert(other.name.clone(), Some((other.host.clone(), target)));
            }
        }
        return Err(targets(scene, cluster, &changed, memory, format!("{name} is taken away")));
    }
    let reported = scene.view.statuses.get(name);
    if reported.is_some_and(|status| scene.view.alive.contains(&status.host)) {
        return Err(Step::Wait(format!("{name} to be taken down")));
    }
    Ok(())
}

/// The best member to lead, of those that may: one of the voters, where there are any.
pub(crate) fn best(cluster: &Cluster<'_>, may: impl Fn(&Member<'_>) -> bool) -> Option<InstanceName> {
    let rank = |member: &&Member<'_>| {
        let wished = member.target.promotion != Promotion::Prefer;
        let behind = member.status.and_then(|status| status.source.as_ref()?.lag_seconds).unwrap_or(0.0);
        (wished, behind.floor() as u64, member.name.clone())
    };
    let any = cluster.minions().any(|member| cluster.votes(member.name));
    let fit = cluster.minions().filter(|member| unfit(cluster, member).is_none() && may(member));
    let fit = fit.filter(|member| !any || cluster.votes(member.name));
    let fit = fit.filter(|member| member.target.promotion != Promotion::Never);
    fit.min_by_key(rank).map(|member| member.name.clone())
}

/// One of those that may leads, whichever is best; another one where that cannot any more.
pub(crate) fn handed_over<'a>(
    scene: &Scene<'a>,
    cluster: &Cluster<'a>,
    may: impl Fn(&Member<'_>) -> bool,
) -> Goal<'a> {
    let Some(candidate) = &scene.operation.memory.candidate else {
        let found = best(cluster, |member| !scene.view.cordons.contains(member.host) && may(member));
        let Some(found) = found else {
            return Err(Step::Wait(format!("a member of {} that can lead", cluster.name)));
        };
        let what = format!("{found} is to lead");
        return Err(scene.remember(|memory| memory.candidate = Some(found), what));
    };
    forget_unfit(scene, cluster, candidate)?;
    led_by(scene, cluster, candidate, false)
}

/// A candidate that nobody named, and that cannot lead any more, is no candidate.
pub(crate) fn forget_unfit<'a>(
    scene: &Scene<'a>,
    cluster: &Cluster<'_>,
    candidate: &InstanceName,
) -> Goal<'a> {
    let unfit = match cluster.members.get(candidate) {
        _ if cluster.leads(candidate) || handing_over(scene, cluster) => None,
        None => Some(format!("{candidate} is gone")),
        Some(member) => unfit(cluster, member).filter(|_| !member.alive || member.target.disabled),
    };
    match unfit {
        None => Ok(()),
        Some(why) => {
            Err(scene.remember(|memory| memory.candidate = None, format!("{why}: another one is to lead")))
        }
    }
}

/// Why a member cannot lead now.
pub(crate) fn unfit(cluster: &Cluster<'_>, member: &Member<'_>) -> Option<String> {
    let name = member.name;
    if member.target.disabled {
        return Some(format!("{name} is disabled"));
    }
    if member.target.maintenance {
        return Some(format!("{name} is under maintenance"));
    }
    if member.target.role == Role::Master && member.target.source().is_some() {
        return Some(format!("{name} is being split off"));
    }
    if !member.alive {
        return Some(format!("the agent of {} is not alive", member.host));
    }
    if member.status.is_some_and(|status| status.foreign.is_some()) {
        return Some(format!("{name} has transactions that its master lacks"));
    }
    if !member.follows(LAG_CLOSE) {
        let said = member.status.map(|status| match &status.source {
            _ if !status.message.is_empty() => status.message.clone(),
            Some(source) => format!(
                "receiver {}, applier {}, {:.0} s behind",
                source.io,
                source.sql,
                source.lag_seconds.unwrap_or(0.0)
            ),
            None => format!("phase {}", status.phase),
        });
        return Some(format!("{name} does not follow closely: {}", said.unwrap_or("no report".to_owned())));
    }
    (!cluster.votes(name)).then(|| format!("{name} is not among the voters yet"))
}

/// A member leads. What a longer operation tries a few times, a switchover tries once.
pub(crate) fn led_by<'a>(
    scene: &Scene<'a>,
    cluster: &Cluster<'a>,
    to: &InstanceName,
    once: bool,
) -> Goal<'a> {
    let Some(stored) = cluster.record else {
        return Err(Step::Failed(format!("nobody leads {}", cluster.name)));
    };
    let record = &stored.value;
    if record.phase != LeadershipPhase::Steady {
        return Err(Step::Wait(under_way(cluster, record.term)));
    }
    let memory = &scene.operation.memory;
    if record.master.as_ref() == Some(to) {
        return match cluster.master().and_then(|master| master.status) {
            Some(status) if status.writable == Some(true) => Ok(()),
            _ => Err(Step::Wait(format!("{to} to open for writes"))),
        };
    }
    if memory.term == Some(record.term) {
        let leader = record.master.as_ref().map_or("nobody", InstanceName::as_str);
        let open = cluster.master().and_then(|master| master.status).and_then(|status| status.writable);
        if open != Some(true) {
            return Err(Step::Wait(format!("{leader} to open again: the handover to {to} was taken back")));
        }
        let message = format!(
            "the handover to {to} was taken back in term {}: {leader} leads and takes writes; its events say why",
            record.term
        );
        if once || memory.taken_back + 1 >= TRIES {
            return Err(Step::Undone(message));
        }
        let again = |memory: &mut Memory| {
            memory.term = None;
            memory.taken_back += 1;
        };
        return Err(scene.remember(again, format!("{message}; tried again")));
    }
    if cluster.policy.paused {
        return Err(Step::Wait(format!("{} is paused", cluster.name)));
    }
    let Some(master) = cluster.master() else {
        return Err(Step::Failed(format!("the target of the master of {} is gone", cluster.name)));
    };
    if master.target.disabled {
        return Err(Step::Failed(format!("{} is disabled: start the cluster first", master.name)));
    }
    if !master.alive {
        return Err(Step::Wait(format!("the agent of {}, whose server leads", master.host)));
    }
    if master.status.is_none_or(|status| status.writable != Some(true)) {
        return Err(Step::Wait(format!("{} to take writes", master.name)));
    }
    let Some(candidate) = cluster.members.get(to) else {
        return Err(Step::Failed(format!("the target of {to} is gone")));
    };
    if let Some(why) = unfit(cluster, candidate) {
        return Err(Step::Wait(why));
    }
    if record.acks_next.is_some() || !record.leaving.is_empty() {
        return Err(Step::Wait("a change of the voters that is under way".to_owned()));
    }
    let behind = cluster.members.values().find(|member| {
        let there = member.alive && !member.target.disabled;
        let known = member.status.and_then(|status| status.leadership_revision);
        there && known != Some(stored.mod_revision)
    });
    if let Some(member) = behind {
        return Err(Step::Wait(format!("{} to have in force who votes", member.name)));
    }
    // Those that move behind the candidate first must be there (leadership design, Switchover 2). What they have received
    // counts, not what they have applied.
    for name in record.movers(Some(to)).map(|voter| &voter.name) {
        if cluster.members.get(name).is_none_or(|member| !member.follows(f64::INFINITY)) {
            return Err(Step::Wait(format!("{name} to receive from its master")));
        }
    }
    let mut after = record.clone();
    after.term += 1;
    after.phase = LeadershipPhase::Handover;
    after.to = Some(to.clone());
    after.deadline = Timestamp::from_millisecond(scene.now.as_millisecond() + scene.bounds.handover).ok();
    after.by.clone_from(&scene.operation.requested_by);
    after.reason = format!("operation {}", scene.operation.id);
    let mut changes = scene.changes();
    changes.put(scene.keys.leadership(cluster.name), &after);
    changes.judged_by(scene.keys.cluster(cluster.name));
    changes.judged_by(scene.keys.target(candidate.host, to));
    changes.judged_by(scene.keys.target(master.host, master.name));
    let end = scene.keys.handover(cluster.name, after.term);
    if scene.view.revision_of(&end).is_some() {
        return Err(Step::Failed(format!("{end} is there before its handover; remove it by hand")));
    }
    changes.judged_by(end);
    let mut remembered = scene.memory();
    remembered.term = Some(after.term);
    remembered.led.clone_from(&record.master);
    let what = format!("{} hands over to {to} in term {}", master.name, after.term);
    Err(Step::write(changes, remembered, what))
}

/// Whom a handover waits for.
fn under_way(cluster: &Cluster<'_>, term: u64) -> String {
    let Some(record) = cluster.record.map(|stored| &stored.value) else { return String::new() };
    let parties = [record.master.as_ref(), record.to.as_ref()].into_iter().flatten();
    let silent = parties
        .filter_map(|name| cluster.members.get(name))
        .find(|member| !member.alive)
        .map(|member| format!("the agent of {}: the handover of term {term} is not decided", member.host));
    silent.unwrap_or_else(|| format!("the handover of term {term}"))
}

/// The target of a member that is added: it follows who leads.
pub(crate) fn follower(cluster: &Cluster<'_>, port: u16, like: &Target) -> Option<Target> {
    let master = cluster.master()?;
    Some(Target {
        role: Role::Minion,
        port,
        master_host: Some(master.host.clone()),
        master_port: Some(master.target.port),
        disabled: false,
        host: None,
        cluster: None,
        maintenance: false,
        schemas: None,
        ..like.clone()
    })
}

/// A name for a member on a host: `<host>-<cluster>-db<first free number>`.
pub(crate) fn member_name(
    scene: &Scene<'_>,
    cluster: &ClusterName,
    host: &HostName,
    taken: &[InstanceName],
) -> Option<InstanceName> {
    let used = |number: u32| {
        let tail = format!("-{cluster}-db{number}");
        let ends = |name: &InstanceName| name.as_str().ends_with(&tail);
        scene.view.targets_of(cluster).any(|(name, _)| ends(name))
            || taken.iter().any(ends)
            // Data set aside under a name are taken up with it, and may be those of a deleted cluster of this name.
            || scene.view.hosts.values().flat_map(|host| &host.retired).any(|kept| ends(&kept.instance))
            || scene
                .view
                .statuses
                .iter()
                .any(|(name, status)| status.cluster.as_ref() == Some(cluster) && ends(name))
    };
    let number = (1..10_000).find(|number| !used(*number))?;
    format!("{host}-{cluster}-db{number}").parse().ok()
}
