//! `get`: what is wished, what is, what happened.

use std::collections::{BTreeMap, BTreeSet};

use schemadock_schema::keys::Keys;
use schemadock_schema::{HostName, InstanceName};
use schemadock_store::Selector;
use serde_json::{Map, Value, json};

use super::context::OutputArg;
use super::follow::Follow;
use super::seen::{self, Seen};
use super::view::{clusters, instances, plain};
use super::{Context, Failure, output, request, tables, targets};

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to show.
    #[arg(value_enum)]
    pub kind: Kind,
    /// Only this one; instances also of a cluster or a host, events of a cluster, an instance or a host.
    pub name: Option<String>,
    /// Go on showing changes.
    #[arg(short, long)]
    pub watch: bool,
    /// Ask the agents for fresh values first.
    #[arg(long)]
    pub live: bool,
    /// For people or for scripts.
    #[command(flatten)]
    pub output: OutputArg,
}

/// What can be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Target states.
    #[value(alias = "target")]
    Targets,
    /// Instances as their agents see them.
    #[value(alias = "instance")]
    Instances,
    /// Clusters.
    #[value(alias = "cluster")]
    Clusters,
    /// Hosts.
    #[value(alias = "host")]
    Hosts,
    /// Copies of the controller.
    #[value(alias = "controller")]
    Controllers,
    /// Requested changes.
    #[value(alias = "operation")]
    Operations,
    /// What happened.
    #[value(alias = "event")]
    Events,
}

/// What is shown, by a key that stays the same while an object changes, in the order of the keys.
pub type Rows = BTreeMap<String, Value>;

/// Shows it.
///
/// # Errors
/// For an unknown name (exit code 1).
pub async fn run(ctx: &Context, args: Args) -> Result<(), Failure> {
    if args.live && !matches!(args.kind, Kind::Instances | Kind::Clusters) {
        return Err(Failure::usage("--live is for instances and clusters: their agents are asked"));
    }
    let further = further(args.kind, &ctx.keys);
    let mut seen = seen::look(ctx, further.clone()).await?;
    let name = args.name.as_deref();
    let mut shown = rows(args.kind, &ctx.keys, &seen, name)?;
    if args.live {
        let asked = asked(&seen, args.kind, &shown);
        request::refresh(ctx, &asked).await?;
        seen = seen::look(ctx, further.clone()).await?;
        shown = rows(args.kind, &ctx.keys, &seen, name)?;
    }
    for (key, why) in complaints(args.kind, &ctx.keys, &seen) {
        anstream::eprintln!("warning: {key} cannot be read: {why}");
    }
    if !args.watch {
        output::line(match args.output.json() {
            true => whole(args.kind, &shown),
            false if args.kind == Kind::Operations && name.is_some() => {
                shown.values().map(tables::operation).collect::<Vec<_>>().join("\n\n")
            }
            false => tables::text(args.kind, shown.iter(), true),
        });
        return Ok(());
    }
    let mut before = Rows::new();
    let mut screen = Screen { kind: args.kind, json: args.output.json(), head: true };
    let mut follow = Follow::start(ctx, further).await?;
    screen.show(&before, &shown);
    before = shown;
    while let Some(seen) = follow.next(None).await {
        // What was there once may go, and come back.
        let shown = rows(args.kind, &ctx.keys, &seen, name).unwrap_or_default();
        screen.show(&before, &shown);
        before = shown;
    }
    Ok(())
}

/// The parts beside the usual ones.
fn further(kind: Kind, keys: &Keys) -> Vec<Selector> {
    match kind {
        Kind::Controllers => vec![Selector::Prefix(keys.controllers())],
        Kind::Operations => vec![Selector::Prefix(keys.operations())],
        Kind::Events => vec![Selector::Prefix(keys.events())],
        Kind::Targets | Kind::Instances | Kind::Clusters | Kind::Hosts => Vec::new(),
    }
}

/// What cannot be read of what is shown.
fn complaints<'a>(kind: Kind, keys: &Keys, seen: &'a Seen) -> impl Iterator<Item = (&'a String, &'a String)> {
    let prefix = match kind {
        Kind::Targets | Kind::Instances => keys.targets(),
        Kind::Clusters => keys.clusters(),
        Kind::Hosts => keys.hosts(),
        Kind::Controllers => keys.controllers(),
        Kind::Operations => keys.operations(),
        Kind::Events => keys.events(),
    };
    let statuses = (kind == Kind::Instances).then(|| keys.statuses());
    let about = move |key: &str| {
        key.starts_with(&prefix) || statuses.as_ref().is_some_and(|statuses| key.starts_with(statuses))
    };
    seen.complaints.iter().filter(move |(key, _)| about(key))
}

