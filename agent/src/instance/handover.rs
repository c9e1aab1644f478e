//! The standing lane's steps in a handover (*Switchover*).
//!
//! Between the freeze and the opening nothing is done that could be done before or after: the term is on disk, sessions
//! are open, nothing is looked at for the sake of a report.

use std::time::Duration;

use schemadock_agent_plan::handover::{is_behind_candidate, movers, not_moved, receives_early};
use schemadock_agent_plan::observed::{FreezeSeen, FreezeState, Seen};
use schemadock_agent_plan::record::AcceptedTerm;
use schemadock_agent_plan::wish::{Grant, Wish};
use schemadock_schema::gtid::GtidSet;
use schemadock_schema::known::Known;
use schemadock_schema::leadership::{Handover, Leadership, LeadershipPhase, Vote};
use schemadock_schema::proposal::{Guard, Write};
use tokio::time::Instant;

use super::opening::OpeningPermit;
use super::standing::Lane;
use super::voting::STOPS_WITHIN;
use super::{Instance, endpoint_of};
use crate::context::StepError;
use crate::failpoints;
use crate::mysqld::{Login, MysqlError};

/// How long a freeze may wait for writes under way, and how long it lasts before the old master tries to end it.
const FREEZE: Duration = Duration::from_secs(1);
/// How long a former master leaves the disk to the one that opens, and movers have to catch up.
const MOMENT: Duration = Duration::from_millis(500);
/// How long a frozen master leaves everything to the one that takes over, unless it is asked for something.
const LEAVES_TO_CANDIDATE: Duration = Duration::from_millis(150);
/// How long a new master leaves everything to its clients, and all members tell nothing of themselves.
pub(super) const LEAVES_TO_CLIENTS: Duration = Duration::from_millis(50);
/// How long the old master's vote waits for a candidate that hears of its final set otherwise: longer than most take-overs
/// take from there, shorter than anybody would notice.
const HEARD_WITHIN: Duration = Duration::from_millis(40);
/// How long the candidate may take to apply the final set.
const APPLIES_WITHIN: Duration = Duration::from_secs(1);

impl Lane {
    /// What time has made of a handover.
    pub(super) fn keep_time(&mut self, wish: &Wish) {
        let instance = self.instance.clone();
        let record = wish.grant.record().filter(|record| record.phase == LeadershipPhase::Handover);
        let late = record
            .and_then(|record| record.deadline)
            .is_some_and(|deadline| instance.ctx.clock.now() > deadline);
        let long = self.frozen_at.is_some_and(|at| at.elapsed() > instance.ctx.scaled(FREEZE));
        let behind = !receives_early(wish)
            || instance.state().seen.server.present().is_some_and(|server| is_behind_candidate(wish, server));
        let moved = record.filter(|record| wish.leads() && behind && not_moved(record, wish).is_empty());
        self.moved = moved.map(|record| match self.moved {
            Some((term, since)) if term == record.term => (term, since),
            _ => (record.term, Instant::now()),
        });
        // Without anybody who moves there is nothing to wait for.
        let nobody = record.is_some_and(|record| movers(record).next().is_none()) && !receives_early(wish);
        let settled =
            nobody || self.moved.is_some_and(|(_, since)| since.elapsed() >= instance.ctx.scaled(MOMENT));
        let just = self.frozen_at.is_some_and(|at| at.elapsed() < instance.ctx.scaled(MOMENT));
        let mut state = instance.state();
        state.seen.handover.late = late;
        state.seen.handover.just_frozen = just;
        state.seen.handover.settled = settled;
        if let Some(FreezeSeen { state: FreezeState::Frozen { overdue, .. }, .. }) =
            &mut state.seen.handover.freeze
        {
            *overdue = long;
        }
    }

    fn freeze_is(&self, term: u64, state: FreezeState) {
        self.instance.state().seen.handover.freeze = Some(FreezeSeen { term, state });
    }

    fn accepted(wish: &Wish, term: u64) -> Result<AcceptedTerm, StepError> {
        let cluster = wish.grant.cluster.clone().ok_or(StepError::Changed("the cluster"))?;
        Ok(AcceptedTerm { cluster, term })
    }

    /// The term on disk; a second session here, one to the candidate there. What a candidate's disk says of having led
    /// stands there before it can, in the same write; the old master's vote is its final set, and it makes no other.
    pub(super) async fn prepare(&mut self, wish: &Wish, term: u64) -> Result<(), StepError> {
        let instance = self.instance.clone();
        let accepted = Self::accepted(wish, term)?;
        let durability = wish.grant.record().map(|record| record.durability);
        let leads = wish.leads();
        instance
            .update_record(|record| {
                record.accepted = Some(accepted);
                match leads {
                    true => record.voted.clone_from(&record.accepted),
                    false => record.led_under = durability,
                }
            })
            .await?;
        self.spare = Some(instance.session(wish).await?);
        // Looked at again before they are needed.
        self.accounts_at = None;
        if !wish.leads() {
            return Ok(());
        }
        self.promise(term).await;
        let to = wish.grant.record().and_then(|record| record.to.as_ref());
        let endpoint = to.and_then(|to| endpoint_of(wish, to));
        if let (Some(endpoint), Some(secrets)) = (endpoint, wish.grant.secrets.present()) {
            let login = Login::admin(secrets);
            // Only a matter of time: it is asked again when it is needed.
            if let Ok(session) = instance.ctx.mysqld.connect(&endpoint, &login, Duration::from_secs(1)).await
            {
                self.source = Some((endpoint, session));
            }
        }
        Ok(())
    }

