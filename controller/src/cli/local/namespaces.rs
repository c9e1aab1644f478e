//! The network namespaces of hosts with addresses of their own. Each is held by a container without a network that
//! sleeps: the host's servers join its network by its name, the host's agent is started inside.

use std::path::{Path, PathBuf};

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{ContainerCreateBody, HostConfig, HostConfigLogConfig};
use bollard::query_parameters::{CreateContainerOptionsBuilder, CreateImageOptionsBuilder};
use futures::TryStreamExt;
use futures::future::join_all;

use super::containers;
use super::directory::{Directory, Remembered, host_name, private_dir};
use super::hosts;
use super::network::{self, Network};
use super::process::{self, Process};
use crate::cli::Failure;

/// The image where the fleet names none; the agents' own.
const DEFAULT_IMAGE: &str = "schemadock-mysql:debian";

impl Remembered {
    /// The name of the container that holds the network of host `number`. No instance has an underscore in its name.
    pub(super) fn sleeper(&self, number: u8) -> String {
        format!("{}_{}", self.name, host_name(number))
    }
}

fn pid_file(directory: &Path, number: u8) -> PathBuf {
    hosts::host_dir(directory, number).join("network.pid")
}

/// The process that holds the network of a host, if it runs.
pub(super) fn running(directory: &Path, number: u8) -> Option<Process> {
    process::from_pid_file(&pid_file(directory, number))
}

/// Sees to it that each host has its namespace and its link.
pub(super) async fn provide(
    directory: &Directory,
    docker: &Docker,
    network: &Network,
) -> Result<(), Failure> {
    let all = (1..=directory.remembered.hosts).map(|number| provide_one(directory, docker, network, number));
    let made: Vec<bool> = join_all(all).await.into_iter().collect::<Result<_, Failure>>()?;
    let names: Vec<String> =
        (1..).zip(made).filter(|(_, made)| *made).map(|(n, _)| host_name(n).to_string()).collect();
    if !names.is_empty() {
        anstream::eprintln!(
            "network  {} on {}: made for {}",
            network.range(),
            network.bridge(),
            names.join(", ")
        );
    }
    Ok(())
}

/// True: it was made just now.
async fn provide_one(
    directory: &Directory,
    docker: &Docker,
    network: &Network,
    number: u8,
) -> Result<bool, Failure> {
    private_dir(&hosts::host_dir(&directory.path, number))?;
    let name = directory.remembered.sleeper(number);
    let found = pid_of(docker, &name).await?;
    let pid = match found {
        Some(pid) => pid,
        None => {
            // Whatever is still in the old network comes back in the new one, as after the loss of a real host.
            if let Some(agent) = hosts::stop_one(&directory.path, number).await {
                return Err(Failure::failed(format!("the agent of {agent} does not end")));
            }
            containers::remove_all(docker, &directory.remembered.fleet, &[host_name(number)]).await?;
            containers::remove(docker, &name).await?;
            make(docker, &directory.remembered, number, &name).await?
        }
    };
    let file = pid_file(&directory.path, number);
    process::record(pid, &file)
        .map_err(|why| Failure::failed(format!("{name} (pid {pid}) is not to be found here: {why}")))?;
    if found.is_none() || !network.is_linked(number) {
        network.link_up(number, pid)?;
    }
    Ok(found.is_none())
}

/// The process of a container that runs.
async fn pid_of(docker: &Docker, name: &str) -> Result<Option<i32>, Failure> {
    let seen = match docker.inspect_container(name, None).await {
        Ok(seen) => seen,
        Err(Error::DockerResponseServerError { status_code: 404, .. }) => return Ok(None),
        Err(why) => return Err(Failure::failed(format!("Docker does not say whether {name} runs: {why}"))),
    };
    let pid = seen.state.filter(|state| state.running == Some(true)).and_then(|state| state.pid);
    Ok(pid.and_then(|pid| i32::try_from(pid).ok()).filter(|pid| *pid > 0))
}

async fn make(docker: &Docker, remembered: &Remembered, number: u8, name: &str) -> Result<i32, Failure> {
    let image = remembered.image.clone().unwrap_or_else(|| DEFAULT_IMAGE.to_owned());
    let fleet = remembered.fleet.last().cloned().unwrap_or_default();
    let labels = [("schemadock.fleet", fleet), ("schemadock.host", host_name(number).to_string())];
    let body = ContainerCreateBody {
        image: Some(image.clone()),
        entrypoint: Some(vec!["sleep".to_owned()]),
        cmd: Some(vec!["infinity".to_owned()]),
        labels: Some(labels.map(|(label, value)| (label.to_owned(), value)).into()),
        host_config: Some(HostConfig {
            network_mode: Some("none".to_owned()),
            log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    };
    let failed = |why: Error| Failure::failed(format!("Docker does not start {name}: {why}"));
    let options = || CreateContainerOptionsBuilder::new().name(name).build();
    let made = match docker.create_container(Some(options()), body.clone()).await {
        Err(Error::DockerResponseServerError { status_code: 404, .. }) => {
            pull(docker, &image).await?;
            docker.create_container(Some(options()), body).await
        }
        made => made,
    };
    made.map_err(failed)?;
    docker.start_container(name, None).await.map_err(failed)?;
    pid_of(docker, name).await?.ok_or_else(|| {
        Failure::failed(format!(
            "{name} ended at once: {image} has no `sleep` on its PATH, or Docker ended it"
        ))
        .hint(format!("Try it: docker run --rm --network none --entrypoint sleep {image} 1"))
    })
}

async fn pull(docker: &Docker, image: &str) -> Result<(), Failure> {
    let options = CreateImageOptionsBuilder::new().from_image(image).build();
    let pulled: Result<Vec<_>, Error> = docker.create_image(Some(options), None, None).try_collect().await;
    pulled.map(drop).map_err(|why| {
        Failure::failed(format!("the image {image} is not here and cannot be pulled: {why}"))
            .hint("`./scripts/setup` provides one; another is named by --image.")
    })
}

/// Whether a process is in the network of host `number`.
pub(super) fn holds(directory: &Path, number: u8, process: &Process) -> bool {
    let of = |pid: i32| std::fs::read_link(network::namespace(pid)).ok();
    running(directory, number)
        .is_some_and(|sleeper| of(sleeper.pid).is_some_and(|own| of(process.pid) == Some(own)))
}
