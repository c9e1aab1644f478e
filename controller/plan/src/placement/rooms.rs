//! What each host has to offer, and what is taken of it.

use std::collections::BTreeMap;

use schemadock_schema::size::{Resources, Size};
use schemadock_schema::status::Status;
use schemadock_schema::{ClusterName, HostName, InstanceName};

use super::{Ask, Place};
use crate::view::{FleetView, StoredTarget};

/// The hosts of a fleet with what is taken of them.
#[derive(Debug, Clone, Default)]
pub struct Rooms {
    hosts: BTreeMap<HostName, Room>,
    /// How many members each cluster has on which host. More than one only where somebody wrote so by hand.
    members: BTreeMap<ClusterName, BTreeMap<HostName, usize>>,
    /// How many zones there are.
    zones: usize,
}

/// One host.
#[derive(Debug, Clone)]
pub(super) struct Room {
    pub(super) alive: bool,
    pub(super) cordoned: bool,
    pub(super) zone: Option<String>,
    /// A number for the zone; a host without one is a zone of its own.
    pub(super) zone_index: usize,
    pub(super) labels: BTreeMap<String, String>,
    /// As the agent reports it: shares are shares of this.
    pub(super) capacity: Resources,
    /// The same in whole units.
    pub(super) offered: Amount,
    /// The sum of the limits of its members.
    pub(super) taken: Amount,
    pub(super) free_disk: Option<u64>,
    /// Ports of its members, and whose they are.
    pub(super) ports: BTreeMap<u16, Option<ClusterName>>,
}

/// Memory and cores in whole units, so that sums do not depend on their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Amount {
    /// Bytes.
    pub(super) memory: u64,
    /// Billionths of a core, as Docker counts them.
    pub(super) nano_cpus: u64,
}

impl Amount {
    pub(super) fn of(resources: &Resources) -> Amount {
        Amount { memory: resources.memory, nano_cpus: (resources.cpus * 1e9).round() as u64 }
    }

    pub(super) fn plus(self, other: Amount) -> Amount {
        Amount {
            memory: self.memory.saturating_add(other.memory),
            nano_cpus: self.nano_cpus.saturating_add(other.nano_cpus),
        }
    }
}

impl Rooms {
    /// The registered hosts, with what the targets there take.
    pub fn of(view: &FleetView) -> Rooms {
        let mut rooms = Rooms::default();
        let mut zones: BTreeMap<&str, usize> = BTreeMap::new();
        for (name, host) in &view.hosts {
            let zone_index = match &host.zone {
                Some(zone) => *zones.entry(zone).or_insert(rooms.zones),
                None => rooms.zones,
            };
            rooms.zones = rooms.zones.max(zone_index + 1);
            let room = Room {
                alive: view.alive.contains(name),
                cordoned: view.cordons.contains(name),
                zone: host.zone.clone(),
                zone_index,
                labels: host.labels.clone(),
                capacity: host.capacity,
                offered: Amount::of(&host.capacity),
                taken: Amount::default(),
                free_disk: host.free_disk,
                ports: BTreeMap::new(),
            };
            rooms.hosts.insert(name.clone(), room);
        }
        for (name, stored) in view.all_targets() {
            let Some(room) = rooms.hosts.get_mut(&stored.host) else { continue };
            room.taken = room.taken.plus(Amount::of(&limits(view, name, stored, &room.capacity)));
            room.ports.extend(ports(view, name, stored).map(|port| (port, stored.cluster.clone())));
            if let Some(cluster) = &stored.cluster {
                rooms.add_member(cluster, &stored.host);
            }
        }
        rooms
    }

    /// Takes the room of a member that is placed. A host that is not registered has none.
    pub fn take(&mut self, cluster: &ClusterName, place: &Place, size: &Size) {
        let Some(room) = self.hosts.get_mut(&place.host) else { return };
        let limits = size.limits(&room.capacity);
        room.taken = room.taken.plus(Amount::of(&limits));
        // Nothing of it is in use yet, so the agent still finds it free.
        let disk = limits.disk.unwrap_or(0);
        room.free_disk = room.free_disk.map(|free| free.saturating_sub(disk));
        room.ports.insert(place.port, Some(cluster.clone()));
        self.add_member(cluster, &place.host);
    }

    fn add_member(&mut self, cluster: &ClusterName, host: &HostName) {
        *self.members.entry(cluster.clone()).or_default().entry(host.clone()).or_default() += 1;
    }

    /// The hosts in the order of their names.
    pub(super) fn hosts(&self) -> impl Iterator<Item = (&HostName, &Room)> {
        self.hosts.iter()
    }

    /// Whether a host is registered.
    pub(super) fn has(&self, host: &HostName) -> bool {
        self.hosts.contains_key(host)
    }

    /// The hosts that have members of a cluster.
    pub(super) fn members_of(&self, cluster: &ClusterName) -> Option<&BTreeMap<HostName, usize>> {
        self.members.get(cluster)
    }

    /// How many members of the cluster stay in each zone, by the zone's number.
    pub(super) fn members_by_zone(&self, ask: &Ask) -> Vec<usize> {
        let mut counts = vec![0; self.zones];
        let staying = self.members_of(&ask.cluster).into_iter().flatten();
        for (host, members) in staying.filter(|(host, _)| !ask.without.contains(*host)) {
            if let Some(room) = self.hosts.get(host) {
                counts[room.zone_index] += members;
            }
        }
        counts
    }
}

/// What a target takes: its own size, else its cluster's, else all.
fn limits(view: &FleetView, name: &InstanceName, stored: &StoredTarget, capacity: &Resources) -> Resources {
    if let Some(limits) = unreadable(view, name, stored).and_then(|status| status.size) {
        return limits;
    }
    let own = match &stored.target {
        // As it was read, a document without a size says `all`, too.
        Ok(target) if target.size != Size::All => Some(target.size.clone()),
        _ => stored.raw.pointer("/data/size").and_then(|size| serde_json::from_value(size.clone()).ok()),
    };
    let of_policy = || view.policies.get(stored.cluster.as_ref()?)?.value.size.clone();
    own.or_else(of_policy).unwrap_or_default().limits(capacity)
}

/// The ports that a target takes.
fn ports(view: &FleetView, name: &InstanceName, stored: &StoredTarget) -> impl Iterator<Item = u16> {
    let said = match &stored.target {
        Ok(target) => Some(target.port),
        Err(_) => stored.raw.pointer("/data/port").and_then(|port| u16::try_from(port.as_u64()?).ok()),
    };
    said.into_iter().chain(unreadable(view, name, stored).and_then(|status| status.port))
}

/// What is reported of an instance whose document cannot be read: its agent goes on with the last one that it could.
fn unreadable<'a>(view: &'a FleetView, name: &InstanceName, stored: &StoredTarget) -> Option<&'a Status> {
    view.statuses.get(name).filter(|status| stored.target.is_err() && status.host == stored.host)
}
