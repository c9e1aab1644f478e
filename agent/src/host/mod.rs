//! The loop over the host's instances, and what the host reports of itself.
//!
//! *Expected flow*: [`run`] proves that no other agent has this host's name, follows the store, tells each instance
//! what is asked of it, takes up requests, and reports the host. It ends when its token is cancelled; containers run
//! on.
//!
//! *Guarantees*: nothing is begun before the name is this agent's (or the store is away, and the agent goes on from
//! what it remembers); nothing is taken away on the word of a store that is not believed.

mod alive;
mod docker;
mod report;

pub(crate) use alive::agent_of;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use schemadock_agent_plan::desired::HostDefaults;
use schemadock_agent_plan::observed::TemplateSeen;
use schemadock_schema::keys::Keys;
use schemadock_schema::known::{Known, WhyUnknown};
use schemadock_schema::size::{Resources, offered_memory};
use schemadock_schema::status::StoreState;
use schemadock_schema::{InstanceName, Timestamp};
use schemadock_store::mirror::{Gate, Mirror};
use schemadock_store::{Store, watch};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::containers::{Containers, Owner};
use crate::context::{Context, StepError, Whose};
use crate::disk::{AgentRecord, Disk};
use crate::events::Events;
use crate::facts::{Cache, Facts, worth_remembering};
use crate::instance::{Asked, Instance};
use crate::mysqld::Mysqld;
use crate::requests::Requests;
use crate::settings::Settings;
use crate::wishes::{Remembered, TargetIndex, interest, wishes};

/// What a transaction has changed arrives in parts, one for each watch: news of so long are taken together.
const GATHERED: Duration = Duration::from_millis(2);
/// How long they are left where they can only be of a handover's end: until clients write to the new master.
const LEFT_IN_HANDOVER: Duration = Duration::from_millis(15);
/// How often the loop looks at itself where nothing happens.
const TICK: Duration = Duration::from_secs(1);
/// How long what is remembered waits for the disk: a change of master, which it tells of, has passed by then.
const SAVED_AFTER: Duration = Duration::from_millis(300);

/// What an agent is made of: its settings and the real or simulated parts.
pub struct Parts {
    /// The settings.
    pub settings: Settings,
    /// etcd.
    pub store: Arc<dyn Store>,
    /// Docker.
    pub containers: Arc<dyn Containers>,
    /// Servers.
    pub mysqld: Arc<dyn Mysqld>,
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// Wall time at the start.
    pub now: Timestamp,
    /// Memory and cores of the machine.
    pub machine: Resources,
    /// For jitter and server ids; another one in each life.
    pub seed: u64,
    /// What tells the service manager: ready, alive, a word on the state.
    pub notifier: Box<dyn Fn(Notice) + Send + Sync>,
}

/// What the service manager is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// The agent follows its targets.
    Ready,
    /// The loop that does the work has come round.
    Alive,
}

struct Running {
    instance: Arc<Instance>,
    asked: watch::Sender<Arc<Asked>>,
}

struct Loop {
    ctx: Arc<Context>,
    record: AgentRecord,
    saved: AgentRecord,
    cache: Cache,
    index: TargetIndex,
    instances: BTreeMap<InstanceName, Running>,
    /// Instances that have a directory here, with the cluster of their record.
    remembered: Remembered,
    requests: Requests,
    /// When what has changed is written.
    save_due: Option<Instant>,
    saved_at: Instant,
    /// The cache on disk is older than the one here.
    cache_changed: bool,
    broken: BTreeMap<InstanceName, String>,
}

