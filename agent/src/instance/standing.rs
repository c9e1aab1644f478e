//! The standing lane. It never awaits Docker, disk (but for its record) or a seed.

use std::sync::Arc;
use std::time::Duration;

use schemadock_agent_plan::handover::is_urgent;
use schemadock_agent_plan::observed::{Seen, ServerSeen, Stopping, ThreadState, Work};
use schemadock_agent_plan::record::{AcceptedTerm, DataOrigin};
use schemadock_agent_plan::standing::plan;
use schemadock_agent_plan::step::{Plan, StandingStep as Step};
use schemadock_agent_plan::wish::Wish;
use schemadock_schema::known::{Known, WhyUnknown};
use schemadock_schema::leadership::Vote;
use schemadock_schema::proposal::Write;
use schemadock_schema::secrets::replication_user;
use schemadock_store::backoff::Delays;
use tokio::time::Instant;

use super::handover::LEAVES_TO_CLIENTS;
use super::hearing::Listener;
use super::opening::OpeningPermit;
use super::voting::{STOPS_WITHIN, Waits};
use super::{Instance, Repeats};
use crate::context::StepError;
use crate::failpoints;
use crate::mysqld::{Endpoint, MysqlError, Session, SourceSpec};

/// How often a server at rest is looked at.
pub(super) const STEADY: Duration = Duration::from_millis(500);
/// How often it is planned for where a look has shown nothing new.
const PLANNED_EVERY: Duration = Duration::from_secs(2);
/// How often one that starts or attaches is.
pub(super) const EAGER: Duration = Duration::from_millis(20);
/// How long after news a wait for acknowledgements is looked at closely.
const WATCHFUL: Duration = Duration::from_millis(200);
/// How often accounts are looked at.
const ACCOUNTS_EVERY: Duration = Duration::from_secs(3);
/// How long `super_read_only=ON` may wait for writes under way.
pub(super) const CLOSE_DEADLINE: Duration = Duration::from_secs(1);
/// How long the applier may take to stop before its server is stopped all the same.
const APPLIER_STOPS_WITHIN: Duration = Duration::from_secs(2);

pub(super) struct Lane {
    pub(super) instance: Arc<Instance>,
    pub(super) session: Option<Box<dyn Session>>,
    pub(super) source: Option<(Endpoint, Box<dyn Session>)>,
    pub(super) leader: Option<(Endpoint, Box<dyn Session>)>,
    /// A second session on the own server, for the marker of an opening, or for what a take-over does side by side.
    pub(super) spare: Option<Box<dyn Session>>,
    /// What the last look saw of commits that wait.
    pub(super) waits: Option<Waits>,
    /// Markers committed for them so far.
    pub(super) nudges: u32,
    /// Until when a wait that goes on is looked for closely: a receiver may have come back (L13).
    pub(super) watchful_until: Instant,
    /// How many commits had passed without an acknowledgement when it was first seen open under `lossless`.
    pub(super) unanswered: Option<u64>,
    /// When strangers were last told of.
    pub(super) strangers_told: Option<Instant>,
    /// When this life has begun to freeze the server.
    pub(super) frozen_at: Option<Instant>,
    /// How often the one that led before was asked for its events in vain.
    pub(super) events_asked: u32,
    /// Since when all movers of this term's handover are behind the candidate.
    pub(super) moved: Option<(u64, Instant)>,
    /// Waits for the old master's final set, on the candidate.
    pub(super) listener: Option<Listener>,
    pub(super) accounts_at: Option<Instant>,
    delays: Delays,
    eager_until: Instant,
    /// When the server was last looked at.
    looked_at: Instant,
    /// Until when disks and processors are left to a server that opens, and to its clients.
    pub(super) quiet_until: Instant,
    /// When the last plan found nothing to do; none once there are news.
    converged_at: Option<Instant>,
    first_session: bool,
    /// Both replication threads were seen running in this life of the server: stopped ones were stopped by somebody.
    replicated: bool,
    repeats: Repeats,
}

/// A server this old, in seconds, was started by somebody earlier.
const SETTLED: u64 = 30;

