//! The rules of leadership and of data, as far as they can be stated on one next step.

use schemadock_agent_plan::config::is_for_first_start;
use schemadock_agent_plan::data::data_state;
use schemadock_agent_plan::foresee::Step;
use schemadock_agent_plan::handover::{movers, moves};
use schemadock_agent_plan::observed::{Seen, ServerSeen, ThreadState};
use schemadock_agent_plan::record::DataOrigin;
use schemadock_agent_plan::step::{ConvergeStep as C, StandingStep as S};
use schemadock_agent_plan::wish::{Wanted, Wish};
use schemadock_schema::known::Known;
use schemadock_schema::leadership::{Durability, Leadership, LeadershipPhase, Voter};
use schemadock_schema::status::{DataState, StoreState};

/// Whether a member is a voter that stays, and acknowledgements are asked for.
fn may_acknowledge(wish: &Wish, server: &ServerSeen) -> bool {
    wish.grant.record().is_some_and(|record| {
        let named = |voter: &Voter| voter.name == wish.instance && voter.server_uuid == server.server_uuid;
        let asked = record.acks > 0 || record.acks_next.is_some_and(|acks| acks > 0);
        asked && record.voters.iter().any(named) && !record.leaving.contains(&wish.instance)
    })
}

/// What a step breaks, if it does.
pub(crate) fn broken(seen: &Seen, wish: &Wish, step: &Step) -> Option<&'static str> {
    let held = wish.desired().is_some_and(|desired| desired.maintenance || desired.paused);
    let must = |holds: bool, rule: &'static str| (!holds).then_some(rule);
    let steady = wish.grant.steady();
    let leadership_known = !wish.grant.leadership.is_unknown();
    let server = seen.server.present();
    let record = wish.grant.record();
    let cluster = wish.grant.cluster.as_ref();
    let term = record.map_or(0, |record| record.term);
    let has = |term_of: &Option<schemadock_agent_plan::record::AcceptedTerm>| {
        term_of.as_ref().is_some_and(|own| Some(&own.cluster) == cluster && own.term == term)
    };
    let handing = record.is_some_and(|record| record.phase == LeadershipPhase::Handover);
    let named_in_it = wish.leads() || record.is_some_and(|r| r.to.as_ref() == Some(&wish.instance));
    let under_hold = |rule| must(!held, rule);
    match step {
        Step::Standing(step) => {
            let server = server?;
            let own_data = seen.record.server_uuid.as_deref() == Some(&server.server_uuid);
            match step {
                S::Open { term: opened, .. } => {
                    let led = record.and_then(|record| record.last_lineage());
                    must(wish.leads() && steady && *opened == term, "L2: opens without being named in steady")
                        .or(must(has(&seen.record.accepted), "L2: opens in a term not accepted"))
                        .or(must(has(&seen.record.voted), "L2: opens in a term not voted for"))
                        .or(must(
                            own_data && led.is_some_and(|led| led.server_uuid == server.server_uuid),
                            "L2: opens other data than those that were named",
                        ))
                        .or(must(server.channel.is_none(), "L2: opens while it follows"))
                        .or(under_hold("opens under maintenance"))
                }
                S::Claim => {
                    let free = record.is_none_or(|record| record.is_released());
                    let last = record.and_then(|record| record.last_lineage());
                    let again = last.is_some_and(|last| last.server_uuid == server.server_uuid);
                    let fresh =
                        seen.record.data == DataOrigin::Template
                            && seen.record.accepted.is_none()
                            && server.gtid_executed.is_empty()
                            && wish.members.iter().filter(|member| member.registered).all(|member| {
                                matches!(member.data, Some(DataState::None | DataState::Template))
                            });
                    let believed = wish.store.as_ref().is_some_and(|store| store.state == StoreState::Ok);
                    let follows = wish.desired().is_some_and(|desired| desired.source.is_some());
                    must(leadership_known && free && believed, "S1: claims what is not known to be free")
                        .or(must(fresh || again, "S1: claims with data that are not new"))
                        .or(must(own_data && !follows, "S1: claims although it is to follow"))
                        .or(must(matches!(wish.wanted, Wanted::Run(_)), "claims on the word of garbage"))
                        .or(under_hold("claims under maintenance"))
                }
                S::AcceptTerm { term: accepted } => {
                    let before = seen.record.accepted.as_ref().filter(|own| Some(&own.cluster) == cluster);
                    must(
                        *accepted == term && before.is_none_or(|own| own.term <= term),
                        "I3: a term goes back",
                    )
                }
                S::Attach { acknowledge, .. }
                | S::Repoint { acknowledge, .. }
                | S::StartReceiver { acknowledge, .. } => {
                    let reference = seen.leader.present().or(seen.source.present());
                    let foreign = reference.map(|other| {
                        let own = server.received().minus(&other.gtid_executed);
                        let settled = record.map(|r| r.settled.clone()).unwrap_or_default();
                        let harmless = seen.judged.as_ref().filter(|judged| judged.harmless);
                        let harmless = harmless.map(|judged| judged.gtids.clone()).unwrap_or_default();
                        // What comes from the right server at this moment may be newer than the look at it.
                        let right = wish.source.as_ref().and_then(|s| Some((s.address.present()?, s.port)));
                        let arriving = server.channel.as_ref().filter(|channel| {
                            channel.receiver == ThreadState::On
                                && right == Some((&channel.host, channel.port))
                        });
                        // So may be what that server numbers itself, applied already.
                        let numbers = server.received().of_uuid(&other.server_uuid);
                        let arriving =
                            arriving.map(|channel| channel.retrieved.union(&numbers)).unwrap_or_default();
                        // And what waits there for its acknowledgement.
                        let led = record.filter(|r| r.master.is_some()).and_then(|r| r.last_lineage());
                        let retrieved = server.channel.as_ref().map(|c| c.retrieved.clone());
                        let unfinished = led
                            .map(|led| retrieved.unwrap_or_default().of_uuid(&led.server_uuid))
                            .unwrap_or_default();
                        own.minus(&settled).minus(&harmless).minus(&arriving).minus(&unfinished)
                    });
                    must(!wish.leads(), "the leader follows")
                        .or(must(!acknowledge || may_acknowledge(wish, server), "L3: acknowledges unasked"))
                        .or(must(leadership_known, "L3: attaches without knowing who leads"))
                        .or(must(
                            !handing
                                || !has(&seen.record.voted)
                                || wish.source.as_ref().and_then(|source| source.instance.as_ref())
                                    == record.and_then(|record| record.to.as_ref()),
                            "receives from the old master after its vote",
                        ))
                        .or(must(foreign.is_some_and(|foreign| foreign.is_empty()), "L7: attaches unjudged"))
                        .or(must(
                            record.is_none() || has(&seen.record.voted) || handing,
                            "L3: attaches before its vote",
                        ))
                        .or(under_hold("attaches under maintenance"))
                }
                S::ForgetSource { .. } => {
                    // L6: only what was applied, or what the master lacks, may go.
                    let lost = server.received().minus(&server.gtid_executed);
                    let of_masters = record.is_some_and(|r| {
                        r.lineage.iter().any(|led| !lost.of_uuid(&led.server_uuid).is_empty())
                    });
                    must(
                        !(wish.leads() && !server.writable() && of_masters),
                        "L6: throws away what was received",
                    )
                    .or(under_hold("forgets its source under maintenance"))
                }
                S::LiftOffline => {
                    let channel = server.channel.as_ref();
                    let attached = channel.is_some_and(|channel| {
                        channel.receiver == ThreadState::On && channel.applier == ThreadState::On
                    });
                    let base = record.and_then(|r| r.last_lineage()).map(|led| led.base.clone());
                    must(attached && !wish.leads(), "L1: takes clients without following").or(must(
                        base.is_none_or(|base| server.gtid_executed.contains(&base)),
                        "L10: takes clients before it has the base",
                    ))
                }
                S::SemiSyncOff { .. } => {
                    let follows = !wish.leads() || server.received_early();
                    must(follows && server.closed(), "L5: semi-sync off on a server that may write")
                        .or(under_hold("mends under maintenance"))
                }
                S::LowerAcks { acks } => must(
                    steady
                        && wish.leads()
                        && record.is_some_and(|r| r.acks.max(r.acks_next.unwrap_or(0)) == *acks),
                    "L5: waits for fewer than the record says",
                )
                .or(under_hold("mends under maintenance")),
                S::RaiseAcks { acks, .. } => must(
                    steady && wish.leads() && server.acks_in_force() < *acks,
                    "L4: raises what is not lower",
                )
                .or(under_hold("mends under maintenance")),
                S::Acknowledge { on, .. } => must(
                    !on || ((steady || handing) && may_acknowledge(wish, server)),
                    "L3: acknowledges unasked",
                )
                .or(under_hold("mends under maintenance")),
                S::LockReceivers { lock, .. } => must(
                    wish.leads()
                        && steady
                        && record
                            .is_some_and(|record| lock.is_empty() || record.durability != Durability::Async),
                    "V3: locks under async, or where it does not lead",
                )
                .or(must(
                    record.is_some_and(|record| {
                        record.voters.iter().all(|voter| {
                            let member = wish.members.iter().find(|m| m.name == voter.name);
                            let id = member
                                .filter(|m| m.server_uuid.as_ref() == Some(&voter.server_uuid))
                                .and_then(|m| m.server_id);
                            record.leaving.contains(&voter.name)
                                || !id.is_some_and(|id| lock.contains(&format!("schemadock_r{id}")))
                        })
                    }),
                    "V3: locks a voter that stays out",
                ))
                .or(under_hold("locks under maintenance")),
                S::EndStrangers { .. } | S::EndReceivers { .. } => {
                    must(wish.leads() && steady, "ends receivers of another's")
                }
                S::BeginBarrier { .. } => must(
                    wish.leads()
                        && steady
                        && server.writable()
                        && record.is_some_and(|record| {
                            server.acks_in_force() == record.acks.max(record.acks_next.unwrap_or(0))
                        }),
                    "V3: looks behind a barrier before the larger count is in force",
                ),
                S::EnsureAccounts { .. } => {
                    must(!(wish.leads() && server.super_read_only), "L1: lifts super_read_only of the leader")
                        .or(under_hold("makes accounts under maintenance"))
                }
                S::SettleForeign => must(
                    seen.judged.as_ref().is_some_and(|judged| judged.harmless),
                    "L7: settles what nobody found harmless",
                ),
                S::Prepare { term: accepted } => {
                    let before = seen.record.accepted.as_ref().filter(|own| Some(&own.cluster) == cluster);
                    must(handing && *accepted == term, "prepares what is no handover")
                        .or(must(before.is_none_or(|own| own.term <= term), "I3: a term goes back"))
                        .or(must(named_in_it, "accepts a term without moving"))
                }
                S::FollowCandidate { .. } => must(handing && wish.leads() && own_data, "is no old master")
                    .or(must(has(&seen.record.accepted), "follows in a term that is not on its disk"))
                    .or(must(server.channel.is_none(), "L6: throws away what was received"))
                    .or(must(
                        record.is_some_and(Leadership::needs_old_master),
                        "the old master acknowledges, and nobody needs it",
                    )),
                S::MoveBehind { .. } => must(handing && !wish.leads(), "moves behind nobody").or(must(
                    record.is_some_and(|record| moves(record, &wish.instance)),
                    "a voter moves whose acknowledgement is needed",
                )),
                S::Freeze { .. } => must(handing && wish.leads() && own_data, "freezes what does not lead")
                    .or(must(has(&seen.record.accepted), "freezes in a term that is not on its disk"))
                    .or(must(
                        server.channel.as_ref().is_none_or(|channel| {
                            record.is_some_and(Leadership::needs_old_master)
                                && channel.applier == ThreadState::Off
                        }),
                        "freezes while it follows",
                    ))
                    .or(must(
                        record.is_some_and(|record| {
                            movers(record).all(|voter| {
                                wish.votes.get(&voter.name).is_some_and(|vote| {
                                    vote.term == term && vote.server_uuid == voter.server_uuid
                                })
                            })
                        }),
                        "freezes before all have moved",
                    )),
                S::PublishFinal { .. } => must(
                    handing && wish.leads() && server.closed() && seen.handover.freeze.is_some(),
                    "publishes a set that is not final",
                ),
                S::TakeBack { .. } => must(
                    handing && wish.leads() && own_data && has(&seen.record.accepted),
                    "takes back what it did not lead",
                ),
                S::TakeOver { executed, .. } => must(
                    handing && record.is_some_and(|record| record.to.as_ref() == Some(&wish.instance)),
                    "takes over unasked",
                )
                .or(must(own_data && has(&seen.record.accepted), "takes over in a term not accepted"))
                .or(must(
                    record.and_then(|record| record.master.as_ref()).is_some_and(|master| {
                        let written = wish.votes.get(master);
                        let mut told = written.into_iter().chain(&seen.handover.heard);
                        told.any(|vote| {
                            vote.term == term
                                && record.and_then(Leadership::last_lineage).map(|led| &led.server_uuid)
                                    == Some(&vote.server_uuid)
                                && Some(&vote.cluster) == wish.grant.cluster.as_ref()
                                && vote.executed == *executed
                        })
                    }),
                    "takes over without the final set",
                )),
                S::Nudge => {
                    must(wish.leads() && steady && !handing, "L13: a marker while a freeze is pending")
                }
                S::ScheduleEvents { on, .. } => must(
                    !on || wish.leads() && seen.server.present().is_some_and(|server| server.writable()),
                    "lets events run where it does not lead",
                ),
                S::SetFrozen { flags, .. } => must(
                    !wish.leads() || seen.server.present().is_some_and(|server| !server.super_read_only),
                    "L1: lifts super_read_only of the server that leadership names",
                )
                .or(must(
                    wish.desired().is_some_and(|desired| {
                        flags.freeze.is_subset(&desired.frozen) && flags.thaw.is_disjoint(&desired.frozen)
                    }),
                    "freezes or thaws what the policy does not say",
                ))
                .or(must(flags.thaw.is_subset(&seen.record.frozen), "thaws what it did not freeze"))
                .or(must(
                    flags.thaw.is_empty() || wish.believes_store() && wish.policy_revision.is_some(),
                    "I6: thaws on what is remembered",
                ))
                .or(under_hold("freezes under maintenance")),
                S::StepDown => must(!wish.leads(), "ends the clients of the leader"),
                S::TakeEvents { .. } => must(
                    wish.leads() && seen.server.present().is_some_and(|server| server.writable()),
                    "turns events on where it does not lead",
                ),
                S::Close { .. }
                | S::CloseToStop
                | S::StartApplier { .. }
                | S::Detach { .. }
                | S::JudgeForeign => None,
            }
        }
        Step::Converge(step) => {
            let kept = |rule| {
                let led_last = record.filter(|record| record.is_released()).and_then(|r| r.last_lineage());
                let uuid = seen.record.server_uuid.as_ref();
                must(leadership_known, "destroys while who leads is unknown")
                    .or(must(!wish.leads(), rule))
                    .or(must(led_last.is_none_or(|led| Some(&led.server_uuid) != uuid), rule))
            };
            match step {
                C::CopyTemplate => kept("I4: a leader's data from the template")
                    .or(must(!seen.data.is_unknown(), "copies over data that nobody could look at"))
                    .or(must(
                        seen.data.is_absent() || seen.record.data == DataOrigin::Copying,
                        "copies over data that are there",
                    ))
                    .or(must(seen.process.is_absent(), "copies under a living server"))
                    .or(under_hold("makes data under maintenance")),
                C::Replace { why } => kept("I4: a leader's data are replaced")
                    .or(must(!seen.data.is_unknown() || why.asked, "replaces data that nobody could look at"))
                    .or(under_hold("replaces data under maintenance")),
                C::KeepData { .. } => must(
                    leadership_known && kept("leads").is_some(),
                    "a replacement is given up although it does not lead",
                ),
                C::SetAside => {
                    let asked_for = wish.wanted == Wanted::Deleted;
                    let kept = if asked_for { None } else { kept("I4: a leader's data are set aside") };
                    kept.or(must(
                        leadership_known || cluster.is_none(),
                        "sets aside without knowing who leads",
                    ))
                    .or(must(seen.container.is_absent(), "sets data aside under a container"))
                    .or(must(seen.process.is_absent(), "sets data aside under a server"))
                    .or(must(
                        !wish.leads() || wish.members.is_empty(),
                        "I4: the leader's data are set aside while others exist",
                    ))
                    .or(under_hold("sets data aside under maintenance"))
                }
                C::Seed { .. } => {
                    kept("I4: a CLONE into the leader").or(under_hold("seeds under maintenance")).or(must(
                        matches!(seen.record.data, DataOrigin::Cloning { .. })
                            || (seen.record.data == DataOrigin::Template
                                && server.is_some_and(|server| server.gtid_executed.is_empty())),
                        "a CLONE into data that are not new",
                    ))
                }
                C::AdoptData => must(
                    data_state(wish, seen) == DataState::Own,
                    "takes data for its own that nobody remembers",
                ),
                C::Stop { why } => {
                    // Where every member is to stop, it does not matter who leads.
                    let all_stop = wish.desired().is_some_and(|desired| desired.disabled)
                        && wish.enabled_others().next().is_none();
                    let of_document = why.contains("target") && !all_stop;
                    must(
                        !of_document || leadership_known || cluster.is_none() || wish.members.is_empty(),
                        "stops for its target without knowing who leads",
                    )
                    .or(must(
                        !(of_document && wish.leads() && wish.enabled_others().next().is_some()),
                        "the leader is stopped while others are enabled",
                    ))
                    .or(under_hold("stops under maintenance"))
                }
                C::EndLost => must(
                    !matches!(seen.server, Known::Unknown(_))
                        || seen.stopping != schemadock_agent_plan::observed::Stopping::No,
                    "ends a server that may be serving",
                )
                .or(under_hold("ends a server under maintenance")),
                C::CreateContainer => must(
                    seen.container.is_absent() && seen.process.is_absent(),
                    "a second server on one directory",
                )
                .or(under_hold("makes a container under maintenance")),
                C::StartContainer { .. } => {
                    must(seen.process.is_absent(), "a second server on one directory")
                        .or(must(seen.config.is_some(), "starts without a file"))
                        .or(must(
                            seen.record.server_uuid.is_some()
                                || seen.init && seen.config.as_deref().is_some_and(is_for_first_start),
                            "a first start without the statements that lock root",
                        ))
                        .or(must(seen.data.present().is_some(), "starts without data"))
                        .or(under_hold("starts under maintenance"))
                }
                C::RestoreConfig { .. } => {
                    must(seen.record.server_uuid.is_some(), "a first start with the file of other data")
                }
                C::RemoveContainer { .. } => must(!seen.container_runs(), "removes a container that runs")
                    .or(must(seen.process.is_absent(), "removes the container of a server that may live")),
                C::Unpause => under_hold("thaws under maintenance"),
                C::SetVariable { name, .. } => must(
                    !name.contains("read_only") && name != "offline_mode" && !name.ends_with("_enabled"),
                    "L1: the converge lane opens or closes",
                ),
                C::WriteConfig { config } => must(
                    ["offline_mode", "read_only", "super_read_only", "skip_replica_start"]
                        .iter()
                        .all(|name| config.get(name) == Some("ON"))
                        && config.options().all(|(name, _)| !name.contains('-') && !name.contains('\n')),
                    "L1: a file with which the server would start open",
                ),
                C::Release => must(
                    wish.leads() && steady && wish.members.is_empty() && seen.data.is_absent(),
                    "releases a leadership that somebody needs",
                ),
                C::Forget => must(
                    !wish.leads() && seen.data.is_absent() && seen.container.is_absent(),
                    "forgets what is still there",
                ),
                _ => None,
            }
        }
    }
}
