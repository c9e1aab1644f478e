//! `purge`, `reseed`, `restart`: asks an agent, and waits for its answer. `refresh` is asked by `get --live`.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::StreamExt;
use indicatif::ProgressBar;
use schemadock_schema::event::Event;
use schemadock_schema::proposal::{Guard, Proposal, Write};
use schemadock_schema::request::{Outcome, REQUEST_SECONDS, Request, RequestKind, RequestOutcome};
use schemadock_schema::size::format_bytes;
use schemadock_schema::{HostName, InstanceName};
use schemadock_store::{Change, Committed, Selector, Snapshot};
use serde_json::json;
use tokio::time::timeout;

use super::context::OutputArg;
use super::seen::{self, Seen};
use super::view::InstanceRow;
use super::view::instances::rows;
use super::{Context, Failure, output, targets};

/// What all three share.
#[derive(Debug, clap::Args)]
pub struct Ask {
    /// The instance.
    pub instance: String,
    /// Do not ask.
    #[arg(short, long)]
    pub yes: bool,
    /// How long to wait for the agent.
    #[arg(long, default_value = "120s", value_name = "TIME", value_parser = super::context::parse_time)]
    pub timeout: Duration,
    /// How refusals are written.
    #[command(flatten)]
    pub output: OutputArg,
}

/// Arguments of `purge`.
#[derive(Debug, clap::Args)]
pub struct PurgeArgs {
    /// What all three share.
    #[command(flatten)]
    pub ask: Ask,
}

/// Arguments of `reseed`.
#[derive(Debug, clap::Args)]
pub struct ReseedArgs {
    /// What all three share.
    #[command(flatten)]
    pub ask: Ask,
}

/// Arguments of `restart`.
#[derive(Debug, clap::Args)]
pub struct RestartArgs {
    /// What all three share.
    #[command(flatten)]
    pub ask: Ask,
}

/// How long agents may take to write fresh values.
const REFRESHED: Duration = Duration::from_secs(3);
/// Writes a transaction.
const BATCH: usize = 100;

/// Destroys the retired data of an instance.
///
/// # Errors
/// Where there are none, and when the agent refuses or does not answer (exit code 1).
pub async fn purge(ctx: &Context, args: PurgeArgs) -> Result<(), Failure> {
    let name = targets::instance_name(&args.ask.instance)?;
    let seen = seen::look(ctx, Vec::new()).await?;
    let retired = |host: &&HostName| seen.hosts[*host].retired.iter().any(|data| data.instance == name);
    let hosts: Vec<&HostName> = seen.hosts.keys().filter(retired).collect();
    if hosts.is_empty() {
        let known = seen.hosts.values().flat_map(|host| &host.retired).map(|data| data.instance.as_str());
        return Err(targets::unknown("retired data of", name.as_str(), known));
    }
    for host in hosts {
        let data: Vec<_> = seen.hosts[host].retired.iter().filter(|data| data.instance == name).collect();
        let bytes = format_bytes(data.iter().map(|data| data.bytes).sum());
        let since =
            data.iter().map(|data| data.since.strftime("%F").to_string()).collect::<Vec<_>>().join(", ");
        let what =
            format!("Destroy the retired data of {name} on {host} for ever ({bytes}, set aside {since})?");
        alive(&seen, host)?;
        ctx.confirm(&what, args.ask.yes)?;
        ask(ctx, RequestKind::Purge, host, &name, Vec::new(), &args.ask).await?;
    }
    Ok(())
}

/// Sets the data of an instance aside and has it seeded anew.
///
/// # Errors
/// For the master, an unknown name, and when the agent refuses or does not answer (exit code 1).
pub async fn reseed(ctx: &Context, args: ReseedArgs) -> Result<(), Failure> {
    let name = targets::instance_name(&args.ask.instance)?;
    let seen = seen::look(ctx, Vec::new()).await?;
    let row = wished(&seen, &name)?;
    let Some(cluster) = &row.cluster else {
        return Err(Failure::failed(format!("the target of {name} names no cluster")));
    };
    let record = seen.leaderships.get(cluster);
    if record.is_some_and(|record| record.value.master.as_ref() == Some(&name)) {
        return Err(Failure::failed(format!("{name} is the master of {cluster}: nobody could seed it"))
            .hint(format!(
                "Make another member the master first: `schemadock cluster switchover {cluster}`."
            )));
    }
    alive(&seen, &row.host)?;
    let from = match record.and_then(|record| record.value.master.as_ref()) {
        Some(_) => "seed it anew from a live member",
        None => "start it from the template, since nobody leads the cluster",
    };
    ctx.confirm(&format!("Set the data of {name} aside and {from}?"), args.ask.yes)?;
    // It may have become the master meanwhile.
    let judged = ctx.keys.leadership(cluster);
    let read = seen.revisions.get(&judged).copied();
    ask(ctx, RequestKind::Reseed, &row.host, &name, vec![Guard::unchanged(judged, read)], &args.ask).await
}

