//! Changes of whole clusters that were asked for: `P/operations/<id>`, and the locks they hold.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::policy::WishedDurability;
use crate::size::Size;
use crate::target::VariableValue;
use crate::{ClusterName, HostName, InstanceName, Timestamp};

/// One requested change, and how far it is. Written by the command line (created, or its cancel asked for), then by the
/// controller in office; each time by compare-and-swap.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Operation {
    /// The last part of its key: milliseconds (13 digits), writer, counter, as an event's.
    pub id: String,
    /// What is asked, with its parameters.
    pub request: Request,
    /// What it is about. A drain touches one cluster after another.
    #[serde(default)]
    pub clusters: Vec<ClusterName>,
    /// Where it stands.
    pub state: OperationState,
    /// What is being done.
    #[serde(default)]
    pub step: Option<String>,
    /// What it waits for.
    #[serde(default)]
    pub waiting_on: Option<Waited>,
    /// How much of it is done.
    #[serde(default)]
    pub progress: Progress,
    /// The steps that were foreseen when it began, a sentence each.
    #[serde(default)]
    pub plan: Vec<String>,
    /// Who asked.
    pub requested_by: String,
    /// When.
    pub requested_at: Timestamp,
    /// When the document was last written.
    pub updated_at: Timestamp,
    /// How it ended, in a sentence.
    #[serde(default)]
    pub outcome: Option<String>,
    /// Somebody asks for its end; obeyed where what was done can be undone.
    #[serde(default)]
    pub cancel: bool,
    /// What cannot be derived again from targets and statuses.
    #[serde(default)]
    pub memory: Memory,
}

impl Operation {
    /// One that is asked for.
    pub fn queued(id: String, request: Request, clusters: Vec<ClusterName>, by: &str, at: Timestamp) -> Self {
        Operation {
            id,
            request,
            clusters,
            state: OperationState::Queued,
            step: None,
            waiting_on: None,
            progress: Progress::default(),
            plan: Vec::new(),
            requested_by: by.to_owned(),
            requested_at: at,
            updated_at: at,
            outcome: None,
            cancel: false,
            memory: Memory::default(),
        }
    }

    /// The clusters that it locks when it begins. A drain takes one after another, each with its first write about it.
    pub fn locks(&self) -> &[ClusterName] {
        match self.request {
            Request::Drain { .. } => &[],
            _ => &self.clusters,
        }
    }
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Request {
    /// A new cluster.
    Create(Create),
    /// As many minions.
    Scale {
        /// How many there are to be.
        replicas: u32,
        /// Hosts that new ones may be placed on; any where empty.
        #[serde(default)]
        hosts: Vec<HostName>,
    },
    /// Another master.
    Switchover {
        /// Which; the best where none is named.
        #[serde(default)]
        to: Option<InstanceName>,
    },
    /// All members stop.
    Stop,
    /// All members start.
    Start,
    /// All members go; their data are kept.
    Delete,
    /// Another image, member by member.
    Upgrade {
        /// It.
        image: String,
        /// How long each member is watched, in seconds.
        soak: u64,
    },
    /// Server variables of all members; those without a value go back to their defaults.
    Set {
        /// By name.
        mysql: BTreeMap<String, Option<VariableValue>>,
    },
    /// Another size of all members.
    Resize {
        /// It.
        size: Size,
    },
    /// A member goes to another host.
    Move {
        /// Which.
        instance: InstanceName,
        /// Where to.
        to: HostName,
    },
    /// A host is emptied of masters, or of everything.
    Drain {
        /// Which.
        host: HostName,
        /// Replicas go, too.
        evict: bool,
    },
}

impl Request {
    /// Its name, as in the document and on the command line.
    pub fn kind(&self) -> &'static str {
        match self {
            Request::Create(_) => "create",
            Request::Scale { .. } => "scale",
            Request::Switchover { .. } => "switchover",
            Request::Stop => "stop",
            Request::Start => "start",
            Request::Delete => "delete",
            Request::Upgrade { .. } => "upgrade",
            Request::Set { .. } => "set",
            Request::Resize { .. } => "resize",
            Request::Move { .. } => "move",
            Request::Drain { .. } => "drain",
        }
    }
}

