//! `diff`: what an apply would change, and what the agents would do then.

use schemadock_schema::InstanceName;
use serde_json::json;

use super::context::OutputArg;
use super::target_plan::{self, Wish};
use super::{Context, Failure, apply, files, output, steps, targets};

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Files with target states; `-` is stdin.
    #[arg(short = 'f', long = "file", required = true, num_args = 1.., value_name = "FILE")]
    pub files: Vec<String>,
    /// Exit with 1 when they differ.
    #[arg(long)]
    pub exit_code: bool,
    /// Also the instances that the files leave out, of the clusters that they name.
    #[arg(long)]
    pub prune: bool,
    /// For people or for scripts.
    #[command(flatten)]
    pub output: OutputArg,
}

/// Shows the difference.
///
/// # Errors
/// As `apply`; with `--exit-code` also when there is a difference (exit code 1).
pub async fn run(ctx: &Context, args: Args) -> Result<(), Failure> {
    let given = files::read(&args.files)?;
    let seen = apply::look(ctx, &given).await?;
    let wish = Wish { given, prune: args.prune, ..Wish::default() };
    let planned = target_plan::plan(&ctx.keys, &seen, &wish)?;
    targets::say(&planned);
    for held in &planned.locked {
        anstream::eprintln!("warning: apply would be refused: {held}");
    }
    let steps: Vec<(&InstanceName, Vec<String>)> =
        planned.all().map(|(cluster, change)| (&change.name, steps::steps(&seen, cluster, change))).collect();
    if args.output.json() {
        let mut changes = targets::json(&planned.changes);
        for (change, (_, steps)) in changes.as_array_mut().into_iter().flatten().zip(&steps) {
            change["steps"] = json!(steps);
        }
        let (notes, warnings) = (&planned.notes, &planned.warnings);
        output::line(json!({"changes": changes, "notes": notes, "warnings": warnings}).to_string());
    } else if planned.is_empty() {
        output::line("no difference");
    } else {
        output::line(format!("{}\n\n{}", targets::text(&planned.changes), text(&steps)));
    }
    if args.exit_code && !planned.is_empty() { Err(Failure::Told(1)) } else { Ok(()) }
}

fn text(steps: &[(&InstanceName, Vec<String>)]) -> String {
    let mut lines = vec!["the agents would:".to_owned()];
    for (name, steps) in steps {
        lines.push(format!("  {name}"));
        match steps.is_empty() {
            true => lines.push("      do nothing".to_owned()),
            false => lines.extend(steps.iter().zip(1..).map(|(step, n)| format!("    {n}. {step}"))),
        }
    }
    lines.join("\n")
}
