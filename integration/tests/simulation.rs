//! Real agents on a simulated world: one seed, one run.
//!
//! A seed that fails replays by its number: `SCHEMADOCK_SIM_SEED=17 cargo test --test simulation`.
//! `SCHEMADOCK_SIM_SEEDS` says how many are tried. With `SCHEMADOCK_SIM_TRACE` set every run tells what happened.

use std::cell::Cell;
use std::time::Duration;

use schemadock_integration::sim::faults::{documents, happen};
use schemadock_integration::sim::fleet::Fleet;

/// How many seeds are tried by default.
const SEEDS: u64 = 40;
/// How long a fleet may take to mend itself.
const MENDS: Duration = Duration::from_secs(180);

thread_local! {
    static PANICKED: Cell<bool> = const { Cell::new(false) };
}

/// One run, from its seed alone.
fn run(seed: u64, story: impl AsyncFnOnce(&Fleet) -> Result<(), String>) {
    PANICKED.set(false);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let (ended, trace) = runtime.block_on(async {
        let fleet = Fleet::start(seed, 3).await;
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

fn seeds() -> Vec<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match (number("SCHEMADOCK_SIM_SEED"), number("SCHEMADOCK_SIM_SEEDS")) {
        (Some(seed), _) => vec![seed],
        (None, count) => (0..count.unwrap_or(SEEDS)).collect(),
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
    for seed in seeds().into_iter().take(8) {
        run(seed, async |fleet| {
            apply(fleet).await;
            settle(fleet).await
        });
    }
}

/// Without this no failure could be looked into.
#[test]
fn one_seed_is_one_run() {
    let trace = |seed| {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let fleet = Fleet::start(seed, 3).await;
            fleet.begin_clients();
            apply(&fleet).await;
            happen(&fleet, &documents(3), 10).await;
            fleet.world.trace()
        })
    };
    for seed in 0..3 {
        let (first, second) = (trace(seed), trace(seed));
        let differ = first.iter().zip(&second).position(|(one, other)| one != other);
        let from = differ.map(|at| (&first[at..][..1], &second[at..][..1]));
        assert_eq!(from, None, "line {differ:?}");
        assert_eq!(first.len(), second.len());
        assert_ne!(first, trace(seed + 1));
    }
}

#[test]
fn a_fleet_mends_itself_after_whatever_happens() {
    watch_for_panics();
    for seed in seeds() {
        run(seed, async |fleet| {
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
