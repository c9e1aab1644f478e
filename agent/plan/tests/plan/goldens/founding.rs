//! Founding, data and seeds.

use schemadock_agent_plan::observed::*;
use schemadock_agent_plan::record::*;
use schemadock_agent_plan::wish::*;
use schemadock_schema::gtid::GtidSet;
use schemadock_schema::known::Known;
use schemadock_schema::status::*;
use schemadock_schema::target::*;

use super::*;

#[test]
fn a_new_cluster() {
    insta::assert_snapshot!(show(vec![
        ("the master, on a bare host", Case::new_master()),
        (
            "the master, with neither image nor template",
            Case::new_master().with(|seen, _| {
                seen.image = Known::Absent;
                seen.template = TemplateSeen::Missing;
            }),
        ),
        ("a minion whose master is open", Case::new_minion()),
        (
            "a minion whose master does not listen yet",
            Case::new_minion().with(|seen, wish| {
                (seen.source, seen.leader) = (Known::Absent, Known::Absent);
                wish.grant.leadership = Known::Absent;
                wish.members = vec![member(1, Role::Master)];
            }),
        ),
        (
            "a minion whose master has no target yet",
            Case::new_minion().with(|seen, wish| {
                (seen.source, seen.leader) = (Known::Absent, Known::Absent);
                wish.grant.leadership = Known::Absent;
                wish.members.clear();
            }),
        ),
        (
            "a minion whose master's host is not registered",
            Case::new_minion().with(|seen, wish| {
                wish.source.as_mut().unwrap().address = Known::Absent;
                seen.source = Known::Absent;
            }),
        ),
    ]));
}

#[test]
fn who_may_found_it() {
    let ready = |change: fn(&mut Seen, &mut Wish)| Case::new_master().with(change);
    insta::assert_snapshot!(show(vec![
        ("a member has not reported", ready(|_, wish| wish.members[0].data = None)),
        (
            "a member's host was never seen",
            ready(|_, wish| {
                wish.members[0].data = None;
                wish.members[0].registered = false;
            })
        ),
        ("a member holds data", ready(|_, wish| wish.members[0].data = Some(DataState::Own))),
        (
            "a member does not know what it holds",
            ready(|_, wish| wish.members[0].data = Some(DataState::Unknown))
        ),
        (
            "the store is blank",
            ready(|_, wish| {
                wish.store = Some(StoreReport { state: StoreState::Blank, expected: None, found: None });
            })
        ),
        (
            "nobody has answered yet",
            ready(|_, wish| {
                wish.store = None;
                wish.grant.leadership = unknown();
            })
        ),
        (
            "it was opened before, and the leadership is gone",
            Case::master().with(|seen, wish| {
                wish.grant.leadership = Known::Absent;
                ended(seen);
            })
        ),
        (
            "it serves, and the leadership is gone",
            Case::master().with(|_, wish| {
                wish.grant.leadership = Known::Absent;
            })
        ),
    ]));
}

#[test]
fn data_under_a_minion() {
    insta::assert_snapshot!(show(vec![
        ("missing", Case::minion().with(|seen, _| no_data(seen))),
        (
            "missing, and the record with them",
            Case::minion().with(|seen, _| {
                let shape = std::mem::take(&mut seen.shape);
                let source = seen.source.clone();
                *seen = nothing();
                (seen.shape, seen.leader, seen.source) = (shape, source.clone(), source);
            })
        ),
        (
            "incomplete",
            Case::minion().with(|seen, _| {
                seen.data = data("x", false);
                ended(seen);
            })
        ),
        (
            "foreign",
            Case::minion().with(|seen, _| {
                seen.data = data(STRANGER, true);
                ended(seen);
            })
        ),
        (
            "foreign, a reseed is asked for",
            Case::minion().with(|seen, wish| {
                seen.data = data(STRANGER, true);
                ended(seen);
                wish.reseed_asked = true;
            })
        ),
        (
            "a reseed without any live member",
            Case::minion().with(|_, wish| {
                wish.reseed_asked = true;
                wish.members.iter_mut().for_each(|member| member.phase = Some(Phase::Failed));
            })
        ),
        (
            "missing, and who leads is not known",
            Case::minion().with(|seen, wish| {
                no_data(seen);
                ended(seen);
                wish.grant.leadership = unknown();
            })
        ),
        (
            "it cannot be looked at",
            Case::minion().with(|seen, _| {
                seen.data = unknown();
                ended(seen);
            })
        ),
    ]));
}

