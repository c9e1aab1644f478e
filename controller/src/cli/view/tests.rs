use serde_json::{Value, json};

use super::clusters::clusters;
use super::instances::rows;
use crate::cli::fixture::{at_work, keys, seen, status};
use crate::cli::get::{self, Kind};
use crate::cli::{tables, topology};

fn table(world: &[(&str, Value)], kind: Kind) -> String {
    tables::text(kind, get::rows(kind, &keys(), &seen(world), None).unwrap().iter(), true)
}

#[test]
fn what_people_read() {
    let mut world = at_work(&[], 0);
    world.push(("events/c/0001767323045678-h1-000001", json!({
        "id": "x", "time": "2026-01-02T03:04:05.678Z", "cluster": "c", "instance": "h2-c-db2", "host": "h2",
        "kind": "mended", "message": "replication was stopped by hand", "by": "agent h2", "details": {}
    })));
    world.push((
        "controllers/k1",
        json!({"id": "k1", "host": "h1", "version": "0.1.0", "since": "2026-01-02T03:04:05Z"}),
    ));
    world.push(("controller/leader", json!("k1")));
    let kinds =
        [Kind::Targets, Kind::Instances, Kind::Clusters, Kind::Hosts, Kind::Controllers, Kind::Events];
    insta::assert_snapshot!(kinds.map(|kind| table(&world, kind)).join("\n\n"));
}

fn operation(id: &str, more: Value) -> Value {
    let mut operation = json!({
        "id": id, "request": {"kind": "switchover", "to": "h2-c-db2"}, "clusters": ["c"], "state": "running",
        "step": "freeze h1-c-db1", "waiting_on": {"message": "3 sessions to end", "since": "2026-01-02T03:04:05.5Z"},
        "progress": {"done": 1, "total": 3}, "plan": ["choose h2-c-db2", "freeze h1-c-db1", "open h2-c-db2"],
        "requested_by": "ann@h1", "requested_at": "2026-01-02T03:04:05.123Z", "updated_at": "2026-01-02T03:04:06.1Z",
        "outcome": null
    });
    operation.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    operation
}

#[test]
fn operations_are_shown_with_what_they_wait_for() {
    let mut world = at_work(&[], 0);
    world.push(("operations/1", operation("1", json!({}))));
    let failed = json!({"state": "failed", "outcome": "the agent of h2 is silent", "progress": {"done": 3, "total": 3},
        "waiting_on": null, "request": {"kind": "drain", "host": "h1", "evict": true}, "clusters": ["b", "c"]});
    world.push(("operations/2", operation("2", failed)));
    world.push((
        "operations/3",
        operation(
            "3",
            json!({"state": "queued", "step": null, "waiting_on": null,
        "progress": {"done": 0, "total": 0}, "request": {"kind": "stop"}, "plan": []}),
        ),
    ));
    world.push(("locks/c", json!({"operation": "1"})));
    let seen = seen(&world);
    let rows = get::rows(Kind::Operations, &keys(), &seen, None).unwrap();
    let mut shown = vec![tables::text(Kind::Operations, rows.iter(), true)];
    shown.extend(rows.values().map(tables::operation));
    shown.push(topology::text(&clusters(&seen)[0]));
    shown.push(table(&world, Kind::Clusters));
    insta::assert_snapshot!(shown.join("\n\n"));
}

#[test]
fn what_scripts_read() {
    let world = seen(&at_work(&["h2-c-db2"], 1));
    let first = |kind| get::rows(kind, &keys(), &world, None).unwrap().pop_last().map(|(_, value)| value);
    insta::assert_json_snapshot!([first(Kind::Instances), first(Kind::Clusters), first(Kind::Hosts)]);
}

