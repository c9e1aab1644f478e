//! `fleet rebuild`: puts together what the agents remember, in an etcd that has lost it.

use std::time::Duration;

use schemadock_schema::fleet::{Accepted, Cache, Fleet};
use schemadock_schema::proposal::{Guard, Proposal, Write};
use schemadock_schema::request::{Outcome, RequestKind};
use schemadock_schema::status::StoreState;
use schemadock_schema::{HostName, Timestamp};
use schemadock_store::{Committed, Selector, Store};

use super::ask::ask;
use super::merge::{Merged, merge, missing_members, writes_of};
use super::{Seen, join};
use crate::cli::context::OutputArg;
use crate::cli::{Context, Failure};

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Say what would be written, and write nothing (the agents are asked all the same).
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask.
    #[arg(short, long)]
    pub yes: bool,
    /// How long to wait for the agents.
    #[arg(long, default_value = "15s", value_name = "TIME", value_parser = crate::cli::context::parse_time)]
    pub timeout: Duration,
    /// How refusals are written.
    #[command(flatten)]
    pub output: OutputArg,
}

/// Writes in one transaction; below etcd's limit of 128 operations, each write having a guard.
const CHUNK: usize = 50;

pub(super) async fn run(ctx: &Context, args: Args) -> Result<(), Failure> {
    let store = ctx.store().await?;
    let seen = Seen::read_leniently(store.as_ref(), &ctx.keys).await?;
    let asked = whom_to_ask(ctx, &seen)?;
    let caches = gather(ctx, store.as_ref(), &asked, args.timeout).await?;
    let merged = merge(&caches).map_err(Failure::failed)?;
    tell(&merged, &asked, &missing_members(&merged));
    let current = store
        .read(&[
            Selector::Key(ctx.keys.fleet()),
            Selector::Prefix(ctx.keys.targets()),
            Selector::Prefix(ctx.keys.clusters()),
            Selector::Prefix(ctx.keys.leaderships()),
            Selector::Prefix(ctx.keys.secrets_all()),
            Selector::Prefix(ctx.keys.members_all()),
            Selector::Prefix(ctx.keys.ids()),
        ])
        .await?;
    let groups = writes_of(&merged, &current, &ctx.keys, ctx.now());
    for write in groups.iter().flatten() {
        let word = if current.get(write.key()).is_some() { "replaces" } else { "writes" };
        anstream::eprintln!("  {word} {}", write.key());
    }
    if args.dry_run {
        return Ok(());
    }
    ctx.confirm(
        "Agents that were not asked may know more, and a host that comes back later finds its targets as written \
         here. Go on?",
        args.yes,
    )?;
    for group in &groups {
        for writes in group.chunks(CHUNK) {
            let unchanged = |write: &Write| {
                Guard::unchanged(write.key().to_owned(), current.get(write.key()).map(|e| e.mod_revision))
            };
            let guards = writes.iter().map(unchanged).collect();
            commit(store.as_ref(), Proposal { writes: writes.to_vec(), guards, report: Vec::new() }).await?;
        }
    }
    // The identity comes last: from then on the agents believe what was written before.
    let fleet = identity(&merged, &seen, ctx.who.clone(), ctx.now());
    let read_at = current.get(&ctx.keys.fleet()).map(|entry| entry.mod_revision);
    let proposal = Proposal {
        writes: vec![Write::document(ctx.keys.fleet(), &fleet)],
        guards: vec![Guard::unchanged(ctx.keys.fleet(), read_at)],
        report: Vec::new(),
    };
    commit(store.as_ref(), proposal).await?;
    anstream::eprintln!("rebuilt: fleet {} with {} clusters", fleet.id, merged.clusters.len());
    anstream::eprintln!(
        "`schemadock fleet status` shows who believes it; for a host that does not: `fleet accept`"
    );
    Ok(())
}

async fn commit(store: &dyn Store, proposal: Proposal) -> Result<(), Failure> {
    match store.commit(&proposal).await? {
        Committed::Written { .. } => Ok(()),
        Committed::Conflict => {
            Err(Failure::failed("somebody else wrote to etcd meanwhile; the rebuild is not complete")
                .hint("Run it again: what was written already is found and left as it is."))
        }
    }
}

