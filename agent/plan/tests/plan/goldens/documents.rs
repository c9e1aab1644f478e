//! What documents ask for, and who leads.

use schemadock_agent_plan::observed::*;
use schemadock_agent_plan::wish::*;
use schemadock_schema::known::Known;
use schemadock_schema::leadership::*;
use schemadock_schema::target::*;

use super::*;

#[test]
fn documents_of_a_minion() {
    insta::assert_snapshot!(show(vec![
        (
            "garbage",
            Case::minion().with(|_, wish| {
                let Wanted::Run(last) = wish.wanted.clone() else { unreachable!() };
                wish.wanted = Wanted::Unreadable { reason: "line 1".to_owned(), last: Some(last) };
            })
        ),
        (
            "garbage, and its server was killed",
            Case::minion().with(|seen, wish| {
                let Wanted::Run(last) = wish.wanted.clone() else { unreachable!() };
                wish.wanted = Wanted::Unreadable { reason: "line 1".to_owned(), last: Some(last) };
                ended(seen);
            })
        ),
        (
            "garbage, and never anything else",
            Case::new_minion().with(|_, wish| {
                wish.wanted = Wanted::Unreadable { reason: "line 1".to_owned(), last: None };
            })
        ),
        ("deleted", Case::minion().with(|_, wish| wish.wanted = Wanted::Deleted)),
        (
            "deleted, who leads is not known",
            Case::minion().with(|_, wish| {
                wish.wanted = Wanted::Deleted;
                wish.grant.leadership = unknown();
            })
        ),
        ("put back", Case::new_minion().with(|seen, _| seen.retired = vec![retired(STRANGER, true)])),
        ("disabled", Case::minion().document(|target| target.disabled = true)),
        ("enabled again", Case::minion().document(|target| target.disabled = true).played().document(|_| ())),
        ("another image", Case::minion().document(|target| target.image = Some("mysql:9.7".to_owned()))),
        ("another port", Case::minion().document(|target| target.port = 7336)),
        ("another size", Case::minion().document(|target| target.size = "half".parse().unwrap())),
        ("less memory, and what is resident fits", less_memory(90, false)),
        ("less memory, and the buffer pool has not given it back yet", less_memory(95, false)),
        ("less memory, and it stays resident", less_memory(95, true)),
        (
            "a variable",
            Case::minion().document(|target| {
                target.mysql.insert("max-connections".to_owned(), VariableValue::Integer(500));
            })
        ),
        (
            "a variable that Schemadock owns, written by hand",
            Case::minion().document(|target| {
                target.mysql.insert("super_read_only".to_owned(), VariableValue::Flag(false));
                target.mysql.insert("loose-read-only".to_owned(), VariableValue::Flag(false));
                target.mysql.insert("sync_binlog".to_owned(), VariableValue::Integer(0));
            })
        ),
        (
            "another master_host",
            Case::minion().document(|target| target.master_host = Some(host(3))).with(|seen, wish| {
                let source = wish.source.as_mut().unwrap();
                source.host = host(3);
                source.instance = Some(name(3));
                source.address = Known::Present(address(3));
                let mut third = master_seen();
                third.server_uuid = STRANGER.to_owned();
                third.writable = false;
                seen.source = Known::Present(third);
            })
        ),
        ("maintenance", Case::minion().document(|target| target.maintenance = true)),
        (
            "maintenance, and its server was killed",
            Case::minion().document(|target| target.maintenance = true).with(|seen, _| ended(seen))
        ),
        (
            "maintenance, and somebody made it writable",
            Case::minion()
                .document(|target| target.maintenance = true)
                .server(|server| server.super_read_only = false)
        ),
    ]));
}

