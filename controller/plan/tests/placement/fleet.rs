//! Small fleets, written down as documents.

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use schemadock_controller_plan::placement::{Ask, Place, Strategy as Order};
use schemadock_controller_plan::view::{FleetView, Raw};
use schemadock_schema::HostName;
use schemadock_schema::keys::Keys;
use schemadock_schema::size::{ExactSize, GIB, MIB, Resources, Size};
use serde_json::{Value, json};

#[derive(Debug, Clone)]
pub(crate) struct Fleet {
    pub(crate) machines: Vec<Machine>,
    pub(crate) policies: Vec<(&'static str, Size)>,
}

#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub(crate) name: HostName,
    pub(crate) alive: bool,
    pub(crate) cordoned: bool,
    pub(crate) zone: Option<&'static str>,
    /// The value of the label `disk`.
    pub(crate) label: Option<&'static str>,
    pub(crate) memory: u64,
    pub(crate) free_disk: Option<u64>,
    pub(crate) members: Vec<Member>,
}

/// What every machine has.
pub(crate) const CPUS: f64 = 2.0;

#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) cluster: String,
    pub(crate) port: u16,
    /// None where the document does not say. Where `cpus` is above 0: 1 GiB and so many cores.
    pub(crate) size: Option<Size>,
    pub(crate) cpus: f64,
    pub(crate) disabled: bool,
    /// The document cannot be read; the status tells what it was.
    pub(crate) garbled: bool,
}

pub(crate) fn name(text: &str) -> HostName {
    text.parse().unwrap()
}

pub(crate) fn hosts(names: &[&str]) -> Vec<HostName> {
    names.iter().map(|text| name(text)).collect()
}

pub(crate) fn exact(memory: u64, cpus: Option<f64>, disk: Option<u64>) -> Size {
    Size::Exact(ExactSize { memory, cpus, disk })
}

pub(crate) fn ask(cluster: &str, size: Size, count: usize) -> Ask {
    Ask::new(cluster.parse().unwrap(), size, count)
}

pub(crate) fn fleet(machines: Vec<Machine>) -> Fleet {
    Fleet { machines, policies: Vec::new() }
}

impl Machine {
    /// A machine that takes members.
    pub(crate) fn of(text: &str, zone: Option<&'static str>, gib: u64) -> Machine {
        Machine {
            name: name(text),
            alive: true,
            cordoned: false,
            zone,
            label: None,
            memory: gib * GIB,
            free_disk: None,
            members: Vec::new(),
        }
    }

    pub(crate) fn offered(&self) -> Resources {
        Resources { memory: self.memory, cpus: CPUS, disk: self.free_disk }
    }

    fn document(&self) -> Value {
        json!({
            "name": self.name, "address": "127.0.1.1", "zone": self.zone,
            "labels": self.label.map_or(json!({}), |value| json!({"disk": value})),
            "capacity": self.offered(), "allocated": {"memory": 0, "cpus": 0.0, "disk": null},
            "free_disk": self.free_disk, "store": store(), "agent_version": "0", "docker_version": null,
            "updated_at": "2026-01-01T00:00:00Z",
        })
    }
}

impl Member {
    /// A small one.
    pub(crate) fn of(cluster: &str, port: u16) -> Member {
        let (size, cpus) = (Some(Size::Small), 0.0);
        Member { cluster: cluster.to_owned(), port, size, cpus, disabled: false, garbled: false }
    }

    /// What it wishes, if it says so.
    pub(crate) fn wished(&self) -> Option<Size> {
        if self.cpus > 0.0 { Some(exact(GIB, Some(self.cpus), None)) } else { self.size.clone() }
    }

    fn document(&self) -> Value {
        let mut data = json!({"role": "master", "port": self.port, "disabled": self.disabled});
        data["cluster"] = json!(self.cluster);
        if let Some(size) = self.wished() {
            data["size"] = json!(size);
        }
        if self.garbled {
            data["port"] = json!("sixty");
        }
        json!({"data": data})
    }

    fn status(&self, host: &Machine) -> Value {
        json!({
            "name": "x-y-z", "host": host.name, "cluster": self.cluster, "address": null, "port": self.port,
            "role": null, "observed_role": "none", "phase": "running", "converged": true, "waiting_on": null,
            "data": {"state": "own", "server_uuid": null}, "foreign": null, "store": store(), "writable": null,
            "term": null, "received": null, "server_uuid": null, "server_id": null, "gtid_executed": null,
            "source": null, "seed": null, "container": null, "mysql_version": null,
            "size": self.wished().map(|size| size.limits(&host.offered())), "target_revision": null,
            "policy_revision": null, "updated_at": "2026-01-01T00:00:00Z",
        })
    }
}

fn store() -> Value {
    json!({"state": "ok", "expected": null, "found": null})
}

impl Fleet {
    pub(crate) fn view(&self) -> FleetView {
        self.turned(0)
    }

