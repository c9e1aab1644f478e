//! A planned change of who leads (*Switchover*): the record says `handover`, and a key of its own decides how it ends.
//!
//! Nothing here ends a freeze but the decision: an agent's clock says when to try for it, the transaction says whether.

use schemadock_schema::InstanceName;
use schemadock_schema::leadership::{Leadership, LeadershipPhase, Vote, Voter};
use schemadock_schema::status::WaitKind;

use crate::desired::Desired;
use crate::frozen;
use crate::observed::{ChannelSeen, FreezeState, Seen, ServerSeen, ThreadState};
use crate::standing::{follow, foreign_data, name_of, ready};
use crate::step::{Plan, StandingStep as Step};
use crate::voting::{any_of, cluster_of};
use crate::wish::Wish;

/// The voters that move behind the candidate of a handover.
pub fn movers(record: &Leadership) -> impl Iterator<Item = &Voter> {
    record.movers(record.to.as_ref())
}

/// Whether this member moves behind the candidate.
pub fn moves(record: &Leadership, name: &InstanceName) -> bool {
    record.phase == LeadershipPhase::Handover && movers(record).any(|voter| voter.name == *name)
}

/// A member's vote in the record's term, by the data directory that is meant.
fn vote<'a>(wish: &'a Wish, record: &Leadership, name: &InstanceName, server_uuid: &str) -> Option<&'a Vote> {
    wish.votes.get(name).filter(|vote| is_of(vote, wish, record, server_uuid))
}

fn is_of(vote: &Vote, wish: &Wish, record: &Leadership, server_uuid: &str) -> bool {
    vote.term == record.term
        && Some(&vote.cluster) == wish.grant.cluster.as_ref()
        && vote.server_uuid == server_uuid
}

/// Whether this step of a handover is done on what is known: it must not wait for another look.
pub fn is_urgent(step: &Step) -> bool {
    matches!(step, Step::Freeze { .. } | Step::PublishFinal { .. } | Step::TakeOver { .. })
}

/// The next step of a member while the handover is not decided.
pub(crate) fn plan(
    record: &Leadership,
    wish: &Wish,
    desired: &Desired,
    seen: &Seen,
    server: &ServerSeen,
) -> Plan<Step> {
    let term = record.term;
    if seen.handover.won == Some(term) {
        return Plan::wait(
            WaitKind::Etcd,
            "leadership",
            "it has won the handover, and awaits the news of it",
        );
    }
    if !wish.believes_store() {
        return Plan::wait(
            WaitKind::Etcd,
            "etcd",
            "this etcd is not believed: nothing is handed over on its word",
        );
    }
    let Some(led) = record.last_lineage() else {
        return Plan::refuse(format!("the leadership of {} names no server_uuid", desired.cluster));
    };
    let of_term = |kept: &Option<crate::record::AcceptedTerm>| {
        kept.as_ref().is_some_and(|kept| kept.cluster == desired.cluster && kept.term == term)
    };
    let accepted = of_term(&seen.record.accepted);
    if wish.leads() {
        if led.server_uuid != server.server_uuid {
            return Plan::refuse(foreign_data(&led.server_uuid, &server.server_uuid));
        }
        if !accepted {
            return Plan::Do(Step::Prepare { term });
        }
        return hand_over(record, wish, seen, server);
    }
    if wish.is_candidate() {
        // At its opening they are only compared.
        if let Some(plan) = frozen::step(wish, desired, seen).filter(|_| !accepted) {
            return plan;
        }
        if !accepted {
            return Plan::Do(Step::Prepare { term });
        }
        let heard = seen.handover.heard.as_ref();
        let heard = heard.filter(|heard| is_of(heard, wish, record, &led.server_uuid));
        let written =
            || record.master.as_ref().and_then(|master| vote(wish, record, master, &led.server_uuid));
        return match heard.or_else(written) {
            Some(vote) => Plan::Do(Step::TakeOver { term, executed: vote.executed.clone() }),
            None => follow(Some(record), wish, desired, seen, server),
        };
    }
    let moves =
        movers(record).any(|voter| voter.name == wish.instance && voter.server_uuid == server.server_uuid);
    if moves && !of_term(&seen.record.voted) {
        return Plan::Do(Step::MoveBehind { term });
    }
    let source = wish.source.as_ref().and_then(|source| source.instance.as_ref());
    if of_term(&seen.record.voted) && source != record.to.as_ref() {
        // In this term it receives from the old master only if that one takes it back.
        return Plan::wait(WaitKind::Members, &desired.cluster, "where the candidate listens is not known");
    }
    // The others go on receiving from the old master, which needs their acknowledgements until it freezes.
    follow(Some(record), wish, desired, seen, server)
}

/// Whether this member leads, and receives from the candidate before it hands the leadership over.
pub fn receives_early(wish: &Wish) -> bool {
    wish.leads() && wish.grant.record().is_some_and(Leadership::needs_old_master)
}

