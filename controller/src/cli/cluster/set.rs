//! Wishes for a whole cluster: `cluster set`, `pause`, `resume`.

use std::collections::BTreeMap;

use schemadock_schema::operation::Request;
use schemadock_schema::policy::{ClusterPolicy, WishedDurability};
use schemadock_schema::proposal::{Guard, Proposal, Write};
use schemadock_schema::refusal::Refusal;
use schemadock_schema::status::Phase;
use schemadock_schema::strict::{Setting, read_setting};
use schemadock_schema::target::{Target, VariableValue};
use schemadock_schema::variables::{lossless_value, normalise};
use schemadock_schema::{ClusterName, InstanceName};
use schemadock_store::Committed;
use serde_json::{Value, json};

use crate::cli::context::OutputArg;
use crate::cli::operation::ask::{How, ask};
use crate::cli::operation::judge::Wanted;
use crate::cli::seen::{self, Seen};
use crate::cli::{Context, Failure, fleet, output, targets};

/// Sets wishes. Server variables become an operation where members run and somebody can carry it out; what agents obey
/// by themselves is written at once.
///
/// # Errors
/// For settings that cannot be (exit code 2), an unknown cluster and what speaks against them (exit code 1).
pub(super) async fn set(ctx: &Context, name: &str, settings: &[String], how: &How) -> Result<(), Failure> {
    let mut read = Vec::new();
    let mut refusals = Vec::new();
    for text in settings {
        match read_setting(text) {
            Ok(setting) => read.push(setting),
            Err(refusal) => refusals.push(refusal),
        }
    }
    if !refusals.is_empty() {
        return Err(Failure::Files(refusals));
    }
    let cluster = super::arguments::cluster(name)?;
    let variables: BTreeMap<String, Option<VariableValue>> = read
        .iter()
        .filter_map(|setting| match setting {
            Setting::Mysql(name, value) => Some((name.clone(), value.clone())),
            _ => None,
        })
        .collect();
    let seen = seen::look(ctx, Vec::new()).await?;
    let carried_out = seen.controller.is_some() || how.here;
    if variables.is_empty() || !running(&seen, &cluster) || !carried_out {
        return write(ctx, &cluster, &read, how).await;
    }
    let (rolling, at_once): (Vec<Setting>, Vec<Setting>) =
        read.into_iter().partition(|setting| matches!(setting, Setting::Mysql(..)));
    let wanted = Wanted::of(cluster.clone(), Request::Set { mysql: variables });
    // All that speaks against any of it, before any of it is written.
    let before = seen.policy(&cluster);
    let mut after = before.clone();
    at_once.iter().chain(&rolling).cloned().for_each(|setting| setting.apply_to(&mut after));
    let refusals = against_durability(&seen, &cluster, &before, &after);
    if !refusals.is_empty() {
        return Err(Failure::Refused(refusals));
    }
    if !at_once.is_empty() {
        refuse_early(ctx, seen, &wanted, &at_once, how.queue)?;
        write(ctx, &cluster, &at_once, how).await?;
    }
    ask(ctx, &wanted, false, how).await
}

/// Judges an operation by the wishes that are written before it.
fn refuse_early(
    ctx: &Context,
    mut seen: Seen,
    wanted: &Wanted,
    at_once: &[Setting],
    queue: bool,
) -> Result<(), Failure> {
    let clusters = wanted.clusters(&seen);
    for cluster in &clusters {
        let policy = seen
            .policies
            .entry(cluster.clone())
            .or_insert_with(|| seen::Stored { value: ClusterPolicy::default(), mod_revision: 0 });
        at_once.iter().cloned().for_each(|setting| setting.apply_to(&mut policy.value));
    }
    match wanted.refusals(&ctx.keys, &seen, &clusters, queue) {
        none if none.is_empty() => Ok(()),
        refusals => Err(Failure::Refused(refusals)),
    }
}

/// Whether servers of the cluster run that a change would reach one by one.
fn running(seen: &Seen, cluster: &ClusterName) -> bool {
    let of = |name: &InstanceName| {
        seen.one_target(name).is_some_and(|stored| stored.cluster.as_ref() == Some(cluster))
    };
    seen.statuses.values().any(|status| status.phase == Phase::Running && of(&status.name))
}

