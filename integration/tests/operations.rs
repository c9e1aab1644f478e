//! Whole clusters on real parts, by the command line, under an application that writes all the time.

use std::time::Duration;

use nix::sys::signal::Signal;
use schemadock_integration::fleet::{Fleet, Ledger, Options, host};
use schemadock_schema::leadership::Durability;
use serde_json::Value;

const SHOP: &str = "shop";

/// A fleet with a controller in office and a cluster of three; `small`, so that each host has room for more.
async fn shop(hosts: u8) -> Fleet {
    let mut fleet = Fleet::bare(Options::hosts(hosts)).await;
    for agent in &mut fleet.agents {
        agent.set("memory", "\"3GiB\"");
    }
    fleet.start_agents().await;
    fleet.start_controller(&[]);
    until_office(&fleet).await;
    fleet.done(&["cluster", "create", SHOP, "--replicas", "2", "--size", "small"]).await;
    fleet
}

async fn until_office(fleet: &Fleet) {
    let key = fleet.keys.controller_leader();
    fleet.until("a controller in office", |world| world.entry(&key).map(|_| ())).await;
}

fn master(fleet: &Fleet) -> String {
    fleet.world().leadership(SHOP).and_then(|record| record.master).expect("somebody leads").to_string()
}

fn minions(fleet: &Fleet) -> Vec<String> {
    let leads = master(fleet);
    fleet.world().members(SHOP).into_iter().map(|(name, ..)| name).filter(|name| *name != leads).collect()
}

/// What the application saw of an operation; printed, since nothing else tells people how it went.
fn told(what: &str, seen: &Ledger) {
    println!(
        "{what}: longest without an acknowledgement {:.1} ms, longest statement {:.1} ms",
        seen.gap.as_secs_f64() * 1e3,
        seen.longest.as_secs_f64() * 1e3
    );
}

