//! Transactions that a member has and its master lacks (L7).

use schemadock_schema::gtid::GtidSet;
use schemadock_schema::known::Known;
use schemadock_schema::leadership::{Durability, Leadership};
use schemadock_schema::status::WaitKind;

use crate::observed::{Seen, ServerSeen, SourceSeen, ThreadState};
use crate::standing::name_of;
use crate::step::{Plan, StandingStep as Step, Waiting};
use crate::wish::Wish;

/// What a comparison came to.
pub(crate) enum Found {
    /// Nothing is foreign, or there is nobody to compare with and the way to attach finds that out.
    Nothing,
    /// Only the member that leads can tell, and it is not known.
    Unclear(Waiting),
    /// These are.
    Some(GtidSet),
}

/// Compares with the server that leads, else with the source.
pub(crate) fn found(record: Option<&Leadership>, wish: &Wish, seen: &Seen, server: &ServerSeen) -> Found {
    let Some(reference) = seen.leader.present().or(seen.source.present()) else {
        return Found::Nothing;
    };
    let settled = record.map(|record| record.settled.clone()).unwrap_or_default();
    let own = server.received().minus(&reference.gtid_executed).minus(&settled);
    let own = own.minus(&arriving(wish, seen, server, reference)).minus(&unfinished(record, server));
    if own.is_empty() {
        return Found::Nothing;
    }
    // A source that is no master may itself be behind.
    let leader = record.and_then(|record| record.master.as_ref());
    let source = wish.source.as_ref().and_then(|source| source.instance.as_ref());
    if leader.is_some() && seen.leader.present().is_none() && source != leader {
        let name = leader.map(ToString::to_string).unwrap_or_default();
        let message = format!("whether {name} has {own} is not known until it answers");
        return Found::Unclear(Waiting { kind: WaitKind::Master, name, message });
    }
    Found::Some(own)
}

/// What comes over the channel at this moment can be here before the other side was asked again: while the channel
/// receives from the server that it is to follow, that is not foreign.
fn arriving(wish: &Wish, seen: &Seen, server: &ServerSeen, reference: &SourceSeen) -> GtidSet {
    let wished = wish.source.as_ref().and_then(|source| Some((source.address.present()?, source.port)));
    let channel = server.channel.as_ref().filter(|channel| {
        channel.receiver == ThreadState::On && wished == Some((&channel.host, channel.port))
    });
    let Some(channel) = channel else { return GtidSet::new() };
    let numbers = server.received().of_uuid(&reference.server_uuid);
    let from = channel.source_uuid.as_deref();
    let compared = seen.source.present().map(|source| source.server_uuid.as_str());
    if from.is_some() && from == compared { numbers.union(&channel.retrieved) } else { numbers }
}

/// What waits on the master for its acknowledgement is in its binary log, and with the voters, executed there too,
/// before the master counts it as executed (AFTER_SYNC): to drop it here would take the acknowledgement back. Where
/// nothing is acknowledged a master that has lost its tail in a crash may use the numbers again.
fn unfinished(record: Option<&Leadership>, server: &ServerSeen) -> GtidSet {
    let Some(record) = record.filter(|record| record.master.is_some()) else { return GtidSet::new() };
    let Some(led) = record.last_lineage() else { return GtidSet::new() };
    match record.durability {
        Durability::Async => {
            let retrieved = server.channel.as_ref().map(|channel| channel.retrieved.clone());
            retrieved.unwrap_or_default().of_uuid(&led.server_uuid)
        }
        Durability::Lossless | Durability::Alone => server.received().of_uuid(&led.server_uuid),
    }
}

/// What is done about them; none where they are harmless and do not keep it from attaching.
pub(crate) fn step(
    record: Option<&Leadership>,
    wish: &Wish,
    seen: &Seen,
    server: &ServerSeen,
    foreign: &GtidSet,
) -> Option<Plan<Step>> {
    let executed = foreign.minus(&foreign.minus(&server.gtid_executed));
    // L7 (a): only received, never executed: the relay logs go with a new channel.
    if executed.is_empty() && server.channel.is_some() {
        let found = format!("received {foreign}, which the master lacks");
        return Some(Plan::Do(Step::ForgetSource { found }));
    }
    let own = executed.of_uuid(&server.server_uuid) == *foreign;
    let led_before = seen.record.led_under.is_some()
        || record.is_some_and(|r| r.lineage.iter().any(|entry| entry.server_uuid == server.server_uuid));
    if own && !led_before {
        match seen.judged.as_ref().filter(|judged| judged.gtids == *foreign) {
            None => return Some(Plan::Do(Step::JudgeForeign)),
            Some(judged) if judged.harmless => return None,
            Some(_) => {}
        }
    }
    let receives = server.channel.as_ref().is_some_and(|c| c.receiver != ThreadState::Off);
    if receives || !server.offline_mode {
        return Some(Plan::Do(Step::Detach {
            found: format!("transactions {foreign}, which its master lacks"),
        }));
    }
    Some(Plan::refuse(format!(
        "it has transactions that its master lacks: {foreign}; it is not attached. Look at them with \
         `schemadock mysql {0}`, then `schemadock reseed {0}`",
        wish.instance
    )))
}

/// L7 (b), of a member that is attached.
pub(crate) fn settle(wish: &Wish, seen: &Seen, harmless: &GtidSet) -> Plan<Step> {
    match &seen.leader {
        Known::Present(leader) if leader.writable => Plan::Do(Step::SettleForeign),
        _ => {
            let name = wish.source.as_ref().map(name_of).unwrap_or_default();
            let message =
                format!("harmless transactions {harmless} are settled once its master takes writes");
            Plan::wait(WaitKind::Master, name, message)
        }
    }
}