/// What is to be shown.
///
/// # Errors
/// For an unknown name.
pub fn rows(kind: Kind, keys: &Keys, seen: &Seen, name: Option<&str>) -> Result<Rows, Failure> {
    let by_name = |values: Vec<Value>, field: &str| -> Rows {
        values
            .into_iter()
            .map(|value| (value[field].as_str().unwrap_or_default().to_owned(), value))
            .collect()
    };
    let (all, what, fields): (Rows, _, &[&str]) = match kind {
        Kind::Targets => (plain::targets(seen).into_iter().collect(), "target", &[]),
        Kind::Instances => {
            let values = instances::rows(seen).iter().map(|row| row.json()).collect();
            (by_name(values, "name"), "instance", &["name", "cluster", "host"])
        }
        Kind::Clusters => {
            let values = clusters::clusters(seen).iter().map(|row| row.json()).collect();
            (by_name(values, "name"), "cluster", &["name"])
        }
        Kind::Hosts => {
            let values = seen.hosts.keys().filter_map(|name| plain::host(seen, name)).collect();
            (by_name(values, "name"), "host", &["name"])
        }
        Kind::Controllers => (by_name(plain::controllers(keys, seen), "id"), "controller", &["id"]),
        Kind::Operations => (by_name(plain::operations(seen), "id"), "operation", &["id"]),
        Kind::Events => {
            (by_name(plain::events(keys, seen), "id"), "event", &["cluster", "instance", "host", "id"])
        }
    };
    let Some(name) = name else { return Ok(all) };
    let about = |key: &str, value: &Value| match kind {
        Kind::Targets => key == name || ["cluster", "host"].iter().any(|field| value["data"][field] == name),
        _ => fields.iter().any(|field| value[field] == name),
    };
    let known: Vec<String> = all.keys().cloned().collect();
    let shown: Rows = all.into_iter().filter(|(key, value)| about(key, value)).collect();
    let quiet = kind == Kind::Events && is_known(seen, name);
    match shown.is_empty() && !quiet {
        true => Err(targets::unknown(what, name, known.iter().map(String::as_str))),
        false => Ok(shown),
    }
}

/// Whether a name stands for something that may have events.
fn is_known(seen: &Seen, name: &str) -> bool {
    let instance = seen.targets.keys().chain(seen.statuses.keys()).any(|one| one.as_str() == name);
    instance
        || seen.hosts.keys().any(|one| one.as_str() == name)
        || seen.clusters().iter().chain(seen.leaderships.keys()).any(|one| one.as_str() == name)
}

/// A list; for targets the file format.
fn whole(kind: Kind, rows: &Rows) -> String {
    match kind {
        Kind::Targets => {
            let file: Map<String, Value> = rows.clone().into_iter().collect();
            serde_json::to_string_pretty(&file).unwrap_or_default()
        }
        _ => Value::Array(rows.values().cloned().collect()).to_string(),
    }
}

/// The instances whose agents are asked for fresh values.
fn asked(seen: &Seen, kind: Kind, shown: &Rows) -> BTreeSet<(HostName, InstanceName)> {
    let wanted = |row: &instances::InstanceRow<'_>| match kind {
        Kind::Clusters => row.cluster.as_ref().is_some_and(|cluster| shown.contains_key(cluster.as_str())),
        _ => shown.contains_key(row.name.as_str()),
    };
    let rows = instances::rows(seen).into_iter().filter(|row| wanted(row) && seen.alive.contains(&row.host));
    rows.map(|row| (row.host.clone(), row.name.clone())).collect()
}

struct Screen {
    kind: Kind,
    json: bool,
    head: bool,
}

impl Screen {
    fn show(&mut self, before: &Rows, now: &Rows) {
        let changed: Vec<(&String, &Value)> =
            now.iter().filter(|(key, value)| before.get(*key) != Some(*value)).collect();
        let gone: Vec<(&String, &Value)> = before.iter().filter(|(key, _)| !now.contains_key(*key)).collect();
        if self.json {
            for (key, value) in &changed {
                output::line(json!({"type": "put", "object": self.object(key, value)}).to_string());
            }
            for (key, value) in &gone {
                output::line(json!({"type": "delete", "object": self.object(key, value)}).to_string());
            }
        } else if self.head || !changed.is_empty() || !gone.is_empty() {
            if output::is_terminal() && self.kind != Kind::Events {
                // Clears the screen and goes to its upper left corner.
                output::line(format!("\x1b[2J\x1b[H{}", tables::text(self.kind, now.iter(), true)));
            } else {
                if self.head || !changed.is_empty() {
                    output::line(tables::text(self.kind, changed.into_iter(), self.head));
                }
                for (key, _) in &gone {
                    output::line(format!("{key} is gone"));
                }
            }
        }
        self.head = false;
    }

    fn object(&self, key: &str, value: &Value) -> Value {
        match self.kind {
            Kind::Targets => json!({ key: value }),
            _ => value.clone(),
        }
    }
}
