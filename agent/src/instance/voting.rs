//! The standing lane's steps about voters: who acknowledges, who is shut out, for how many a commit waits (L3 to L5, V2,
//! V3).
//!
//! A marker may wait for as long as no voter is there. So each is committed on a session of its own, by a task that the
//! lane does not wait for beyond a moment; the commit itself always goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use schemadock_agent_plan::observed::BarrierSeen;
use schemadock_agent_plan::voting::{changes_of_locks, counted, locked, staying};
use schemadock_agent_plan::wish::Wish;
use schemadock_schema::InstanceName;
use schemadock_schema::leadership::Durability;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::opening::OpeningPermit;
use super::standing::{CLOSE_DEADLINE, EAGER, Lane, STEADY};
use super::{Instance, endpoint_of};
use crate::context::StepError;
use crate::mysqld::{Endpoint, Login, MysqlError, Session};

/// How long the lane itself waits for the marker of an opening.
const OPENS_WITHIN: Duration = Duration::from_secs(1);
/// How long commits wait, without any being acknowledged, before that is no matter of moments any more (L13).
const STALLED_AFTER: Duration = Duration::from_millis(50);
/// How long all commits wait, beside a connection that was killed and stays, before semi-sync is taken to hang.
const HANGS_AFTER: Duration = Duration::from_secs(10);
/// How long a receiver may take to stop.
pub(super) const STOPS_WITHIN: Duration = Duration::from_millis(2500);
/// How long a receiver that is shut out may take to end by itself.
const ENDS_BY_ITSELF: Duration = Duration::from_secs(1);
/// How often receivers that acknowledge and are not to be counted are told of.
const TOLD_EVERY: Duration = Duration::from_secs(60);
/// How often a server is looked at whose commits wait, while others are acknowledged.
const FLOWING: Duration = Duration::from_millis(100);
/// A marker waits until a voter is back.
const WITHOUT_END: Duration = Duration::from_secs(365 * 24 * 3600);
/// After this a marker for commits that wait may be followed by another one, then after twice as long, and so on: a voter
/// that has it and comes back is not asked for it either. Each one keeps a session of the server waiting.
const NUDGED_FOR: Duration = Duration::from_secs(1);
/// How often that time doubles.
const NUDGES_SLOWER: u32 = 6;
/// How often voters are asked for the marker of a change.
const ASKED_EVERY: Duration = Duration::from_millis(20);
/// How long after a barrier that failed the next one is begun.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Who is counted where a server opens, by the replication accounts of those who are not.
#[derive(Debug, Default)]
pub(super) struct Ranks {
    lock: Vec<String>,
    unlock: Vec<String>,
    out: Vec<String>,
    /// Whose acknowledgements may count.
    counted: BTreeSet<String>,
}

/// Commits that wait for acknowledgements.
#[derive(Clone, Copy)]
pub(super) struct Waits {
    /// How many had been acknowledged.
    pub(super) answered: u64,
    /// Since when it is so many.
    pub(super) since: Instant,
    /// Others have been acknowledged since the look before.
    pub(super) flow: bool,
}

impl Lane {
    /// The switch takes effect with the receiver's start only, and a receiver that runs is stopped first (L3).
    pub(super) async fn acknowledge(&mut self, on: bool, restart: bool) -> Result<(), StepError> {
        let session = self.own()?;
        if restart {
            session.stop_receiver(STOPS_WITHIN).await?;
        }
        session.set_semi_sync_replica(on).await?;
        if restart {
            session.start_receiver().await?;
        }
        Ok(())
    }

    /// V3: locked first, then the connections ended: a new one cannot come in between.
    pub(super) async fn lock_receivers(
        &mut self,
        wish: &Wish,
        lock: &[String],
        unlock: &[String],
    ) -> Result<(), StepError> {
        let session = self.own()?;
        session.lock_accounts(lock, unlock).await?;
        if !lock.is_empty() {
            // Their own agents stop them, too: seldom one has to be killed.
            session.end_sessions_of(lock, ENDS_BY_ITSELF).await?;
            self.instance.tell(wish, "shut-out", format!("receives no more from here: {}", lock.join(", ")));
        }
        self.accounts_at = None;
        Ok(())
    }