/// The hosts whose agents live and do not believe this store.
fn whom_to_ask(ctx: &Context, seen: &Seen) -> Result<Vec<HostName>, Failure> {
    let believers: Vec<HostName> = seen
        .hosts
        .values()
        .filter(|host| host.store.state == StoreState::Ok)
        .map(|host| host.name.clone())
        .collect();
    if !believers.is_empty() {
        let id = seen.fleet.as_ref().map_or("?", |fleet| fleet.id.as_str());
        let found = format!("{} already belong to the fleet {id} of this etcd", join(&believers));
        return Err(Failure::failed(found).hint(
            "Nothing of it may be overwritten. If the others are to join it: `schemadock fleet accept`; if they talk \
             to the wrong etcd, correct their settings.",
        ));
    }
    let (alive, dead): (Vec<HostName>, Vec<HostName>) =
        seen.hosts.keys().cloned().partition(|host| seen.alive(&ctx.keys, host));
    if alive.is_empty() {
        return Err(Failure::failed("no agent is alive in this etcd, so nobody can be asked what was there")
            .hint("Point the agents at this etcd and start them; they register, and wait."));
    }
    if !dead.is_empty() {
        anstream::eprintln!("not asked, since their agents are not alive: {}", join(&dead));
    }
    Ok(alive)
}

/// Asks the agents what they remember.
async fn gather(
    ctx: &Context,
    store: &dyn Store,
    hosts: &[HostName],
    timeout: Duration,
) -> Result<Vec<Cache>, Failure> {
    let of = hosts.iter().map(|host| (host.clone(), None)).collect();
    let answers = ask(ctx, store, RequestKind::Cache, &of, timeout).await?;
    let published = store.read(&[Selector::Prefix(ctx.keys.caches())]).await?;
    let ours = published.entries.values().filter(|entry| entry.mod_revision >= answers.since);
    let ours = ours.filter_map(|entry| serde_json::from_slice::<Cache>(&entry.value).ok());
    let ours: Vec<Cache> = ours.filter(|cache| hosts.contains(&cache.host)).collect();
    let mut late = Vec::new();
    for (host, answer) in &answers.by {
        match answer {
            Some(answer) if answer.outcome != Outcome::Done => {
                return Err(Failure::failed(format!(
                    "the agent of {host} did not do it: {}",
                    answer.message
                )));
            }
            Some(_) => {}
            // It has done what was asked, and could not say so.
            None if ours.iter().any(|cache| cache.host == *host) => {}
            None => late.push(host.clone()),
        }
    }
    if !late.is_empty() {
        return Err(Failure::failed(format!(
            "no answer from {} within {} s",
            join(&late),
            timeout.as_secs()
        ))
        .hint("Look at their agents' logs, or stop those agents and run it again without them."));
    }
    Ok(ours)
}

fn tell(merged: &Merged, asked: &[HostName], missing: &[String]) {
    anstream::eprintln!("fleet {} as remembered by {}:", merged.id, join(asked));
    for (cluster, part) in &merged.clusters {
        let term = part.leadership.as_ref().map_or("no record of its leadership".to_owned(), |record| {
            let master = record.master.as_ref().map_or("nobody", |master| master.as_str());
            format!("term {}, led by {master}", record.term)
        });
        anstream::eprintln!("{cluster}: {} instances, {term}", part.targets.len());
    }
    for line in merged.warnings.iter().chain(missing) {
        anstream::eprintln!("warning: {line}");
    }
}

/// The id remembered, also for those who had seen more of the store that is gone.
fn identity(merged: &Merged, seen: &Seen, by: String, at: Timestamp) -> Fleet {
    let mut accepted = seen.fleet.as_ref().map(|fleet| fleet.accepted.clone()).unwrap_or_default();
    accepted.retain(|one| one.id != merged.id);
    accepted.push(Accepted { id: merged.id.clone(), revision: merged.revision, by, at });
    Fleet { id: merged.id.clone(), accepted }
}
