//! What an agent with steady instances costs: memory, time of a core, writes to etcd.

use std::time::Duration;

use schemadock_integration::fleet::{Fleet, host, master};
use serde_json::json;

use crate::Line;

pub(crate) async fn run(seconds: u64, instances: u32) -> Vec<Line> {
    let fleet = Fleet::start(1).await;
    // One leads a cluster of two with the application of a test; the others are clusters of their own.
    let names: Vec<String> = (1..=instances).map(|n| format!("{}-cost{n}-db1", host(1))).collect();
    for (number, name) in names.iter().enumerate() {
        let mut document = master();
        document["data"]["port"] = json!(7335 + number);
        document["data"]["size"] = json!({"memory": "600MiB", "cpus": 1});
        fleet.put(&fleet.target_key(name), &document).await;
        fleet.until_all_converged(std::slice::from_ref(name)).await;
    }
    let mut writer = fleet.writer_of("cost1", 1).await;
    writer.more(10).await;
    let pid = fleet.agents[0].pid();
    let before = (processor_time(pid), fleet.revision().await);
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let after = (processor_time(pid), fleet.revision().await);
    let resident = resident(pid);
    writer.stop().await;
    let share = (after.0 - before.0) / seconds as f64 * 100.0;
    vec![
        Line::at_most("resident memory", resident, "MiB", 20.0),
        Line::at_most("of one core", share, "%", 1.0),
        Line::at_most("writes to etcd beside leases", (after.1 - before.1) as f64, "", 0.0),
        Line::plain("instances", f64::from(instances), ""),
    ]
}

/// Seconds of processor time that a process has used; `self` is this one.
pub(crate) fn processor_time(pid: impl std::fmt::Display) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let fields: Vec<&str> =
        stat.rsplit_once(") ").map(|(_, rest)| rest.split(' ').collect()).unwrap_or_default();
    let ticks: f64 = [11, 12].iter().filter_map(|n| fields.get(*n)?.parse::<f64>().ok()).sum();
    // The kernel's clock ticks as user programs see them.
    ticks / 100.0
}

fn resident(pid: i32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the agent runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: f64 = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse().ok()).expect("a size");
    kib / 1024.0
}
