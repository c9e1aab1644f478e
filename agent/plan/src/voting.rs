//! Whose acknowledgements count, and for how many a commit waits (L3, L4, L5, L12, V2 to V5).
//!
//! etcd describes the weaker of old and new; a server puts it in force, in an order that never counts a member that the
//! record does not name, and says so by the record's revision.

use std::collections::BTreeSet;

use schemadock_schema::InstanceName;
use schemadock_schema::known::Known;
use schemadock_schema::leadership::{Durability, Leadership, LeadershipPhase};
use schemadock_schema::secrets::replication_user;
use schemadock_schema::status::WaitKind;

use crate::handover;
use crate::observed::{AccountSeen, Seen, ServerSeen, ThreadState};
use crate::step::{Plan, StandingStep as Step};
use crate::wish::{Member, Wish};

/// Whether this data directory is one of the voters, and not on its way out.
pub fn is_voter(record: &Leadership, name: &InstanceName, server_uuid: Option<&str>) -> bool {
    record.voters.iter().any(|voter| voter.name == *name && Some(voter.server_uuid.as_str()) == server_uuid)
        && !record.leaving.contains(name)
}

/// Whether a member follows the record's master, whatever its document says: a voter does, and one whose document still
/// names a former master. `named` is the instance that the document means.
fn follows_the_leader(record: &Leadership, name: &InstanceName, named: Option<&InstanceName>) -> bool {
    let counted = record.voters.iter().any(|voter| voter.name == *name) || record.leaving.contains(name);
    let led_before = named.is_some_and(|named| {
        record.master.as_ref() != Some(named) && record.lineage.iter().any(|led| led.name == *named)
    });
    counted || led_before
}

/// The instance that a member of the cluster follows by the record, where that stands above its document. A master does so
/// only in a handover to one that needs it at once.
pub fn source_by_record<'a>(
    record: &'a Leadership,
    name: &InstanceName,
    named: Option<&InstanceName>,
) -> Option<&'a InstanceName> {
    if record.master.as_ref() == Some(name) {
        return record.to.as_ref().filter(|_| record.needs_old_master());
    }
    if handover::moves(record, name) {
        return record.to.as_ref();
    }
    record.master.as_ref().filter(|_| follows_the_leader(record, name, named))
}

/// L3: whether the receiver of this member is to acknowledge what it gets from where it is to get it.
pub fn acknowledges(record: Option<&Leadership>, wish: &Wish, server: &ServerSeen) -> bool {
    let Some(record) = record else { return false };
    let source = wish.source.as_ref().and_then(|source| source.instance.as_ref());
    let moved = handover::moves(record, &wish.instance);
    let right = match record.phase {
        LeadershipPhase::Steady => source.is_some() && source == record.master.as_ref(),
        LeadershipPhase::Handover => {
            let from = if moved { record.to.as_ref() } else { record.master.as_ref() };
            source.is_some() && source == from
        }
        LeadershipPhase::Revoking => false,
    };
    right && record.acks_wanted() > 0 && is_voter(record, &wish.instance, Some(&server.server_uuid))
}

fn is_replication(user: &str) -> bool {
    user.strip_prefix("schemadock_r")
        .is_some_and(|id| !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit()))
}

/// Whether the record asks that members be shut out: nothing is counted under async.
fn shuts_out(record: &Leadership) -> bool {
    record.durability != Durability::Async && (record.acks_wanted() > 0 || !record.leaving.is_empty())
}

/// V3: whether a member must not be counted: it is leaving, or it is no voter and has not said that it does not
/// acknowledge.
fn departed(record: &Leadership, member: &Member) -> bool {
    record.leaving.contains(&member.name)
        || (!is_voter(record, &member.name, member.server_uuid.as_deref())
            && member.acknowledges.present() != Some(&false))
}

/// The accounts whose acknowledgements may count. A member that begins to vote does so before its master has read that.
pub fn counted(record: &Leadership, wish: &Wish) -> BTreeSet<String> {
    let stays = wish.members.iter().filter(|member| !departed(record, member));
    stays.filter_map(|member| member.server_id).map(replication_user).collect()
}

/// The replication accounts that are to be locked on the master, of those that are there; none while a member's report
/// was not read. One of no member and no follower known is locked, too: whose it is nobody can say.
pub fn locked(
    record: &Leadership,
    wish: &Wish,
    own: u32,
    accounts: &[AccountSeen],
) -> Option<BTreeSet<String>> {
    if !shuts_out(record) {
        return Some(BTreeSet::new());
    }
    if wish.members.iter().any(|member| member.acknowledges.is_unknown()) {
        return None;
    }
    let (out, stays): (Vec<&Member>, Vec<&Member>) =
        wish.members.iter().partition(|member| departed(record, member));
    let out: BTreeSet<u32> = out.iter().filter_map(|member| member.server_id).collect();
    let stays = stays.iter().filter_map(|member| member.server_id);
    // Its own account came with a CLONE, and nobody receives from himself.
    let followers = wish.followers.iter().copied().filter(|id| !out.contains(id));
    let admitted: BTreeSet<String> = stays.chain([own]).chain(followers).map(replication_user).collect();
    let all = accounts.iter().map(|account| &account.user).filter(|user| is_replication(user));
    Some(all.filter(|user| !admitted.contains(*user)).cloned().collect())
}

