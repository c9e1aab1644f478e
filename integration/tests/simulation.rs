//! Real agents and controllers on a simulated world: one seed, one run.
//!
//! A seed that fails replays by its number: `SCHEMADOCK_SIM_SEED=17 cargo test --test simulation`.
//! `SCHEMADOCK_SIM_SEEDS` says how many are tried. With `SCHEMADOCK_SIM_TRACE` set every run tells what happened.

use std::cell::Cell;
use std::time::Duration;

use schemadock_integration::sim::faults::{documents, happen, mend_machines};
use schemadock_integration::sim::fleet::Fleet;
use schemadock_integration::sim::judge::FLEET;
use schemadock_integration::sim::trouble::{pause, trouble};
use schemadock_integration::sim::wishes::{create, wish};
use schemadock_schema::proposal::Write;

/// How many seeds are tried by default.
const SEEDS: u64 = 120;
/// The same with controllers, for what people ask of clusters.
const ASKED: u64 = 100;
/// How long a fleet may take to mend itself.
const MENDS: Duration = Duration::from_secs(180);

thread_local! {
    static PANICKED: Cell<bool> = const { Cell::new(false) };
}

/// One run, from its seed alone.
fn run(seed: u64, hosts: u8, controllers: u8, story: impl AsyncFnOnce(&Fleet) -> Result<(), String>) {
    PANICKED.set(false);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let (ended, trace) = runtime.block_on(async {
        let fleet = Fleet::start(seed, hosts, controllers).await;
        fleet.begin_clients();
        let ended = story(&fleet).await;
        (ended, fleet.world.trace())
    });
    drop(runtime);
    let ended = match PANICKED.get() {
        true => Err("a task panicked".to_owned()),
        false => ended,
    };
    if ended.is_err() || std::env::var_os("SCHEMADOCK_SIM_TRACE").is_some() {
        println!("{}", trace.join("\n"));
    }
    if let Err(why) = ended {
        panic!("seed {seed}: {why}");
    }
}

/// A task that panics ends for itself, and nobody would notice.
fn watch_for_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICKED.set(true);
            usual(info);
        }));
    });
}

fn seeds(by_default: u64) -> Vec<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match (number("SCHEMADOCK_SIM_SEED"), number("SCHEMADOCK_SIM_SEEDS")) {
        (Some(seed), _) => vec![seed],
        (None, count) => (0..count.unwrap_or(by_default)).collect(),
    }
}

/// Writes the documents one by one, in an order of the run's own.
async fn apply(fleet: &Fleet) {
    let mut left = documents(3);
    while !left.is_empty() {
        let (name, target) = left.swap_remove(fleet.world.draw(0..left.len() as u64) as usize);
        fleet.rest(Duration::from_millis(fleet.world.draw(0..8_000))).await;
        fleet.apply(&[(name, Some(target))]).await;
    }
}

/// All is as it is to be, and stays so without a write.
async fn settle(fleet: &Fleet) -> Result<(), String> {
    fleet.converge(MENDS).await?;
    // What was said on the way may take its time.
    fleet.rest(Duration::from_secs(60)).await;
    fleet.converge(MENDS).await?;
    fleet.quiet(Duration::from_secs(60)).await?;
    fleet.end_clients();
    fleet.converge(MENDS).await?;
    fleet.rest(Duration::from_secs(5)).await;
    fleet.same_everywhere()
}

#[test]
fn three_instances_converge_whatever_the_order_of_their_documents() {
    watch_for_panics();
    for seed in seeds(SEEDS).into_iter().take(8) {
        run(seed, 3, 0, async |fleet| {
            apply(fleet).await;
            settle(fleet).await
        });
    }
}

/// The application's account has a name that no seed can tell: an event may name it.
fn without_the_account(line: &str) -> String {
    match line.split_once("app_") {
        Some((before, after)) if after.len() >= 8 && after.is_char_boundary(8) => {
            format!("{before}app_{}", &after[8..])
        }
        _ => line.to_owned(),
    }
}

fn same_twice(seed: u64, trace: impl Fn(u64) -> Vec<String>) {
    let (first, second) = (trace(seed), trace(seed));
    let differ = first.iter().zip(&second).position(|(one, other)| one != other);
    let from = differ.map(|at| (&first[at..][..1], &second[at..][..1]));
    assert_eq!(from, None, "line {differ:?}");
    assert_eq!(first.len(), second.len());
    assert_ne!(first, trace(seed + 1));
}

/// Without this no failure could be looked into.
#[test]
fn one_seed_is_one_run() {
    let trace = |seed| {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let fleet = Fleet::start(seed, 3, 0).await;
            fleet.begin_clients();
            apply(&fleet).await;
            happen(&fleet, &documents(3), 10).await;
            fleet.world.trace().iter().map(|line| without_the_account(line)).collect::<Vec<_>>()
        })
    };
    let with_controllers = |seed| {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let fleet = Fleet::start(seed, 4, copies(seed)).await;
            fleet.begin_clients();
            let _broken = asked(&fleet, false).await;
            fleet.world.trace().iter().map(|line| without_the_account(line)).collect::<Vec<_>>()
        })
    };
    for seed in 0..3 {
        same_twice(seed, trace);
        same_twice(seed, with_controllers);
    }
}

