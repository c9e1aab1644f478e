//! What all parts of one agent share.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;
use schemadock_agent_plan::desired::HostDefaults;
use schemadock_agent_plan::observed::{ContainerSeen, TemplateSeen};
use schemadock_schema::InstanceName;
use schemadock_schema::keys::Keys;
use schemadock_schema::known::{Known, WhyUnknown};
use schemadock_schema::proposal::{Guard, Proposal, Write};
use schemadock_store::mirror::Mirror;
use schemadock_store::{Committed, Store, StoreError, watch};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::containers::{Containers, Owner};
use crate::disk::Disk;
use crate::events::Events;
use crate::mysqld::Mysqld;
use crate::settings::Settings;

/// The containers of this host, by instance, as last seen.
pub type ContainersSeen = Known<BTreeMap<InstanceName, Known<ContainerSeen>>>;

/// Whose the host's name is, as far as the store has said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// Nobody has answered yet.
    NotYet,
    /// This agent's.
    Ours,
    /// Another living agent's: this one waits.
    Others,
    /// The store does not answer, and never said that it is another's: the agent goes on from what it remembers, and
    /// writes nothing.
    StoreAway,
}

/// See the module.
pub struct Context {
    /// The settings.
    pub settings: Settings,
    /// What every instance gets from the host.
    pub defaults: HostDefaults,
    /// Where documents stand.
    pub keys: Keys,
    /// Wall time.
    pub clock: Clock,
    /// The store, kept at hand.
    pub mirror: Mirror,
    /// Docker.
    pub containers: Arc<dyn Containers>,
    /// Servers.
    pub mysqld: Arc<dyn Mysqld>,
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// What happened.
    pub events: Events,
    /// Containers as last seen.
    pub seen_containers: watch::Sender<ContainersSeen>,
    /// Templates by key.
    pub templates: watch::Sender<BTreeMap<String, TemplateSeen>>,
    /// Places among the servers that start.
    pub start_slots: Arc<Semaphore>,
    /// Whose this host's name is.
    pub whose_name: watch::Sender<Whose>,
    /// The agent's id, by which it holds the host's name.
    pub agent: String,
    /// Whose containers are ours; none while no fleet is known.
    pub owner: watch::Sender<Option<Owner>>,
    /// Ends everything.
    pub stop: CancellationToken,
    /// For jitter.
    pub seed: u64,
    /// For server ids.
    pub ids: Mutex<StdRng>,
}

/// Why a step was not done.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// Docker.
    #[error(transparent)]
    Container(#[from] crate::containers::ContainerError),
    /// The server.
    #[error(transparent)]
    Mysql(#[from] crate::mysqld::MysqlError),
    /// The disk.
    #[error(transparent)]
    Disk(#[from] crate::disk::DiskError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What it was judged by has changed meanwhile: planned anew.
    #[error("{0} changed meanwhile")]
    Changed(&'static str),
    /// It cannot be done.
    #[error("{0}")]
    Refused(String),
}

impl Context {
    /// The store.
    pub fn store(&self) -> &Arc<dyn Store> {
        self.mirror.store()
    }

    /// `uid:gid` of mysqld, as Docker takes it.
    pub fn server_user(&self) -> String {
        let (uid, gid) = self.settings.mysqld_user;
        format!("{uid}:{gid}")
    }

    /// A server id to try. Whether it is free, only the store can tell.
    pub fn draw_server_id(&self) -> u32 {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        ids.random_range(1_000..=2_000_000_000)
    }

    /// A duration, scaled.
    pub fn scaled(&self, duration: Duration) -> Duration {
        duration.mul_f64(self.settings.time_scale)
    }

    /// The guard that every write but a host's own report carries: the store is still this fleet's.
    ///
    /// # Errors
    /// While the store is not believed.
    pub fn fleet_guard(&self) -> Result<Guard, StepError> {
        let create_revision = self.mirror.view().fleet_created.ok_or(StepError::Changed("the store"))?;
        Ok(Guard::Created { key: self.keys.fleet(), create_revision })
    }

    /// Commits, if the host's name is this agent's: another agent of this name has the host's documents.
    ///
    /// # Errors
    /// When the name is not ours, or the store does not answer.
    pub async fn write(&self, proposal: &Proposal) -> Result<Committed, StepError> {
        if *self.whose_name.borrow() != Whose::Ours {
            return Err(StepError::Changed("the host's name"));
        }
        Ok(self.store().commit(proposal).await?)
    }

    /// Commits under the fleet's guard; returns the revision.
    ///
    /// # Errors
    /// When the name is not ours, the store does not answer, or a guard did not hold.
    pub async fn commit(&self, writes: Vec<Write>, mut guards: Vec<Guard>) -> Result<i64, StepError> {
        guards.push(self.fleet_guard()?);
        match self.write(&Proposal { writes, guards, report: Vec::new() }).await? {
            Committed::Conflict => Err(StepError::Changed("the store")),
            Committed::Written { revision } => Ok(revision),
        }
    }

    /// Lists the containers anew and lets everybody know.
    pub async fn look_at_containers(&self) {
        let Some(owner) = self.owner.borrow().clone() else { return };
        let found = match self.containers.list(&owner).await {
            Ok(found) => Known::Present(found),
            Err(error) => Known::Unknown(WhyUnknown::Error(error.to_string())),
        };
        self.seen_containers.send_if_modified(|seen| {
            let differs = *seen != found;
            *seen = found;
            differs
        });
    }
}
