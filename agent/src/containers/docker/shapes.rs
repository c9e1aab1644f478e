//! Containers as Docker writes them, and as it is told to make them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, ContainerStateStatusEnum as Status, ContainerUpdateBody,
    HealthConfig, HostConfig, HostConfigLogConfig, Mount, MountType, ResourcesUlimits, RestartPolicy,
    RestartPolicyNameEnum, SystemInfo,
};
use schemadock_agent_plan::observed::{ContainerSeen, ContainerState};
use schemadock_schema::size::Resources;

use super::super::{
    ContainerError, ContainerSpec, Errand, LABEL_CLUSTER, LABEL_ERRAND, LABEL_FLEET, LABEL_HOST,
    LABEL_INSTANCE, LABEL_SHAPE, Owner, shape,
};
use super::answer;
use super::freedoms::Freedoms;

/// The kernel kills other processes before a database.
const OOM_SCORE: i64 = -500;
/// Open files of a server.
const NOFILE: i64 = 65_536;

/// Which limits a daemon can set.
#[derive(Debug, Clone, Copy)]
pub(super) struct Abilities {
    memory: bool,
    swap: bool,
    cpus: bool,
    cores: f64,
}

impl Abilities {
    pub(super) fn of(info: &SystemInfo) -> Abilities {
        Abilities {
            memory: info.memory_limit.unwrap_or(false),
            swap: info.swap_limit.unwrap_or(false),
            cpus: info.cpu_cfs_quota.unwrap_or(false),
            cores: info.ncpu.unwrap_or(0) as f64,
        }
    }

    pub(super) fn all(&self) -> bool {
        self.memory && self.swap && self.cpus
    }

    fn memory(&self, limits: &Resources) -> Option<i64> {
        let bytes = i64::try_from(limits.memory).unwrap_or(i64::MAX);
        (self.memory && bytes > 0).then_some(bytes)
    }

    fn swap(&self, limits: &Resources) -> Option<i64> {
        self.memory(limits).filter(|_| self.swap)
    }

    /// Billionths of a core; more than the machine has is refused by Docker.
    fn nano_cpus(&self, limits: &Resources) -> Option<i64> {
        let cores = if self.cores > 0.0 { limits.cpus.min(self.cores) } else { limits.cpus };
        (self.cpus && cores > 0.0).then_some((cores * 1e9).round() as i64)
    }
}

/// Limits for a living container; none where the daemon can set none.
pub(super) fn limits(limits: &Resources, abilities: &Abilities) -> Option<ContainerUpdateBody> {
    let body = ContainerUpdateBody {
        memory: abilities.memory(limits),
        memory_swap: abilities.swap(limits),
        nano_cpus: abilities.nano_cpus(limits),
        ..ContainerUpdateBody::default()
    };
    (body.memory.is_some() || body.nano_cpus.is_some()).then_some(body)
}

fn fleet(owner: &Owner) -> Result<String, ContainerError> {
    owner.fleets.last().cloned().ok_or_else(|| ContainerError::Conflict {
        why: "this agent belongs to no fleet yet, so no container is made".to_owned(),
    })
}

fn mounts(all: &[(PathBuf, String)]) -> Vec<Mount> {
    // Mounts, not binds: Docker would make a missing directory itself, owned by root.
    all.iter()
        .map(|(source, target)| Mount {
            typ: Some(MountType::BIND),
            source: Some(source.to_string_lossy().into_owned()),
            target: Some(target.clone()),
            ..Mount::default()
        })
        .collect()
}

fn host(all: &[(PathBuf, String)], network: &str) -> HostConfig {
    let log = [("max-size", "10m"), ("max-file", "2")];
    HostConfig {
        network_mode: Some(network.to_owned()),
        mounts: Some(mounts(all)),
        init: Some(false),
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: None,
        }),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(log.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()),
        }),
        ..HostConfig::default()
    }
}

fn free(host: HostConfig, freedoms: Freedoms) -> HostConfig {
    let nofile = ResourcesUlimits { name: Some("nofile".to_owned()), soft: Some(NOFILE), hard: Some(NOFILE) };
    HostConfig {
        ulimits: freedoms.nofile.then(|| vec![nofile]),
        oom_score_adj: freedoms.oom.then_some(OOM_SCORE),
        ..host
    }
}

