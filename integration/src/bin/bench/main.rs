//! `bench NAME`: measures the real programs beside a floor made by hand in the same run. A table on the screen, JSON
//! under `target/bench/`.

mod agent;
mod by_hand;
mod converge;
mod floor;
mod operations;
mod placement;
mod seed;

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use comfy_table::Table;
use serde::Serialize;

#[derive(Debug, Parser)]
#[command(
    name = "bench",
    about = "Benchmarks on real parts: a table on the screen, JSON under target/bench/"
)]
struct Arguments {
    #[command(subcommand)]
    name: Name,
}

#[derive(Debug, Subcommand)]
enum Name {
    /// From `apply` to all converged, for the three-instance document.
    Converge {
        /// How many runs; the median counts.
        #[arg(long, default_value_t = 5)]
        runs: u32,
    },
    /// What an agent with 10 steady instances costs.
    Agent {
        /// Seconds that it is watched.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// How many instances.
        #[arg(long, default_value_t = 10)]
        instances: u32,
    },
    /// A CLONE of 1 GB through the agent, beside the same by hand.
    Seed {
        /// Megabytes of rows.
        #[arg(long, default_value_t = 1000)]
        megabytes: u32,
        /// How many runs; the median counts.
        #[arg(long, default_value_t = 3)]
        runs: u32,
    },
    /// What a change of master costs an application, and what `lossless` costs.
    Operations {
        /// How many changes of master.
        #[arg(long, default_value_t = 20)]
        switchovers: u32,
        /// How many rounds of load, here and by hand; the median counts.
        #[arg(long, default_value_t = 3)]
        rounds: u32,
        /// Seconds of each.
        #[arg(long, default_value_t = 5)]
        seconds: u64,
    },
    /// What it costs to place clusters of 3 in one go.
    Placement {
        /// How many clusters.
        #[arg(long, default_value_t = 1000)]
        clusters: usize,
        /// How many hosts.
        #[arg(long, default_value_t = 1000)]
        hosts: usize,
        /// How many runs; the mean counts.
        #[arg(long, default_value_t = 20)]
        runs: u32,
    },
    /// Names them all.
    List,
}

/// One line of a result.
#[derive(Debug, Serialize)]
struct Line {
    what: &'static str,
    value: f64,
    unit: &'static str,
    /// What is to be reached, and whether it was.
    bound: Option<String>,
    reached: Option<bool>,
}

impl Line {
    fn plain(what: &'static str, value: f64, unit: &'static str) -> Line {
        Line { what, value, unit, bound: None, reached: None }
    }

    fn at_most(what: &'static str, value: f64, unit: &'static str, bound: f64) -> Line {
        let reached = Some(value <= bound);
        Line { what, value, unit, bound: Some(format!("at most {bound}")), reached }
    }

    fn at_least(what: &'static str, value: f64, unit: &'static str, bound: f64) -> Line {
        let reached = Some(value >= bound);
        Line { what, value, unit, bound: Some(format!("at least {bound}")), reached }
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let (name, lines) = match Arguments::parse().name {
        Name::Converge { runs } => ("converge", converge::run(runs).await),
        Name::Agent { seconds, instances } => ("agent", agent::run(seconds, instances).await),
        Name::Seed { megabytes, runs } => ("seed", seed::run(megabytes, runs).await),
        Name::Operations { switchovers, rounds, seconds } => {
            ("operations", operations::run(switchovers, rounds, seconds).await)
        }
        Name::Placement { clusters, hosts, runs } => ("placement", placement::run(clusters, hosts, runs)),
        Name::List => {
            println!("converge\nagent\nseed\noperations\nplacement");
            return Ok(());
        }
    };
    let mut table = Table::new();
    table.set_header(["", "value", "unit", "to reach", ""]);
    for line in &lines {
        table.add_row([
            line.what.to_owned(),
            format!("{:.3}", line.value),
            line.unit.to_owned(),
            line.bound.clone().unwrap_or_default(),
            line.reached.map_or("", |reached| if reached { "reached" } else { "MISSED" }).to_owned(),
        ]);
    }
    println!("{table}");
    let file = directory()?.join(format!("{name}.json"));
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let report = serde_json::json!({
        "name": name, "at": schemadock_schema::Timestamp::now(), "lines": lines, "load_after": load.trim(),
    });
    std::fs::write(&file, serde_json::to_vec_pretty(&report)?)?;
    println!("{}", file.display());
    Ok(())
}

/// `bench` in the target directory that holds this program.
fn directory() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let target =
        own.ancestors().nth(2).ok_or_else(|| anyhow::anyhow!("{} is in no target", own.display()))?;
    let directory = target.join("bench");
    std::fs::create_dir_all(&directory)?;
    Ok(directory)
}

/// The middle one.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
