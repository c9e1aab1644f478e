//! Whether hosts can hold what is wished of them.

use std::collections::BTreeMap;

use crate::size::{GIB, MIB, MIN_MEMORY, Resources, Size, buffer_pool, format_bytes, parse_bytes};
use crate::target::VariableValue;
use crate::variables::normalise;
use crate::{HostName, InstanceName};

use super::{Checker, Placed};

impl Checker<'_> {
    pub(super) fn resources(&mut self) {
        for (name, placed) in self.changed() {
            let Some(host) = self.picture.hosts.get(&placed.host) else { continue };
            let (offered, limits) = (host.capacity, placed.target.size.limits(&host.capacity));
            self.fits((name, placed), &offered, &limits);
            self.pool((name, placed), &limits);
        }
        self.sums();
    }

    fn fits(&mut self, one: (&InstanceName, &Placed), offered: &Resources, limits: &Resources) {
        let (size, host) = (&one.1.target.size, &one.1.host);
        if limits.memory > offered.memory {
            let found = format!("{size}, which is {} of memory", format_bytes(limits.memory));
            let expected =
                format!("at most {}, which is all that {host} offers", format_bytes(offered.memory));
            self.refuse(one, "size", found, expected, None);
        } else if limits.memory < MIN_MEMORY {
            let found = format!("{size}, which is {} of memory on {host}", format_bytes(limits.memory));
            let hint = "below it mysqld is killed under a plain load".to_owned();
            self.refuse(one, "size", found, format!("at least {}", format_bytes(MIN_MEMORY)), Some(hint));
        }
        if limits.cpus > offered.cpus {
            let found = format!("{size} with {} cores", limits.cpus);
            self.refuse(
                one,
                "size",
                found,
                format!("at most {} cores, all that {host} offers", offered.cpus),
                None,
            );
        }
    }

    fn pool(&mut self, one: (&InstanceName, &Placed), limits: &Resources) {
        let given = one.1.target.mysql.iter().find(|(name, _)| normalise(name) == "innodb_buffer_pool_size");
        let bytes = given.and_then(|(_, value)| match value {
            VariableValue::Integer(bytes) => u64::try_from(*bytes).ok(),
            VariableValue::Text(text) => parse_bytes(text).ok(),
            VariableValue::Flag(_) | VariableValue::Real(_) => None,
        });
        let usual = buffer_pool(limits.memory);
        if let (Some((name, _)), Some(bytes)) = (given, bytes.filter(|bytes| *bytes > usual)) {
            let text = format!(
                "{} is more than the {} that suit a limit of {}: the server may be killed for its memory",
                format_bytes(bytes),
                format_bytes(usual),
                format_bytes(limits.memory)
            );
            self.warn(one, &format!("mysql.{name}"), text);
        }
    }

    /// Shares that add up to more than the host are warned of, at the last one that changes.
    fn sums(&mut self) {
        let mut by_host: BTreeMap<&HostName, Vec<(&InstanceName, &Placed)>> = BTreeMap::new();
        for (name, placed) in self.picture.instances.iter().filter(|(_, placed)| !placed.target.disabled) {
            by_host.entry(&placed.host).or_default().push((name, placed));
        }
        for (host, instances) in by_host.into_iter().filter(|(_, instances)| instances.len() > 1) {
            let Some(one) = instances.iter().rev().find(|(_, placed)| placed.changed()) else {
                continue;
            };
            // Of a host never seen only the shares can be added up.
            let nominal = Resources { memory: 1024 * GIB, cpus: 1024.0, disk: None };
            let known = self.picture.hosts.get(host).map(|host| host.capacity);
            let offered = known.unwrap_or(nominal);
            let counted = |size: &Size| known.is_some() || !matches!(size, Size::Exact(_) | Size::Small);
            let memory: u64 = instances
                .iter()
                .filter(|(_, placed)| counted(&placed.target.size))
                .map(|(_, placed)| placed.target.size.limits(&offered).memory)
                .sum();
            // Shares are cut to whole bytes; a MiB is nothing to warn of.
            if memory > offered.memory + MIB {
                let percent = memory as f64 / offered.memory as f64 * 100.0;
                let text = format!(
                    "the {} instances of {host} may use {percent:.0} % of the memory that it offers",
                    instances.len()
                );
                self.warn(*one, "size", text);
            }
        }
    }
}