fn number_of(name: &str) -> u8 {
    name.trim_start_matches("schemadock").split('-').next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_lives_through_every_operation_and_loses_nothing() {
    let fleet = shop(4).await;
    let record = fleet.world().leadership(SHOP).unwrap();
    assert_eq!((record.durability, record.acks, record.voters.len()), (Durability::Lossless, 1, 2));
    let roamer = fleet.roamer(SHOP).await;
    roamer.more(50).await;
    told("quiet", &roamer.look());

    for round in 0..10 {
        let before = master(&fleet);
        fleet.done(&["cluster", "switchover", SHOP]).await;
        assert_ne!(master(&fleet), before);
        roamer.more(20).await;
        told(&format!("switchover {round}"), &roamer.look());
    }
    let places = |fleet: &Fleet| -> Vec<(String, u16)> {
        fleet.world().members(SHOP).into_iter().map(|(_, address, port)| (address, port)).collect()
    };
    fleet.done(&["cluster", "scale", SHOP, "--replicas", "3"]).await;
    roamer.set_members(places(&fleet));
    assert_eq!(fleet.world().leadership(SHOP).unwrap().voters.len(), 3);
    fleet.done(&["cluster", "scale", SHOP, "--replicas", "2"]).await;
    roamer.set_members(places(&fleet));
    roamer.more(20).await;
    told("scaling", &roamer.look());

    // Two names of one image are two images to a document.
    let (_, tagged) = schemadock_integration::fleet::docker(&[
        "tag",
        schemadock_integration::fleet::IMAGE,
        "schemadock-mysql:again",
    ]);
    assert!(tagged);
    fleet.done(&["cluster", "upgrade", SHOP, "--image", "schemadock-mysql:again", "--soak", "2s"]).await;
    let policy =
        fleet.world().entry(&format!("{}/clusters/{SHOP}", fleet.keys.prefix())).unwrap().value.clone();
    let policy: Value = serde_json::from_slice(&policy).unwrap();
    assert_eq!(policy["image"], "schemadock-mysql:again");
    roamer.more(20).await;
    told("upgrade", &roamer.look());

    fleet.done(&["cluster", "resize", SHOP, "--size", "1536MiB"]).await;
    fleet.done(&["cluster", "resize", SHOP, "--size", "small"]).await;
    roamer.more(20).await;
    told("resizing", &roamer.look());

    let leads = master(&fleet);
    let free = (1..=4)
        .find(|number| fleet.world().members(SHOP).iter().all(|(name, ..)| number_of(name) != *number));
    // The application knows the new member's address beforehand, as one that reads the route does.
    let mut known = places(&fleet);
    known.push((fleet.address(free.unwrap()), 3306));
    roamer.set_members(known);
    fleet.done(&["cluster", "move", &leads, "--to", &host(free.unwrap())]).await;
    roamer.set_members(places(&fleet));
    roamer.more(20).await;
    told("moving the master", &roamer.look());

    let leads = host(number_of(&master(&fleet)));
    fleet.done(&["host", "drain", &leads]).await;
    assert_ne!(host(number_of(&master(&fleet))), leads);
    fleet.done(&["host", "drain", &leads, "--evict"]).await;
    assert!(fleet.world().members(SHOP).iter().all(|(name, ..)| host(number_of(name)) != leads));
    roamer.set_members(places(&fleet));
    roamer.more(20).await;
    told("draining", &roamer.look());

    let leads = master(&fleet);
    fleet.done(&["cluster", "stop", SHOP, "--yes"]).await;
    fleet.done(&["cluster", "start", SHOP]).await;
    assert_eq!(master(&fleet), leads, "whoever led leads again");
    roamer.more(20).await;
    let ledger = roamer.stop().await;
    fleet.verify(SHOP, &ledger).await;
    fleet.done(&["cluster", "delete", SHOP, "--yes"]).await;
    assert!(fleet.world().members(SHOP).is_empty());
    schemadock_integration::fleet::docker(&["rmi", "schemadock-mysql:again"]);
}

/// `cluster set NAME durability=async` and back, under writes; a member lost, and two.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn durability_follows_its_wish_and_its_voters() {
    let mut fleet = shop(3).await;
    let roamer = fleet.roamer(SHOP).await;
    roamer.more(50).await;
    let in_force = |durability: Durability, acks: u32, voters: usize| {
        move |world: &schemadock_integration::fleet::World| {
            let record = world.leadership(SHOP)?;
            let settled = record.acks_next.is_none() && record.leaving.is_empty();
            let there = (record.durability, record.acks, record.voters.len()) == (durability, acks, voters);
            (settled && there).then_some(())
        }
    };
    fleet.done(&["cluster", "set", SHOP, "durability=async"]).await;
    fleet.until("async in force", in_force(Durability::Async, 0, 2)).await;
    roamer.more(20).await;
    fleet.done(&["cluster", "set", SHOP, "durability=lossless"]).await;
    fleet.until("lossless in force", in_force(Durability::Lossless, 1, 2)).await;
    roamer.more(20).await;
    told("async and back", &roamer.look());

    // A voter is lost with its agent: it leaves, writes go on with the other one.
    let lost = minions(&fleet)[0].clone();
    let number = number_of(&lost);
    fleet.agent(number).kill();
    let (_, killed) = schemadock_integration::fleet::docker(&["kill", &fleet.container(&lost)]);
    assert!(killed);
    fleet.until("the lost voter has left", in_force(Durability::Lossless, 1, 1)).await;
    roamer.more(20).await;
    // The last one: min_copies is 2 of three members, so writes wait, and it is said for whom.
    let last = minions(&fleet).into_iter().find(|name| *name != lost).unwrap();
    fleet.agent(number_of(&last)).kill();
    let (_, killed) = schemadock_integration::fleet::docker(&["kill", &fleet.container(&last)]);
    assert!(killed);
    let topology = fleet
        .until("commits wait", |world| {
            world.status(&master_of(world)).filter(|s| s.commits_waiting > Some(0))
        })
        .await;
    assert_eq!(topology.writable, Some(true));
    let text = fleet.done(&["topology", SHOP]).await.stdout;
    assert!(text.contains("writes wait for voters") && text.contains(&last), "{text}");
    println!("{text}");
    // F16: a polite stop acknowledges nothing.
    let before = roamer.look().acknowledged.len();
    let leads = master(&fleet);
    let (_, stopped) = schemadock_integration::fleet::docker(&["stop", &fleet.container(&leads)]);
    assert!(stopped);
    assert_eq!(roamer.look().acknowledged.len(), before, "acknowledged without a voter");
    for number in [number, number_of(&last)] {
        fleet.agent(number).start(&[]);
    }
    fleet.until("all voters are back", in_force(Durability::Lossless, 1, 2)).await;
    roamer.more(20).await;
    let ledger = roamer.stop().await;
    fleet.verify(SHOP, &ledger).await;
}

fn master_of(world: &schemadock_integration::fleet::World) -> String {
    world.leadership(SHOP).and_then(|record| record.master).map(|name| name.to_string()).unwrap_or_default()
}

