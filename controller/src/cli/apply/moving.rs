//! `apply --move-master`: the master that a file names is made so by a switchover, once all else is written.

use std::collections::BTreeMap;

use schemadock_controller_plan::operation::foresee;
use schemadock_schema::operation::{Operation, Request};
use schemadock_schema::{ClusterName, InstanceName};

use crate::cli::context::OutputArg;
use crate::cli::operation::ask::{self, How};
use crate::cli::operation::judge::Wanted;
use crate::cli::seen;
use crate::cli::target_plan::{self, TargetPlan, Wish};
use crate::cli::{Context, Failure};

fn switchover(cluster: &ClusterName, to: &InstanceName) -> Wanted {
    Wanted::of(cluster.clone(), Request::Switchover { to: Some(to.clone()) })
}

/// The steps of each switchover, as far as they can be foreseen. A member that is not there yet cannot be judged.
///
/// # Errors
/// With everything that speaks against them, while nothing is written.
pub(super) async fn judge(
    ctx: &Context,
    moves: &BTreeMap<ClusterName, InstanceName>,
) -> Result<BTreeMap<ClusterName, Vec<String>>, Failure> {
    let mut steps = BTreeMap::new();
    let mut refusals = Vec::new();
    for (cluster, to) in moves {
        let wanted = switchover(cluster, to);
        let seen = ask::look(ctx, &wanted).await?;
        let clusters = std::slice::from_ref(cluster);
        if seen.targets.contains_key(to) {
            refusals.extend(wanted.refusals(&ctx.keys, &seen, clusters, false));
            steps.insert(cluster.clone(), foresee(&seen, &ctx.keys, &wanted.request, clusters));
        } else {
            steps.insert(
                cluster.clone(),
                vec![format!("switchover of {cluster} to {to}, once that is there")],
            );
        }
    }
    if refusals.is_empty() { Ok(steps) } else { Err(Failure::Refused(refusals)) }
}

/// Asks for the switchovers that are still due, one after another, each to its end.
///
/// # Errors
/// When one cannot be asked for; what was written before stays.
pub(super) async fn carry_out(
    ctx: &Context,
    wish: &Wish,
    planned: &TargetPlan,
    output: OutputArg,
) -> Result<Vec<Operation>, Failure> {
    let mut ended = Vec::new();
    if planned.moves.is_empty() {
        return Ok(ended);
    }
    let seen = seen::look(ctx, Vec::new()).await?;
    let due = target_plan::plan(&ctx.keys, &seen, wish)?.moves;
    for (cluster, to) in &due {
        let how = How { output, ..How::default() };
        let asked = ask::carry_out(ctx, &switchover(cluster, to), true, &how).await;
        ended.extend(asked.inspect_err(|_| {
            anstream::eprintln!(
                "the targets are written; {to} does not lead {cluster} yet: `schemadock cluster switchover {cluster} \
                 --to {to}`"
            );
        })?);
    }
    Ok(ended)
}
