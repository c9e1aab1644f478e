//! The converge lane's part about seeds: a server whose source no longer has all transactions is given the data of
//! another one by CLONE.

use schemadock_schema::InstanceName;
use schemadock_schema::known::Known;
use schemadock_schema::status::{DataState, Phase, WaitKind};

use crate::data::{Kept, not_to_be_replaced};
use crate::observed::{CloneState, Seen, ServerSeen, Work};
use crate::record::{DataOrigin, Replacing};
use crate::standing::needs_seed;
use crate::step::{ConvergeStep as Step, Plan};
use crate::wish::{Member, Wish};

/// A CLONE that has begun: it ends, or is begun again.
pub(crate) fn seeding(wish: &Wish, seen: &Seen, server: &ServerSeen) -> Option<Plan<Step>> {
    let DataOrigin::Cloning { donor, .. } = &seen.record.data else {
        return None;
    };
    match &seen.seed {
        Work::Idle => {}
        Work::Running => {
            return Some(Plan::wait(WaitKind::Seed, donor, format!("its data come from {donor}")));
        }
        Work::Failed(why) => {
            let message = format!("the CLONE from {donor} is begun again after a pause: {why}");
            return Some(Plan::wait(WaitKind::Seed, donor, message));
        }
    }
    Some(match &seen.clone {
        Known::Unknown(why) => Plan::wait(WaitKind::Seed, donor, format!("how the CLONE ended: {why}")),
        Known::Present(clone) if clone.state == CloneState::Completed => Plan::Do(Step::FinishSeed),
        Known::Present(clone) if clone.state == CloneState::InProgress => {
            Plan::wait(WaitKind::Seed, donor, format!("its data come from {donor}"))
        }
        _ => match not_to_be_replaced(wish, seen) {
            Some(Kept::Unknown(plan)) => plan,
            Some(Kept::Leads) => Plan::refuse(
                "it leads, but its data were being replaced by a CLONE that did not end: let another lead",
            ),
            None => begin(wish, seen, server),
        },
    })
}

/// A server that cannot catch up from logs: its data are set aside if it has any, then it is seeded. Who leads must be
/// known to be somebody else.
pub(crate) fn seed(wish: &Wish, seen: &Seen, server: &ServerSeen) -> Option<Plan<Step>> {
    if not_to_be_replaced(wish, seen).is_some() {
        return None;
    }
    let why = needs_seed(seen, server)?;
    let plan = begin(wish, seen, server);
    let nothing_yet = seen.record.data == DataOrigin::Template && server.gtid_executed.is_empty();
    if nothing_yet || !matches!(plan, Plan::Do(_)) {
        return Some(plan);
    }
    // I4: only while the member that leads is seen to hold all that this one has.
    let Some(other) = seen.leader.present().or(seen.source.present()) else {
        let message = format!("{why}; whether another member holds all that it has is not known");
        return Some(Plan::wait(WaitKind::Donor, &wish.instance, message));
    };
    // What touches no row is no reason to keep data that cannot catch up (L7 b cannot settle it: it cannot attach).
    let harmless = seen.judged.as_ref().filter(|judged| judged.harmless);
    let known =
        harmless.map_or_else(Default::default, |judged| judged.gtids.clone()).union(&other.gtid_executed);
    if !known.contains(&server.received()) {
        return Some(Plan::refuse(format!(
            "{why}, and it has transactions that no other member is known to have"
        )));
    }
    Some(Plan::Do(Step::Replace { why: Replacing { asked: false, why } }))
}

fn begin(wish: &Wish, seen: &Seen, server: &ServerSeen) -> Plan<Step> {
    match choose_donor(wish, seen, server) {
        Some((donor, address, port)) => Plan::Do(Step::Seed { donor, address, port }),
        None => {
            let cluster = wish.grant.cluster.as_ref().map(ToString::to_string).unwrap_or_default();
            Plan::wait(WaitKind::Donor, cluster, "no live member of the same series can give its data")
        }
    }
}

fn same_series(one: &str, other: &str) -> bool {
    one.split('.').take(2).eq(other.split('.').take(2))
}

/// The live member that the data come from: a minion rather than the master. Where another cluster is followed: the
/// server that is followed.
fn choose_donor(wish: &Wish, seen: &Seen, server: &ServerSeen) -> Option<(InstanceName, String, u16)> {
    if let Some(source) = wish.source.as_ref().filter(|source| !source.own_cluster) {
        let found = seen.source.present().filter(|found| same_series(&found.version, &server.version))?;
        let fit = found.server_uuid != server.server_uuid;
        return fit.then_some((source.instance.clone()?, source.address.present()?.clone(), source.port));
    }
    let leader = wish.grant.record().and_then(|record| record.master.as_ref());
    let fit = |member: &&Member| {
        member.data == Some(DataState::Own)
            && member.phase == Some(Phase::Running)
            && member.version.as_deref().is_some_and(|version| same_series(version, &server.version))
            && (Some(&member.name) == leader || member.lag_seconds.is_none_or(|lag| lag < 60.0))
    };
    let donor = wish
        .enabled_others()
        .filter(|member| member.address.is_some())
        .filter(fit)
        .min_by_key(|member| (Some(&member.name) == leader, &member.name))?;
    Some((donor.name.clone(), donor.address.clone()?, donor.port))
}
