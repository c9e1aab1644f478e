//! The standing lane: leadership, opening and closing, who follows whom, accounts.
//!
//! Nothing here waits for Docker, disk or a seed. Rules are named as in the project's leadership design (L1 …, S1 …).

use std::collections::BTreeSet;

use schemadock_schema::known::Known;
use schemadock_schema::leadership::{Leadership, LeadershipPhase};
use schemadock_schema::secrets::replication_user;
use schemadock_schema::status::WaitKind;
use schemadock_schema::target::Role;

use crate::accounts;
use crate::claim::{released, without_leadership};
use crate::config::EVENT_SCHEDULER;
use crate::desired::Desired;
use crate::foreign::{self, Found};
use crate::frozen;
use crate::handover;
use crate::observed::{ChannelSeen, Seen, ServerSeen, SourceSeen, Stopping, ThreadState};
use crate::record::DataOrigin;
use crate::step::{Plan, StandingStep as Step, Waiting};
use crate::voting;
use crate::wish::{SourceWish, Wanted, Wish};

/// MySQL: the source has purged what this replica asks for (as the receiver reports it).
const ER_SOURCE_FATAL_ERROR: u32 = 13114;
/// MySQL: the same, as the source itself says it.
const ER_PURGED: u32 = 1236;

/// The one next step of the standing lane.
pub fn plan(wish: &Wish, seen: &Seen) -> Plan<Step> {
    let server = match &seen.server {
        Known::Present(server) => server,
        Known::Absent => return Plan::wait(WaitKind::Server, &wish.instance, "the server does not run"),
        Known::Unknown(why) => {
            return Plan::wait(WaitKind::Server, &wish.instance, format!("the server: {why}"));
        }
    };
    match seen.stopping {
        Stopping::No => {}
        Stopping::Asked => return Plan::Do(Step::CloseToStop),
        Stopping::Closed { .. } => {
            return Plan::wait(WaitKind::Server, &wish.instance, "it is being stopped");
        }
    }
    if matches!(seen.record.data, DataOrigin::Cloning { .. }) {
        return Plan::wait(WaitKind::Seed, &wish.instance, "its data are being seeded");
    }
    match seen.record.server_uuid.as_deref() {
        None => return Plan::wait(WaitKind::Server, &wish.instance, "its identity is being recorded"),
        Some(recorded) if recorded != server.server_uuid => {
            return if server.writable() {
                Plan::Do(Step::Close { found: format!("data of {} open for writes", server.server_uuid) })
            } else {
                Plan::refuse(foreign_data(recorded, &server.server_uuid))
            };
        }
        Some(_) => {}
    }
    let Some(desired) = wish.desired() else {
        let message = match &wish.wanted {
            Wanted::Unreadable { reason, .. } => format!("its target cannot be read: {reason}"),
            Wanted::Run(_) | Wanted::Deleted => "its target is gone".to_owned(),
        };
        return Plan::wait(WaitKind::Target, &wish.instance, message);
    };
    match &wish.grant.leadership {
        Known::Unknown(_) => {
            Plan::wait(WaitKind::Etcd, "leadership", "who leads is not known until etcd answers")
        }
        Known::Absent => without_leadership(wish, desired, seen, server),
        Known::Present(record) => under(record, wish, desired, seen, server),
    }
}

/// What people read when a data directory is not the recorded one.
pub fn foreign_data(recorded: &str, found: &str) -> String {
    format!(
        "the data directory belongs to server_uuid {found}, expected {recorded}; nothing was deleted: put the \
         recorded data back, or `schemadock reseed` a minion"
    )
}

fn under(
    record: &Leadership,
    wish: &Wish,
    desired: &Desired,
    seen: &Seen,
    server: &ServerSeen,
) -> Plan<Step> {
    let accepted = seen.record.accepted.as_ref().filter(|accepted| accepted.cluster == desired.cluster);
    let accepted_term = accepted.map_or(0, |accepted| accepted.term);
    if record.term < accepted_term {
        // S2: a record that went back. What is open stays as it is, nothing opens.
        return Plan::refuse(format!(
            "etcd's leadership of {} is at term {}, but this member has accepted term {accepted_term}: the store went \
             back; compare with `schemadock fleet status`, then `schemadock fleet rebuild`",
            desired.cluster, record.term
        ));
    }
    let leads = wish.leads();
    // What has just won is open by its own success, whatever etcd's news still say.
    let won = seen.handover.won == Some(record.term) && record.phase == LeadershipPhase::Handover;
    if !leads && !server.closed() && !won {
        return Plan::Do(Step::Close { found: writable_minion(server) });
    }
    if record.is_released() {
        return released(record, wish, desired, seen, server);
    }
    if record.phase == LeadershipPhase::Handover {
        return handover::plan(record, wish, desired, seen, server);
    }
    if record.phase != LeadershipPhase::Steady {
        let phase = format!("{:?}", record.phase).to_lowercase();
        return Plan::wait(WaitKind::Controller, &desired.cluster, format!("its leadership is {phase}"));
    }
    let voted =
        seen.record.voted.as_ref().is_some_and(|v| v.cluster == desired.cluster && v.term == record.term);
    if accepted_term < record.term || !voted {
        return Plan::Do(Step::AcceptTerm { term: record.term });
    }
    if leads {
        lead(record, wish, desired, seen, server)
    } else {
        follow(Some(record), wish, desired, seen, server)
    }
}

