//! Operations on real parts with something in their way: their controller ends, etcd goes, clients hold locks, members lag,
//! are stopped or lost. An application writes all the time.

use std::time::Duration;

use schemadock_integration::fleet::{Fleet, IMAGE, Sql, docker, host, number_of};
use schemadock_schema::leadership::LeadershipPhase;
use schemadock_schema::operation::{Operation, OperationState};
use schemadock_schema::status::{LAG_CLOSE, Phase};
use serde_json::{Value, json};

const SHOP: &str = "shop";

/// Where members of these clusters can come to listen: the application tries them all.
fn everywhere(fleet: &Fleet, hosts: u8) -> Vec<(String, u16)> {
    let (_, port) = fleet.places(SHOP)[0].clone();
    (1..=hosts).map(|number| (fleet.address(number), port)).collect()
}

fn words(arguments: &[&str]) -> Vec<String> {
    arguments.iter().map(|&word| word.to_owned()).collect()
}

/// The controller ends at every moment of every operation, once before and once after each write; the next goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_may_end_at_any_moment() {
    const AGAIN: &str = "schemadock-mysql:ends";
    let mut fleet = Fleet::with_cluster(4, SHOP).await;
    let roamer = fleet.roamer(SHOP).await;
    roamer.set_members(everywhere(&fleet, 4));
    roamer.more(20).await;
    let (_, tagged) = docker(&["tag", IMAGE, AGAIN]);
    assert!(tagged);
    let had = fleet.dir().join("had");
    let each = format!("each:{}", had.display());
    fleet.controllers[0].kill();
    fleet.start_controller(&[("SCHEMADOCK_FAILPOINT", &each)]);
    let free = |fleet: &Fleet| {
        let members = fleet.world().members(SHOP);
        let taken = move |number: &u8| members.iter().any(|(name, ..)| number_of(name) == *number);
        (1..=4).find(|number| !taken(number)).map(host).unwrap_or_default()
    };
    type Asked = fn(&Fleet, String) -> Vec<String>;
    let operations: [Asked; 10] = [
        |_, _| words(&["cluster", "switchover", SHOP]),
        |_, _| words(&["cluster", "scale", SHOP, "--replicas", "3"]),
        |_, _| words(&["cluster", "scale", SHOP, "--replicas", "2"]),
        |_, _| words(&["cluster", "upgrade", SHOP, "--image", AGAIN, "--soak", "1s"]),
        |_, _| words(&["cluster", "set", SHOP, "mysql.table_open_cache_instances=4"]),
        |_, _| words(&["cluster", "resize", SHOP, "--size", "1536MiB"]),
        |fleet, free| words(&["cluster", "move", &fleet.leads(SHOP), "--to", &free]),
        |fleet, _| words(&["host", "drain", &host(number_of(&fleet.leads(SHOP))), "--evict"]),
        |_, _| words(&["cluster", "stop", SHOP, "--yes"]),
        |_, _| words(&["cluster", "start", SHOP]),
    ];
    for operation in operations {
        let mut arguments = operation(&fleet, free(&fleet));
        arguments.push("--no-wait".to_owned());
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        loop {
            if !fleet.controllers[1].is_running() {
                fleet.controllers[1].start(&[("SCHEMADOCK_FAILPOINT", &each)]);
            }
            let asked = fleet.run(&arguments).await;
            if asked.code == 0 {
                break;
            }
            // Between two lives nobody is in office.
            assert!(asked.stderr.contains("controller"), "{arguments:?}: {asked:?}");
            fleet.until_office().await;
        }
        let deadline = tokio::time::Instant::now() + Duration::from_secs(240);
        let below = fleet.keys.operations();
        while fleet.world().below(&below).any(|entry| !over(&entry.value)) {
            assert!(
                tokio::time::Instant::now() < deadline,
                "{arguments:?} does not end\n{}",
                fleet.describe()
            );
            if !fleet.controllers[1].is_running() {
                fleet.controllers[1].start(&[("SCHEMADOCK_FAILPOINT", &each)]);
            }
            fleet.controllers[1].ended(Duration::from_millis(200)).await;
        }
        println!("{arguments:?}: over");
    }
    let moments = std::fs::read_to_string(&had).unwrap_or_default();
    println!("the controller ended at {} moments:\n{moments}", moments.lines().count());
    assert!(moments.lines().count() > 60, "{moments}");
    let states = fleet.done(&["get", "operations", "-o", "json"]).await.stdout;
    let states: Value = serde_json::from_str(&states).unwrap();
    for operation in states.as_array().unwrap() {
        assert_eq!(operation["state"], "done", "{operation:#}");
    }
    roamer.more(20).await;
    let ledger = roamer.stop().await;
    fleet.verify(SHOP, &ledger).await;
    docker(&["rmi", AGAIN]);
}

