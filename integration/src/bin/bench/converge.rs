//! From `apply` to all converged, beside three servers started and attached by hand.

use std::time::Instant;

use futures::future::join_all;
use schemadock_integration::fleet::{Fleet, documents};

use crate::floor::Server;
use crate::{Line, median};

pub(crate) async fn run(runs: u32) -> Vec<Line> {
    // Makes the template, which later fleets find in place.
    drop(Fleet::converged(1).await);
    let (mut ours, mut floors) = (Vec::new(), Vec::new());
    for run in 1..=runs {
        let fleet = Fleet::start(3).await;
        floors.push(floor(&fleet).await);
        let begun = Instant::now();
        fleet.apply(&documents(3)).await;
        fleet.until_converged(3).await;
        ours.push(begun.elapsed().as_secs_f64());
        let pair = (ours.last().copied().unwrap_or(0.0), floors.last().copied().unwrap_or(0.0));
        eprintln!("run {run} of {runs}: {:.2} s, by hand {:.2} s", pair.0, pair.1);
    }
    let (ours, floor) = (median(ours), median(floors));
    vec![
        Line::at_most("from apply to converged, warm", ours, "s", 3.0),
        Line::plain("by hand", floor, "s"),
        Line::at_most("ratio", ours / floor, "", 1.25),
    ]
}

async fn floor(fleet: &Fleet) -> f64 {
    let servers: Vec<Server> = (1..=3).map(|number| Server::new(fleet, number)).collect();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for server in &servers {
            scope.spawn(|| {
                server.prepare(fleet);
                server.start();
            });
        }
    });
    let mut answering = join_all(servers.iter().map(Server::answers)).await;
    let (master, minions) = servers.split_first().expect("three");
    let attaching = minions.iter().zip(&mut answering[1..]).map(|(minion, sql)| minion.attach(sql, master));
    join_all(attaching).await;
    begun.elapsed().as_secs_f64()
}
