//! The command line: what can be asked, and who does it.
//!
//! One module per command, each with `Args` and `run`. What a command writes is judged by pure functions
//! ([`target_plan`]) over what etcd holds ([`seen`]); the commands read, ask, and commit.

pub mod apply;
pub mod cluster;
pub mod completions;
pub mod context;
pub mod credentials;
pub mod delete;
pub mod diff;
pub mod doctor;
pub mod edit;
pub mod event;
pub mod failure;
pub mod files;
#[cfg(test)]
mod fixture;
pub mod fleet;
pub mod follow;
pub mod get;
pub mod host;
pub mod local;
pub mod logs;
pub mod mysql;
pub mod operation;
pub mod output;
pub mod progress;
pub mod request;
pub mod seen;
pub mod steps;
pub mod tables;
pub mod target_plan;
pub mod targets;
pub mod topology;
pub mod view;
pub mod wait;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use context::{Context, Output};
pub use failure::Failure;

/// Declarative fleets of MySQL on plain Docker hosts.
///
/// Works straight against etcd, also while no controller runs. Exit codes: 0 done; 1 refused, failed or not
/// converged in time; 2 wrong usage or wrong files; 3 etcd cannot be reached.
#[derive(Debug, Parser)]
#[command(name = "schemadock", version, propagate_version = true, max_term_width = 100)]
pub struct Cli {
    /// Where etcd is.
    #[arg(
        long,
        env = "SCHEMADOCK_ETCD",
        default_value = "http://127.0.0.1:2379",
        value_delimiter = ',',
        value_name = "URL",
        global = true
    )]
    pub etcd: Vec<String>,

    /// What all keys begin with.
    #[arg(
        long,
        env = "SCHEMADOCK_PREFIX",
        default_value = "/schemadock",
        value_name = "PREFIX",
        global = true
    )]
    pub prefix: String,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What can be asked.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write target states: adds and changes instances, all or nothing per cluster.
    Apply(apply::Args),
    /// Show what an apply would change.
    Diff(diff::Args),
    /// Edit a target state with $EDITOR.
    Edit(edit::Args),
    /// Show targets, instances, clusters, hosts, controllers, operations or events.
    Get(get::Args),
    /// Show who follows whom, and what would stop writes.
    Topology(topology::Args),
    /// Wait until instances are as they are to be.
    Wait(wait::Args),
    /// Take an instance away; its data are kept.
    Delete(delete::Args),
    /// Destroy the retired data of an instance.
    Purge(request::PurgeArgs),
    /// Set an instance's data aside and seed it anew from a live member.
    Reseed(request::ReseedArgs),
    /// Stop an instance safely and start it, with what was pending.
    Restart(request::RestartArgs),
    /// Run SQL as administrator.
    Mysql(mysql::Args),
    /// Show a server's error log.
    Logs(logs::Args),
    /// Show how an application connects.
    Credentials(credentials::Args),
    /// Make, change and move whole clusters.
    Cluster(cluster::Args),
    /// Hosts: cordon, drain, forget.
    Host(host::Args),
    /// Wait for or cancel an operation that was asked for.
    Operation(operation::Args),
    /// The fleet's identity.
    Fleet(fleet::Args),
    /// Look for what a person should mend.
    Doctor(doctor::Args),
    /// A whole fleet on this one machine.
    Local(local::Args),
    /// Write a completion script for a shell.
    Completions(completions::Args),
}

impl Command {
    /// Whether scripts read the output, and so the refusals.
    fn json(&self) -> bool {
        match self {
            Command::Apply(args) => args.output.json(),
            Command::Diff(args) => args.output.json(),
            Command::Edit(args) => args.output.json(),
            Command::Get(args) => args.output.json(),
            Command::Topology(args) => args.output.json(),
            Command::Wait(args) => args.output.json(),
            Command::Delete(args) => args.output.json(),
            Command::Purge(args) => args.ask.output.json(),
            Command::Reseed(args) => args.ask.output.json(),
            Command::Restart(args) => args.ask.output.json(),
            Command::Mysql(args) => args.json(),
            Command::Logs(args) => args.json(),
            Command::Credentials(args) => args.json(),
            Command::Cluster(args) => args.json(),
            Command::Host(args) => args.json(),
            Command::Operation(args) => args.json(),
            Command::Fleet(args) => args.json(),
            Command::Doctor(args) => args.json(),
            Command::Local(args) => args.json(),
            Command::Completions(_) => false,
        }
    }

    async fn run(self, ctx: &Context) -> Result<(), Failure> {
        match self {
            Command::Apply(args) => apply::run(ctx, args).await,
            Command::Diff(args) => diff::run(ctx, args).await,
            Command::Edit(args) => edit::run(ctx, args).await,
            Command::Get(args) => get::run(ctx, args).await,
            Command::Topology(args) => topology::run(ctx, args).await,
            Command::Wait(args) => wait::run(ctx, args).await,
            Command::Delete(args) => delete::run(ctx, args).await,
            Command::Purge(args) => request::purge(ctx, args).await,
            Command::Reseed(args) => request::reseed(ctx, args).await,
            Command::Restart(args) => request::restart(ctx, args).await,
            Command::Mysql(args) => mysql::run(ctx, args).await,
            Command::Logs(args) => logs::run(ctx, args).await,
            Command::Credentials(args) => credentials::run(ctx, args).await,
            Command::Cluster(args) => cluster::run(ctx, args).await,
            Command::Host(args) => host::run(ctx, args).await,
            Command::Operation(args) => operation::run(ctx, args).await,
            Command::Fleet(args) => fleet::run(ctx, args).await,
            Command::Doctor(args) => doctor::run(ctx, args).await,
            Command::Local(args) => local::run(ctx, args).await,
            Command::Completions(args) => completions::run(ctx, args).await,
        }
    }
}

/// Reads the arguments, does what they say, and reports how it ended.
pub fn main() -> ExitCode {
    // Usage errors end here, with exit code 2.
    let cli = Cli::parse();
    let json = cli.command.json();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(why) => {
            Failure::failed(format!("this process cannot start its threads: {why}")).print(json);
            return ExitCode::from(1);
        }
    };
    let ctx = Context::new(cli.etcd, &cli.prefix);
    let ended = runtime.block_on(cli.command.run(&ctx));
    // A thread that still waits for stdin must not keep the process.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print(json);
            ExitCode::from(failure.exit_code())
        }
    }
}
