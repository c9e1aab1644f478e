//! What each step is expected to bring, so that plans can be played through without a server: for `diff`, dry runs and
//! tests. An agent never acts on it: it looks again after every step.
//!
//! Expected is the good end: a CLONE completes, a server comes up, what the file says is settable can be set. Long work
//! ends at once.

mod change;
mod standing_steps;
mod words;

use std::ops::ControlFlow;

use schemadock_schema::gtid::GtidSet;
use schemadock_schema::known::{Known, WhyUnknown};
use schemadock_schema::leadership::{Durability, Leadership, LeadershipPhase, LineageEntry};
use schemadock_schema::secrets::{Secrets, replication_user};
use schemadock_schema::{InstanceName, Timestamp};

use crate::accounts;
use crate::config::with_setting;
use crate::converge::{self, judgement};
use crate::observed::{
    AccountSeen, AcksSeen, ChannelSeen, CloneSeen, CloneState, ContainerSeen, ContainerState, DataSeen,
    ImageSeen, ProcessSeen, Resident, RetiredSeen, Seen, ServerSeen, Stopping, TemplateSeen, ThreadState,
    Work,
};
use crate::record::{DataOrigin, Record, RejectedConfig};
use crate::standing;
use crate::step::{ConvergeStep, Plan, StandingStep};
use crate::wish::{Wanted, Wish};

pub use change::{Change, Other, steps_of_change};

/// More steps than any way to the end takes.
pub const LIMIT: usize = 100;

/// A step of either lane.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Of the standing lane.
    Standing(StandingStep),
    /// Of the converge lane.
    Converge(ConvergeStep),
}

/// Steps in order, and where they lead.
#[derive(Debug, Clone, PartialEq)]
pub struct Course {
    /// The steps.
    pub steps: Vec<Step>,
    /// The same for people.
    pub lines: Vec<String>,
    /// How they end.
    pub end: End,
    /// What is seen at the end.
    pub seen: Seen,
    /// What is wished at the end.
    pub wish: Wish,
}

/// How a course ends.
#[derive(Debug, Clone, PartialEq)]
pub enum End {
    /// Neither lane has a next step.
    Rest {
        /// Why the standing lane has none.
        standing: Plan<StandingStep>,
        /// Why the converge lane has none.
        converge: Plan<ConvergeStep>,
    },
    /// The instance is forgotten.
    Forgotten,
    /// After [`LIMIT`] steps there was still one.
    Endless,
}

/// The next step, the standing lane's first: it is the faster one.
pub fn next(seen: &Seen, wish: &Wish) -> ControlFlow<End, Step> {
    let standing = standing::plan(wish, seen);
    if let Plan::Do(step) = standing {
        return ControlFlow::Continue(Step::Standing(step));
    }
    match converge::plan(wish, seen) {
        Plan::Do(step) => ControlFlow::Continue(Step::Converge(step)),
        converge => ControlFlow::Break(End::Rest { standing, converge }),
    }
}

/// All steps until both lanes rest.
pub fn steps(seen: &Seen, wish: &Wish) -> Course {
    let (mut seen, mut wish) = (seen.clone(), wish.clone());
    let (mut steps, mut lines) = (Vec::new(), Vec::new());
    let end = loop {
        if steps.len() == LIMIT {
            break End::Endless;
        }
        let step = match next(&seen, &wish) {
            ControlFlow::Continue(step) => step,
            ControlFlow::Break(end) => break end,
        };
        lines.push(words::line(&step, &wish));
        (seen, wish) = foresee(&seen, &wish, &step);
        let last = step == Step::Converge(ConvergeStep::Forget);
        steps.push(step);
        if last {
            break End::Forgotten;
        }
    };
    Course { steps, lines, end, seen, wish }
}

/// What a step is expected to bring.
pub fn foresee(seen: &Seen, wish: &Wish, step: &Step) -> (Seen, Wish) {
    let (mut seen, mut wish) = (seen.clone(), wish.clone());
    match step {
        Step::Standing(step) => standing_steps::standing_step(&mut seen, &mut wish, step),
        Step::Converge(step) => converge_step(&mut seen, &mut wish, step),
    }
    (seen, wish)
}

fn not_yet<T>() -> Known<T> {
    Known::Unknown(WhyUnknown::NotYet)
}

/// A number that is the same for the same text.
fn number_of(text: &str) -> u64 {
    u64::from_str_radix(&judgement(text, ""), 16).unwrap_or_default()
}