pub(crate) fn writable_minion(server: &ServerSeen) -> String {
    let which = if server.read_only { "super_read_only" } else { "read_only" };
    format!("a minion with {which} off")
}

fn lead(record: &Leadership, wish: &Wish, desired: &Desired, seen: &Seen, server: &ServerSeen) -> Plan<Step> {
    let Some(led) = record.last_lineage() else {
        return Plan::refuse(format!(
            "etcd's leadership of {} names this instance and no server_uuid: nothing is opened on its word; compare \
             with `schemadock fleet status`",
            desired.cluster
        ));
    };
    if led.server_uuid != server.server_uuid {
        return Plan::refuse(foreign_data(&led.server_uuid, &server.server_uuid));
    }
    if let Some(channel) = server.channel.as_ref().filter(|_| !hands_off(desired)) {
        // L6: what was received of this cluster's masters is applied before its relay logs go.
        let unapplied = server.received().minus(&server.gtid_executed);
        let of_masters = record.lineage.iter().any(|led| !unapplied.of_uuid(&led.server_uuid).is_empty());
        if of_masters && !server.writable() {
            // Applied behind its own semi-sync it would wait for itself.
            if server.received_early() {
                return Plan::Do(Step::SemiSyncOff { found: format!("not applied: {unapplied}") });
            }
            return match channel.applier {
                ThreadState::Off => {
                    Plan::Do(Step::StartApplier { found: format!("not applied: {unapplied}") })
                }
                _ => Plan::wait(WaitKind::Applier, &wish.instance, "it applies what it received, then opens"),
            };
        }
        let found = format!("the master followed {}:{}", channel.host, channel.port);
        return Plan::Do(Step::ForgetSource { found });
    }
    if !server.writable() {
        if let Some(waiting) = held(desired) {
            return Plan::Wait(waiting);
        }
        // L2: a read from a store that is not ours is no linearizable read.
        if !wish.believes_store() {
            let message = match &wish.store {
                None => "etcd has not answered yet: nothing is opened on what is remembered",
                Some(_) => {
                    "this etcd is not believed: nothing is opened on its word; see `schemadock fleet status`"
                }
            };
            return Plan::wait(WaitKind::Etcd, "etcd", message);
        }
        // V2: fewer are wished since its opening began; what it waits for may never come.
        if server.acks_in_force() > record.acks_wanted() {
            return Plan::Do(Step::LowerAcks { acks: record.acks_wanted() });
        }
        if seen.voting.opening {
            // Who is counted may have changed since it began: one that was shut out may be needed now.
            let locks = voting::shut_out(record, wish, seen, server);
            let locks = locks.filter(|plan| matches!(plan, Plan::Do(_)));
            if let Some(plan) = locks.or_else(|| voting::nudge(seen, server)) {
                return plan;
            }
            let message = format!(
                "its opening waits for an acknowledgement of {}",
                voting::any_of(voting::staying(record))
            );
            return Plan::wait(WaitKind::Voters, &desired.cluster, message);
        }
        let never_open = matches!(seen.record.data, DataOrigin::Template) || server.offline_mode;
        let found = (!never_open).then(|| closed_master(server));
        return Plan::Do(Step::Open { term: record.term, found });
    }
    if seen.voting.unanswered && !hands_off(desired) {
        // Opened again by L2, with all that it verifies.
        let found = "commits were answered without an acknowledgement, and the record says lossless";
        return Plan::Do(Step::Close { found: found.to_owned() });
    }
    if let Some(plan) = events(desired, server, true) {
        return plan;
    }
    if let Some(step) = accounts_step(wish, desired, seen) {
        return step;
    }
    if !hands_off(desired)
        && let Some(plan) =
            voting::nudge(seen, server).or_else(|| voting::of_master(record, wish, seen, server))
    {
        return plan;
    }
    if let Some(plan) = frozen::step(wish, desired, seen) {
        return plan;
    }
    if let Some(plan) = events_of_the_last(record, seen).filter(|_| !hands_off(desired)) {
        return plan;
    }
    swapped_by_hand(wish, desired).unwrap_or(Plan::Converged)
}

