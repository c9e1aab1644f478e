//! Properties of the plans of one instance, from every mixture of what can be found.

use proptest::prelude::*;
use schemadock_agent_plan::foresee::{End, Step, foresee, next, steps};
use schemadock_agent_plan::observed::{
    ContainerState, DataSeen, FreezeSeen, FreezeState, Judged, ProcessSeen, Resident, Seen, Stopping,
    TemplateSeen, ThreadState, Work,
};
use schemadock_agent_plan::record::{AcceptedTerm, DataOrigin, Record, RejectedConfig, Replacing};
use schemadock_agent_plan::step::Plan;
use schemadock_agent_plan::wish::{Wanted, Wish};
use schemadock_agent_plan::{converge, standing};
use schemadock_schema::Timestamp;
use schemadock_schema::gtid::GtidSet;
use schemadock_schema::known::{Known, WhyUnknown};
use schemadock_schema::leadership::{Durability, LeadershipPhase, Vote, Voter};
use schemadock_schema::status::{DataState, Phase, StoreReport, StoreState};
use schemadock_schema::target::{Role, Target};

use crate::fixture::*;
use crate::rules::broken;

type Mutation = (&'static str, fn(&mut Seen, &mut Wish));

fn on_server(seen: &mut Seen, change: impl FnOnce(&mut schemadock_agent_plan::observed::ServerSeen)) {
    if let Known::Present(server) = &mut seen.server {
        change(server);
    }
}

fn on_channel(seen: &mut Seen, change: impl FnOnce(&mut schemadock_agent_plan::observed::ChannelSeen)) {
    on_server(seen, |server| server.channel.as_mut().map(change).unwrap_or_default());
}

fn on_container(seen: &mut Seen, state: ContainerState) {
    if let Known::Present(container) = &mut seen.container {
        container.state = state;
    }
}

fn on_record(wish: &mut Wish, change: impl FnOnce(&mut schemadock_schema::leadership::Leadership)) {
    if let Known::Present(record) = &mut wish.grant.leadership {
        change(record);
    }
}

fn on_document(wish: &mut Wish, change: impl FnOnce(&mut Target)) {
    let n = number(&wish.instance);
    let mut target = if n == 1 { target(Role::Master, None) } else { target(Role::Minion, Some(1)) };
    change(&mut target);
    wish.wanted = desired(n, &target, None);
}

fn on_policy(wish: &mut Wish, policy: serde_json::Value) {
    let n = number(&wish.instance);
    let target = if n == 1 { target(Role::Master, None) } else { target(Role::Minion, Some(1)) };
    wish.wanted = desired(n, &target, Some(&serde_json::from_value(policy).unwrap()));
}

fn exited(seen: &mut Seen) {
    on_container(seen, ContainerState::Exited { code: 1, out_of_memory: true });
    (seen.process, seen.server) = (Known::Absent, Known::Absent);
}

/// Everything that can be otherwise, one thing each.
const MUTATIONS: &[Mutation] = &[
    ("data unknown", |seen, _| seen.data = unknown()),
    ("data absent", |seen, _| seen.data = Known::Absent),
    ("data incomplete", |seen, _| {
        seen.data = Known::Present(DataSeen { server_uuid: None, complete: false });
    }),
    ("data foreign", |seen, _| {
        seen.data = Known::Present(DataSeen { server_uuid: Some(STRANGER.to_owned()), complete: true });
    }),
    ("data without identity", |seen, _| {
        seen.data = Known::Present(DataSeen { server_uuid: None, complete: true });
    }),
    ("record lost", |seen, _| seen.record = Record::default()),
    ("record copying", |seen, _| seen.record.data = DataOrigin::Copying),
    ("record template", |seen, _| seen.record.data = DataOrigin::Template),
    ("record none", |seen, _| seen.record.data = DataOrigin::None),
    ("record own", |seen, _| seen.record.data = DataOrigin::Own),
    ("record cloning", |seen, _| {
        seen.record.data = DataOrigin::Cloning { donor: name(3), since: Timestamp::UNIX_EPOCH };
    }),
    ("clone absent", |seen, _| seen.clone = Known::Absent),
    ("clone running", |seen, _| seen.seed = Work::Running),
    ("replacing", |seen, _| {
        seen.record.replacing = Some(Replacing { asked: false, why: "why".to_owned() });
    }),
    ("identity not kept", |seen, _| seen.record.server_uuid = None),
    ("identity of another", |seen, _| seen.record.server_uuid = Some(STRANGER.to_owned())),
    ("nothing accepted", |seen, _| (seen.record.accepted, seen.record.voted) = (None, None)),
    ("accepted more", |seen, _| {
        seen.record.accepted = Some(AcceptedTerm { cluster: cluster(), term: 7 });
    }),
    ("accepted, not voted", |seen, _| seen.record.voted = None),
    ("no server id", |seen, _| seen.record.server_id = None),
    ("led before", |seen, _| {
        seen.record.led_under = Some(schemadock_schema::leadership::Durability::Async);
    }),
    ("retired, deleted", |seen, _| seen.retired = vec![retired(STRANGER, true)]),
    ("retired, own", |seen, _| {
        seen.retired = vec![retired(&seen.record.server_uuid.clone().unwrap_or_default(), true)];
    }),
    ("retired, replaced", |seen, _| seen.retired = vec![retired(STRANGER, false)]),
    ("no file", |seen, _| seen.config = None),
    ("old file", |seen, _| seen.config = Some("[mysqld]\nport=1\n".to_owned())),
    ("no good file", |seen, _| seen.good_config = None),
    ("init left", |seen, _| seen.init = true),
    ("in force unknown", |seen, _| seen.record.in_force = None),
    ("in force older", |seen, _| {
        seen.record.in_force = Some("[mysqld]\nport=1\nsuper_read_only=OFF\n".to_owned());
    }),
    ("file rejected", |seen, wish| {
        if let Some(desired) = wish.desired()
            && let Some(config) = converge::wanted_config(desired, seen)
        {
            let hash = converge::judgement(&config.render(), &desired.image);
            seen.record.rejected = Some(RejectedConfig { hash, error: "error".to_owned() });
        }
    }),
    ("start error", |seen, _| seen.start_error = Some("error".to_owned())),
    ("container unknown", |seen, _| seen.container = unknown()),
    ("container absent", |seen, _| seen.container = Known::Absent),
    ("container created", |seen, _| on_container(seen, ContainerState::Created)),
    ("container paused", |seen, _| on_container(seen, ContainerState::Paused)),
    ("container restarting", |seen, _| on_container(seen, ContainerState::Restarting)),
    ("container dead", |seen, _| on_container(seen, ContainerState::Dead)),
    ("ended", |seen, _| exited(seen)),
    ("container exited, process lives", |seen, _| {
        on_container(seen, ContainerState::Exited { code: 0, out_of_memory: false });
    }),
    ("another shape", |seen, _| seen.shape = "other".to_owned()),
    ("process unknown", |seen, _| seen.process = unknown()),
    ("process absent", |seen, _| seen.process = Known::Absent),
    ("process there", |seen, _| seen.process = Known::Present(ProcessSeen { pid: 9, started: 9 })),
    ("unheld", |seen, _| (seen.unheld, seen.server) = (true, Known::Absent)),
    ("image unknown", |seen, _| seen.image = unknown()),
    ("image absent", |seen, _| seen.image = Known::Absent),
    ("image cannot be had", |seen, _| {
        (seen.image, seen.pull) = (Known::Absent, Work::Failed("no".to_owned()));
    }),
    ("no template", |seen, _| seen.template = TemplateSeen::Missing),
    ("template making", |seen, _| seen.template = TemplateSeen::Making),
    ("port taken", |seen, _| seen.port_taken = Some("taken".to_owned())),
    ("no slot", |seen, _| seen.start_slot = false),
    ("server unknown", |seen, _| seen.server = unknown()),
    ("server absent", |seen, _| seen.server = Known::Absent),
    ("stopping asked", |seen, _| seen.stopping = Stopping::Asked),
    ("stopping closed", |seen, _| seen.stopping = Stopping::Closed { read_only_returned: false }),
    ("offline", |seen, _| on_server(seen, |server| server.offline_mode = true)),
    ("super off", |seen, _| on_server(seen, |server| server.super_read_only = false)),
    ("writable", |seen, _| {
        on_server(seen, |server| {
            (server.super_read_only, server.read_only, server.offline_mode) = (false, false, false);
        });
    }),
    ("closed", |seen, _| {
        on_server(seen, |server| (server.super_read_only, server.read_only) = (true, true));
    }),
    ("semi-sync", |seen, _| {
        on_server(seen, |server| {
            server.semi_sync_source = true;
            server.acks.count = 1;
        });
    }),
    ("server of another", |seen, _| on_server(seen, |server| server.server_uuid = STRANGER.to_owned())),
    ("nothing executed", |seen, _| on_server(seen, |server| server.gtid_executed = GtidSet::new())),
    ("own transactions", |seen, _| {
        on_server(seen, |server| {
            let own = gtids(&server.server_uuid.clone(), 4);
            server.gtid_executed = server.gtid_executed.union(&own);
        });
    }),
    ("foreign transactions", |seen, _| {
        on_server(seen, |server| server.gtid_executed = server.gtid_executed.union(&gtids(STRANGER, 2)));
    }),
    ("judged harmful", |seen, _| {
        if let Known::Present(server) = &seen.server {
            let gtids = gtids(&server.server_uuid, 4);
            seen.judged = Some(Judged { gtids, harmless: false });
        }
    }),
    ("no channel", |seen, _| on_server(seen, |server| server.channel = None)),
    ("channel elsewhere", |seen, _| on_channel(seen, |channel| channel.host = "elsewhere".to_owned())),
    ("channel of another user", |seen, _| on_channel(seen, |channel| channel.user = "x".to_owned())),
    ("receiver off", |seen, _| on_channel(seen, |channel| channel.receiver = ThreadState::Off)),
    ("receiver connecting", |seen, _| {
        on_channel(seen, |channel| channel.receiver = ThreadState::Connecting);
    }),
    ("applier off", |seen, _| on_channel(seen, |channel| channel.applier = ThreadState::Off)),
    ("received more", |seen, _| on_channel(seen, |channel| channel.retrieved = gtids(MASTER_UUID, 40))),
    ("received foreign", |seen, _| on_channel(seen, |channel| channel.retrieved = gtids(STRANGER, 3))),
    ("purged error", |seen, _| {
        on_channel(seen, |channel| {
            channel.receiver_error = Some((13114, "purged".to_owned()));
            channel.receiver = ThreadState::Off;
        });
    }),
    ("source unknown", |seen, _| seen.source = unknown()),
    ("source absent", |seen, _| seen.source = Known::Absent),
    ("leader unknown", |seen, _| seen.leader = unknown()),
    ("leader absent", |seen, _| seen.leader = Known::Absent),
    ("source without account", |seen, _| {
        if let Known::Present(source) = &mut seen.source {
            source.account = false;
        }
    }),
    ("source purged", |seen, _| {
        for other in [&mut seen.source, &mut seen.leader] {
            if let Known::Present(other) = other {
                other.gtid_purged = gtids(MASTER_UUID, 30);
                other.gtid_executed = gtids(MASTER_UUID, 30);
            }
        }
    }),
    ("drift", |seen, _| {
        seen.differing = Known::Present(vec![
            ("gtid_mode".to_owned(), "ON".to_owned(), "OFF".to_owned()),
            ("super_read_only".to_owned(), "ON".to_owned(), "OFF".to_owned()),
        ]);
    }),
    ("accounts gone", |seen, _| seen.accounts = Known::Present(Vec::new())),
    ("accounts unknown", |seen, _| seen.accounts = unknown()),
    ("a schema to be frozen", |seen, wish| {
        on_policy(wish, serde_json::json!({"frozen": [{"schema": "s1", "since": "", "operation": ""}]}));
        seen.schemas = Known::Present([("s1".to_owned(), false)].into());
    }),
    ("a schema frozen before", |seen, _| {
        seen.record.frozen = ["s1".to_owned()].into();
        seen.schemas = Known::Present([("s1".to_owned(), true)].into());
    }),
    ("schemas unknown", |seen, _| seen.schemas = unknown()),
    ("leadership unknown", |_, wish| wish.grant.leadership = unknown()),
    ("leadership absent", |_, wish| wish.grant.leadership = Known::Absent),
    ("released", |_, wish| on_record(wish, |record| record.master = None)),
    ("led by the next", |_, wish| on_record(wish, |record| record.master = Some(name(3)))),
    ("named", |seen, wish| {
        let uuid = seen.record.server_uuid.clone().unwrap_or_default();
        let n = number(&wish.instance);
        wish.grant.leadership = Known::Present(leadership(2, Some(n), &uuid, GtidSet::new()));
        wish.source = None;
    }),
    ("no lineage", |_, wish| on_record(wish, |record| record.lineage.clear())),
    ("newer term", |_, wish| on_record(wish, |record| record.term += 1)),
    ("revoking", |_, wish| on_record(wish, |record| record.phase = LeadershipPhase::Revoking)),
    ("handover to two", |_, wish| {
        on_record(wish, |record| {
            record.term += 1;
            (record.phase, record.to) = (LeadershipPhase::Handover, Some(name(2)));
        });
    }),
    ("all have voted", |_, wish| {
        let Known::Present(record) = &wish.grant.leadership else { return };
        let voters = record.voters.iter().map(|voter| (voter.name.clone(), voter.server_uuid.clone()));
        let master = record.lineage.last().map(|led| (led.name.clone(), led.server_uuid.clone()));
        for (name, server_uuid) in voters.chain(master).collect::<Vec<_>>() {
            let (cluster, term, set) = (cluster(), record.term, gtids(MASTER_UUID, 9));
            wish.votes
                .insert(name, Vote { cluster, term, server_uuid, received: set.clone(), executed: set });
        }
    }),
    ("heard", |seen, wish| {
        let Known::Present(record) = &wish.grant.leadership else { return };
        let Some(led) = record.lineage.last() else { return };
        let (cluster, term, set) = (cluster(), record.term, gtids(MASTER_UUID, 9));
        let (server_uuid, received) = (led.server_uuid.clone(), set.clone());
        seen.handover.heard = Some(Vote { cluster, term, server_uuid, received, executed: set });
    }),
    ("all receive from two", |_, wish| {
        wish.members.iter_mut().for_each(|member| member.receives_from = Some((address(2), PORT)));
    }),
    ("frozen", |seen, wish| {
        let term = wish.grant.record().map_or(0, |record| record.term);
        let state = FreezeState::Frozen { published: false, overdue: false };
        seen.handover.freeze = Some(FreezeSeen { term, state });
        on_server(seen, |server| (server.super_read_only, server.read_only) = (true, true));
    }),
    ("frozen for long", |seen, wish| {
        let term = wish.grant.record().map_or(0, |record| record.term);
        let state = FreezeState::Frozen { published: true, overdue: true };
        seen.handover.freeze = Some(FreezeSeen { term, state });
        on_server(seen, |server| (server.super_read_only, server.read_only) = (true, true));
    }),
    ("freeze given up", |seen, wish| {
        let term = wish.grant.record().map_or(0, |record| record.term);
        seen.handover.freeze = Some(FreezeSeen { term, state: FreezeState::GivenUp });
    }),
    ("settled", |seen, _| seen.handover.settled = true),
    ("late", |seen, _| seen.handover.late = true),
    ("handover", |_, wish| on_record(wish, |record| record.phase = LeadershipPhase::Handover)),
    ("acks", |_, wish| on_record(wish, |record| record.acks = 1)),
    ("acks to come", |_, wish| on_record(wish, |record| record.acks_next = Some(2))),
    ("lossless", |_, wish| {
        on_record(wish, |record| (record.acks, record.durability) = (1, Durability::Lossless));
    }),
    ("voters", |seen, wish| {
        let own = seen.record.server_uuid.clone();
        let all = [1, 2, 3].map(|n| Voter {
            name: name(n),
            server_uuid: if wish.instance == name(n) { own.clone().unwrap_or_default() } else { uuid_of(n) },
        });
        on_record(wish, |record| {
            record.voters =
                all.into_iter().filter(|voter| record.master.as_ref() != Some(&voter.name)).collect();
        });
    }),
    ("two leave", |_, wish| on_record(wish, |record| record.leaving = vec![name(2)])),
    ("three leaves", |_, wish| on_record(wish, |record| record.leaving = vec![name(3)])),
    ("members do not say", |_, wish| {
        wish.members.iter_mut().for_each(|member| member.acknowledges = Known::Absent);
    }),
    ("members are not heard", |_, wish| {
        wish.members.iter_mut().for_each(|member| member.acknowledges = unknown());
    }),
    ("locked", |seen, _| {
        if let Known::Present(accounts) = &mut seen.accounts {
            accounts.iter_mut().for_each(|account| account.locked = true);
        }
    }),
    ("voters connected", |seen, _| {
        on_server(seen, |server| {
            server.acks.clients = 2;
            server.receivers = [2, 3].map(|n| format!("schemadock_r10{n}")).into();
        });
    }),
    ("waits for two", |seen, _| {
        on_server(seen, |server| {
            server.semi_sync_source = true;
            server.acks.count = 2;
        });
    }),
    ("acknowledges", |seen, _| {
        on_server(seen, |server| (server.semi_sync_replica, server.acknowledging) = (true, true));
    }),
    ("commits wait", |seen, _| seen.voting.stalled = true),
    ("commits pass", |seen, _| seen.voting.unanswered = true),
    ("a stranger acknowledges", |seen, _| {
        on_server(seen, |server| server.acknowledgers = ["somebody".to_owned()].into());
    }),
    ("opening waits", |seen, _| seen.voting.opening = true),
    ("secrets unknown", |_, wish| wish.grant.secrets = unknown()),
    ("secrets absent", |_, wish| wish.grant.secrets = Known::Absent),
    ("store blank", |_, wish| {
        wish.store = Some(StoreReport { state: StoreState::Blank, expected: None, found: None });
    }),
    ("store silent", |_, wish| wish.store = None),
    ("no members", |_, wish| wish.members.clear()),
    ("members silent", |_, wish| wish.members.iter_mut().for_each(|member| member.data = None)),
    ("members failed", |_, wish| {
        wish.members.iter_mut().for_each(|member| member.phase = Some(Phase::Failed));
    }),
    ("members fresh", |_, wish| {
        wish.members.iter_mut().for_each(|member| member.data = Some(DataState::Template));
    }),
    ("others disabled", |_, wish| wish.members.iter_mut().for_each(|member| member.disabled = true)),
    ("no source", |_, wish| wish.source = None),
    ("source's host unknown", |_, wish| {
        if let Some(source) = &mut wish.source {
            source.address = Known::Absent;
        }
    }),
    ("another cluster followed", |_, wish| {
        if let Some(source) = &mut wish.source {
            source.own_cluster = false;
        }
    }),
    ("etcd remembers nothing", |_, wish| wish.recorded_uuid = Known::Absent),
    ("etcd is not heard yet", |_, wish| wish.recorded_uuid = Known::Unknown(WhyUnknown::NotYet)),
    ("restart asked", |_, wish| wish.restart_asked = true),
    ("reseed asked", |_, wish| wish.reseed_asked = true),
    ("deleted", |_, wish| wish.wanted = Wanted::Deleted),
    ("garbage", |_, wish| {
        if let Wanted::Run(last) = wish.wanted.clone() {
            wish.wanted = Wanted::Unreadable { reason: "garbage".to_owned(), last: Some(last) };
        }
    }),
    ("garbage from the start", |_, wish| {
        wish.wanted = Wanted::Unreadable { reason: "garbage".to_owned(), last: None };
    }),
    ("disabled", |_, wish| on_document(wish, |target| target.disabled = true)),
    ("maintenance", |_, wish| on_document(wish, |target| target.maintenance = true)),
    ("paused", |_, wish| on_policy(wish, serde_json::json!({"paused": true}))),
    ("policy image", |_, wish| on_policy(wish, serde_json::json!({"image": "mysql:9.7"}))),
    ("own image", |_, wish| on_document(wish, |target| target.image = Some("mysql:9.7".to_owned()))),
    ("another port", |_, wish| on_document(wish, |target| target.port = 7400)),
    ("another size", |_, wish| on_document(wish, |target| target.size = "small".parse().unwrap())),
    ("less memory than is resident", |seen, _| {
        if let Known::Present(container) = &mut seen.container {
            let bytes = container.memory;
            container.memory *= 2;
            seen.resident = Known::Present(Resident { bytes, lasting: true });
        }
    }),
    ("resident unknown", |seen, _| seen.resident = unknown()),
    ("variables by hand", |_, wish| {
        on_document(wish, |target| {
            target.mysql = serde_json::from_value(serde_json::json!({
                "super-read-only": false, "max_connections": 9, "init_connect": "SET a = \"b\\\\c\"",
                "x=1\noffline_mode": "OFF"
            }))
            .unwrap();
        });
    }),
    ("role minion", |_, wish| {
        let n = number(&wish.instance);
        wish.wanted = desired(n, &target(Role::Minion, Some(3)), None);
    }),
    ("role master", |_, wish| {
        let n = number(&wish.instance);
        wish.wanted = desired(n, &target(Role::Master, None), None);
    }),
    ("master that follows", |_, wish| {
        let n = number(&wish.instance);
        wish.wanted = desired(n, &target(Role::Master, Some(3)), None);
    }),
];

fn bases() -> Vec<(&'static str, Case)> {
    vec![
        ("new master", Case::new_master()),
        ("new minion", Case::new_minion()),
        ("master", Case::master()),
        ("minion", Case::minion()),
    ]
}

thread_local! {
    static BASES: Vec<(&'static str, Case)> = bases();
}

fn mixed(base: usize, mutations: &[usize]) -> (String, Case) {
    let (name, mut case) = BASES.with(|bases| bases[base].clone());
    let mut title = name.to_owned();
    for at in mutations {
        let (name, change) = MUTATIONS[*at];
        title = format!("{title}, {name}");
        change(&mut case.seen, &mut case.wish);
    }
    (title, case)
}

fn mixtures() -> impl Strategy<Value = (usize, Vec<usize>)> {
    (0..4usize, proptest::collection::vec(0..MUTATIONS.len(), 0..6))
}

/// Both lanes' next steps, and what each of them breaks.
fn judge(title: &str, seen: &Seen, wish: &Wish) -> Result<(), String> {
    let standing = match standing::plan(wish, seen) {
        Plan::Do(step) => Some(Step::Standing(step)),
        _ => None,
    };
    let converge = match converge::plan(wish, seen) {
        Plan::Do(step) => Some(Step::Converge(step)),
        _ => None,
    };
    for step in [standing, converge].into_iter().flatten() {
        if let Some(rule) = broken(seen, wish, &step) {
            let mut step = format!("{step:?}");
            step.truncate(200);
            return Err(format!("{title}: {rule}: {step}"));
        }
    }
    Ok(())
}

/// Plays it through: every step obeys the rules, a minion ends closed, and there is an end.
fn play(title: &str, case: &Case) -> Result<(), String> {
    let (mut seen, mut wish) = (case.seen.clone(), case.wish.clone());
    let mut done = Vec::new();
    for _ in 0..schemadock_agent_plan::foresee::LIMIT {
        judge(title, &seen, &wish)?;
        let std::ops::ControlFlow::Continue(step) = next(&seen, &wish) else {
            return at_rest(title, &seen, &wish);
        };
        (seen, wish) = foresee(&seen, &wish, &step);
        if step == Step::Converge(schemadock_agent_plan::step::ConvergeStep::Forget) {
            return Ok(());
        }
        done.push(step);
    }
    let last = done[done.len().saturating_sub(6)..].iter().map(|step| match step {
        Step::Standing(step) => step.name(),
        Step::Converge(step) => step.name(),
    });
    Err(format!("{title}: no end: {}", last.collect::<Vec<_>>().join(", ")))
}

fn at_rest(title: &str, seen: &Seen, wish: &Wish) -> Result<(), String> {
    let Known::Present(server) = &seen.server else { return Ok(()) };
    let somebody_else = wish.grant.record().is_some_and(|record| {
        record.master.as_ref().is_some_and(|master| *master != wish.instance)
            && seen.record.accepted.as_ref().is_none_or(|accepted| accepted.term <= record.term)
    });
    // What the standing lane does not look at: a seed, a stop, an identity not kept, no target.
    let looked_at = wish.desired().is_some()
        && !matches!(seen.record.data, DataOrigin::Cloning { .. })
        && seen.stopping == Stopping::No
        && seen.record.server_uuid.as_deref() == Some(&server.server_uuid);
    if somebody_else && looked_at && !server.closed() {
        return Err(format!("{title}: a minion rests with super_read_only lifted"));
    }
    Ok(())
}

#[test]
fn a_converged_world_plans_nothing() {
    for case in [Case::master(), Case::minion()] {
        assert_eq!(standing::plan(&case.wish, &case.seen), Plan::Converged);
        assert_eq!(converge::plan(&case.wish, &case.seen), Plan::Converged);
    }
}

#[test]
fn every_single_difference_and_every_pair_obeys_the_rules_and_ends() {
    let mut failures = Vec::new();
    for base in 0..4 {
        for one in 0..MUTATIONS.len() {
            for other in one..MUTATIONS.len() {
                let (title, case) = mixed(base, &[one, other]);
                failures.extend(play(&title, &case).err());
            }
        }
    }
    let (count, shown) = (failures.len(), failures.iter().take(60).cloned().collect::<Vec<_>>().join("\n"));
    assert!(failures.is_empty(), "{count} failures:\n{shown}");
}

/// Every single repair leads back to where nothing is left to do, unless it is for a person.
#[test]
fn what_is_mended_is_converged() {
    for (base, name) in [(2, "master"), (3, "minion")] {
        for mutation in [
            "ended",
            "ended & container absent",
            "container paused",
            "super off",
            "closed",
            "semi-sync",
            "no channel",
            "channel elsewhere",
            "receiver off",
            "applier off",
            "accounts gone",
            "a schema to be frozen",
            "a schema frozen before",
            "another shape",
            "another port",
            "another size",
            "own image",
            "policy image",
            "variables by hand",
            "restart asked",
            "newer term",
            "stopping closed",
            "init left",
            "old file",
            "unheld",
            "process unknown",
        ] {
            let known =
                |name: &str| MUTATIONS.iter().position(|(own, _)| *own == name).expect("a known name");
            let (title, case) = mixed(base, &mutation.split(" & ").map(known).collect::<Vec<_>>());
            let course = steps(&case.seen, &case.wish);
            let rest = End::Rest { standing: Plan::Converged, converge: Plan::Converged };
            assert_eq!(course.end, rest, "{name} after {title}: {:#?}", course.lines);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_mixture_obeys_the_rules_and_ends((base, mutations) in mixtures()) {
        let (title, case) = mixed(base, &mutations);
        if let Err(failure) = play(&title, &case) {
            return Err(TestCaseError::fail(failure));
        }
    }
}
