//! A simulated Docker.
//!
//! Of the facts that were measured on the real one it keeps to these:
//! * a container's only process is mysqld: the container ends with it, by its exit code, 137 after SIGKILL;
//! * SIGTERM is ignored by a server that does not answer yet, and by a frozen one;
//! * a frozen server keeps its connections and answers nothing; killing it thaws it;
//! * the directory that is mounted is found by its path when the container starts; it is an error if it is not there;
//! * a name that is taken is a conflict, unless it is the owner's own and does not run;
//! * events that came before the stream was opened are missed; the stream ends with the daemon;
//! * a daemon that is away or hangs does not touch the servers (`live-restore`); a call that met its deadline may have
//!   been carried out.
//!
//! *Caveats*: images are always there; limits are kept and have no effect.

mod daemon;

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use schemadock_agent::containers::{ContainerError, ContainerSpec, Containers, Errand, ErrandEnd, Owner};
use schemadock_agent_plan::observed::{ContainerSeen, ContainerState, DaemonSeen, ImageSeen};
use schemadock_schema::known::Known;
use schemadock_schema::size::Resources;
use schemadock_schema::{HostName, InstanceName};

use super::disk::instance_at;
use super::life::Life;
use super::world::{Happening, State};
use daemon::{Container, RunningErrand};
pub(super) use daemon::{Daemon, DaemonFault};

/// The version that the simulated image holds.
pub(super) const VERSION: &str = "9.7.4";
/// A variable that the simulated server does not know.
pub const UNKNOWN_VARIABLE: &str = "no_such_variable";
/// A variable that passes `--validate-config`, and with which no server comes up.
pub const START_FAILS: &str = "innodb_log_group_home_dir";
/// Plain calls, in microseconds.
const SHORT: Range<u64> = 500..5_000;
/// Calls that make or end something.
const LONG: Range<u64> = 20_000..200_000;
const DEADLINE: Duration = Duration::from_secs(5);

/// Docker, as one life of the host's agent reaches it.
#[derive(Clone)]
pub struct SimContainers {
    life: Life,
}

impl SimContainers {
    /// For this life.
    pub fn new(life: Life) -> SimContainers {
        SimContainers { life }
    }

    async fn call<T>(
        &self,
        what: &'static str,
        micros: Range<u64>,
        effect: impl FnOnce(&mut State, &HostName) -> Result<T, ContainerError>,
    ) -> Result<T, ContainerError> {
        let host = self.life.host().clone();
        let fault = self.life.ask(0..1, |state| state.hosts[&host].daemon.fault).await;
        match fault {
            DaemonFault::None => self.life.call(micros, |state| effect(state, &host)).await,
            DaemonFault::Away => {
                let why = "connection refused".to_owned();
                Err(ContainerError::Unreachable { socket: "/sim/docker.sock".to_owned(), why })
            }
            DaemonFault::Hung => {
                // Nobody knows whether it is carried out.
                if self.life.world().draw(0..2) == 0 {
                    let _unheard = self.life.call(micros, |state| effect(state, &host)).await;
                }
                tokio::time::sleep(DEADLINE).await;
                self.life.moment().await;
                Err(ContainerError::Deadline { what, seconds: DEADLINE.as_secs_f64() })
            }
        }
    }

    /// Waits for something that a look at the state shows.
    async fn await_end<T>(&self, deadline: Duration, look: impl Fn(&State) -> Option<T>) -> Option<T> {
        let until = tokio::time::Instant::now() + deadline;
        loop {
            if let Some(found) = self.life.ask(20_000..40_000, &look).await {
                return Some(found);
            }
            if tokio::time::Instant::now() >= until {
                return None;
            }
        }
    }
}

fn not_found(id: &str) -> ContainerError {
    ContainerError::NotFound { what: format!("container {id}") }
}

#[async_trait]
impl Containers for SimContainers {
    async fn daemon(&self) -> Result<DaemonSeen, ContainerError> {
        let seen = DaemonSeen { version: "sim".to_owned(), live_restore: true, limits: true };
        self.call("about itself", SHORT, |_, _| Ok(seen)).await
    }