/// A cluster of two goes on alone when its minion is lost, and loudly.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_of_two_goes_on_alone() {
    let mut fleet = shop(3).await;
    fleet.done(&["cluster", "scale", SHOP, "--replicas", "1"]).await;
    let roamer = fleet.roamer(SHOP).await;
    roamer.more(20).await;
    roamer.look();
    let lost = minions(&fleet)[0].clone();
    fleet.agent(number_of(&lost)).kill();
    schemadock_integration::fleet::docker(&["kill", &fleet.container(&lost)]);
    fleet
        .until("alone", |world| {
            world.leadership(SHOP).filter(|r| r.durability == Durability::Alone).map(|_| ())
        })
        .await;
    roamer.more(20).await;
    told("alone", &roamer.look());
    let warnings = fleet.done(&["get", "clusters", SHOP, "-o", "json"]).await.stdout;
    assert!(warnings.contains("no voter is left"), "{warnings}");
    fleet.agent(number_of(&lost)).start(&[]);
    fleet
        .until("lossless again", |world| {
            world.leadership(SHOP).filter(|r| r.durability == Durability::Lossless && r.acks == 1).map(|_| ())
        })
        .await;
    roamer.more(20).await;
    let ledger = roamer.stop().await;
    fleet.verify(SHOP, &ledger).await;
}

/// The controller ends at every moment of every operation, once before and once after each write; the next goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_may_end_at_any_moment() {
    let mut fleet = shop(4).await;
    let roamer = fleet.roamer(SHOP).await;
    roamer.more(20).await;
    let had = fleet.dir().join("had");
    let each = format!("each:{}", had.display());
    fleet.controllers[0].kill();
    fleet.start_controller(&[("SCHEMADOCK_FAILPOINT", &each)]);
    let operations: &[&[&str]] = &[
        &["cluster", "switchover", SHOP, "--no-wait"],
        &["cluster", "scale", SHOP, "--replicas", "3", "--no-wait"],
        &["cluster", "scale", SHOP, "--replicas", "2", "--no-wait"],
        &["cluster", "stop", SHOP, "--yes", "--no-wait"],
        &["cluster", "start", SHOP, "--no-wait"],
    ];
    for arguments in operations {
        loop {
            if !fleet.controllers[1].is_running() {
                fleet.controllers[1].start(&[("SCHEMADOCK_FAILPOINT", &each)]);
            }
            let asked = fleet.cli(arguments).run().await;
            if asked.code == 0 {
                break;
            }
            // Between two lives nobody is in office.
            until_office(&fleet).await;
        }
        loop {
            let open = |world: &schemadock_integration::fleet::World| {
                let operations = world.below("/schemadock/operations/").collect::<Vec<_>>();
                operations
                    .iter()
                    .filter_map(|entry| {
                        serde_json::from_slice::<schemadock_schema::operation::Operation>(&entry.value).ok()
                    })
                    .any(|operation| !operation.state.is_over())
            };
            if !fleet.controllers[1].is_running() {
                fleet.controllers[1].start(&[("SCHEMADOCK_FAILPOINT", &each)]);
            }
            if !open(&fleet.world()) {
                break;
            }
            fleet.controllers[1].ended(Duration::from_millis(200)).await;
        }
    }
    let moments = std::fs::read_to_string(&had).unwrap_or_default();
    println!("the controller ended at {} moments:\n{moments}", moments.lines().count());
    assert!(moments.lines().count() > 30, "{moments}");
    let states = fleet.done(&["get", "operations", "-o", "json"]).await.stdout;
    let states: Value = serde_json::from_str(&states).unwrap();
    for operation in states.as_array().unwrap() {
        assert_eq!(operation["state"], "done", "{operation:#}");
    }
    roamer.more(20).await;
    let ledger = roamer.stop().await;
    fleet.verify(SHOP, &ledger).await;
}

/// A controller that was frozen through a change of office writes nothing when it wakes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_controller_has_lost_its_office() {
    let mut fleet = shop(3).await;
    let key = fleet.keys.controller_leader();
    let first = fleet.world().entry(&key).unwrap().value.clone();
    fleet.controllers[0].signal(Signal::SIGSTOP);
    fleet.start_controller(&[]);
    fleet
        .until("another one in office", |world| {
            world.entry(&key).filter(|entry| entry.value != first).map(|_| ())
        })
        .await;
    fleet.done(&["cluster", "switchover", SHOP, "--no-wait"]).await;
    fleet.controllers[0].signal(Signal::SIGCONT);
    let second = fleet.world().entry(&key).unwrap().value.clone();
    let over = fleet
        .until("the switchover is over", |world| {
            let entry = world.below("/schemadock/operations/").last()?;
            let operation: schemadock_schema::operation::Operation =
                serde_json::from_slice(&entry.value).ok()?;
            operation.state.is_over().then_some(operation)
        })
        .await;
    assert_eq!(over.outcome.map(|text| text.contains("leads")), Some(true));
    assert_eq!(fleet.world().entry(&key).unwrap().value, second, "the office stays where it is");
}

