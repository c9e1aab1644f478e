//! Operations: changes of whole clusters that a controller carries out, and `operation wait|cancel|…`.
//!
//! | module | holds |
//! |---|---|
//! | [`judge`] | what one is about, and what speaks against it |
//! | [`ask`] | asking for one: judged, written once, followed |
//! | [`live`], [`telling`] | following it to its end, and what there is to tell |
//! | [`words`] | operations in words |

pub mod ask;
pub mod judge;
pub mod live;
pub mod telling;
pub mod words;

use std::time::Duration;

use schemadock_schema::operation::{Operation, OperationState};
use schemadock_schema::proposal::{Guard, Proposal, Write};
use schemadock_store::{Committed, Selector};
use serde_json::{Value, json};

use super::context::OutputArg;
use super::event::{self, Said};
use super::seen::Seen;
use super::view::plain;
use super::{Context, Failure, output, seen, targets};
use live::Way;
use words::describe;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What can be done with an operation that was asked for.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Follow it until it is over.
    Wait {
        /// Its id.
        id: String,
        /// How long to wait, for example `90s`; the operation goes on. As long as it takes by default.
        #[arg(long, value_name = "TIME", value_parser = super::context::parse_time)]
        timeout: Option<Duration>,
        /// With no controller in office: hold the office in this process until the operation is over.
        #[arg(long)]
        here: bool,
        /// For people or for scripts.
        #[command(flatten)]
        output: OutputArg,
    },
    /// Ask for its end: what can be undone is undone.
    Cancel(One),
    /// Let one go on that is held.
    Continue(One),
    /// Take back what one that is held has done.
    Undo(One),
    /// Carry one that is held to its end.
    Finish(One),
}

/// One operation.
#[derive(Debug, clap::Args)]
pub struct One {
    /// Its id.
    pub id: String,
    /// For people or for scripts.
    #[command(flatten)]
    pub output: OutputArg,
}

impl Args {
    /// Whether scripts read the output.
    pub(super) fn json(&self) -> bool {
        match &self.command {
            Command::Wait { output, .. } => output.json(),
            Command::Cancel(one) | Command::Continue(one) | Command::Undo(one) | Command::Finish(one) => {
                one.output.json()
            }
        }
    }
}

/// Runs the command.
///
/// # Errors
/// For an unknown operation, one that is over, and one that does not end well (exit code 1).
pub async fn run(ctx: &Context, args: Args) -> Result<(), Failure> {
    match args.command {
        Command::Wait { id, timeout, here, output } => wait(ctx, &id, timeout, here, output.json()).await,
        Command::Cancel(one) => cancel(ctx, &one).await,
        Command::Continue(one) => go_on(ctx, &one, "continued").await,
        Command::Undo(one) => go_on(ctx, &one, "undone").await,
        Command::Finish(one) => go_on(ctx, &one, "finished").await,
    }
}

async fn look(ctx: &Context) -> Result<Seen, Failure> {
    seen::look(ctx, vec![Selector::Prefix(ctx.keys.operations())]).await
}

fn find<'a>(ctx: &Context, seen: &'a Seen, id: &str) -> Result<&'a Operation, Failure> {
    if let Some(why) = seen.complaints.get(&ctx.keys.operation(id)) {
        return Err(Failure::failed(format!("operation {id} cannot be read: {why}"))
            .hint("Was it written by a newer version? Then use that one."));
    }
    let found = seen.operations.get(id).map(|stored| &stored.value);
    found.ok_or_else(|| targets::unknown("operation", id, seen.operations.keys().map(String::as_str)))
}

async fn wait(
    ctx: &Context,
    id: &str,
    timeout: Option<Duration>,
    here: bool,
    json: bool,
) -> Result<(), Failure> {
    let seen = look(ctx).await?;
    let operation = find(ctx, &seen, id)?;
    if operation.state.is_over() {
        return ask::told(operation, json);
    }
    if !json {
        anstream::eprintln!("{}: operation {id}", describe(&operation.request, &operation.clusters));
    }
    let way = Way { here: here && seen.controller.is_none(), timeout, silent: json };
    ask::told(&live::until_over(ctx, id, way).await?, json)
}