    pub(super) async fn end_receivers(&mut self, wish: &Wish, users: &[String]) -> Result<(), StepError> {
        self.own()?.end_sessions_of(users, ENDS_BY_ITSELF).await?;
        let message =
            format!("connections of {} were ended: they are not to receive from here", users.join(", "));
        self.instance.tell(wish, "shut-out", message);
        Ok(())
    }

    /// L12. Told once in a while: one that is ended comes back.
    pub(super) async fn end_strangers(&mut self, wish: &Wish) -> Result<(), StepError> {
        let record = wish.grant.record().ok_or(StepError::Changed("the leadership"))?;
        let kept = counted(record, wish);
        let ended = self.own()?.end_acknowledgers(&kept).await?;
        if ended.is_empty() || self.strangers_told.is_some_and(|at| at.elapsed() < TOLD_EVERY) {
            return Ok(());
        }
        self.strangers_told = Some(Instant::now());
        let ended: Vec<String> = ended.into_iter().collect();
        let message = format!(
            "connections of {} were ended: they receive with semi-sync and are no voters', so that a commit could be \
             acknowledged by them alone; turn rpl_semi_sync_replica_enabled off there",
            ended.join(", ")
        );
        self.instance.tell(wish, "stranger", message);
        Ok(())
    }

    /// V2, V4: the only way to a smaller count. What waits is answered OK, as the record says.
    pub(super) async fn lower_acks(&mut self, wish: &Wish, acks: u32) -> Result<(), StepError> {
        let instance = self.instance.clone();
        let (_, _, seen) = instance.snapshot();
        let server = seen.server.present().ok_or(StepError::Changed("the server"))?;
        let accepted = seen.record.accepted.as_ref().map_or(0, |accepted| accepted.term);
        let permit = OpeningPermit::ask(&instance.ctx, wish, &server.server_uuid, accepted).await?;
        if permit.acks() != acks || permit.term() != accepted {
            return Err(StepError::Changed("the leadership"));
        }
        self.own()?.set_semi_sync_source((acks > 0).then_some(acks)).await?;
        instance.tell(wish, "acks", format!("a commit waits for {acks} acknowledgements"));
        Ok(())
    }

    /// Before the opening: commits wait for as many as the record says. Writes nothing.
    pub(super) async fn wait_for_voters(session: &mut Box<dyn Session>, acks: u32) -> Result<(), MysqlError> {
        match acks {
            0 => Ok(()),
            acks => session.set_semi_sync_source(Some(acks)).await,
        }
    }

    /// Who is not to be counted where the record is as this wish says. Accounts seen a moment ago will do: nobody but this
    /// lane changes them here.
    pub(super) async fn ranks(&mut self, wish: &Wish) -> Result<Ranks, StepError> {
        let record = wish.grant.record().ok_or(StepError::Changed("the leadership"))?;
        if record.acks_wanted() == 0 {
            return Ok(Ranks::default());
        }
        let (_, _, seen) = self.instance.snapshot();
        let own = seen.record.server_id.ok_or(StepError::Changed("the server id"))?;
        let asked;
        let accounts = match seen.accounts.present().filter(|_| self.accounts_at.is_some()) {
            Some(seen) => seen,
            None => {
                asked = self.own()?.accounts().await?;
                &asked
            }
        };
        let wanted = locked(record, wish, own, accounts).ok_or(StepError::Changed("the members"))?;
        let (lock, unlock) = changes_of_locks(&wanted, accounts);
        Ok(Ranks { lock, unlock, out: wanted.into_iter().collect(), counted: counted(record, wish) })
    }

    /// Before anything is committed: nobody is counted who is not to be (V3).
    pub(super) async fn shut_out(&mut self, ranks: &Ranks) -> Result<(), StepError> {
        let (_, _, seen) = self.instance.snapshot();
        let strangers = !ranks.counted.is_empty()
            && seen.server.present().is_some_and(|server| !server.acknowledgers.is_subset(&ranks.counted));
        let session = self.own()?;
        if !ranks.lock.is_empty() || !ranks.unlock.is_empty() {
            session.set_super_read_only(false, CLOSE_DEADLINE).await?;
            session.lock_accounts(&ranks.lock, &ranks.unlock).await?;
        }
        if !ranks.out.is_empty() {
            // Nothing is acknowledged yet.
            session.end_sessions_of(&ranks.out, Duration::ZERO).await?;
        }
        // As of the last look; who comes later is seen once it is open (L12).
        if strangers {
            session.end_acknowledgers(&ranks.counted).await?;
        }
        self.accounts_at = None;
        Ok(())
    }