    /// Design: *Switchover*, "the old master following the new". The candidate is looked at first: what it has by then, this
    /// one must have.
    pub(super) async fn follow_candidate(
        &mut self,
        wish: &Wish,
        seen: &Seen,
        host: &str,
        port: u16,
    ) -> Result<(), StepError> {
        let record = wish.grant.record().ok_or(StepError::Changed("the leadership"))?;
        let (_, candidate) = self.source.as_mut().ok_or(StepError::Changed("the session"))?;
        let theirs = candidate.position().await?.executed;
        let own = self.own()?.position().await?;
        // What waits here for its acknowledgement may be executed there already.
        let arrived = theirs.of_uuid(&own.server_uuid);
        let foreign = theirs.minus(&own.executed).minus(&record.settled).minus(&arrived);
        if !foreign.is_empty() {
            return Err(StepError::Refused(format!(
                "the candidate has {foreign}, which its master lacks: the handover is not begun; look at the candidate \
                 with `schemadock describe`"
            )));
        }
        self.make_channel(wish, seen, host, port, true).await?;
        Ok(self.own()?.start_receiver().await?)
    }

    /// Order matters: after the vote nothing more is received from the old master.
    pub(super) async fn move_behind(&mut self, wish: &Wish, term: u64) -> Result<(), StepError> {
        let accepted = Self::accepted(wish, term)?;
        self.instance.update_record(|record| record.accepted = Some(accepted)).await?;
        self.own()?.stop_receiver(STOPS_WITHIN).await?;
        self.accept(wish, term).await
    }

