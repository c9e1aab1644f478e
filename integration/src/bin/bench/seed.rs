//! A CLONE through the agent, beside the same CLONE by hand.

use std::time::Instant;

use schemadock_integration::fleet::{Fleet, PORT, member};
use schemadock_schema::secrets::ADMIN_USER;

use crate::floor::Server;
use crate::{Line, median};

pub(crate) async fn run(megabytes: u32, runs: u32) -> Vec<Line> {
    let fleet = Fleet::converged(2).await;
    let mut sql = fleet.sql(1).await;
    sql.run("CREATE DATABASE big").await;
    sql.run("CREATE TABLE big.rows_of_noise (id INT PRIMARY KEY AUTO_INCREMENT, noise LONGBLOB)").await;
    for _ in 0..megabytes / 4 {
        // Noise: what can be compressed would flatter.
        let noise = "(SELECT GROUP_CONCAT(RANDOM_BYTES(1024) SEPARATOR '') FROM (WITH RECURSIVE n(i) AS (SELECT 1 \
                     UNION ALL SELECT i + 1 FROM n WHERE i < 1000) SELECT i FROM n) AS numbers)";
        sql.run("SET SESSION group_concat_max_len = 4194304").await;
        sql.run(&format!(
            "INSERT INTO big.rows_of_noise (noise) VALUES ({noise}), ({noise}), ({noise}), ({noise})"
        ))
        .await;
    }
    let executed = sql.global("gtid_executed").await;
    let mut minion = fleet.sql(2).await;
    minion.run(&format!("DO WAIT_FOR_EXECUTED_GTID_SET('{executed}', 300)")).await;
    // Minions cannot catch up from logs: they must be seeded.
    sql.run("FLUSH BINARY LOGS").await;
    let logs = sql.rows("SHOW BINARY LOGS").await;
    let newest = logs.last().and_then(|row| row.first()).expect("a log").clone();
    sql.run(&format!("PURGE BINARY LOGS TO '{newest}'")).await;
    let size = sql.text("SELECT SUM(file_size) FROM information_schema.innodb_tablespaces").await;
    let size: f64 = size.parse().unwrap_or(f64::NAN);
    let secrets = fleet.secrets();
    let (mut ours, mut floors) = (Vec::new(), Vec::new());
    for run in 1..=runs {
        // The statement until the server answers again, in both cases.
        let server = Server::new(&fleet, run as u8);
        server.prepare(&fleet);
        server.start();
        drop(server.answers().await);
        let begun = Instant::now();
        server.clone_from(&fleet.address(1), PORT, ADMIN_USER, secrets.admin.expose()).await;
        server.answers_as(ADMIN_USER, secrets.admin.expose()).await;
        floors.push(begun.elapsed().as_secs_f64());
        drop(server);
        let before = fleet.world().told(&member(2), "seeded", "");
        let asked = tokio::spawn(fleet.cli(&["reseed", &member(2), "--yes"]).run());
        fleet
            .until("the CLONE begins", |world| {
                world.status(&member(2)).and_then(|status| status.seed).map(|_| ())
            })
            .await;
        let begun = Instant::now();
        fleet.until("seeded", |world| (world.told(&member(2), "seeded", "") > before).then_some(())).await;
        ours.push(begun.elapsed().as_secs_f64());
        fleet.until_converged(2).await;
        assert_eq!(asked.await.expect("it runs").code, 0);
        let pair = (ours.last().copied().unwrap_or(0.0), floors.last().copied().unwrap_or(0.0));
        eprintln!("run {run} of {runs}: {:.2} s, by hand {:.2} s", pair.0, pair.1);
    }
    let (ours, floor) = (median(ours), median(floors));
    vec![
        Line::plain("data", size / 1e6, "MB"),
        Line::plain("CLONE through the agent", ours, "s"),
        Line::plain("by hand", floor, "s"),
        Line::at_least("pace beside the one by hand", floor / ours * 100.0, "%", 90.0),
    ]
}
