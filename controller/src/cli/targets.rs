//! Changing targets: what the user is shown, and the commits.

use std::collections::BTreeMap;

use schemadock_schema::target::Target;
use schemadock_schema::{ClusterName, InstanceName};
use schemadock_store::{Committed, StoreError};
use serde_json::{Value, json};

use super::target_plan::{self, Change, TargetPlan, Wish, fields};
use super::{Context, Failure, seen};

/// How often a lost guard is planned again.
const CONFLICTS: u32 = 8;

/// Commits cluster by cluster, each planned anew on what etcd holds by then. Returns what was written.
///
/// # Errors
/// When what was confirmed is no longer what would be written, when an operation holds a cluster, when others change
/// the same targets all the time, or etcd fails.
pub async fn write(
    ctx: &Context,
    wish: &Wish,
    confirmed: &TargetPlan,
) -> Result<BTreeMap<ClusterName, Vec<Change>>, Failure> {
    super::fleet::ensure(ctx).await?;
    let store = ctx.store().await?;
    let mut written: BTreeMap<ClusterName, Vec<Change>> = BTreeMap::new();
    let mut conflicts = 0;
    loop {
        let seen = seen::look(ctx, Vec::new()).await.map_err(|why| partly(why, &written))?;
        let planned = target_plan::plan(&ctx.keys, &seen, wish).map_err(|why| partly(why, &written))?;
        let Some((cluster, proposal)) = planned.proposals.iter().next() else { return Ok(written) };
        if !planned.locked.is_empty() {
            return Err(partly(Failure::Refused(planned.locked), &written));
        }
        let changes = &planned.changes[cluster];
        if !was_confirmed(confirmed.changes.get(cluster), changes) {
            let text =
                format!("somebody else has just changed {cluster}: other changes than shown would be needed");
            return Err(partly(Failure::failed(text).hint("Look again, and repeat the command."), &written));
        }
        match store.commit(proposal).await {
            Ok(Committed::Written { .. }) => {
                written.entry(cluster.clone()).or_default().extend(changes.iter().cloned());
            }
            Ok(Committed::Conflict) => {
                conflicts += 1;
                if conflicts > CONFLICTS {
                    let text =
                        format!("others change {cluster} all the time: {CONFLICTS} attempts were overtaken");
                    return Err(partly(Failure::failed(text).hint("Repeat the command."), &written));
                }
            }
            Err(why) => return Err(partly(why.into(), &written)),
        }
    }
}

/// Changes that were shown may have been made by somebody else meanwhile; others may not come up.
fn was_confirmed(confirmed: Option<&Vec<Change>>, changes: &[Change]) -> bool {
    let confirmed = confirmed.map(Vec::as_slice).unwrap_or_default();
    changes
        .iter()
        .all(|change| confirmed.iter().any(|one| one.name == change.name && one.after == change.after))
}

/// A failure after some clusters were written says which.
fn partly(why: Failure, written: &BTreeMap<ClusterName, Vec<Change>>) -> Failure {
    let names: Vec<&str> = written.keys().map(ClusterName::as_str).collect();
    if !names.is_empty() {
        anstream::eprintln!("already written: {}", names.join(", "));
    }
    if let Failure::Store(StoreError::Deadline { .. } | StoreError::Unreachable { .. }) = why {
        anstream::eprintln!(
            "the last write may or may not have reached etcd; the command can be repeated safely"
        );
    }
    why
}

/// The changes as people read them.
pub fn text(changes: &BTreeMap<ClusterName, Vec<Change>>) -> String {
    let mut lines = Vec::new();
    for (cluster, changes) in changes {
        lines.push(cluster.to_string());
        let width = changes.iter().map(|change| change.name.as_str().len()).max().unwrap_or_default();
        for change in changes {
            let name = format!("{:width$}", change.name);
            match (&change.before, &change.after) {
                (_, None) => lines.push(format!("  - {name}  deleted; its data are kept on {}", change.host)),
                (None, Some(after)) => {
                    let new = if change.mod_revision.is_some() {
                        "  (what stands there cannot be read)"
                    } else {
                        ""
                    };
                    lines.push(format!("  + {name}  {}{new}", summary(after)));
                }
                (Some(before), Some(after)) => {
                    lines.push(format!("  ~ {}", change.name));
                    lines.extend(field_lines(before, after).into_iter().map(|line| format!("      {line}")));
                }
            }
        }
    }
    lines.join("\n")
}