fn server_id(instance: &InstanceName) -> u32 {
    1_000 + (number_of(instance.as_str()) % 2_000_000_000) as u32
}

/// The identity that the data directory of an instance is foreseen to get.
fn server_uuid(instance: &InstanceName, seeded: bool) -> String {
    let low = number_of(instance.as_str()) >> 16;
    format!("00000000-0000-{}000-8000-{low:012x}", u8::from(seeded))
}

/// What the cluster has executed, as far as this instance can see.
fn executed_by_others(seen: &Seen, wish: &Wish) -> GtidSet {
    let base = wish.grant.record().and_then(Leadership::last_lineage).map(|led| led.base.clone());
    let other = seen.leader.present().or(seen.source.present()).map(|other| other.gtid_executed.clone());
    base.unwrap_or_default().union(&other.unwrap_or_default())
}

fn with_server(seen: &mut Seen, change: impl FnOnce(&mut ServerSeen)) {
    if let Known::Present(server) = &mut seen.server {
        change(server);
    }
}

fn with_channel(seen: &mut Seen, change: impl FnOnce(&mut ChannelSeen)) {
    with_server(seen, |server| {
        if let Some(channel) = &mut server.channel {
            change(channel);
        }
    });
}

fn wanted_accounts(wish: &Wish) -> Known<Vec<AccountSeen>> {
    let Some(secrets) = wish.grant.secrets.present() else { return not_yet() };
    let all = accounts::wanted(secrets, wish.followers.iter().copied());
    let seen = |a: accounts::Account| AccountSeen { user: a.user, host: a.host.to_owned(), locked: false };
    Known::Present(all.into_iter().map(seen).collect())
}

fn channel(seen: &Seen, host: &str, port: u16, state: ThreadState) -> ChannelSeen {
    ChannelSeen {
        host: host.to_owned(),
        port,
        user: seen.record.server_id.map(replication_user).unwrap_or_default(),
        auto_position: true,
        ssl: true,
        receiver: state,
        applier: state,
        retrieved: GtidSet::new(),
        receiver_error: None,
        applier_error: None,
        source_uuid: seen.source.present().map(|source| source.server_uuid.clone()),
        lag_seconds: None,
        delay: 0,
    }
}

/// The server has come up: closed, and what its source had is still to be fetched.
fn started(seen: &mut Seen, wish: &Wish) {
    let cloning = matches!(seen.record.data, DataOrigin::Cloning { .. });
    let template = seen.record.data == DataOrigin::Template;
    let known = seen.data.present().and_then(|data| data.server_uuid.clone());
    let uuid = known.unwrap_or_else(|| server_uuid(&wish.instance, cloning));
    let version = match &seen.template {
        TemplateSeen::Ready { version } => Some(version.clone()),
        _ => wish.members.iter().find_map(|member| member.version.clone()),
    };
    let source = wish.source.as_ref().and_then(|s| Some((s.address.present()?.clone(), s.port)));
    // A channel is in the data; its threads are not started with the server.
    let followed = source.filter(|_| seen.record.data == DataOrigin::Own && !wish.leads());
    let channel = followed.map(|(host, port)| channel(seen, &host, port, ThreadState::Off));
    let executed = if template { GtidSet::new() } else { executed_by_others(seen, wish) };
    seen.server = Known::Present(ServerSeen {
        server_uuid: uuid.clone(),
        server_id: seen.record.server_id.unwrap_or_default(),
        version: version.unwrap_or_else(|| "8.4.0".to_owned()),
        offline_mode: true,
        super_read_only: true,
        read_only: true,
        gtid_purged: if cloning { executed.clone() } else { GtidSet::new() },
        gtid_executed: executed,
        channel,
        semi_sync_source: false,
        acks: AcksSeen::default(),
        semi_sync_replica: false,
        acknowledging: false,
        receivers: Default::default(),
        acknowledgers: Default::default(),
        events: false,
        uptime: 0,
    });
    seen.data = Known::Present(DataSeen { server_uuid: Some(uuid), complete: true });
    seen.differing = Known::Present(Vec::new());
    seen.accounts = wanted_accounts(wish);
    seen.start_error = None;
    seen.unheld = false;
    seen.voting = Default::default();
}

fn ended(seen: &mut Seen) {
    if let Known::Present(container) = &mut seen.container
        && matches!(container.state, ContainerState::Running | ContainerState::Paused)
    {
        container.state = ContainerState::Exited { code: 0, out_of_memory: false };
        container.pid = None;
    }
    seen.process = Known::Absent;
    seen.server = Known::Absent;
    seen.accounts = not_yet();
    seen.differing = not_yet();
    seen.unheld = false;
    seen.resident = Known::Present(Resident { bytes: 0, lasting: false });
}

