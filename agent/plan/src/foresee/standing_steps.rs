//! What the steps of the standing lane are expected to bring.

use schemadock_schema::gtid::Source;
use schemadock_schema::known::Known;
use schemadock_schema::leadership::{Handover, Leadership, Vote};

use super::{catches_up, channel, claim, wanted_accounts, with_channel, with_server};
use crate::observed::{
    BarrierSeen, ChannelSeen, FreezeSeen, FreezeState, Judged, Seen, ServerSeen, Stopping, ThreadState,
};
use crate::record::{AcceptedTerm, DataOrigin};
use crate::step::StandingStep;
use crate::voting;
use crate::wish::Wish;

pub(super) fn standing_step(seen: &mut Seen, wish: &mut Wish, step: &StandingStep) {
    use StandingStep as S;
    match step {
        S::AcceptTerm { term } => {
            let accepted = wish.grant.cluster.clone().map(|cluster| AcceptedTerm { cluster, term: *term });
            seen.record.accepted.clone_from(&accepted);
            seen.record.voted = accepted;
        }
        S::Claim => claim(seen, wish),
        S::Open { .. } => opens(seen, wish),
        S::Close { .. } => {
            with_server(seen, |server| {
                let follows = |channel: &ChannelSeen| channel.applier != ThreadState::Off;
                server.offline_mode |= !server.channel.as_ref().is_some_and(follows);
                (server.super_read_only, server.read_only) = (true, true);
            });
            seen.voting.unanswered = false;
        }
        S::CloseToStop => {
            with_server(seen, |server| {
                (server.offline_mode, server.super_read_only) = (true, true);
            });
            seen.stopping = Stopping::Closed { read_only_returned: true };
        }
        S::Attach { host, port, acknowledge, .. } => {
            seen.record.data = DataOrigin::Own;
            let channel = channel(seen, host, *port, ThreadState::On);
            with_server(seen, |server| {
                server.channel = Some(channel);
                (server.semi_sync_replica, server.acknowledging) = (*acknowledge, *acknowledge);
            });
            catches_up(seen);
        }
        S::Repoint { host, port, acknowledge, .. } => {
            receiver_acknowledges(seen, *acknowledge);
            let source = seen.source.present().map(|source| source.server_uuid.clone());
            with_channel(seen, |channel| {
                (channel.host, channel.port) = (host.clone(), *port);
                channel.receiver = ThreadState::On;
                channel.receiver_error = None;
                channel.source_uuid = source;
            });
            catches_up(seen);
        }
        S::StartReceiver { acknowledge, .. } => {
            receiver_acknowledges(seen, *acknowledge);
            with_channel(seen, |channel| {
                channel.receiver = ThreadState::On;
                channel.receiver_error = None;
            });
            catches_up(seen);
        }
        S::StartApplier { .. } => {
            with_channel(seen, |channel| {
                channel.applier = ThreadState::On;
                channel.applier_error = None;
            });
            catches_up(seen);
        }
        S::Detach { .. } => with_server(seen, |server| {
            server.offline_mode = true;
            if let Some(channel) = &mut server.channel {
                channel.receiver = ThreadState::Off;
            }
        }),
        S::ForgetSource { .. } => with_server(seen, |server| {
            server.channel = None;
            (server.semi_sync_replica, server.acknowledging) = (false, false);
        }),
        S::LiftOffline => with_server(seen, |server| server.offline_mode = false),
        S::EnsureAccounts { .. } => {
            seen.accounts = wanted_accounts(wish);
            seen.accounts_version = wish.grant.secrets.present().map(|secrets| secrets.version);
        }
        S::JudgeForeign => {
            let settled = wish.grant.record().map(|record| record.settled.clone()).unwrap_or_default();
            let other = seen.leader.present().or(seen.source.present());
            let other = other.map(|other| other.gtid_executed.clone()).unwrap_or_default();
            if let Known::Present(server) = &seen.server {
                let own = server.gtid_executed.of_uuid(&server.server_uuid);
                let gtids = own.minus(&other).minus(&settled);
                seen.judged = Some(Judged { gtids, harmless: true });
            }
        }
        S::SettleForeign => {
            let gtids = seen.judged.take().map(|judged| judged.gtids).unwrap_or_default();
            for other in [&mut seen.leader, &mut seen.source] {
                if let Known::Present(other) = other {
                    other.gtid_executed = other.gtid_executed.union(&gtids);
                }
            }
        }
        S::SemiSyncOff { .. } => with_server(seen, |server| waits_for(server, 0)),
        S::Acknowledge { on, restart, .. } => with_server(seen, |server| {
            (server.semi_sync_replica, server.acknowledging) = (*on, *on && *restart);
        }),
        S::LockReceivers { .. } => shut_out(seen, wish),
        S::EndReceivers { users } => {
            with_server(seen, |server| server.receivers.retain(|user| !users.contains(user)));
        }
        S::EndStrangers { users } => with_server(seen, |server| {
            server.receivers.retain(|user| !users.contains(user));
            server.acknowledgers.retain(|user| !users.contains(user));
        }),
        S::RaiseAcks { acks, .. } | S::LowerAcks { acks } => {
            with_server(seen, |server| waits_for(server, *acks));
        }
        S::Nudge => {
            seen.voting.stalled = false;
            seen.voting.opening = false;
        }
        S::Prepare { term } => {
            let cluster = wish.grant.cluster.clone();
            seen.record.accepted = cluster.map(|cluster| AcceptedTerm { cluster, term: *term });
            if wish.leads() {
                seen.record.voted.clone_from(&seen.record.accepted);
            }
            seen.handover.settled = true;
        }
        S::FollowCandidate { host, port } => {
            let early =
                ChannelSeen { applier: ThreadState::Off, ..channel(seen, host, *port, ThreadState::On) };
            with_server(seen, |server| server.channel = Some(early));
            receiver_acknowledges(seen, true);
        }
        S::MoveBehind { term } => {
            let accepted = wish.grant.cluster.clone().map(|cluster| AcceptedTerm { cluster, term: *term });
            seen.record.accepted.clone_from(&accepted);
            seen.record.voted = accepted;
            with_channel(seen, |channel| channel.receiver = ThreadState::Off);
        }
        S::Freeze { term } => {
            with_server(seen, |server| {
                (server.super_read_only, server.read_only, server.events) = (true, true, false);
            });
            published(seen, wish, *term);
        }
        S::PublishFinal { term } => published(seen, wish, *term),
        S::TakeBack { .. } => decided(seen, wish),
        S::TakeOver { executed, .. } => {
            with_server(seen, |server| {
                server.gtid_executed = server.gtid_executed.union(executed);
                if let Some(channel) = &mut server.channel {
                    channel.receiver = ThreadState::Off;
                }
                (server.semi_sync_replica, server.acknowledging) = (false, false);
            });
            decided(seen, wish);
            opens(seen, wish);
        }
        S::ScheduleEvents { on, .. } => with_server(seen, |server| server.events = *on),
        S::SetFrozen { flags, .. } => {
            seen.record.frozen.extend(flags.freeze.iter().cloned());
            seen.record.frozen.retain(|schema| !flags.thaw.contains(schema));
            if let Known::Present(schemas) = &mut seen.schemas {
                schemas.extend(flags.freeze.iter().map(|schema| (schema.clone(), true)));
                schemas.extend(flags.thaw.iter().map(|schema| (schema.clone(), false)));
            }
        }
        S::StepDown => with_server(seen, |server| server.offline_mode = true),
        S::TakeEvents { term, .. } => seen.record.events_term = Some(*term),
        S::BeginBarrier { revision } => {
            seen.voting.barrier = Some(BarrierSeen { revision: *revision, passed: true });
        }
    }
}