/// The agents of all members end at every step that they take in handovers, once before and once after it; each time they
/// are started again, and the handover ends: done or taken back, with an open master.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_may_end_at_any_moment_of_a_switchover() {
    let mut fleet = Fleet::with_cluster(3, SHOP).await;
    let roamer = fleet.roamer(SHOP).await;
    roamer.more(20).await;
    let had = |fleet: &Fleet, number: u8| fleet.dir().join(format!("had{number}"));
    let each = |fleet: &Fleet, number: u8| format!("each:{}", had(fleet, number).display());
    for number in 1..=3 {
        let point = each(&fleet, number);
        fleet.agent(number).kill();
        fleet.agent(number).start(&[("SCHEMADOCK_FAILPOINT", &point)]);
    }
    let count = |fleet: &Fleet| -> usize {
        let had = (1..=3).map(|number| std::fs::read_to_string(had(fleet, number)).unwrap_or_default());
        had.map(|text| text.lines().count()).sum()
    };
    // With three members, and with two: there the old master acknowledges.
    for replicas in ["2", "1"] {
        asked_for(&mut fleet, &["cluster", "scale", SHOP, "--replicas", replicas], each).await;
        let mut moments = 0;
        // Until no agent meets a step at which it has not ended.
        for round in 0..30 {
            if round % 3 == 0 {
                let now = count(&fleet);
                if round > 0 && now == moments {
                    break;
                }
                moments = now;
            }
            let minions = fleet.minions(SHOP);
            let to = &minions[round % minions.len()];
            asked_for(&mut fleet, &["cluster", "switchover", SHOP, "--to", to], each).await;
            roamer.more(20).await;
            roamer.look().tell(&format!("switchover {round} to {to}"));
        }
    }
    let moments = count(&fleet);
    for number in 1..=3 {
        println!("agent {number}:\n{}", std::fs::read_to_string(had(&fleet, number)).unwrap_or_default());
        fleet.agent(number).kill();
        fleet.agent(number).start(&[]);
    }
    assert!(moments > 40, "the agents ended at {moments} moments");
    let all: String = (1..=3).map(|n| std::fs::read_to_string(had(&fleet, n)).unwrap_or_default()).collect();
    assert!(all.contains("FollowCandidate"), "{all}");
    fleet.until_converged_cluster(SHOP).await;
    let states = fleet.done(&["get", "operations", "-o", "json"]).await.stdout;
    let states: Value = serde_json::from_str(&states).unwrap();
    for operation in states.as_array().unwrap() {
        let ended = ["done", "undone"].iter().any(|state| operation["state"] == *state);
        assert!(ended && operation["outcome"].is_string(), "{operation:#}");
    }
    let ledger = roamer.stop().await;
    fleet.verify(SHOP, &ledger).await;
}

/// Asks for an operation, and starts agents that have ended again, until it is over and writes are possible.
async fn asked_for(fleet: &mut Fleet, arguments: &[&str], each: impl Fn(&Fleet, u8) -> String) {
    let mut arguments = arguments.to_vec();
    arguments.push("--no-wait");
    let asked = fleet.run(&arguments).await;
    println!("{arguments:?}: {}", asked.code);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(90);
    let below = fleet.keys.operations();
    let open = |fleet: &Fleet| fleet.world().below(&below).any(|entry| !over(&entry.value));
    let writes = |fleet: &Fleet| {
        let leads = fleet.leads(SHOP);
        let status = fleet.world().status(&leads);
        status.is_some_and(|status| status.writable == Some(true) && status.converged)
    };
    while open(fleet) || !writes(fleet) {
        assert!(tokio::time::Instant::now() < deadline, "it does not end\n{}", fleet.describe());
        for number in 1..=3 {
            let point = each(fleet, number);
            if !fleet.agent(number).is_running() {
                fleet.agent(number).start(&[("SCHEMADOCK_FAILPOINT", &point)]);
            }
        }
        fleet.agent(1).ended(Duration::from_millis(100)).await;
    }
}

fn over(document: &[u8]) -> bool {
    serde_json::from_slice::<Operation>(document).is_ok_and(|operation| operation.state.is_over())
}