/// A server's container.
pub(super) fn server(
    owner: &Owner,
    spec: &ContainerSpec,
    abilities: &Abilities,
    freedoms: Freedoms,
) -> Result<ContainerCreateBody, ContainerError> {
    let labels = BTreeMap::from([
        (LABEL_FLEET, fleet(owner)?),
        (LABEL_HOST, owner.host.to_string()),
        (LABEL_INSTANCE, spec.instance.to_string()),
        (LABEL_CLUSTER, spec.cluster.to_string()),
        (LABEL_SHAPE, shape(spec)),
    ]);
    Ok(ContainerCreateBody {
        image: Some(spec.image.clone()),
        entrypoint: Some(vec!["mysqld".to_owned()]),
        cmd: Some(spec.command.clone()),
        user: Some(spec.user.clone()),
        labels: Some(answer::labels(labels)),
        stop_signal: Some("SIGKILL".to_owned()),
        healthcheck: Some(no_healthcheck()),
        host_config: Some(HostConfig {
            memory: abilities.memory(&spec.limits),
            memory_swap: abilities.swap(&spec.limits),
            nano_cpus: abilities.nano_cpus(&spec.limits),
            ..free(host(&spec.mounts, &spec.network), freedoms)
        }),
        ..ContainerCreateBody::default()
    })
}

/// An errand's container.
pub(super) fn errand(
    owner: &Owner,
    life: &str,
    errand: &Errand,
) -> Result<ContainerCreateBody, ContainerError> {
    let labels = BTreeMap::from([
        (LABEL_FLEET, fleet(owner)?),
        (LABEL_HOST, owner.host.to_string()),
        (LABEL_ERRAND, life.to_owned()),
    ]);
    let mut command = errand.command.iter().cloned();
    Ok(ContainerCreateBody {
        image: Some(errand.image.clone()),
        entrypoint: Some(command.next().into_iter().collect()),
        cmd: Some(command.collect()),
        user: Some(errand.user.clone()),
        labels: Some(answer::labels(labels)),
        stop_signal: Some("SIGKILL".to_owned()),
        healthcheck: Some(no_healthcheck()),
        host_config: Some(host(&errand.mounts, "none")),
        ..ContainerCreateBody::default()
    })
}

/// A container that does nothing, to see whether one with these can be started.
pub(super) fn trial(
    owner: &Owner,
    life: &str,
    image: &str,
    freedoms: Freedoms,
) -> Result<ContainerCreateBody, ContainerError> {
    let nothing = Errand {
        image: image.to_owned(),
        command: vec!["mysqld".to_owned(), "--version".to_owned()],
        user: "65534:65534".to_owned(),
        mounts: Vec::new(),
    };
    let body = errand(owner, life, &nothing)?;
    Ok(ContainerCreateBody { host_config: Some(free(host(&[], "none"), freedoms)), ..body })
}

/// An image's own check would run a program in the container again and again.
fn no_healthcheck() -> HealthConfig {
    HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() }
}

/// Whether a container is this owner's.
pub(super) fn owned(owner: &Owner, seen: &ContainerInspectResponse) -> bool {
    let label = |name: &str| seen.config.as_ref()?.labels.as_ref()?.get(name);
    label(LABEL_FLEET).is_some_and(|fleet| owner.fleets.contains(fleet))
        && label(LABEL_HOST).is_some_and(|host| *host == owner.host.to_string())
}

/// Whether it has a process, as far as Docker says.
pub(super) fn runs(state: &ContainerState) -> bool {
    matches!(state, ContainerState::Running | ContainerState::Paused | ContainerState::Restarting)
}