/// Restarts an instance.
///
/// # Errors
/// For an unknown name, and when the agent refuses or does not answer (exit code 1).
pub async fn restart(ctx: &Context, args: RestartArgs) -> Result<(), Failure> {
    let name = targets::instance_name(&args.ask.instance)?;
    let seen = seen::look(ctx, Vec::new()).await?;
    let row = wished(&seen, &name)?;
    alive(&seen, &row.host)?;
    let pending = row.status.map(|status| status.restart_pending.as_slice()).unwrap_or_default();
    let pending: Vec<&str> = pending.iter().map(|one| one.variable.as_str()).collect();
    let with = match pending.is_empty() {
        true => String::new(),
        false => format!(" with {} that are pending", pending.join(", ")),
    };
    let record = row.cluster.as_ref().and_then(|cluster| seen.leaderships.get(cluster));
    let leads = record.is_some_and(|record| record.value.master.as_ref() == Some(&name));
    let question = match leads {
        true => {
            format!("{name} is the master: writes stop until it is back, some seconds. Restart it{with}?")
        }
        false => format!("Restart {name}{with}?"),
    };
    ctx.confirm(&question, args.ask.yes)?;
    ask(ctx, RequestKind::Restart, &row.host, &name, Vec::new(), &args.ask).await
}

fn wished<'a>(seen: &'a Seen, name: &InstanceName) -> Result<InstanceRow<'a>, Failure> {
    let row = rows(seen).into_iter().find(|row| row.name == name && row.wished);
    row.ok_or_else(|| {
        targets::unknown("target", name.as_str(), seen.targets.keys().map(InstanceName::as_str))
    })
}

/// Nobody answers for a host whose agent does not live.
fn alive(seen: &Seen, host: &HostName) -> Result<(), Failure> {
    match seen.alive.contains(host) {
        true => Ok(()),
        false => Err(Failure::failed(format!("the agent of {host} is not alive, so nobody would answer"))
            .hint(format!("Start schemadock-agent on {host}."))),
    }
}

fn request(ctx: &Context, kind: RequestKind, instance: &InstanceName) -> Request {
    let at = ctx.now();
    let not_after = at + jiff::SignedDuration::from_secs(REQUEST_SECONDS);
    Request { kind, instance: Some(instance.clone()), by: ctx.who.clone(), at, not_after }
}

/// Writes a request and waits for the event that answers it.
async fn ask(
    ctx: &Context,
    kind: RequestKind,
    host: &HostName,
    name: &InstanceName,
    mut guards: Vec<Guard>,
    args: &Ask,
) -> Result<(), Failure> {
    let store = ctx.store().await?;
    let id = uuid::Uuid::new_v4().to_string();
    let key = ctx.keys.request(host, &id);
    guards.push(Guard::Absent { key: key.clone() });
    let writes = vec![Write::document(key, &request(ctx, kind, name))];
    if store.commit(&Proposal { writes, guards, report: Vec::new() }).await? == Committed::Conflict {
        return Err(
            Failure::failed("the leadership of the cluster has just changed").hint("Repeat the command.")
        );
    }
    let spinner = (!args.output.json() && ctx.can_ask()).then(|| {
        let spinner = ProgressBar::new_spinner()
            .with_message(format!("{kind} {name}: waiting for the agent of {host}"));
        spinner.enable_steady_tick(Duration::from_millis(100));
        spinner
    });
    let answer = timeout(args.timeout, answer(ctx, &id)).await;
    if let Some(spinner) = spinner {
        spinner.finish_and_clear();
    }
    let Ok(answer) = answer else {
        let text = format!("the agent of {host} has not answered within {:.0} s", args.timeout.as_secs_f64());
        let hint = format!("The request is good for {} minutes and may still be done.", REQUEST_SECONDS / 60);
        return Err(Failure::failed(text).hint(hint));
    };
    let (message, outcome) = answer?;
    let reason = || outcome.reason.clone().unwrap_or_else(|| message.clone());
    match outcome.outcome {
        Outcome::Done if args.output.json() => {
            let told =
                json!({"request": id, "instance": name, "host": host, "outcome": "done", "message": message});
            output::line(told.to_string());
            Ok(())
        }
        Outcome::Done => {
            output::line(message);
            Ok(())
        }
        Outcome::Refused => {
            Err(Failure::failed(format!("the agent of {host} refused to {kind} {name}: {}", reason())))
        }
        Outcome::Expired => {
            Err(Failure::failed(format!("the request came too late at the agent of {host}: {}", reason())))
        }
    }
}