fn converge_step(seen: &mut Seen, wish: &mut Wish, step: &ConvergeStep) {
    use ConvergeStep as S;
    let desired = wish.desired().cloned();
    match step {
        S::TakeServerId => seen.record.server_id = Some(server_id(&wish.instance)),
        S::MakeSecrets => {
            wish.grant.secrets = Known::Present(Secrets::from_random(|| "foreseen".to_owned(), "00000000"));
        }
        S::PullImage => {
            seen.image = Known::Present(ImageSeen { id: "foreseen".to_owned() });
            seen.pull = Work::Idle;
        }
        S::MakeTemplate => {
            let known = wish.members.iter().find_map(|member| member.version.clone());
            seen.template = TemplateSeen::Ready { version: known.unwrap_or_else(|| "8.4.0".to_owned()) };
        }
        S::AdoptData => {
            seen.record.data = DataOrigin::Own;
            seen.record.server_uuid = seen.data.present().and_then(|data| data.server_uuid.clone());
        }
        S::CopyTemplate => {
            seen.record = Record {
                server_id: seen.record.server_id,
                attempts: seen.record.attempts,
                data: DataOrigin::Template,
                ..Record::default()
            };
            seen.data = Known::Present(DataSeen { server_uuid: None, complete: true });
            (seen.config, seen.good_config) = (None, None);
        }
        S::TakeUp { name } => {
            let uuid = seen.retired.iter().find(|r| r.name == *name).and_then(|r| r.server_uuid.clone());
            seen.retired.retain(|retired| retired.name != *name);
            seen.record.data = if uuid.is_some() { DataOrigin::Own } else { DataOrigin::Template };
            seen.record.server_uuid.clone_from(&uuid);
            seen.data = Known::Present(DataSeen { server_uuid: uuid, complete: true });
        }
        S::Replace { why } => seen.record.replacing = Some(why.clone()),
        S::KeepData { .. } => seen.record.replacing = None,
        S::SetAside => {
            if let Known::Present(data) = &seen.data {
                seen.retired.push(RetiredSeen {
                    name: format!("foreseen-{}", seen.retired.len()),
                    deleted: wish.wanted == Wanted::Deleted,
                    server_uuid: data.server_uuid.clone(),
                });
                (seen.config, seen.good_config, seen.init) = (None, None, false);
            }
            seen.data = Known::Absent;
            seen.record = Record::default();
            seen.judged = None;
            seen.accounts_version = None;
            wish.reseed_asked = false;
        }
        S::Validate { config } => {
            let image = desired.map(|desired| desired.image).unwrap_or_default();
            seen.record.validated = Some(judgement(&config.render(), &image));
            seen.record.rejected = None;
        }
        S::WriteConfig { config } => {
            seen.config = Some(config.render());
            seen.unsettable.clear();
        }
        S::RestoreConfig { error } => {
            let image = desired.map(|desired| desired.image).unwrap_or_default();
            let hash = judgement(seen.config.as_deref().unwrap_or_default(), &image);
            seen.record.rejected = Some(RejectedConfig { hash, error: error.clone() });
            seen.config.clone_from(&seen.good_config);
            seen.start_error = None;
        }
        S::WriteInit => seen.init = true,
        S::CreateContainer => {
            if let Some(desired) = desired {
                seen.container = Known::Present(ContainerSeen {
                    id: "foreseen".to_owned(),
                    image_id: desired.image.clone(),
                    image: desired.image,
                    state: ContainerState::Created,
                    pid: None,
                    shape: Some(seen.shape.clone()),
                    memory: desired.limits.memory,
                    nano_cpus: (desired.limits.cpus * 1e9) as u64,
                });
            }
        }
        S::StartContainer { .. } => {
            seen.record.in_force.clone_from(&seen.config);
            seen.stopping = Stopping::No;
            seen.unsettable.clear();
            runs(seen);
            started(seen, wish);
        }
        S::Unpause => {
            runs(seen);
            if seen.server.present().is_none() {
                started(seen, wish);
            }
        }
        S::Stop { .. } => {
            ended(seen);
            seen.stopping = Stopping::Closed { read_only_returned: true };
            wish.restart_asked = false;
        }
        S::EndLost => ended(seen),
        S::RemoveContainer { .. } => seen.container = Known::Absent,
        S::KeepIdentity { server_uuid } => seen.record.server_uuid = Some(server_uuid.clone()),
        S::KeepGoodConfig => {
            seen.good_config.clone_from(&seen.config);
            seen.init = false;
        }
        S::SetVariable { name, found, .. } => set_variable(seen, name, found.is_some()),
        S::SetLimits => {
            if let (Known::Present(container), Some(desired)) = (&mut seen.container, desired) {
                container.memory = desired.limits.memory;
                container.nano_cpus = (desired.limits.cpus * 1e9) as u64;
            }
        }
        S::Seed { donor, .. } => {
            ended(seen);
            seen.record.data = DataOrigin::Cloning { donor: donor.clone(), since: Timestamp::UNIX_EPOCH };
            // The recipient ends when all is there, and has an identity of its own at its next start.
            seen.data = Known::Present(DataSeen { server_uuid: None, complete: true });
            let all = CloneSeen { state: CloneState::Completed, bytes: 0, bytes_total: 0, error: None };
            seen.clone = Known::Present(all);
            seen.seed = Work::Idle;
        }
        S::FinishSeed => {
            seen.record.data = DataOrigin::Own;
            seen.record.server_uuid = seen.server.present().map(|server| server.server_uuid.clone());
            seen.clone = not_yet();
        }
        S::Release => {
            if let Known::Present(record) = &mut wish.grant.leadership {
                record.master = None;
                record.voters.clear();
                record.leaving.clear();
                (record.acks, record.acks_next) = (0, None);
            }
        }
        S::Forget => seen.record = Record::default(),
    }
}

