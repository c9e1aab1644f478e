//! The standing lane. It never awaits Docker, disk (but for its record) or a seed.

use std::sync::Arc;
use std::time::Duration;

use schemadock_agent_plan::accounts;
use schemadock_agent_plan::observed::{Judged, Seen, Stopping, ThreadState, Work};
use schemadock_agent_plan::record::{AcceptedTerm, DataOrigin};
use schemadock_agent_plan::standing::plan;
use schemadock_agent_plan::step::{Plan, StandingStep as Step};
use schemadock_agent_plan::wish::Wish;
use schemadock_schema::gtid::GtidSet;
use schemadock_schema::known::{Known, WhyUnknown};
use schemadock_schema::leadership::{Durability, Leadership, LeadershipPhase, LineageEntry, Vote};
use schemadock_schema::proposal::{Guard, Write};
use schemadock_schema::secrets::{ADMIN_USER, replication_user};
use schemadock_store::backoff::Delays;
use tokio::time::Instant;

use super::opening::OpeningPermit;
use super::{Instance, Repeats};
use crate::context::StepError;
use crate::failpoints;
use crate::mysqld::{Endpoint, Login, MysqlError, Session, SourceSpec};

/// How often a server at rest is looked at.
const STEADY: Duration = Duration::from_millis(500);
/// How often it is planned for where a look has shown nothing new.
const PLANNED_EVERY: Duration = Duration::from_secs(2);
/// How often one that starts or attaches is.
const EAGER: Duration = Duration::from_millis(20);
/// How often accounts are looked at.
const ACCOUNTS_EVERY: Duration = Duration::from_secs(3);
/// How long `super_read_only=ON` may wait for writes under way.
const CLOSE_DEADLINE: Duration = Duration::from_secs(1);
/// How many terms the record keeps.
const LINEAGE: usize = 20;

pub(super) struct Lane {
    pub(super) instance: Arc<Instance>,
    session: Option<Box<dyn Session>>,
    pub(super) source: Option<(Endpoint, Box<dyn Session>)>,
    pub(super) leader: Option<(Endpoint, Box<dyn Session>)>,
    accounts_at: Option<Instant>,
    delays: Delays,
    eager_until: Instant,
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
        accounts_at: None,
        delays: Delays::new(seed, Duration::from_millis(50), Duration::from_secs(5)),
        eager_until: Instant::now(),
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
        if pause.is_zero() {
            tokio::task::yield_now().await;
            continue;
        }
        tokio::select! {
            biased;
            () = lane.instance.stop.cancelled() => return,
            () = lane.instance.wake_standing.notified() => lane.converged_at = None,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

impl Lane {
    /// Observe, plan, act; returns how long to rest.
    async fn pass(&mut self) -> Duration {
        if self.observe().await {
            self.converged_at = None;
        }
        if self.converged_at.is_some_and(|at| at.elapsed() < PLANNED_EVERY) {
            return STEADY;
        }
        let (_, wish, mut seen) = self.instance.snapshot();
        if self.probe(&wish, &seen).await {
            seen = self.instance.state().seen.clone();
        }
        let plan = plan(&wish, &seen);
        self.instance.note_standing(&plan, &wish);
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
                if let StepError::Mysql(error) = &error
                    && error.is_broken()
                {
                    self.session = None;
                }
                self.instance.failed(&name, &error).await;
                self.delays.next_delay()
            }
        }
    }

    fn rest(&mut self, seen: &Seen, plan: &Plan<Step>) -> Duration {
        match (&seen.server, plan) {
            (Known::Present(_), Plan::Converged) => {
                self.delays.reset();
                self.repeats = Repeats::default();
                STEADY
            }
            (Known::Present(_), _) if Instant::now() < self.eager_until => EAGER,
            (Known::Present(_), _) => STEADY,
            // A server that starts is met as soon as it listens; one that is not started wakes us when it is.
            (_, _) if seen.container_runs() || seen.process.present().is_some() => EAGER,
            _ => Duration::from_secs(5),
        }
    }