/// Whatever is known to whom when etcd goes: afterwards the operation ends, and writes are possible.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_goes_in_the_middle_of_an_operation() {
    /// Longer than a freeze lasts without anybody else's word.
    const AWAY: Duration = Duration::from_secs(3);
    let mut fleet = Fleet::with_cluster(4, SHOP).await;
    let roamer = fleet.roamer(SHOP).await;
    roamer.set_members(everywhere(&fleet, 4));
    roamer.more(20).await;
    for moment in ["the handover is begun", "the final set is there", "it is decided"] {
        roamer.look();
        let leads = fleet.leads(SHOP);
        let term = fleet.world().leadership(SHOP).unwrap().term + 1;
        let votes = fleet.keys.votes();
        let decided = fleet.keys.handover(&SHOP.parse().unwrap(), term);
        // Else it is decided before the old master votes.
        let mut in_the_way = fleet.sql_of(SHOP, &leads).await;
        if moment == "the final set is there" {
            in_the_way.run(&format!("DO GET_LOCK('schemadock open in term {term}', 0)")).await;
        }
        fleet.done(&["cluster", "switchover", SHOP, "--no-wait"]).await;
        fleet
            .until(moment, |world| match moment {
                "the handover is begun" => {
                    world.leadership(SHOP).filter(|r| r.phase == LeadershipPhase::Handover).map(drop)
                }
                "the final set is there" => world
                    .below(&votes)
                    .filter(|entry| entry.key.ends_with(&format!("/{leads}")))
                    .filter_map(|entry| serde_json::from_slice::<Value>(&entry.value).ok())
                    .any(|vote| vote["term"] == term)
                    .then_some(()),
                _ => world.entry(&decided).map(drop),
            })
            .await;
        fleet.etcd.down();
        tokio::time::sleep(AWAY).await;
        fleet.etcd.up().await;
        let ended = fleet.until_over().await;
        println!("etcd went when {moment}: {:?}, {}", ended.state, ended.outcome.unwrap_or_default());
        assert!(matches!(ended.state, OperationState::Done | OperationState::Undone));
        roamer.more(20).await;
        roamer.look().tell(moment);
        // What was taken back is being mended; nothing is asked of a cluster that is not whole.
        fleet.until_converged_cluster(SHOP).await;
    }
    fleet.done(&["cluster", "scale", SHOP, "--replicas", "3", "--no-wait"]).await;
    fleet.until("a fourth member", |world| (world.members(SHOP).len() == 4).then_some(())).await;
    fleet.etcd.down();
    tokio::time::sleep(AWAY).await;
    fleet.etcd.up().await;
    assert_eq!(fleet.until_over().await.state, OperationState::Done);
    roamer.more(20).await;
    let ledger = roamer.stop().await;
    fleet.verify(SHOP, &ledger).await;
}

/// A freeze that waits for a `LOCK TABLES` is given up before clients give up; an idle transaction is in nobody's way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locks_and_idle_transactions_hold_nobody_up() {
    let fleet = Fleet::with_cluster(3, SHOP).await;
    let roamer = fleet.roamer(SHOP).await;
    roamer.more(20).await;
    let leads = fleet.leads(SHOP);
    let members = fleet.world().members(SHOP);
    let (_, address, port) = members.iter().find(|(name, ..)| *name == leads).unwrap();
    let account = fleet.secrets_of(SHOP).application;
    let mut client = Sql::connect(address, *port, &account.user, account.password.expose()).await;
    client.run("CREATE DATABASE aside").await;
    client.run("CREATE TABLE aside.t (id BIGINT PRIMARY KEY)").await;
    client.run("LOCK TABLES aside.t WRITE").await;
    roamer.more(20).await;
    roamer.look();
    let asked = fleet.run(&["cluster", "switchover", SHOP]).await;
    println!("beside LOCK TABLES: {}\n{}", asked.code, asked.stderr);
    assert_eq!(asked.code, 1);
    let ended = fleet.until_over().await;
    assert_eq!(ended.state, OperationState::Undone, "{ended:?}");
    assert_eq!(fleet.leads(SHOP), leads);
    roamer.more(20).await;
    let seen = roamer.look();
    seen.tell("beside LOCK TABLES");
    // A second of freezing (1,005 ms seen); the rest is this machine.
    assert!(seen.longest < Duration::from_millis(1500), "a client waited for {:?}", seen.longest);

    client.run("UNLOCK TABLES").await;
    client.run("START TRANSACTION").await;
    client.run("INSERT INTO aside.t VALUES (1)").await;
    fleet.done(&["cluster", "switchover", SHOP]).await;
    let late = client.try_run("COMMIT").await;
    assert!(late.is_err(), "a commit on a former master was acknowledged");
    let now = fleet.leads(SHOP);
    assert_ne!(now, leads);
    assert_eq!(fleet.sql_of(SHOP, &now).await.text("SELECT COUNT(*) FROM aside.t").await, "0");
    roamer.more(20).await;
    roamer.look().tell("beside an idle transaction");
    let ledger = roamer.stop().await;
    fleet.verify(SHOP, &ledger).await;
}

