//! Roles in files against leadership.

use schemadock_schema::refusal::Refusal;
use schemadock_schema::target::Role;
use schemadock_schema::{ClusterName, InstanceName, validate};

use super::{Instances, TargetPlan, refusal};
use crate::cli::seen::Seen;

/// Writes the roles of one cluster as leadership has them. Where the master is to be moved, the member that the files
/// name is noted for a switchover; that is refused where nobody could carry it out.
pub(super) fn write(
    seen: &Seen,
    cluster: &ClusterName,
    move_master: bool,
    instances: &mut Instances,
    planned: &mut TargetPlan,
) -> Option<Refusal> {
    let record = &seen.leaderships.get(cluster)?.value;
    let leader = validate::leader(record)?;
    if instances.get(leader).is_none_or(|placed| placed.cluster != *cluster) {
        let text = format!(
            "leadership (term {}) names {leader} master of {cluster}, which has no target",
            record.term
        );
        planned.warnings.push(text);
        return None;
    }
    let wished = instances.iter().find(|(name, placed)| {
        placed.cluster == *cluster
            && placed.file.is_some()
            && placed.target.role == Role::Master
            && placed.target.source().is_none()
            && *name != leader
    });
    let moved = wished.filter(|_| move_master).map(|(name, placed)| (name.clone(), placed.file.clone()));
    if let Some((name, file)) = &moved
        && seen.controller.is_none()
    {
        let found = format!("a move of the master from {leader} to {name} with no controller in office");
        let hint = "start schemadock-controller, or leave --move-master out";
        let path = format!("{name}.data.role");
        return Some(refusal(file.clone(), path, found, "a controller in office", Some(hint.to_owned())));
    }
    let rewritten = validate::write_roles(cluster, leader, instances);
    if let Some((name, _)) = moved {
        planned.notes.push(format!(
            "{name} becomes the master of {cluster} by a switchover, in place of {leader}; until then roles are \
             written as leadership has them"
        ));
        planned.moves.insert(cluster.clone(), name);
    } else if !rewritten.is_empty() {
        let names: Vec<&str> = rewritten.iter().map(InstanceName::as_str).collect();
        planned.notes.push(format!(
            "leadership (term {}) names {leader} master of {cluster}: role and master_host of {} are written so",
            record.term,
            names.join(", ")
        ));
    }
    None
}
