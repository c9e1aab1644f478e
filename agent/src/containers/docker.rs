//! The real Docker.
//!
//! Expected flow: [`Docker::connect`] opens nothing; the first call negotiates the API version and keeps the client.
//! A daemon that cannot be reached makes the next call negotiate anew, since it may come back as another version.
//!
//! Guarantees: no call outlasts its deadline; a call that met it says nothing about what was done.
//!
//! Assumptions: the daemon's clock is this machine's (the event stream starts at a time, not at a poll).

mod answer;
mod errand;
mod freedoms;
mod port;
mod shapes;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bollard::errors::Error;
use bollard::models::{ContainerInspectResponse, SystemInfo};
use bollard::query_parameters::{
    CreateContainerOptions, CreateImageOptions, EventsOptions, InspectContainerOptions, KillContainerOptions,
    ListContainersOptions, LogsOptions, RemoveContainerOptions, StartContainerOptions, WaitContainerOptions,
};
use futures::future::join_all;
use futures::stream::{BoxStream, StreamExt};
use schemadock_agent_plan::observed::{ContainerSeen, ContainerState, DaemonSeen, ImageSeen};
use schemadock_schema::InstanceName;
use schemadock_schema::known::{Known, WhyUnknown};
use schemadock_schema::size::Resources;
use tokio::sync::OnceCell;

use super::{
    ContainerError, ContainerSpec, Containers, Errand, ErrandEnd, LABEL_FLEET, LABEL_HOST, LABEL_INSTANCE,
    Owner,
};
use freedoms::Freedoms;
use shapes::Abilities;

/// What happens to a container that anybody here wants to know of.
const EVENTS: &[&str] = &["create", "start", "die", "oom", "pause", "unpause", "update", "rename", "destroy"];

/// A pull that says nothing for so many deadlines is given up.
const PULL_SILENCE: u32 = 24;

/// Docker over its unix socket.
#[derive(Debug)]
pub struct Docker {
    socket: String,
    deadline: Duration,
    /// Told apart from errands of other lives.
    life: String,
    link: Mutex<Option<Link>>,
    freedoms: OnceCell<Freedoms>,
}

/// What is kept between calls.
#[derive(Debug, Clone)]
struct Link {
    client: bollard::Docker,
    abilities: Abilities,
}

impl Docker {
    /// A client of the daemon at `socket_path`. Connects with the first call, so that a daemon that is away keeps nobody
    /// from starting. `deadline` is that of plain calls; making, starting, ending and removing get six times as much.
    pub fn connect(socket_path: &str, deadline: Duration) -> Docker {
        Docker {
            socket: socket_path.trim_start_matches("unix://").to_owned(),
            deadline,
            life: uuid::Uuid::new_v4().to_string(),
            link: Mutex::new(None),
            freedoms: OnceCell::new(),
        }
    }

