//! Operations: why one cannot be carried out, and what it would do.
//!
//! A stand-in until the planner of operations joins: it knows names, and tells each request in one sentence.

use schemadock_schema::keys::Keys;
use schemadock_schema::operation::Request;
use schemadock_schema::refusal::Refusal;
use schemadock_schema::{ClusterName, HostName};

use crate::view::FleetView;

/// Why the request cannot be carried out, all reasons at once (names of clusters, members, hosts that do not exist; no
/// room; …).
pub fn preflight(
    view: &FleetView,
    _keys: &Keys,
    request: &Request,
    clusters: &[ClusterName],
) -> Vec<Refusal> {
    let refuse = |path: &str, found: &str, expected: &str| Refusal {
        path: Some(path.to_owned()),
        found: found.to_owned(),
        expected: expected.to_owned(),
        ..Refusal::default()
    };
    let known = view.clusters();
    let mut refusals = Vec::new();
    for cluster in clusters {
        match (request, known.contains(cluster)) {
            (Request::Create(_), true) => {
                refusals.push(refuse(cluster.as_str(), "a cluster of this name", "a new name"));
            }
            (Request::Create(_), false) | (_, true) => {}
            (_, false) => refusals.push(refuse(cluster.as_str(), "no such cluster", "a cluster's name")),
        }
    }
    let hosts: Vec<&HostName> = match request {
        Request::Create(create) => create.hosts.iter().collect(),
        Request::Scale { hosts, .. } => hosts.iter().collect(),
        Request::Move { to, .. } => vec![to],
        Request::Drain { host, .. } => vec![host],
        _ => Vec::new(),
    };
    let unknown = hosts.into_iter().filter(|host| !view.hosts.contains_key(*host));
    refusals.extend(unknown.map(|host| refuse(host.as_str(), "no such host", "a registered host's name")));
    if let Request::Switchover { to: Some(to) } = request
        && view.one_target(to).is_none()
    {
        refusals.push(refuse(to.as_str(), "no such member", "a member's name"));
    }
    refusals
}

/// The steps that would be taken, a sentence each.
pub fn foresee(_view: &FleetView, _keys: &Keys, request: &Request, clusters: &[ClusterName]) -> Vec<String> {
    clusters.iter().map(|cluster| format!("{} {cluster}", request.kind())).collect()
}
