//! Since when something has been so: kept by the shell, so that plans stay a function of what they are given.

use std::collections::{BTreeMap, BTreeSet};

use schemadock_schema::{ClusterName, HostName, InstanceName, Timestamp};

use crate::cluster::Cluster;
use crate::view::FleetView;

/// Bounds of time, all in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// After this a voter that is away counts as lost: it leaves while enough copies are there.
    pub voter_lost: i64,
    /// A handover that was not decided by then is taken back by the old master's agent.
    pub handover: i64,
    /// How long an operation waits for one member to come up well before it gives up.
    pub member: i64,
    /// Where a policy names no `replace_after`: after this a member lost with its host is replaced.
    pub replace_after: i64,
    /// What durations that people give in seconds are multiplied with, in thousandths.
    pub scale: i64,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds { voter_lost: 2_000, handover: 10_000, member: 300_000, replace_after: 600_000, scale: 1_000 }
    }
}

impl Bounds {
    /// All of them scaled.
    pub fn scaled(factor: f64) -> Self {
        let of = |millis: i64| (millis as f64 * factor) as i64;
        let full = Bounds::default();
        Bounds {
            // What real servers need does not shrink with a test's patience.
            voter_lost: full.voter_lost,
            handover: full.handover,
            member: full.member,
            replace_after: of(full.replace_after),
            scale: of(full.scale),
        }
    }
}

/// Something that lasts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fact {
    /// A registered host whose agent does not live.
    HostGone(HostName),
    /// A voter of this cluster that does not receive from its master.
    VoterAway(ClusterName, InstanceName),
}

/// Since when facts hold, as this controller has seen it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Since {
    facts: BTreeMap<Fact, Timestamp>,
}

impl Since {
    /// Looks which facts hold now, of all hosts and of these clusters; of others nothing has changed.
    pub fn notice(&mut self, view: &FleetView, clusters: &BTreeSet<ClusterName>, now: Timestamp) {
        let gone = view.hosts.keys().filter(|host| !view.alive.contains(*host)).cloned().map(Fact::HostGone);
        let away = clusters.iter().flat_map(|name| {
            let away = away(&Cluster::of(view, name));
            away.into_iter().map(|voter| Fact::VoterAway(name.clone(), voter))
        });
        let held: BTreeSet<Fact> = gone.chain(away).collect();
        self.facts.retain(|fact, _| match fact {
            Fact::VoterAway(name, _) if !clusters.contains(name) => true,
            fact => held.contains(fact),
        });
        for fact in held {
            self.facts.entry(fact).or_insert(now);
        }
    }

    /// Forgets all: what was not looked at meanwhile may have ended and begun anew.
    pub fn clear(&mut self) {
        self.facts.clear();
    }

    /// Whether it holds.
    pub fn holds(&self, fact: &Fact) -> bool {
        self.facts.contains_key(fact)
    }

    /// Whether anything lasts in this cluster.
    pub fn knows(&self, cluster: &ClusterName) -> bool {
        self.facts.keys().any(|fact| matches!(fact, Fact::VoterAway(name, _) if name == cluster))
    }

    /// Whether it has held for longer than so many milliseconds.
    pub fn longer(&self, fact: &Fact, now: Timestamp, millis: i64) -> bool {
        self.facts.get(fact).is_some_and(|at| now.as_millisecond() - at.as_millisecond() >= millis)
    }

    /// The next moment after `now` at which one of them will have lasted as long as asked; so the plan is made again.
    pub fn next(&self, now: Timestamp, bounds: &Bounds) -> Option<Timestamp> {
        let due = self.facts.iter().map(|(fact, at)| {
            let lasting = match fact {
                Fact::HostGone(_) => bounds.replace_after,
                Fact::VoterAway(..) => bounds.voter_lost,
            };
            at.as_millisecond() + lasting
        });
        let next = due.filter(|at| *at > now.as_millisecond()).min()?;
        Timestamp::from_millisecond(next).ok()
    }
}

/// Voters that do not receive, as the agent of a living master of this term sees it, or as their own agents do: where
/// the network is cut, or a machine has lost its power, the master's side of the connection stays. Of one whose agent is
/// away it is believed only while commits wait. In a handover voters leave their master for the candidate: that is no loss,
/// also where it is taken back and they return.
fn away(cluster: &Cluster<'_>) -> Vec<InstanceName> {
    let master = cluster.master().filter(|master| master.alive).and_then(|master| master.status);
    let (Some(record), Some(status)) = (cluster.meant, master) else { return Vec::new() };
    if status.term != Some(record.term) {
        return Vec::new();
    }
    let waiting = status.commits_waiting.is_some_and(|sessions| sessions > 0);
    let moves = |name: &InstanceName| {
        let handed = !cluster.steady();
        handed
            && (record.to.as_ref() == Some(name)
                || record.movers(record.to.as_ref()).any(|m| m.name == *name))
    };
    let away = record.voters.iter().map(|voter| &voter.name).filter(|name| !moves(name)).filter(|name| {
        let member = cluster.members.get(*name);
        let source = member.and_then(|member| member.status).and_then(|status| status.source.as_ref());
        let hears = source.is_some_and(|source| source.io == "ON");
        let alive = member.is_some_and(|member| member.alive);
        !status.receivers.contains(name) || (alive && !hears) || (waiting && !alive)
    });
    away.cloned().collect()
}