/// A new cluster.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Create {
    /// How many minions.
    pub replicas: u32,
    /// Of each member; `small` where none is named.
    #[serde(default)]
    pub size: Option<Size>,
    /// Of each member; the agents' own where none is named.
    #[serde(default)]
    pub image: Option<String>,
    /// Zones that members are placed in; any where empty.
    #[serde(default)]
    pub zones: Vec<String>,
    /// Hosts that members are placed on; any where empty.
    #[serde(default)]
    pub hosts: Vec<HostName>,
    /// Labels that hosts must have.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The durability wished for.
    #[serde(default)]
    pub durability: Option<WishedDurability>,
    /// The port of each member; the first free one of each host where none is named.
    #[serde(default)]
    pub port: Option<u16>,
}

/// Where an operation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OperationState {
    /// It waits for its clusters' locks.
    Queued,
    /// It holds them.
    Running,
    /// It waits for a person to go on.
    Held,
    /// All was done.
    Done,
    /// What was done was taken back.
    Undone,
    /// It could not go on; the outcome says what is left.
    Failed,
    /// A person ended it.
    Cancelled,
}

impl OperationState {
    /// Whether nothing more will be done.
    pub fn is_over(self) -> bool {
        !matches!(self, OperationState::Queued | OperationState::Running | OperationState::Held)
    }
}

impl fmt::Display for OperationState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            OperationState::Queued => "queued",
            OperationState::Running => "running",
            OperationState::Held => "held",
            OperationState::Done => "done",
            OperationState::Undone => "undone",
            OperationState::Failed => "failed",
            OperationState::Cancelled => "cancelled",
        })
    }
}

/// What an operation waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waited {
    /// One sentence.
    pub message: String,
    /// Since when.
    pub since: Timestamp,
}

/// How much of an operation is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Progress {
    /// Steps done.
    pub done: u32,
    /// Steps in all.
    pub total: u32,
}

/// What an operation must not forget, and what no target or status tells.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Memory {
    /// Who led when it began.
    #[serde(default)]
    pub led: Option<InstanceName>,
    /// The member that is to lead.
    #[serde(default)]
    pub candidate: Option<InstanceName>,
    /// The term of the handover under way.
    #[serde(default)]
    pub term: Option<u64>,
    /// How many handovers were taken back.
    #[serde(default)]
    pub taken_back: u32,
    /// Members that are kept out of the voters meanwhile.
    #[serde(default)]
    pub out: Vec<InstanceName>,
    /// The cluster that a drain deals with.
    #[serde(default)]
    pub cluster: Option<ClusterName>,
    /// Members that it made.
    #[serde(default)]
    pub added: Vec<InstanceName>,
    /// Members that it has dealt with.
    #[serde(default)]
    pub done: Vec<InstanceName>,
    /// The member that it deals with.
    #[serde(default)]
    pub current: Option<InstanceName>,
    /// Since when that member is watched.
    #[serde(default)]
    pub since: Option<Timestamp>,
    /// When it is given up.
    #[serde(default)]
    pub until: Option<Timestamp>,
}

/// `P/locks/<cluster>`: the operation that holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// Its id.
    pub operation: String,
}

/// `P/controllers/<id>`: a copy of the controller, under its lease. `P/controller/leader` holds the id of the one in
/// office.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControllerCopy {
    /// Its id.
    pub id: String,
    /// The machine it runs on.
    pub host: String,
    /// Its process id there.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// Since when it runs.
    pub since: Timestamp,
}

/// `P/routes/<cluster>`: where clients find its members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The term it is about.
    pub term: u64,
    /// Who takes writes; none while nobody leads.
    pub master: Option<RouteTo>,
    /// Who may be read from.
    pub replicas: Vec<RouteTo>,
    /// The schemas that it owns; all where none are named.
    #[serde(default)]
    pub schemas: Option<Vec<String>>,
    /// Schemas that moved elsewhere.
    #[serde(default)]
    pub moved: Vec<serde_json::Value>,
}

/// One member, as clients reach it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RouteTo {
    /// The instance.
    pub name: InstanceName,
    /// Its address.
    pub host: String,
    /// Its port.
    pub port: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_told_by_its_kind_and_reads_back() {
        let request = Request::Upgrade { image: "mysql:9".to_owned(), soak: 30 };
        let json = serde_json::to_value(&request).unwrap();
        assert_eq!(json["kind"], "upgrade");
        assert_eq!(json["kind"], request.kind());
        assert_eq!(serde_json::from_value::<Request>(json).unwrap(), request);
        let create = Request::Create(Create { replicas: 2, ..Create::default() });
        let json = serde_json::to_value(&create).unwrap();
        assert_eq!((json["kind"].as_str(), json["replicas"].as_u64()), (Some("create"), Some(2)));
        assert_eq!(serde_json::from_value::<Request>(json).unwrap(), create);
    }
}