#[test]
fn converged_is_what_the_reader_can_stand_for() {
    let said = |world: &[(&str, Value)]| {
        let seen = seen(world);
        let rows = rows(&seen);
        let row = rows.iter().find(|row| row.name.as_str() == "h2-c-db2").unwrap();
        (row.converged, row.stale)
    };
    let good = at_work(&[], 0);
    assert_eq!(said(&good), (true, false));
    let without = |key: &str| good.iter().filter(|(own, _)| *own != key).cloned().collect::<Vec<_>>();
    let mut dead = without("fleet");
    dead.retain(|(key, _)| *key != "alive/h2");
    assert_eq!(said(&dead), (false, true), "its agent is dead");
    let mut older = good.clone();
    older[10].1 = status("h2-c-db2", "h2", 1, json!({}));
    assert_eq!(said(&older), (false, true), "it speaks of an older target");
    let mut policy = good.clone();
    policy.push(("clusters/c", json!({"paused": false})));
    assert_eq!(said(&policy), (false, true), "it speaks of an older policy");
    let mut not_yet = good.clone();
    not_yet[10].1 = status("h2-c-db2", "h2", 2, json!({"converged": false}));
    assert_eq!(said(&not_yet), (false, false), "the agent says so");
    let mut garbage = good.clone();
    garbage[10].1 = json!("{");
    assert_eq!(said(&garbage), (false, false), "its status cannot be read");
}

#[test]
fn topology_says_what_would_stop_writes() {
    let told = |world: &[(&str, Value)]| {
        let seen = seen(world);
        clusters(&seen).iter().map(topology::text).collect::<Vec<_>>().join("\n")
    };
    let both = at_work(&["h2-c-db2", "h3-c-db3"], 1);
    let one = at_work(&["h2-c-db2"], 1);
    let mut waiting = one.clone();
    waiting.retain(|(key, _)| *key != "alive/h2");
    let deserted = json!({"role": "master", "observed_role": "master", "writable": true, "source": null,
        "receivers": [], "commits_waiting": 1});
    let at = waiting.iter().position(|(key, _)| *key == "status/h1/h1-c-db1").unwrap();
    waiting[at].1 = status("h1-c-db1", "h1", 1, deserted);
    let mut office = one.clone();
    office.push(("controller/leader", json!("k")));
    let mut closed = at_work(&[], 0);
    closed[9].1 = status(
        "h1-c-db1",
        "h1",
        1,
        json!({"role": "master", "observed_role": "none", "phase": "starting",
        "converged": false, "writable": false, "source": null, "attempts": 2,
        "waiting_on": {"kind": "etcd", "name": "", "since": "2026-01-02T03:04:05Z"}, "message": "no linearizable read"}),
    );
    let mut chain = at_work(&[], 0);
    chain[11].1 = status(
        "h3-c-db3",
        "h3",
        3,
        json!({"source": {"host": "h2", "port": 1, "address": "10.0.0.2",
        "io": "ON", "sql": "ON", "lag_seconds": 12.4, "error": null}}),
    );
    let worlds = [at_work(&[], 0), both, one, waiting, office, closed, chain];
    insta::assert_snapshot!(worlds.map(|world| told(&world)).join("\n\n"));
}

#[test]
fn topology_for_scripts() {
    let seen = seen(&at_work(&["h2-c-db2"], 1));
    insta::assert_json_snapshot!(super::tree::json(&clusters(&seen)[0]));
}

#[test]
fn a_circle_is_shown_and_ends() {
    let mut world = at_work(&[], 0);
    world[9].1 = status(
        "h1-c-db1",
        "h1",
        1,
        json!({"source": {"host": "h3", "port": 1, "address": "10.0.0.3",
        "io": "ON", "sql": "ON", "lag_seconds": null, "error": null}}),
    );
    world[11].1 = status("h3-c-db3", "h3", 3, json!({}));
    let seen = seen(&world);
    let text = topology::text(&clusters(&seen)[0]);
    assert!(["h1-c-db1", "h2-c-db2", "h3-c-db3"].iter().all(|name| text.contains(name)), "{text}");
}

#[test]
fn names_are_looked_for_where_they_may_stand() {
    let world = seen(&at_work(&[], 0));
    let count = |kind, name| get::rows(kind, &keys(), &world, Some(name)).map(|rows| rows.len()).ok();
    assert_eq!(count(Kind::Instances, "h1-c-db1"), Some(1));
    assert_eq!(count(Kind::Instances, "c"), Some(3));
    assert_eq!(count(Kind::Targets, "h2"), Some(1));
    assert_eq!(count(Kind::Events, "c"), Some(0));
    assert_eq!(count(Kind::Events, "nobody"), None);
    assert_eq!(count(Kind::Clusters, "d"), None);
}