/// A member that cannot take part is waited for where it is meant, and in nobody's way elsewhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_lag_or_are_stopped_or_lost_hold_up_only_themselves() {
    let mut fleet = Fleet::with_cluster(4, SHOP).await;
    let roamer = fleet.roamer(SHOP).await;
    roamer.set_members(everywhere(&fleet, 4));
    roamer.more(50).await;
    let slow = fleet.minions(SHOP)[0].clone();
    let mut holds = fleet.sql_of(SHOP, &slow).await;
    holds.run("LOCK TABLES ledger.rows_written READ").await;
    let lags = |status: &schemadock_schema::status::Status| {
        status.source.as_ref().and_then(|source| source.lag_seconds).is_some_and(|lag| lag > LAG_CLOSE)
    };
    fleet.until_status(&slow, "it lags", lags).await;
    let asked = fleet.run(&["cluster", "switchover", SHOP, "--to", &slow]).await;
    assert_eq!(asked.code, 1, "{asked:?}");
    assert!(asked.stderr.contains(&slow), "{asked:?}");
    let before = fleet.leads(SHOP);
    fleet.done(&["cluster", "switchover", SHOP, "--no-wait"]).await;
    fleet
        .until("another one leads", |world| {
            let record = world.leadership(SHOP)?;
            let other = record.master.is_some_and(|name| name.as_str() != before && name.as_str() != slow);
            (other && record.phase == LeadershipPhase::Steady).then_some(())
        })
        .await;
    roamer.more(20).await;
    holds.run("UNLOCK TABLES").await;
    assert_eq!(fleet.until_over().await.state, OperationState::Done);
    roamer.look().tell("beside a member that lags");

    // Stopped by its document: it leaves the voters first.
    let rests = fleet.minions(SHOP)[0].clone();
    fleet.edit(&rests, json!({"disabled": true})).await;
    fleet.until_status(&rests, "stopped", |status| status.phase == Phase::Stopped).await;
    let before = fleet.leads(SHOP);
    fleet.done(&["cluster", "switchover", SHOP, "--no-wait"]).await;
    fleet
        .until("another one leads", |world| {
            let record = world.leadership(SHOP)?;
            (record.master?.as_str() != before && record.phase == LeadershipPhase::Steady).then_some(())
        })
        .await;
    roamer.more(20).await;
    roamer.look().tell("beside a stopped member");
    fleet.edit(&rests, json!({"disabled": false})).await;
    assert_eq!(fleet.until_over().await.state, OperationState::Done);
    fleet.until_converged_cluster(SHOP).await;

    // Lost with its agent.
    let lost = fleet.minions(SHOP)[0].clone();
    fleet.agent(number_of(&lost)).kill();
    docker(&["kill", &fleet.container(&lost)]);
    fleet
        .until("the lost voter has left", |world| {
            world.leadership(SHOP).filter(|record| record.voters.len() == 1).map(drop)
        })
        .await;
    fleet.done(&["cluster", "switchover", SHOP, "--no-wait"]).await;
    let ended = fleet.until_over().await;
    println!("beside a lost member: {:?}, {}", ended.state, ended.outcome.unwrap_or_default());
    assert_eq!(ended.state, OperationState::Done);
    roamer.more(20).await;
    roamer.look().tell("beside a lost member");
    fleet.agent(number_of(&lost)).start(&[]);
    fleet.until_converged_cluster(SHOP).await;
    let ledger = roamer.stop().await;
    fleet.verify(SHOP, &ledger).await;
}

/// What a server can change while it runs is changed there; what it cannot, by restarts one after another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_come_into_force_live_or_one_restart_after_another() {
    let fleet = Fleet::with_cluster(3, SHOP).await;
    let roamer = fleet.roamer(SHOP).await;
    roamer.more(20).await;
    let started = || {
        let names: Vec<String> = fleet.world().members(SHOP).into_iter().map(|(name, ..)| name).collect();
        let at = |name: &String| docker(&["inspect", "-f", "{{.State.StartedAt}}", &fleet.container(name)]).0;
        names.iter().map(at).collect::<Vec<String>>()
    };
    let in_force = async |variable: &str| {
        let mut values = Vec::new();
        for (name, ..) in fleet.world().members(SHOP) {
            values.push(fleet.sql_of(SHOP, &name).await.global(variable).await);
        }
        values
    };
    let before = started();
    fleet.done(&["cluster", "set", SHOP, "mysql.max_connections=123"]).await;
    assert_eq!(in_force("max_connections").await, ["123", "123", "123"]);
    assert_eq!(started(), before, "a server was restarted for what it can change while it runs");
    roamer.more(20).await;
    roamer.look().tell("a live setting");
    fleet.done(&["cluster", "set", SHOP, "mysql.table_open_cache_instances=4"]).await;
    assert_eq!(in_force("table_open_cache_instances").await, ["4", "4", "4"]);
    assert!(started().iter().zip(&before).all(|(now, then)| now != then), "not every server was restarted");
    roamer.more(20).await;
    roamer.look().tell("a setting that needs restarts");
    let ledger = roamer.stop().await;
    fleet.verify(SHOP, &ledger).await;
}
