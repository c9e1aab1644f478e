//! The standing lane's steps about voters: who acknowledges, who is shut out, for how many a commit waits (L3 to L5, V2,
//! V3).
//!
//! A marker may wait for as long as no voter is there. So each is committed on a session of its own, by a task that the
//! lane does not wait for beyond a moment; the commit itself always goes on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use schemadock_agent_plan::observed::BarrierSeen;
use schemadock_agent_plan::voting::{acks_wanted, changes_of_locks, locked, staying};
use schemadock_agent_plan::wish::Wish;
use schemadock_schema::InstanceName;
use schemadock_schema::secrets::ADMIN_USER;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Instance;
use super::opening::OpeningPermit;
use super::standing::Lane;
use crate::context::StepError;
use crate::mysqld::{Endpoint, Login, MysqlError, Session};

/// How long the lane itself waits for the marker of an opening.
const OPENS_WITHIN: Duration = Duration::from_secs(1);
/// How long commits wait, without any being acknowledged, before that is no matter of moments any more (L13).
const STALLED_AFTER: Duration = Duration::from_millis(50);
/// How long a receiver may take to stop.
pub(super) const STOPS_WITHIN: Duration = Duration::from_millis(2500);
/// A marker waits until a voter is back.
const WITHOUT_END: Duration = Duration::from_secs(365 * 24 * 3600);
/// How often voters are asked for the marker of a change.
const ASKED_EVERY: Duration = Duration::from_millis(20);
/// How long after a barrier that failed the next one is begun.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

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
            session.end_sessions_of(lock).await?;
            self.instance.tell(wish, "shut-out", format!("receives no more from here: {}", lock.join(", ")));
        }
        self.accounts_at = None;
        Ok(())
    }

    pub(super) async fn end_receivers(&mut self, wish: &Wish, users: &[String]) -> Result<(), StepError> {
        self.own()?.end_sessions_of(users).await?;
        let message =
            format!("connections of {} were ended: they are not to receive from here", users.join(", "));
        self.instance.tell(wish, "shut-out", message);
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

    /// Before the opening: commits wait for as many as the record says.
    pub(super) async fn close_ranks(&mut self, permit: &OpeningPermit) -> Result<(), StepError> {
        let acks = permit.acks();
        if acks == 0 {
            return Ok(());
        }
        let session = self.own()?;
        session.set_semi_sync_source(Some(acks)).await?;
        let server = session.observe().await?;
        if !server.acks.working || server.acks_in_force() != acks {
            return Err(StepError::Refused(format!(
                "semi-sync towards replicas does not work (it waits for {}, expected {acks}): nothing is opened",
                server.acks_in_force()
            )));
        }
        Ok(())
    }

    /// Before the marker of an opening: nobody is counted who is not to be (V3).
    pub(super) async fn shut_out(&mut self, wish: &Wish, permit: &OpeningPermit) -> Result<(), StepError> {
        if permit.acks() == 0 {
            return Ok(());
        }
        let record = wish.grant.record().ok_or(StepError::Changed("the leadership"))?;
        let accounts = self.own()?.accounts().await?;
        let own = self.instance.state().seen.record.server_id.ok_or(StepError::Changed("the server id"))?;
        let session = self.own()?;
        let wanted = locked(record, wish, own, &accounts).ok_or(StepError::Changed("the members"))?;
        let (lock, unlock) = changes_of_locks(&wanted, &accounts);
        if !lock.is_empty() || !unlock.is_empty() {
            session.lock_accounts(&lock, &unlock).await?;
        }
        if !wanted.is_empty() {
            session.end_sessions_of(&wanted.into_iter().collect::<Vec<_>>()).await?;
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
            let ended = commit_marker(&instance, session).await;
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

    /// Whether commits wait and none is acknowledged; `true`: that has changed.
    pub(super) fn watch_commits(&mut self) -> bool {
        let mut state = self.instance.state();
        let acks = state.seen.server.present().map(|server| server.acks).filter(|acks| acks.waiting > 0);
        self.waits = acks.map(|acks| match self.waits {
            Some((answered, since)) if answered == acks.answered => (answered, since),
            _ => (acks.answered, Instant::now()),
        });
        let stalled = self.waits.is_some_and(|(_, since)| since.elapsed() >= STALLED_AFTER);
        std::mem::replace(&mut state.seen.voting.stalled, stalled) != stalled
    }

    /// L13.
    pub(super) fn nudge(&mut self, wish: &Wish) {
        let (instance, wish) = (self.instance.clone(), wish.clone());
        instance.state().seen.voting.nudging = true;
        tracing::info!(instance = %instance.name, "commits wait although enough voters are connected");
        tokio::spawn(async move {
            let ended = match instance.session(&wish).await {
                Ok(session) => commit_marker(&instance, session).await.map(drop),
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

/// Commits a marker, for as long as it takes; gives the session back.
async fn commit_marker(
    instance: &Instance,
    mut session: Box<dyn Session>,
) -> Result<Box<dyn Session>, StepError> {
    tokio::select! {
        biased;
        () = instance.stop.cancelled() => Err(StepError::Changed("the agent")),
        ended = session.marker(WITHOUT_END) => Ok(ended.map(|()| session)?),
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
    let mut session = commit_marker(instance, session).await?;
    let server = session.observe().await?;
    let wanted = server.gtid_executed.of_uuid(&server.server_uuid);
    drop(session);
    let login = Login { user: ADMIN_USER.to_owned(), password: secrets.admin.clone() };
    let mut left: BTreeMap<&InstanceName, Asked> = BTreeMap::new();
    for name in staying(record) {
        let member = wish.members.iter().find(|member| member.name == *name);
        if let Some((host, port)) = member.and_then(|member| Some((member.address.clone()?, member.port))) {
            left.insert(name, (Endpoint::Tcp { host, port }, None));
        }
    }
    let mut missing = acks_wanted(record);
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
