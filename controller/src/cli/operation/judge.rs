//! What an operation is about, and what speaks against it. Pure.

use std::collections::BTreeSet;

use schemadock_controller_plan::operation::preflight;
use schemadock_schema::ClusterName;
use schemadock_schema::keys::Keys;
use schemadock_schema::operation::{Operation, Request};
use schemadock_schema::refusal::Refusal;
use schemadock_schema::target::Role;

use crate::cli::seen::Seen;

/// What somebody wishes.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The request.
    pub request: Request,
    /// The cluster it names; none for a move and a drain.
    pub cluster: Option<ClusterName>,
}

impl Wanted {
    /// A change of one cluster.
    pub fn of(cluster: ClusterName, request: Request) -> Self {
        Self { request, cluster: Some(cluster) }
    }

    /// The clusters that it is about.
    pub fn clusters(&self, seen: &Seen) -> Vec<ClusterName> {
        if let Some(cluster) = &self.cluster {
            return vec![cluster.clone()];
        }
        match &self.request {
            Request::Move { instance, .. } => {
                seen.one_target(instance).and_then(|stored| stored.cluster.clone()).into_iter().collect()
            }
            Request::Drain { host, evict } => {
                let leads = |name, role| match leader(seen, name) {
                    Some(leader) => leader == name,
                    None => role == Some(Role::Master),
                };
                let here = seen.all_targets().filter(|(_, stored)| stored.host == *host);
                let moved = here.filter(|(name, stored)| {
                    *evict || leads(name, stored.target.as_ref().ok().map(|target| target.role))
                });
                let clusters: BTreeSet<ClusterName> =
                    moved.filter_map(|(_, stored)| stored.cluster.clone()).collect();
                clusters.into_iter().collect()
            }
            _ => Vec::new(),
        }
    }

    /// Everything that speaks against it, at once.
    pub fn refusals(&self, keys: &Keys, seen: &Seen, clusters: &[ClusterName], queue: bool) -> Vec<Refusal> {
        let mut refusals = preflight(seen, keys, &self.request, clusters);
        // A member that is not there has no cluster either.
        if let (Request::Move { instance, .. }, []) = (&self.request, clusters)
            && !refusals.iter().any(|refusal| names(refusal, instance.as_str()))
        {
            let known = seen.targets.keys().map(|name| name.as_str());
            refusals.push(Refusal {
                file: None,
                path: Some(instance.to_string()),
                found: "no target of this name".to_owned(),
                expected: "a member of a cluster".to_owned(),
                hint: schemadock_schema::strict::nearest(instance.as_str(), known),
            });
        }
        if !queue {
            refusals.extend(clusters.iter().filter_map(|cluster| held(seen, cluster)));
        }
        refusals
    }
}

fn names(refusal: &Refusal, name: &str) -> bool {
    [refusal.path.as_deref(), Some(&refusal.found)].into_iter().flatten().any(|text| text.contains(name))
}

fn leader<'a>(
    seen: &'a Seen,
    name: &schemadock_schema::InstanceName,
) -> Option<&'a schemadock_schema::InstanceName> {
    let cluster = seen.targets.get(name)?.first()?.cluster.as_ref()?;
    schemadock_schema::validate::leader(&seen.leaderships.get(cluster)?.value)
}

/// The operation that holds a cluster, or will be the next to do so.
fn holder<'a>(seen: &'a Seen, cluster: &ClusterName) -> Option<(&'a str, Option<&'a Operation>)> {
    if let Some(id) = seen.locks.get(cluster) {
        return Some((id, seen.operations.get(id).map(|stored| &stored.value)));
    }
    // A drain takes one cluster after another; what it does not hold yet it waits for.
    let waits = |operation: &Operation| !operation.state.is_over() && operation.locks().contains(cluster);
    let next = seen.operations.values().map(|stored| &stored.value).find(|operation| waits(operation))?;
    Some((&next.id, Some(next)))
}

fn held(seen: &Seen, cluster: &ClusterName) -> Option<Refusal> {
    let (id, operation) = holder(seen, cluster)?;
    let what = operation.map(|operation| {
        let step = operation.step.as_ref().map(|step| format!(": {step}")).unwrap_or_default();
        let kind = operation.request.kind();
        format!(" ({kind} asked for by {}, {}{step})", operation.requested_by, operation.state)
    });
    Some(Refusal {
        file: None,
        path: Some(cluster.to_string()),
        found: format!("operation {id}{}, which holds the cluster", what.unwrap_or_default()),
        expected: "no other operation".to_owned(),
        hint: Some(format!("`operation wait {id}`, `operation cancel {id}`, or --queue to be the next")),
    })
}
