//! The converge lane: Docker, disk, settings, seeds. Long work is started and then observed.

use std::sync::Arc;
use std::time::Duration;

use schemadock_agent_plan::converge::{lowers, plan};
use schemadock_agent_plan::observed::{ContainerState, Resident, RetiredSeen, Seen, Stopping, TemplateSeen};
use schemadock_agent_plan::record::DataOrigin;
use schemadock_agent_plan::step::{ConvergeStep as Step, Plan};
use schemadock_agent_plan::wish::Wish;
use schemadock_schema::known::{Known, WhyUnknown};
use schemadock_schema::status::WaitKind;
use schemadock_store::backoff::Delays;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::{Instance, Repeats};
use crate::containers::{ContainerSpec, shape};
use crate::context::StepError;
use crate::disk::{InstanceFile, RetiredWhy};
use crate::failpoints;
use crate::mysqld::Session;
use schemadock_agent_plan::config::{MOUNT, RUN_MOUNT};

/// How often all parts are looked at again where nothing woke the lane.
const SLOW: Duration = Duration::from_secs(5);
/// How long a server may take to give back the memory of a smaller buffer pool, before it is to be restarted for that.
const GIVES_BACK: Duration = Duration::from_secs(30);
/// How often news are acted on.
const NEWS_EVERY: Duration = Duration::from_millis(20);
/// How often settings of a running server are verified.
const SETTINGS_EVERY: Duration = Duration::from_secs(3);
/// A running container whose data directory nobody holds for so long has no mysqld.
const UNHELD: Duration = Duration::from_secs(30);
/// A server that ends within this time of its start did not come up.
const COMES_UP: Duration = Duration::from_secs(30);

pub(super) struct Lane {
    pub(super) instance: Arc<Instance>,
    pub(super) session: Option<Box<dyn Session>>,
    pub(super) delays: Delays,
    /// A place among those that start; given back when the server answers.
    pub(super) slot: Option<OwnedSemaphorePermit>,
    /// When the container was last started by this lane, and the server has not answered yet.
    pub(super) started: Option<Instant>,
    /// Starts in a row after which the server did not answer.
    pub(super) failed_starts: u32,
    pub(super) settings_at: Option<Instant>,
    /// Since when the server is to have less memory.
    lowers_since: Option<Instant>,
    /// Since when nobody holds the data directory of a running container.
    unheld_since: Option<Instant>,
    /// The image as last looked up, so that a steady instance asks Docker nothing.
    image_of: Option<String>,
    /// Steps change files: they are read again.
    files_known: bool,
    repeats: Repeats,
    /// When the last pass began.
    looked_at: Instant,
    /// Between tries of a CLONE.
    pub(super) seed_delays: Delays,
}

pub(super) async fn run(instance: Arc<Instance>) {
    let seed = instance.ctx.seed ^ 2;
    let mut lane = Lane {
        session: None,
        delays: Delays::new(seed, Duration::from_millis(100), Duration::from_secs(20)),
        slot: None,
        started: None,
        failed_starts: 0,
        settings_at: None,
        lowers_since: None,
        unheld_since: None,
        image_of: None,
        files_known: false,
        repeats: Repeats::default(),
        looked_at: Instant::now(),
        seed_delays: Delays::new(seed ^ 8, Duration::from_millis(500), Duration::from_secs(20)),
        instance,
    };
    let stop = lane.instance.stop.clone();
    loop {
        let pause = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            pause = lane.pass() => pause,
        };
        if pause.is_zero() {
            tokio::task::yield_now().await;
            continue;
        }
        tokio::select! {
            biased;
            () = lane.instance.stop.cancelled() => return,
            () = lane.instance.wake_converge.notified() => {}
            () = tokio::time::sleep(pause) => continue,
        }
        // News come in flocks.
        tokio::select! {
            biased;
            () = lane.instance.stop.cancelled() => return,
            () = tokio::time::sleep_until(lane.instance.quiet_until().max(lane.looked_at + NEWS_EVERY)) => {}
        }
    }
}

