//! Operations from their beginning to their end, in a small world: table cases, and random stories with controllers that
//! end anywhere, hosts that go and come, and handovers that are taken back.

#[path = "small_world/judge.rs"]
mod judge;
#[path = "small_world/world.rs"]
mod world;

use std::collections::BTreeMap;

use proptest::prelude::*;
use schemadock_schema::leadership::{Durability, Leadership};
use schemadock_schema::operation::{Create, OperationState, Request};
use schemadock_schema::size::Size;
use serde_json::{Value, json};
use world::World;

const ROUNDS: u32 = 400;

fn created(hosts: u32, replicas: u32) -> World {
    let mut world = World::new(hosts);
    let id = world.ask(Request::Create(Create { replicas, ..Create::default() }), Some("c"));
    world.settle(ROUNDS);
    let operation = world.operation(&id);
    assert_eq!(operation.state, OperationState::Done, "{operation:?}\n{:#?}", world.said);
    world
}

fn record(world: &World) -> Leadership {
    world.get("leadership/c").unwrap()
}

fn done(world: &mut World, request: Request) -> String {
    let id = world.ask(request, Some("c"));
    world.settle(ROUNDS);
    let operation = world.operation(&id);
    assert_eq!(operation.state, OperationState::Done, "{operation:#?}\n{:#?}", world.said);
    operation.outcome.unwrap()
}

fn whole(world: &World) -> Option<String> {
    let view = world.view();
    let name = "c".parse().unwrap();
    schemadock_controller_plan::cluster::Cluster::of(&view, &name).missing()
}

#[test]
fn a_new_cluster_becomes_lossless_and_its_route_says_who_leads() {
    let world = created(3, 2);
    let record = record(&world);
    assert_eq!((record.durability, record.acks, record.voters.len()), (Durability::Lossless, 1, 2));
    assert_eq!((record.acks_next, record.leaving.len()), (None, 0));
    let route: Value = world.get("routes/c").unwrap();
    assert_eq!(route["master"]["name"], record.master.unwrap().as_str());
    assert_eq!(route["replicas"].as_array().unwrap().len(), 2);
    assert!(world.get::<Value>("locks/c").is_none());
}

#[test]
fn one_member_alone_is_async_and_no_refusal() {
    let world = created(1, 0);
    assert_eq!(record(&world).durability, Durability::Async);
    assert_eq!(whole(&world), None);
}

#[test]
fn a_switchover_and_back_changes_documents_and_route() {
    let mut world = created(3, 2);
    let first = record(&world).master.unwrap();
    let outcome = done(&mut world, Request::Switchover { to: None });
    let second = record(&world);
    assert_ne!(second.master.as_ref(), Some(&first), "{outcome}");
    assert!(second.voters.iter().any(|voter| voter.name == first));
    let roles: Vec<_> = world.targets_of("c").iter().map(|(name, t)| (name.clone(), t.role)).collect();
    let masters = roles.iter().filter(|(_, role)| *role == schemadock_schema::target::Role::Master).count();
    assert_eq!(masters, 1, "{roles:?}");
    done(&mut world, Request::Switchover { to: Some(first.clone()) });
    assert_eq!(record(&world).master, Some(first));
    assert_eq!(whole(&world), None);
}

#[test]
fn a_switchover_taken_back_is_undone_and_says_so() {
    let mut world = created(3, 2);
    let first = record(&world).master.unwrap();
    world.handovers = vec![false];
    let id = world.ask(Request::Switchover { to: None }, Some("c"));
    world.settle(ROUNDS);
    let operation = world.operation(&id);
    assert_eq!(operation.state, OperationState::Undone, "{operation:?}");
    assert!(operation.outcome.unwrap().contains("taken back"));
    assert_eq!((record(&world).master, record(&world).term), (Some(first), 2));
    assert_eq!(whole(&world), None);
}

#[test]
fn scaling_out_and_in_keeps_the_voters_right() {
    let mut world = created(5, 1);
    assert_eq!(record(&world).voters.len(), 1);
    done(&mut world, Request::Scale { replicas: 4, hosts: Vec::new() });
    assert_eq!(record(&world).voters.len(), 4);
    done(&mut world, Request::Scale { replicas: 0, hosts: Vec::new() });
    assert_eq!((record(&world).durability, record(&world).voters.len()), (Durability::Async, 0));
    assert_eq!(world.targets_of("c").len(), 1);
}

