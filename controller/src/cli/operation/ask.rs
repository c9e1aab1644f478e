//! Asking for an operation: judged, written once, then followed.

use std::time::Duration;

use schemadock_controller_plan::operation::foresee;
use schemadock_schema::operation::{Operation, Progress, Request};
use schemadock_schema::proposal::{Guard, Proposal, Write};
use schemadock_schema::{ClusterName, Timestamp};
use schemadock_store::{Committed, Selector, StoreError};
use serde_json::json;

use super::judge::Wanted;
use super::live::{self, Way};
use super::words::{describe, outcome, question};
use crate::cli::context::OutputArg;
use crate::cli::event::{self, Said};
use crate::cli::seen::{self, Seen};
use crate::cli::view::plain;
use crate::cli::{Context, Failure, fleet, host, output};

/// How an operation is asked for: what all of them share.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct How {
    /// Print the steps that would be taken, or all refusals, and do nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Where another operation holds the cluster: be the next, instead of being refused.
    #[arg(long)]
    pub queue: bool,
    /// Return as soon as it is asked for.
    #[arg(long)]
    pub no_wait: bool,
    /// With no controller in office: hold the office in this process until the operation is over.
    #[arg(long, conflicts_with = "no_wait")]
    pub here: bool,
    /// How long to wait for its end, for example `90s`; the operation goes on. As long as it takes by default.
    #[arg(long, value_name = "TIME", value_parser = crate::cli::context::parse_time)]
    pub timeout: Option<Duration>,
    /// For people or for scripts.
    #[command(flatten)]
    pub output: OutputArg,
}

/// How often a lost race is run again.
const CONFLICTS: u32 = 8;

/// Asks for an operation, follows it to its end unless told otherwise, and says how it ended. `yes` answers the question
/// that a stop or a deletion asks first.
///
/// # Errors
/// With everything that speaks against it, and when it does not end well (exit code 1).
pub async fn ask(ctx: &Context, wanted: &Wanted, yes: bool, how: &How) -> Result<(), Failure> {
    match carry_out(ctx, wanted, yes, how).await? {
        None => Ok(()),
        Some(operation) if how.no_wait => {
            let id = &operation.id;
            let what = describe(&operation.request, &operation.clusters);
            output::line(match how.output.json() {
                true => plain::operation(&operation).to_string(),
                false => {
                    format!(
                        "{what}: asked for as operation {id}; `schemadock operation wait {id}` follows it"
                    )
                }
            });
            Ok(())
        }
        Some(operation) => told(&operation, how.output.json()),
    }
}

/// The same without a last word: the operation as it ended, or as it was asked for; none after a dry run.
///
/// # Errors
/// With everything that speaks against it (exit code 1).
pub async fn carry_out(
    ctx: &Context,
    wanted: &Wanted,
    yes: bool,
    how: &How,
) -> Result<Option<Operation>, Failure> {
    let mut id = None;
    let mut here = false;
    let mut asked = false;
    for _ in 0..=CONFLICTS {
        let seen = look(ctx, wanted).await?;
        let clusters = wanted.clusters(&seen);
        let refusals = wanted.refusals(&ctx.keys, &seen, &clusters, how.queue);
        if !refusals.is_empty() {
            return Err(Failure::Refused(refusals));
        }
        let plan = foresee(&seen, &ctx.keys, &wanted.request, &clusters);
        if how.dry_run {
            dry_run(wanted, &clusters, &plan, how);
            return Ok(None);
        }
        if !asked {
            here = office(ctx, &seen, how)?;
            if let Some(question) = question(&wanted.request, &clusters) {
                ctx.confirm(&question, yes)?;
            }
            asked = true;
        }
        let Some(create_revision) = seen.fleet_created else {
            fleet::ensure(ctx).await?;
            continue;
        };
        let now = ctx.now();
        let id = id.get_or_insert_with(|| event::new_id(ctx, now));
        let operation = document(ctx, id, now, wanted, clusters, plan);
        let mut proposal = proposal(ctx, &seen, &operation, how.queue).await?;
        proposal.guards.push(Guard::Created { key: ctx.keys.fleet(), create_revision });
        if written(ctx, &proposal, id).await? {
            return go_on(ctx, operation, here, how).await.map(Some);
        }
    }
    Err(Failure::failed(format!(
        "others ask for operations all the time: {CONFLICTS} attempts were overtaken; nothing was asked for"
    ))
    .hint("Repeat the command."))
}

/// What etcd holds, as it is when the request is made: a host that is drained takes nothing new.
///
/// # Errors
/// When etcd does not answer.
pub async fn look(ctx: &Context, wanted: &Wanted) -> Result<Seen, Failure> {
    let further = [ctx.keys.operations(), ctx.keys.routes()].map(Selector::Prefix);
    let mut seen = seen::look(ctx, further.to_vec()).await?;
    if let Request::Drain { host, .. } = &wanted.request {
        seen.cordons.insert(host.clone());
    }
    Ok(seen)
}

