//! What a change of master costs an application, and what `lossless` costs it all the time, beside the same three servers
//! with the same settings by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use schemadock_integration::fleet::{Fleet, Options, Roamer, Sql};
use schemadock_schema::Timestamp;

use crate::by_hand::{self, ByHand};
use crate::floor::Server;
use crate::{Line, median};

const SHOP: &str = "shop";

pub(crate) async fn run(switchovers: u32, rounds: u32, seconds: u64) -> Vec<Line> {
    let mut fleet = Fleet::bare(Options::hosts(3)).await;
    fleet.start_agents().await;
    fleet.start_controller(&[]);
    let office = fleet.keys.controller_leader();
    fleet.until("a controller in office", |world| world.entry(&office).map(|_| ())).await;
    fleet.done(&["cluster", "create", SHOP, "--replicas", "2", "--size", "1GiB"]).await;
    let floors: Vec<Server> = (1..=3).map(|number| Server::new(&fleet, number)).collect();
    by_hand::prepare(&fleet, &floors).await;
    let (mut lines, leads) = gaps(&fleet, &floors, switchovers).await;
    lines.extend(steady(&fleet, &floors[leads], rounds, seconds).await);
    lines
}

/// The time without acknowledgements, as a writer with 2 ms between its writes sees it; here and by hand in turn.
/// Also which of the servers by hand leads in the end.
async fn gaps(fleet: &Fleet, floors: &[Server], switchovers: u32) -> (Vec<Line>, usize) {
    let roamer = fleet.roamer(SHOP).await;
    roamer.more(200).await;
    let quiet = roamer.look().gap;
    roamer.pause(true);
    let mut hand = ByHand::new(floors).await;
    let (mut gaps, mut by_hand, mut longest, mut steps) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for number in 1..=switchovers {
        by_hand.push(hand.gap().await);
        let change = change(fleet, &roamer).await;
        gaps.push(change.gap);
        longest.push(change.longest);
        steps.push(change.times);
        let last = |gaps: &[f64]| gaps.last().copied().unwrap_or(f64::NAN);
        eprintln!(
            "switchover {number} of {switchovers}: {:.1} ms, by hand {:.1} ms",
            last(&gaps),
            last(&by_hand)
        );
    }
    let ledger = roamer.stop().await;
    fleet.verify(SHOP, &ledger).await;
    let least = gaps.iter().copied().fold(f64::INFINITY, f64::min);
    let most = gaps.iter().copied().fold(0.0, f64::max);
    let (ours, by_hand) = (median(gaps), median(by_hand));
    let mut lines = vec![
        Line::plain("write gap of a switchover, least", least, "ms"),
        Line::at_most("write gap of a switchover, median", ours, "ms", 15.0),
        Line::at_most("write gap of a switchover, most", most, "ms", 60.0),
        Line::plain("write gap by hand, median", by_hand, "ms"),
        Line::plain("write gap, ours to by hand", ours / by_hand, ""),
        Line::plain("longest gap in the seconds around it, median", median(longest), "ms"),
        Line::plain("longest gap in 200 writes without one", quiet.as_secs_f64() * 1e3, "ms"),
    ];
    for (at, (_, what)) in STEPS.iter().enumerate().skip(1) {
        let took = steps.iter().filter_map(|times| Some(milliseconds(times[at - 1]?, times[at]?)));
        lines.push(Line::plain(what, median(took.collect()), "ms"));
    }
    (lines, hand.leads)
}

/// A change of master: the gap around the decision, the longest one in the seconds around it, in milliseconds, and its steps.
struct Change {
    gap: f64,
    longest: f64,
    times: [Option<Timestamp>; STEPS.len()],
}

async fn change(fleet: &Fleet, roamer: &Roamer) -> Change {
    roamer.pause(false);
    roamer.more(50).await;
    roamer.look();
    fleet.done(&["cluster", "switchover", SHOP]).await;
    roamer.more(50).await;
    let seen = roamer.look();
    roamer.pause(true);
    let mut times = steps_of_the_last(fleet);
    let around = times[DECIDED].and_then(|decided| seen.around(decided)).expect("rows before and after");
    (times[0], times[STEPS.len() - 1]) = (Some(around.0), Some(around.1));
    Change { gap: milliseconds(around.0, around.1), longest: seen.gap.as_secs_f64() * 1e3, times }
}

