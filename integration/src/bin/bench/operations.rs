//! What a change of master costs an application, and what `lossless` costs it all the time, beside the same three servers
//! with the same settings by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use schemadock_integration::fleet::{Fleet, Options, Sql};

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
    let mut lines = gaps(&fleet, switchovers).await;
    lines.extend(steady(&fleet, rounds, seconds).await);
    lines
}

/// The time without acknowledgements, as a writer with 2 ms between its writes sees it.
async fn gaps(fleet: &Fleet, switchovers: u32) -> Vec<Line> {
    let roamer = fleet.roamer(SHOP).await;
    roamer.more(200).await;
    let quiet = roamer.look().gap;
    let mut gaps = Vec::new();
    for number in 1..=switchovers {
        roamer.look();
        fleet.done(&["cluster", "switchover", SHOP]).await;
        roamer.more(50).await;
        gaps.push(roamer.look().gap.as_secs_f64() * 1e3);
        eprintln!("switchover {number} of {switchovers}: {:.1} ms", gaps.last().copied().unwrap_or(0.0));
    }
    let ledger = roamer.stop().await;
    fleet.verify(SHOP, &ledger).await;
    let least = gaps.iter().copied().fold(f64::INFINITY, f64::min);
    let most = gaps.iter().copied().fold(0.0, f64::max);
    vec![
        Line::plain("longest gap without a switchover", quiet.as_secs_f64() * 1e3, "ms"),
        Line::plain("write gap of a switchover, least", least, "ms"),
        Line::at_most("write gap of a switchover, median", median(gaps), "ms", 15.0),
        Line::at_most("write gap of a switchover, most", most, "ms", 60.0),
    ]
}

/// Writes a second with 1, 8 and 32 writers, here and by hand in turn.
async fn steady(fleet: &Fleet, rounds: u32, seconds: u64) -> Vec<Line> {
    let floors: Vec<Server> = (1..=3).map(|number| Server::new(fleet, number)).collect();
    for server in &floors {
        server.prepare(fleet);
        server.start();
    }
    let mut answering = join_all(floors.iter().map(Server::answers)).await;
    for sql in &mut answering {
        for half in ["source", "replica"] {
            sql.run(&format!("INSTALL PLUGIN rpl_semi_sync_{half} SONAME 'semisync_{half}.so'")).await;
        }
        sql.run("SET GLOBAL sync_relay_log = 1").await;
    }
    let (master, minions) = answering.split_first_mut().expect("three");
    for (sql, server) in minions.iter_mut().zip(&floors[1..]) {
        sql.run("SET GLOBAL rpl_semi_sync_replica_enabled = ON").await;
        server.attach(sql, &floors[0]).await;
    }
    master.run("SET GLOBAL rpl_semi_sync_source_timeout = 1000000000000000000").await;
    master.run("SET GLOBAL rpl_semi_sync_source_enabled = ON").await;
    let mut lines = Vec::new();
    for writers in [1, 8, 32] {
        let (mut ours, mut by_hand) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            by_hand.push(load(join_all((0..writers).map(|_| floors[0].answers())).await, seconds).await);
            let leads =
                fleet.world().leadership(SHOP).and_then(|record| record.master).expect("somebody leads");
            ours.push(
                load(join_all((0..writers).map(|_| fleet.sql_of(SHOP, leads.as_str()))).await, seconds).await,
            );
        }
        let (ours, by_hand) = (median(ours), median(by_hand));
        let (own, floor, ratio) = match writers {
            1 => ("lossless, 1 writer", "by hand, 1 writer", "ratio, 1 writer"),
            8 => ("lossless, 8 writers", "by hand, 8 writers", "ratio, 8 writers"),
            _ => ("lossless, 32 writers", "by hand, 32 writers", "ratio, 32 writers"),
        };
        lines.push(Line::plain(own, ours, "writes/s"));
        lines.push(Line::plain(floor, by_hand, "writes/s"));
        lines.push(Line::at_least(ratio, ours / by_hand, "", 0.98));
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