#[test]
fn stopping_keeps_the_record_and_the_same_member_leads_again() {
    let mut world = created(3, 2);
    let before = record(&world);
    done(&mut world, Request::Stop);
    assert_eq!(record(&world).voters, before.voters);
    done(&mut world, Request::Start);
    assert_eq!((record(&world).master, record(&world).term), (before.master, before.term));
    assert_eq!(whole(&world), None);
}

#[test]
fn an_upgrade_goes_through_all_and_ends_in_the_policy() {
    let mut world = created(3, 2);
    let first = record(&world).master.unwrap();
    done(&mut world, Request::Upgrade { image: "img:next".to_owned(), soak: 3 });
    assert_ne!(record(&world).master, Some(first), "the old master came last");
    let policy: Value = world.get("clusters/c").unwrap();
    assert_eq!(policy["image"], "img:next");
    assert!(world.targets_of("c").iter().all(|(_, target)| target.image.is_none()));
    assert_eq!(whole(&world), None);
}

#[test]
fn an_upgrade_stops_at_the_first_that_does_not_come_up() {
    let mut world = created(3, 2);
    world.bad_images.insert("img:bad".to_owned());
    let id = world.ask(Request::Upgrade { image: "img:bad".to_owned(), soak: 1 }, Some("c"));
    world.settle(ROUNDS);
    let operation = world.operation(&id);
    assert_eq!(operation.state, OperationState::Failed, "{operation:?}");
    let outcome = operation.outcome.unwrap();
    assert!(outcome.contains("reseed") && outcome.contains("db2"), "{outcome}");
    let touched = world.targets_of("c").iter().filter(|(_, target)| target.image.is_some()).count();
    assert_eq!(touched, 1);
}

#[test]
fn static_variables_restart_the_members_one_by_one() {
    let mut world = created(3, 2);
    let id = world.ask(
        Request::Set {
            mysql: BTreeMap::from([(
                "x".to_owned(),
                Some(schemadock_schema::target::VariableValue::Integer(7)),
            )]),
        },
        Some("c"),
    );
    world.controller(usize::MAX);
    world.controller(usize::MAX);
    world.pend_restarts();
    world.settle(ROUNDS);
    let operation = world.operation(&id);
    assert_eq!(operation.state, OperationState::Done, "{operation:#?} {:#?}", world.said);
    let restarts = world.said.iter().filter(|what| what.ends_with("is restarted")).count();
    assert_eq!(restarts, 3, "{:#?}", world.said);
    assert_eq!(whole(&world), None);
}

#[test]
fn resizing_moves_what_has_no_room() {
    let mut world = created(4, 1);
    let big =
        Size::Exact(schemadock_schema::size::ExactSize { memory: 6 << 30, cpus: Some(1.0), disk: None });
    // Somebody else lives on the first host.
    let other = json!({"data": {"role": "master", "port": 4000, "cluster": "o", "host": "h1", "size": {"memory": "4GiB", "cpus": 1}}});
    world.put("targets/h1/h1-o-db1", &other);
    done(&mut world, Request::Resize { size: big.clone() });
    let targets = world.targets_of("c");
    assert!(targets.iter().all(|(_, target)| target.size == big));
    assert!(targets.iter().all(|(_, target)| target.host.as_ref().unwrap().as_str() != "h1"), "{targets:?}");
    assert_eq!(whole(&world), None);
}

#[test]
fn a_host_is_emptied_and_each_cluster_is_whole() {
    let mut world = created(4, 2);
    world.put("cordons/h1", &json!({"by": "t", "at": "2026-01-02T03:04:05Z", "reason": ""}));
    let id = world.ask(Request::Drain { host: "h1".parse().unwrap(), evict: true }, None);
    world.settle(ROUNDS);
    let operation = world.operation(&id);
    assert_eq!(operation.state, OperationState::Done, "{operation:#?} {:#?}", world.said);
    assert!(world.targets_of("c").iter().all(|(_, t)| t.host.as_ref().unwrap().as_str() != "h1"));
    assert_eq!(world.targets_of("c").len(), 3);
    assert!(world.get::<Value>("locks/c").is_none());
    assert_eq!(whole(&world), None);
}

