//! What etcd holds in tests.

use schemadock_schema::keys::Keys;
use schemadock_store::Entry;
use serde_json::{Value, json};

use super::seen::{self, Seen};

pub(super) fn keys() -> Keys {
    Keys::new("/p")
}

/// Documents by key below `/p/`; the revision of each is its place in the list, from 1 on. Text is taken as it is.
pub(super) fn seen(documents: &[(&str, Value)]) -> Seen {
    let entries: Vec<Entry> = documents
        .iter()
        .zip(1..)
        .map(|((key, value), revision)| Entry {
            key: format!("/p/{key}"),
            value: value.as_str().map_or_else(|| value.to_string(), str::to_owned).into_bytes(),
            mod_revision: revision,
            create_revision: revision,
            lease: 0,
        })
        .collect();
    seen::read(&keys(), 100, entries.iter())
}

pub(super) fn host(name: &str, address: &str) -> Value {
    json!({
        "name": name, "address": address, "zone": "z1", "capacity": {"memory": 4294967296u64, "cpus": 2.0, "disk": null},
        "allocated": {"memory": 1073741824u64, "cpus": 1.0, "disk": null}, "free_disk": 10737418240u64,
        "retired": [{"instance": format!("{name}-old-db1"), "bytes": 3145728, "since": "2026-01-02T03:04:05Z"}],
        "instances": 1, "warnings": [{"kind": "live-restore", "message": "live-restore is off", "hint": "set it"}],
        "store": {"state": "ok", "expected": null, "found": null}, "agent_version": "0.1.0",
        "docker_version": "20.10", "updated_at": "2026-01-02T03:04:05.678Z"
    })
}

pub(super) fn master(host: &str) -> Value {
    json!({"data": {"role": "master", "port": 1, "host": host, "cluster": "c"}})
}

pub(super) fn minion(host: &str, of: &str) -> Value {
    json!({"data": {"role": "minion", "port": 1, "master_host": of, "master_port": 1, "host": host, "cluster": "c"}})
}

pub(super) fn record(master: &str, voters: &[&str], acks: u32) -> Value {
    let voters: Vec<Value> = voters.iter().map(|name| json!({"name": name, "server_uuid": "u"})).collect();
    json!({
        "term": 3, "master": master, "phase": "steady", "to": null, "deadline": null, "voters": voters, "acks": acks,
        "durability": if acks > 0 { "lossless" } else { "async" }, "founder": "u",
        "lineage": [{"term": 3, "name": master, "server_uuid": "u", "base": ""}], "by": "t", "reason": "t"
    })
}

/// A status at a target's revision; `more` overrides fields.
pub(super) fn status(name: &str, host: &str, revision: i64, more: Value) -> Value {
    let mut status = json!({
        "name": name, "host": host, "cluster": "c", "address": format!("10.0.0.{}", &host[1..]), "port": 1,
        "role": "minion", "disabled": false, "maintenance": false, "observed_role": "minion", "phase": "running",
        "converged": true, "waiting_on": null, "message": "", "data": {"state": "own", "server_uuid": "u"},
        "foreign": null, "store": {"state": "ok", "expected": null, "found": null}, "attempts": 0, "writable": false,
        "term": 3, "received": "", "server_uuid": "u", "server_id": 7, "gtid_executed": "",
        "source": {"host": "h1", "port": 1, "address": "10.0.0.1", "io": "ON", "sql": "ON", "lag_seconds": 0.0,
            "error": null},
        "seed": null, "restart_pending": [], "container": {"id": "1", "image": "mysql:8.4", "state": "running"},
        "mysql_version": "8.4.0", "size": {"memory": 1073741824u64, "cpus": 1.0, "disk": null},
        "target_revision": revision, "policy_revision": 0, "updated_at": "2026-01-02T03:04:05Z"
    });
    status.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    status
}

/// Three members at work: h1 leads, h2 and h3 follow.
pub(super) fn at_work(voters: &[&str], acks: u32) -> Vec<(&'static str, Value)> {
    let leads = json!({"role": "master", "observed_role": "master", "writable": true, "source": null,
        "receivers": ["h2-c-db2", "h3-c-db3"]});
    vec![
        ("targets/h1/h1-c-db1", master("h1")),
        ("targets/h2/h2-c-db2", minion("h2", "h1")),
        ("targets/h3/h3-c-db3", minion("h3", "h1")),
        ("hosts/h1", host("h1", "10.0.0.1")),
        ("hosts/h2", host("h2", "10.0.0.2")),
        ("hosts/h3", host("h3", "10.0.0.3")),
        ("alive/h1", json!("a")),
        ("alive/h2", json!("a")),
        ("alive/h3", json!("a")),
        ("status/h1/h1-c-db1", status("h1-c-db1", "h1", 1, leads)),
        ("status/h2/h2-c-db2", status("h2-c-db2", "h2", 2, json!({}))),
        ("status/h3/h3-c-db3", status("h3-c-db3", "h3", 3, json!({}))),
        ("leadership/c", record("h1-c-db1", voters, acks)),
        ("members/c", json!({"members": ["h1-c-db1", "h2-c-db2", "h3-c-db3"]})),
        ("fleet", json!({"id": "f", "accepted": []})),
    ]
}
