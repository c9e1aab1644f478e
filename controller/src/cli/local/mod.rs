//! A whole fleet on one machine: `local up`, `down`, `status`, `isolate`, `heal`.
//!
//! | module | holds |
//! |---|---|
//! | [`directory`] | where it lives and what it remembers |
//! | [`process`] | background processes that outlive the command |
//! | [`store`], [`controllers`], [`hosts`], [`containers`] | its etcd, its controllers, its agents, its servers |
//! | [`network`], [`namespaces`] | bridge, links and network namespaces of hosts with addresses of their own |
//! | [`up`], [`goodbye`], [`down`], [`status`], [`isolation`] | the commands |

pub(crate) mod containers;
mod controllers;
mod directory;
mod down;
mod goodbye;
mod hosts;
mod isolation;
mod namespaces;
mod network;
mod process;
mod status;
mod store;
mod up;

use std::path::PathBuf;

use crate::cli::{Context, Failure};

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What can be done with a local fleet.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Start a fleet on this machine, or mend what is missing of one.
    Up(up::Args),
    /// Stop it: nothing is left running.
    Down(down::Args),
    /// Show what runs.
    Status(status::Args),
    /// Cut a host off, from everybody or from some (a fleet with --netns; root).
    Isolate(isolation::IsolateArgs),
    /// Connect a host again that was cut off (root).
    Heal(isolation::HealArgs),
}

/// Where the fleet lives.
#[derive(Debug, clap::Args)]
pub struct DirArg {
    /// Where it lives; `~/.local/state/schemadock/local` (below XDG_STATE_HOME, if set) by default.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

impl DirArg {
    fn path(&self) -> Result<PathBuf, Failure> {
        let given = self.dir.clone().map_or_else(directory::default_path, Ok)?;
        std::path::absolute(&given).map_err(|why| directory::trouble("find", &given, &why))
    }

    /// ` --dir DIR`, where it was given: what to add to further commands.
    fn flag(&self) -> String {
        self.dir.as_ref().map(|dir| format!(" --dir {}", dir.display())).unwrap_or_default()
    }
}

impl Args {
    /// Whether scripts read the output.
    pub(crate) fn json(&self) -> bool {
        matches!(&self.command, Command::Status(args) if args.output.json())
    }
}

/// Runs the command.
///
/// # Errors
/// When a part cannot be started or stopped; the message says which and where its log is.
pub async fn run(ctx: &Context, args: Args) -> Result<(), Failure> {
    match args.command {
        Command::Up(args) => up::run(ctx, args).await,
        Command::Down(args) => down::run(args).await,
        Command::Status(args) => status::run(&args).await,
        Command::Isolate(args) => isolation::isolate(&args),
        Command::Heal(args) => isolation::heal(&args),
    }
}
