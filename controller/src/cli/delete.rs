//! `delete`: takes an instance away; its data are kept.

use std::collections::BTreeSet;

use schemadock_schema::InstanceName;
use serde_json::json;

use super::context::OutputArg;
use super::target_plan::{self, Wish};
use super::{Context, Failure, output, seen, targets};

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The instance.
    pub instance: String,
    /// Do not ask.
    #[arg(short, long)]
    pub yes: bool,
    /// How refusals are written.
    #[command(flatten)]
    pub output: OutputArg,
}

/// Deletes the target.
///
/// # Errors
/// For an unknown name, and for a master while other members exist (exit code 1).
pub async fn run(ctx: &Context, args: Args) -> Result<(), Failure> {
    let name = targets::instance_name(&args.instance)?;
    let seen = seen::look(ctx, Vec::new()).await?;
    if !seen.targets.contains_key(&name) {
        return Err(targets::unknown("target", name.as_str(), seen.targets.keys().map(InstanceName::as_str)));
    }
    let wish = Wish { delete: BTreeSet::from([name.clone()]), ..Wish::default() };
    let planned = target_plan::plan(&ctx.keys, &seen, &wish)?;
    targets::say(&planned);
    if !planned.locked.is_empty() {
        return Err(Failure::Refused(planned.locked));
    }
    if !args.output.json() {
        output::line(targets::text(&planned.changes));
    }
    ctx.confirm(&format!("Take {name} away? Its data are kept."), args.yes)?;
    let written = targets::write(ctx, &wish, &planned).await?;
    match args.output.json() {
        true => output::line(
            json!({"changes": targets::json(&written), "written": !written.is_empty()}).to_string(),
        ),
        false if written.is_empty() => output::line("somebody else has just deleted it"),
        false => output::line(format!("written: {}", targets::count(written.values().flatten()))),
    }
    Ok(())
}