/// The fields that differ, one a line.
pub fn field_lines(before: &Target, after: &Target) -> Vec<String> {
    let plain = |value: &Value| match value {
        Value::Null => "(none)".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let differing = fields(Some(before), Some(after));
    differing
        .iter()
        .map(|(path, before, after)| format!("{path}: {} → {}", plain(before), plain(after)))
        .collect()
}

/// A target in one line.
fn summary(target: &Target) -> String {
    let mut words = vec![target.role.to_string()];
    if let Some((host, port)) = target.source() {
        words.push(format!("of {host}:{port}"));
    }
    let host = target.host.as_ref().map(ToString::to_string).unwrap_or_default();
    words.push(format!("at {host}:{}", target.port));
    words.push(format!("size {}", target.size));
    for (set, word) in [(target.disabled, "disabled"), (target.maintenance, "in maintenance")] {
        if set {
            words.push(word.to_owned());
        }
    }
    if let Some(image) = &target.image {
        words.push(format!("image {image}"));
    }
    words.extend(target.mysql.iter().map(|(name, value)| format!("{name}={value}")));
    words.join(", ").replacen(", of ", " of ", 1).replacen(", at ", " at ", 1)
}

/// The changes as scripts read them.
pub fn json(changes: &BTreeMap<ClusterName, Vec<Change>>) -> Value {
    let one = |cluster: &ClusterName, change: &Change| {
        let kind = match (&change.mod_revision, &change.after) {
            (_, None) => "delete",
            (None, Some(_)) => "add",
            (Some(_), Some(_)) => "change",
        };
        let fields: Vec<Value> = fields(change.before.as_ref(), change.after.as_ref())
            .into_iter()
            .map(|(path, before, after)| json!({"path": path, "before": before, "after": after}))
            .collect();
        json!({"cluster": cluster, "instance": change.name, "host": change.host, "change": kind, "fields": fields})
    };
    let all =
        changes.iter().flat_map(|(cluster, changes)| changes.iter().map(move |change| one(cluster, change)));
    Value::Array(all.collect())
}

/// `2 added, 1 changed`.
pub fn count<'a>(changes: impl Iterator<Item = &'a Change>) -> String {
    let (mut added, mut changed, mut deleted) = (0, 0, 0);
    for change in changes {
        match (&change.mod_revision, &change.after) {
            (_, None) => deleted += 1,
            (None, Some(_)) => added += 1,
            (Some(_), Some(_)) => changed += 1,
        }
    }
    let words = [(added, "added"), (changed, "changed"), (deleted, "deleted")];
    let words: Vec<String> =
        words.iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{n} {word}")).collect();
    words.join(", ")
}

/// Notes and warnings, on stderr.
pub fn say(planned: &TargetPlan) {
    for warning in &planned.warnings {
        anstream::eprintln!("warning: {warning}");
    }
    for note in &planned.notes {
        anstream::eprintln!("{note}");
    }
}

/// The failure for a name that is not in etcd, with the nearest that is.
pub fn unknown<'a>(what: &str, name: &str, known: impl IntoIterator<Item = &'a str>) -> Failure {
    let failure = Failure::failed(format!("there is no {what} {name:?}"));
    match schemadock_schema::strict::nearest(name, known) {
        Some(near) => failure.hint(near),
        None => failure,
    }
}

/// An instance's name as an argument.
///
/// # Errors
/// When it is no name (exit code 2).
pub fn instance_name(text: &str) -> Result<InstanceName, Failure> {
    text.parse().map_err(|why| Failure::usage(format!("{why}")))
}