/// Runs the agent until `stop` is cancelled.
///
/// # Errors
/// When its own state cannot be read.
pub async fn run(parts: Parts, stop: CancellationToken) -> Result<(), StepError> {
    let settings = parts.settings;
    let keys = Keys::new(&settings.prefix);
    let mut record = parts.disk.agent().await?;
    if record.id.is_empty() {
        record.id = uuid::Uuid::new_v4().to_string();
        parts.disk.write_agent(&record).await?;
    }
    let cache = parts.disk.read_cache().await?;
    let gate =
        Gate { expected: record.fleet.clone(), revision: record.revision, went_back: record.went_back };
    let mirror = Mirror::start(parts.store, keys.clone(), gate, parts.seed);
    let clock = Clock::start(parts.now);
    let whose_name = watch::Sender::new(Whose::NotYet);
    let events = Events::start(
        &mirror,
        keys.clone(),
        settings.host.clone(),
        clock,
        parts.seed,
        whose_name.subscribe(),
        stop.clone(),
    );
    let machine = parts.machine;
    let offered = Resources {
        memory: settings.memory.unwrap_or_else(|| offered_memory(machine.memory)),
        cpus: settings.cpus.unwrap_or(machine.cpus),
        disk: None,
    };
    let ctx = Arc::new(Context {
        defaults: HostDefaults {
            host: settings.host.clone(),
            address: settings.address.clone(),
            image: settings.image.clone(),
            offered,
        },
        keys,
        clock,
        mirror,
        containers: parts.containers,
        mysqld: parts.mysqld,
        disk: parts.disk,
        events,
        seen_containers: watch::Sender::new(Known::Unknown(WhyUnknown::NotYet)),
        templates: watch::Sender::new(BTreeMap::<String, TemplateSeen>::new()),
        start_slots: Arc::new(Semaphore::new((machine.cpus.ceil() as usize).max(1))),
        whose_name,
        agent: record.id.clone(),
        owner: watch::Sender::new(None),
        stop: stop.clone(),
        seed: parts.seed,
        ids: Mutex::new(StdRng::seed_from_u64(parts.seed ^ 5)),
        settings,
    });
    let mut remembered = Remembered::new();
    for name in ctx.disk.instances().await? {
        let cluster = ctx.disk.record(&name).await.ok().and_then(|r| r.accepted).map(|a| a.cluster);
        remembered.insert(name, cluster);
    }
    let mut state = Loop {
        saved: record.clone(),
        record,
        cache,
        index: TargetIndex::default(),
        instances: BTreeMap::new(),
        remembered,
        requests: Requests::default(),
        save_due: None,
        saved_at: Instant::now(),
        cache_changed: false,
        broken: BTreeMap::new(),
        ctx: ctx.clone(),
    };
    state.adopt_fleet();
    alive::start(&ctx);
    tokio::spawn(docker::observe(ctx.clone()));
    let mut reporter = report::Reporter::new(&ctx, machine);
    let mut mirror = ctx.mirror.clone();
    let mut containers = ctx.seen_containers.subscribe();
    let mut whose_name = ctx.whose_name.subscribe();
    let mut ready = false;
    loop {
        let may_act = match *whose_name.borrow_and_update() {
            Whose::Ours | Whose::StoreAway => true,
            Whose::NotYet | Whose::Others => false,
        };
        state.pass(may_act).await;
        if may_act {
            // Another agent of this name has the host's document, too.
            reporter.report(&ctx, &state).await;
        }
        if may_act && !ready && mirror.view().reached(&ctx.keys.targets()).is_some() {
            ready = true;
            (parts.notifier)(Notice::Ready);
            tracing::info!(host = %ctx.settings.host, "follows its targets");
        }
        (parts.notifier)(Notice::Alive);
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            () = tokio::time::sleep(GATHERED) => {}
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            () = mirror.changed() => {
                if state.awaits_end_of_handover() {
                    tokio::time::sleep(LEFT_IN_HANDOVER).await;
                }
            }
            _ = containers.changed() => {}
            _ = whose_name.changed() => {}
            () = tokio::time::sleep_until(state.look_again_at()) => {}
        }
    }
    state.save(true).await;
    Ok(())
}

impl Loop {
    /// Follows the store, and tells each instance what is asked of it.
    async fn pass(&mut self, may_act: bool) {
        let ctx = self.ctx.clone();
        let view = ctx.mirror.view();
        self.adopt_fleet();
        let cache = std::mem::take(&mut self.cache);
        let facts = Facts { view: &view, cache: &cache, keys: &ctx.keys };
        self.index.refresh(&facts, &ctx.settings.host);
        self.forget_ended();
        for (name, running) in &self.instances {
            self.remembered.insert(name.clone(), running.instance.cluster());
        }
        self.remember_statuses(&facts);
        let parts = interest(&facts, &self.index, &ctx.settings.host, &self.remembered);
        ctx.mirror.want(parts.clone());
        if may_act && self.record.fleet.is_some() {
            let wishes = wishes(&facts, &self.index, &ctx.defaults, &self.remembered);
            for (name, wish) in wishes {
                self.tell(name, Asked { wish, revision: view.revision }).await;
            }
            let instances: BTreeMap<InstanceName, Arc<Instance>> =
                self.instances.iter().map(|(name, r)| (name.clone(), r.instance.clone())).collect();
            let attended = self.requests.attend(&ctx, &facts, &instances, &mut self.record).await;
            if let Err(error) = attended {
                tracing::debug!(%error, "requests are attended to later");
            }
        }
        let remembered = worth_remembering(&facts, &parts);
        self.cache_changed |= remembered != cache;
        self.cache = remembered;
        self.record.revision = self.record.revision.max(view.revision);
        self.save(false).await;
    }

