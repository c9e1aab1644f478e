//! The final set's short way, from the old master's server to the candidate's agent, without etcd.
//!
//! The old master's agent holds a lock by name on its server and exchanges it for another one once the freeze has returned.
//! The candidate's agent waits for that on a session there, and reads the set itself. Locks end with their session: where
//! an agent or a server ended, nobody says "frozen", and the candidate waits for the vote in etcd, which is written where
//! the handover is not decided soon.

use std::sync::Arc;
use std::time::Duration;

use schemadock_agent_plan::wish::Wish;
use schemadock_schema::ClusterName;
use schemadock_schema::gtid::GtidSet;
use schemadock_schema::leadership::{Leadership, Vote};
use schemadock_schema::secrets::AGENT_USER;
use schemadock_store::backoff::Delays;
use tokio_util::task::AbortOnDropHandle;

use super::handover::LEAVES_TO_CLIENTS;
use super::standing::Lane;
use super::{Instance, endpoint_of};
use crate::mysqld::{Endpoint, LockSeen, Login, MysqlError, Session};

/// How long one statement waits.
const WAITS: Duration = Duration::from_secs(1);
/// Between two looks until the old master has its lock: no event tells of that.
const LOOKS_EVERY: Duration = Duration::from_millis(20);

/// The old master has accepted the term, and takes writes.
fn open_in(term: u64) -> String {
    format!("schemadock open in term {term}")
}

/// Its freeze has returned.
fn frozen_in(term: u64) -> String {
    format!("schemadock frozen in term {term}")
}

/// Waits for the final set; ends where this is dropped.
pub(super) struct Listener {
    term: u64,
    _task: AbortOnDropHandle<()>,
}

impl Lane {
    /// On the old master, before the freeze. Where it fails, there is nothing to exchange.
    pub(super) async fn promise(&mut self, term: u64) {
        let Some(session) = &mut self.session else { return };
        match session.take_lock(&open_in(term)).await {
            Ok(true) => {}
            Ok(false) => {
                tracing::info!(instance = %self.instance.name, term, "somebody else has the lock of its freeze");
            }
            Err(error) => {
                tracing::info!(instance = %self.instance.name, term, %error, "no lock for its freeze");
            }
        }
    }

    /// There, once the freeze has returned. `false`: the candidate does not hear of it, and waits for the vote.
    pub(super) async fn keep_promise(&mut self, term: u64) -> bool {
        let Some(session) = &mut self.session else { return false };
        match session.exchange_lock(&open_in(term), &frozen_in(term)).await {
            Ok(()) => true,
            Err(error) => {
                tracing::info!(instance = %self.instance.name, term, %error, "the final set goes through etcd");
                false
            }
        }
    }

    /// On the candidate, for as long as a handover to it is not decided.
    pub(super) fn listen(&mut self, wish: &Wish) {
        let Some(record) = wish.grant.record().filter(|_| wish.is_candidate()) else {
            self.listener = None;
            return;
        };
        if self.listener.as_ref().is_some_and(|listener| listener.term == record.term) {
            return;
        }
        let term = record.term;
        self.listener = old_master(wish, record).map(|(cluster, endpoint, login)| {
            let instance = self.instance.clone();
            let task = tokio::spawn(await_final_set(instance, cluster, term, endpoint, login));
            Listener { term, _task: AbortOnDropHandle::new(task) }
        });
    }
}

/// Where the old master is asked, and as whom.
fn old_master(wish: &Wish, record: &Leadership) -> Option<(ClusterName, Endpoint, Login)> {
    let endpoint = endpoint_of(wish, record.master.as_ref()?)?;
    Some((wish.grant.cluster.clone()?, endpoint, Login::admin(wish.grant.secrets.present()?)))
}

async fn await_final_set(
    instance: Arc<Instance>,
    cluster: ClusterName,
    term: u64,
    endpoint: Endpoint,
    login: Login,
) {
    let mut delays = Delays::new(instance.ctx.seed ^ 5, Duration::from_millis(50), Duration::from_secs(1));
    loop {
        let heard = async {
            let mut session = instance.ctx.mysqld.connect(&endpoint, &login, WAITS).await?;
            Ok::<_, MysqlError>((hear(&mut session, term).await?, session))
        };
        match heard.await {
            Ok(((server_uuid, executed), session)) => {
                tracing::info!(instance = %instance.name, term, "final set heard");
                let received = executed.clone();
                instance.state().seen.handover.heard =
                    Some(Vote { cluster, term, server_uuid, received, executed });
                instance.wake_standing.notify_one();
                // To part takes time of both servers.
                tokio::time::sleep(LEAVES_TO_CLIENTS).await;
                drop(session);
                return;
            }
            // The vote comes through etcd, too.
            Err(error) => {
                tracing::debug!(instance = %instance.name, term, %error, "the old master is not heard");
                tokio::time::sleep(delays.next_delay()).await;
            }
        }
    }
}

/// Who is frozen, and what it has executed: no write is under way there any more.
async fn hear(session: &mut Box<dyn Session>, term: u64) -> Result<(String, GtidSet), MysqlError> {
    let (open, frozen) = (open_in(term), frozen_in(term));
    loop {
        match session.await_exchange(&open, &frozen, AGENT_USER, WAITS).await? {
            LockSeen::Held => continue,
            LockSeen::Free => {}
            LockSeen::Exchanged => {
                // As the old master's agent looks before it votes.
                let at = session.position().await?;
                if at.super_read_only && !at.applies {
                    return Ok((at.server_uuid, at.executed));
                }
            }
        }
        tokio::time::sleep(LOOKS_EVERY).await;
    }
}
