//! What keeps a member off a host. The first filter of the list that does not fit refuses the host.

use std::fmt::Display;

use schemadock_schema::HostName;
use schemadock_schema::size::{MIN_MEMORY, Resources, format_bytes};

use super::Ask;
use super::rooms::{Amount, Room};

/// How many times over the cores of a host are given away: members seldom need theirs at the same moment.
pub const CPU_FACTOR: u64 = 4;
/// Where the search for a free port begins.
pub const FIRST_PORT: u16 = 3306;

/// One member that is asked for, at one host.
pub(super) struct Case<'a> {
    pub(super) ask: &'a Ask,
    pub(super) host: &'a HostName,
    pub(super) room: &'a Room,
    /// Whether the cluster has a member there.
    has_member: bool,
    /// What the size stands for there.
    limits: Resources,
    asked: Amount,
}

/// Whether a host fits, and what is said where it does not.
pub(super) struct Filter {
    pub(super) name: &'static str,
    fits: fn(&Case) -> bool,
    pub(super) why: fn(&Case) -> String,
}

/// The policy, in this order.
const FILTERS: &[Filter] = &[
    Filter { name: "alive", fits: |case| case.room.alive, why: |_| "its agent is not alive".to_owned() },
    Filter { name: "cordon", fits: |case| !case.room.cordoned, why: |_| "it is cordoned".to_owned() },
    Filter {
        name: "hosts",
        fits: |case| case.ask.hosts.is_empty() || case.ask.hosts.contains(case.host),
        why: |_| "it is not among the hosts asked for".to_owned(),
    },
    Filter {
        name: "without",
        fits: |case| !case.ask.without.contains(case.host),
        why: |_| "it is not to be chosen here".to_owned(),
    },
    Filter {
        name: "zones",
        fits: |case| {
            let zones = &case.ask.zones;
            zones.is_empty() || case.room.zone.as_ref().is_some_and(|zone| zones.contains(zone))
        },
        why: |case| {
            let found = case.room.zone.as_ref().map_or("no zone".to_owned(), |zone| format!("zone {zone}"));
            format!("{} asked, {found} found", case.ask.zones.join(" or "))
        },
    },
    Filter { name: "labels", fits: |case| missing_labels(case).next().is_none(), why: labels_said },
    Filter {
        name: "members",
        fits: |case| !case.has_member,
        why: |case| format!("it has a member of {}", case.ask.cluster),
    },
    Filter { name: "port", fits: |case| case.port().is_some(), why: port_said },
    Filter {
        name: "memory",
        fits: |case| case.asked.memory >= MIN_MEMORY && case.asked.memory <= case.free_memory(),
        why: memory_said,
    },
    Filter {
        name: "cpus",
        fits: |case| {
            let asked = case.asked.nano_cpus;
            asked <= case.room.offered.nano_cpus && asked <= case.free_nano_cpus()
        },
        why: cpus_said,
    },
    Filter {
        name: "disk",
        // What is not known of the disk refuses nothing.
        fits: |case| case.limits.disk.zip(case.room.free_disk).is_none_or(|(asked, free)| asked <= free),
        why: |case| {
            let (asked, free) = (case.limits.disk.unwrap_or(0), case.room.free_disk.unwrap_or(0));
            format!("{} asked, {} free", format_bytes(asked), format_bytes(free))
        },
    },
];

/// The filter that refuses, if one does.
pub(super) fn refusing(case: &Case) -> Option<&'static Filter> {
    FILTERS.iter().find(|filter| !(filter.fits)(case))
}

impl<'a> Case<'a> {
    pub(super) fn new(ask: &'a Ask, host: &'a HostName, room: &'a Room, has_member: bool) -> Case<'a> {
        let limits = ask.size.limits(&room.capacity);
        Case { ask, host, room, has_member, limits, asked: Amount::of(&limits) }
    }

    /// The port that a member gets there, if one is free.
    pub(super) fn port(&self) -> Option<u16> {
        let free = |port: &u16| !self.room.ports.contains_key(port);
        match self.ask.port {
            Some(port) => Some(port).filter(free),
            None => (FIRST_PORT..=u16::MAX).find(free),
        }
    }

    fn free_memory(&self) -> u64 {
        self.room.offered.memory.saturating_sub(self.room.taken.memory)
    }

    fn free_nano_cpus(&self) -> u64 {
        let limit = self.room.offered.nano_cpus.saturating_mul(CPU_FACTOR);
        limit.saturating_sub(self.room.taken.nano_cpus)
    }
}

fn missing_labels<'a>(case: &Case<'a>) -> impl Iterator<Item = (&'a String, &'a String)> {
    let there = &case.room.labels;
    case.ask.labels.iter().filter(|(name, value)| there.get(*name) != Some(value))
}

fn labels_said(case: &Case) -> String {
    let said = missing_labels(case).map(|(name, value)| match case.room.labels.get(name) {
        Some(found) => format!("{name}={value} asked, {name}={found} found"),
        None => format!("{name}={value} asked, no label {name} found"),
    });
    said.collect::<Vec<_>>().join("; ")
}

fn port_said(case: &Case) -> String {
    let Some(port) = case.ask.port else { return format!("none is free from {FIRST_PORT} up") };
    match case.room.ports.get(&port) {
        Some(Some(cluster)) => format!("{port} asked, which a member of {cluster} has"),
        _ => format!("{port} asked, which is in use"),
    }
}

fn memory_said(case: &Case) -> String {
    let asked = format_bytes(case.asked.memory);
    if case.asked.memory < MIN_MEMORY {
        return format!("{asked} asked, {} is the least", format_bytes(MIN_MEMORY));
    }
    let (free, offered) = (format_bytes(case.free_memory()), format_bytes(case.room.offered.memory));
    format!("{asked} asked, {free} free of {offered}")
}

fn cpus_said(case: &Case) -> String {
    let (asked, offered) = (cores(case.asked.nano_cpus), cores(case.room.offered.nano_cpus));
    if case.asked.nano_cpus > case.room.offered.nano_cpus {
        return format!("{asked} cores asked, {offered} offered");
    }
    let free = cores(case.free_nano_cpus());
    format!("{asked} cores asked, {free} free of {CPU_FACTOR} times {offered}")
}

fn cores(nano_cpus: u64) -> impl Display {
    nano_cpus as f64 / 1e9
}
