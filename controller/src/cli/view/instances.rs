//! Instances: what is wished and what its agent reports, side by side.

use std::collections::BTreeSet;

use schemadock_schema::status::{Phase, Status, WaitKind};
use schemadock_schema::target::{Role, Target};
use schemadock_schema::{ClusterName, HostName, InstanceName};
use serde_json::{Value, json};

use crate::cli::seen::Seen;

/// One instance.
#[derive(Debug, Clone)]
pub struct InstanceRow<'a> {
    /// Its name.
    pub name: &'a InstanceName,
    /// Its host.
    pub host: HostName,
    /// Its cluster, where that is known.
    pub cluster: Option<ClusterName>,
    /// What it is to be; none for one that is going away, or whose target cannot be read.
    pub target: Option<&'a Target>,
    /// Whether a target stands in etcd, readable or not.
    pub wished: bool,
    /// What its agent reports.
    pub status: Option<&'a Status>,
    /// Where clients reach it.
    pub address: Option<String>,
    /// Whether its host's agent lives.
    pub alive: bool,
    /// The agent says so, of what is wished now, and lives.
    pub converged: bool,
    /// What is reported may not be what is: the agent does not live, or speaks of an older target or policy.
    pub stale: bool,
}

/// All instances that are wished or reported.
pub fn rows(seen: &Seen) -> Vec<InstanceRow<'_>> {
    let names: BTreeSet<&InstanceName> = seen.targets.keys().chain(seen.statuses.keys()).collect();
    names.into_iter().map(|name| row(seen, name)).collect()
}

fn row<'a>(seen: &'a Seen, name: &'a InstanceName) -> InstanceRow<'a> {
    let stored = seen.targets.get(name).and_then(|all| all.first());
    let status = seen.statuses.get(name);
    let target = stored.and_then(|stored| stored.target.as_ref().ok());
    let host = stored.map(|stored| stored.host.clone()).or_else(|| status.map(|status| status.host.clone()));
    let host = host.expect("a name comes from a target or a status");
    let cluster = match stored {
        Some(stored) => stored.cluster.clone(),
        None => status.and_then(|status| status.cluster.clone()),
    };
    let alive = seen.alive.contains(&host);
    let policy = cluster.as_ref().map_or(0, |cluster| seen.policy_revision(cluster));
    let current = match (stored, status) {
        (Some(stored), Some(status)) => {
            status.host == stored.host
                && status.target_revision == Some(stored.mod_revision)
                && status.policy_revision.unwrap_or_default() == policy
        }
        _ => false,
    };
    let said = status.is_some_and(|status| status.converged);
    let address = status.and_then(|status| status.address.clone());
    InstanceRow {
        name,
        address: address.or_else(|| seen.hosts.get(&host).map(|host| host.address.clone())),
        cluster,
        target,
        wished: stored.is_some(),
        alive,
        status,
        converged: said && current && alive,
        stale: status.is_some() && !(alive && (current || stored.is_none())),
        host,
    }
}

impl InstanceRow<'_> {
    /// Where it stands; `pending` before anybody has reported it.
    pub fn phase(&self) -> Phase {
        self.status.map_or(Phase::Pending, |status| status.phase)
    }

    /// The role that its target names.
    pub fn role(&self) -> Option<Role> {
        self.target.map(|target| target.role).or_else(|| self.status.and_then(|status| status.role))
    }

    /// The port it is meant to listen on.
    pub fn port(&self) -> Option<u16> {
        self.target.map(|target| target.port).or_else(|| self.status.and_then(|status| status.port))
    }

    /// Whether clients can write, by the word of an agent that lives.
    pub fn writable(&self) -> Option<bool> {
        self.status.filter(|_| self.alive).and_then(|status| status.writable)
    }

    /// Seconds behind its source.
    pub fn lag_seconds(&self) -> Option<f64> {
        self.status?.source.as_ref()?.lag_seconds
    }

    /// Why it is not converged, in one line for people; empty where nothing is missing.
    pub fn missing(&self) -> String {
        if self.converged {
            return String::new();
        }
        let Some(status) = self.status else {
            return format!("not reported yet by the agent of {}", self.host);
        };
        let mut words = Vec::new();
        if !self.alive {
            words.push(format!("the agent of {} is not alive", self.host));
        } else if self.stale {
            words.push("its agent has not taken up the newest target yet".to_owned());
        }
        // Of these two the message says all.
        let said = [WaitKind::Paused, WaitKind::Maintenance];
        if let Some(on) = status.waiting_on.as_ref().filter(|on| !said.contains(&on.kind)) {
            words.push(format!("waits for {} {}", on.kind, on.name).trim_end().to_owned());
        }
        if !status.message.is_empty() {
            words.push(status.message.clone());
        }
        words.join("; ")
    }

    /// As scripts read it: every field of the contract, `null` when unknown.
    pub fn json(&self) -> Value {
        let status = self.status.map(|status| json!(status)).unwrap_or_default();
        let reported = |field: &str| status.get(field).cloned().unwrap_or_default();
        let or = |field: &str, otherwise: Value| match reported(field) {
            Value::Null => otherwise,
            value => value,
        };
        let wished = |field: &str, of: fn(&Target) -> Value| self.target.map_or_else(|| reported(field), of);
        let message = match (self.status, self.wished) {
            (None, _) => json!(self.missing()),
            _ => or("message", json!("")),
        };
        json!({
            "name": self.name,
            "host": self.host,
            "cluster": self.cluster,
            "address": self.address,
            "port": wished("port", |target| json!(target.port)),
            "role": wished("role", |target| json!(target.role)),
            "disabled": wished("disabled", |target| json!(target.disabled)),
            "maintenance": wished("maintenance", |target| json!(target.maintenance)),
            "observed_role": or("observed_role", json!("none")),
            "phase": self.phase(),
            "converged": self.converged,
            "stale": self.stale,
            "waiting_on": reported("waiting_on"),
            "message": message,
            "data": or("data", json!({"state": "unknown", "server_uuid": null})),
            "foreign": reported("foreign"),
            "store": reported("store"),
            "attempts": reported("attempts"),
            "writable": reported("writable"),
            "term": reported("term"),
            "received": reported("received"),
            "server_uuid": reported("server_uuid"),
            "server_id": reported("server_id"),
            "gtid_executed": reported("gtid_executed"),
            "source": reported("source"),
            "seed": reported("seed"),
            "restart_pending": or("restart_pending", json!([])),
            "container": reported("container"),
            "mysql_version": reported("mysql_version"),
            "size": reported("size"),
            "target_revision": reported("target_revision"),
            "policy_revision": reported("policy_revision"),
            "updated_at": reported("updated_at"),
        })
    }
}
