//! Whole clusters: operations that a controller carries out, and wishes (`set`, `pause`, `resume`).

mod arguments;
mod set;

use std::time::Duration;

use schemadock_schema::operation::Request;

use super::context::OutputArg;
use super::operation::ask::{How, ask};
use super::operation::judge::Wanted;
use super::{Context, Failure, targets};

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
    /// Make a new cluster: a master and its replicas, placed on hosts with room.
    Create(arguments::Create),
    /// Add or take away replicas.
    Scale(arguments::Scale),
    /// Make another member the master; writes pause for a moment.
    Switchover {
        /// The cluster.
        cluster: String,
        /// The member that is to lead; the best one by default.
        #[arg(long, value_name = "INSTANCE")]
        to: Option<String>,
        /// How it is asked for.
        #[command(flatten)]
        how: How,
    },
    /// Bring all members to another image, one by one, the master last.
    Upgrade {
        /// The cluster.
        cluster: String,
        /// The image.
        #[arg(long)]
        image: String,
        /// How long each member is watched before the next one, for example `30s`.
        #[arg(long, default_value = "30s", value_name = "TIME", value_parser = super::context::parse_time)]
        soak: Duration,
        /// How it is asked for.
        #[command(flatten)]
        how: How,
    },
    /// Give all members another size: in place where their hosts have room, else by moving them.
    Resize {
        /// The cluster.
        cluster: String,
        /// all, half, quarter, eighth, small, or an amount of memory such as 4GiB.
        #[arg(long)]
        size: String,
        /// How it is asked for.
        #[command(flatten)]
        how: How,
    },
    /// Move a member to another host.
    Move {
        /// The member.
        instance: String,
        /// The host.
        #[arg(long, value_name = "HOST")]
        to: String,
        /// How it is asked for.
        #[command(flatten)]
        how: How,
    },
    /// Stop all members; their data stay.
    Stop(WithYes),
    /// Start all members again.
    Start {
        /// The cluster.
        cluster: String,
        /// How it is asked for.
        #[command(flatten)]
        how: How,
    },
    /// Take all members away; their data are kept.
    Delete(WithYes),
    /// Set wishes: KEY=VALUE, or KEY= to take one back (`mysql.max_connections=500`).
    Set {
        /// The cluster.
        cluster: String,
        /// What to set.
        #[arg(required = true, value_name = "KEY=VALUE")]
        settings: Vec<String>,
        /// How an operation is asked for; `mysql.…` becomes one where members run and a controller is in office.
        #[command(flatten)]
        how: How,
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

/// A cluster whose servers go: asked about first.
#[derive(Debug, clap::Args)]
pub struct WithYes {
    /// The cluster.
    pub cluster: String,
    /// Do not ask.
    #[arg(short, long)]
    pub yes: bool,
    /// How it is asked for.
    #[command(flatten)]
    pub how: How,
}

impl Args {
    /// Whether scripts read the output.
    pub(super) fn json(&self) -> bool {
        match &self.command {
            Command::Create(args) => args.how.output.json(),
            Command::Scale(args) => args.how.output.json(),
            Command::Stop(args) | Command::Delete(args) => args.how.output.json(),
            Command::Switchover { how, .. }
            | Command::Upgrade { how, .. }
            | Command::Resize { how, .. }
            | Command::Move { how, .. }
            | Command::Start { how, .. }
            | Command::Set { how, .. } => how.output.json(),
            Command::Pause { output, .. } | Command::Resume { output, .. } => output.json(),
        }
    }
}

/// Asks for an operation, or changes the policy by compare-and-swap.
///
/// # Errors
/// For arguments that cannot be (exit code 2), for what etcd and the fleet hold against it, and for an operation that
/// does not end well (exit code 1).
pub async fn run(ctx: &Context, args: Args) -> Result<(), Failure> {
    match args.command {
        Command::Create(args) => {
            let request = Request::Create(args.read()?);
            of(ctx, &args.cluster, request, false, &args.how).await
        }
        Command::Scale(args) => of(ctx, &args.cluster, args.read()?, false, &args.how).await,
        Command::Switchover { cluster, to, how } => {
            let to = to.as_deref().map(targets::instance_name).transpose()?;
            of(ctx, &cluster, Request::Switchover { to }, false, &how).await
        }
        Command::Upgrade { cluster, image, soak, how } => {
            let soak = soak.as_secs_f64().ceil() as u64;
            let request = Request::Upgrade { image: arguments::image(&image)?, soak };
            of(ctx, &cluster, request, false, &how).await
        }
        Command::Resize { cluster, size, how } => {
            of(ctx, &cluster, Request::Resize { size: arguments::size(&size)? }, false, &how).await
        }
        Command::Move { instance, to, how } => {
            let (instance, to) = (targets::instance_name(&instance)?, arguments::host(&to)?);
            let request = Request::Move { instance, to };
            ask(ctx, &Wanted { request, cluster: None }, false, &how).await
        }
        Command::Stop(WithYes { cluster, yes, how }) => of(ctx, &cluster, Request::Stop, yes, &how).await,
        Command::Start { cluster, how } => of(ctx, &cluster, Request::Start, false, &how).await,
        Command::Delete(WithYes { cluster, yes, how }) => of(ctx, &cluster, Request::Delete, yes, &how).await,
        Command::Set { cluster, settings, how } => set::set(ctx, &cluster, &settings, &how).await,
        Command::Pause { cluster, output } => set::pause(ctx, &cluster, true, output).await,
        Command::Resume { cluster, output } => set::pause(ctx, &cluster, false, output).await,
    }
}

async fn of(ctx: &Context, cluster: &str, request: Request, yes: bool, how: &How) -> Result<(), Failure> {
    ask(ctx, &Wanted::of(arguments::cluster(cluster)?, request), yes, how).await
}
