//! What is asked of an instance, as far as the store (or the agent's cache of it) says.

use std::collections::{BTreeMap, BTreeSet};

use schemadock_schema::known::Known;
use schemadock_schema::leadership::{Leadership, LeadershipPhase, Vote};
use schemadock_schema::secrets::Secrets;
use schemadock_schema::status::{DataState, Phase, StoreReport, StoreState};
use schemadock_schema::target::Role;
use schemadock_schema::{ClusterName, HostName, InstanceName};

use crate::desired::Desired;

/// All that is asked of one instance.
#[derive(Debug, Clone, PartialEq)]
pub struct Wish {
    /// The instance.
    pub instance: InstanceName,
    /// Its target.
    pub wanted: Wanted,
    /// Revision of the target.
    pub target_revision: Option<i64>,
    /// Revision of the cluster's policy; 0 where there is none.
    pub policy_revision: Option<i64>,
    /// Who may write, and with what credentials.
    pub grant: Grant,
    /// The server that it is to follow as minion.
    pub source: Option<SourceWish>,
    /// Where the member that leads listens, if it is another one.
    pub leader: Option<(String, u16)>,
    /// The other members of the cluster.
    pub members: Vec<Member>,
    /// The newest votes of all members.
    pub votes: BTreeMap<InstanceName, Vote>,
    /// Server ids of those whose targets make them follow this server, and of all other members.
    pub followers: BTreeSet<u32>,
    /// The data directory that etcd remembers for this instance, in its status.
    pub recorded_uuid: Known<String>,
    /// Whether the store is ours; none while nobody has answered since the agent's start.
    pub store: Option<StoreReport>,
    /// A controller is in office.
    pub controller: bool,
    /// A request to stop safely and start with what was pending.
    pub restart_asked: bool,
    /// A request to set the data aside and seed anew.
    pub reseed_asked: bool,
}

/// An instance's target.
#[derive(Debug, Clone, PartialEq)]
pub enum Wanted {
    /// As the document says.
    Run(Box<Desired>),
    /// The document cannot be read: the instance keeps running as it was.
    Unreadable {
        /// Why.
        reason: String,
        /// The last one that could be read.
        last: Option<Box<Desired>>,
    },
    /// There is no document: the container goes, the data stay.
    Deleted,
}

impl Wanted {
    /// What the server is to be, if it is to be.
    pub fn desired(&self) -> Option<&Desired> {
        match self {
            Wanted::Run(desired) => Some(desired),
            Wanted::Unreadable { last, .. } => last.as_deref(),
            Wanted::Deleted => None,
        }
    }
}

/// Who may write, and with what credentials.
#[derive(Debug, Clone, PartialEq)]
pub struct Grant {
    /// The cluster that it is about.
    pub cluster: Option<ClusterName>,
    /// The record's meaning (the end of a handover folded in).
    pub leadership: Known<Leadership>,
    /// When the record was last written; none where it comes from memory.
    pub revision: Option<i64>,
    /// The credentials.
    pub secrets: Known<Secrets>,
}

impl Grant {
    /// The record, if there is one.
    pub fn record(&self) -> Option<&Leadership> {
        self.leadership.present()
    }

    /// Whether leadership names this instance.
    pub fn names(&self, instance: &InstanceName) -> bool {
        self.record().is_some_and(|record| record.master.as_ref() == Some(instance))
    }

    /// Whether the record is at rest: nobody's leadership is being changed.
    pub fn steady(&self) -> bool {
        self.record().is_some_and(|record| record.phase == LeadershipPhase::Steady)
    }
}

/// The server that an instance is to follow.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceWish {
    /// The host named.
    pub host: HostName,
    /// The port named.
    pub port: u16,
    /// The host's address; absent while it is not registered.
    pub address: Known<String>,
    /// The instance there, if a target says so.
    pub instance: Option<InstanceName>,
    /// Whether it belongs to the same cluster.
    pub own_cluster: bool,
    /// How its agent reports it.
    pub phase: Option<Phase>,
    /// Its identity as reported.
    pub server_uuid: Option<String>,
    /// Credentials of the cluster that it belongs to.
    pub secrets: Known<Secrets>,
}

/// Another member of the cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// The instance.
    pub name: InstanceName,
    /// Its host.
    pub host: HostName,
    /// The role that its target names.
    pub role: Role,
    /// Whether its target stops it.
    pub disabled: bool,
    /// Whether its host was ever registered.
    pub registered: bool,
    /// Where it listens.
    pub address: Option<String>,
    /// On which port.
    pub port: u16,
    /// What its agent reports of its data; none: no report yet.
    pub data: Option<DataState>,
    /// Where its agent sees it.
    pub phase: Option<Phase>,
    /// Its version as reported.
    pub version: Option<String>,
    /// Its id in replication as reported.
    pub server_id: Option<u32>,
    /// Its data directory as reported.
    pub server_uuid: Option<String>,
    /// Whether its receiver may acknowledge, as reported; absent where it does not say, unknown before its report was
    /// read.
    pub acknowledges: Known<bool>,
    /// The address that it receives from, as reported, while it does.
    pub receives_from: Option<(String, u16)>,
    /// Seconds behind its source as reported.
    pub lag_seconds: Option<f64>,
    /// Whether it takes writes as reported.
    pub writable: bool,
}

impl Wish {
    /// What the server is to be, if it is to be.
    pub fn desired(&self) -> Option<&Desired> {
        self.wanted.desired()
    }

    /// Whether leadership names this instance.
    pub fn leads(&self) -> bool {
        self.grant.names(&self.instance)
    }

    /// Whether a handover of its cluster is under way, and not decided.
    pub fn hands_over(&self) -> bool {
        self.grant.record().is_some_and(|record| record.phase == LeadershipPhase::Handover)
    }

    /// Whether the leadership is being handed over to this instance.
    pub fn is_candidate(&self) -> bool {
        self.hands_over()
            && self.grant.record().is_some_and(|record| record.to.as_ref() == Some(&self.instance))
    }

    /// Whether etcd has answered and is the one that is known.
    pub fn believes_store(&self) -> bool {
        self.store.as_ref().is_some_and(|store| store.state == StoreState::Ok)
    }

    /// Members that are not told to stop.
    pub fn enabled_others(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| !member.disabled)
    }
}