/// Scheduled events run on the master alone, unless the documents say it otherwise. Not before it is open: one that is due
/// runs at once, and one that is to run once is gone after it has failed.
fn events(desired: &Desired, server: &ServerSeen, on: bool) -> Option<Plan<Step>> {
    let said = hands_off(desired) || desired.mysql.contains_key(EVENT_SCHEDULER);
    let found = (!on).then(|| "scheduled events ran where they are not to".to_owned());
    (!said && server.events != on).then_some(Plan::Do(Step::ScheduleEvents { on, found }))
}

/// A new master asks once which events ran on the one before.
fn events_of_the_last(record: &Leadership, seen: &Seen) -> Option<Plan<Step>> {
    let [.., before, now] = record.lineage.as_slice() else { return None };
    let other = before.name != now.name && seen.record.events_term != Some(now.term);
    other.then(|| Plan::Do(Step::TakeEvents { from: before.name.clone(), term: now.term }))
}

fn closed_master(server: &ServerSeen) -> String {
    if server.super_read_only { "the master was super_read_only" } else { "the master was read_only" }
        .to_owned()
}

pub(crate) fn hands_off(desired: &Desired) -> bool {
    desired.maintenance || desired.paused
}

/// Why nothing is mended now, if people asked for that.
pub fn held(desired: &Desired) -> Option<Waiting> {
    let (kind, name, message) = if desired.maintenance {
        (WaitKind::Maintenance, desired.instance.to_string(), "its target says maintenance")
    } else if desired.paused {
        (WaitKind::Paused, desired.cluster.to_string(), "its cluster is paused")
    } else {
        return None;
    };
    Some(Waiting { kind, name, message: message.to_owned() })
}

/// Roles in the documents that are not what leadership says wait for the controller.
fn swapped_by_hand(wish: &Wish, desired: &Desired) -> Option<Plan<Step>> {
    let leads = wish.leads();
    let says_master = desired.role == Role::Master;
    let message = match (leads, says_master) {
        (true, false) => "its target says minion, but it leads: a controller would make that a switchover",
        (true, true) if desired.source.is_some() => "it leads; the master_host in its target is ignored",
        (false, true) if desired.source.is_none() => {
            "its target says master, but another member leads: a controller would make that a switchover or a cut"
        }
        _ => return None,
    };
    Some(Plan::wait(WaitKind::Controller, &desired.cluster, message))
}

/// Accounts that are missing or were made with older credentials.
fn accounts_step(wish: &Wish, desired: &Desired, seen: &Seen) -> Option<Plan<Step>> {
    let secrets = wish.grant.secrets.present()?;
    let present = seen.accounts.present()?;
    if hands_off(desired) {
        return None;
    }
    let wanted = accounts::wanted(secrets, wish.followers.iter().copied());
    let missing: Vec<&str> = wanted
        .iter()
        .filter(|account| !present.iter().any(|have| have.user == account.user && have.host == account.host))
        .map(|account| account.user.as_str())
        .collect();
    let outdated = seen.accounts_version.is_some_and(|version| version != secrets.version);
    // Locks are the master's; they came here with a CLONE, or from a time when this one led.
    let locked = !wish.leads() && !voting::changes_of_locks(&BTreeSet::new(), present).1.is_empty();
    if missing.is_empty() && !outdated && !locked {
        return None;
    }
    // An account of a member that is new is no drift; the cluster's own three are.
    let dropped: Vec<&str> =
        missing.iter().copied().filter(|user| !user.starts_with("schemadock_r")).collect();
    let found = (!dropped.is_empty()).then(|| format!("account {} was missing", dropped.join(", ")));
    Some(Plan::Do(Step::EnsureAccounts { found }))
}