/// Whether it does so now as it is to: it acknowledges, and nothing is applied.
pub fn is_behind_candidate(wish: &Wish, server: &ServerSeen) -> bool {
    let candidate = wish.source.as_ref().and_then(|source| Some((source.address.present()?, source.port)));
    server.channel.as_ref().is_some_and(|channel| {
        Some((&channel.host, channel.port)) == candidate
            && channel.applier == ThreadState::Off
            && channel.receiver == ThreadState::On
            && server.acknowledging
    })
}

/// The old master's way behind the candidate. Nothing else may come in once it is frozen: what is left of its own time as a
/// minion goes first. None: there is nothing to do.
fn follow_candidate(wish: &Wish, seen: &Seen, server: &ServerSeen) -> Option<Plan<Step>> {
    let forget = |channel: &ChannelSeen| {
        let found = format!("the master followed {}:{}", channel.host, channel.port);
        Some(Plan::Do(Step::ForgetSource { found }))
    };
    if !receives_early(wish) {
        return server.channel.as_ref().and_then(forget);
    }
    let place = wish.source.as_ref().and_then(|source| Some((source, source.address.present()?)));
    let Some((source, address)) = place else {
        return Some(Plan::wait(
            WaitKind::Members,
            &wish.instance,
            "where the candidate listens is not known",
        ));
    };
    match &server.channel {
        Some(_) if is_behind_candidate(wish, server) => None,
        // Begun a moment ago.
        Some(channel)
            if channel.applier == ThreadState::Off
                && channel.receiver == ThreadState::Connecting
                && (&channel.host, channel.port) == (address, source.port) =>
        {
            let message = format!("it connects to {} to receive from it", name_of(source));
            Some(Plan::wait(WaitKind::Members, name_of(source), message))
        }
        Some(channel) => forget(channel),
        None => Some(match ready(source, seen, server) {
            Ok(_) => Plan::Do(Step::FollowCandidate { host: address.clone(), port: source.port }),
            Err(waiting) => Plan::Wait(waiting),
        }),
    }
}

/// The movers that have not voted yet, or do not receive from the candidate: its opening is acknowledged by them, and would
/// wait for their way there.
pub fn not_moved<'a>(record: &'a Leadership, wish: &'a Wish) -> Vec<&'a InstanceName> {
    let member = |name: &InstanceName| wish.members.iter().find(|member| member.name == *name);
    let candidate = record.to.as_ref().and_then(member);
    let candidate = candidate.and_then(|candidate| Some((candidate.address.clone()?, candidate.port)));
    let attached = |name: &InstanceName| {
        candidate.is_some() && member(name).and_then(|member| member.receives_from.clone()) == candidate
    };
    movers(record)
        .filter(|voter| {
            vote(wish, record, &voter.name, &voter.server_uuid).is_none() || !attached(&voter.name)
        })
        .map(|voter| &voter.name)
        .collect()
}

/// The old master's part.
fn hand_over(record: &Leadership, wish: &Wish, seen: &Seen, server: &ServerSeen) -> Plan<Step> {
    let term = record.term;
    let to = record.to.as_ref().map(ToString::to_string).unwrap_or_default();
    let back = |why: &str| Plan::Do(Step::TakeBack { term, why: why.to_owned() });
    let late = "its deadline is past";
    match seen.handover.freeze.filter(|freeze| freeze.term == term).map(|freeze| freeze.state) {
        // Who froze it, and what was published then, nobody knows any more.
        None if !server.writable() => back("the server is closed, and not by this life of its agent"),
        None if seen.handover.late => back(late),
        None => {
            if let Some(plan) = follow_candidate(wish, seen, server) {
                return plan;
            }
            let missing = not_moved(record, wish);
            if !missing.is_empty() {
                let message =
                    format!("the handover to {to} waits until {} has moved", any_of(missing.into_iter()));
                return Plan::wait(WaitKind::Voters, cluster_of(wish), message);
            }
            if !seen.handover.settled {
                let message = format!("the handover to {to} waits until all who have moved are close behind");
                return Plan::wait(WaitKind::Voters, cluster_of(wish), message);
            }
            // A freeze waits for them, and everybody behind it.
            if seen.voting.stalled {
                let message = format!("the handover to {to} waits until commits are acknowledged at once");
                return Plan::wait(WaitKind::Voters, cluster_of(wish), message);
            }
            Plan::Do(Step::Freeze { term })
        }
        Some(FreezeState::GivenUp) => back("its writes did not come to an end"),
        Some(FreezeState::Frozen { overdue: true, .. }) => back("the other did not take over in time"),
        Some(FreezeState::Frozen { published: false, .. }) => Plan::Do(Step::PublishFinal { term }),
        Some(FreezeState::Frozen { .. }) => {
            Plan::wait(WaitKind::Members, &to, format!("it is frozen until {to} has taken over"))
        }
    }
}
