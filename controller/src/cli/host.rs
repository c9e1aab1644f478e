//! Hosts: `host cordon|uncordon|drain|forget`.

mod forget;

use schemadock_schema::operation::Request;
use schemadock_schema::proposal::{Guard, Proposal, Write};
use schemadock_schema::{HostName, Timestamp};
use schemadock_store::{Committed, Selector};
use serde_json::{Value, json};

use super::context::OutputArg;
use super::event::{self, Said};
use super::operation::ask::{How, ask};
use super::operation::judge::Wanted;
use super::{Context, Failure, fleet, output, seen, targets};

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What can be done to a host.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Place nothing new on a host; what is there stays.
    Cordon {
        /// The host.
        host: String,
        /// Why, for whoever finds it so.
        #[arg(long)]
        reason: Option<String>,
        /// How refusals are written.
        #[command(flatten)]
        output: OutputArg,
    },
    /// Let a host take new members again.
    Uncordon {
        /// The host.
        host: String,
        /// How refusals are written.
        #[command(flatten)]
        output: OutputArg,
    },
    /// Move masters off a host, and with --evict replicas too; it is cordoned first, and stays so.
    Drain {
        /// The host.
        host: String,
        /// Move replicas, too: nothing is left on it.
        #[arg(long)]
        evict: bool,
        /// How it is asked for.
        #[command(flatten)]
        how: How,
    },
    /// Remove the keys of a dead host; refused while its agent is alive or a target names it.
    Forget {
        /// The host.
        host: String,
        /// How refusals are written.
        #[command(flatten)]
        output: OutputArg,
    },
}

impl Args {
    /// Whether scripts read the output.
    pub(super) fn json(&self) -> bool {
        match &self.command {
            Command::Cordon { output, .. }
            | Command::Uncordon { output, .. }
            | Command::Forget { output, .. } => output.json(),
            Command::Drain { how, .. } => how.output.json(),
        }
    }
}

/// Runs the command.
///
/// # Errors
/// For an unknown host, and what speaks against it (exit code 1).
pub async fn run(ctx: &Context, args: Args) -> Result<(), Failure> {
    let json = args.json();
    match args.command {
        Command::Cordon { host, reason, .. } => {
            cordon(ctx, &name(&host)?, Some(reason.as_deref().unwrap_or_default()), json).await
        }
        Command::Uncordon { host, .. } => cordon(ctx, &name(&host)?, None, json).await,
        Command::Drain { host, evict, how } => {
            let request = Request::Drain { host: name(&host)?, evict };
            ask(ctx, &Wanted { request, cluster: None }, false, &how).await
        }
        Command::Forget { host, .. } => forget::run(ctx, &name(&host)?).await,
    }
}

fn name(text: &str) -> Result<HostName, Failure> {
    text.parse().map_err(|why| Failure::usage(format!("{why}")))
}

/// The write of a cordon.
pub(super) fn cordon_write(ctx: &Context, host: &HostName, at: Timestamp, reason: &str) -> Write {
    Write::document(ctx.keys.cordon(host), &json!({"by": ctx.who, "at": at, "reason": reason}))
}

/// How often a lost race is run again.
const CONFLICTS: u32 = 8;

/// Writes a host's cordon, or takes it away where no reason is given.
async fn cordon(ctx: &Context, host: &HostName, reason: Option<&str>, json: bool) -> Result<(), Failure> {
    let store = ctx.store().await?;
    let key = ctx.keys.cordon(host);
    for _ in 0..=CONFLICTS {
        let seen = seen::look(ctx, Vec::new()).await?;
        // A cordon that a forgotten host has left can be taken away.
        let known = seen.hosts.contains_key(host) || (reason.is_none() && seen.cordons.contains(host));
        if !known {
            return Err(targets::unknown("host", host.as_str(), seen.hosts.keys().map(HostName::as_str)));
        }
        let now = seen.revision_of(&key);
        if now.is_some() == reason.is_some() {
            let held = store.read(&[Selector::Key(key.clone())]).await?;
            let document = held.get(&key).and_then(|entry| serde_json::from_slice(&entry.value).ok());
            told(host, &document.unwrap_or_default(), reason.is_some(), false, json);
            return Ok(());
        }
        let Some(create_revision) = seen.fleet_created else {
            fleet::ensure(ctx).await?;
            continue;
        };
        let at = ctx.now();
        let (write, message) = match reason {
            Some(reason) => (cordon_write(ctx, host, at, reason), "was cordoned: it takes no new members"),
            None => (Write::Delete { key: key.clone() }, "is no longer cordoned"),
        };
        let said = Said {
            cluster: None,
            host: Some(host.clone()),
            kind: "cordon",
            message: format!("{host} {message}{}", because(reason.unwrap_or_default())),
            details: json!({"cordoned": reason.is_some(), "reason": reason}),
        };
        let mut writes = vec![write];
        writes.extend(event::writes(ctx, &event::new_id(ctx, at), at, vec![said]).await?);
        let guards = vec![
            Guard::unchanged(key.clone(), now),
            Guard::Created { key: ctx.keys.fleet(), create_revision },
        ];
        if let Committed::Written { .. } =
            store.commit(&Proposal { writes, guards, report: Vec::new() }).await?
        {
            let document = json!({"by": ctx.who, "at": at, "reason": reason.unwrap_or_default()});
            told(host, &document, reason.is_some(), true, json);
            return Ok(());
        }
    }
    Err(Failure::failed(format!(
        "others change the cordon of {host} all the time: {CONFLICTS} attempts were overtaken"
    ))
    .hint("Repeat the command."))
}

fn because(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(" ({reason})") }
}

/// Says how a host stands, and since when.
fn told(host: &HostName, cordon: &Value, cordoned: bool, written: bool, json: bool) {
    if json {
        let cordon = cordoned.then_some(cordon);
        let told = json!({"host": host, "cordoned": cordoned, "cordon": cordon, "written": written});
        return output::line(told.to_string());
    }
    let word = |field: &str| cordon[field].as_str().unwrap_or("?");
    output::line(match (cordoned, written) {
        (true, true) => format!("{host}: cordoned{}", because(word("reason"))),
        (true, false) => {
            let (by, at) = (word("by"), word("at"));
            format!("{host}: was cordoned before, by {by} at {at}{}", because(word("reason")))
        }
        (false, true) => format!("{host}: takes new members again"),
        (false, false) => format!("{host}: was not cordoned"),
    });
}