/// What the agents log of a handover, in order, and what lies between such a line and the one before.
const STEPS: [(&str, &str); 9] = [
    ("", ""),
    ("freeze begun", "  the client's last acknowledgement was before"),
    ("freeze returned", "  the old master's super_read_only returns"),
    ("final set seen", "  the new one's agent has heard the final set"),
    ("caught up", "  it has applied it"),
    ("receives no more", "  its receiver is stopped"),
    ("decided", "  the decision is in etcd"),
    ("opened", "  it is open"),
    ("", "  the client's first acknowledgement"),
];

/// Where among them it is decided.
const DECIDED: usize = 6;

pub(crate) fn milliseconds(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64() * 1e3
}

/// When each step of the newest term's handover was logged.
fn steps_of_the_last(fleet: &Fleet) -> [Option<Timestamp>; STEPS.len()] {
    let mut newest = (0, [None; STEPS.len()]);
    for line in fleet.agents.iter().flat_map(|agent| {
        let text = agent.log_text();
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    }) {
        let term =
            line.split_once(" term=").and_then(|(_, rest)| rest.split(' ').next()?.parse::<u64>().ok());
        let step = STEPS.iter().position(|(text, _)| line.contains(&format!(": {text} instance=")));
        let at = line.split(' ').next().and_then(|text| text.parse::<Timestamp>().ok());
        let (Some(term), Some(step), Some(at)) = (term, step, at) else { continue };
        if term > newest.0 {
            newest = (term, [None; STEPS.len()]);
        }
        if term == newest.0 {
            newest.1[step] = Some(at);
        }
    }
    newest.1
}

/// Writes a second with 1, 8 and 32 writers, here and by hand in turn; the ratio is the median of the rounds' own.
async fn steady(fleet: &Fleet, floor: &Server, rounds: u32, seconds: u64) -> Vec<Line> {
    let mut lines = Vec::new();
    for writers in [1, 8, 32] {
        let (mut ours, mut by_hand, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..rounds {
            let leads =
                fleet.world().leadership(SHOP).and_then(|record| record.master).expect("somebody leads");
            let (mut here, mut there) = (0.0, 0.0);
            // Who comes first finds another machine than who comes second.
            for first in [true, false] {
                if first == round.is_multiple_of(2) {
                    there = load(join_all((0..writers).map(|_| floor.answers())).await, seconds).await;
                } else {
                    let sessions = (0..writers).map(|_| fleet.sql_of(SHOP, leads.as_str()));
                    here = load(join_all(sessions).await, seconds).await;
                }
            }
            by_hand.push(there);
            ours.push(here);
            ratios.push(here / there);
        }
        let (ours, by_hand) = (median(ours), median(by_hand));
        let (own, floor, ratio) = match writers {
            1 => ("lossless, 1 writer", "by hand, 1 writer", "ratio, 1 writer"),
            8 => ("lossless, 8 writers", "by hand, 8 writers", "ratio, 8 writers"),
            _ => ("lossless, 32 writers", "by hand, 32 writers", "ratio, 32 writers"),
        };
        lines.push(Line::plain(own, ours, "writes/s"));
        lines.push(Line::plain(floor, by_hand, "writes/s"));
        lines.push(Line::at_least(ratio, median(ratios), "", 0.98));
    }
    lines
}

/// All of them write for so long; acknowledged writes a second.
async fn load(sessions: Vec<Sql>, seconds: u64) -> f64 {
    let mut sessions = sessions;
    if let Some(first) = sessions.first_mut() {
        first.run("CREATE DATABASE IF NOT EXISTS load_test").await;
        first
            .run("CREATE TABLE IF NOT EXISTS load_test.t (id BIGINT AUTO_INCREMENT PRIMARY KEY, v INT)")
            .await;
    }
    let written = Arc::new(AtomicU64::new(0));
    let begun = Instant::now();
    let writing = sessions.into_iter().map(|mut sql| {
        let written = written.clone();
        tokio::spawn(async move {
            while begun.elapsed() < Duration::from_secs(seconds) {
                sql.run("INSERT INTO load_test.t (v) VALUES (7)").await;
                written.fetch_add(1, Ordering::Relaxed);
            }
        })
    });
    join_all(writing).await;
    written.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64()
}
