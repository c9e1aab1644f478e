//! The steps that `diff` shows.

use std::collections::BTreeMap;

use schemadock_agent_plan::foresee::{Change, Other, steps_of_change};
use schemadock_agent_plan::report::{Outcome, status};
use schemadock_agent_plan::{converge, standing};
use schemadock_schema::host::{Host, RetiredData};
use schemadock_schema::leadership::Leadership;
use schemadock_schema::size::{GIB, Resources};
use schemadock_schema::status::{Status, StoreReport, StoreState};
use schemadock_schema::target::{Role, Target, VariableValue};
use schemadock_schema::{HostName, InstanceName, Timestamp};

use crate::fixture::*;

fn reported(case: &Case) -> Status {
    let outcome = Outcome {
        standing: standing::plan(&case.wish, &case.seen),
        converge: converge::plan(&case.wish, &case.seen),
        error: None,
        seed: None,
    };
    let host = host(number(&case.wish.instance));
    status(&case.wish, &case.seen, &outcome, &host, None, Timestamp::UNIX_EPOCH)
}

fn registered(n: u8) -> (HostName, Host) {
    let offered = Resources { memory: 8 * GIB, cpus: 4.0, disk: None };
    let one = Host {
        name: host(n),
        address: address(n),
        zone: None,
        labels: BTreeMap::new(),
        capacity: offered,
        allocated: offered,
        free_disk: None,
        retired: Vec::new(),
        instances: 1,
        warnings: Vec::new(),
        store: StoreReport { state: StoreState::Ok, expected: None, found: None },
        agent_version: "0".to_owned(),
        docker_version: None,
        updated_at: Timestamp::UNIX_EPOCH,
    };
    (host(n), one)
}

/// What etcd holds of db1 and db2.
struct Stored {
    hosts: BTreeMap<HostName, Host>,
    names: BTreeMap<u8, InstanceName>,
    targets: BTreeMap<u8, Target>,
    statuses: BTreeMap<u8, Status>,
    leadership: Option<Leadership>,
}

impl Stored {
    fn nothing() -> Stored {
        Stored {
            hosts: [registered(1), registered(2)].into(),
            names: [(1, name(1)), (2, name(2))].into(),
            targets: BTreeMap::new(),
            statuses: BTreeMap::new(),
            leadership: None,
        }
    }

    fn converged() -> Stored {
        let (master, minion) = (Case::master(), Case::minion());
        Stored {
            targets: [(1, target(Role::Master, None)), (2, target(Role::Minion, Some(1)))].into(),
            leadership: master.wish.grant.record().cloned(),
            statuses: [(1, reported(&master)), (2, reported(&minion))].into(),
            ..Stored::nothing()
        }
    }

    fn change(&self, n: u8, after: Option<Target>) -> String {
        let cluster = cluster();
        let other = if n == 1 { 2 } else { 1 };
        let host_of: BTreeMap<u8, HostName> = [(1, host(1)), (2, host(2))].into();
        let others = self.targets.get(&other).map(|target| Other {
            name: &self.names[&other],
            host: &host_of[&other],
            target,
            status: self.statuses.get(&other),
        });
        let lines = steps_of_change(&Change {
            instance: &self.names[&n],
            cluster: &cluster,
            host: &host_of[&n],
            before: self.targets.get(&n),
            after: after.as_ref(),
            policy: None,
            leadership: self.leadership.as_ref(),
            status: self.statuses.get(&n),
            secrets: self.leadership.is_some(),
            hosts: &self.hosts,
            others: others.into_iter().collect(),
        });
        lines.into_iter().map(|line| format!("  {line}\n")).collect()
    }

    fn edit(&self, n: u8, change: impl FnOnce(&mut Target)) -> String {
        let mut after = self.targets[&n].clone();
        change(&mut after);
        self.change(n, Some(after))
    }
}

#[test]
fn steps_of_changed_targets() {
    let now = Stored::converged();
    let mut bare = Stored::nothing();
    bare.hosts.remove(&host(2));
    let mut founded = Stored::converged();
    founded.targets.remove(&2);
    founded.statuses.remove(&2);
    let mut deleted = Stored::converged();
    deleted.targets.remove(&2);
    deleted.statuses.remove(&2);
    let shelf = RetiredData { instance: name(2), bytes: 1, since: Timestamp::UNIX_EPOCH };
    deleted.hosts.get_mut(&host(2)).unwrap().retired.push(shelf);
    let all = [
        ("nothing changes", now.edit(2, |_| ())),
        ("a new master", Stored::nothing().change(1, Some(target(Role::Master, None)))),
        ("a new minion, its host not registered", bare.change(2, Some(target(Role::Minion, Some(1))))),
        ("a new minion", founded.change(2, Some(target(Role::Minion, Some(1))))),
        ("a minion put back", deleted.change(2, Some(target(Role::Minion, Some(1))))),
        ("port", now.edit(2, |target| target.port = 7400)),
        ("size", now.edit(2, |target| target.size = "eighth".parse().unwrap())),
        ("image of the master", now.edit(1, |target| target.image = Some("mysql:9.7".to_owned()))),
        (
            "a variable",
            now.edit(1, |target| {
                target.mysql.insert("max_connections".to_owned(), VariableValue::Integer(9));
            }),
        ),
        ("promotion", now.edit(2, |target| target.promotion = schemadock_schema::target::Promotion::Prefer)),
        ("disabled", now.edit(2, |target| target.disabled = true)),
        ("maintenance", now.edit(2, |target| target.maintenance = true)),
        ("the master disabled by hand", now.edit(1, |target| target.disabled = true)),
        ("a minion deleted", now.change(2, None)),
        ("the master deleted by hand", now.change(1, None)),
        ("a minion becomes master by hand", now.edit(2, |own| *own = target(Role::Master, None))),
    ];
    let text: String = all.into_iter().map(|(title, lines)| format!("# {title}\n{lines}")).collect();
    insta::assert_snapshot!(text);
}