/// A store that is blank, another fleet's, or went back: nothing is stopped, opened, moved or deleted on its word.
#[test]
fn a_strange_store_moves_nothing() {
    watch_for_panics();
    for seed in seeds(SEEDS).into_iter().take(8) {
        run(seed, 3, 0, async |fleet| {
            apply(fleet).await;
            fleet.converge(MENDS).await?;
            let old = fleet.world.etcd().backup();
            // So little that what agents themselves write to an old store brings it past the revision they remember.
            for n in 0..30 {
                let other = serde_json::json!({"name": "schemadock09", "n": n});
                fleet
                    .write(vec![Write::document(format!("{}schemadock09", fleet.keys.hosts()), &other)])
                    .await;
            }
            fleet.rest(Duration::from_secs(30)).await;
            let good = fleet.world.etcd().backup();
            let before = fleet.standing();
            fleet.declare_strange(true);
            match fleet.world.draw(0..3) {
                0 => {
                    fleet.world.note("the store is blank");
                    fleet.world.etcd().wipe();
                }
                1 => {
                    fleet.world.note("the store is another fleet's, which has no targets");
                    fleet.world.etcd().wipe();
                    let other = serde_json::json!({"id": "other"});
                    fleet.write(vec![Write::document(fleet.keys.fleet(), &other)]).await;
                }
                _ => {
                    fleet.world.note("the store went back");
                    fleet.world.etcd().restore(&old);
                    let all = documents(3).into_iter().map(|(name, _)| (name, None)).collect::<Vec<_>>();
                    fleet.apply(&all).await;
                }
            }
            fleet.rest(Duration::from_secs(20)).await;
            if fleet.standing() != before {
                return Err(format!("{before:?} became {:?}", fleet.standing()));
            }
            for host in fleet.hosts() {
                fleet.world.end_life(host, "a person kills it");
            }
            fleet.rest(Duration::from_secs(40)).await;
            if fleet.standing() != before {
                return Err(format!("{before:?} became {:?} with new agents", fleet.standing()));
            }
            // Who leads may not open again on such a word, and nobody else may.
            let leader = before.iter().find(|(_, (_, writable))| *writable).map(|(name, _)| name.clone());
            fleet.kill_server(&leader.ok_or("nobody led")?);
            fleet.rest(Duration::from_secs(40)).await;
            if fleet.standing().values().any(|(_, writable)| *writable) {
                return Err(format!("{:?}: somebody has opened", fleet.standing()));
            }
            fleet.world.note("--- the good store is back");
            fleet.world.etcd().restore(&good);
            // One that went back is only believed again on a person's word.
            let by = serde_json::json!({"id": FLEET, "revision": fleet.world.etcd().revision(), "by": "a person",
                                        "at": "2026-01-01T00:00:00Z"});
            let accepted = serde_json::json!({"id": FLEET, "accepted": [by]});
            fleet.write(vec![Write::document(fleet.keys.fleet(), &accepted)]).await;
            fleet.declare_strange(false);
            settle(fleet).await
        });
    }
}

#[test]
fn a_fleet_mends_itself_after_whatever_happens() {
    watch_for_panics();
    for seed in seeds(SEEDS) {
        run(seed, 3, 0, async |fleet| {
            let founding = fleet.clone();
            let founding = tokio::spawn(async move { apply(&founding).await });
            if fleet.world.draw(0..2) == 0 {
                fleet.rest(Duration::from_secs(40)).await;
            }
            let count = fleet.world.draw(2..25);
            happen(fleet, &documents(3), count).await;
            founding.await.map_err(|error| error.to_string())?;
            fleet.unbroken()?;
            settle(fleet).await
        });
    }
}

/// What is asked of a cluster is done, undone, or refused with a reason; then the cluster is whole, whatever has happened
/// to agents, controllers, hosts and the store.
#[test]
fn what_people_ask_for_ends_well_whatever_happens() {
    watch_for_panics();
    for seed in seeds(ASKED) {
        run(seed, 4, copies(seed), async |fleet| {
            asked(fleet, seed % 8 == 0).await?;
            mend_machines(fleet);
            // What passes by itself has passed.
            fleet.rest(Duration::from_secs(30)).await;
            mend_machines(fleet);
            fleet.whole(MENDS).await?;
            fleet.rest(Duration::from_secs(60)).await;
            fleet.whole(MENDS).await?;
            fleet.end_clients();
            fleet.rest(Duration::from_secs(5)).await;
            fleet.same_everywhere()
        });
    }
}

/// How many controllers there are.
fn copies(seed: u64) -> u8 {
    1 + (seed % 2) as u8
}

/// A cluster is made, and people ask for this and that, while nothing else happens if it is `calm`.
async fn asked(fleet: &Fleet, calm: bool) -> Result<(), String> {
    // A cluster is placed on hosts that are registered.
    fleet.rest(Duration::from_secs(5)).await;
    fleet.ask(create()).await;
    if fleet.world.draw(0..2) == 0 {
        fleet.all_over().await?;
    }
    for _ in 0..fleet.world.draw(2..8) {
        fleet.unbroken()?;
        pause(fleet).await;
        wish(fleet).await;
        let troubles = if calm { 0 } else { fleet.world.draw(0..5) };
        for _ in 0..troubles {
            match fleet.world.draw(0..2) {
                0 => fleet.in_a_handover(Duration::from_secs(20)).await,
                _ => pause(fleet).await,
            }
            trouble(fleet).await;
        }
    }
    Ok(())
}