    async fn list(
        &self,
        owner: &Owner,
    ) -> Result<BTreeMap<InstanceName, Known<ContainerSeen>>, ContainerError> {
        self.call("for its containers", SHORT, |state, host| {
            let mut best: BTreeMap<InstanceName, ((bool, u64), ContainerSeen)> = BTreeMap::new();
            for (id, container) in &state.hosts[host].daemon.containers {
                if !owner.fleets.contains(&container.owner) {
                    continue;
                }
                let runs = matches!(container.state, ContainerState::Running | ContainerState::Paused);
                let weight = (runs, container.made);
                let instance = &container.spec.instance;
                if best.get(instance).is_none_or(|(other, _)| weight > *other) {
                    best.insert(instance.clone(), (weight, state.seen(id, container)));
                }
            }
            Ok(best.into_iter().map(|(name, (_, seen))| (name, Known::Present(seen))).collect())
        })
        .await
    }

    async fn inspect(&self, id: &str) -> Result<Option<ContainerSeen>, ContainerError> {
        self.call("about a container", SHORT, |state, host| {
            let found = state.hosts[host].daemon.containers.get(id);
            Ok(found.map(|container| state.seen(id, container)))
        })
        .await
    }

    async fn changes(&self, _owner: &Owner) -> Result<BoxStream<'static, ()>, ContainerError> {
        let (stirs, ends) = self
            .call("for its events", SHORT, |state, host| {
                let daemon = &state.host(host).daemon;
                Ok((daemon.stirs.subscribe(), daemon.ends.subscribe()))
            })
            .await?;
        Ok(Box::pin(futures::stream::unfold((stirs, ends), async |(mut stirs, mut ends)| {
            tokio::select! {
                biased;
                _ = ends.changed() => None,
                stirred = stirs.changed() => stirred.ok().map(|()| ((), (stirs, ends))),
            }
        })))
    }

    async fn image(&self, image: &str) -> Result<Option<ImageSeen>, ContainerError> {
        let seen = ImageSeen { id: format!("sha256:{}", image.replace([':', '/'], "")) };
        self.call("about an image", SHORT, |_, _| Ok(Some(seen))).await
    }

    async fn pull(&self, _image: &str) -> Result<(), ContainerError> {
        self.call("to fetch an image", LONG, |_, _| Ok(())).await
    }

    async fn create(&self, owner: &Owner, spec: &ContainerSpec) -> Result<String, ContainerError> {
        self.call("to make a container", LONG, |state, host| {
            let number = state.next_id();
            let daemon = &mut state.host(host).daemon;
            let other = daemon.containers.iter().find(|(_, other)| other.spec.name == spec.name);
            if let Some((id, other)) = other {
                let runs = matches!(other.state, ContainerState::Running | ContainerState::Paused);
                if runs || !owner.fleets.contains(&other.owner) {
                    let why = format!("the name {} is taken", spec.name);
                    return Err(ContainerError::Conflict { why });
                }
                let id = id.clone();
                daemon.containers.remove(&id);
            }
            let container = Container {
                owner: owner.fleets.last().cloned().unwrap_or_default(),
                spec: spec.clone(),
                state: ContainerState::Created,
                made: number,
                limits: spec.limits,
                output: Vec::new(),
            };
            let id = format!("c{number}");
            daemon.containers.insert(id.clone(), container);
            daemon.stir();
            state.note(format!("{host}: container {id} of {} is made", spec.instance));
            Ok(id)
        })
        .await
    }

    async fn start(&self, id: &str) -> Result<(), ContainerError> {
        self.call("to start a container", LONG, |state, host| {
            let container = state.hosts[host].daemon.containers.get(id).ok_or_else(|| not_found(id))?;
            match container.state {
                ContainerState::Running => return Ok(()),
                ContainerState::Paused => {
                    let why = "cannot start a paused container".to_owned();
                    return Err(ContainerError::Conflict { why });
                }
                _ => {}
            }
            let mount = container.spec.mounts.first().and_then(|(mount, _)| instance_at(mount));
            let home = mount.as_ref().and_then(|instance| state.hosts[host].rooms.homes.get(instance));
            if home.is_none() {
                let why = "bind source path does not exist".to_owned();
                return Err(ContainerError::Refused { what: "to start a container", status: 400, why });
            }
            state.server_begins(host, id);
            Ok(())
        })
        .await
    }

    async fn unpause(&self, id: &str) -> Result<(), ContainerError> {
        self.call("to thaw a container", SHORT, |state, host| {
            state.set_paused(host, id, false);
            Ok(())
        })
        .await
    }

    async fn kill(&self, id: &str) -> Result<(), ContainerError> {
        self.call("to end a container", SHORT, |state, host| {
            if let Some(pid) = state.pid_of(host, id) {
                state.server_ends(pid, 137, "its agent has it killed");
            }
            Ok(())
        })
        .await
    }

    async fn terminate(&self, id: &str, grace_seconds: u64) -> Result<(), ContainerError> {
        self.call("to end a container", SHORT, |state, host| {
            let Some(pid) = state.pid_of(host, id) else { return Ok(()) };
            state.judge_polite_end(pid);
            if state.servers[&pid].up && !state.servers[&pid].paused {
                state.note(format!("{host}: {} is asked to shut down", state.servers[&pid].instance));
                state.later(300_000..3_000_000, Happening::ShutDown(pid));
            }
            Ok(())
        })
        .await?;
        let host = self.life.host();
        let gone = |state: &State| state.pid_of(host, id).is_none().then_some(());
        let late = ContainerError::Deadline { what: "for a container's end", seconds: grace_seconds as f64 };
        self.await_end(Duration::from_secs(grace_seconds), gone).await.ok_or(late)
    }

    async fn remove(&self, id: &str) -> Result<(), ContainerError> {
        self.call("to remove a container", LONG, |state, host| {
            if state.pid_of(host, id).is_some() {
                let why = "it runs".to_owned();
                return Err(ContainerError::Conflict { why });
            }
            state.remove_container(host, id);
            Ok(())
        })
        .await
    }

    async fn set_limits(&self, id: &str, limits: &Resources) -> Result<(), ContainerError> {
        self.call("to set a container's limits", SHORT, |state, host| {
            let containers = &mut state.host(host).daemon.containers;
            containers.get_mut(id).ok_or_else(|| not_found(id))?.limits = *limits;
            Ok(())
        })
        .await
    }

    async fn output(&self, id: &str, lines: usize) -> Result<Vec<String>, ContainerError> {
        self.call("for a container's output", SHORT, |state, host| {
            let container = state.hosts[host].daemon.containers.get(id).ok_or_else(|| not_found(id))?;
            let skipped = container.output.len().saturating_sub(lines);
            Ok(container.output.iter().skip(skipped).cloned().collect())
        })
        .await
    }

    async fn run(&self, _owner: &Owner, errand: &Errand, seconds: u64) -> Result<ErrandEnd, ContainerError> {
        const WHAT: &str = "to run a short-lived container";
        let number = self
            .call(WHAT, LONG, |state, host| {
                let number = state.next_id();
                let running = RunningErrand { errand: errand.clone(), end: None };
                state.host(host).daemon.errands.insert(number, running);
                state.later(300_000..2_500_000, Happening::ErrandDone(host.clone(), number));
                Ok(number)
            })
            .await?;
        let host = self.life.host();
        let end = |state: &State| match state.hosts[host].daemon.errands.get(&number) {
            None => Some(None),
            Some(running) => running.end.clone().map(Some),
        };
        let ended = self.await_end(Duration::from_secs(seconds), end).await;
        self.life.call(SHORT, |state| state.host(host).daemon.errands.remove(&number)).await;
        ended
            .ok_or(ContainerError::Deadline { what: WHAT, seconds: seconds as f64 })?
            .ok_or_else(|| not_found("of an errand"))
    }

    async fn port_taken(&self, address: &str, port: u16) -> Option<String> {
        let taken = |state: &State| state.listener(address, port).is_some();
        let taken = self.life.ask(SHORT, taken).await;
        taken.then(|| format!("port {port} on {address} is taken by another program"))
    }

    async fn remove_errands(&self, _owner: &Owner) -> Result<usize, ContainerError> {
        self.call("for left-over containers", SHORT, |state, host| {
            Ok(std::mem::take(&mut state.host(host).daemon.errands).len())
        })
        .await
    }
}
