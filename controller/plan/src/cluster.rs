//! One cluster out of the fleet: its members, what is wished of it, who leads it.

use std::collections::BTreeMap;

use schemadock_schema::leadership::{Durability, Leadership, LeadershipPhase};
use schemadock_schema::operation::Operation;
use schemadock_schema::policy::{ClusterPolicy, WishedDurability};
use schemadock_schema::status::{Phase, Status, StoreState};
use schemadock_schema::target::{Role, Target};
use schemadock_schema::{ClusterName, HostName, InstanceName};

use crate::view::{FleetView, Stored};

/// A member whose target can be read.
#[derive(Debug, Clone, Copy)]
pub struct Member<'a> {
    /// The instance.
    pub name: &'a InstanceName,
    /// Its host.
    pub host: &'a HostName,
    /// What it is to be.
    pub target: &'a Target,
    /// When the target was last written.
    pub target_revision: i64,
    /// What its agent reports.
    pub status: Option<&'a Status>,
    /// Whether its agent lives.
    pub alive: bool,
    /// Where it listens; none while its host is not registered.
    pub address: Option<&'a str>,
}

impl Member<'_> {
    /// Whether its server runs and takes part, as far as a living agent says.
    pub fn runs(&self) -> bool {
        self.alive && self.status.is_some_and(|status| status.phase == Phase::Running)
    }

    /// Whether both replication threads run and little is to be applied.
    pub fn follows(&self, lag: f64) -> bool {
        let source = self.status.and_then(|status| status.source.as_ref());
        self.runs()
            && source.is_some_and(|source| {
                source.io == "ON"
                    && source.sql == "ON"
                    && source.lag_seconds.is_none_or(|behind| behind <= lag)
            })
    }

    /// Its data directory's identity.
    pub fn server_uuid(&self) -> Option<&str> {
        self.status?.server_uuid.as_deref()
    }

    /// Whether its agent says that nothing is left to do, at the present target and policy.
    pub fn converged(&self, policy_revision: i64) -> bool {
        self.alive
            && self.status.is_some_and(|status| {
                status.converged
                    && status.store.state == StoreState::Ok
                    && status.target_revision == Some(self.target_revision)
                    && status.policy_revision == Some(policy_revision)
            })
    }

    /// What keeps it from being converged, in a few words.
    pub fn missing(&self, policy_revision: i64) -> Option<String> {
        if self.converged(policy_revision) {
            return None;
        }
        Some(match self.status {
            _ if !self.alive => format!("{}: the agent of {} is not alive", self.name, self.host),
            None => format!("{}: no report yet", self.name),
            Some(status) if !status.message.is_empty() => format!("{}: {}", self.name, status.message),
            Some(status) => format!("{}: {}", self.name, status.phase),
        })
    }
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Cluster<'a> {
    /// Its name.
    pub name: &'a ClusterName,
    /// Its members, by name.
    pub members: BTreeMap<&'a InstanceName, Member<'a>>,
    /// How many targets it has, those that cannot be read among them.
    pub size: usize,
    /// The key of its documents that cannot be read: nothing is decided on what is missing then.
    pub unreadable: Option<String>,
    /// What is wished of it.
    pub policy: ClusterPolicy,
    /// The revision of that; 0 where there is none.
    pub policy_revision: i64,
    /// Who may write, as it stands; the end of a handover may not be folded in yet.
    pub record: Option<&'a Stored<Leadership>>,
    /// What the record means.
    pub meant: Option<&'a Leadership>,
    /// The operation that holds it.
    pub operation: Option<&'a Operation>,
    /// Members that are not counted on meanwhile.
    pub out: Vec<InstanceName>,
}

impl<'a> Cluster<'a> {
    /// Reads one cluster.
    pub fn of(view: &'a FleetView, name: &'a ClusterName) -> Self {
        let members = view.targets_of(name).filter_map(|(instance, stored)| {
            let member = Member {
                name: instance,
                host: &stored.host,
                target: stored.target.as_ref().ok()?,
                target_revision: stored.mod_revision,
                status: view.statuses.get(instance).filter(|status| status.host == stored.host),
                alive: view.alive.contains(&stored.host),
                address: view.hosts.get(&stored.host).map(|host| host.address.as_str()),
            };
            Some((instance, member))
        });
        let operation =
            view.locks.get(name).and_then(|id| view.operations.get(id)).map(|stored| &stored.value);
        Cluster {
            name,
            members: members.collect(),
            size: view.targets_of(name).count(),
            unreadable: view.unreadable(name),
            policy: view.policy(name),
            policy_revision: view.policy_revision(name),
            record: view.records.get(name),
            meant: view.leaderships.get(name).map(|stored| &stored.value),
            operation,
            out: operation.map(|operation| operation.memory.out.clone()).unwrap_or_default(),
        }
    }

