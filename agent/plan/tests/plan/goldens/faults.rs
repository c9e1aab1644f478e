//! What faults and people leave behind.

use schemadock_agent_plan::observed::*;
use schemadock_agent_plan::record::*;
use schemadock_agent_plan::wish::*;
use schemadock_schema::gtid::GtidSet;
use schemadock_schema::known::Known;
use schemadock_schema::target::*;

use super::*;

#[test]
fn drift() {
    insta::assert_snapshot!(show(vec![
        ("killed", Case::minion().with(|seen, _| ended(seen))),
        (
            "container removed",
            Case::minion().with(|seen, _| {
                ended(seen);
                seen.container = Known::Absent;
            })
        ),
        (
            "container paused",
            Case::master().with(|seen, _| {
                container(seen).state = ContainerState::Paused;
                seen.server = unknown();
            })
        ),
        (
            "both threads stopped",
            Case::minion().with(|seen, _| {
                channel(seen).receiver = ThreadState::Off;
                channel(seen).applier = ThreadState::Off;
            })
        ),
        ("pointed elsewhere", Case::minion().with(|seen, _| channel(seen).host = "10.9.9.9".to_owned())),
        (
            "pointed elsewhere, applier stopped",
            Case::minion().with(|seen, _| {
                channel(seen).host = "10.9.9.9".to_owned();
                channel(seen).applier = ThreadState::Off;
            })
        ),
        (
            "delayed, applier stopped",
            Case::minion().with(|seen, _| {
                channel(seen).delay = 3600;
                channel(seen).applier = ThreadState::Off;
                channel(seen).retrieved = gtids(MASTER_UUID, 9);
                server(seen).gtid_executed = gtids(MASTER_UUID, 4);
            })
        ),
        ("channel forgotten", Case::minion().server(|server| server.channel = None)),
        (
            "minion made writable",
            Case::minion().server(|server| {
                (server.super_read_only, server.read_only) = (false, false);
            })
        ),
        ("master made read-only", Case::master().server(|server| server.super_read_only = true)),
        (
            "master made to follow",
            Case::minion().with(|seen, wish| {
                let uuid = seen.record.server_uuid.clone().unwrap();
                wish.grant.leadership = Known::Present(leadership(1, Some(2), &uuid, GtidSet::new()));
                wish.source = None;
                let server = server(seen);
                (server.super_read_only, server.read_only) = (false, false);
            })
        ),
        ("semi-sync switched on", Case::master().server(|server| server.semi_sync_source = true)),
        (
            "a setting changed",
            Case::minion().with(|seen, _| {
                seen.differing =
                    Known::Present(vec![("sync_binlog".to_owned(), "1".to_owned(), "0".to_owned())]);
            })
        ),
        (
            "an account dropped",
            Case::minion().with(|seen, _| {
                if let Known::Present(accounts) = &mut seen.accounts {
                    accounts.retain(|account| !account.user.starts_with("app_"));
                }
            })
        ),
        (
            "a new member's account",
            Case::master().with(|_, wish| {
                wish.followers.insert(777);
            })
        ),
    ]));
}

#[test]
fn foreign_transactions() {
    let own = |seen: &mut Seen| {
        let uuid = server(seen).server_uuid.clone();
        let own = gtids(&uuid, 2);
        server(seen).gtid_executed = server(seen).gtid_executed.union(&own);
        own
    };
    insta::assert_snapshot!(show(vec![
        (
            "own ones, harmless",
            Case::minion().with(|seen, _| {
                own(seen);
            })
        ),
        (
            "own ones, harmless, before it ever attached",
            Case::new_minion().played().with(|seen, _| {
                own(seen);
                server(seen).channel = None;
                server(seen).offline_mode = true;
            })
        ),
        (
            "own ones, not harmless",
            Case::minion().with(|seen, _| {
                let gtids = own(seen);
                seen.judged = Some(Judged { gtids, harmless: false });
            })
        ),
        (
            "those of nobody",
            Case::minion().server(|server| {
                server.gtid_executed = server.gtid_executed.union(&gtids(STRANGER, 1));
            })
        ),
        (
            "only received",
            Case::minion().with(|seen, _| {
                channel(seen).receiver = ThreadState::Off;
                channel(seen).retrieved = gtids(STRANGER, 3);
            })
        ),
        (
            "of one that led before",
            Case::minion().with(|seen, wish| {
                own(seen);
                let uuid = server(seen).server_uuid.clone();
                let mut before = record(wish).lineage[0].clone();
                (before.server_uuid, before.name) = (uuid, name(2));
                record(wish).lineage.insert(0, before);
            })
        ),
        (
            "what arrives at this moment is not foreign",
            Case::minion().with(|seen, _| {
                server(seen).gtid_executed = gtids(MASTER_UUID, 50);
            })
        ),
        (
            "in a chain, while the leader does not answer",
            Case::minion().with(|seen, wish| {
                let source = wish.source.as_mut().unwrap();
                (source.host, source.instance) = (host(3), Some(name(3)));
                source.address = Known::Present(address(3));
                seen.leader = unknown();
                let Known::Present(third) = &mut seen.source else { unreachable!() };
                third.server_uuid = STRANGER.to_owned();
                third.gtid_executed = gtids(MASTER_UUID, 2);
            })
        ),
        (
            "the same data on both sides",
            Case::minion().with(|seen, _| {
                let uuid = server(seen).server_uuid.clone();
                let Known::Present(source) = &mut seen.source else { unreachable!() };
                source.server_uuid = uuid;
                server(seen).channel = None;
            })
        ),
    ]));
}

