//! `completions`: a completion script for a shell.

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Cli, Context, Failure};

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell.
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Runs the command.
///
/// # Errors
/// Never; the shape is that of all commands.
pub async fn run(_ctx: &Context, args: Args) -> Result<(), Failure> {
    clap_complete::generate(args.shell, &mut Cli::command(), "schemadock", &mut std::io::stdout());
    Ok(())
}