    /// L5: frozen is what `super_read_only=ON` has returned on; else writes go on, and the leadership is taken back.
    pub(super) async fn freeze(&mut self, wish: &Wish, term: u64) -> Result<(), StepError> {
        let instance = self.instance.clone();
        // One that is due while nothing can be written would fail, and one that is to run once be gone.
        self.schedule_events(wish, false).await?;
        let begun = Instant::now();
        tracing::info!(instance = %instance.name, term, "freeze begun");
        self.frozen_at = Some(begun);
        let told = match self.own()?.set_super_read_only(true, FREEZE).await {
            Ok(()) => {
                self.freeze_is(term, FreezeState::Frozen { published: false, overdue: false });
                self.keep_promise(term).await
            }
            Err(error @ (MysqlError::Server { .. } | MysqlError::Answer { .. })) => {
                self.freeze_is(term, FreezeState::GivenUp);
                instance.tell(wish, "handover", format!("the freeze was given up, writes go on: {error}"));
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        tracing::info!(instance = %instance.name, term, micros = micros(begun), "freeze returned");
        failpoints::reach("PublishFinal", "before");
        if !told || !Self::decided_soon(&instance, term).await {
            self.publish_final(wish, term).await?;
            failpoints::reach("PublishFinal", "after");
        }
        self.quiet_until = Instant::now() + LEAVES_TO_CANDIDATE;
        Ok(())
    }

    /// Whether the candidate, which hears of the final set here, wins within a moment: its vote would wake all members, and
    /// be read by none.
    async fn decided_soon(instance: &Instance, term: u64) -> bool {
        let mut asked = instance.asked.clone();
        let over = asked.wait_for(|asked| {
            let record = asked.wish.grant.record();
            record.is_some_and(|record| record.term != term || record.phase != LeadershipPhase::Handover)
        });
        tokio::time::timeout(HEARD_WITHIN, over).await.is_ok_and(|over| over.is_ok())
    }

    /// The final set of a frozen server is its vote.
    pub(super) async fn publish_final(&mut self, wish: &Wish, term: u64) -> Result<(), StepError> {
        let instance = self.instance.clone();
        let ctx = &instance.ctx;
        let accepted = Self::accepted(wish, term)?;
        let at = self.own()?.position().await?;
        if !at.super_read_only || at.applies {
            return Err(StepError::Changed("the freeze"));
        }
        let vote = Vote {
            cluster: accepted.cluster,
            term,
            server_uuid: at.server_uuid,
            received: at.executed.clone(),
            executed: at.executed,
        };
        let key = ctx.keys.vote(&ctx.settings.host, &instance.name);
        ctx.commit(vec![Write::document(key, &vote)], Vec::new()).await?;
        self.freeze_is(term, FreezeState::Frozen { published: true, overdue: false });
        tracing::info!(instance = %instance.name, term, micros = self.frozen_at.map(micros), "final set published");
        Ok(())
    }

    /// How a handover ends once this server has won.
    async fn winning(&mut self) -> Result<Handover, StepError> {
        let at = self.own()?.position().await?;
        Ok(Handover { winner: self.instance.name.clone(), server_uuid: at.server_uuid, base: at.executed })
    }

    /// The transaction by which a handover ends: the key is not there, and the record is the one that began it.
    async fn decide(
        instance: &Instance,
        wish: &Wish,
        term: u64,
        revision: i64,
        ended: &Handover,
    ) -> Result<(i64, OpeningPermit), StepError> {
        let ctx = &instance.ctx;
        let record = wish.grant.record().ok_or(StepError::Changed("the leadership"))?;
        let cluster = wish.grant.cluster.as_ref().ok_or(StepError::Changed("the cluster"))?;
        let key = ctx.keys.handover(cluster, term);
        let guards = vec![
            Guard::Absent { key: key.clone() },
            Guard::At { key: ctx.keys.leadership(cluster), mod_revision: revision },
        ];
        let revision = ctx.commit(vec![Write::document(key, ended)], guards).await?;
        // Before anything else is planned on older news.
        instance.state().seen.handover.won = Some(term);
        Ok((revision, OpeningPermit::by_deciding(&record.with_handover(Some(ended)))))
    }

    /// Wins the decision for the old master. Where etcd does not answer it stays frozen.
    pub(super) async fn take_back(&mut self, wish: &Wish, term: u64, why: &str) -> Result<(), StepError> {
        let instance = self.instance.clone();
        let ctx = &instance.ctx;
        let cluster = wish.grant.cluster.as_ref().ok_or(StepError::Changed("the cluster"))?;
        let record_key = ctx.keys.leadership(cluster);
        let answer = ctx.store().read_linearizable(std::slice::from_ref(&record_key)).await?;
        let entry = answer.get(&record_key).ok_or(StepError::Changed("the leadership"))?;
        let record: Leadership = serde_json::from_slice(&entry.value)
            .map_err(|error| StepError::Refused(format!("{record_key} cannot be read: {error}")))?;
        let same = record.phase == LeadershipPhase::Handover
            && record.term == term
            && record.master.as_ref() == Some(&instance.name);
        if !same {
            return Err(StepError::Changed("the leadership"));
        }
        let ended = self.winning().await?;
        let (revision, _) = Self::decide(&instance, wish, term, entry.mod_revision, &ended).await?;
        tracing::info!(instance = %instance.name, term, why, "taken back");
        instance.tell(wish, "handover", format!("the leadership was taken back in term {term}: {why}"));
        instance.await_revision(revision).await;
        Ok(())
    }

    /// The candidate: applied, receiving no more, decided, open.
    pub(super) async fn take_over(
        &mut self,
        wish: &Wish,
        term: u64,
        executed: &GtidSet,
    ) -> Result<(), StepError> {
        let instance = self.instance.clone();
        let begun = Instant::now();
        let revision = wish.grant.revision.ok_or(StepError::Changed("the leadership"))?;
        let told = |what: &str| {
            tracing::info!(instance = %instance.name, term, micros = micros(begun), "{what}");
        };
        told("final set seen");
        let record = wish.grant.record().ok_or(StepError::Changed("the leadership"))?;
        let (_, _, seen) = instance.snapshot();
        let server_uuid = seen.record.server_uuid.ok_or(StepError::Changed("the identity"))?;
        let meant = record.with_handover(Some(&Handover {
            winner: instance.name.clone(),
            server_uuid,
            base: executed.clone(),
        }));
        let acks = meant.acks_wanted();
        let grant = Grant { leadership: Known::Present(meant), ..wish.grant.clone() };
        let then = Wish { grant, ..wish.clone() };
        let mut spare = match self.spare.take() {
            Some(session) => session,
            None => instance.session(wish).await?,
        };
        let ranks = self.ranks(&then).await?;
        let session = self.own()?;
        let (applied, silent) =
            tokio::join!(session.wait_executed(executed, APPLIES_WITHIN), spare.set_semi_sync_replica(false));
        if !applied? {
            return Err(StepError::Changed("what is to be applied"));
        }
        silent?;
        self.are_frozen(wish).await?;
        let session = self.own()?;
        told("caught up");
        // Nothing comes from a frozen master, and nothing is written here before it is decided: meanwhile commits can be
        // made to wait. Not before all is applied: the applier's would.
        let (stopped, waits) =
            tokio::join!(session.stop_receiver(STOPS_WITHIN), Self::wait_for_voters(&mut spare, acks));
        stopped?;
        waits?;
        let ended = self.winning().await?;
        told("receives no more");
        let (revision, permit) = Self::decide(&instance, wish, term, revision, &ended).await?;
        told("decided");
        instance.ctx.events.hold_until(Instant::now() + LEAVES_TO_CLIENTS);
        // All that it has was acknowledged, and stands on the old master, too: a marker would tell nobody anything.
        self.shut_out(&ranks).await?;
        self.open_to_clients(&then, permit).await?;
        told("opened");
        self.quiet_until = Instant::now() + LEAVES_TO_CLIENTS;
        instance.tell(&then, "handover", format!("took the leadership over in term {term}"));
        instance.await_revision(revision).await;
        Ok(())
    }
}

fn micros(since: Instant) -> u64 {
    since.elapsed().as_micros() as u64
}