#[test]
fn a_cluster_of_two_goes_on_alone_and_comes_back() {
    let mut world = created(3, 1);
    let minion = record(&world).voters[0].name.clone();
    let host = minion.as_str().split('-').next().unwrap().to_owned();
    world.kill(&host);
    world.settle(60);
    assert_eq!((record(&world).durability, record(&world).acks), (Durability::Alone, 0));
    world.heal(&host);
    world.settle(ROUNDS);
    assert_eq!((record(&world).durability, record(&world).acks), (Durability::Lossless, 1));
}

#[test]
fn below_min_copies_a_lost_voter_keeps_its_place() {
    let mut world = created(3, 2);
    let hosts: Vec<String> = record(&world)
        .voters
        .iter()
        .map(|voter| voter.name.as_str().split('-').next().unwrap().to_owned())
        .collect();
    world.kill(&hosts[0]);
    world.settle(60);
    assert_eq!(record(&world).voters.len(), 1, "one lost voter leaves");
    world.kill(&hosts[1]);
    world.settle(60);
    let now = record(&world);
    assert_eq!((now.durability, now.acks, now.voters.len()), (Durability::Lossless, 1, 1), "writes wait");
    hosts.iter().for_each(|host| world.heal(host));
    world.settle(ROUNDS);
    assert_eq!(record(&world).voters.len(), 2);
}

/// While a handover is under way its voters do not receive from the old master; when it is taken back they have all the
/// time again that anybody has.
#[test]
fn who_moves_in_a_handover_is_not_lost() {
    let mut world = created(3, 2);
    let lost = |world: &World| world.said.iter().any(|said| said.contains("is lost"));
    let steady: Value = world.get("leadership/c").unwrap();
    let led = record(&world);
    let (master, to) = (led.master.clone().unwrap(), led.voters[0].name.clone());
    let host = master.as_str().split('-').next().unwrap();
    let mut handover = steady.clone();
    (handover["phase"], handover["to"]) = (json!("handover"), json!(to));
    let status = format!("status/{host}/{master}");
    let mut alone: Value = world.get(&status).unwrap();
    alone["receivers"] = json!([to]);
    world.put("leadership/c", &handover);
    world.put(&status, &alone);
    world.controller(9);
    world.millis += 5_000;
    world.controller(9);
    world.put("leadership/c", &steady);
    world.controller(9);
    assert!(!lost(&world), "{:#?}", world.said);
    world.millis += 1_900;
    world.controller(9);
    assert!(!lost(&world), "{:#?}", world.said);
    world.millis += 200;
    world.controller(9);
    assert!(lost(&world), "{:#?}", world.said);
}

#[test]
fn a_member_lost_with_its_host_is_replaced_after_a_while_and_never_where_many_are_gone() {
    let mut world = created(4, 2);
    let lost = record(&world).voters[1].name.clone();
    let host = lost.as_str().split('-').next().unwrap().to_owned();
    world.kill(&host);
    world.settle(60);
    assert!(world.targets_of("c").iter().any(|(name, _)| name == lost.as_str()), "not yet");
    world.millis += 600_000;
    world.settle(ROUNDS);
    assert!(world.targets_of("c").iter().all(|(name, _)| name != lost.as_str()), "{:#?}", world.said);
    assert_eq!((world.targets_of("c").len(), whole(&world)), (3, None));

    let mut world = created(4, 2);
    world.kill("h2");
    world.kill("h3");
    world.millis += 1_200_000;
    let before = world.targets_of("c");
    world.settle(60);
    assert_eq!(world.targets_of("c"), before, "rather the observer is cut off");
}

