//! `local down`: leaves nothing running, and with `--purge` nothing at all.

use super::directory::Directory;
use super::{DirArg, containers, controllers, hosts, network, store};
use crate::cli::{Context, Failure, fleet};

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the fleet lives.
    #[command(flatten)]
    pub dir: DirArg,
    /// Remove its data, too.
    #[arg(long)]
    pub purge: bool,
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let path = args.dir.path()?;
    let Some(mut directory) = Directory::open(&path)? else {
        anstream::eprintln!("there is no local fleet in {}; nothing to stop", path.display());
        return Ok(());
    };
    // Controllers first: to them a fleet that is taken down is one that breaks.
    let (copies, stuck) = controllers::stop(&directory).await;
    if !stuck.is_empty() {
        return Err(Failure::failed(format!("these controllers do not end: {}", stuck.join(", ")))
            .hint("Nothing else was stopped. See what they hang on (cat /proc/PID/stack), then try again."));
    }
    // Then agents: they would start again what is stopped under them.
    let stuck = hosts::stop(&directory).await;
    if !stuck.is_empty() {
        return Err(Failure::failed(format!("these agents do not end: {}", stuck.join(", ")))
            .hint("Nothing else was stopped. See what they hang on (cat /proc/PID/stack), then try again."));
    }
    ask_for_ids(&mut directory).await?;
    let servers = remove_servers(&directory).await;
    // etcd goes even where Docker does not answer: whoever comes back finds less to look after.
    let etcd_ended = store::stop(&directory).await;
    let servers = servers?;
    network::remove(&directory.remembered)?;
    if !etcd_ended {
        return Err(Failure::failed(format!(
            "etcd does not end; its pid is in {}/etcd.pid",
            directory.path.display()
        )));
    }
    let shown = directory.path.display().to_string();
    let count = directory.remembered.hosts;
    let stopped = format!("stopped {servers} servers, {count} agents, {copies} controllers and etcd");
    if args.purge {
        directory.purge()?;
        anstream::eprintln!("{stopped}; the data in {shown} are gone");
    } else {
        anstream::eprintln!("{stopped}; the data stay in {shown}");
        let flag = args.dir.flag();
        anstream::eprintln!(
            "back with `schemadock local up{flag}`, away with `schemadock local down --purge{flag}`"
        );
    }
    Ok(())
}

/// The id may have changed since `local up` (`fleet accept`). Where etcd does not answer, what is remembered has to do.
async fn ask_for_ids(directory: &mut Directory) -> Result<(), Failure> {
    let Some(url) = directory.remembered.etcd_url().filter(|_| store::running(&directory.path).is_some())
    else {
        return Ok(());
    };
    let ctx = Context::new(vec![url], &directory.remembered.prefix);
    match fleet::look(ctx.store().await?.as_ref(), &ctx.keys).await {
        Ok(Some(found)) => directory.remember_ids(found),
        Ok(None) | Err(_) => Ok(()),
    }
}

async fn remove_servers(directory: &Directory) -> Result<usize, Failure> {
    let remembered = &directory.remembered;
    if remembered.fleet.is_empty() {
        // No agent has ever had an id to label a container with.
        return Ok(0);
    }
    let docker = containers::connect(&containers::docker_socket()?).await?;
    containers::remove_all(&docker, &remembered.fleet, &remembered.host_names()).await
}
