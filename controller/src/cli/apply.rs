//! `apply`: writes target states.

use serde_json::json;

use super::context::OutputArg;
use super::seen::{self, Seen};
use super::target_plan::{self, Given, Wish};
use super::{Context, Failure, files, output, targets};

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
    let report = |changes: &_, written: bool| {
        let notes = (&planned.notes, &planned.warnings);
        json!({"changes": targets::json(changes), "notes": notes.0, "warnings": notes.1, "written": written})
    };
    if planned.is_empty() {
        match args.output.json() {
            true => output::line(report(&planned.changes, false).to_string()),
            false => {
                output::line(format!("nothing to change: {} as the files say", counted(wish.given.len())))
            }
        }
        return Ok(());
    }
    if !args.output.json() {
        output::line(targets::text(&planned.changes));
    }
    if !planned.locked.is_empty() {
        return Err(Failure::Refused(planned.locked));
    }
    if args.dry_run {
        match args.output.json() {
            true => output::line(report(&planned.changes, false).to_string()),
            false => output::line("a dry run: nothing was written"),
        }
        return Ok(());
    }
    ctx.confirm(
        &format!("Write this ({})?", targets::count(planned.all().map(|(_, change)| change))),
        args.yes,
    )?;
    let written = targets::write(ctx, &wish, &planned).await?;
    match args.output.json() {
        true => output::line(report(&written, true).to_string()),
        false if written.is_empty() => output::line("somebody else has just written the same"),
        false => output::line(format!("written: {}", targets::count(written.values().flatten()))),
    }
    Ok(())
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
