//! `fleet accept`: this store is the one that agents are to follow.

use schemadock_schema::fleet::Accepted;
use schemadock_schema::proposal::{Guard, Proposal, Write};
use schemadock_store::Committed;

use super::{Seen, join, opinion};
use crate::cli::context::OutputArg;
use crate::cli::{Context, Failure};

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Do not ask.
    #[arg(short, long)]
    pub yes: bool,
    /// How refusals are written.
    #[command(flatten)]
    pub output: OutputArg,
}

/// All that anybody has seen of the store that was remembered: what is declared here holds for every agent, also for
/// those that are away now.
const ALL_SEEN: i64 = i64::MAX;

pub(super) async fn run(ctx: &Context, args: Args) -> Result<(), Failure> {
    let store = ctx.store().await?;
    let seen = Seen::read(store.as_ref(), &ctx.keys).await?;
    let Some(mut fleet) = seen.fleet.clone() else {
        return Err(Failure::failed("this etcd holds no fleet, so there is nothing to accept")
            .hint("`schemadock fleet rebuild` makes one of what the agents remember."));
    };
    let elsewhere = seen.remembered_elsewhere();
    if elsewhere.is_empty() {
        anstream::eprintln!("every registered host believes this etcd; nothing to accept");
        return Ok(());
    }
    for host in elsewhere.values().flatten().filter_map(|name| seen.hosts.get(name)) {
        anstream::eprintln!("{}  {}", host.name, opinion(&host.store));
    }
    let names: Vec<_> = elsewhere.values().flatten().cloned().collect();
    let question = format!(
        "From now on {} will do what this etcd says, deletions included: instances without a target here are \
         stopped and their data retired. Go on?",
        join(&names)
    );
    ctx.confirm(&question, args.yes)?;
    if elsewhere.contains_key(&fleet.id) {
        // The same fleet, gone back in time. Under a new id the next going back is noticed again.
        fleet.id = uuid::Uuid::new_v4().to_string();
    }
    for id in elsewhere.into_keys() {
        fleet.accepted.retain(|one| one.id != id);
        fleet.accepted.push(Accepted { id, revision: ALL_SEEN, by: ctx.who.clone(), at: ctx.now() });
    }
    let read_at = seen.snapshot.get(&ctx.keys.fleet()).map(|entry| entry.mod_revision);
    let proposal = Proposal {
        writes: vec![Write::document(ctx.keys.fleet(), &fleet)],
        guards: vec![Guard::unchanged(ctx.keys.fleet(), read_at)],
        report: Vec::new(),
    };
    match store.commit(&proposal).await? {
        Committed::Written { .. } => {
            anstream::eprintln!(
                "accepted; the agents follow within seconds (`schemadock fleet status` shows it)"
            );
            Ok(())
        }
        Committed::Conflict => Err(Failure::failed("somebody else changed the fleet at this moment")
            .hint("Look at `schemadock fleet status`, then try again.")),
    }
}