#[test]
fn roles_swapped_in_documents_are_a_switchover_once() {
    let mut world = created(3, 2);
    let first = record(&world).master.unwrap().to_string();
    let second = record(&world).voters[0].name.to_string();
    let host = |name: &str| name.split('-').next().unwrap().to_owned();
    let document = |role: Value| json!({"data": role});
    let minion = document(json!({
        "role": "minion", "port": 3306, "cluster": "c", "host": host(&first), "master_host": host(&second),
        "master_port": 3306, "size": "small"
    }));
    let master = document(
        json!({"role": "master", "port": 3306, "cluster": "c", "host": host(&second), "size": "small"}),
    );
    world.put(&format!("targets/{}/{first}", host(&first)), &minion);
    world.put(&format!("targets/{}/{second}", host(&second)), &master);
    world.settle(ROUNDS);
    assert_eq!(record(&world).master.unwrap().as_str(), second, "{:#?}", world.said);
    assert_eq!((record(&world).term, whole(&world)), (2, None));
}

#[test]
fn a_second_operation_waits_for_the_first_and_a_deleted_cluster_is_gone() {
    let mut world = created(3, 2);
    let first = world.ask(Request::Switchover { to: None }, Some("c"));
    let second = world.ask(Request::Delete, Some("c"));
    world.settle(ROUNDS);
    assert_eq!(world.operation(&first).state, OperationState::Done);
    assert_eq!(world.operation(&second).state, OperationState::Done, "{:#?}", world.operation(&second));
    assert!(world.targets_of("c").is_empty());
    let left: Leadership = record(&world);
    assert_eq!((left.master, left.term), (None, 2), "its term is kept");
}

#[test]
fn a_receiver_that_loses_its_way_leaves_once_and_comes_back_once() {
    let mut world = created(3, 2);
    let at = world.said.len();
    world.deafen(Some(2));
    world.settle(60);
    assert_eq!(record(&world).voters.len(), 1);
    world.deafen(None);
    world.settle(ROUNDS);
    assert_eq!((record(&world).voters.len(), whole(&world)), (2, None));
    let told = world.said[at..].iter().filter(|what| !what.starts_with("waits")).count();
    assert!(told < 8, "{:#?}", &world.said[at..]);
}

#[test]
fn a_wish_for_async_takes_a_pending_change_back() {
    let mut world = created(3, 2);
    for _ in 0..3 {
        world.wish("async");
        world.settle(3);
        world.wish("lossless");
        world.controller(usize::MAX);
    }
    world.wish("async");
    world.settle(ROUNDS);
    let now = record(&world);
    assert_eq!((now.durability, now.acks, now.acks_next), (Durability::Async, 0, None));
    assert_eq!(whole(&world), None);
}

/// Each of them acknowledges until it has left: neither waits for the other.
#[test]
fn two_voters_disabled_at_once_both_leave() {
    let mut world = created(3, 2);
    let mut policy: Value = world.get("clusters/c").unwrap();
    policy["min_copies"] = json!(1);
    world.put("clusters/c", &policy);
    world.settle(ROUNDS);
    let voters: Vec<String> = record(&world).voters.iter().map(|voter| voter.name.to_string()).collect();
    assert_eq!(voters.len(), 2);
    for name in &voters {
        let host = name.split('-').next().unwrap();
        let mut target: Value = world.get(&format!("targets/{host}/{name}")).unwrap();
        target["data"]["disabled"] = json!(true);
        world.put(&format!("targets/{host}/{name}"), &target);
    }
    world.settle(ROUNDS);
    let now = record(&world);
    assert_eq!((now.durability, now.voters.len()), (Durability::Alone, 0), "{:#?}", world.said);
}

#[test]
fn a_document_that_cannot_be_read_changes_nothing() {
    let mut world = created(3, 2);
    let before = record(&world);
    let name = before.voters[0].name.to_string();
    let host = name.split('-').next().unwrap().to_owned();
    let good: Value = world.get(&format!("targets/{host}/{name}")).unwrap();
    world.put(&format!("targets/{host}/{name}"), &json!("garbage"));
    let view = world.view();
    assert!(view.unreadable(&"c".parse().unwrap()).is_some());
    for _ in 0..50 {
        world.millis += 1_000;
        world.controller(usize::MAX);
    }
    assert_eq!(record(&world), before);
    world.put(&format!("targets/{host}/{name}"), &good);
    world.settle(ROUNDS);
    assert_eq!(whole(&world), None);
}

