//! Rules over several documents: two masters, shared ports, circles, sizes, and what leadership forbids.
//!
//! Only documents that are about to be written are refused: what stands in etcd already is judged where it meets
//! one of them.

mod placing;
mod resources;
mod roles;

use std::collections::{BTreeMap, BTreeSet};

use crate::host::Host;
use crate::leadership::Leadership;
use crate::policy::{ClusterPolicy, WishedDurability};
use crate::refusal::Refusal;
use crate::strict::nearest;
use crate::target::{Role, Target};
use crate::variables::lossless_value;
use crate::{ClusterName, HostName, InstanceName};

pub use placing::place;
pub use roles::{leader, write_roles};

/// An instance in the merged picture of files and etcd.
#[derive(Debug, Clone, PartialEq)]
pub struct Placed {
    /// Its host.
    pub host: HostName,
    /// Its cluster.
    pub cluster: ClusterName,
    /// What it is to be.
    pub target: Target,
    /// What etcd holds now, if anything that can be read.
    pub before: Option<Target>,
    /// The file that gives it; none where only etcd does.
    pub file: Option<String>,
}

impl Placed {
    /// Whether writing it would change anything.
    pub fn changed(&self) -> bool {
        self.before.as_ref() != Some(&self.target)
    }
}

/// Files and etcd together, as they would be afterwards.
#[derive(Debug, Clone, Default)]
pub struct Picture {
    /// All instances.
    pub instances: BTreeMap<InstanceName, Placed>,
    /// What is about to be deleted.
    pub deleted: BTreeMap<InstanceName, Placed>,
    /// The registered hosts.
    pub hosts: BTreeMap<HostName, Host>,
    /// The policies.
    pub policies: BTreeMap<ClusterName, ClusterPolicy>,
    /// The leadership records, with the ends of their handovers folded in.
    pub leaderships: BTreeMap<ClusterName, Leadership>,
}

/// What was found wrong.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Findings {
    /// Nothing may be written while there is one.
    pub refusals: Vec<Refusal>,
    /// What people should know.
    pub warnings: Vec<String>,
}

/// Judges files without etcd, as far as that goes: two masters, shared ports, circles.
pub fn check_files(picture: &Picture) -> Vec<Refusal> {
    let mut checker = Checker { picture, findings: Findings::default() };
    checker.masters();
    checker.ports();
    checker.sources();
    checker.findings.refusals
}

/// Judges the merged picture.
pub fn check(picture: &Picture) -> Findings {
    let mut checker = Checker { picture, findings: Findings::default() };
    checker.masters();
    checker.ports();
    checker.sources();
    checker.source_hosts();
    checker.resources();
    checker.durability();
    checker.leadership();
    checker.findings
}

struct Checker<'a> {
    picture: &'a Picture,
    findings: Findings,
}