pub(super) async fn run(instance: Arc<Instance>) {
    let seed = instance.ctx.seed ^ 1;
    let mut lane = Lane {
        session: None,
        source: None,
        leader: None,
        spare: None,
        waits: None,
        watchful_until: Instant::now(),
        unanswered: None,
        strangers_told: None,
        nudges: 0,
        frozen_at: None,
        moved: None,
        listener: None,
        events_asked: 0,
        accounts_at: None,
        delays: Delays::new(seed, Duration::from_millis(50), Duration::from_secs(5)),
        eager_until: Instant::now(),
        looked_at: Instant::now(),
        quiet_until: Instant::now(),
        converged_at: None,
        first_session: true,
        replicated: false,
        repeats: Repeats::default(),
        instance,
    };
    let stop = lane.instance.stop.clone();
    loop {
        let pause = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            pause = lane.pass() => pause,
        };
        let pause = pause.max(lane.quiet_until.saturating_duration_since(Instant::now()));
        if pause.is_zero() {
            tokio::task::yield_now().await;
            continue;
        }
        tokio::select! {
            biased;
            () = lane.instance.stop.cancelled() => return,
            () = lane.instance.wake_standing.notified() => {
                lane.converged_at = None;
                lane.watchful_until = Instant::now() + WATCHFUL;
                lane.gather_news().await;
            }
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// A clean shutdown waits 10 s for those that send the log (F20), though no commit waits for them any more, and a minute
/// for the rest of a transaction of which only a part was received.
async fn ends_soon(session: &mut Box<dyn Session>) -> Result<(), MysqlError> {
    let server = session.observe().await?;
    if server.channel.is_some() {
        session.stop_receiver(STOPS_WITHIN).await?;
        session.stop_applier(APPLIER_STOPS_WITHIN).await?;
    }
    let receivers: Vec<String> = server.receivers.into_iter().collect();
    session.end_sessions_of(&receivers, Duration::ZERO).await.map(drop)
}

impl Lane {
    /// Observe, plan, act; returns how long to rest.
    async fn pass(&mut self) -> Duration {
        let (wish, seen, plan) = match self.urgent() {
            Some(known) => known,
            None => {
                if self.observe().await {
                    self.converged_at = None;
                }
                if self.converged_at.is_some_and(|at| at.elapsed() < PLANNED_EVERY) {
                    return self.until_next_look();
                }
                let (_, wish, mut seen) = self.instance.snapshot();
                self.listen(&wish);
                self.keep_time(&wish);
                self.probe(&wish, &seen).await;
                seen = self.instance.state().seen.clone();
                let plan = plan(&wish, &seen);
                self.instance.note_standing(&plan, &wish);
                (wish, seen, plan)
            }
        };
        self.converged_at = (plan == Plan::Converged).then(Instant::now);
        let Plan::Do(step) = plan else {
            self.instance.settle().await;
            return self.rest(&seen, &plan);
        };
        let name = step.name();
        tracing::debug!(instance = %self.instance.name, step = name, "standing lane");
        failpoints::reach(&name, "before");
        let done = self.act(&step, &wish, &seen).await;
        failpoints::reach(&name, "after");
        match done {
            Ok(undone) => {
                self.eager_until = Instant::now() + Duration::from_secs(2);
                if undone {
                    return Duration::from_secs(30);
                }
                if self.repeats.too_many(format!("{step:?}")) {
                    return self.delays.next_delay();
                }
                self.delays.reset();
                Duration::ZERO
            }
            Err(StepError::Changed(what)) => {
                tracing::debug!(instance = %self.instance.name, step = name, "{what} changed meanwhile");
                self.delays.next_delay()
            }
            Err(error) => {
                if let StepError::Mysql(error) = &error {
                    if error.is_broken() {
                        self.session = None;
                    }
                    self.judge_acknowledging(error);
                }
                self.instance.failed(&name, &error).await;
                self.delays.next_delay()
            }
        }
    }

    /// News come in flocks, and each would be a look at the server: those of a moment are taken together, unless a
    /// handover cannot wait. Who has done its part in one leaves the others alone.
    async fn gather_news(&mut self) {
        let apart = if self.stands_by() { LEAVES_TO_CLIENTS } else { EAGER };
        let until = self.quiet_until.max(self.looked_at + apart).max(self.instance.quiet_until());
        while Instant::now() < until && self.urgent().is_none() {
            tokio::select! {
                biased;
                () = self.instance.stop.cancelled() => return,
                () = self.instance.wake_standing.notified() => {}
                () = tokio::time::sleep_until(until) => {}
            }
        }
    }

    /// What a handover asks for at once, on what is known: the step itself looks at what it needs.
    fn urgent(&mut self) -> Option<(Wish, Seen, Plan<Step>)> {
        if !self.handing_over() || self.session.is_none() {
            return None;
        }
        let (_, wish, _) = self.instance.snapshot();
        self.keep_time(&wish);
        let (_, wish, seen) = self.instance.snapshot();
        let plan = plan(&wish, &seen);
        matches!(&plan, Plan::Do(step) if is_urgent(step)).then_some((wish, seen, plan))
    }

    fn handing_over(&self) -> bool {
        self.instance.asked.borrow().wish.hands_over()
    }

    /// Whether others hand the leadership over, and this member has moved.
    fn stands_by(&self) -> bool {
        let (_, wish, seen) = self.instance.snapshot();
        let Some(record) = wish.grant.record().filter(|_| wish.hands_over() && !wish.leads()) else {
            return false;
        };
        let voted = seen.record.voted.as_ref().is_some_and(|voted| voted.term == record.term);
        voted && record.to.as_ref() != Some(&wish.instance)
    }

    fn rest(&mut self, seen: &Seen, plan: &Plan<Step>) -> Duration {
        match (&seen.server, plan) {
            (Known::Present(_), Plan::Converged) => {
                self.delays.reset();
                self.repeats = Repeats::default();
                self.until_next_look()
            }
            // While a handover is under way nobody rests.
            (Known::Present(_), _) if self.handing_over() => EAGER,
            (Known::Present(_), _) if Instant::now() < self.eager_until => EAGER,
            (Known::Present(_), _) if self.waits.is_some() => self.until_next_look(),
            (Known::Present(_), _) => STEADY,
            // A server that starts is met as soon as it listens; one that is not started wakes us when it is.
            (_, _) if seen.container_runs() || seen.process.present().is_some() => EAGER,
            _ => Duration::from_secs(5),
        }
    }

    /// Looks at the own server; `true`: there are news, beside positions and times.
    async fn observe(&mut self) -> bool {
        self.looked_at = Instant::now();
        let mut found = Known::Absent;
        if self.session.is_none() {
            let (_, wish, seen) = self.instance.snapshot();
            match self.instance.session(&wish).await {
                Ok(session) => {
                    self.session = Some(session);
                    self.accounts_at = None;
                    // Statements of an earlier life may still run (L1); a seed's own session is left alone.
                    if self.first_session && seen.seed != Work::Running {
                        let ended = self.session.as_mut().expect("just set").end_own_sessions().await;
                        match ended {
                            Ok(_) => self.first_session = false,
                            Err(error) => {
                                self.session = None;
                                found = Known::Unknown(WhyUnknown::Error(error.to_string()));
                            }
                        }
                    }
                }
                Err(MysqlError::Connection { .. }) => {}
                Err(error @ MysqlError::Deadline { .. }) => {
                    found = Known::Unknown(WhyUnknown::Deadline(error.to_string()));
                }
                Err(error) => found = Known::Unknown(WhyUnknown::Error(error.to_string())),
            }
        }
        if let Some(session) = &mut self.session {
            found = match session.observe().await {
                Ok(server) => Known::Present(server),
                Err(error) => {
                    self.session = None;
                    Known::Unknown(WhyUnknown::Error(error.to_string()))
                }
            };
        }
        let accounts_due = self.accounts_at.is_none_or(|at| at.elapsed() >= ACCOUNTS_EVERY);
        let mut news = false;
        if let (Some(session), true) = (&mut self.session, accounts_due)
            && let Ok(accounts) = session.accounts().await
        {
            self.accounts_at = Some(Instant::now());
            let accounts = Known::Present(accounts);
            let mut state = self.instance.state();
            news = state.seen.accounts != accounts;
            state.seen.accounts = accounts;
        }
        news |= self.look_at_schemas().await;
        let mut state = self.instance.state();
        let changed = std::mem::discriminant(&state.seen.server) != std::mem::discriminant(&found);
        if found.present().is_none() {
            state.seen.accounts = Known::Unknown(WhyUnknown::NotYet);
            // A server that comes back may have lost what a barrier has shown.
            state.seen.voting.barrier = None;
            state.seen.voting.hangs = false;
        }
        self.replicated = found.present().is_some_and(|server| {
            let running = server.channel.as_ref().is_some_and(|channel| {
                channel.receiver == ThreadState::On && channel.applier == ThreadState::On
            });
            self.replicated || running || server.uptime > SETTLED
        });
        news |= match (&state.seen.server, &found) {
            (Known::Present(before), Known::Present(now)) => !now.stands_like(before),
            _ => true,
        };
        state.seen.server = found;
        drop(state);
        news |= self.watch_commits();
        if changed {
            self.instance.wake_converge.notify_one();
        }
        news
    }

    pub(super) fn own(&mut self) -> Result<&mut Box<dyn Session>, StepError> {
        self.session.as_mut().ok_or(StepError::Changed("the session"))
    }

    /// Does a step; `true`: somebody keeps undoing it.
    async fn act(&mut self, step: &Step, wish: &Wish, seen: &Seen) -> Result<bool, StepError> {
        let instance = self.instance.clone();
        let mended = |found: &str| instance.mended(wish, &step.name(), found);
        match step {
            Step::AcceptTerm { term } => self.accept(wish, *term).await?,
            Step::Claim => self.claim(wish, seen).await?,
            Step::Open { found, .. } => {
                self.open(wish, seen).await?;
                return Ok(found.as_deref().is_some_and(mended));
            }
            Step::Close { found } => {
                let channel = seen.server.present().and_then(|server| server.channel.as_ref());
                let follows = channel.is_some_and(|channel| channel.applier != ThreadState::Off);
                let session = self.own()?;
                if !follows {
                    session.set_offline_mode(true).await?;
                }
                session.set_super_read_only(true, CLOSE_DEADLINE).await?;
                session.set_read_only(true).await?;
                let undone = mended(found);
                // Who leads is closed to be opened again, and not to rest.
                return Ok(undone && !wish.leads());
            }
            Step::CloseToStop => {
                let session = self.own()?;
                session.set_offline_mode(true).await?;
                let returned = session.set_super_read_only(true, CLOSE_DEADLINE).await.is_ok();
                if returned && let Err(error) = ends_soon(session).await {
                    tracing::info!(instance = %instance.name, %error, "the shutdown may take longer");
                }
                instance.state().seen.stopping = Stopping::Closed { read_only_returned: returned };
                instance.wake_converge.notify_one();
            }
            Step::Attach { host, port, acknowledge, found } => {
                self.attach(wish, seen, host, *port, *acknowledge).await?;
                match found {
                    Some(found) if self.replicated => return Ok(mended(found)),
                    _ => instance.tell(wish, "attached", format!("follows {host}:{port}")),
                }
            }
            Step::Repoint { host, port, acknowledge, found } => {
                let session = self.own()?;
                session.stop_receiver(STOPS_WITHIN).await?;
                session.set_semi_sync_replica(*acknowledge).await?;
                session.repoint(host, *port).await?;
                session.start_receiver().await?;
                instance.tell(wish, "repointed", format!("{found}, follows {host}:{port} now"));
            }
            Step::StartReceiver { acknowledge, found } => {
                let session = self.own()?;
                session.set_semi_sync_replica(*acknowledge).await?;
                session.start_receiver().await?;
                return Ok(self.replicated && mended(found));
            }
            Step::StartApplier { found } => {
                self.own()?.start_applier().await?;
                // The last step of a handover is no repair.
                let early = seen.server.present().is_some_and(ServerSeen::received_early);
                return Ok(!early && self.replicated && mended(found));
            }
            Step::Detach { found } => {
                let session = self.own()?;
                session.stop_receiver(STOPS_WITHIN).await?;
                session.set_offline_mode(true).await?;
                instance.tell(wish, "foreign", format!("found {found}: it is detached"));
            }
            Step::ForgetSource { found } => {
                let session = self.own()?;
                // L12: on masters it is off; in a handover that was taken back it may have been turned on.
                session.set_semi_sync_replica(false).await?;
                session.stop_receiver(STOPS_WITHIN).await?;
                session.stop_applier(Duration::from_secs(5)).await?;
                session.forget_source().await?;
                // What is left over from a handover is no drift.
                let early = seen.server.present().is_some_and(ServerSeen::received_early);
                return Ok(!early && seen.handover.won.is_none() && mended(found));
            }
            Step::LiftOffline => self.own()?.set_offline_mode(false).await?,
            Step::EnsureAccounts { found } => {
                self.ensure_accounts(wish, seen).await?;
                return Ok(found.as_deref().is_some_and(mended));
            }
            Step::JudgeForeign => self.judge(wish, seen).await?,
            Step::SettleForeign => self.settle(wish, seen).await?,
            Step::SemiSyncOff { found } => {
                let session = self.own()?;
                // L5: it returns at once where it has returned before; else a commit may wait, and would be answered.
                session.set_super_read_only(true, CLOSE_DEADLINE).await?;
                session.set_semi_sync_source(None).await?;
                tracing::info!(instance = %instance.name, "{found}: off");
            }
            Step::Acknowledge { on, restart, found } => {
                self.acknowledge(*on, *restart).await?;
                return Ok(found.as_deref().is_some_and(mended));
            }
            Step::LockReceivers { lock, unlock } => self.lock_receivers(wish, lock, unlock).await?,
            Step::EndStrangers { .. } => self.end_strangers(wish).await?,
            Step::EndReceivers { users } => self.end_receivers(wish, users).await?,
            Step::RaiseAcks { acks, found } => {
                self.own()?.set_semi_sync_source(Some(*acks)).await?;
                match found {
                    Some(found) => return Ok(mended(found)),
                    None => {
                        instance.tell(wish, "acks", format!("a commit waits for {acks} acknowledgements"));
                    }
                }
            }
            Step::LowerAcks { acks } => self.lower_acks(wish, *acks).await?,
            Step::BeginBarrier { revision } => self.begin_barrier(wish, *revision),
            Step::Nudge => self.nudge(wish),
            Step::Prepare { term } => self.prepare(wish, *term).await?,
            Step::FollowCandidate { host, port } => self.follow_candidate(wish, seen, host, *port).await?,
            Step::MoveBehind { term } => self.move_behind(wish, *term).await?,
            Step::Freeze { term } => self.freeze(wish, *term).await?,
            Step::PublishFinal { term } => self.publish_final(wish, *term).await?,
            Step::TakeBack { term, why } => self.take_back(wish, *term, why).await?,
            Step::TakeOver { term, executed } => self.take_over(wish, *term, executed).await?,
            Step::TakeEvents { from, term } => self.take_events(wish, from, *term).await?,
            Step::ScheduleEvents { on, found } => {
                self.schedule_events(wish, *on).await?;
                return Ok(found.as_deref().is_some_and(mended));
            }
            Step::SetFrozen { flags, found } => {
                self.set_frozen(wish, seen, flags).await?;
                return Ok(found.as_deref().is_some_and(mended));
            }
            Step::StepDown => {
                self.own()?.set_offline_mode(true).await?;
                instance.tell(wish, "stepped-down", "it leads no more: its clients were ended");
            }
        }
        Ok(false)
    }

    /// To disk, then the vote.
    pub(super) async fn accept(&mut self, wish: &Wish, term: u64) -> Result<(), StepError> {
        let cluster = wish.grant.cluster.clone().ok_or(StepError::Changed("the cluster"))?;
        let accepted = AcceptedTerm { cluster: cluster.clone(), term };
        self.instance.update_record(|record| record.accepted = Some(accepted.clone())).await?;
        let server = self.own()?.observe().await?;
        let ctx = &self.instance.ctx;
        let vote = Vote {
            cluster,
            term,
            received: server.received(),
            executed: server.gtid_executed.clone(),
            server_uuid: server.server_uuid,
        };
        let key = ctx.keys.vote(&ctx.settings.host, &self.instance.name);
        ctx.commit(vec![Write::document(key, &vote)], Vec::new()).await?;
        self.instance.update_record(|record| record.voted = Some(accepted)).await
    }

    /// L2.
    async fn open(&mut self, wish: &Wish, seen: &Seen) -> Result<(), StepError> {
        let instance = self.instance.clone();
        let server = seen.server.present().ok_or(StepError::Changed("the server"))?;
        let accepted = seen.record.accepted.as_ref().map_or(0, |accepted| accepted.term);
        let permit = OpeningPermit::ask(&instance.ctx, wish, &server.server_uuid, accepted).await?;
        if permit.term() > accepted {
            return Err(StepError::Changed("the term"));
        }
        let durability = permit.durability();
        instance
            .update_record(|record| {
                record.data = DataOrigin::Own;
                record.led_under = Some(durability);
            })
            .await?;
        Self::wait_for_voters(self.own()?, permit.acks()).await?;
        let ranks = self.ranks(wish).await?;
        self.shut_out(&ranks).await?;
        self.own()?.set_super_read_only(false, CLOSE_DEADLINE).await?;
        self.freeze_before_opening(wish).await?;
        // Else the marker waits, and the plan opens anew when it has been acknowledged.
        if self.opening_marker(wish, &permit).await? {
            self.open_to_clients(wish, permit).await?;
        }
        Ok(())
    }

    /// The last step of an opening uses the permit up. `read_only=OFF` turns `super_read_only` off, too.
    pub(super) async fn open_to_clients(
        &mut self,
        wish: &Wish,
        permit: OpeningPermit,
    ) -> Result<(), StepError> {
        let session = self.own()?;
        session.set_read_only(false).await?;
        session.set_offline_mode(false).await?;
        self.instance.tell(wish, "opened", format!("takes writes in term {}", permit.term()));
        Ok(())
    }

    async fn attach(
        &mut self,
        wish: &Wish,
        seen: &Seen,
        host: &str,
        port: u16,
        acknowledge: bool,
    ) -> Result<(), StepError> {
        let had_channel = seen.server.present().is_some_and(|server| server.channel.is_some());
        self.instance.update_record(|record| record.data = DataOrigin::Own).await?;
        let session = self.own()?;
        if had_channel {
            // A new channel throws the relay logs away: only what was executed may be in them (L6).
            session.stop_receiver(STOPS_WITHIN).await?;
            let received = session.observe().await?.received();
            if !session.wait_executed(&received, Duration::from_secs(1)).await? {
                return Err(StepError::Refused("it still applies what it received".to_owned()));
            }
            session.stop_applier(Duration::from_secs(5)).await?;
        }
        self.make_channel(wish, seen, host, port, acknowledge).await?;
        let session = self.own()?;
        session.start_applier().await?;
        session.start_receiver().await?;
        Ok(())
    }

    /// Anew, and with what was executed alone; neither thread runs.
    pub(super) async fn make_channel(
        &mut self,
        wish: &Wish,
        seen: &Seen,
        host: &str,
        port: u16,
        acknowledge: bool,
    ) -> Result<(), StepError> {
        let secrets = wish.source.as_ref().and_then(|source| source.secrets.present());
        let password = secrets.ok_or(StepError::Changed("the credentials"))?.replication.clone();
        let user = replication_user(seen.record.server_id.ok_or(StepError::Changed("the server id"))?);
        let session = self.own()?;
        session.set_semi_sync_replica(acknowledge).await?;
        session.change_source(&SourceSpec { host: host.to_owned(), port, user, password }).await?;
        Ok(())
    }
}
