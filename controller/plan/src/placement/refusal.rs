//! Why members cannot be placed, host by host.

use std::fmt;

use schemadock_schema::{ClusterName, HostName};

use super::rooms::Rooms;
use super::{Ask, cases, filters};

/// Why one host takes no member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRefusal {
    /// The host.
    pub host: HostName,
    /// The filter that refuses it.
    pub filter: &'static str,
    /// Why, and by how much.
    pub message: String,
}

/// Fewer hosts fit than members were asked for. As text: a line in sum, and one for each host that is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoRoom {
    /// The cluster.
    pub cluster: ClusterName,
    /// How many hosts are needed.
    pub asked: usize,
    /// The hosts that fit.
    pub fitting: Vec<HostName>,
    /// Those that do not, in the order of their names.
    pub refused: Vec<HostRefusal>,
}

impl NoRoom {
    /// Asks each host again, and this time for its reasons.
    pub(super) fn of(rooms: &Rooms, ask: &Ask) -> NoRoom {
        let (mut fitting, mut refused) = (Vec::new(), Vec::new());
        for case in cases(rooms, ask) {
            match filters::refusing(&case) {
                Some(filter) => refused.push(HostRefusal {
                    host: case.host.clone(),
                    filter: filter.name,
                    message: (filter.why)(&case),
                }),
                None => fitting.push(case.host.clone()),
            }
        }
        refused.extend(ask.hosts.iter().filter(|host| !rooms.has(host)).map(|host| HostRefusal {
            host: host.clone(),
            filter: "hosts",
            message: "no host of this name is registered".to_owned(),
        }));
        refused.sort_by(|a, b| a.host.cmp(&b.host));
        refused.dedup();
        NoRoom { cluster: ask.cluster.clone(), asked: ask.count, fitting, refused }
    }
}

impl fmt::Display for NoRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.fitting.iter().map(HostName::as_str).collect();
        let fitting = if names.is_empty() { String::new() } else { format!(" ({})", names.join(", ")) };
        let (cluster, asked, fit) = (&self.cluster, self.asked, names.len());
        write!(f, "places wanted for {cluster}: {asked}, hosts that fit: {fit}{fitting}")?;
        let width = self.refused.iter().map(|refusal| refusal.host.as_str().len()).max().unwrap_or(0);
        for HostRefusal { host, filter, message } in &self.refused {
            write!(f, "\n  {host:width$}  {filter}: {message}")?;
        }
        Ok(())
    }
}

impl std::error::Error for NoRoom {}