#[test]
fn docker_disk_and_start() {
    let process = Known::Present(ProcessSeen { pid: 42, started: 7 });
    insta::assert_snapshot!(show(vec![
        ("Docker is silent, the server serves", Case::master().with(|seen, _| seen.container = unknown())),
        (
            "Docker is silent, the server does not answer",
            Case::master().with(|seen, _| {
                ended(seen);
                seen.container = unknown();
            })
        ),
        ("Docker has lost it, it serves", Case::master().with(|seen, _| seen.container = Known::Absent)),
        (
            "Docker calls it ended, it serves",
            Case::master().with(|seen, _| {
                container(seen).state = ContainerState::Exited { code: 0, out_of_memory: false };
            })
        ),
        (
            "Docker calls it dead, nobody has asked the server yet",
            Case::master().with(|seen, _| {
                container(seen).state = ContainerState::Dead;
                seen.server = unknown();
            })
        ),
        (
            "Docker has lost it, it does not listen",
            Case::master().with(|seen, _| {
                ended(seen);
                (seen.container, seen.process) = (Known::Absent, process.clone());
            })
        ),
        (
            "who holds the data is not known",
            Case::minion().with(|seen, _| {
                ended(seen);
                seen.process = unknown();
            })
        ),
        (
            "the same, and its target is gone",
            Case::minion().with(|seen, wish| {
                ended(seen);
                seen.process = unknown();
                wish.wanted = Wanted::Deleted;
            })
        ),
        (
            "nobody holds the data of a running container",
            Case::minion().with(|seen, _| {
                (seen.process, seen.server, seen.unheld) = (Known::Absent, Known::Absent, true);
            })
        ),
        (
            "a stop was begun, then the wish was taken back",
            Case::minion().with(|seen, _| {
                seen.stopping = Stopping::Closed { read_only_returned: true };
            })
        ),
        (
            "the port is taken",
            Case::minion().with(|seen, _| {
                ended(seen);
                seen.port_taken = Some("somebody else listens on 127.0.1.2:7335".to_owned());
            })
        ),
        (
            "others start first",
            Case::minion().with(|seen, _| {
                ended(seen);
                seen.start_slot = false;
            })
        ),
        (
            "the image cannot be had",
            Case::new_minion().with(|seen, _| {
                (seen.image, seen.pull) = (Known::Absent, Work::Failed("no such image".to_owned()));
            })
        ),
        (
            "it runs no more, and the policy's image cannot be had",
            Case::minion().with(|seen, wish| {
                let policy = serde_json::from_value(serde_json::json!({"image": "mysql:9.7"})).unwrap();
                wish.wanted = desired(2, &target(Role::Minion, Some(1)), Some(&policy));
                ended(seen);
                (seen.image, seen.pull) = (Known::Absent, Work::Failed("no such image".to_owned()));
            })
        ),
        (
            "it does not come up with a new variable",
            Case::minion()
                .document(|target| {
                    target.mysql.insert("max_connections".to_owned(), VariableValue::Integer(7));
                })
                .with(|seen, _| {
                    ended(seen);
                    seen.config = Some("[mysqld]\nmax_connections=7\n".to_owned());
                    seen.start_error = Some("unknown variable".to_owned());
                })
        ),
        (
            "the very first variables were refused",
            Case::new_minion()
                .document(|target| {
                    target.mysql.insert("no_such_thing".to_owned(), VariableValue::Integer(7));
                })
                .played()
                .with(|seen, _| {
                    let hash = seen.record.validated.take().unwrap();
                    ended(seen);
                    seen.config = None;
                    seen.record.rejected =
                        Some(RejectedConfig { hash, error: "unknown variable".to_owned() });
                })
        ),
    ]));
}
