//! The containers of a local fleet, by label.

use bollard::Docker;
use bollard::errors::Error;
use bollard::query_parameters::{
    KillContainerOptionsBuilder, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
};
use futures::future::join_all;
use schemadock_schema::HostName;

use crate::cli::Failure;

/// Seconds that one call to Docker may take.
const DEADLINE: u64 = 20;
/// A container that was being made while its agent ended shows up late: looked at again this often.
const ROUNDS: u32 = 5;

/// Docker's socket, as everything here uses it: `DOCKER_HOST`, else the usual one.
pub(crate) fn docker_socket() -> Result<String, Failure> {
    match std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty()) {
        None => Ok("/var/run/docker.sock".to_owned()),
        Some(host) => match host.strip_prefix("unix://") {
            Some(path) => Ok(path.to_owned()),
            None => {
                Err(Failure::usage(format!("DOCKER_HOST is {host:?}, expected unix:///path/of/docker.sock"))
                    .hint("The agents need the daemon of this very machine."))
            }
        },
    }
}

/// A connection to Docker that was seen to answer.
pub(crate) async fn connect(socket: &str) -> Result<Docker, Failure> {
    let error = |why: Error| {
        Failure::failed(format!("Docker does not answer at {socket}: {why}")).hint(
            "Is it running (`./scripts/setup` sees to that), and may you speak to it (group `docker`, or sudo)?",
        )
    };
    let docker = Docker::connect_with_unix(socket, DEADLINE, bollard::API_DEFAULT_VERSION).map_err(error)?;
    docker.negotiate_version().await.map_err(error)
}

/// Ends and removes all containers of these hosts in a fleet that has had these ids. How many servers there were.
///
/// The signal is KILL: a server that is asked politely answers OK to commits that no other member has.
pub(super) async fn remove_all(
    docker: &Docker,
    fleet: &[String],
    hosts: &[HostName],
) -> Result<usize, Failure> {
    let mut removed = 0;
    for _ in 0..ROUNDS {
        let found = list(docker, fleet, hosts).await?;
        if found.is_empty() {
            break;
        }
        removed += found.iter().filter(|one| one.server).count();
        let all = found.iter().map(|one| remove(docker, &one.id));
        join_all(all).await.into_iter().collect::<Result<Vec<()>, Failure>>()?;
    }
    Ok(removed)
}

/// A container of the fleet.
struct Found {
    id: String,
    /// Whether it is an instance's, not one that holds a host's network.
    server: bool,
}

async fn list(docker: &Docker, fleet: &[String], hosts: &[HostName]) -> Result<Vec<Found>, Failure> {
    let mut found = Vec::new();
    for id in fleet {
        let filters = [("label".to_owned(), vec![format!("schemadock.fleet={id}")])].into();
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let listed = docker.list_containers(Some(options)).await;
        let listed =
            listed.map_err(|why| Failure::failed(format!("Docker does not list containers: {why}")))?;
        let ours = listed.into_iter().filter(|container| {
            let label = container.labels.as_ref().and_then(|labels| labels.get("schemadock.host"));
            label.is_some_and(|host| hosts.iter().any(|own| own.as_str() == host))
        });
        found.extend(ours.filter_map(|container| {
            let server = container.labels.is_some_and(|labels| labels.contains_key("schemadock.instance"));
            Some(Found { id: container.id?, server })
        }));
    }
    Ok(found)
}

/// Ends and removes a container, if it is there.
pub(super) async fn remove(docker: &Docker, id: &str) -> Result<(), Failure> {
    let kill = KillContainerOptionsBuilder::new().signal("SIGKILL").build();
    accept(docker.kill_container(id, Some(kill)).await, "kill", id)?;
    let remove = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
    accept(docker.remove_container(id, Some(remove)).await, "remove", id)
}

/// Gone already (404), not running (409), being removed (409): as good as done; the next listing tells.
fn accept(answer: Result<(), Error>, verb: &str, id: &str) -> Result<(), Failure> {
    match answer {
        Ok(()) | Err(Error::DockerResponseServerError { status_code: 404 | 409, .. }) => Ok(()),
        Err(why) => Err(Failure::failed(format!("Docker does not {verb} container {id}: {why}"))),
    }
}