/// What is to be locked and unlocked, if anything is.
pub fn changes_of_locks(wanted: &BTreeSet<String>, accounts: &[AccountSeen]) -> (Vec<String>, Vec<String>) {
    let all = accounts.iter().filter(|account| is_replication(&account.user));
    let differing = all.filter(|account| account.locked != wanted.contains(&account.user));
    let (locked, unlocked): (Vec<&AccountSeen>, Vec<&AccountSeen>) =
        differing.partition(|account| account.locked);
    let users = |all: Vec<&AccountSeen>| all.into_iter().map(|account| account.user.clone()).collect();
    (users(unlocked), users(locked))
}

/// Voters that stay, for whom a barrier looks and of whom people read.
pub fn staying(record: &Leadership) -> impl Iterator<Item = &InstanceName> {
    record.voters.iter().map(|voter| &voter.name).filter(|name| !record.leaving.contains(name))
}

/// Names for people: `db2 or db3`.
pub(crate) fn any_of<'a>(names: impl Iterator<Item = &'a InstanceName>) -> String {
    let names: Vec<&str> = names.map(InstanceName::as_str).collect();
    if names.is_empty() { "a voter".to_owned() } else { names.join(" or ") }
}

/// Whether the change under way needs a barrier (V3). Where nothing is acknowledged there is nothing to look for.
fn needs_barrier(record: &Leadership) -> bool {
    record.acks_wanted() > 0 && (!record.leaving.is_empty() || record.acks_next.is_some())
}

/// The next step of an open master towards what its record says of voters; none: all of it is in force.
pub(crate) fn of_master(
    record: &Leadership,
    wish: &Wish,
    seen: &Seen,
    server: &ServerSeen,
) -> Option<Plan<Step>> {
    if server.may_acknowledge() {
        // L12: it is one switch for all channels.
        let found = "the master's receiver would acknowledge".to_owned();
        return Some(Plan::Do(Step::Acknowledge { on: false, restart: false, found: Some(found) }));
    }
    shut_out(record, wish, seen, server)
        .or_else(|| count(record, wish, server))
        .or_else(|| barrier(record, wish, seen))
}

/// Accounts of those who must not be counted are locked, their connections ended (V3).
pub(crate) fn shut_out(
    record: &Leadership,
    wish: &Wish,
    seen: &Seen,
    server: &ServerSeen,
) -> Option<Plan<Step>> {
    let Some(accounts) = seen.accounts.present() else {
        return shuts_out(record)
            .then(|| Plan::wait(WaitKind::Server, &wish.instance, "its accounts are not known yet"));
    };
    let Some(wanted) = locked(record, wish, server.server_id, accounts) else {
        return Some(Plan::wait(
            WaitKind::Members,
            wish.grant.cluster.as_ref().map(ToString::to_string).unwrap_or_default(),
            "who may still acknowledge is not known until all members' reports were read",
        ));
    };
    let (lock, unlock) = changes_of_locks(&wanted, accounts);
    if !lock.is_empty() || !unlock.is_empty() {
        return Some(Plan::Do(Step::LockReceivers { lock, unlock }));
    }
    let ended: Vec<String> = server.receivers.intersection(&wanted).cloned().collect();
    if !ended.is_empty() {
        return Some(Plan::Do(Step::EndReceivers { users: ended }));
    }
    // L12: what they acknowledge would count.
    let counted = counted(record, wish);
    let strangers: Vec<String> = server.acknowledgers.difference(&counted).cloned().collect();
    if !strangers.is_empty() && record.acks_wanted() > 0 {
        return Some(Plan::Do(Step::EndStrangers { users: strangers }));
    }
    // Under async nothing is locked; but what may be counted soon must be the voters' alone.
    let stray = wish.members.iter().find(|member| {
        let receives = member.server_id.is_some_and(|id| server.receivers.contains(&replication_user(id)));
        receives && departed(record, member)
    });
    let stray = stray.filter(|_| record.acks_next.is_some());
    stray.map(|member| {
        let message = format!("{} may acknowledge and is no voter", member.name);
        Plan::wait(WaitKind::Members, &member.name, message)
    })
}