/// A container as the plan knows it; none without an id.
pub(super) fn seen(seen: ContainerInspectResponse) -> Option<ContainerSeen> {
    let state = seen.state.unwrap_or_default();
    let config = seen.config.unwrap_or_default();
    let host = seen.host_config.unwrap_or_default();
    let is = match state.status {
        // One that is being stopped runs until it has ended.
        Some(Status::RUNNING | Status::STOPPING) => ContainerState::Running,
        Some(Status::PAUSED) => ContainerState::Paused,
        Some(Status::RESTARTING) => ContainerState::Restarting,
        Some(Status::EXITED) => ContainerState::Exited {
            code: state.exit_code.unwrap_or(-1),
            out_of_memory: state.oom_killed.unwrap_or(false),
        },
        Some(Status::DEAD | Status::REMOVING) => ContainerState::Dead,
        Some(Status::CREATED | Status::EMPTY) | None => ContainerState::Created,
    };
    let runs = runs(&is);
    let unsigned = |value: Option<i64>| value.and_then(|v| u64::try_from(v).ok()).unwrap_or(0);
    Some(ContainerSeen {
        id: seen.id?,
        image: config.image.unwrap_or_default(),
        image_id: seen.image.unwrap_or_default(),
        state: is,
        pid: state.pid.and_then(|pid| i32::try_from(pid).ok()).filter(|pid| runs && *pid > 0),
        shape: config.labels.and_then(|mut labels| labels.remove(LABEL_SHAPE)),
        memory: unsigned(host.memory),
        nano_cpus: unsigned(host.nano_cpus),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn abilities(memory: bool, swap: bool, cpus: bool) -> Abilities {
        Abilities { memory, swap, cpus, cores: 4.0 }
    }

    fn spec() -> ContainerSpec {
        ContainerSpec {
            name: "h-c-db1".to_owned(),
            image: "mysql:8.4".to_owned(),
            instance: "h-c-db1".parse().unwrap(),
            cluster: "c".parse().unwrap(),
            command: vec!["--defaults-file=/schemadock/my.cnf".to_owned()],
            user: "999:999".to_owned(),
            mounts: vec![("/var/lib/x".into(), "/schemadock".to_owned())],
            network: "host".to_owned(),
            limits: Resources { memory: 1 << 30, cpus: 16.0, disk: None },
        }
    }

    #[test]
    fn limits_that_the_daemon_cannot_set_are_left_out() {
        let owner = Owner { fleets: vec!["f".to_owned()], host: "h".parse().unwrap() };
        let made = |abilities: Abilities| {
            let freedoms = Freedoms { nofile: false, oom: true };
            server(&owner, &spec(), &abilities, freedoms).unwrap().host_config.unwrap()
        };
        let all = made(abilities(true, true, true));
        assert_eq!((all.memory, all.memory_swap), (Some(1 << 30), Some(1 << 30)));
        assert_eq!(all.nano_cpus, Some(4_000_000_000), "no more than the machine has");
        assert_eq!((all.oom_score_adj, all.ulimits), (Some(-500), None));
        let some = made(abilities(true, false, false));
        assert_eq!((some.memory, some.memory_swap, some.nano_cpus), (Some(1 << 30), None, None));
        assert!(limits(&spec().limits, &abilities(false, false, false)).is_none());
    }

    #[test]
    fn an_errand_is_no_server_and_nobody_elses() {
        let owner = Owner { fleets: vec!["old".to_owned(), "new".to_owned()], host: "h".parse().unwrap() };
        let body = trial(&owner, "life", "i", Freedoms { nofile: true, oom: false }).unwrap();
        let labels = body.labels.unwrap();
        assert_eq!(labels.get(LABEL_FLEET).map(String::as_str), Some("new"));
        assert_eq!(labels.get(LABEL_ERRAND).map(String::as_str), Some("life"));
        assert!(!labels.contains_key(LABEL_INSTANCE));
        assert_eq!(body.entrypoint, Some(vec!["mysqld".to_owned()]));
        assert_eq!(body.host_config.unwrap().network_mode.as_deref(), Some("none"));
        let nobody = Owner { fleets: Vec::new(), ..owner };
        assert!(matches!(
            server(&nobody, &spec(), &abilities(true, true, true), Freedoms { nofile: true, oom: true }),
            Err(ContainerError::Conflict { .. })
        ));
    }
}
