//! Targets, hosts, controllers, operations and events: shown nearly as they stand.

use schemadock_schema::HostName;
use schemadock_schema::keys::Keys;
use schemadock_schema::operation::Operation;
use serde_json::{Map, Value, json};

use crate::cli::seen::Seen;

/// The targets that can be read, in the format of files.
pub fn targets(seen: &Seen) -> Map<String, Value> {
    let readable = seen.all_targets().filter_map(|(name, stored)| Some((name, stored.target.as_ref().ok()?)));
    readable.map(|(name, target)| (name.to_string(), json!({ "data": target }))).collect()
}

/// One host as scripts read it.
pub fn host(seen: &Seen, name: &HostName) -> Option<Value> {
    let host = seen.hosts.get(name)?;
    Some(json!({
        "name": host.name,
        "address": host.address,
        "alive": seen.alive.contains(name),
        "zone": host.zone,
        "labels": host.labels,
        "cordoned": seen.cordons.contains(name),
        "capacity": host.capacity,
        "allocated": host.allocated,
        "free_disk": host.free_disk,
        "retired": host.retired,
        "instances": host.instances,
        "warnings": host.warnings,
        "store": host.store,
        "agent_version": host.agent_version,
        "docker_version": host.docker_version,
        "updated_at": host.updated_at,
    }))
}

/// Copies of the controller.
pub fn controllers(keys: &Keys, seen: &Seen) -> Vec<Value> {
    let below = seen.plain.iter().filter(|(key, _)| key.starts_with(&keys.controllers()));
    below
        .map(|(key, value)| {
            let id = Keys::last_part(key);
            let of = |field: &str| value.get(field).cloned().unwrap_or_default();
            json!({
                "id": id, "host": of("host"), "version": of("version"),
                "leader": seen.controller.as_deref().is_some_and(|leader| leader == id),
                "since": of("since"),
            })
        })
        .collect()
}

/// Requested changes, oldest first.
pub fn operations(seen: &Seen) -> Vec<Value> {
    seen.operations.values().map(|stored| operation(&stored.value)).collect()
}

/// One requested change as scripts read it.
pub fn operation(operation: &Operation) -> Value {
    json!({
        "id": operation.id,
        "kind": operation.request.kind(),
        "clusters": operation.clusters,
        "state": operation.state,
        "step": operation.step,
        "waiting_on": operation.waiting_on,
        "progress": operation.progress,
        "plan": operation.plan,
        "requested_by": operation.requested_by,
        "requested_at": operation.requested_at,
        "updated_at": operation.updated_at,
        "outcome": operation.outcome,
    })
}

/// What happened, oldest first.
pub fn events(keys: &Keys, seen: &Seen) -> Vec<Value> {
    const FIELDS: [&str; 9] =
        ["id", "time", "cluster", "instance", "host", "kind", "message", "by", "details"];
    let below = seen.plain.iter().filter(|(key, _)| key.starts_with(&keys.events()));
    let mut events: Vec<Value> =
        below.map(|(key, value)| with_fields(&FIELDS, Keys::last_part(key), value)).collect();
    events.sort_by(|a, b| a["id"].as_str().cmp(&b["id"].as_str()));
    events
}

/// Exactly these fields; `null` for what the document lacks.
fn with_fields(fields: &[&str], id: &str, value: &Value) -> Value {
    let mut object: Map<String, Value> = fields
        .iter()
        .map(|field| ((*field).to_owned(), value.get(field).cloned().unwrap_or_default()))
        .collect();
    object.insert("id".to_owned(), json!(id));
    Value::Object(object)
}