fn opens(seen: &mut Seen, wish: &Wish) {
    seen.record.data = DataOrigin::Own;
    seen.record.led_under = wish.grant.record().map(|record| record.durability);
    let acks = wish.grant.record().map_or(0, Leadership::acks_wanted);
    shut_out(seen, wish);
    with_server(seen, |server| {
        (server.offline_mode, server.super_read_only, server.read_only) = (false, false, false);
        waits_for(server, acks);
        // The marker.
        let own = Source { uuid: server.server_uuid.clone(), tag: None };
        let next = server.gtid_executed.of_uuid(&own.uuid).count() + 1;
        server.gtid_executed.insert(own, next, next);
    });
}

/// A frozen server's final set is its vote.
fn published(seen: &mut Seen, wish: &mut Wish, term: u64) {
    let (Known::Present(server), Some(cluster)) = (&seen.server, wish.grant.cluster.clone()) else { return };
    let vote = Vote {
        cluster,
        term,
        server_uuid: server.server_uuid.clone(),
        received: server.gtid_executed.clone(),
        executed: server.gtid_executed.clone(),
    };
    wish.votes.insert(wish.instance.clone(), vote);
    let state = FreezeState::Frozen { published: true, overdue: false };
    seen.handover.freeze = Some(FreezeSeen { term, state });
}

/// The decision falls for this server.
fn decided(seen: &mut Seen, wish: &mut Wish) {
    let (Known::Present(server), Some(record)) = (&seen.server, wish.grant.record()) else { return };
    let meant = record.with_handover(Some(&Handover {
        winner: wish.instance.clone(),
        server_uuid: server.server_uuid.clone(),
        base: server.gtid_executed.clone(),
    }));
    seen.handover.won = Some(meant.term);
    wish.grant.leadership = Known::Present(meant);
    wish.source = None;
}

fn receiver_acknowledges(seen: &mut Seen, on: bool) {
    with_server(seen, |server| (server.semi_sync_replica, server.acknowledging) = (on, on));
}

fn waits_for(server: &mut ServerSeen, acks: u32) {
    (server.semi_sync_source, server.acks.working) = (acks > 0, acks > 0);
    if acks > 0 {
        server.acks.count = acks;
    }
}

/// Accounts are locked as the record says, and whoever used them is gone.
fn shut_out(seen: &mut Seen, wish: &Wish) {
    let (Some(record), Known::Present(accounts)) = (wish.grant.record(), &mut seen.accounts) else { return };
    let own = seen.server.present().map(|server| server.server_id).unwrap_or_default();
    let Some(wanted) = voting::locked(record, wish, own, accounts) else { return };
    let (lock, unlock) = voting::changes_of_locks(&wanted, accounts);
    for account in accounts {
        account.locked = (account.locked || lock.contains(&account.user)) && !unlock.contains(&account.user);
    }
    with_server(seen, |server| server.receivers.retain(|user| !wanted.contains(user)));
}
