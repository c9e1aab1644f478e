//! What it costs to place 1,000 clusters of 3 on 1,000 hosts in one go.

use schemadock_controller_plan::placement::{Ask, Rooms, Strategy, place};
use schemadock_controller_plan::view::FleetView;
use schemadock_schema::host::Host;
use schemadock_schema::size::{ExactSize, GIB, Size};
use serde_json::json;

use crate::Line;
use crate::agent::processor_time;

const MEMBERS: usize = 3;

pub(crate) fn run(clusters: usize, hosts: usize, runs: u32) -> Vec<Line> {
    let view = fleet(hosts);
    let asks: Vec<Ask> = (0..clusters).map(ask).collect();
    let cost = |strategy| {
        let before = processor_time("self");
        let placed: usize = (0..runs).map(|_| placed(&view, &asks, strategy)).sum();
        assert_eq!(placed, runs as usize * clusters * MEMBERS);
        (processor_time("self") - before) / f64::from(runs)
    };
    vec![
        Line::at_most("processor time, hosts spread", cost(Strategy::Spread), "s", 1.0),
        Line::at_most("processor time, hosts packed", cost(Strategy::Pack), "s", 1.0),
        Line::plain("clusters of 3", clusters as f64, ""),
        Line::plain("hosts", hosts as f64, ""),
    ]
}

/// From the fleet's documents to the places of all; how many there are.
fn placed(view: &FleetView, asks: &[Ask], strategy: Strategy) -> usize {
    let mut rooms = Rooms::of(view);
    let each = asks.iter().map(|ask| match place(&mut rooms, ask, strategy) {
        Ok(places) => places.len(),
        Err(why) => panic!("{}: {} hosts fit", why.cluster, why.fitting.len()),
    });
    each.sum()
}

/// Hosts of four sizes in seven zones, one in ten in none. What is asked fills many of them.
fn fleet(hosts: usize) -> FleetView {
    let mut view = FleetView::default();
    for number in 0..hosts {
        let zone = (!number.is_multiple_of(10)).then(|| format!("zone{}", number % 7));
        let memory = [8, 12, 16, 24][number % 4] * GIB;
        let host: Host = serde_json::from_value(json!({
            "name": format!("host{number:04}"), "address": "198.18.0.1", "zone": zone,
            "labels": {"disk": if number.is_multiple_of(2) { "ssd" } else { "hdd" }},
            "capacity": {"memory": memory, "cpus": 4.0, "disk": null},
            "allocated": {"memory": 0, "cpus": 0.0, "disk": null}, "free_disk": 400 * GIB,
            "store": {"state": "ok", "expected": null, "found": null}, "agent_version": "0", "docker_version": null,
            "updated_at": "2026-01-01T00:00:00Z",
        }))
        .expect("a host");
        view.alive.insert(host.name.clone());
        view.hosts.insert(host.name.clone(), host);
    }
    view
}

/// Clusters of three sizes; the servers of every other one must lie on fast disks.
fn ask(number: usize) -> Ask {
    let exact = ExactSize { memory: 2 * GIB, cpus: Some(1.0), disk: Some(50 * GIB) };
    let size = [Size::Small, Size::Quarter, Size::Exact(exact)][number % 3].clone();
    let mut ask = Ask::new(format!("cluster{number:04}").parse().expect("a name"), size, MEMBERS);
    if number.is_multiple_of(2) {
        ask.labels.insert("disk".to_owned(), "ssd".to_owned());
    }
    ask
}
