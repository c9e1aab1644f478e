//! Who follows whom.

use std::collections::BTreeSet;

use schemadock_schema::InstanceName;
use serde_json::{Value, json};

use super::clusters::ClusterRow;
use super::instances::InstanceRow;

/// A server and those that follow it.
#[derive(Debug, Clone)]
pub struct Node<'a> {
    /// The server.
    pub row: &'a InstanceRow<'a>,
    /// Who follows it.
    pub replicas: Vec<Node<'a>>,
}

/// The trees of a cluster: by what is observed, else by what is wished.
pub fn trees<'a>(cluster: &'a ClusterRow<'a>) -> Vec<Node<'a>> {
    let members = &cluster.members;
    let source = |row: &InstanceRow<'_>| -> Option<&'a InstanceName> {
        let observed = row.status.and_then(|status| status.source.as_ref()).and_then(|source| {
            let known = source.host.as_ref();
            members.iter().find(|other| known == Some(&other.host) && other.port() == Some(source.port))
        });
        let wished = || {
            let (host, port) = row.target?.source()?;
            members.iter().find(|other| other.host == *host && other.port() == Some(port))
        };
        observed.or_else(wished).map(|other| other.name).filter(|other| *other != row.name)
    };
    let mut left: BTreeSet<&InstanceName> = members.iter().map(|member| member.name).collect();
    let mut found = Vec::new();
    for member in members.iter().filter(|member| source(member).is_none()) {
        found.push(grow(member, members, &source, &mut left));
    }
    // A circle has no root; it is shown from its first member on.
    while let Some(name) = left.first().copied() {
        let member = members.iter().find(|member| member.name == name).expect("it was taken from there");
        found.push(grow(member, members, &source, &mut left));
    }
    found
}

fn grow<'a>(
    row: &'a InstanceRow<'a>,
    members: &'a [InstanceRow<'a>],
    source: &impl Fn(&InstanceRow<'_>) -> Option<&'a InstanceName>,
    left: &mut BTreeSet<&'a InstanceName>,
) -> Node<'a> {
    left.remove(row.name);
    let mut replicas = Vec::new();
    for member in members {
        if source(member) == Some(row.name) && left.contains(member.name) {
            replicas.push(grow(member, members, source, left));
        }
    }
    Node { row, replicas }
}

impl Node<'_> {
    /// As scripts read it.
    pub fn json(&self) -> Value {
        let row = self.row;
        json!({
            "name": row.name, "address": row.address, "port": row.port(), "role": row.role(), "phase": row.phase(),
            "writable": row.writable(), "lag_seconds": row.lag_seconds(),
            "replicas": self.replicas.iter().map(Node::json).collect::<Vec<Value>>(),
        })
    }
}

/// One cluster's topology as scripts read it.
pub fn json(cluster: &ClusterRow<'_>) -> Value {
    let writes = cluster.writes();
    json!({
        "cluster": cluster.name,
        "writes": {
            "state": writes.state, "waiting_on": writes.waiting_on, "would_wait_without": writes.would_wait_without,
        },
        "trees": trees(cluster).iter().map(Node::json).collect::<Vec<Value>>(),
    })
}
