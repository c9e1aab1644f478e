//! `topology`: who follows whom, and what would stop writes.

use schemadock_schema::InstanceName;
use schemadock_schema::leadership::Durability;
use schemadock_schema::operation::Operation;
use schemadock_store::Selector;
use serde_json::Value;

use super::context::OutputArg;
use super::output::{self, Tone};
use super::view::clusters::{Writes, clusters};
use super::view::tree::{self, Node};
use super::view::{ClusterRow, InstanceRow};
use super::{Context, Failure, seen, targets};

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only this cluster.
    pub cluster: Option<String>,
    /// For people or for scripts.
    #[command(flatten)]
    pub output: OutputArg,
}

/// Shows the trees.
///
/// # Errors
/// For an unknown cluster (exit code 1).
pub async fn run(ctx: &Context, args: Args) -> Result<(), Failure> {
    let seen = seen::look(ctx, vec![Selector::Prefix(ctx.keys.operations())]).await?;
    let all = clusters(&seen);
    let shown: Vec<&ClusterRow<'_>> = all
        .iter()
        .filter(|row| args.cluster.as_deref().is_none_or(|name| name == row.name.as_str()))
        .collect();
    if let (Some(name), true) = (&args.cluster, shown.is_empty()) {
        return Err(targets::unknown("cluster", name, all.iter().map(|row| row.name.as_str())));
    }
    if args.output.json() {
        let rows: Vec<Value> = shown.iter().map(|row| tree::json(row)).collect();
        output::line(Value::Array(rows).to_string());
    } else if shown.is_empty() {
        anstream::eprintln!("no clusters yet");
    } else {
        let texts: Vec<String> = shown.iter().map(|row| text(row)).collect();
        output::line(texts.join("\n\n"));
    }
    Ok(())
}

/// One cluster as people read it.
pub fn text(cluster: &ClusterRow<'_>) -> String {
    let mut head = format!("{}: {}", cluster.name, writes(&cluster.writes(), cluster));
    if let Some(record) = cluster.record {
        let durability = match record.durability {
            Durability::Lossless => "lossless",
            Durability::Alone => "alone",
            Durability::Async => "async",
        };
        head.push_str(&format!(" (term {}, {durability})", record.term));
    }
    let mut lines = vec![head];
    if cluster.policy.paused {
        lines.push("paused: nothing is started, mended, seeded, restarted, re-pointed or opened".to_owned());
    }
    if let Some(operation) = cluster.operation {
        lines.push(format!("held by operation {operation}{}", cluster.held.map(held).unwrap_or_default()));
    }
    lines.extend(cluster.warnings.iter().map(|warning| format!("warning: {warning}")));
    let mut rows = Vec::new();
    for root in tree::trees(cluster) {
        branch(&root, "", "", cluster.master(), &mut rows);
    }
    lines.push(output::table(&[], rows));
    lines.join("\n")
}

/// What an operation does, and waits for.
fn held(operation: &Operation) -> String {
    let mut text = format!(" ({}, {}", operation.request.kind(), operation.state);
    text.extend(operation.step.as_ref().map(|step| format!(": {step}")));
    text.extend(operation.waiting_on.as_ref().map(|on| format!("; waits: {}", on.message)));
    text + ")"
}

fn branch(
    node: &Node<'_>,
    own: &str,
    below: &str,
    master: Option<&InstanceName>,
    rows: &mut Vec<Vec<(String, Tone)>>,
) {
    let row = node.row;
    let at = match (&row.address, row.port()) {
        (Some(address), Some(port)) => format!("{address}:{port}"),
        (None, Some(port)) => format!("{}:{port}", row.host),
        _ => row.host.to_string(),
    };
    let role = row.role().map_or_else(|| "?".to_owned(), |role| role.to_string());
    rows.push(vec![
        (format!("{own}{}", row.name), Tone::Plain),
        (at, Tone::Plain),
        (role, Tone::Plain),
        (row.phase().to_string(), tone(row)),
        (remarks(row, master), Tone::Plain),
    ]);
    let last = node.replicas.len().saturating_sub(1);
    for (at, replica) in node.replicas.iter().enumerate() {
        let (own, further) = if at == last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        branch(replica, &format!("{below}{own}"), &format!("{below}{further}"), master, rows);
    }
}

/// How an instance's phase is meant.
pub fn tone(row: &InstanceRow<'_>) -> Tone {
    use schemadock_schema::status::Phase;
    match row.phase() {
        Phase::Failed => Tone::Bad,
        _ if row.converged => Tone::Good,
        _ => Tone::Attention,
    }
}

fn remarks(row: &InstanceRow<'_>, master: Option<&InstanceName>) -> String {
    let mut words = Vec::new();
    if row.writable() == Some(true) {
        words.push("writable".to_owned());
    } else if master == Some(row.name) {
        words.push("leads, not writable".to_owned());
    }
    if let Some(lag) = row.lag_seconds() {
        words.push(format!("{lag:.0} s behind"));
    }
    if row.target.is_some_and(|target| target.maintenance) {
        words.push("in maintenance".to_owned());
    }
    let missing = row.missing();
    if !missing.is_empty() {
        words.push(missing);
    }
    words.join("; ")
}

/// Whether writes go on, and what would stop them, in one sentence.
fn writes(writes: &Writes, cluster: &ClusterRow<'_>) -> String {
    let on = |value: &Value| {
        let word = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        format!("{} {}", word("kind"), word("name")).trim_end().to_owned()
    };
    let waiting = writes.waiting_on.as_ref().map(on).unwrap_or_default();
    let names =
        |names: &[&InstanceName]| names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(" or ");
    match writes.state {
        "open" => {
            let writable = |name: &&InstanceName| {
                cluster.members.iter().any(|member| member.name == *name && member.writable() == Some(true))
            };
            let (masters, voters): (Vec<_>, Vec<_>) = writes.would_wait_without.iter().partition(writable);
            let mut said = vec!["writes are open".to_owned()];
            if !masters.is_empty() {
                said.push(format!("they stop when {} is lost", names(&masters)));
            }
            if !voters.is_empty() {
                said.push(format!("they wait when {} is lost", names(&voters)));
            }
            said.join("; ")
        }
        "waiting" => format!("writes wait for {waiting}"),
        _ => format!("writes are closed, waiting for {waiting}"),
    }
}