#[test]
fn data_under_the_leader() {
    insta::assert_snapshot!(show(vec![
        (
            "missing",
            Case::master().with(|seen, _| {
                no_data(seen);
                ended(seen);
            })
        ),
        (
            "missing, they lie in retired/",
            Case::master().with(|seen, _| {
                no_data(seen);
                ended(seen);
                seen.retired = vec![retired(&seen.record.server_uuid.clone().unwrap(), false)];
            })
        ),
        (
            "incomplete",
            Case::master().with(|seen, _| {
                seen.data = data("x", false);
                ended(seen);
            })
        ),
        (
            "foreign",
            Case::master().with(|seen, _| {
                seen.data = data(STRANGER, true);
                ended(seen);
            })
        ),
        ("the whole host is new", Case::master().with(|seen, _| *seen = nothing())),
        (
            "the whole host is new, and etcd remembers nothing",
            Case::master().with(|seen, wish| {
                *seen = nothing();
                wish.recorded_uuid = Known::Absent;
            })
        ),
        (
            "the record is lost, the data are there",
            Case::master().with(|seen, _| {
                ended(seen);
                seen.record = Default::default();
            })
        ),
        ("a reseed", Case::master().with(|_, wish| wish.reseed_asked = true)),
        (
            "half a copy, and it leads",
            Case::master().with(|seen, _| {
                ended(seen);
                seen.record.data = DataOrigin::Copying;
            })
        ),
    ]));
}

#[test]
fn seeds() {
    fn purged(case: Case) -> Case {
        case.with(|seen, _| {
            for other in [&mut seen.source, &mut seen.leader] {
                if let Known::Present(other) = other {
                    other.gtid_purged = gtids(MASTER_UUID, 5);
                }
            }
        })
    }
    let stale = || {
        purged(Case::minion()).with(|seen, _| {
            server(seen).gtid_executed = gtids(MASTER_UUID, 3);
            channel(seen).retrieved = GtidSet::new();
            channel(seen).receiver = ThreadState::Off;
            channel(seen).receiver_error = Some((13114, "purged required binary logs".to_owned()));
        })
    };
    insta::assert_snapshot!(show(vec![
        ("a new minion, the logs are purged", purged(Case::new_minion())),
        (
            "only the master can give",
            purged(Case::new_minion()).with(|_, wish| wish.members[1].disabled = true)
        ),
        (
            "nobody can give",
            purged(Case::new_minion()).with(|_, wish| {
                wish.members.iter_mut().for_each(|member| member.version = Some("9.1.0".to_owned()));
            })
        ),
        ("one that was away for too long", stale()),
        (
            "one that was away, and has more than the others",
            stale().with(|seen, _| {
                server(seen).gtid_executed = gtids(MASTER_UUID, 30).minus(&gtids(MASTER_UUID, 6));
            })
        ),
        (
            "one that was away, and a FLUSH was said on it",
            stale().with(|seen, _| {
                let flushed = gtids(&server(seen).server_uuid.clone(), 1);
                server(seen).gtid_executed = gtids(MASTER_UUID, 3).union(&flushed);
                seen.judged = Some(Judged { gtids: flushed, harmless: true });
            })
        ),
        (
            "one that was away, and no master answers",
            stale().with(|seen, _| {
                (seen.source, seen.leader) = (unknown(), unknown());
            })
        ),
        (
            "the CLONE failed",
            Case::minion().with(|seen, _| {
                let since = schemadock_schema::Timestamp::UNIX_EPOCH;
                seen.record.data = DataOrigin::Cloning { donor: name(3), since };
                seen.clone = Known::Absent;
            })
        ),
        (
            "the CLONE was refused a moment ago",
            Case::minion().with(|seen, _| {
                let since = schemadock_schema::Timestamp::UNIX_EPOCH;
                seen.record.data = DataOrigin::Cloning { donor: name(3), since };
                seen.seed = Work::Failed("3862 access denied".to_owned());
            })
        ),
        (
            "the server ended in the middle of a CLONE, and its data cannot be used",
            Case::minion().with(|seen, _| {
                ended(seen);
                let since = schemadock_schema::Timestamp::UNIX_EPOCH;
                seen.record.data = DataOrigin::Cloning { donor: name(3), since };
                seen.data = Known::Present(DataSeen { server_uuid: None, complete: false });
            })
        ),
        (
            "a CLONE is under way",
            Case::minion().with(|seen, _| {
                let since = schemadock_schema::Timestamp::UNIX_EPOCH;
                seen.record.data = DataOrigin::Cloning { donor: name(3), since };
                seen.seed = Work::Running;
            })
        ),
    ]));
}