pub(crate) fn follow(
    record: Option<&Leadership>,
    wish: &Wish,
    desired: &Desired,
    seen: &Seen,
    server: &ServerSeen,
) -> Plan<Step> {
    if let Some(waiting) = held(desired) {
        return Plan::Wait(waiting);
    }
    if let Some(plan) = events(desired, server, false) {
        return plan;
    }
    let Some(source) = &wish.source else {
        return Plan::wait(WaitKind::Master, &desired.cluster, "nobody to follow");
    };
    let address = match &source.address {
        Known::Present(address) => address,
        _ => {
            let message = format!("master_host {} is not registered", source.host);
            return Plan::wait(WaitKind::Host, &source.host, message);
        }
    };
    if *address == desired.address && source.port == desired.port {
        return Plan::refuse(format!(
            "its target tells it to follow itself ({}:{})",
            source.host, source.port
        ));
    }
    // Harmless ones are settled once it is attached (L7 b: the other order deadlocks with two members).
    let mut harmless = None;
    match foreign::found(record, wish, seen, server) {
        Found::Nothing => {}
        Found::Unclear(waiting) => return Plan::Wait(waiting),
        Found::Some(gtids) => match foreign::step(record, wish, seen, server, &gtids) {
            Some(plan) => return plan,
            None => harmless = Some(gtids),
        },
    }
    let user = seen.record.server_id.map(replication_user).unwrap_or_default();
    let led = record.is_some_and(|r| r.lineage.iter().any(|led| led.server_uuid == server.server_uuid));
    // The new master opens first, where others acknowledge: a new channel makes everybody's disk wait, and clients that
    // are ended come back at once, all of them.
    let enough = record.is_none_or(|record| record.suffices_without(&wish.instance));
    let opens = seen.leader.present().is_some_and(|leader| !leader.writable);
    if led && server.channel.is_none() && opens && seen.handover.just_frozen && enough {
        return Plan::wait(WaitKind::Master, name_of(source), "its new master opens first");
    }
    // A former master's clients end before it is anybody's minion: half-open ones, too. It may receive already.
    if led && (server.channel.is_none() || server.received_early()) && !server.offline_mode {
        return Plan::Do(Step::StepDown);
    }
    let acknowledge = voting::acknowledges(record, wish, server);
    let plan = match &server.channel {
        None => attach(address, source, seen, server, acknowledge, None),
        Some(channel) if channel.host != *address || channel.port != source.port => {
            repoint(address, source, channel, seen, server, acknowledge)
        }
        Some(channel)
            if channel.user != user || !channel.auto_position || !channel.ssl || channel.delay > 0 =>
        {
            let found = "the channel's settings were changed".to_owned();
            // L6: a new channel throws the relay logs away: what is in them is applied first.
            if channel.applier == ThreadState::Off && !server.gtid_executed.contains(&channel.retrieved) {
                Plan::Do(Step::StartApplier { found })
            } else {
                attach(address, source, seen, server, acknowledge, Some(found))
            }
        }
        Some(channel) => threads(address, source, channel, seen, server, acknowledge),
    };
    if plan != Plan::Converged {
        return plan;
    }
    // While it is on, a former master's applier waits for acknowledgements that nobody gives, and read-only behind it.
    if server.semi_sync_source {
        return Plan::Do(Step::SemiSyncOff { found: "semi-sync towards replicas was on".to_owned() });
    }
    if let Some(gtids) = harmless {
        return foreign::settle(wish, seen, &gtids);
    }
    if let Some(step) = accounts_step(wish, desired, seen) {
        return step;
    }
    if let Some(base) = record.and_then(Leadership::last_lineage).map(|entry| &entry.base)
        && !server.gtid_executed.contains(base)
    {
        return Plan::wait(
            WaitKind::Applier,
            &wish.instance,
            "it applies what its master had when it opened",
        );
    }
    if server.offline_mode {
        return Plan::Do(Step::LiftOffline);
    }
    // It may wait for a reader, which a handover cannot: there it comes first.
    let frozen = frozen::step(wish, desired, seen).filter(|_| !wish.hands_over());
    frozen.or_else(|| swapped_by_hand(wish, desired)).unwrap_or(Plan::Converged)
}

fn attach(
    address: &str,
    source: &SourceWish,
    seen: &Seen,
    server: &ServerSeen,
    acknowledge: bool,
    found: Option<String>,
) -> Plan<Step> {
    match ready(source, seen, server) {
        Ok(_) => Plan::Do(Step::Attach { host: address.to_owned(), port: source.port, acknowledge, found }),
        Err(waiting) => Plan::Wait(waiting),
    }
}

