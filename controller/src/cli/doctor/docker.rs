//! This machine's own Docker, where it has one.

use std::collections::BTreeSet;
use std::path::Path;

use bollard::errors::Error;

use super::Finding;
use crate::cli::local::containers;
use crate::cli::seen::Seen;

pub(super) async fn look(seen: Option<&Seen>) -> Vec<Finding> {
    let socket = match containers::docker_socket() {
        Ok(socket) => socket,
        Err(failure) => return vec![Finding::advice("docker", failure.to_string(), "", "")],
    };
    if !Path::new(&socket).exists() {
        let found = format!("no Docker on this machine ({socket} is not there); hosts report on their own");
        return vec![Finding::ok("docker", found)];
    }
    let docker = match containers::connect(&socket).await {
        Ok(docker) => docker,
        Err(failure) => return vec![Finding::mend("docker", failure.to_string(), "", "")],
    };
    let mut findings = Vec::new();
    match docker.info().await {
        Ok(info) => {
            let version = info.server_version.unwrap_or_else(|| "of unknown version".to_owned());
            findings.push(Finding::ok("docker", format!("Docker {version} answers on this machine")));
            if info.live_restore_enabled == Some(false) {
                findings.push(Finding::advice(
                    "docker",
                    "live-restore is off: a restart of the daemon stops every database of this machine",
                    "on",
                    "\"live-restore\": true in /etc/docker/daemon.json, then kill -HUP the daemon",
                ));
            }
        }
        Err(why) => {
            findings.push(Finding::mend("docker", format!("it does not tell of itself: {why}"), "", ""))
        }
    }
    for image in seen.into_iter().flat_map(images) {
        match docker.inspect_image(&image).await {
            Ok(_) => findings.push(Finding::ok("image", format!("{image} is on this machine"))),
            Err(Error::DockerResponseServerError { status_code: 404, .. }) => findings.push(Finding::advice(
                "image",
                format!("{image} is not on this machine"),
                "",
                "the agents pull it where they need it",
            )),
            Err(why) => {
                findings.push(Finding::mend("image", format!("{image} cannot be looked at: {why}"), "", ""))
            }
        }
    }
    findings
}

/// The images that instances run or are to run.
fn images(seen: &Seen) -> BTreeSet<String> {
    let wished =
        seen.targets.values().flatten().filter_map(|stored| stored.target.as_ref().ok()?.image.clone());
    let of_policies = seen.policies.values().filter_map(|stored| stored.value.image.clone());
    let run = seen.statuses.values().filter_map(|status| Some(status.container.as_ref()?.image.clone()));
    wished.chain(of_policies).chain(run).collect()
}