    /// The same, read in another order.
    pub(crate) fn turned(&self, turn: usize) -> FleetView {
        let keys = Keys::new("/p");
        let mut entries: Vec<(String, Vec<u8>)> = Vec::new();
        let mut put = |key: String, value: Value| entries.push((key, value.to_string().into_bytes()));
        for (cluster, size) in &self.policies {
            put(keys.cluster(&cluster.parse().unwrap()), json!({"size": size}));
        }
        for host in &self.machines {
            put(keys.host(&host.name), host.document());
            if host.alive {
                put(keys.alive(&host.name), json!("id"));
            }
            if host.cordoned {
                put(keys.cordon(&host.name), json!({"by": "me", "at": "2026-01-01T00:00:00Z"}));
            }
            for (number, member) in host.members.iter().enumerate() {
                let instance = format!("{}-{}-db{number}", host.name, member.cluster).parse().unwrap();
                put(keys.target(&host.name, &instance), member.document());
                if member.garbled {
                    put(keys.status(&host.name, &instance), member.status(host));
                }
            }
        }
        let middle = turn % entries.len().max(1);
        entries.rotate_left(middle);
        let raw = |(key, value)| Raw { key, value, mod_revision: 1, create_revision: 1 };
        FleetView::read(
            &keys,
            1,
            entries.iter().map(|(key, value)| (key.as_str(), value.as_slice())).map(raw),
        )
    }

    /// The same with members that were placed.
    pub(crate) fn with(&self, ask: &Ask, places: &[Place]) -> Fleet {
        let mut fleet = self.clone();
        for place in places {
            let machine = fleet.machines.iter_mut().find(|machine| machine.name == place.host).unwrap();
            let size = Some(ask.size.clone());
            machine.members.push(Member { size, ..Member::of(ask.cluster.as_str(), place.port) });
            let disk = ask.size.limits(&machine.offered()).disk.unwrap_or(0);
            machine.free_disk = machine.free_disk.map(|free| free - disk);
        }
        fleet
    }
}

const CLUSTERS: [&str; 3] = ["shop", "blog", "wiki"];
const ZONES: [&str; 2] = ["a", "b"];

fn any_size() -> impl Strategy<Value = Size> {
    let amounts =
        (1..6u64, select(vec![None, Some(0.5), Some(2.0), Some(3.0)]), select(vec![None, Some(20 * GIB)]));
    prop_oneof![
        1 => select(vec![Size::All, Size::Half, Size::Quarter, Size::Eighth, Size::Small]),
        3 => amounts.prop_map(|(halves, cpus, disk)| exact(halves * 512 * MIB, cpus, disk)),
    ]
}

fn any_member() -> impl Strategy<Value = Member> {
    (select(vec!["shop", "blog", "wiki", "a", "b", "c"]), 3306..3310u16, any_size(), 0..12u8, any::<bool>())
        .prop_map(|(cluster, port, size, said, disabled)| Member {
            size: (said > 0).then_some(size),
            disabled,
            ..Member::of(cluster, port)
        })
}

fn any_machine() -> impl Strategy<Value = Machine> {
    let zones = select(vec![None, Some("a"), Some("a"), Some("b"), Some("b")]);
    let labels = select(vec![None, Some("hdd"), Some("ssd"), Some("ssd")]);
    let disks = select(vec![None, Some(10 * GIB), Some(30 * GIB), Some(90 * GIB)]);
    let members = prop::collection::vec(any_member(), 0..4);
    (0..16u8, 0..16u8, zones, labels, 4..48u64, disks, members).prop_map(
        |(alive, cordoned, zone, label, halves, free_disk, members)| Machine {
            alive: alive > 0,
            cordoned: cordoned == 0,
            label,
            memory: halves * 512 * MIB,
            free_disk,
            members,
            ..Machine::of("h", zone, 0)
        },
    )
}

pub(crate) fn any_fleet() -> impl Strategy<Value = Fleet> {
    let policies = prop::collection::vec(prop::option::weighted(0.3, any_size()), CLUSTERS.len());
    let machines = |least, most| prop::collection::vec(any_machine(), least..=most);
    let machines = prop_oneof![1 => machines(0, 2), 3 => machines(3, 5)];
    (machines, policies).prop_map(|(mut machines, sizes)| {
        for (number, machine) in machines.iter_mut().enumerate() {
            machine.name = name(&format!("h{number}"));
        }
        let policies = CLUSTERS.into_iter().zip(sizes).filter_map(|(cluster, size)| Some((cluster, size?)));
        Fleet { machines, policies: policies.collect() }
    })
}

pub(crate) fn any_ask() -> impl Strategy<Value = Ask> {
    // h5 is never registered, and nobody is a member of `new`.
    let names = hosts(&["h0", "h1", "h2", "h3", "h4", "h5"]);
    let some = subsequence(names.clone(), 2..=6);
    let asked = prop_oneof![5 => Just(Vec::new()), 1 => some];
    let without = prop_oneof![5 => Just(Vec::new()), 1 => subsequence(names, 1..=2)];
    let zones = prop_oneof![5 => Just(Vec::new()), 1 => subsequence(ZONES.to_vec(), 1..=2)];
    let ports = select(vec![None, None, None, None, Some(3306), Some(7335)]);
    let labels = select(vec![None, None, None, None, None, Some("ssd")]);
    let clusters = select(["shop", "blog", "wiki", "new"].to_vec());
    (clusters, any_size(), 0..6usize, ports, zones, asked, without, labels).prop_map(
        |(cluster, size, count, port, zones, hosts, without, label)| Ask {
            port,
            zones: zones.into_iter().map(str::to_owned).collect(),
            hosts,
            labels: label.map(|value| ("disk".to_owned(), value.to_owned())).into_iter().collect(),
            without: without.into_iter().collect(),
            ..ask(cluster, size, count)
        },
    )
}

pub(crate) fn any_strategy() -> impl Strategy<Value = Order> {
    select(vec![Order::Spread, Order::Pack])
}
