//! Which hosts new members of a cluster go to.
//!
//! First filters: each host that may not take a member is refused by one of them, which says why and by how much.
//! Then strategies: they order the hosts that are left. Both are lists of small pure things, `FILTERS` and
//! `STRATEGIES`, and their order is the policy.
//!
//! **Guarantees.** All members or none. A host gets no second member of a cluster, and never more memory or cores than
//! it offers (cores times [`CPU_FACTOR`]). Members are as evenly spread over zones as the filters allow. The same
//! fleet and the same ask give the same places, in whatever order either was written down.
//!
//! **Caveats.** What stands in [`Rooms`] is what targets wish, not what servers use: a member that is being deleted
//! takes nothing any more, one that is disabled keeps its room. Disk is what agents found free, less what was asked
//! of these `Rooms` since; what older members may still grow by is not known.

mod filters;
mod order;
mod refusal;
mod rooms;

use std::collections::{BTreeMap, BTreeSet};

use schemadock_schema::size::Size;
use schemadock_schema::{ClusterName, HostName};

pub use filters::{CPU_FACTOR, FIRST_PORT};
pub use refusal::{HostRefusal, NoRoom};
pub use rooms::Rooms;

use filters::Case;

/// Members that are asked for, all of one cluster and of one size.
#[derive(Debug, Clone, PartialEq)]
pub struct Ask {
    /// The cluster.
    pub cluster: ClusterName,
    /// The size of each member.
    pub size: Size,
    /// The port of each member; the first free one of each host from [`FIRST_PORT`] up where none is named.
    pub port: Option<u16>,
    /// How many.
    pub count: usize,
    /// Zones to choose from; any where empty.
    pub zones: Vec<String>,
    /// Hosts to choose from; any where empty.
    pub hosts: Vec<HostName>,
    /// Labels that a host must have.
    pub labels: BTreeMap<String, String>,
    /// Hosts that are not chosen. A member on one of them is taken to be on its way out: its zone is not counted.
    pub without: BTreeSet<HostName>,
}

impl Ask {
    /// Asks for members on any hosts.
    pub fn new(cluster: ClusterName, size: Size, count: usize) -> Ask {
        Ask {
            cluster,
            size,
            port: None,
            count,
            zones: Vec::new(),
            hosts: Vec::new(),
            labels: BTreeMap::new(),
            without: BTreeSet::new(),
        }
    }
}

/// Where a member goes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The host.
    pub host: HostName,
    /// The port, free on that host.
    pub port: u16,
}

/// Which hosts are preferred within a zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strategy {
    /// Those that are emptiest.
    #[default]
    Spread,
    /// Those that are fullest.
    Pack,
}

/// Chooses a host for each member and takes the room there; the best one comes first.
///
/// # Errors
/// Fewer hosts fit than members were asked for: nothing is taken.
pub fn place(rooms: &mut Rooms, ask: &Ask, strategy: Strategy) -> Result<Vec<Place>, NoRoom> {
    let mut fitting: Vec<Case> = cases(rooms, ask).filter(|case| filters::refusing(case).is_none()).collect();
    if fitting.len() < ask.count {
        return Err(NoRoom::of(rooms, ask));
    }
    let mut members = rooms.members_by_zone(ask);
    let mut places = Vec::new();
    for _ in 0..ask.count {
        let best =
            fitting.iter().enumerate().min_by(|(_, a), (_, b)| order::compare(strategy, &members, a, b));
        let Some((at, _)) = best else { break };
        let case = fitting.swap_remove(at);
        members[case.room.zone_index] += 1;
        places.extend(case.port().map(|port| Place { host: case.host.clone(), port }));
    }
    places.iter().for_each(|place| rooms.take(&ask.cluster, place, &ask.size));
    Ok(places)
}

/// What is asked, at each host.
fn cases<'a>(rooms: &'a Rooms, ask: &'a Ask) -> impl Iterator<Item = Case<'a>> {
    let members = rooms.members_of(&ask.cluster);
    rooms.hosts().map(move |(host, room)| {
        let has_member = members.is_some_and(|members| members.contains_key(host));
        Case::new(ask, host, room, has_member)
    })
}
