//! One instance: what is known of it, and its two lanes.
//!
//! | module | holds |
//! |---|---|
//! | [`standing`] | the lane that answers in milliseconds: who writes, who follows whom |
//! | [`probing`] | what that lane asks of other servers |
//! | [`handover`] | that lane's steps when the leadership is handed over |
//! | [`voting`] | that lane's steps about voters |
//! | [`accounts`], [`claim`], [`foreign`] | that lane's steps about accounts, a free leadership, foreign transactions |
//! | [`opening`] | the permit that only a linearizable read can make |
//! | [`converge`] | the lane of Docker, disk, settings and seeds |
//! | [`provision`], [`running`] | steps of the converge lane before and after the server answers |
//! | [`publish`] | when a status is worth a write |

mod accounts;
mod claim;
mod converge;
mod events;
mod foreign;
mod frozen;
mod handover;
mod hearing;
mod opening;
mod probing;
mod provision;
mod publish;
mod running;
mod standing;
mod voting;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use schemadock_agent_plan::observed::{HandoverSeen, Seen, Stopping, TemplateSeen, VotingSeen, Work};
use schemadock_agent_plan::record::Record;
use schemadock_agent_plan::report::{Outcome, status, would_forget};
use schemadock_agent_plan::step::{ConvergeStep, Plan, StandingStep};
use schemadock_agent_plan::wish::Wish;
use schemadock_schema::InstanceName;
use schemadock_schema::known::{Known, WhyUnknown};
use schemadock_schema::secrets::{AGENT_USER, Secrets};
use schemadock_schema::status::{SeedReport, Status, WaitKind};
use schemadock_store::watch;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::handover::LEAVES_TO_CLIENTS;
use crate::context::{Context, StepError};
use crate::disk::Places;
use crate::mysqld::{Endpoint, Login, Session};

/// What the host's loop asks of the instance.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// The wish.
    pub wish: Wish,
    /// The revision of the store that it was made from.
    pub revision: i64,
}

/// One instance. Its lanes run until it is forgotten or the agent ends.
pub struct Instance {
    ctx: Arc<Context>,
    name: InstanceName,
    places: Places,
    asked: watch::Receiver<Arc<Asked>>,
    state: Mutex<State>,
    record: tokio::sync::Mutex<()>,
    wake_standing: Notify,
    wake_converge: Notify,
    status: watch::Sender<Option<Status>>,
    /// Ends this instance's tasks.
    stop: CancellationToken,
}

struct State {
    seen: Seen,
    outcome: Outcome,
    requests: Requests,
    /// What each lane has last planned for; none before its first plan, when there is nothing to report.
    planned: (Option<PlannedFor>, Option<PlannedFor>),
    /// Until when what can wait leaves disks and processors to a new master and its clients.
    quiet_until: Instant,
    /// The mending of drift, by what was found: when.
    mended: BTreeMap<String, Vec<std::time::Duration>>,
}

/// The revisions of target and policy that a plan was made for. A status names those that both lanes have planned for:
/// else it would call the new target converged on the old plan of one of them.
type PlannedFor = (Option<i64>, Option<i64>);

/// What was asked for once.
#[derive(Debug, Default)]
struct Requests {
    restart: Vec<String>,
    /// The server was ended for a restart and is to come back.
    restarting: bool,
    reseed: Vec<String>,
    /// Requests done, to be told.
    done: Vec<(String, Result<(), String>)>,
}

/// A step that succeeds again and again without bringing what it is for: it backs off like one that fails.
#[derive(Debug, Default)]
struct Repeats {
    last: String,
    times: u32,
}

impl Repeats {
    /// Counts a step that succeeded; `true`: the same one more than 5 times in a row.
    fn too_many(&mut self, step: String) -> bool {
        self.times = if self.last == step { self.times + 1 } else { 1 };
        self.last = step;
        self.times > 5
    }
}

/// How requests of one instance ended, by their ids.
pub type Ended = Vec<(String, Result<(), String>)>;