async fn write(ctx: &Context, cluster: &ClusterName, read: &[Setting], how: &How) -> Result<(), Failure> {
    let changed = change(ctx, cluster, how.dry_run, |policy| {
        read.iter().cloned().for_each(|setting| setting.apply_to(policy));
    });
    let changed = changed.await?;
    for hidden in hidden(&changed.seen, &changed.cluster, read) {
        anstream::eprintln!("{hidden}");
    }
    said(&changed, "set", how);
    Ok(())
}

/// Begins or ends a pause.
///
/// # Errors
/// For an unknown cluster (exit code 1).
pub(super) async fn pause(ctx: &Context, name: &str, paused: bool, output: OutputArg) -> Result<(), Failure> {
    let cluster = super::arguments::cluster(name)?;
    let changed = change(ctx, &cluster, false, |policy| policy.paused = paused).await?;
    said(&changed, if paused { "paused" } else { "resumed" }, &How { output, ..How::default() });
    Ok(())
}

/// How often a lost race is run again.
const CONFLICTS: u32 = 8;

struct Changed {
    cluster: ClusterName,
    seen: Seen,
    differs: bool,
}

fn said(changed: &Changed, word: &str, how: &How) {
    let cluster = &changed.cluster;
    let plan = format!("write the wishes for {cluster}; its agents obey them by themselves");
    match (changed.differs, how.dry_run) {
        (differs, dry_run) if how.output.json() => {
            let plan: Vec<String> = differs.then_some(plan).into_iter().collect();
            let written = differs && !dry_run;
            output::line(
                json!({"kind": word, "clusters": [cluster], "plan": plan, "written": written}).to_string(),
            );
        }
        (true, true) => {
            output::line(plan);
            anstream::eprintln!("a dry run: nothing was written");
        }
        (true, false) => output::line(format!("{cluster}: {word}")),
        (false, _) => output::line(format!("{cluster}: nothing to change")),
    }
}

async fn change(
    ctx: &Context,
    cluster: &ClusterName,
    dry_run: bool,
    edit: impl Fn(&mut ClusterPolicy),
) -> Result<Changed, Failure> {
    let cluster = cluster.clone();
    let store = ctx.store().await?;
    let key = ctx.keys.cluster(&cluster);
    for _ in 0..=CONFLICTS {
        let seen = seen::look(ctx, Vec::new()).await?;
        if !seen.clusters().contains(&cluster) && !seen.policies.contains_key(&cluster) {
            return Err(targets::unknown(
                "cluster",
                cluster.as_str(),
                seen.clusters().iter().map(ClusterName::as_str),
            ));
        }
        let Some((before, after)) = edited(&seen, &key, &cluster, &edit)? else {
            return Ok(Changed { cluster, seen, differs: false });
        };
        let refusals = against_durability(&seen, &cluster, &before, &after);
        if !refusals.is_empty() {
            return Err(Failure::Refused(refusals));
        }
        if dry_run {
            return Ok(Changed { cluster, seen, differs: true });
        }
        fleet::ensure(ctx).await?;
        let mut guards = vec![Guard::unchanged(key.clone(), seen.revisions.get(&key).copied())];
        // Durability was judged by the members' own variables.
        if before.wished_durability() != after.wished_durability() || before.mysql != after.mysql {
            guards.push(Guard::PrefixUnchanged { prefix: ctx.keys.targets(), revision: seen.revision });
        }
        let writes =
            vec![Write::document(key.clone(), &merged(seen.raw_policies.get(&cluster), &before, &after))];
        if let Committed::Written { .. } =
            store.commit(&Proposal { writes, guards, report: Vec::new() }).await?
        {
            return Ok(Changed { cluster, seen, differs: true });
        }
    }
    Err(Failure::failed(format!("others change {cluster} all the time: {CONFLICTS} attempts were overtaken"))
        .hint("Repeat the command."))
}

