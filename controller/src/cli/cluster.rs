//! Wishes for a whole cluster: `cluster set`, `pause`, `resume`.

use schemadock_schema::policy::{ClusterPolicy, WishedDurability};
use schemadock_schema::proposal::{Guard, Proposal, Write};
use schemadock_schema::refusal::Refusal;
use schemadock_schema::strict::{Setting, read_setting};
use schemadock_schema::target::{Target, VariableValue};
use schemadock_schema::variables::{lossless_value, normalise};
use schemadock_schema::{ClusterName, InstanceName};
use schemadock_store::Committed;
use serde_json::{Value, json};

use super::context::OutputArg;
use super::seen::{self, Seen};
use super::{Context, Failure, output, targets};

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What can be done to a cluster.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Set wishes: KEY=VALUE, or KEY= to take one back (`mysql.max_connections=500`).
    Set {
        /// The cluster.
        cluster: String,
        /// What to set.
        #[arg(required = true, value_name = "KEY=VALUE")]
        settings: Vec<String>,
        /// How refusals are written.
        #[command(flatten)]
        output: OutputArg,
    },
    /// Leave the cluster alone: nothing is started, mended, seeded, restarted, re-pointed or opened.
    Pause {
        /// The cluster.
        cluster: String,
        /// How refusals are written.
        #[command(flatten)]
        output: OutputArg,
    },
    /// The end of a pause.
    Resume {
        /// The cluster.
        cluster: String,
        /// How refusals are written.
        #[command(flatten)]
        output: OutputArg,
    },
}

impl Args {
    /// Whether scripts read the output.
    pub(super) fn json(&self) -> bool {
        match &self.command {
            Command::Set { output, .. } | Command::Pause { output, .. } | Command::Resume { output, .. } => {
                output.json()
            }
        }
    }
}

/// Changes the policy by compare-and-swap.
///
/// # Errors
/// For settings that cannot be (exit code 2), and an unknown cluster (exit code 1).
pub async fn run(ctx: &Context, args: Args) -> Result<(), Failure> {
    match args.command {
        Command::Set { cluster, settings, .. } => {
            let mut read = Vec::new();
            let mut refusals = Vec::new();
            for text in &settings {
                match read_setting(text) {
                    Ok(setting) => read.push(setting),
                    Err(refusal) => refusals.push(refusal),
                }
            }
            if !refusals.is_empty() {
                return Err(Failure::Files(refusals));
            }
            let changed = change(ctx, &cluster, |policy| {
                read.iter().cloned().for_each(|setting| setting.apply_to(policy));
            });
            let changed = changed.await?;
            for hidden in hidden(&changed.seen, &changed.cluster, &read) {
                anstream::eprintln!("{hidden}");
            }
            said(&changed, "set")
        }
        Command::Pause { cluster, .. } => {
            said(&change(ctx, &cluster, |policy| policy.paused = true).await?, "paused")
        }
        Command::Resume { cluster, .. } => {
            said(&change(ctx, &cluster, |policy| policy.paused = false).await?, "resumed")
        }
    }
}

/// How often a lost race is run again.
const CONFLICTS: u32 = 8;

struct Changed {
    cluster: ClusterName,
    seen: Seen,
    written: bool,
}

fn said(changed: &Changed, word: &str) -> Result<(), Failure> {
    output::line(match changed.written {
        true => format!("{}: {word}", changed.cluster),
        false => format!("{}: nothing to change", changed.cluster),
    });
    Ok(())
}

async fn change(ctx: &Context, name: &str, edit: impl Fn(&mut ClusterPolicy)) -> Result<Changed, Failure> {
    let cluster: ClusterName = name.parse().map_err(|why| Failure::usage(format!("{why}")))?;
    let store = ctx.store().await?;
    let key = ctx.keys.cluster(&cluster);
    for _ in 0..=CONFLICTS {
        let seen = seen::look(ctx, Vec::new()).await?;
        if !seen.clusters().contains(&cluster) && !seen.policies.contains_key(&cluster) {
            return Err(targets::unknown("cluster", name, seen.clusters().iter().map(ClusterName::as_str)));
        }
        let Some((before, after)) = edited(&seen, &key, &cluster, &edit)? else {
            return Ok(Changed { cluster, seen, written: false });
        };
        let refusals = against_durability(&seen, &cluster, &before, &after);
        if !refusals.is_empty() {
            return Err(Failure::Refused(refusals));
        }
        super::fleet::ensure(ctx).await?;
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
            return Ok(Changed { cluster, seen, written: true });
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
pub fn merged(raw: Option<&Value>, before: &ClusterPolicy, after: &ClusterPolicy) -> Value {
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
pub fn hidden(seen: &Seen, cluster: &ClusterName, settings: &[Setting]) -> Vec<String> {
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