/// What cannot be done is refused with all reasons, and changes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_done_is_refused() {
    let fleet = shop(3).await;
    let revision = fleet.world().below("/schemadock/targets/").map(|entry| entry.mod_revision).max();
    let leads = master(&fleet);
    let cases: &[(&[&str], &str)] = &[
        (&["cluster", "create", SHOP, "--replicas", "2"], "it exists"),
        (&["cluster", "create", "big", "--replicas", "2", "--size", "8GiB"], "memory"),
        (&["cluster", "create", "many", "--replicas", "7", "--size", "small"], "schemadock01"),
        (&["cluster", "switchover", "shob"], "no such cluster"),
        (&["cluster", "switchover", SHOP, "--to", &leads], "it leads already"),
        (&["cluster", "switchover", SHOP, "--to", "schemadock09-shop-db9"], "no member"),
        (&["cluster", "move", &leads, "--to", "schemadock09"], "no such host"),
        (&["host", "drain", "schemadock09"], "no such host"),
        (&["cluster", "scale", SHOP, "--replicas", "9"], "schemadock03"),
    ];
    for (arguments, words) in cases {
        let refused = fleet.cli(arguments).run().await;
        assert_eq!(refused.code, 1, "{arguments:?}: {refused:?}");
        assert!(refused.stderr.contains(words), "{arguments:?}: {}", refused.stderr);
    }
    let after = fleet.world().below("/schemadock/targets/").map(|entry| entry.mod_revision).max();
    assert_eq!(after, revision, "nothing was changed");
}

/// Events run on the master and nowhere else, however a member was seeded; those that were off stay off (fact F8).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scheduled_events_follow_the_master() {
    let fleet = shop(4).await;
    let mut sql = fleet.sql_of(SHOP, &master(&fleet)).await;
    for statement in [
        "CREATE DATABASE clock",
        "CREATE TABLE clock.ticks (id BIGINT AUTO_INCREMENT PRIMARY KEY, host VARCHAR(64), mode VARCHAR(200))",
        "SET SESSION sql_mode = 'ANSI_QUOTES,STRICT_ALL_TABLES'",
        "CREATE EVENT clock.tick ON SCHEDULE EVERY 1 SECOND DO \
         INSERT INTO clock.ticks (host, mode) VALUES (@@bind_address, @@SESSION.sql_mode)",
        "CREATE EVENT clock.never ON SCHEDULE EVERY 1 SECOND DISABLE DO INSERT INTO clock.ticks (host) VALUES ('never')",
    ] {
        sql.run(statement).await;
    }
    // A member that came by CLONE has the event as its donor had it: on.
    fleet.done(&["cluster", "scale", SHOP, "--replicas", "3"]).await;
    let cloned =
        fleet.world().members(SHOP).into_iter().map(|(name, ..)| name).max_by_key(|name| number_of(name));
    for to in [minions(&fleet)[0].clone(), cloned.unwrap(), master(&fleet)] {
        fleet.done(&["cluster", "switchover", SHOP, "--to", &to]).await;
        let members = fleet.world().members(SHOP);
        let (_, address, _) = members.iter().find(|(name, ..)| *name == to).unwrap();
        let mut sql = fleet.sql_of(SHOP, &to).await;
        let before = sql.text("SELECT COALESCE(MAX(id), 0) FROM clock.ticks").await;
        let ticked = format!("SELECT COUNT(*) FROM clock.ticks WHERE id > {before} AND host = '{address}'");
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        // An event tells nobody that it ran.
        while sql.text(&ticked).await == "0" {
            assert!(tokio::time::Instant::now() < deadline, "no event runs on {to}\n{}", fleet.describe());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let others = format!("SELECT COUNT(*) FROM clock.ticks WHERE id > {before} AND host <> '{address}'");
        assert_eq!(sql.text(&others).await, "0", "an event runs elsewhere");
        assert_eq!(sql.text("SELECT COUNT(*) FROM clock.ticks WHERE host = 'never'").await, "0");
        for (name, ..) in members.iter().filter(|(name, ..)| *name != to) {
            assert_eq!(fleet.sql_of(SHOP, name).await.global("event_scheduler").await, "OFF", "{name}");
        }
    }
    let mut sql = fleet.sql_of(SHOP, &master(&fleet)).await;
    let modes = sql.rows("SELECT DISTINCT mode FROM clock.ticks").await;
    assert_eq!(modes.len(), 1, "an event keeps its SQL mode: {modes:?}");
}