    /// For calls that are slow in good health, too.
    fn slow(&self) -> Duration {
        self.deadline * 6
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, Option<Link>> {
        // What is kept is replaced whole, so a panic elsewhere leaves nothing half done.
        self.link.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    async fn link(&self, what: &'static str) -> Result<Link, ContainerError> {
        if let Some(link) = self.remembered().clone() {
            return Ok(link);
        }
        let connect = async {
            // Docker's own time-out is in whole seconds and covers the headers only: ours come before it.
            let client =
                bollard::Docker::connect_with_unix(&self.socket, 3600, bollard::API_DEFAULT_VERSION)?;
            let client = client.negotiate_version().await?;
            let abilities = Abilities::of(&client.info().await?);
            Ok(Link { client, abilities })
        };
        let link = self.within(what, self.deadline, connect).await?;
        *self.remembered() = Some(link.clone());
        Ok(link)
    }

    async fn client(&self, what: &'static str) -> Result<bollard::Docker, ContainerError> {
        Ok(self.link(what).await?.client)
    }

    /// Runs one call under its deadline.
    async fn within<T>(
        &self,
        what: &'static str,
        deadline: Duration,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, ContainerError> {
        let late = ContainerError::Deadline { what, seconds: deadline.as_secs_f64() };
        match tokio::time::timeout(deadline, call).await {
            Err(_) | Ok(Err(Error::RequestTimeoutError)) => Err(late),
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                let error = answer::error(what, &self.socket, error);
                if matches!(error, ContainerError::Unreachable { .. }) {
                    *self.remembered() = None;
                }
                Err(error)
            }
        }
    }

    async fn look(&self, id: &str) -> Result<Option<ContainerInspectResponse>, ContainerError> {
        const WHAT: &str = "about a container";
        let client = self.client(WHAT).await?;
        let call = client.inspect_container(id, None::<InspectContainerOptions>);
        match self.within(WHAT, self.deadline, call).await {
            Ok(seen) => Ok(Some(seen)),
            Err(ContainerError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn state(&self, id: &str) -> Result<Option<ContainerState>, ContainerError> {
        Ok(self.look(id).await?.and_then(shapes::seen).map(|seen| seen.state))
    }

    async fn signal(&self, id: &str, signal: &str) -> Result<(), ContainerError> {
        const WHAT: &str = "to end a container";
        let client = self.client(WHAT).await?;
        let options = KillContainerOptions { signal: signal.to_owned() };
        match self.within(WHAT, self.slow(), client.kill_container(id, Some(options))).await {
            Err(ContainerError::NotFound { .. } | ContainerError::Conflict { .. }) => Ok(()),
            other => other,
        }
    }

    /// Waits until it does not run, and says how it ended.
    async fn ended(&self, id: &str, what: &'static str, deadline: Duration) -> Result<i64, ContainerError> {
        let client = self.client(what).await?;
        let options = WaitContainerOptions { condition: "not-running".to_owned() };
        let call = async {
            match client.wait_container(id, Some(options)).next().await {
                Some(Ok(end)) => Ok(end.status_code),
                Some(Err(Error::DockerContainerWaitError { code, .. })) => Ok(code),
                Some(Err(error)) => Err(error),
                None => Err(Error::IOError { err: std::io::ErrorKind::UnexpectedEof.into() }),
            }
        };
        self.within(what, deadline, call).await
    }

    async fn text(&self, id: &str, tail: &str) -> Result<Vec<u8>, ContainerError> {
        const WHAT: &str = "for a container's output";
        let client = self.client(WHAT).await?;
        let options =
            LogsOptions { stdout: true, stderr: true, tail: tail.to_owned(), ..LogsOptions::default() };
        let call = async {
            let mut all = Vec::new();
            let mut parts = client.logs(id, Some(options));
            while let Some(part) = parts.next().await {
                all.extend_from_slice(part?.as_ref());
                answer::keep_tail(&mut all);
            }
            Ok(all)
        };
        self.within(WHAT, self.deadline, call).await
    }

    /// Makes a container; a name in the way is told as a conflict.
    async fn make(
        &self,
        name: Option<String>,
        body: bollard::models::ContainerCreateBody,
    ) -> Result<String, ContainerError> {
        const WHAT: &str = "to make a container";
        let client = self.client(WHAT).await?;
        let image = body.image.clone().unwrap_or_default();
        let options = CreateContainerOptions { name, ..CreateContainerOptions::default() };
        let call = client.create_container(Some(options), body);
        match self.within(WHAT, self.slow(), call).await {
            Ok(made) => Ok(made.id),
            // 404 may also be about the network's container: only a look at the image tells.
            Err(ContainerError::NotFound { what }) => Err(match self.image(&image).await? {
                Some(_) => ContainerError::NotFound { what },
                None => ContainerError::Image { image, why: "it is not on this host".to_owned() },
            }),
            Err(error) => Err(error),
        }
    }
}

#[async_trait]
impl Containers for Docker {
    async fn prepare(&self, owner: &Owner, image: &str) {
        if let Err(error) = self.freedoms(owner, image).await {
            tracing::debug!(%error, "what the daemon may give is found out with the first container");
        }
    }

    async fn daemon(&self) -> Result<DaemonSeen, ContainerError> {
        const WHAT: &str = "about itself";
        let client = self.client(WHAT).await?;
        let info: SystemInfo = self.within(WHAT, self.deadline, client.info()).await?;
        let abilities = Abilities::of(&info);
        *self.remembered() = Some(Link { client, abilities });
        Ok(DaemonSeen {
            version: info.server_version.unwrap_or_default(),
            live_restore: info.live_restore_enabled.unwrap_or(false),
            limits: abilities.all(),
        })
    }

    async fn list(
        &self,
        owner: &Owner,
    ) -> Result<BTreeMap<InstanceName, Known<ContainerSeen>>, ContainerError> {
        const WHAT: &str = "for its containers";
        let client = self.client(WHAT).await?;
        let options = ListContainersOptions {
            all: true,
            filters: Some(answer::filters(&[(
                "label",
                &[&format!("{LABEL_HOST}={}", owner.host), LABEL_INSTANCE],
            )])),
            ..ListContainersOptions::default()
        };
        let rows = self.within(WHAT, self.deadline, client.list_containers(Some(options))).await?;
        let mine = rows.into_iter().filter_map(|row| {
            let labels = row.labels?;
            let instance: InstanceName = labels.get(LABEL_INSTANCE)?.parse().ok()?;
            let fleet = labels.get(LABEL_FLEET)?;
            owner.fleets.contains(fleet).then_some((instance, row.id?, row.created))
        });
        let looks = mine.map(|(instance, id, created)| async move {
            let seen = match self.look(&id).await {
                Ok(seen) => Known::from(seen.and_then(shapes::seen)),
                Err(ContainerError::Deadline { .. }) => {
                    Known::Unknown(WhyUnknown::Deadline("Docker".to_owned()))
                }
                Err(error) => Known::Unknown(WhyUnknown::Error(error.to_string())),
            };
            (instance, created, seen)
        });
        let mut all: BTreeMap<InstanceName, (u8, Option<i64>, Known<ContainerSeen>)> = BTreeMap::new();
        for (instance, created, seen) in join_all(looks).await {
            let weight = match &seen {
                Known::Present(seen) if shapes::runs(&seen.state) => 2,
                Known::Unknown(_) => 1,
                Known::Present(_) => 0,
                // One that went away between the two calls is simply gone.
                Known::Absent => continue,
            };
            if all.get(&instance).is_none_or(|(other, since, _)| (weight, created) > (*other, *since)) {
                all.insert(instance, (weight, created, seen));
            }
        }
        Ok(all.into_iter().map(|(instance, (_, _, seen))| (instance, seen)).collect())
    }

    async fn inspect(&self, id: &str) -> Result<Option<ContainerSeen>, ContainerError> {
        Ok(self.look(id).await?.and_then(shapes::seen))
    }

    async fn changes(&self, owner: &Owner) -> Result<BoxStream<'static, ()>, ContainerError> {
        let client = self.client("for its events").await?;
        // From this moment on, whenever the stream is first polled.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let options = EventsOptions {
            since: Some(format!("{}.{:09}", since.as_secs(), since.subsec_nanos())),
            until: None,
            filters: Some(answer::filters(&[
                ("type", &["container"]),
                ("label", &[&format!("{LABEL_HOST}={}", owner.host), LABEL_INSTANCE]),
                ("event", EVENTS),
            ])),
        };
        let fleets = owner.fleets.clone();
        let wait = self.deadline.max(Duration::from_secs(1));
        let events = client.with_timeout(wait).events(Some(options));
        Ok(events
            .take_while(|event| futures::future::ready(event.is_ok()))
            .filter_map(move |event| {
                let fleet = event.ok().and_then(|event| event.actor?.attributes?.remove(LABEL_FLEET));
                futures::future::ready(fleet.filter(|fleet| fleets.contains(fleet)).map(|_| ()))
            })
            .boxed())
    }

    async fn image(&self, image: &str) -> Result<Option<ImageSeen>, ContainerError> {
        const WHAT: &str = "about an image";
        let client = self.client(WHAT).await?;
        match self.within(WHAT, self.deadline, client.inspect_image(image)).await {
            Ok(seen) => Ok(seen.id.map(|id| ImageSeen { id })),
            Err(ContainerError::NotFound { .. }) => Ok(None),
            // A reference that Docker cannot read (400).
            Err(ContainerError::Refused { status: 400, why, .. }) => {
                Err(ContainerError::Image { image: image.to_owned(), why })
            }
            Err(error) => Err(error),
        }
    }

    async fn pull(&self, image: &str) -> Result<(), ContainerError> {
        const WHAT: &str = "to fetch an image";
        let client = self.client(WHAT).await?;
        let (name, tag) = answer::reference(image);
        let options =
            CreateImageOptions { from_image: Some(name), tag: Some(tag), ..CreateImageOptions::default() };
        let mut progress = client.create_image(Some(options), None, None);
        // A pull may take as long as it moves.
        loop {
            let silence = self.deadline * PULL_SILENCE;
            let next = async { progress.next().await.transpose() };
            match self.within(WHAT, silence, next).await {
                Ok(None) => return Ok(()),
                Ok(Some(_)) => {}
                Err(ContainerError::NotFound { what: why } | ContainerError::Refused { why, .. }) => {
                    return Err(ContainerError::Image { image: image.to_owned(), why });
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn create(&self, owner: &Owner, spec: &ContainerSpec) -> Result<String, ContainerError> {
        let link = self.link("to make a container").await?;
        let freedoms = self.freedoms(owner, &spec.image).await?;
        let body = shapes::server(owner, spec, &link.abilities, freedoms)?;
        match self.make(Some(spec.name.clone()), body.clone()).await {
            Err(ContainerError::Conflict { why }) => {
                let Some(other) = self.look(&spec.name).await? else {
                    return Err(ContainerError::Conflict { why });
                };
                let owned = shapes::owned(owner, &other);
                let Some(seen) = shapes::seen(other).filter(|seen| owned && !shapes::runs(&seen.state))
                else {
                    return Err(ContainerError::Conflict { why });
                };
                self.remove(&seen.id).await?;
                self.make(Some(spec.name.clone()), body).await
            }
            made => made,
        }
    }

    async fn start(&self, id: &str) -> Result<(), ContainerError> {
        const WHAT: &str = "to start a container";
        let client = self.client(WHAT).await?;
        let call = client.start_container(id, None::<StartContainerOptions>);
        self.within(WHAT, self.slow(), call).await
    }

    async fn unpause(&self, id: &str) -> Result<(), ContainerError> {
        const WHAT: &str = "to thaw a container";
        let client = self.client(WHAT).await?;
        let answer = self.within(WHAT, self.slow(), client.unpause_container(id)).await;
        // Docker's code for "not paused" differs between versions: a look decides.
        match answer {
            Err(ContainerError::Refused { .. } | ContainerError::Conflict { .. })
                if self.state(id).await? != Some(ContainerState::Paused) =>
            {
                Ok(())
            }
            other => other,
        }
    }

    async fn kill(&self, id: &str) -> Result<(), ContainerError> {
        self.signal(id, "SIGKILL").await
    }

    async fn terminate(&self, id: &str, grace_seconds: u64) -> Result<(), ContainerError> {
        self.signal(id, "SIGTERM").await?;
        let grace = Duration::from_secs(grace_seconds);
        match self.ended(id, "for a container's end", grace).await {
            Ok(_) | Err(ContainerError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn remove(&self, id: &str) -> Result<(), ContainerError> {
        const WHAT: &str = "to remove a container";
        let client = self.client(WHAT).await?;
        // Images may declare volumes nobody asked for: `v` removes these. Data lie in bind mounts.
        let options = RemoveContainerOptions { v: true, ..RemoveContainerOptions::default() };
        match self.within(WHAT, self.slow(), client.remove_container(id, Some(options))).await {
            Err(ContainerError::NotFound { .. }) => Ok(()),
            other => other,
        }
    }

    async fn set_limits(&self, id: &str, limits: &Resources) -> Result<(), ContainerError> {
        const WHAT: &str = "to set a container's limits";
        let link = self.link(WHAT).await?;
        let Some(body) = shapes::limits(limits, &link.abilities) else {
            return Ok(());
        };
        self.within(WHAT, self.slow(), link.client.update_container(id, body)).await
    }

    async fn output(&self, id: &str, lines: usize) -> Result<Vec<String>, ContainerError> {
        let text = self.text(id, &lines.to_string()).await?;
        Ok(String::from_utf8_lossy(&text).lines().map(str::to_owned).collect())
    }

    async fn run(&self, owner: &Owner, errand: &Errand, seconds: u64) -> Result<ErrandEnd, ContainerError> {
        self.run_errand(owner, errand, Duration::from_secs(seconds)).await
    }

    async fn port_taken(&self, address: &str, port: u16) -> Option<String> {
        port::taken(address, port).await
    }

    async fn remove_errands(&self, owner: &Owner) -> Result<usize, ContainerError> {
        self.sweep_errands(owner).await
    }
}