impl Instance {
    /// Starts the lanes of an instance.
    ///
    /// # Errors
    /// When its record cannot be read: then nothing is touched.
    pub async fn start(
        ctx: Arc<Context>,
        name: InstanceName,
        asked: watch::Receiver<Arc<Asked>>,
    ) -> Result<Arc<Instance>, StepError> {
        let places = ctx.disk.places(&name).await?;
        let record = ctx.disk.record(&name).await?;
        let stop = ctx.stop.child_token();
        let instance = Arc::new(Instance {
            places,
            state: Mutex::new(State {
                seen: nothing_seen(record),
                outcome: Outcome {
                    standing: Plan::wait(WaitKind::Server, &name, ""),
                    converge: Plan::wait(WaitKind::Server, &name, ""),
                    error: None,
                    seed: None,
                },
                requests: Requests::default(),
                planned: (None, None),
                quiet_until: Instant::now(),
                mended: BTreeMap::new(),
            }),
            record: tokio::sync::Mutex::new(()),
            wake_standing: Notify::new(),
            wake_converge: Notify::new(),
            status: watch::Sender::new(None),
            stop,
            asked,
            name,
            ctx,
        });
        tokio::spawn(publish::run(instance.clone()));
        tokio::spawn(standing::run(instance.clone()));
        tokio::spawn(converge::run(instance.clone()));
        tokio::spawn(wake_on_news(instance.clone()));
        Ok(instance)
    }

    /// Its name.
    pub fn name(&self) -> &InstanceName {
        &self.name
    }

    /// Its status as last composed.
    pub fn status(&self) -> Option<Status> {
        self.status.borrow().clone()
    }

    /// The cluster of its record or of its wish.
    pub fn cluster(&self) -> Option<schemadock_schema::ClusterName> {
        let recorded = self.state().seen.record.accepted.as_ref().map(|accepted| accepted.cluster.clone());
        recorded.or_else(|| self.asked.borrow().wish.grant.cluster.clone())
    }

    /// The newest term accepted, and the server id.
    pub fn remembered(&self) -> (Option<u64>, Option<u32>) {
        let state = self.state();
        (state.seen.record.accepted.as_ref().map(|a| a.term), state.seen.record.server_id)
    }

