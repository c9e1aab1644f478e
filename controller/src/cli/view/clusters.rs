//! Clusters: policy, leadership and members together.

use std::collections::BTreeSet;

use schemadock_controller_plan::cluster::Cluster;
use schemadock_schema::leadership::{Durability, Leadership};
use schemadock_schema::operation::Operation;
use schemadock_schema::policy::{ClusterPolicy, FailoverMode};
use schemadock_schema::target::Role;
use schemadock_schema::{ClusterName, InstanceName};
use serde_json::{Value, json};

use super::instances::{InstanceRow, rows};
use crate::cli::seen::Seen;

/// One cluster.
#[derive(Debug, Clone)]
pub struct ClusterRow<'a> {
    /// Its name.
    pub name: ClusterName,
    /// Who may write.
    pub record: Option<&'a Leadership>,
    /// What is wished.
    pub policy: ClusterPolicy,
    /// Its members.
    pub members: Vec<InstanceRow<'a>>,
    /// The operation that holds it.
    pub operation: Option<&'a str>,
    /// The same as it stands, where operations were read.
    pub held: Option<&'a Operation>,
    /// What is missing until the durability is as wished; without a controller in office nobody sees to that.
    pub missing: Option<String>,
    /// What somebody should look at.
    pub warnings: Vec<String>,
}

/// What writes wait for.
#[derive(Debug, Clone, PartialEq)]
pub struct Writes {
    /// `open`, `waiting` or `closed`.
    pub state: &'static str,
    /// What they wait for, where they do.
    pub waiting_on: Option<Value>,
    /// Without which single members they would wait.
    pub would_wait_without: Vec<InstanceName>,
}

/// All clusters that have targets or a policy or a leader.
pub fn clusters(seen: &Seen) -> Vec<ClusterRow<'_>> {
    let mut names: BTreeSet<ClusterName> = seen.clusters();
    names.extend(seen.policies.keys().cloned());
    let led = seen.leaderships.iter().filter(|(_, record)| record.value.master.is_some());
    names.extend(led.map(|(name, _)| name.clone()));
    let all = rows(seen);
    names
        .into_iter()
        .map(|name| {
            let members: Vec<_> =
                all.iter().filter(|row| row.cluster.as_ref() == Some(&name)).cloned().collect();
            let mut row = ClusterRow {
                record: seen.leaderships.get(&name).map(|record| &record.value),
                policy: seen.policies.get(&name).map(|policy| policy.value.clone()).unwrap_or_default(),
                operation: seen.locks.get(&name).map(String::as_str),
                held: seen
                    .locks
                    .get(&name)
                    .and_then(|id| seen.operations.get(id))
                    .map(|stored| &stored.value),
                members,
                missing: missing_durability(seen, &name),
                warnings: Vec::new(),
                name,
            };
            row.warnings = row.lint();
            row
        })
        .collect()
}

/// What is missing until the durability of a cluster is as wished, where a controller is in office.
pub fn missing_durability(seen: &Seen, cluster: &ClusterName) -> Option<String> {
    seen.controller.as_ref()?;
    Cluster::of(seen, cluster).missing_durability()
}