    /// Commits the marker of an opening; `false`: its acknowledgement is waited for by another task.
    pub(super) async fn opening_marker(
        &mut self,
        wish: &Wish,
        permit: &OpeningPermit,
    ) -> Result<bool, StepError> {
        let instance = self.instance.clone();
        if permit.acks() == 0 {
            self.own()?.marker(OPENS_WITHIN).await?;
            return Ok(true);
        }
        let session = match self.spare.take() {
            Some(session) => session,
            None => instance.session(wish).await?,
        };
        instance.state().seen.voting.opening = true;
        let (tell, told) = oneshot::channel();
        tokio::spawn(async move {
            let ended = commit_marker(&instance, session, WITHOUT_END).await;
            instance.state().seen.voting.opening = false;
            // Where the lane has gone on, the plan opens again: with a marker that is acknowledged at once.
            let _ = tell.send(ended.map(drop));
            instance.wake_standing.notify_one();
        });
        match tokio::time::timeout(OPENS_WITHIN, told).await {
            Ok(Ok(ended)) => ended.map(|()| true),
            Ok(Err(_)) => Err(StepError::Changed("the session")),
            Err(_) => Ok(false),
        }
    }

    /// Whether commits wait and none is acknowledged, or pass without; `true`: that has changed.
    pub(super) fn watch_commits(&mut self) -> bool {
        let mut state = self.instance.state();
        let acks = state.seen.server.present().map(|server| server.acks).filter(|acks| acks.waiting > 0);
        let before = self.waits.take();
        self.waits = acks.map(|acks| match before {
            Some(waits) if waits.answered == acks.answered => Waits { flow: false, ..waits },
            before => Waits { answered: acks.answered, since: Instant::now(), flow: before.is_some() },
        });
        if self.waits.is_none() {
            self.nudges = 0;
        }
        let stalled = self.waits.is_some_and(|waits| waits.since.elapsed() >= STALLED_AFTER);
        let asked = self.instance.asked.borrow();
        let wish = &asked.wish;
        let lossless = wish.grant.steady()
            && wish.grant.record().is_some_and(|record| record.durability == Durability::Lossless);
        let server =
            state.seen.server.present().filter(|server| lossless && wish.leads() && server.writable());
        let unanswered =
            match (server.map(|server| (server.acks.unanswered, server.acks_in_force())), self.unanswered) {
                (None, _) => {
                    self.unanswered = None;
                    false
                }
                (Some((now, in_force)), None) => {
                    self.unanswered = (in_force > 0).then_some(now);
                    false
                }
                (Some((now, _)), Some(before)) => now > before,
            };
        let voting = &mut state.seen.voting;
        let news = (voting.stalled, voting.unanswered) != (stalled, unanswered);
        (voting.stalled, voting.unanswered) = (stalled, unanswered);
        news
    }

    /// MySQL 9.7: a connection killed while it acknowledges can leave the plugin's thread in an endless loop. Nothing but
    /// the end of the server helps; L5: not a polite one, since commits wait.
    pub(super) fn judge_acknowledging(&mut self, error: &MysqlError) {
        let long = self.waits.is_some_and(|waits| waits.since.elapsed() >= HANGS_AFTER);
        let mut state = self.instance.state();
        let connected =
            state.seen.server.present().is_some_and(|server| {
                server.semi_sync_source && server.acks.clients >= server.acks_in_force()
            });
        if matches!(error, MysqlError::Remains { .. }) && long && connected {
            tracing::error!(instance = %self.instance.name, %error, "acknowledgements are not read any more");
            state.seen.voting.hangs = true;
            drop(state);
            self.instance.wake_converge.notify_one();
        }
    }

    /// Under load some commit waits at every look: only one that no other has overtaken is looked at closely.
    pub(super) fn until_next_look(&self) -> Duration {
        let watchful = Instant::now() < self.watchful_until;
        match &self.waits {
            Some(waits) if watchful || !waits.flow => EAGER,
            Some(_) => FLOWING,
            None => STEADY,
        }
    }