fn runs(seen: &mut Seen) {
    if let Known::Present(container) = &mut seen.container {
        container.state = ContainerState::Running;
        container.pid = Some(1);
    }
    seen.process = Known::Present(ProcessSeen { pid: 1, started: 0 });
}

/// Settings of our own file that a running server cannot change.
const STATIC: [&str; 6] = [
    "report_host",
    "report_port",
    "innodb_buffer_pool_chunk_size",
    "performance_schema_digests_size",
    "performance_schema_events_",
    "performance_schema_max_memory_classes",
];

fn set_variable(seen: &mut Seen, name: &str, drift: bool) {
    if STATIC.iter().any(|fixed| name.starts_with(fixed)) {
        seen.unsettable.insert(name.to_owned(), "it can only be set at the server's start".to_owned());
    } else if drift {
        if let Known::Present(differing) = &mut seen.differing {
            differing.retain(|(own, ..)| own != name);
        }
    } else if let Some(in_force) = &seen.record.in_force {
        let prefix = format!("{name}=");
        let config = seen.config.as_deref().unwrap_or_default();
        let line = config.lines().find(|line| line.starts_with(&prefix));
        seen.record.in_force = Some(with_setting(in_force, name, line));
    }
}

/// What the source has arrives, and is applied where the applier runs.
fn catches_up(seen: &mut Seen) {
    let source = seen.source.present().map(|source| source.gtid_executed.clone()).unwrap_or_default();
    with_server(seen, |server| {
        let Some(channel) = &mut server.channel else { return };
        if channel.receiver == ThreadState::On {
            channel.retrieved = channel.retrieved.union(&source.minus(&server.gtid_executed));
        }
        if channel.applier == ThreadState::On {
            server.gtid_executed = server.gtid_executed.union(&channel.retrieved);
        }
    });
}

/// The record of a new cluster promises nothing: async, no voters.
fn claim(seen: &Seen, wish: &mut Wish) {
    let Known::Present(server) = &seen.server else { return };
    let before = wish.grant.record();
    let term = before.map_or(1, |record| record.term + 1);
    let mut lineage = before.map(|record| record.lineage.clone()).unwrap_or_default();
    lineage.push(LineageEntry {
        term,
        name: wish.instance.clone(),
        server_uuid: server.server_uuid.clone(),
        base: server.gtid_executed.clone(),
    });
    let founder = before.map_or_else(|| server.server_uuid.clone(), |record| record.founder.clone());
    wish.grant.leadership = Known::Present(Leadership {
        term,
        master: Some(wish.instance.clone()),
        phase: LeadershipPhase::Steady,
        to: None,
        deadline: None,
        voters: Vec::new(),
        acks: 0,
        acks_next: None,
        leaving: Vec::new(),
        durability: Durability::Async,
        founder,
        settled: before.map(|record| record.settled.clone()).unwrap_or_default(),
        lineage,
        by: "foreseen".to_owned(),
        reason: String::new(),
    });
}