    /// Whether its lanes have ended because nothing is left of it.
    pub fn is_forgotten(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Whether its cluster's leadership is being handed over.
    pub fn hands_over(&self) -> bool {
        self.asked.borrow().wish.hands_over()
    }

    /// Whether it is to take over, and the old master's vote may still have to tell it when.
    pub fn awaits_final_set(&self) -> bool {
        let asked = self.asked.borrow();
        let term = asked.wish.grant.record().map(|record| record.term);
        let heard = self.state().seen.handover.heard.as_ref().map(|vote| vote.term);
        asked.wish.is_candidate() && heard != term
    }

    /// Asks for a restart; the id comes back by [`Instance::take_ended`].
    pub fn ask_restart(&self, id: String) {
        self.state().requests.restart.push(id);
        self.wake_converge.notify_one();
    }

    /// Asks for a reseed; the id comes back by [`Instance::take_ended`].
    pub fn ask_reseed(&self, id: String) {
        self.state().requests.reseed.push(id);
        self.wake_converge.notify_one();
    }

    /// Requests that have ended since the last call.
    pub fn take_ended(&self) -> Ended {
        std::mem::take(&mut self.state().requests.done)
    }

    /// Writes the status even where nothing changed.
    pub fn refresh(&self) {
        self.status.send_modify(|_| {});
        self.wake_standing.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }

    /// What is asked and what is known, at this moment.
    fn snapshot(&self) -> (Arc<Asked>, Wish, Seen) {
        let asked = self.asked.borrow().clone();
        let state = self.state();
        let mut wish = asked.wish.clone();
        wish.restart_asked = !state.requests.restart.is_empty() && !state.requests.restarting;
        wish.reseed_asked = !state.requests.reseed.is_empty();
        (asked, wish, state.seen.clone())
    }

    /// Changes the record: on disk first, then what is known.
    async fn update_record(&self, change: impl FnOnce(&mut Record)) -> Result<(), StepError> {
        let _one_at_a_time = self.record.lock().await;
        let before = self.state().seen.record.clone();
        let mut record = before.clone();
        change(&mut record);
        if record != before {
            self.ctx.disk.write_record(&self.name, &record).await?;
            self.state().seen.record = record;
        }
        Ok(())
    }

    /// Reads the record anew, after data with their own record were taken up or set aside.
    async fn reload_record(&self) -> Result<(), StepError> {
        let _one_at_a_time = self.record.lock().await;
        let record = self.ctx.disk.record(&self.name).await?;
        self.state().seen.record = record;
        Ok(())
    }

    fn quiet_until(&self) -> Instant {
        self.state().quiet_until
    }

    fn note_standing(&self, plan: &Plan<StandingStep>, wish: &Wish) {
        {
            let mut state = self.state();
            state.outcome.standing = plan.clone();
            state.planned.0 = Some((wish.target_revision, wish.policy_revision));
        }
        self.compose();
    }

    fn note_converge(&self, plan: &Plan<ConvergeStep>, wish: &Wish) {
        {
            let mut state = self.state();
            state.outcome.converge = plan.clone();
            state.planned.1 = Some((wish.target_revision, wish.policy_revision));
        }
        self.compose();
    }

    fn note_error(&self, error: Option<String>) {
        self.state().outcome.error = error;
        self.compose();
    }

    fn note_seed(&self, seed: Option<SeedReport>) {
        self.state().outcome.seed = seed;
        self.compose();
    }

    /// Composes the status anew and lets the publisher know when it differs.
    fn compose(&self) {
        let (Some(standing), Some(converge)) = self.state().planned else { return };
        let (_, mut wish, seen) = self.snapshot();
        (wish.target_revision, wish.policy_revision) =
            (standing.0.min(converge.0), standing.1.min(converge.1));
        if would_forget(&wish, &seen) {
            return;
        }
        let outcome = self.state().outcome.clone();
        let now = self.ctx.clock.now();
        let previous = self.status.borrow().clone();
        let composed = status(&wish, &seen, &outcome, &self.ctx.settings.host, previous.as_ref(), now);
        self.status.send_if_modified(|current| {
            let same = current.as_ref().is_some_and(|current| {
                let mut timeless = composed.clone();
                timeless.updated_at = current.updated_at;
                timeless == *current
            });
            if !same {
                *current = Some(composed);
            }
            !same
        });
    }

    /// Who may log in to the own server: the cluster's agent, or the source cluster's after a CLONE from there.
    fn logins(&self, wish: &Wish) -> Vec<Login> {
        let source = wish.source.as_ref().map(|source| &source.secrets);
        let all = [Some(&wish.grant.secrets), source];
        let mut logins: Vec<Login> = all
            .into_iter()
            .flatten()
            .filter_map(Known::present)
            .map(|secrets: &Secrets| Login { user: AGENT_USER.to_owned(), password: secrets.agent.clone() })
            .collect();
        logins.dedup();
        logins
    }

    /// A session on the own server.
    async fn session(&self, wish: &Wish) -> Result<Box<dyn Session>, crate::mysqld::MysqlError> {
        const ACCESS_DENIED: u16 = 1045;
        let endpoint = Endpoint::Socket(self.places.socket.clone());
        let deadline = std::time::Duration::from_secs(1);
        let mut last = None;
        for login in self.logins(wish) {
            match self.ctx.mysqld.connect(&endpoint, &login, deadline).await {
                Err(error) if error.number() == Some(ACCESS_DENIED) => last = Some(error),
                result => return result,
            }
        }
        Err(last.unwrap_or(crate::mysqld::MysqlError::Connection {
            endpoint: endpoint.to_string(),
            why: "no credentials are known yet".to_owned(),
        }))
    }

    /// Tells what was mended. The same thing more than 5 times in a minute is somebody undoing it: told once, and
    /// `true` means that the lane should leave it for a while.
    fn mended(&self, wish: &Wish, step: &str, found: &str) -> bool {
        const MINUTE: std::time::Duration = std::time::Duration::from_secs(60);
        let now = self.ctx.clock.elapsed();
        let count = {
            let mut state = self.state();
            let times = state.mended.entry(step.to_owned()).or_default();
            times.retain(|at| now.saturating_sub(*at) < MINUTE);
            times.push(now);
            times.len()
        };
        let cluster = wish.grant.cluster.as_ref();
        match count {
            0..=5 => self.ctx.events.tell(cluster, Some(&self.name), "mended", format!("mended: {found}")),
            6 => self.ctx.events.tell(
                cluster,
                Some(&self.name),
                "undone",
                format!("someone undoes this, it was mended 5 times in a minute: {found}"),
            ),
            _ => {}
        }
        count > 5
    }

    /// Waits until the wish is made from this revision or a later one; at most 2 s.
    async fn await_revision(&self, revision: i64) {
        let mut asked = self.asked.clone();
        let reached = asked.wait_for(|asked| asked.revision >= revision);
        // Not in time or not at all: then it is planned with what there is.
        let _ = tokio::time::timeout(std::time::Duration::from_secs(2), reached).await;
    }

    /// Counts a failed try and shows it.
    async fn failed(&self, step: &str, error: &StepError) {
        let message = error.to_string();
        let news = self.state().outcome.error.as_deref() != Some(&message);
        if news {
            tracing::warn!(instance = %self.name, step, error = %message, "a step failed; it is tried again");
        }
        if let Err(error) =
            self.update_record(|record| record.attempts = record.attempts.saturating_add(1)).await
        {
            tracing::warn!(instance = %self.name, %error, "the record cannot be written");
        }
        self.note_error(Some(message));
    }

    /// Without a step under way there is no error any more; converged, the tries are counted anew.
    async fn settle(&self) {
        let (quiet, converged) = {
            let outcome = &self.state().outcome;
            let quiet = !matches!(outcome.standing, Plan::Do(_)) && !matches!(outcome.converge, Plan::Do(_));
            let converged = outcome.standing == Plan::Converged && outcome.converge == Plan::Converged;
            (quiet && outcome.error.is_some(), converged)
        };
        if quiet {
            self.note_error(None);
        }
        if converged && let Err(error) = self.update_record(|record| record.attempts = 0).await {
            tracing::warn!(instance = %self.name, %error, "the record cannot be written");
        }
    }

    fn tell(&self, wish: &Wish, kind: &str, message: impl Into<String>) {
        self.ctx.events.tell(wish.grant.cluster.as_ref(), Some(&self.name), kind, message);
    }
}

/// Where a member listens, as far as that is known.
fn endpoint_of(wish: &Wish, name: &InstanceName) -> Option<Endpoint> {
    let member = wish.members.iter().find(|member| member.name == *name)?;
    Some(Endpoint::Tcp { host: member.address.clone()?, port: member.port })
}

async fn wake_on_news(instance: Arc<Instance>) {
    let mut asked = instance.asked.clone();
    let mut handed_over = asked.borrow().wish.hands_over();
    let mut containers = instance.ctx.seen_containers.subscribe();
    let mut templates = instance.ctx.templates.subscribe();
    loop {
        tokio::select! {
            biased;
            () = instance.stop.cancelled() => return,
            changed = asked.changed() => {
                if changed.is_err() {
                    return;
                }
                let hands_over = asked.borrow_and_update().wish.hands_over();
                if std::mem::replace(&mut handed_over, hands_over) && !hands_over {
                    instance.state().quiet_until = Instant::now() + LEAVES_TO_CLIENTS;
                }
                instance.wake_standing.notify_one();
                if !hands_over {
                    instance.wake_converge.notify_one();
                }
                continue;
            }
            changed = containers.changed() => if changed.is_err() { return },
            changed = templates.changed() => if changed.is_err() { return },
        }
        instance.wake_standing.notify_one();
        instance.wake_converge.notify_one();
    }
}

fn nothing_seen(record: Record) -> Seen {
    fn unknown<T>() -> Known<T> {
        Known::Unknown(WhyUnknown::NotYet)
    }
    Seen {
        record,
        data: unknown(),
        retired: Vec::new(),
        config: None,
        good_config: None,
        init: false,
        container: unknown(),
        shape: String::new(),
        process: unknown(),
        unheld: false,
        resident: unknown(),
        image: unknown(),
        pull: Work::Idle,
        template: TemplateSeen::Missing,
        port_taken: None,
        start_slot: false,
        server: unknown(),
        start_error: None,
        differing: unknown(),
        unsettable: BTreeMap::new(),
        accounts: unknown(),
        accounts_version: None,
        schemas: Known::Unknown(WhyUnknown::NotYet),
        source: unknown(),
        leader: unknown(),
        clone: unknown(),
        seed: Work::Idle,
        stopping: Stopping::No,
        judged: None,
        voting: VotingSeen::default(),
        handover: HandoverSeen::default(),
    }
}