impl ClusterRow<'_> {
    /// The master that leadership names.
    pub fn master(&self) -> Option<&InstanceName> {
        self.record?.master.as_ref()
    }

    /// All members are as they are to be, and so is the durability.
    pub fn converged(&self) -> bool {
        let all = self.members.iter().all(|member| member.converged || !member.wished);
        !self.members.is_empty() && all && self.missing.is_none()
    }

    /// Whether clients can write somewhere.
    pub fn writable(&self) -> bool {
        self.members.iter().any(|member| member.writable() == Some(true))
    }

    fn lint(&self) -> Vec<String> {
        let mut found = Vec::new();
        let masters: Vec<&str> = self
            .members
            .iter()
            .filter(|member| member.target.is_some_and(|target| target.role == Role::Master))
            .map(|member| member.name.as_str())
            .collect();
        if masters.len() > 1 {
            found.push(format!("{} targets have the role master: {}", masters.len(), masters.join(", ")));
        }
        for member in self.members.iter().filter(|member| member.wished && member.target.is_none()) {
            found.push(format!("the target of {} cannot be read", member.name));
        }
        if let Some(master) = self.master() {
            match self.members.iter().find(|member| member.name == master) {
                None => found.push(format!("leadership names {master}, which is no member")),
                Some(member) if !member.wished => {
                    found.push(format!("the target of the master {master} is gone"))
                }
                Some(member) if member.target.is_some_and(|target| target.disabled) => {
                    let enabled = |other: &&InstanceRow| other.target.is_some_and(|target| !target.disabled);
                    if self.members.iter().any(|other| enabled(&other)) {
                        found.push(format!("the master {master} is disabled while others are enabled"));
                    }
                }
                Some(_) => {}
            }
        }
        let writable: Vec<&str> = self
            .members
            .iter()
            .filter(|member| member.writable() == Some(true))
            .map(|member| member.name.as_str())
            .collect();
        if writable.len() > 1 {
            found.push(format!("{} members are writable: {}", writable.len(), writable.join(", ")));
        }
        if let Some(Leadership { durability: Durability::Alone, .. }) = self.record {
            found.push("lossless is wished, but no voter is left: a commit is on the master only".to_owned());
        }
        for member in &self.members {
            if let Some(foreign) = member.status.and_then(|status| status.foreign.as_ref()) {
                found.push(format!(
                    "{} has transactions that its master lacks: {}",
                    member.name, foreign.gtids
                ));
            }
        }
        found
    }

    /// Voters that receive from the master now, as its agent sees it.
    fn connected_voters(&self, record: &Leadership, master: &InstanceRow<'_>) -> Vec<InstanceName> {
        let receivers = master.status.map(|status| status.receivers.as_slice()).unwrap_or_default();
        let connected = |name: &InstanceName| receivers.contains(name);
        record.voters.iter().map(|voter| voter.name.clone()).filter(|name| connected(name)).collect()
    }

    /// Whether writes go on, and what would stop them.
    pub fn writes(&self) -> Writes {
        let open = self.members.iter().find(|member| member.writable() == Some(true));
        let Some(open) = open else {
            let master =
                self.master().and_then(|name| self.members.iter().find(|member| member.name == name));
            let told = master.and_then(|member| member.status?.waiting_on.as_ref()).map(|on| json!(on));
            let otherwise = match (self.master(), master) {
                (Some(name), _) => json!({"kind": "master", "name": name, "since": null}),
                (None, _) => json!({"kind": "leadership", "name": self.name, "since": null}),
            };
            let waiting_on = Some(told.unwrap_or(otherwise));
            return Writes { state: "closed", waiting_on, would_wait_without: Vec::new() };
        };
        let mut without = Vec::new();
        // Nobody takes the place of a lost master by himself, with a controller or without: failover is still to come.
        without.push(open.name.clone());
        let Some(record) = self.record.filter(|record| record.acks > 0) else {
            return Writes { state: "open", waiting_on: None, would_wait_without: without };
        };
        let connected = self.connected_voters(record, open);
        let needed = record.acks as usize;
        let waits = open.status.and_then(|status| status.commits_waiting).is_some_and(|waiting| waiting > 0);
        if connected.len() < needed || waits {
            let away: Vec<&str> = record
                .voters
                .iter()
                .map(|voter| &voter.name)
                .filter(|name| !connected.contains(name))
                .map(InstanceName::as_str)
                .collect();
            let waiting_on = Some(json!({"kind": "voters", "name": away.join(", "), "since": null}));
            return Writes { state: "waiting", waiting_on, would_wait_without: connected };
        }
        if connected.len() == needed {
            without.extend(connected);
        }
        Writes { state: "open", waiting_on: None, would_wait_without: without }
    }

    /// As scripts read it.
    pub fn json(&self) -> Value {
        let record = self.record.map(|record| json!(record)).unwrap_or_default();
        let of = |field: &str| record.get(field).cloned().unwrap_or_default();
        let voters = self
            .record
            .map(|record| record.voters.iter().map(|voter| json!(voter.name)).collect::<Vec<Value>>());
        let members: Vec<Value> = self
            .members
            .iter()
            .map(|member| {
                json!({
                    "name": member.name, "host": member.host, "role": member.role(), "phase": member.phase(),
                    "converged": member.converged, "writable": member.writable(),
                    "lag_seconds": member.lag_seconds(),
                })
            })
            .collect();
        json!({
            "name": self.name,
            "master": of("master"),
            "term": of("term"),
            "phase": of("phase"),
            "durability": of("durability"),
            "durability_wished": self.policy.wished_durability(),
            "acks": of("acks"),
            "voters": voters,
            "paused": self.policy.paused,
            "failover": self.policy.failover.unwrap_or(FailoverMode::Auto),
            "replicas": self.policy.replicas,
            "writable": self.writable(),
            "converged": self.converged(),
            "operation": self.operation,
            "members": members,
            "warnings": self.warnings,
        })
    }
}