impl<'a> Checker<'a> {
    fn changed(&self) -> impl Iterator<Item = (&'a InstanceName, &'a Placed)> + use<'a> {
        self.picture.instances.iter().filter(|(_, placed)| placed.changed())
    }

    fn members(&self, cluster: &ClusterName) -> impl Iterator<Item = (&'a InstanceName, &'a Placed)> {
        self.picture.instances.iter().filter(move |(_, placed)| placed.cluster == *cluster)
    }

    fn refuse(
        &mut self,
        (name, placed): (&InstanceName, &Placed),
        field: &str,
        found: String,
        expected: String,
        hint: Option<String>,
    ) {
        let path = if field.is_empty() { name.to_string() } else { format!("{name}.data.{field}") };
        self.findings.refusals.push(Refusal {
            file: placed.file.clone(),
            path: Some(path),
            found,
            expected,
            hint,
        });
    }

    fn warn(&mut self, (name, placed): (&InstanceName, &Placed), field: &str, text: String) {
        let file = placed.file.as_ref().map(|file| format!("{file}: ")).unwrap_or_default();
        let dot = if field.is_empty() { "" } else { ".data." };
        self.findings.warnings.push(format!("{file}{name}{dot}{field}: {text}"));
    }

    fn masters(&mut self) {
        let mut masters: BTreeMap<&ClusterName, Vec<(&InstanceName, &Placed)>> = BTreeMap::new();
        for (name, placed) in
            self.picture.instances.iter().filter(|(_, placed)| placed.target.role == Role::Master)
        {
            masters.entry(&placed.cluster).or_default().push((name, placed));
        }
        for (cluster, found) in masters.into_iter().filter(|(_, found)| found.len() > 1) {
            let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
            if let Some(one) = found.iter().rev().find(|(_, placed)| placed.changed()) {
                let found = format!("{} masters in cluster {cluster} ({})", names.len(), names.join(", "));
                let hint =
                    "make all but one a minion of it; who leads later is decided by a switchover".to_owned();
                self.refuse(*one, "role", found, "one master in a cluster".to_owned(), Some(hint));
            }
        }
    }

    fn ports(&mut self) {
        let mut taken: BTreeMap<(&HostName, u16), Vec<(&InstanceName, &Placed)>> = BTreeMap::new();
        for (name, placed) in &self.picture.instances {
            taken.entry((&placed.host, placed.target.port)).or_default().push((name, placed));
        }
        for ((host, port), found) in taken.into_iter().filter(|(_, found)| found.len() > 1) {
            let Some(one) = found.iter().rev().find(|(_, placed)| placed.changed()) else {
                continue;
            };
            let others: Vec<&str> =
                found.iter().filter(|(n, _)| *n != one.0).map(|(n, _)| n.as_str()).collect();
            let text = format!("port {port} on {host}, which is taken by {}", others.join(", "));
            let used: BTreeSet<u16> =
                self.picture.instances.values().filter(|p| p.host == *host).map(|p| p.target.port).collect();
            let free = (port..=u16::MAX).find(|port| !used.contains(port));
            let hint = free.map(|free| format!("{free} is free"));
            self.refuse(*one, "port", text, "a port of its own on its host".to_owned(), hint);
        }
    }

    /// The instance that listens where this one's source is.
    fn source(&self, placed: &Placed) -> Option<(&'a InstanceName, &'a Placed)> {
        let (host, port) = placed.target.source()?;
        self.picture.instances.iter().find(|(_, other)| other.host == *host && other.target.port == port)
    }

    fn sources(&mut self) {
        let mut in_circles = BTreeSet::new();
        for (name, placed) in self.changed() {
            let Some((source, its)) = self.source(placed) else {
                continue;
            };
            if placed.target.role == Role::Minion && its.cluster != placed.cluster {
                let found = format!("{source} of cluster {}", its.cluster);
                let expected = format!("a member of its own cluster {}", placed.cluster);
                self.refuse((name, placed), "master_host", found, expected, None);
            }
            let mut way = vec![name];
            let mut at = Some((source, its));
            while let Some((next, its)) = at.filter(|(next, _)| !way.contains(next)) {
                way.push(next);
                at = self.source(its);
            }
            let closes = at.is_some_and(|(next, _)| next == name);
            if closes && !in_circles.contains(name) {
                in_circles.extend(way.iter().copied());
                let names: Vec<&str> = way.iter().map(|name| name.as_str()).chain([name.as_str()]).collect();
                let found = match way.len() {
                    1 => "itself".to_owned(),
                    _ => format!("a circle: {}", names.join(" follows ")),
                };
                self.refuse(
                    (name, placed),
                    "master_host",
                    found,
                    "a way that ends at a master".to_owned(),
                    None,
                );
            }
        }
    }

    /// One line for each host that nobody has seen, and one for each source that is not there yet.
    fn source_hosts(&mut self) {
        let known = &self.picture.hosts;
        let mut missing: BTreeMap<&HostName, BTreeSet<&str>> = BTreeMap::new();
        for (name, placed) in self.changed() {
            let source = placed.target.source();
            let hosts = source.map(|(host, _)| host).into_iter().chain([&placed.host]);
            for host in hosts.filter(|host| !known.contains_key(*host)) {
                missing.entry(host).or_default().insert(name.as_str());
            }
            if let Some((host, port)) = source.filter(|_| self.source(placed).is_none()) {
                let text =
                    format!("nothing is to listen on {host}:{port} yet; {name} waits until something does");
                self.warn((name, placed), "master_port", text);
            }
        }
        for (host, waiting) in missing {
            let near = nearest(host.as_str(), known.keys().map(HostName::as_str));
            let near = near.map(|near| format!(" ({near})")).unwrap_or_default();
            let verb = if waiting.len() == 1 { "waits" } else { "wait" };
            let waiting: Vec<&str> = waiting.into_iter().collect();
            self.findings.warnings.push(format!(
                "no agent of a host {host} has registered yet{near}; {} {verb} until one does",
                waiting.join(", ")
            ));
        }
    }

    fn durability(&mut self) {
        for (name, placed) in self.changed() {
            let policy = self.picture.policies.get(&placed.cluster);
            if policy.is_some_and(|policy| policy.wished_durability() == WishedDurability::Async) {
                continue;
            }
            for (variable, value) in &placed.target.mysql {
                let Some(needed) = lossless_value(variable) else {
                    continue;
                };
                let hint = format!(
                    "durability lossless needs it; or `cluster set {} durability=async`",
                    placed.cluster
                );
                let expected = format!("{variable} = {needed}, which is set anyway");
                self.refuse(
                    (name, placed),
                    &format!("mysql.{variable}"),
                    value.to_string(),
                    expected,
                    Some(hint),
                );
            }
        }
    }

    /// The master of a cluster: as leadership has it, else as the targets in etcd had it.
    fn master(&self, cluster: &ClusterName) -> Option<&'a InstanceName> {
        if let Some(named) = self.picture.leaderships.get(cluster).and_then(leader) {
            return Some(named);
        }
        let all = self.picture.instances.iter().chain(&self.picture.deleted);
        let mut founders = all.filter(|(_, placed)| {
            let before = placed.before.as_ref();
            placed.cluster == *cluster
                && before.is_some_and(|before| before.role == Role::Master && before.source().is_none())
        });
        founders.next().map(|(name, _)| name)
    }

    fn leadership(&mut self) {
        for (name, placed) in self.changed() {
            if self.master(&placed.cluster) != Some(name) {
                continue;
            }
            let led = self.picture.leaderships.get(&placed.cluster).and_then(leader) == Some(name);
            if led && placed.target.role == Role::Master && placed.target.source().is_some() {
                let found = format!("a master_host on {name}, which leads {}", placed.cluster);
                let hint = "a master with master_host follows; the leader of a cluster cannot".to_owned();
                self.refuse((name, placed), "master_host", found, "no master_host".to_owned(), Some(hint));
            }
            let was_enabled = placed.before.as_ref().is_some_and(|before| !before.disabled);
            let others: Vec<&str> = self
                .members(&placed.cluster)
                .filter(|(other, its)| *other != name && !its.target.disabled)
                .map(|(other, _)| other.as_str())
                .collect();
            if placed.target.disabled && was_enabled && !others.is_empty() {
                let found = format!("true on the master of {} while others could lead", placed.cluster);
                let hint = format!(
                    "make a switchover to {} first, or disable all members at once",
                    others.join(" or ")
                );
                self.refuse((name, placed), "disabled", found, "false".to_owned(), Some(hint));
            }
        }
        for (name, placed) in &self.picture.deleted {
            if self.master(&placed.cluster) != Some(name) {
                continue;
            }
            let others: Vec<&str> = self.members(&placed.cluster).map(|(other, _)| other.as_str()).collect();
            if !others.is_empty() {
                let found = format!("the deletion of the master of {}", placed.cluster);
                let expected = "no deletion of a master while other members exist".to_owned();
                let hint =
                    format!("make a switchover to {} first, or delete the others first", others.join(" or "));
                self.refuse((name, placed), "", found, expected, Some(hint));
            }
        }
    }
}

#[cfg(test)]
mod tests;