    /// L13.
    pub(super) fn nudge(&mut self, wish: &Wish) {
        let (instance, wish) = (self.instance.clone(), wish.clone());
        instance.state().seen.voting.nudging = true;
        let within = NUDGED_FOR * 2_u32.pow(self.nudges.min(NUDGES_SLOWER));
        self.nudges += 1;
        tracing::info!(instance = %instance.name, "commits wait although enough voters are connected");
        tokio::spawn(async move {
            let ended = match instance.session(&wish).await {
                Ok(session) => commit_marker(&instance, session, within).await.map(drop),
                Err(error) => Err(error.into()),
            };
            if let Err(error) = ended {
                tracing::debug!(instance = %instance.name, %error, "the marker for waiting commits");
            }
            instance.state().seen.voting.nudging = false;
            instance.wake_standing.notify_one();
        });
    }

    /// V3: begins to look whether what was committed before is on enough voters.
    pub(super) fn begin_barrier(&mut self, wish: &Wish, revision: i64) {
        let (instance, wish) = (self.instance.clone(), wish.clone());
        instance.state().seen.voting.barrier = Some(BarrierSeen { revision, passed: false });
        tokio::spawn(async move {
            let ended = {
                let looking = barrier(&instance, &wish);
                let overtaken = overtaken(&instance, revision);
                tokio::select! {
                    biased;
                    () = instance.stop.cancelled() => return,
                    () = overtaken => return,
                    ended = looking => ended,
                }
            };
            if let Err(error) = &ended {
                tracing::warn!(instance = %instance.name, %error, "the barrier of a change of voters is begun again");
                tokio::time::sleep(AGAIN_AFTER).await;
            }
            {
                let mut state = instance.state();
                let barrier = &mut state.seen.voting.barrier;
                if barrier.is_some_and(|barrier| barrier.revision == revision) {
                    *barrier = ended.is_ok().then_some(BarrierSeen { revision, passed: true });
                }
            }
            instance.wake_standing.notify_one();
        });
    }
}

/// Commits a marker and waits for its acknowledgement; gives the session back.
async fn commit_marker(
    instance: &Instance,
    mut session: Box<dyn Session>,
    within: Duration,
) -> Result<Box<dyn Session>, StepError> {
    tokio::select! {
        biased;
        () = instance.stop.cancelled() => Err(StepError::Changed("the agent")),
        ended = session.marker(within) => Ok(ended.map(|()| session)?),
    }
}

/// Returns when the record has changed.
async fn overtaken(instance: &Instance, revision: i64) {
    let mut asked = instance.asked.clone();
    // The sender lives as long as the host's loop.
    let _ = asked.wait_for(|asked| asked.wish.grant.revision != Some(revision)).await;
}

/// Where a voter listens, and the session on which it is asked.
type Asked = (Endpoint, Option<Box<dyn Session>>);

/// Returns when enough of the voters that stay have received what this server has executed by now.
async fn barrier(instance: &Arc<Instance>, wish: &Wish) -> Result<(), StepError> {
    let record = wish.grant.record().ok_or(StepError::Changed("the leadership"))?;
    let secrets = wish.grant.secrets.present().ok_or(StepError::Changed("the credentials"))?;
    let session = instance.session(wish).await?;
    let mut session = commit_marker(instance, session, WITHOUT_END).await?;
    let server = session.observe().await?;
    let wanted = server.gtid_executed.of_uuid(&server.server_uuid);
    drop(session);
    let login = Login::admin(secrets);
    let mut left: BTreeMap<&InstanceName, Asked> = BTreeMap::new();
    for name in staying(record) {
        if let Some(endpoint) = endpoint_of(wish, name) {
            left.insert(name, (endpoint, None));
        }
    }
    let mut missing = record.acks_wanted();
    while missing > 0 {
        let mut have = Vec::new();
        for (name, (endpoint, kept)) in &mut left {
            let asked = async {
                let mut session = match kept.take() {
                    Some(session) => session,
                    None => instance.ctx.mysqld.connect(endpoint, &login, Duration::from_secs(1)).await?,
                };
                let received = session.observe().await?.received();
                *kept = Some(session);
                Ok::<_, MysqlError>(received.contains(&wanted))
            };
            match asked.await {
                Ok(true) => have.push(*name),
                Ok(false) => {}
                Err(error) => tracing::debug!(voter = %name, %error, "a voter cannot be asked"),
            }
        }
        left.retain(|name, _| !have.contains(name));
        missing = missing.saturating_sub(have.len() as u32);
        if missing > 0 {
            tokio::time::sleep(ASKED_EVERY).await;
        }
    }
    Ok(())
}
