//! `local status`: what runs.

use std::path::Path;

use serde::Serialize;

use super::directory::{self, Remembered, host_name};
use super::isolation::{self, Isolated};
use super::{DirArg, controllers, hosts, namespaces, store};
use crate::cli::context::OutputArg;
use crate::cli::{Context, Failure};

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the fleet lives.
    #[command(flatten)]
    pub dir: DirArg,
    /// For people or for scripts.
    #[command(flatten)]
    pub output: OutputArg,
}

/// What runs of a local fleet.
#[derive(Debug, Serialize)]
pub(super) struct Local {
    pub(super) etcd: Option<String>,
    pub(super) etcd_pid: Option<i32>,
    pub(super) prefix: String,
    pub(super) dir: String,
    pub(super) fleet: Option<String>,
    pub(super) netns: bool,
    pub(super) hosts: Vec<LocalHost>,
    pub(super) controllers: Vec<LocalController>,
}

/// A simulated host.
#[derive(Debug, Serialize)]
pub(super) struct LocalHost {
    pub(super) name: String,
    pub(super) address: String,
    pub(super) agent_pid: Option<i32>,
    pub(super) isolated: Isolated,
}

/// A copy of the controller.
#[derive(Debug, Serialize)]
pub(super) struct LocalController {
    pub(super) pid: Option<i32>,
    /// Whether it is in office; none where etcd does not say.
    pub(super) leader: Option<bool>,
}

/// What runs in a directory.
pub(super) async fn of(path: &Path, remembered: &Remembered) -> Result<Local, Failure> {
    let office = office(path, remembered).await;
    let controllers = (1..=remembered.controllers()).map(|number| {
        let pid = controllers::running(path, number).map(|process| process.pid);
        LocalController { pid, leader: office.map(|office| pid.is_some() && office == pid) }
    });
    let hosts = (1..=remembered.hosts).map(|number| {
        Ok(LocalHost {
            name: host_name(number).to_string(),
            address: remembered.address(number),
            agent_pid: hosts::running(path, number).map(|process| process.pid),
            isolated: isolation::of(path, remembered, number)?,
        })
    });
    Ok(Local {
        etcd: remembered.etcd_url(),
        etcd_pid: store::running(path).map(|process| process.pid),
        prefix: remembered.prefix.clone(),
        dir: path.display().to_string(),
        fleet: remembered.fleet.last().cloned(),
        netns: remembered.netns,
        hosts: hosts.collect::<Result<_, Failure>>()?,
        controllers: controllers.collect(),
    })
}

/// The process in office; the outer none where etcd does not say.
async fn office(path: &Path, remembered: &Remembered) -> Option<Option<i32>> {
    store::running(path)?;
    let ctx = Context::new(vec![remembered.etcd_url()?], &remembered.prefix);
    let store = ctx.store().await.ok()?;
    controllers::in_office(store.as_ref(), &ctx.keys).await.ok()
}

pub(super) async fn run(args: &Args) -> Result<(), Failure> {
    let path = args.dir.path()?;
    let Some((path, remembered)) = directory::look(&path)? else {
        return Err(directory::none_in(&path));
    };
    let local = of(&path, &remembered).await?;
    if args.output.json() {
        let text = serde_json::to_string_pretty(&local).map_err(|why| Failure::failed(why.to_string()))?;
        anstream::println!("{text}");
        return Ok(());
    }
    let pid = |pid: Option<i32>| pid.map_or("not running".to_owned(), |pid| format!("pid {pid}"));
    anstream::println!("directory     {}", local.dir);
    anstream::println!("fleet         {}", local.fleet.as_deref().unwrap_or("-"));
    anstream::println!("prefix        {}", local.prefix);
    anstream::println!("etcd          {}  {}", local.etcd.as_deref().unwrap_or("-"), pid(local.etcd_pid));
    if let Some(network) = remembered.network() {
        anstream::println!("network       {} on the bridge {}", network.range(), network.bridge());
    }
    for (controller, number) in local.controllers.iter().zip(1..) {
        let office = match controller.leader {
            Some(true) => "  in office",
            Some(false) => "",
            None => "  (etcd does not say whether it is in office)",
        };
        anstream::println!("controller {number}  {}{office}", pid(controller.pid));
    }
    for (host, number) in local.hosts.iter().zip(1..) {
        let lost = local.netns && host.agent_pid.is_some() && namespaces::running(&path, number).is_none();
        let lost = if lost { "  its network is gone; `local up` makes it anew" } else { "" };
        let cut = host.isolated.words().map(|words| format!("  {words}")).unwrap_or_default();
        anstream::println!("{:<12}  {}  agent {}{cut}{lost}", host.name, host.address, pid(host.agent_pid));
    }
    Ok(())
}