fn dry_run(wanted: &Wanted, clusters: &[ClusterName], plan: &[String], how: &How) {
    if how.output.json() {
        let told =
            json!({"kind": wanted.request.kind(), "clusters": clusters, "plan": plan, "written": false});
        output::line(told.to_string());
        return;
    }
    plan.iter().for_each(output::line);
    anstream::eprintln!("a dry run: nothing was written");
}

/// Whether this process is to hold the office; nobody else would carry the operation out.
fn office(ctx: &Context, seen: &Seen, how: &How) -> Result<bool, Failure> {
    match &seen.controller {
        Some(id) => {
            if how.here {
                anstream::eprintln!("controller {id} is in office and carries it out; --here is not needed");
            }
            Ok(false)
        }
        None if how.here => Ok(true),
        None if ctx.can_ask() && !how.no_wait && !how.output.json() => {
            let question = "No controller is in office. Hold the office here until the operation is over?";
            ctx.confirm(question, false).map(|()| true)
        }
        None => Err(Failure::failed(
            "no controller is in office, so nobody would carry it out; nothing was written",
        )
        .hint(
            "Start schemadock-controller, or repeat the command with --here: it then holds the office itself until \
             the operation is over.",
        )),
    }
}

fn document(
    ctx: &Context,
    id: &str,
    now: Timestamp,
    wanted: &Wanted,
    clusters: Vec<ClusterName>,
    plan: Vec<String>,
) -> Operation {
    Operation {
        progress: Progress { done: 0, total: u32::try_from(plan.len()).unwrap_or(u32::MAX) },
        plan,
        ..Operation::queued(id.to_owned(), wanted.request.clone(), clusters, &ctx.who, now)
    }
}

/// The operation with its events, and what was judged.
async fn proposal(
    ctx: &Context,
    seen: &Seen,
    operation: &Operation,
    queue: bool,
) -> Result<Proposal, Failure> {
    let key = ctx.keys.operation(&operation.id);
    let mut made = Proposal {
        writes: vec![Write::document(key.clone(), operation)],
        guards: vec![Guard::Absent { key }],
        report: Vec::new(),
    };
    if !queue {
        for prefix in [ctx.keys.operations(), ctx.keys.locks()] {
            made.guards.push(Guard::PrefixUnchanged { prefix, revision: seen.revision });
        }
    }
    let said = |cluster: Option<ClusterName>| Said {
        cluster,
        host: None,
        kind: "operation",
        message: format!(
            "{} was asked for by {}",
            describe(&operation.request, &operation.clusters),
            operation.requested_by
        ),
        details: json!({"operation": operation.id, "kind": operation.request.kind(), "state": operation.state}),
    };
    let mut events = Vec::new();
    if let Request::Drain { host, .. } = &operation.request {
        // A drain begins with the host; its clusters tell their own part later.
        events.push(Said { host: Some(host.clone()), ..said(None) });
        let cordon = ctx.keys.cordon(host);
        if seen.revision_of(&cordon).is_none() {
            let reason = format!("operation {}", operation.id);
            made.writes.push(host::cordon_write(ctx, host, operation.requested_at, &reason));
            made.guards.push(Guard::Absent { key: cordon });
        }
    } else {
        events.extend(operation.clusters.iter().cloned().map(|cluster| said(Some(cluster))));
    }
    made.writes.extend(event::writes(ctx, &operation.id, operation.requested_at, events).await?);
    Ok(made)
}

/// Whether it is written. One that may or may not have been written is named.
async fn written(ctx: &Context, proposal: &Proposal, id: &str) -> Result<bool, Failure> {
    match ctx.store().await?.commit(proposal).await {
        Ok(Committed::Written { .. }) => Ok(true),
        Ok(Committed::Conflict) => Ok(false),
        Err(why @ (StoreError::Deadline { .. } | StoreError::Unreachable { .. })) => {
            anstream::eprintln!(
                "whether operation {id} was written is not known; once etcd answers, `schemadock get operations {id}` \
                 tells"
            );
            Err(why.into())
        }
        Err(why) => Err(why.into()),
    }
}

async fn go_on(ctx: &Context, operation: Operation, here: bool, how: &How) -> Result<Operation, Failure> {
    if how.no_wait {
        return Ok(operation);
    }
    let id = &operation.id;
    if !how.output.json() {
        anstream::eprintln!("{}: operation {id}", describe(&operation.request, &operation.clusters));
    }
    live::until_over(ctx, id, Way { here, timeout: how.timeout, silent: how.output.json() }).await
}

/// Says how an operation ended.
///
/// # Errors
/// Unless all was done (exit code 1).
pub fn told(operation: &Operation, json: bool) -> Result<(), Failure> {
    if json {
        output::line(plain::operation(operation).to_string());
    }
    let sentence = outcome(operation)?;
    if !json {
        output::line(sentence);
    }
    Ok(())
}