    /// What is remembered of the store, and with it whose containers are ours.
    fn adopt_fleet(&mut self) {
        let view = self.ctx.mirror.view();
        let went_back = match view.store.as_ref().map(|store| store.state) {
            Some(StoreState::Older) => true,
            Some(StoreState::Ok) => false,
            Some(StoreState::Blank | StoreState::Foreign) | None => self.record.went_back,
        };
        if std::mem::replace(&mut self.record.went_back, went_back) != went_back {
            // On disk before anything is written to such a store.
            self.save_due = Some(Instant::now());
        }
        let seen = view.fleet.clone();
        if let Some(fleet) = seen.filter(|fleet| self.record.fleet.as_ref() != Some(fleet)) {
            if let Some(former) = self.record.fleet.replace(fleet) {
                self.record.former_fleets.push(former);
            }
            self.save_due = Some(Instant::now());
        }
        let owner = self.record.fleet.as_ref().map(|fleet| Owner {
            fleets: self.record.former_fleets.iter().chain([fleet]).cloned().collect(),
            host: self.ctx.settings.host.clone(),
        });
        self.ctx.owner.send_if_modified(|current| {
            let differs = *current != owner;
            *current = owner;
            differs
        });
    }

    fn forget_ended(&mut self) {
        let ended: Vec<InstanceName> = self
            .instances
            .iter()
            .filter(|(_, running)| running.instance.is_forgotten())
            .map(|(name, _)| name.clone())
            .collect();
        for name in ended {
            self.instances.remove(&name);
            self.remembered.remove(&name);
        }
    }

    /// A status of ours without anything behind it is taken away the same way as a deleted target.
    fn remember_statuses(&mut self, facts: &Facts<'_>) {
        let prefix = facts.keys.statuses_of(&self.ctx.settings.host);
        for (key, ..) in facts.below(&prefix) {
            if let Some((_, name)) = facts.keys.host_and_instance(key) {
                self.remembered.entry(name).or_insert(None);
            }
        }
    }

    async fn tell(&mut self, name: InstanceName, asked: Asked) {
        if let Some(running) = self.instances.get(&name) {
            running.asked.send_if_modified(|current| {
                let differs = current.wish != asked.wish;
                if differs || current.revision != asked.revision {
                    *current = Arc::new(asked);
                }
                differs
            });
            return;
        }
        let (sender, receiver) = watch::channel(Arc::new(asked));
        match Instance::start(self.ctx.clone(), name.clone(), receiver).await {
            Ok(instance) => {
                self.broken.remove(&name);
                self.instances.insert(name, Running { instance, asked: sender });
            }
            Err(error) => {
                let message = error.to_string();
                if self.broken.insert(name.clone(), message.clone()).as_ref() != Some(&message) {
                    tracing::error!(instance = %name, error = %message, "it is left as it is");
                }
            }
        }
    }

    /// Whether an instance here takes part in a handover, and none waits for the news that would let it take over.
    fn awaits_end_of_handover(&self) -> bool {
        self.instances().any(|instance| instance.hands_over())
            && !self.instances().any(|instance| instance.awaits_final_set())
    }

    /// When the loop looks at itself at the latest.
    fn look_again_at(&self) -> Instant {
        let tick = Instant::now() + TICK;
        self.save_due.map_or(tick, |due| due.min(tick))
    }

    /// Saves what is remembered, once it is due: at most once in a tick.
    async fn save(&mut self, at_once: bool) {
        if self.record == self.saved && !self.cache_changed {
            self.save_due = None;
            return;
        }
        let soonest = (Instant::now() + SAVED_AFTER).max(self.saved_at + TICK);
        let due = *self.save_due.get_or_insert(soonest);
        if !at_once && Instant::now() < due {
            return;
        }
        self.saved_at = Instant::now();
        // The revision, too: one that lags behind makes a store that went back look like ours.
        if self.record != self.saved {
            match self.ctx.disk.write_agent(&self.record).await {
                Ok(()) => self.saved = self.record.clone(),
                Err(error) => tracing::warn!(%error, "the agent's record cannot be written"),
            }
        }
        if self.cache_changed {
            match self.ctx.disk.write_cache(&self.cache).await {
                Ok(()) => self.cache_changed = false,
                Err(error) => tracing::warn!(%error, "the cache cannot be written"),
            }
        }
        let failed = self.record != self.saved || self.cache_changed;
        self.save_due = failed.then(|| Instant::now() + TICK);
    }

    /// Instances by name, with the limits they take.
    fn instances(&self) -> impl Iterator<Item = &Arc<Instance>> {
        self.instances.values().map(|running| &running.instance)
    }

    /// Instances whose record cannot be read, and why.
    fn broken(&self) -> &BTreeMap<InstanceName, String> {
        &self.broken
    }
}