/// How often a lost race is run again.
const CONFLICTS: u32 = 8;

async fn cancel(ctx: &Context, one: &One) -> Result<(), Failure> {
    let (id, key) = (&one.id, ctx.keys.operation(&one.id));
    let store = ctx.store().await?;
    for _ in 0..=CONFLICTS {
        let seen = look(ctx).await?;
        let operation = find(ctx, &seen, id)?;
        let what = describe(&operation.request, &operation.clusters);
        if operation.state.is_over() {
            return Err(Failure::failed(format!("operation {id} ({what}) is over: {}", operation.state))
                .hint("There is nothing left to cancel."));
        }
        if operation.cancel {
            return cancelled(operation, &seen, "its end was asked for before", one.output.json());
        }
        let Some(entry) = store.read(&[Selector::Key(key.clone())]).await?.entries.remove(&key) else {
            continue;
        };
        let now = ctx.now();
        // Fields of newer programs stay.
        let mut document: Value = serde_json::from_slice(&entry.value).unwrap_or_default();
        document["cancel"] = json!(true);
        document["updated_at"] = json!(now);
        let message = format!("the end of the {what} was asked for by {}", ctx.who);
        let said = operation.clusters.iter().map(|cluster| Said {
            cluster: Some(cluster.clone()),
            host: None,
            kind: "operation",
            message: message.clone(),
            details: json!({"operation": id, "kind": operation.request.kind(), "cancel": true}),
        });
        let mut writes = vec![Write::document(key.clone(), &document)];
        writes.extend(event::writes(ctx, &event::new_id(ctx, now), now, said.collect()).await?);
        let guards = vec![Guard::At { key: key.clone(), mod_revision: entry.mod_revision }];
        if entry.mod_revision == seen.revision_of(&key).unwrap_or_default()
            && let Committed::Written { .. } =
                store.commit(&Proposal { writes, guards, report: Vec::new() }).await?
        {
            let operation = Operation { cancel: true, updated_at: now, ..operation.clone() };
            return cancelled(&operation, &seen, "its end is asked for", one.output.json());
        }
    }
    Err(Failure::failed(format!("operation {id} changes all the time: {CONFLICTS} attempts were overtaken"))
        .hint("Repeat the command."))
}

fn cancelled(operation: &Operation, seen: &Seen, said: &str, json: bool) -> Result<(), Failure> {
    let id = &operation.id;
    if seen.controller.is_none() {
        anstream::eprintln!("no controller is in office: it ends once one is (`operation wait {id} --here`)");
    }
    output::line(match json {
        true => plain::operation(operation).to_string(),
        false => format!("operation {id}: {said}; `schemadock operation wait {id}` shows how it ends"),
    });
    Ok(())
}

/// What a person decides about an operation that is held; none of today's is ever.
async fn go_on(ctx: &Context, one: &One, done: &str) -> Result<(), Failure> {
    let seen = look(ctx).await?;
    let operation = find(ctx, &seen, &one.id)?;
    let (id, kind) = (&one.id, operation.request.kind());
    Err(match operation.state {
        OperationState::Held => {
            Failure::failed(format!("this version does not know how a {kind} that is held is {done}"))
                .hint("Was it asked for by a newer version? Then use that one.")
        }
        state => {
            let hint = match state.is_over() {
                true => format!("It is over: {state}. `schemadock get operations {id}` says how it ended."),
                false => {
                    format!("It is {state}, not held; `schemadock operation cancel {id}` asks for its end.")
                }
            };
            Failure::failed(format!("nothing of operation {id} can be {done}")).hint(hint)
        }
    })
}