    /// The member that leadership names, if its target is there.
    pub fn master(&self) -> Option<&Member<'a>> {
        self.members.get(self.meant?.master.as_ref()?)
    }

    /// Whether leadership names this member.
    pub fn leads(&self, name: &InstanceName) -> bool {
        self.meant.is_some_and(|record| record.master.as_ref() == Some(name))
    }

    /// All but the one that leads.
    pub fn minions(&self) -> impl Iterator<Item = &Member<'a>> {
        self.members.values().filter(|member| !self.leads(member.name))
    }

    /// Whether nobody's leadership is being changed, as the record stands.
    pub fn steady(&self) -> bool {
        self.record.is_some_and(|record| record.value.phase == LeadershipPhase::Steady)
    }

    /// Whether every member is told to stop.
    pub fn stopped(&self) -> bool {
        self.members.values().all(|member| member.target.disabled)
    }

    /// Whether this member's acknowledgement counts.
    pub fn votes(&self, name: &InstanceName) -> bool {
        self.meant.is_some_and(|record| record.voters.iter().any(|voter| voter.name == *name))
    }

    /// The durability that its policy asks for, given how many members it has.
    pub fn wished(&self) -> WishedDurability {
        match self.policy.wished_durability() {
            WishedDurability::Lossless if self.size < 2 => WishedDurability::Async,
            wished => wished,
        }
    }

    /// The least number of copies under which writes go on.
    pub fn min_copies(&self) -> usize {
        let default = if self.size >= 3 { 2 } else { 1 };
        self.policy.min_copies.map_or(default, |copies| copies as usize)
    }

    /// How many acknowledgements a commit is to wait for where that many voters are there; the plugin of MySQL counts
    /// no more than two rightly.
    pub fn wished_acks(&self) -> u32 {
        self.policy.acks.unwrap_or(1).clamp(1, 2)
    }

    /// Whether the durability in force is the one that is wished, with nothing pending.
    pub fn durable(&self) -> bool {
        let Some(record) = self.meant else { return false };
        let pending = record.acks_next.is_some() || !record.leaving.is_empty();
        !pending
            && match self.wished() {
                WishedDurability::Async => record.durability == Durability::Async,
                // With nobody else enabled there is no more to be had.
                WishedDurability::Lossless if self.minions().all(|member| member.target.disabled) => {
                    record.durability != Durability::Lossless
                }
                WishedDurability::Lossless => record.durability == Durability::Lossless,
            }
    }

    /// As [`Cluster::missing`], members on hosts that are gone aside.
    pub fn missing_of_living(&self) -> Option<String> {
        self.missing_of(|member| member.alive)
    }

    /// What is missing until every enabled member is as it is to be and the durability is as wished; nothing: whole.
    pub fn missing(&self) -> Option<String> {
        self.missing_of(|_| true)
    }

    fn missing_of(&self, counts: impl Fn(&Member<'_>) -> bool) -> Option<String> {
        let mut counted = self.members.values().filter(|member| counts(member));
        if let Some(missing) = counted.find_map(|member| member.missing(self.policy_revision)) {
            return Some(missing);
        }
        self.missing_durability()
    }

    /// What is missing until the durability in force is as wished.
    pub fn missing_durability(&self) -> Option<String> {
        if self.stopped() {
            return None;
        }
        if self.meant.is_none_or(|record| record.master.is_none()) {
            return Some("nobody leads yet".to_owned());
        }
        (!self.durable()).then(|| match self.meant {
            Some(record) if record.durability == Durability::Alone => {
                "durability: no voter is left".to_owned()
            }
            _ => "durability is not in force yet".to_owned(),
        })
    }

    /// The members that a document makes the master of its cluster, of their own: no source named.
    pub fn named_masters(&self) -> impl Iterator<Item = &Member<'a>> {
        self.members
            .values()
            .filter(|member| member.target.role == Role::Master && member.target.source().is_none())
    }
}