fn repoint(
    address: &str,
    source: &SourceWish,
    channel: &ChannelSeen,
    seen: &Seen,
    server: &ServerSeen,
    acknowledge: bool,
) -> Plan<Step> {
    if let Err(waiting) = ready(source, seen, server) {
        return Plan::Wait(waiting);
    }
    let found = format!("it followed {}:{}", channel.host, channel.port);
    // L6: only a running applier keeps the relay logs over a change of address.
    if channel.applier == ThreadState::Off {
        return Plan::Do(Step::StartApplier { found });
    }
    Plan::Do(Step::Repoint { host: address.to_owned(), port: source.port, acknowledge, found })
}

fn threads(
    address: &str,
    source: &SourceWish,
    channel: &ChannelSeen,
    seen: &Seen,
    server: &ServerSeen,
    acknowledge: bool,
) -> Plan<Step> {
    if channel.applier == ThreadState::Off {
        let found = match &channel.applier_error {
            Some((number, text)) => format!("the applier had stopped: {number} {text}"),
            None => was_stopped("applier", server),
        };
        return Plan::Do(Step::StartApplier { found });
    }
    // A receiver that is off and may not start keeps no wrong switch either (L3).
    let runs = channel.receiver != ThreadState::Off;
    let waits = !runs && ready(source, seen, server).is_err();
    let in_effect = channel.receiver != ThreadState::On || server.acknowledging == acknowledge;
    if (runs || waits) && (server.semi_sync_replica != acknowledge || !in_effect) {
        return Plan::Do(Step::Acknowledge { on: acknowledge, restart: runs, found: None });
    }
    match channel.receiver {
        ThreadState::On => Plan::Converged,
        ThreadState::Connecting => {
            let why =
                channel.receiver_error.as_ref().map(|(n, text)| format!(": {n} {text}")).unwrap_or_default();
            Plan::wait(
                WaitKind::Master,
                name_of(source),
                format!("connecting to {address}:{}{why}", source.port),
            )
        }
        ThreadState::Off => match ready(source, seen, server) {
            Err(waiting) => Plan::Wait(waiting),
            Ok(_) => {
                let found = match &channel.receiver_error {
                    Some((number, text)) => format!("the receiver had stopped: {number} {text}"),
                    None => was_stopped("receiver", server),
                };
                Plan::Do(Step::StartReceiver { acknowledge, found })
            }
        },
    }
}

/// After a start both threads are off, and nobody has stopped them (L1).
fn was_stopped(thread: &str, server: &ServerSeen) -> String {
    match server.offline_mode {
        true => format!("the {thread} is not started with the server"),
        false => format!("the {thread} was stopped"),
    }
}

pub(crate) fn name_of(source: &SourceWish) -> String {
    match &source.instance {
        Some(instance) => instance.to_string(),
        None => format!("{}:{}", source.host, source.port),
    }
}

/// Whether the source can be attached to; else what is waited for.
pub(crate) fn ready<'a>(
    source: &SourceWish,
    seen: &'a Seen,
    server: &ServerSeen,
) -> Result<&'a SourceSeen, Waiting> {
    let wait = |kind, message: String| Waiting { kind, name: name_of(source), message };
    let found = match &seen.source {
        Known::Present(found) => found,
        Known::Absent => {
            return Err(wait(WaitKind::Master, "its master does not listen yet".to_owned()));
        }
        Known::Unknown(why) => return Err(wait(WaitKind::Master, format!("its master: {why}"))),
    };
    if found.server_uuid == server.server_uuid {
        return Err(wait(
            WaitKind::Person,
            "its master has the same server_uuid: one of them is a copy".to_owned(),
        ));
    }
    if !found.account {
        return Err(wait(WaitKind::Master, "its replication account is not there yet".to_owned()));
    }
    if needs_seed(seen, server).is_some() {
        return Err(wait(
            WaitKind::Donor,
            "its master no longer has all transactions: it must be seeded".to_owned(),
        ));
    }
    Ok(found)
}

/// Why this server cannot catch up from the logs of its source, if it cannot.
pub fn needs_seed(seen: &Seen, server: &ServerSeen) -> Option<String> {
    if let Some(found) = seen.source.present() {
        let lacks = found.gtid_purged.minus(&server.received());
        if !lacks.is_empty() {
            return Some(format!("its source has purged {lacks} from its binary log"));
        }
    }
    let error = server.channel.as_ref().and_then(|channel| channel.receiver_error.as_ref())?;
    let purged = matches!(error.0, ER_SOURCE_FATAL_ERROR | ER_PURGED) && seen.source.present().is_none();
    purged.then(|| format!("its source refused to send: {}", error.1))
}