#[derive(Debug, Clone)]
enum Deed {
    Ask(u8),
    Cancel,
    Agent(usize),
    Controller(usize),
    Kill(u8),
    Heal(u8),
    TakeBack,
    Wait(u16),
    Deafen(usize),
    Hear,
    Wish(bool),
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        2 => (0u8..9).prop_map(Deed::Ask),
        1 => Just(Deed::Cancel),
        30 => (0usize..20).prop_map(Deed::Agent),
        20 => (0usize..3).prop_map(Deed::Controller),
        1 => (1u8..6).prop_map(Deed::Kill),
        2 => (1u8..6).prop_map(Deed::Heal),
        1 => Just(Deed::TakeBack),
        4 => (100u16..4_000).prop_map(Deed::Wait),
        1 => (0usize..8).prop_map(Deed::Deafen),
        1 => Just(Deed::Hear),
        1 => any::<bool>().prop_map(Deed::Wish),
    ]
}

fn asked(world: &mut World, which: u8) {
    let request = match which {
        0 => Request::Switchover { to: None },
        1 => Request::Scale { replicas: 1, hosts: Vec::new() },
        2 => Request::Scale { replicas: 3, hosts: Vec::new() },
        3 => Request::Stop,
        4 => Request::Start,
        5 => Request::Upgrade { image: "img:next".to_owned(), soak: 1 },
        6 => Request::Resize {
            size: Size::Exact(schemadock_schema::size::ExactSize { memory: 2 << 30, cpus: None, disk: None }),
        },
        7 => {
            let Some((name, _)) = world.targets_of("c").pop() else { return };
            Request::Move { instance: name.parse().unwrap(), to: "h5".parse().unwrap() }
        }
        _ => {
            world.ask(Request::Drain { host: "h1".parse().unwrap(), evict: true }, None);
            return;
        }
    };
    world.ask(request, Some("c"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, max_shrink_iters: 2_000, ..ProptestConfig::default() })]

    /// The judge looks at every write; once all hosts are back, every operation comes to an end and the cluster is whole.
    #[test]
    fn whatever_happens_operations_end_and_clusters_are_whole(deeds in prop::collection::vec(deed(), 0..150)) {
        let mut world = created(5, 2);
        for deed in deeds {
            match deed {
                Deed::Ask(which) => asked(&mut world, which),
                Deed::Cancel => {
                    let open = world.view().operations.values().find(|one| !one.value.state.is_over()).cloned();
                    if let Some(mut open) = open.map(|one| one.value) {
                        open.cancel = true;
                        world.put(&format!("operations/{}", open.id), &json!(open));
                    }
                }
                Deed::Agent(at) => {
                    let agents = world.agents();
                    if !agents.is_empty() {
                        let (host, name) = agents[at % agents.len()].clone();
                        world.agent(&host, &name);
                    }
                }
                Deed::Controller(lives) => drop(world.controller(lives)),
                Deed::Kill(number) => world.kill(&format!("h{number}")),
                Deed::Heal(number) => world.heal(&format!("h{number}")),
                Deed::TakeBack => world.handovers.push(false),
                Deed::Wait(millis) => world.millis += i64::from(millis),
                Deed::Deafen(which) => world.deafen(Some(which)),
                Deed::Hear => world.deafen(None),
                Deed::Wish(lossless) => world.wish(if lossless { "lossless" } else { "async" }),
            }
        }
        (1..=5).for_each(|number| world.heal(&format!("h{number}")));
        world.handovers.clear();
        world.deafen(None);
        world.wish("lossless");
        world.settle(2_000);
        let open: Vec<_> = world.view().operations.values().filter(|one| !one.value.state.is_over()).cloned().collect();
        prop_assert!(open.is_empty(), "{open:#?}\n{:#?}\nmissing: {:?}", world.said, whole(&world));
        prop_assert_eq!(whole(&world), None, "{:#?}\n{:#?}", world.said, record(&world));
        prop_assert!(world.get::<Value>("locks/c").is_none());
    }
}
