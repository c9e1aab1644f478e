//! Whole clusters on real parts, by the command line, under an application that writes all the time.

use std::time::Duration;

use nix::sys::signal::Signal;
use schemadock_integration::fleet::{Fleet, host, number_of};
use schemadock_schema::leadership::Durability;
use serde_json::Value;

const SHOP: &str = "shop";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_lives_through_every_operation_and_loses_nothing() {
    let fleet = Fleet::with_cluster(4, SHOP).await;
    let record = fleet.world().leadership(SHOP).unwrap();
    assert_eq!((record.durability, record.acks, record.voters.len()), (Durability::Lossless, 1, 2));
    let roamer = fleet.roamer(SHOP).await;
    roamer.more(50).await;
    roamer.look().tell("quiet");

    for round in 0..10 {
        let before = fleet.leads(SHOP);
        fleet.done(&["cluster", "switchover", SHOP]).await;
        assert_ne!(fleet.leads(SHOP), before);
        roamer.more(20).await;
        roamer.look().tell(&format!("switchover {round}"));
    }
    fleet.done(&["cluster", "scale", SHOP, "--replicas", "3"]).await;
    roamer.set_members(fleet.places(SHOP));
    assert_eq!(fleet.world().leadership(SHOP).unwrap().voters.len(), 3);
    fleet.done(&["cluster", "scale", SHOP, "--replicas", "2"]).await;
    roamer.set_members(fleet.places(SHOP));
    roamer.more(20).await;
    roamer.look().tell("scaling");

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
    roamer.look().tell("upgrade");

    fleet.done(&["cluster", "resize", SHOP, "--size", "1536MiB"]).await;
    fleet.done(&["cluster", "resize", SHOP, "--size", "small"]).await;
    roamer.more(20).await;
    roamer.look().tell("resizing");

    let leads = fleet.leads(SHOP);
    let free = (1..=4)
        .find(|number| fleet.world().members(SHOP).iter().all(|(name, ..)| number_of(name) != *number));
    // The application knows the new member's address beforehand, as one that reads the route does.
    let mut known = fleet.places(SHOP);
    known.push((fleet.address(free.unwrap()), 3306));
    roamer.set_members(known);
    fleet.done(&["cluster", "move", &leads, "--to", &host(free.unwrap())]).await;
    roamer.set_members(fleet.places(SHOP));
    roamer.more(20).await;
    roamer.look().tell("moving the master");

    let leads = host(number_of(&fleet.leads(SHOP)));
    fleet.done(&["host", "drain", &leads]).await;
    assert_ne!(host(number_of(&fleet.leads(SHOP))), leads);
    fleet.done(&["host", "drain", &leads, "--evict"]).await;
    assert!(fleet.world().members(SHOP).iter().all(|(name, ..)| host(number_of(name)) != leads));
    roamer.set_members(fleet.places(SHOP));
    roamer.more(20).await;
    roamer.look().tell("draining");

    let leads = fleet.leads(SHOP);
    fleet.done(&["cluster", "stop", SHOP, "--yes"]).await;
    fleet.done(&["cluster", "start", SHOP]).await;
    assert_eq!(fleet.leads(SHOP), leads, "whoever led leads again");
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
    let mut fleet = Fleet::with_cluster(3, SHOP).await;
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
    roamer.look().tell("async and back");

    // A voter is lost with its agent: it leaves, writes go on with the other one.
    let lost = fleet.minions(SHOP)[0].clone();
    let number = number_of(&lost);
    fleet.agent(number).kill();
    let (_, killed) = schemadock_integration::fleet::docker(&["kill", &fleet.container(&lost)]);
    assert!(killed);
    fleet.until("the lost voter has left", in_force(Durability::Lossless, 1, 1)).await;
    roamer.more(20).await;
    // The last one: min_copies is 2 of three members, so writes wait, and it is said for whom.
    let last = fleet.minions(SHOP).into_iter().find(|name| *name != lost).unwrap();
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
    let leads = fleet.leads(SHOP);
    let (_, stopped) = schemadock_integration::fleet::docker(&["stop", &fleet.container(&leads)]);
    assert!(stopped);
    assert_eq!(roamer.look().acknowledged.len(), before, "acknowledged without a voter");
    for number in [number, number_of(&last)] {
        fleet.agent(number).start(&[]);
    }
    fleet.until("all voters are back", in_force(Durability::Lossless, 1, 2)).await;
    // The last one was a voter all the time, wherever its server was.
    fleet.until_converged_cluster(SHOP).await;
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
    let mut fleet = Fleet::with_cluster(3, SHOP).await;
    fleet.done(&["cluster", "scale", SHOP, "--replicas", "1"]).await;
    let roamer = fleet.roamer(SHOP).await;
    roamer.more(20).await;
    roamer.look();
    let lost = fleet.minions(SHOP)[0].clone();
    fleet.agent(number_of(&lost)).kill();
    schemadock_integration::fleet::docker(&["kill", &fleet.container(&lost)]);
    fleet
        .until("alone", |world| {
            world.leadership(SHOP).filter(|r| r.durability == Durability::Alone).map(|_| ())
        })
        .await;
    roamer.more(20).await;
    roamer.look().tell("alone");
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

/// A controller that was frozen through a change of office writes nothing when it wakes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_controller_has_lost_its_office() {
    let mut fleet = Fleet::with_cluster(3, SHOP).await;
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
    let over = fleet.until_over().await;
    assert_eq!(over.outcome.map(|text| text.contains("leads")), Some(true));
    assert_eq!(fleet.world().entry(&key).unwrap().value, second, "the office stays where it is");
}

/// What cannot be done is refused with all reasons, and changes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_done_is_refused() {
    let fleet = Fleet::with_cluster(3, SHOP).await;
    let revision = fleet.world().below("/schemadock/targets/").map(|entry| entry.mod_revision).max();
    let leads = fleet.leads(SHOP);
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
        let refused = fleet.run(arguments).await;
        assert_eq!(refused.code, 1, "{arguments:?}: {refused:?}");
        assert!(refused.stderr.contains(words), "{arguments:?}: {}", refused.stderr);
    }
    let after = fleet.world().below("/schemadock/targets/").map(|entry| entry.mod_revision).max();
    assert_eq!(after, revision, "nothing was changed");
}

/// Events run on the master and nowhere else, however a member was seeded; those that were off stay off (fact F8).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scheduled_events_follow_the_master() {
    let fleet = Fleet::with_cluster(4, SHOP).await;
    let mut sql = fleet.sql_of(SHOP, &fleet.leads(SHOP)).await;
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
    for to in [fleet.minions(SHOP)[0].clone(), cloned.unwrap(), fleet.leads(SHOP)] {
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
    let mut sql = fleet.sql_of(SHOP, &fleet.leads(SHOP)).await;
    let modes = sql.rows("SELECT DISTINCT mode FROM clock.ticks").await;
    assert_eq!(modes.len(), 1, "an event keeps its SQL mode: {modes:?}");
}