/// The event that answers a request.
async fn answer(ctx: &Context, id: &str) -> Result<(String, RequestOutcome), Failure> {
    let store = ctx.store().await?;
    let events = Selector::Prefix(ctx.keys.events());
    loop {
        let seen: Snapshot = store.read(std::slice::from_ref(&events)).await?;
        if let Some(found) = seen.entries.values().find_map(|entry| answers(&entry.value, id)) {
            return Ok(found);
        }
        let mut changes = store.watch(&events, seen.revision).await?;
        // A watch that ends is followed by a new look.
        while let Some(Ok((_, batch))) = changes.next().await {
            let put = batch.iter().filter_map(|change| match change {
                Change::Put(entry) => Some(entry),
                Change::Delete { .. } => None,
            });
            if let Some(found) = put.into_iter().find_map(|entry| answers(&entry.value, id)) {
                return Ok(found);
            }
        }
    }
}

fn answers(value: &[u8], id: &str) -> Option<(String, RequestOutcome)> {
    let event: Event = serde_json::from_slice(value).ok()?;
    let outcome: RequestOutcome = serde_json::from_value(event.details).ok()?;
    (outcome.request == id).then_some((event.message, outcome))
}

/// Has agents write fresh statuses, and waits for them for a moment.
///
/// # Errors
/// When etcd fails; agents that do not answer are named on stderr.
pub async fn refresh(ctx: &Context, instances: &BTreeSet<(HostName, InstanceName)>) -> Result<(), Failure> {
    let store = ctx.store().await?;
    let mut waiting: BTreeSet<String> = BTreeSet::new();
    let all: Vec<_> = instances.iter().collect();
    for batch in all.chunks(BATCH) {
        let writes = batch.iter().map(|(host, name)| {
            let key = ctx.keys.request(host, &uuid::Uuid::new_v4().to_string());
            waiting.insert(key.clone());
            Write::document(key, &request(ctx, RequestKind::Refresh, name))
        });
        let proposal = Proposal { writes: writes.collect(), ..Proposal::default() };
        store.commit(&proposal).await?;
    }
    // An agent removes a request when it is done.
    let part = Selector::Prefix(ctx.keys.requests());
    let gone = async {
        loop {
            let seen = store.read(std::slice::from_ref(&part)).await?;
            waiting.retain(|key| seen.get(key).is_some());
            let mut changes = store.watch(&part, seen.revision).await?;
            while !waiting.is_empty() {
                let Some(Ok((_, batch))) = changes.next().await else { break };
                for change in batch {
                    if let Change::Delete { key, .. } = change {
                        waiting.remove(&key);
                    }
                }
            }
            if waiting.is_empty() {
                return Ok::<(), Failure>(());
            }
        }
    };
    match timeout(REFRESHED, gone).await {
        Ok(done) => done,
        Err(_) => {
            let mut hosts: BTreeSet<&str> = BTreeSet::new();
            hosts.extend(waiting.iter().filter_map(|key| ctx.keys.parts(key)).map(|(host, _)| host));
            let hosts: Vec<&str> = hosts.into_iter().collect();
            anstream::eprintln!("no fresh values from {} within {} s", hosts.join(", "), REFRESHED.as_secs());
            Ok(())
        }
    }
}
