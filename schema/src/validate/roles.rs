//! Who leads decides the roles, not the file.

use std::collections::{BTreeMap, BTreeSet};

use crate::leadership::Leadership;
use crate::target::Role;
use crate::{ClusterName, HostName, InstanceName};

use super::Placed;

/// The instance that the roles of a cluster follow: the master named, else the one of the last lineage entry.
pub fn leader(record: &Leadership) -> Option<&InstanceName> {
    record.master.as_ref().or_else(|| record.last_lineage().map(|entry| &entry.name))
}

/// Writes role and source of a cluster's members that files give as leadership has them. Returns those that it
/// changed; none where the leader has no document at all.
pub fn write_roles(
    cluster: &ClusterName,
    leader: &InstanceName,
    instances: &mut BTreeMap<InstanceName, Placed>,
) -> Vec<InstanceName> {
    let Some(led) = instances.get(leader).filter(|placed| placed.cluster == *cluster) else {
        return Vec::new();
    };
    let lead_at = (led.host.clone(), led.target.port);
    // Whom the files take for the master: their own one, and the one that they let the leader follow.
    let mut taken_for_master: BTreeSet<(HostName, u16)> = BTreeSet::new();
    for (name, placed) in instances.iter().filter(|(_, p)| p.cluster == *cluster && p.file.is_some()) {
        if name == leader {
            if placed.target.role == Role::Minion {
                taken_for_master.extend(placed.target.source().map(|(host, port)| (host.clone(), port)));
            }
        } else if placed.target.role == Role::Master {
            taken_for_master.insert((placed.host.clone(), placed.target.port));
        }
    }
    let mut changed = Vec::new();
    for (name, placed) in instances.iter_mut().filter(|(_, p)| p.cluster == *cluster && p.file.is_some()) {
        let target = &mut placed.target;
        let source = target.source().map(|(host, port)| (host.clone(), port));
        if name == leader {
            if target.role == Role::Minion {
                (target.role, target.master_host, target.master_port) = (Role::Master, None, None);
                changed.push(name.clone());
            }
        } else if target.role == Role::Master
            || source.is_some_and(|source| taken_for_master.contains(&source))
        {
            target.role = Role::Minion;
            target.schemas = None;
            (target.master_host, target.master_port) = (Some(lead_at.0.clone()), Some(lead_at.1));
            changed.push(name.clone());
        }
    }
    changed
}