fn count(record: &Leadership, wish: &Wish, server: &ServerSeen) -> Option<Plan<Step>> {
    let (wanted, now) = (record.acks_wanted(), server.acks_in_force());
    if now > wanted {
        return Some(Plan::Do(Step::LowerAcks { acks: wanted }));
    }
    if now == wanted {
        return None;
    }
    // What the record says already is a repair; what it only prepares would stop writes for nothing.
    let found = format!("a commit waited for {now} acknowledgements, expected {wanted}");
    let repair = now < record.acks;
    if !repair && server.acks.clients < wanted {
        let message = format!(
            "{} of {wanted} voters needed are connected: an acknowledgement of {} is waited for",
            server.acks.clients,
            any_of(staying(record))
        );
        return Some(Plan::wait(WaitKind::Voters, cluster_of(wish), message));
    }
    Some(Plan::Do(Step::RaiseAcks { acks: wanted, found: repair.then_some(found) }))
}

fn barrier(record: &Leadership, wish: &Wish, seen: &Seen) -> Option<Plan<Step>> {
    if !needs_barrier(record) {
        return None;
    }
    let Some(revision) = wish.grant.revision else {
        return Some(Plan::wait(WaitKind::Etcd, "leadership", "the change of its voters goes on with etcd"));
    };
    match seen.voting.barrier.filter(|barrier| barrier.revision == revision) {
        Some(barrier) if barrier.passed => None,
        Some(_) => {
            let message = format!(
                "the change of its voters waits until {} has what was committed before",
                any_of(staying(record))
            );
            Some(Plan::wait(WaitKind::Voters, cluster_of(wish), message))
        }
        None => Some(Plan::Do(Step::BeginBarrier { revision })),
    }
}

/// L13: a replica that holds a commit already and reconnects is never asked for it again; it is for the next one.
pub(crate) fn nudge(seen: &Seen, server: &ServerSeen) -> Option<Plan<Step>> {
    let enough = server.semi_sync_source && server.acks.clients >= server.acks_in_force();
    let due = seen.voting.stalled && !seen.voting.nudging && enough && !server.super_read_only;
    due.then_some(Plan::Do(Step::Nudge))
}

/// Its name, for what its voters are waited for. A member's own name there asks the controller to take it out (V5).
pub(crate) fn cluster_of(wish: &Wish) -> String {
    wish.grant.cluster.as_ref().map(ToString::to_string).unwrap_or_default()
}

/// The revision of the record that is wholly in force on this server.
pub fn revision_in_force(wish: &Wish, seen: &Seen) -> Option<i64> {
    let (record, server) = (wish.grant.record()?, seen.server.present()?);
    let revision = wish.grant.revision?;
    let own = seen.record.server_uuid.as_deref() == Some(&server.server_uuid);
    let accepted = seen.record.accepted.as_ref().is_some_and(|accepted| {
        Some(&accepted.cluster) == wish.grant.cluster.as_ref() && accepted.term == record.term
    });
    if !own || !accepted || record.phase != LeadershipPhase::Steady {
        return None;
    }
    let holds = if wish.leads() {
        let led = record.last_lineage().is_some_and(|led| led.server_uuid == server.server_uuid);
        led && server.writable()
            && server.channel.is_none()
            && of_master(record, wish, seen, server).is_none()
    } else if acknowledges(Some(record), wish, server) {
        let source = wish.source.as_ref().and_then(|source| Some((source.address.present()?, source.port)));
        let receives = server.channel.as_ref().is_some_and(|channel| {
            channel.receiver == ThreadState::On && Some((&channel.host, channel.port)) == source
        });
        receives && server.semi_sync_replica && server.acknowledging
    } else {
        !server.may_acknowledge()
    };
    holds.then_some(revision)
}

/// The members that receive from this server now.
pub fn receivers(wish: &Wish, server: &ServerSeen) -> Vec<InstanceName> {
    let receives = |member: &&Member| {
        member.server_id.is_some_and(|id| server.receivers.contains(&replication_user(id)))
    };
    wish.members.iter().filter(receives).map(|member| member.name.clone()).collect()
}

/// V5: what a voter waits for before its data go or its server stops; where every member is disabled nobody leaves.
pub(crate) fn must_leave_first<S>(wish: &Wish) -> Option<Plan<S>> {
    let record = match &wish.grant.leadership {
        Known::Present(record) => record,
        Known::Absent => return None,
        Known::Unknown(_) => {
            let message = "whether it is one of the voters is not known until etcd answers";
            return Some(Plan::wait(WaitKind::Etcd, "leadership", message));
        }
    };
    let own = wish.desired().is_none_or(|desired| desired.disabled);
    let all_stop = own && wish.enabled_others().next().is_none();
    let counted = record.voters.iter().any(|voter| voter.name == wish.instance);
    if record.durability == Durability::Async || !counted || all_stop {
        return None;
    }
    let message = "it is one of the voters: the controller takes it out of the voters first";
    Some(Plan::wait(WaitKind::Voters, &wish.instance, message))
}