impl Lane {
    /// Observe, plan, act; returns how long to rest.
    async fn pass(&mut self) -> Duration {
        self.looked_at = Instant::now();
        let (_, wish, _) = self.instance.snapshot();
        self.observe(&wish).await;
        let (_, wish, seen) = self.instance.snapshot();
        let plan = plan(&wish, &seen);
        self.instance.note_converge(&plan, &wish);
        let step = match plan {
            Plan::Do(step) => step,
            Plan::Refuse(reason) => {
                self.refuse_requests(&wish, &reason);
                self.instance.settle().await;
                return SLOW;
            }
            Plan::Wait(waiting) => {
                if matches!(waiting.kind, WaitKind::Maintenance | WaitKind::Paused) {
                    self.refuse_requests(&wish, &waiting.message);
                }
                self.instance.settle().await;
                return match waiting.kind {
                    WaitKind::Slot | WaitKind::Port => Duration::from_millis(500),
                    WaitKind::Seed => Duration::from_millis(500),
                    _ => SLOW,
                };
            }
            Plan::Converged => {
                self.delays.reset();
                self.repeats = Repeats::default();
                self.instance.settle().await;
                self.finish_restart();
                return SETTINGS_EVERY;
            }
        };
        if let (Step::StartContainer { .. }, 1..) = (&step, self.failed_starts) {
            // It ended before it answered: not at once again.
            let pause = self.delays.next_delay();
            tokio::select! {
                biased;
                () = self.instance.stop.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        let name = step.name();
        tracing::debug!(instance = %self.instance.name, step = name, "converge lane");
        failpoints::reach(&name, "before");
        let done = self.act(&step, &wish, &seen).await;
        failpoints::reach(&name, "after");
        self.files_known = false;
        match done {
            Ok(true) => Duration::from_secs(30),
            Ok(false) => {
                self.instance.wake_standing.notify_one();
                if self.repeats.too_many(format!("{step:?}")) {
                    return self.delays.next_delay();
                }
                if self.failed_starts == 0 {
                    self.delays.reset();
                }
                Duration::ZERO
            }
            Err(StepError::Changed(what)) => {
                tracing::debug!(instance = %self.instance.name, step = name, "{what} changed meanwhile");
                self.delays.next_delay()
            }
            Err(error) => {
                self.instance.failed(&name, &error).await;
                self.delays.next_delay()
            }
        }
    }

    /// Reads each part that may have changed.
    async fn observe(&mut self, wish: &Wish) {
        let instance = self.instance.clone();
        let ctx = &instance.ctx;
        if !self.files_known {
            self.read_files().await;
        }
        let data = ctx.disk.data(&instance.name).await;
        let container = match &*ctx.seen_containers.borrow() {
            Known::Present(all) => all.get(&instance.name).cloned().unwrap_or(Known::Absent),
            Known::Absent => Known::Absent,
            Known::Unknown(why) => Known::Unknown(why.clone()),
        };
        let runs = container.present().is_some_and(|c| c.state == ContainerState::Running);
        // While Docker says it runs and it answers, nobody needs to know which process that is.
        let answers = instance.state().seen.server.present().is_some();
        let process = if runs && answers { None } else { Some(ctx.disk.process(&instance.name).await) };
        let desired = wish.desired().cloned();
        let mut template = TemplateSeen::Missing;
        if let Some(desired) = &desired {
            let known = self.image_of.as_deref() == Some(&desired.image)
                && instance.state().seen.image.present().is_some();
            if !known {
                let image = match ctx.containers.image(&desired.image).await {
                    Ok(image) => Known::from(image),
                    Err(error) => Known::Unknown(WhyUnknown::Error(error.to_string())),
                };
                self.image_of = Some(desired.image.clone());
                instance.state().seen.image = image;
            }
            if let Some(image) = instance.state().seen.image.present() {
                let key = template_key(&image.id);
                template = ctx.templates.borrow().get(&key).cloned().unwrap_or(TemplateSeen::Missing);
            }
            instance.state().seen.shape = shape(&self.spec(desired, wish));
            if !runs && process.as_ref().is_some_and(Known::is_absent) {
                let taken = ctx.containers.port_taken(&desired.address, desired.port).await;
                instance.state().seen.port_taken = taken;
            }
        }
        let unheld = runs && !answers && process.as_ref().is_some_and(Known::is_absent);
        self.unheld_since = unheld.then(|| self.unheld_since.unwrap_or_else(Instant::now));
        let unheld = self.unheld_since.is_some_and(|since| since.elapsed() >= instance.ctx.scaled(UNHELD));
        instance.state().seen.unheld = unheld;
        self.take_slot(runs, answers);
        if answers {
            self.look_at_server(wish).await;
        } else {
            self.session = None;
            let mut state = instance.state();
            state.seen.differing = Known::Unknown(WhyUnknown::NotYet);
            state.seen.clone = Known::Unknown(WhyUnknown::NotYet);
        }
        let resident = match (&desired, container.present()) {
            (Some(desired), Some(container)) if answers && lowers(desired, container) => {
                self.resident().await
            }
            _ => {
                self.lowers_since = None;
                Known::Unknown(WhyUnknown::NotYet)
            }
        };
        {
            let mut state = instance.state();
            let ran = state.seen.container_runs();
            state.seen.resident = resident;
            state.seen.data = data;
            state.seen.container = container;
            state.seen.template = template;
            if let Some(process) = process {
                state.seen.process = process;
            }
            if state.seen.container_runs() != ran {
                // How long the other lane rests depends on it.
                instance.wake_standing.notify_one();
            }
        }
        self.judge_start().await;
    }

    /// How much memory the server occupies, that is to have less.
    async fn resident(&mut self) -> Known<Resident> {
        let ctx = self.instance.ctx.clone();
        let since = *self.lowers_since.get_or_insert_with(Instant::now);
        let lasting = since.elapsed() >= ctx.scaled(GIVES_BACK);
        let process = match ctx.disk.process(&self.instance.name).await {
            Known::Present(process) => process,
            Known::Absent => return Known::Absent,
            Known::Unknown(why) => return Known::Unknown(why),
        };
        match ctx.disk.resident(&process).await {
            Known::Present(bytes) => Known::Present(Resident { bytes, lasting }),
            Known::Absent => Known::Absent,
            Known::Unknown(why) => Known::Unknown(why),
        }
    }

    async fn read_files(&mut self) {
        let instance = self.instance.clone();
        let disk = &instance.ctx.disk;
        let read = async |file| disk.read_file(&instance.name, file).await.ok().flatten();
        let config = read(InstanceFile::Config).await;
        let good_config = read(InstanceFile::GoodConfig).await;
        let init = read(InstanceFile::Init).await.is_some();
        let retired = disk.retired().await.unwrap_or_default();
        let mut state = instance.state();
        state.seen.config = config;
        state.seen.good_config = good_config;
        state.seen.init = init;
        state.seen.retired = retired
            .into_iter()
            .filter(|retired| retired.instance == instance.name)
            .map(|retired| RetiredSeen {
                name: retired.name,
                deleted: retired.why == RetiredWhy::Deleted,
                server_uuid: retired.server_uuid,
            })
            .collect();
        self.files_known = true;
    }

    /// At most as many servers start at once as there are cores.
    fn take_slot(&mut self, runs: bool, answers: bool) {
        if answers {
            self.slot = None;
        } else if self.slot.is_none() && !runs {
            self.slot = self.instance.ctx.start_slots.clone().try_acquire_owned().ok();
        }
        self.instance.state().seen.start_slot = self.slot.is_some();
    }

    /// Whether the start under way has come to something.
    async fn judge_start(&mut self) {
        let Some(started) = self.started else { return };
        let (_, wish, seen) = self.instance.snapshot();
        if seen.server.present().is_some() {
            self.started = None;
            self.failed_starts = 0;
            self.instance.state().seen.start_error = None;
            return;
        }
        let ended = matches!(
            seen.container.present().map(|container| container.state),
            Some(ContainerState::Exited { .. } | ContainerState::Dead)
        );
        if !ended {
            return;
        }
        self.started = None;
        self.slot = None;
        // A CLONE ends with an exit with code 0 or 16; a server that was stopped by us ends, too.
        let code = match seen.container.present().map(|container| container.state) {
            Some(ContainerState::Exited { code, .. }) => code,
            _ => 0,
        };
        let cloned = matches!(seen.record.data, DataOrigin::Cloning { .. }) && matches!(code, 0 | 16);
        if cloned || seen.stopping != Stopping::No {
            return;
        }
        let lines = self.keep_log(&seen).await;
        if started.elapsed() < COMES_UP {
            self.failed_starts += 1;
            let error = lines
                .iter()
                .rev()
                .find(|line| line.contains("[ERROR]"))
                .or(lines.last())
                .cloned()
                .unwrap_or_else(|| "mysqld ended without a word".to_owned());
            self.instance.state().seen.start_error = Some(error.clone());
            let error = StepError::Refused(format!("mysqld did not come up: {error}"));
            self.instance.failed("StartContainer", &error).await;
            if self.failed_starts == 1 {
                self.instance.tell(&wish, "failed", error.to_string());
            }
        }
    }

    /// Publishes the last lines of a server that ended unasked.
    pub(super) async fn keep_log(&mut self, seen: &Seen) -> Vec<String> {
        let ctx = &self.instance.ctx;
        let Some(container) = seen.container.present() else { return Vec::new() };
        let lines = ctx.containers.output(&container.id, 50).await.unwrap_or_default();
        let key = ctx.keys.log(&ctx.settings.host, &self.instance.name);
        let log = serde_json::json!({ "at": ctx.clock.now(), "lines": lines });
        let write = schemadock_schema::proposal::Write::document(key, &log);
        if let Err(error) = ctx.commit(vec![write], Vec::new()).await {
            tracing::debug!(instance = %self.instance.name, %error, "the last lines could not be published");
        }
        lines
    }

    fn finish_restart(&mut self) {
        let mut state = self.instance.state();
        if state.requests.restarting {
            state.requests.restarting = false;
            let ids = std::mem::take(&mut state.requests.restart);
            state.requests.done.extend(ids.into_iter().map(|id| (id, Ok(()))));
        } else if !state.requests.restart.is_empty() && !state.seen.container_runs() {
            let ids = std::mem::take(&mut state.requests.restart);
            let why = "it is disabled and does not run".to_owned();
            state.requests.done.extend(ids.into_iter().map(|id| (id, Err(why.clone()))));
        }
    }

    fn refuse_requests(&mut self, wish: &Wish, reason: &str) {
        let mut state = self.instance.state();
        let mut ids = std::mem::take(&mut state.requests.reseed);
        if !ids.is_empty() {
            // What is refused is the reseed; a restart is judged without it.
            self.instance.wake_converge.notify_one();
        } else if !state.requests.restarting && wish.restart_asked {
            ids = std::mem::take(&mut state.requests.restart);
        }
        state.requests.done.extend(ids.into_iter().map(|id| (id, Err(reason.to_owned()))));
    }

    /// The container as it is to be.
    pub(super) fn spec(
        &self,
        desired: &schemadock_agent_plan::desired::Desired,
        wish: &Wish,
    ) -> ContainerSpec {
        let settings = &self.instance.ctx.settings;
        let places = &self.instance.places;
        ContainerSpec {
            name: format!("{}{}", settings.container_prefix, self.instance.name),
            image: desired.image.clone(),
            instance: self.instance.name.clone(),
            cluster: wish.grant.cluster.clone().unwrap_or_else(|| desired.cluster.clone()),
            command: vec![format!("--defaults-file={MOUNT}/my.cnf")],
            user: self.instance.ctx.server_user(),
            mounts: vec![
                (places.mount.clone(), MOUNT.to_owned()),
                (places.run.clone(), RUN_MOUNT.to_owned()),
            ],
            network: settings.network.clone(),
            limits: desired.limits,
        }
    }
}

/// Templates are kept by the image's id.
pub(super) fn template_key(image_id: &str) -> String {
    image_id.trim_start_matches("sha256:").chars().take(16).collect()
}