/// The policy before and after; none where nothing changes.
fn edited(
    seen: &Seen,
    key: &str,
    cluster: &ClusterName,
    edit: &impl Fn(&mut ClusterPolicy),
) -> Result<Option<(ClusterPolicy, ClusterPolicy)>, Failure> {
    if let Some(why) = seen.complaints.get(key) {
        let refusal = Refusal {
            file: Some(key.to_owned()),
            path: None,
            found: format!("a policy that cannot be read: {why}"),
            expected: "a policy".to_owned(),
            hint: Some("mend or remove the key by hand".to_owned()),
        };
        return Err(Failure::Refused(vec![refusal]));
    }
    let before = seen.policies.get(cluster).map(|stored| stored.value.clone()).unwrap_or_default();
    let mut after = before.clone();
    edit(&mut after);
    Ok((before != after).then_some((before, after)))
}

/// The document with the change in it; fields of newer programs stay.
fn merged(raw: Option<&Value>, before: &ClusterPolicy, after: &ClusterPolicy) -> Value {
    let fields = |policy: &ClusterPolicy| json!(policy).as_object().cloned().unwrap_or_default();
    let mut object = raw.and_then(Value::as_object).cloned().unwrap_or_default();
    for known in fields(before).keys() {
        object.shift_remove(known);
    }
    object.extend(fields(after));
    Value::Object(object)
}

/// What lossless needs cannot be set otherwise, here or by a member.
fn against_durability(
    seen: &Seen,
    cluster: &ClusterName,
    before: &ClusterPolicy,
    after: &ClusterPolicy,
) -> Vec<Refusal> {
    if after.wished_durability() == WishedDurability::Async || before == after {
        return Vec::new();
    }
    let refuse = |path: String, value: &VariableValue, needed: &str| Refusal {
        file: None,
        path: Some(path),
        found: value.to_string(),
        expected: format!("{needed}, which is set anyway"),
        hint: Some(format!("durability lossless needs it; or `cluster set {cluster} durability=async`")),
    };
    let mut refusals = Vec::new();
    for (name, value) in &after.mysql {
        refusals.extend(lossless_value(name).map(|needed| refuse(format!("mysql.{name}"), value, needed)));
    }
    if before.wished_durability() == WishedDurability::Async {
        for (instance, target) in members(seen, cluster) {
            for (name, value) in &target.mysql {
                let path = || format!("{instance}.data.mysql.{name}");
                refusals.extend(lossless_value(name).map(|needed| refuse(path(), value, needed)));
            }
        }
    }
    refusals
}

fn members<'a>(
    seen: &'a Seen,
    cluster: &'a ClusterName,
) -> impl Iterator<Item = (&'a InstanceName, &'a Target)> {
    let of = seen.all_targets().filter(|(_, stored)| stored.cluster.as_ref() == Some(cluster));
    of.filter_map(|(name, stored)| Some((name, stored.target.as_ref().ok()?)))
}

/// The instances whose own field hides a new value, one line for each setting.
fn hidden(seen: &Seen, cluster: &ClusterName, settings: &[Setting]) -> Vec<String> {
    let mut lines = Vec::new();
    for setting in settings {
        let (what, hides): (String, Vec<&str>) = match setting {
            Setting::Image(Some(image)) => (
                "image".to_owned(),
                members(seen, cluster)
                    .filter(|(_, target)| target.image.as_ref().is_some_and(|own| own != image))
                    .map(|(name, _)| name.as_str())
                    .collect(),
            ),
            Setting::Size(Some(size)) => (
                "size".to_owned(),
                members(seen, cluster)
                    .filter(|(_, target)| target.size != *size)
                    .map(|(name, _)| name.as_str())
                    .collect(),
            ),
            Setting::Mysql(variable, Some(value)) => (
                variable.clone(),
                members(seen, cluster)
                    .filter(|(_, target)| {
                        let same = |name: &str| normalise(name) == normalise(variable);
                        target.mysql.iter().any(|(name, own)| same(name) && own != value)
                    })
                    .map(|(name, _)| name.as_str())
                    .collect(),
            ),
            _ => continue,
        };
        if !hides.is_empty() {
            let verb = if hides.len() == 1 { "has" } else { "have" };
            lines.push(format!("{} {verb} {what} of their own, which wins", hides.join(", ")));
        }
    }
    lines
}
