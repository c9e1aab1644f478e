//! `wait`: until instances are as they are to be.

use std::collections::BTreeSet;
use std::time::Duration;

use schemadock_schema::ClusterName;
use tokio::time::Instant;

use super::context::OutputArg;
use super::follow::Follow;
use super::progress::Progress;
use super::seen::{self, Seen};
use super::view::clusters;
use super::view::instances::{InstanceRow, rows};
use super::{Context, Failure, targets};

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only this cluster.
    #[arg(long, value_name = "CLUSTER")]
    pub cluster: Option<String>,
    /// All clusters, which is also meant without a flag.
    #[arg(long, conflicts_with = "cluster")]
    pub all: bool,
    /// How long to wait, for example `90s` or `2m`.
    #[arg(long, default_value = "120s", value_name = "TIME", value_parser = super::context::parse_time)]
    pub timeout: Duration,
    /// How failures are written.
    #[command(flatten)]
    pub output: OutputArg,
}

/// Waits.
///
/// # Errors
/// With what is missing when the time is over; at once where there is nothing to wait for (exit code 1).
pub async fn run(ctx: &Context, args: Args) -> Result<(), Failure> {
    let seen = seen::look(ctx, Vec::new()).await?;
    let known = seen.clusters();
    let wanted = match &args.cluster {
        None => None,
        Some(name) => match known.iter().find(|cluster| cluster.as_str() == name) {
            Some(cluster) => Some(BTreeSet::from([cluster.clone()])),
            None => return Err(targets::unknown("cluster", name, known.iter().map(ClusterName::as_str))),
        },
    };
    if known.is_empty() {
        return Err(
            Failure::failed("there is no target at all").hint("`schemadock apply -f FILE` writes some.")
        );
    }
    until_converged(ctx, wanted.as_ref(), args.timeout, args.output.json()).await
}

/// Returns when all instances of these clusters (none: of all) are as they are to be.
///
/// # Errors
/// With what is missing when the time is over.
pub async fn until_converged(
    ctx: &Context,
    clusters: Option<&BTreeSet<ClusterName>>,
    timeout: Duration,
    silent: bool,
) -> Result<(), Failure> {
    let deadline = Instant::now() + timeout;
    let mut progress = Progress::new(silent);
    let mut follow = Follow::start(ctx, Vec::new()).await?;
    let mut last: Option<Seen> = None;
    while let Some(seen) = follow.next(Some(deadline)).await {
        let rows = chosen(&seen, clusters);
        if rows.is_empty() {
            progress.end();
            return Err(Failure::failed("there is no target any more"));
        }
        progress.show(rows.iter());
        if rows.iter().all(|row| row.converged) && not_durable(&seen, &rows).is_empty() {
            progress.end();
            return Ok(());
        }
        last = Some(seen);
    }
    progress.end();
    let seconds = timeout.as_secs_f64();
    let Some(seen) = last else {
        return Err(Failure::failed(format!("etcd told nothing within {seconds:.0} s")));
    };
    let rows = chosen(&seen, clusters);
    let missing = rows.iter().filter(|row| !row.converged);
    let missing = missing.map(|row| format!("  {} is {}: {}", row.name, row.phase(), row.missing()));
    let missing: Vec<String> = missing.chain(not_durable(&seen, &rows)).collect();
    Err(Failure::failed(format!("not converged within {seconds:.0} s:\n{}", missing.join("\n"))))
}

/// Clusters of these rows whose durability is not as wished, and why.
fn not_durable(seen: &Seen, rows: &[InstanceRow<'_>]) -> Vec<String> {
    let clusters: BTreeSet<&ClusterName> = rows.iter().filter_map(|row| row.cluster.as_ref()).collect();
    let missing =
        clusters.into_iter().filter_map(|name| Some((name, clusters::missing_durability(seen, name)?)));
    missing.map(|(name, why)| format!("  {name}: {why}")).collect()
}

fn chosen<'a>(seen: &'a Seen, clusters: Option<&BTreeSet<ClusterName>>) -> Vec<InstanceRow<'a>> {
    let of = |row: &InstanceRow<'_>| match (clusters, &row.cluster) {
        (None, _) => true,
        (Some(wanted), Some(cluster)) => wanted.contains(cluster),
        (Some(_), None) => false,
    };
    rows(seen).into_iter().filter(|row| row.wished && of(row)).collect()
}
