//! `apply`: writes target states.

mod moving;

use std::collections::BTreeMap;

use schemadock_schema::ClusterName;
use serde_json::{Value, json};

use super::context::OutputArg;
use super::seen::{self, Seen};
use super::target_plan::{self, Change, Given, TargetPlan, Wish};
use super::view::plain;
use super::{Context, Failure, files, operation, output, targets};

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Files with target states; `-` is stdin.
    #[arg(short = 'f', long = "file", required = true, num_args = 1.., value_name = "FILE")]
    pub files: Vec<String>,
    /// Say what would be written, and write nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask.
    #[arg(short, long)]
    pub yes: bool,
    /// Delete the instances that the files leave out, of the clusters that they name.
    #[arg(long)]
    pub prune: bool,
    /// Where the files name another master than leadership does: make it a switchover.
    #[arg(long)]
    pub move_master: bool,
    /// How refusals are written.
    #[command(flatten)]
    pub output: OutputArg,
}

/// Writes what the files say.
///
/// # Errors
/// Everything that is wrong with the files (exit code 2), or that etcd holds against them (exit code 1).
pub async fn run(ctx: &Context, args: Args) -> Result<(), Failure> {
    let given = files::read(&args.files)?;
    let seen = look(ctx, &given).await?;
    let wish = Wish { given, prune: args.prune, move_master: args.move_master, ..Wish::default() };
    let planned = target_plan::plan(&ctx.keys, &seen, &wish)?;
    targets::say(&planned);
    let json = args.output.json();
    if planned.is_empty() && planned.moves.is_empty() {
        output::line(match json {
            true => report(&planned, &planned.changes, false).to_string(),
            false => format!("nothing to change: {} as the files say", counted(wish.given.len())),
        });
        return Ok(());
    }
    if !json && !planned.is_empty() {
        output::line(targets::text(&planned.changes));
    }
    if !planned.locked.is_empty() {
        return Err(Failure::Refused(planned.locked));
    }
    let steps = moving::judge(ctx, &planned.moves).await?;
    if args.dry_run {
        let mut told = report(&planned, &planned.changes, false);
        if !steps.is_empty() {
            told["moves"] = json!(steps);
        }
        match json {
            true => output::line(told.to_string()),
            false => {
                steps.values().flatten().for_each(output::line);
                output::line("a dry run: nothing was written");
            }
        }
        return Ok(());
    }
    ctx.confirm(&question(&planned), args.yes)?;
    let written = targets::write(ctx, &wish, &planned).await?;
    if !json && !planned.is_empty() {
        output::line(match written.is_empty() {
            true => "somebody else has just written the same".to_owned(),
            false => format!("written: {}", targets::count(written.values().flatten())),
        });
    }
    let ended = moving::carry_out(ctx, &wish, &planned, args.output).await;
    if json {
        let mut told = report(&planned, &written, !written.is_empty());
        if let Ok(operations) = &ended
            && !planned.moves.is_empty()
        {
            told["operations"] = operations.iter().map(plain::operation).collect();
        }
        output::line(told.to_string());
    }
    for operation in ended? {
        let sentence = operation::words::outcome(&operation)?;
        if !json {
            output::line(sentence);
        }
    }
    Ok(())
}

fn report(planned: &TargetPlan, changes: &BTreeMap<ClusterName, Vec<Change>>, written: bool) -> Value {
    json!({
        "changes": targets::json(changes), "notes": planned.notes, "warnings": planned.warnings, "written": written,
    })
}

fn question(planned: &TargetPlan) -> String {
    let moves = planned.moves.iter().map(|(cluster, name)| format!("{name} is to lead {cluster}"));
    let mut what: Vec<String> = moves.collect();
    if !planned.is_empty() {
        what.insert(0, targets::count(planned.all().map(|(_, change)| change)));
    }
    format!("Write this ({})?", what.join("; "))
}

/// What etcd holds; where it cannot be reached, what the files alone show to be wrong comes first.
pub(super) async fn look(ctx: &Context, given: &[Given]) -> Result<Seen, Failure> {
    match seen::look(ctx, Vec::new()).await {
        Err(Failure::Store(why)) => {
            let refusals = target_plan::judge_files(given);
            Err(if refusals.is_empty() { Failure::Store(why) } else { Failure::Files(refusals) })
        }
        looked => looked,
    }
}

fn counted(instances: usize) -> String {
    match instances {
        1 => "1 instance is".to_owned(),
        n => format!("{n} instances are"),
    }
}