#[test]
fn documents_of_the_leader() {
    let alone = |_: &mut Seen, wish: &mut Wish| wish.members.clear();
    let all_disabled = |_: &mut Seen, wish: &mut Wish| {
        wish.members.iter_mut().for_each(|member| member.disabled = true);
    };
    insta::assert_snapshot!(show(vec![
        ("deleted while others exist", Case::master().with(|_, wish| wish.wanted = Wanted::Deleted)),
        ("deleted as the last one", Case::master().with(|_, wish| wish.wanted = Wanted::Deleted).with(alone)),
        (
            "the same, while a controller changes the leadership",
            Case::master()
                .with(|_, wish| {
                    wish.wanted = Wanted::Deleted;
                    record(wish).phase = LeadershipPhase::Revoking;
                })
                .with(alone)
        ),
        ("put back after that", {
            let gone = Case::master().with(alone).with(|_, wish| wish.wanted = Wanted::Deleted).played();
            let uuid = gone.seen.retired[0].server_uuid.clone().unwrap();
            let mut back = Case::new_master().with(alone);
            back.wish.grant = gone.wish.grant;
            back.seen.retired = vec![retired(&uuid, true)];
            back
        }),
        ("disabled while others are enabled", Case::master().document(|target| target.disabled = true)),
        (
            "the same, and its server was killed",
            Case::master().document(|target| target.disabled = true).with(|seen, _| ended(seen))
        ),
        ("all disabled", Case::master().document(|target| target.disabled = true).with(all_disabled)),
        (
            "a stranger acknowledges",
            lossless(|seen| {
                server(seen).acknowledgers.insert("somebody".to_owned());
            })
        ),
        ("commits pass without an acknowledgement", lossless(|seen| seen.voting.unanswered = true)),
        ("its semi-sync hangs", lossless(|seen| seen.voting.hangs = true)),
        (
            "taken back, and what came from its successor is not applied",
            lossless(|seen| {
                let mut minion = Case::minion().seen;
                let mut early = channel(&mut minion).clone();
                let server = server(seen);
                (early.applier, early.retrieved) = (ThreadState::Off, gtids(&server.server_uuid, 99));
                (server.super_read_only, server.read_only) = (true, true);
                server.channel = Some(early);
            })
        ),
        (
            "its role says minion",
            Case::master().with(|_, wish| {
                wish.wanted = desired(1, &target(Role::Minion, Some(2)), None);
            })
        ),
        (
            "it has a master_host",
            Case::master().with(|_, wish| {
                wish.wanted = desired(1, &target(Role::Master, Some(2)), None);
            })
        ),
        ("another image", Case::master().document(|target| target.image = Some("mysql:9.7".to_owned()))),
        ("a restart is asked for", Case::master().with(|_, wish| wish.restart_asked = true)),
        (
            "paused, and somebody closed it",
            Case::master()
                .with(|_, wish| {
                    let policy = serde_json::from_value(serde_json::json!({"paused": true})).unwrap();
                    wish.wanted = desired(1, &target(Role::Master, None), Some(&policy));
                })
                .server(|server| server.read_only = true)
        ),
    ]));
}

#[test]
fn leadership_and_terms() {
    insta::assert_snapshot!(show(vec![
        (
            "who leads is not known, the leader restarts",
            Case::master().with(|seen, wish| {
                ended(seen);
                wish.grant.leadership = unknown();
            })
        ),
        (
            "a record that went back",
            Case::master().with(|seen, wish| {
                seen.record.accepted.as_mut().unwrap().term = 9;
                let _ = wish;
                server(seen).read_only = true;
            })
        ),
        (
            "a newer term, the same master",
            Case::minion().with(|_, wish| {
                let entry = record(wish).lineage[0].clone();
                record(wish).term = 2;
                record(wish).lineage.push(schemadock_schema::leadership::LineageEntry { term: 2, ..entry });
            })
        ),
        (
            "a newer term whose base is not executed yet",
            Case::minion().with(|seen, wish| {
                record(wish).lineage[0].base = gtids(MASTER_UUID, 20);
                server(seen).offline_mode = true;
            })
        ),
        (
            "a handover is under way",
            Case::minion().with(|_, wish| {
                record(wish).phase = LeadershipPhase::Handover;
                record(wish).term += 1;
            })
        ),
        (
            "the same, and somebody made the minion writable",
            Case::minion()
                .with(|_, wish| {
                    record(wish).phase = LeadershipPhase::Handover;
                    record(wish).term += 1;
                })
                .server(|server| (server.super_read_only, server.read_only) = (false, false))
        ),
        (
            "a minion was named, and has received more than it applied",
            Case::minion().with(|seen, wish| {
                let uuid = seen.record.server_uuid.clone().unwrap();
                let mut next = leadership(2, Some(2), &uuid, gtids(MASTER_UUID, 9));
                next.lineage.insert(0, record(wish).lineage[0].clone());
                wish.grant.leadership = Known::Present(next);
                (wish.source, wish.leader) = (None, None);
                server(seen).gtid_executed = gtids(MASTER_UUID, 5);
                channel(seen).retrieved = gtids(MASTER_UUID, 9);
                channel(seen).applier = ThreadState::Off;
                channel(seen).receiver = ThreadState::Off;
            })
        ),
        (
            "released, and it led last",
            Case::master().with(|seen, wish| {
                record(wish).master = None;
                ended(seen);
            })
        ),
        (
            "released, and another led last",
            Case::minion().with(|seen, wish| {
                record(wish).master = None;
                wish.wanted = desired(2, &target(Role::Master, None), None);
                wish.source = None;
                channel(seen);
            })
        ),
        (
            "roles swapped by hand: the minion's",
            Case::minion().with(|_, wish| {
                wish.wanted = desired(2, &target(Role::Master, None), None);
            })
        ),
    ]));
}

/// A minion that has twice the memory that it is to have, and occupies so many hundredths of that.
fn less_memory(hundredths: u64, lasting: bool) -> Case {
    Case::minion().with(|seen, _| {
        let Known::Present(container) = &mut seen.container else { unreachable!("it runs") };
        let bytes = container.memory / 100 * hundredths;
        container.memory *= 2;
        seen.resident = Known::Present(Resident { bytes, lasting });
    })
}

/// A master for whose commits one of two voters is enough.
fn lossless(found: impl FnOnce(&mut Seen)) -> Case {
    Case::master().with(|seen, wish| {
        (record(wish).durability, record(wish).acks) = (Durability::Lossless, 1);
        let server = server(seen);
        (server.semi_sync_source, server.acks.working) = (true, true);
        (server.acks.count, server.acks.clients) = (1, 2);
        found(seen);
    })
}