    /// Looks at the own server; `true`: there are news, beside positions and times.
    async fn observe(&mut self) -> bool {
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
        let mut state = self.instance.state();
        let changed = std::mem::discriminant(&state.seen.server) != std::mem::discriminant(&found);
        if found.present().is_none() {
            state.seen.accounts = Known::Unknown(WhyUnknown::NotYet);
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
        if changed {
            self.instance.wake_converge.notify_one();
        }
        news
    }

    fn own(&mut self) -> Result<&mut Box<dyn Session>, StepError> {
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
                let follows = seen.server.present().is_some_and(|server| server.channel.is_some());
                let session = self.own()?;
                if !follows {
                    session.set_offline_mode(true).await?;
                }
                session.set_super_read_only(true, CLOSE_DEADLINE).await?;
                session.set_read_only(true).await?;
                return Ok(mended(found));
            }
            Step::CloseToStop => {
                let session = self.own()?;
                session.set_offline_mode(true).await?;
                let returned = session.set_super_read_only(true, CLOSE_DEADLINE).await.is_ok();
                instance.state().seen.stopping = Stopping::Closed { read_only_returned: returned };
                instance.wake_converge.notify_one();
            }
            Step::Attach { host, port, found } => {
                self.attach(wish, seen, host, *port).await?;
                match found {
                    Some(found) if self.replicated => return Ok(mended(found)),
                    _ => instance.tell(wish, "attached", format!("follows {host}:{port}")),
                }
            }
            Step::Repoint { host, port, found } => {
                let session = self.own()?;
                session.stop_receiver(Duration::from_millis(2500)).await?;
                session.repoint(host, *port).await?;
                session.start_receiver().await?;
                instance.tell(wish, "repointed", format!("{found}, follows {host}:{port} now"));
            }
            Step::StartReceiver { found } => {
                self.own()?.start_receiver().await?;
                return Ok(self.replicated && mended(found));
            }
            Step::StartApplier { found } => {
                self.own()?.start_applier().await?;
                return Ok(self.replicated && mended(found));
            }
            Step::Detach { found } => {
                let session = self.own()?;
                session.stop_receiver(Duration::from_millis(2500)).await?;
                session.set_offline_mode(true).await?;
                instance.tell(wish, "foreign", format!("found {found}: it is detached"));
            }
            Step::ForgetSource { found } => {
                let session = self.own()?;
                session.stop_receiver(Duration::from_millis(2500)).await?;
                session.stop_applier(Duration::from_secs(5)).await?;
                session.forget_source().await?;
                return Ok(mended(found));
            }
            Step::LiftOffline => self.own()?.set_offline_mode(false).await?,
            Step::EnsureAccounts { found } => {
                self.ensure_accounts(wish, seen).await?;
                return Ok(found.as_deref().is_some_and(mended));
            }
            Step::JudgeForeign => self.judge(wish, seen).await?,
            Step::SettleForeign => self.settle(wish, seen).await?,
            Step::SemiSyncOff { found } => {
                self.own()?.set_semi_sync_source(None).await?;
                return Ok(mended(found));
            }
        }
        Ok(false)
    }

    /// To disk, then the vote.
    async fn accept(&mut self, wish: &Wish, term: u64) -> Result<(), StepError> {
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

    /// S1. The record of a new cluster promises nothing: async, no voters.
    async fn claim(&mut self, wish: &Wish, seen: &Seen) -> Result<(), StepError> {
        let instance = self.instance.clone();
        let ctx = &instance.ctx;
        let cluster = wish.grant.cluster.as_ref().ok_or(StepError::Changed("the cluster"))?;
        let server = seen.server.present().ok_or(StepError::Changed("the server"))?;
        let (record_key, members_key) = (ctx.keys.leadership(cluster), ctx.keys.members(cluster));
        let answer = ctx.store().read_linearizable(&[record_key.clone(), members_key.clone()]).await?;
        let entry = answer.get(&record_key);
        let before: Option<Leadership> = match entry {
            None => None,
            Some(entry) => Some(
                serde_json::from_slice(&entry.value)
                    .map_err(|error| StepError::Refused(format!("{record_key} cannot be read: {error}")))?,
            ),
        };
        if before.as_ref() != wish.grant.record() {
            return Err(StepError::Changed("the leadership"));
        }
        // Members that joined since the view was made have not been judged.
        if let Some(entry) = answer.get(&members_key) {
            let listed: Option<Vec<String>> = serde_json::from_slice::<serde_json::Value>(&entry.value)
                .ok()
                .and_then(|value| serde_json::from_value(value.get("members")?.clone()).ok());
            let known = |name: &String| {
                wish.instance.as_str() == name || wish.members.iter().any(|m| m.name.as_str() == name)
            };
            if !listed.is_none_or(|listed| listed.iter().all(known)) {
                return Err(StepError::Changed("the members"));
            }
        }
        let term = before.as_ref().map_or(1, |record| record.term + 1);
        let mut lineage = before.as_ref().map(|record| record.lineage.clone()).unwrap_or_default();
        lineage.push(LineageEntry {
            term,
            name: instance.name.clone(),
            server_uuid: server.server_uuid.clone(),
            base: server.gtid_executed.clone(),
        });
        let surplus = lineage.len().saturating_sub(LINEAGE);
        lineage.drain(..surplus);
        let record = Leadership {
            term,
            master: Some(instance.name.clone()),
            phase: LeadershipPhase::Steady,
            to: None,
            deadline: None,
            voters: Vec::new(),
            acks: 0,
            acks_next: None,
            leaving: Vec::new(),
            durability: Durability::Async,
            founder: before
                .as_ref()
                .map_or_else(|| server.server_uuid.clone(), |record| record.founder.clone()),
            settled: before.map(|record| record.settled).unwrap_or_default(),
            lineage,
            by: format!("agent {}", ctx.settings.host),
            reason: "claimed a leadership that was free".to_owned(),
        };
        let guards = vec![
            Guard::unchanged(record_key.clone(), entry.map(|entry| entry.mod_revision)),
            Guard::unchanged(members_key.clone(), answer.get(&members_key).map(|entry| entry.mod_revision)),
        ];
        let revision = ctx.commit(vec![Write::document(record_key, &record)], guards).await?;
        instance.tell(wish, "claimed", format!("leads {cluster} in term {term}"));
        instance.await_revision(revision).await;
        Ok(())
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
        let session = self.own()?;
        if let Some(acks) = permit.acks() {
            session.set_semi_sync_source(Some(acks)).await?;
        }
        session.set_super_read_only(false, CLOSE_DEADLINE).await?;
        session.marker().await?;
        session.set_read_only(false).await?;
        session.set_offline_mode(false).await?;
        instance.tell(wish, "opened", format!("takes writes in term {}", permit.term()));
        Ok(())
    }

    async fn attach(&mut self, wish: &Wish, seen: &Seen, host: &str, port: u16) -> Result<(), StepError> {
        let secrets = wish.source.as_ref().and_then(|source| source.secrets.present());
        let password = secrets.ok_or(StepError::Changed("the credentials"))?.replication.clone();
        let server_id = seen.record.server_id.ok_or(StepError::Changed("the server id"))?;
        let had_channel = seen.server.present().is_some_and(|server| server.channel.is_some());
        self.instance.update_record(|record| record.data = DataOrigin::Own).await?;
        let session = self.own()?;
        if had_channel {
            // A new channel throws the relay logs away: only what was executed may be in them (L6).
            session.stop_receiver(Duration::from_millis(2500)).await?;
            let received = session.observe().await?.received();
            if !session.wait_executed(&received, Duration::from_secs(1)).await? {
                return Err(StepError::Refused("it still applies what it received".to_owned()));
            }
            session.stop_applier(Duration::from_secs(5)).await?;
        }
        let user = replication_user(server_id);
        session.change_source(&SourceSpec { host: host.to_owned(), port, user, password }).await?;
        session.start_applier().await?;
        session.start_receiver().await?;
        Ok(())
    }

    /// With `sql_log_bin=0`; on a minion under `read_only` alone (L1).
    async fn ensure_accounts(&mut self, wish: &Wish, seen: &Seen) -> Result<(), StepError> {
        let secrets = wish.grant.secrets.present().ok_or(StepError::Changed("the credentials"))?;
        let present = seen.accounts.present().cloned().unwrap_or_default();
        let renewed = seen.accounts_version.is_some_and(|version| version != secrets.version);
        let closed = seen.server.present().is_some_and(|server| server.super_read_only);
        if closed && wish.leads() {
            return Err(StepError::Changed("who leads"));
        }
        let session = self.own()?;
        if closed {
            session.set_super_read_only(false, CLOSE_DEADLINE).await?;
        }
        let mut result = Ok(());
        for account in accounts::wanted(secrets, wish.followers.iter().copied()) {
            let there = present.iter().any(|have| have.user == account.user && have.host == account.host);
            if !there || renewed {
                result = session.ensure_account(&account).await;
                if result.is_err() {
                    break;
                }
            }
        }
        if closed {
            session.set_super_read_only(true, CLOSE_DEADLINE).await?;
        }
        result?;
        self.accounts_at = None;
        self.instance.state().seen.accounts_version = Some(secrets.version);
        Ok(())
    }

    fn foreign(&self, seen: &Seen, wish: &Wish) -> Result<GtidSet, StepError> {
        let server = seen.server.present().ok_or(StepError::Changed("the server"))?;
        let other =
            seen.leader.present().or(seen.source.present()).ok_or(StepError::Changed("the master"))?;
        let settled = wish.grant.record().map(|record| record.settled.clone()).unwrap_or_default();
        let own = server.gtid_executed.of_uuid(&server.server_uuid);
        Ok(own.minus(&other.gtid_executed).minus(&settled))
    }

    async fn judge(&mut self, wish: &Wish, seen: &Seen) -> Result<(), StepError> {
        let gtids = self.foreign(seen, wish)?;
        let harmless = self.own()?.harmless(&gtids).await?;
        let judged = Judged { harmless: harmless == gtids, gtids };
        self.instance.state().seen.judged = Some(judged);
        Ok(())
    }

    /// L7 (b): attached already; empty transactions on the master, then a marker at once.
    async fn settle(&mut self, wish: &Wish, seen: &Seen) -> Result<(), StepError> {
        let gtids = self.foreign(seen, wish)?;
        let secrets = wish.grant.secrets.present().ok_or(StepError::Changed("the credentials"))?;
        let (host, port) = wish.leader.clone().ok_or(StepError::Changed("who leads"))?;
        let login = Login { user: ADMIN_USER.to_owned(), password: secrets.admin.clone() };
        let endpoint = Endpoint::Tcp { host, port };
        let mut master = self.instance.ctx.mysqld.connect(&endpoint, &login, Duration::from_secs(1)).await?;
        master.inject_empty(&gtids).await?;
        master.marker().await?;
        self.instance.state().seen.judged = None;
        self.instance.tell(
            wish,
            "settled",
            format!("harmless transactions {gtids} were settled on the master"),
        );
        Ok(())
    }
}
