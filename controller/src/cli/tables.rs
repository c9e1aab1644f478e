//! Tables for people, from the objects that scripts read.

use schemadock_schema::size::format_bytes;
use serde_json::Value;

use super::get::Kind;
use super::output::{Tone, table};

type Column = (&'static str, fn(&Value) -> (String, Tone));

/// A table of these objects, by their keys; for no objects one sentence.
pub fn text<'a>(kind: Kind, rows: impl Iterator<Item = (&'a String, &'a Value)>, head: bool) -> String {
    let columns = columns(kind);
    // The name of a target is not in its document.
    let keyed = kind == Kind::Targets;
    let cells: Vec<Vec<(String, Tone)>> = rows
        .map(|(key, row)| {
            let key = keyed.then(|| plain(key.clone()));
            key.into_iter().chain(columns.iter().map(|(_, cell)| cell(row))).collect()
        })
        .collect();
    if cells.is_empty() && head {
        return format!("no {}", format!("{kind:?}").to_lowercase());
    }
    let names = columns.iter().map(|(name, _)| *name);
    let header: Vec<&str> = keyed.then_some("INSTANCE").into_iter().chain(names).collect();
    table(if head { &header } else { &[] }, cells)
}

fn columns(kind: Kind) -> &'static [Column] {
    match kind {
        Kind::Targets => TARGETS,
        Kind::Instances => INSTANCES,
        Kind::Clusters => CLUSTERS,
        Kind::Hosts => HOSTS,
        Kind::Controllers => CONTROLLERS,
        Kind::Operations => OPERATIONS,
        Kind::Events => EVENTS,
    }
}

const TARGETS: &[Column] = &[
    ("CLUSTER", |v| plain(word(&v["data"]["cluster"]))),
    ("HOST", |v| plain(word(&v["data"]["host"]))),
    ("PORT", |v| plain(word(&v["data"]["port"]))),
    ("ROLE", |v| plain(word(&v["data"]["role"]))),
    ("FOLLOWS", |v| plain(address(&v["data"]["master_host"], &v["data"]["master_port"]))),
    ("SIZE", |v| plain(size(&v["data"]["size"]))),
    ("", |v| (switches(&v["data"]), Tone::Attention)),
];

const INSTANCES: &[Column] = &[
    ("INSTANCE", |v| plain(word(&v["name"]))),
    ("CLUSTER", |v| plain(word(&v["cluster"]))),
    ("ADDRESS", |v| plain(address(&v["address"], &v["port"]))),
    ("ROLE", |v| plain(role(v))),
    ("PHASE", |v| (word(&v["phase"]), phase(v))),
    ("WRITABLE", |v| plain(yes(&v["writable"]))),
    ("LAG", |v| plain(seconds(&v["source"]["lag_seconds"]))),
    ("MESSAGE", |v| plain(message(v))),
];

const CLUSTERS: &[Column] = &[
    ("CLUSTER", |v| plain(word(&v["name"]))),
    ("MASTER", |v| plain(word(&v["master"]))),
    ("TERM", |v| plain(word(&v["term"]))),
    ("DURABILITY", |v| plain(durability(v))),
    ("MEMBERS", |v| plain(members(v))),
    ("WRITABLE", |v| (yes(&v["writable"]), if v["writable"] == true { Tone::Good } else { Tone::Attention })),
    ("CONVERGED", |v| {
        (yes(&v["converged"]), if v["converged"] == true { Tone::Good } else { Tone::Attention })
    }),
    ("", |v| (remarks(v), Tone::Attention)),
];

const HOSTS: &[Column] = &[
    ("HOST", |v| plain(word(&v["name"]))),
    ("ADDRESS", |v| plain(word(&v["address"]))),
    ("ALIVE", |v| (yes(&v["alive"]), if v["alive"] == true { Tone::Good } else { Tone::Bad })),
    ("ZONE", |v| plain(word(&v["zone"]))),
    ("INSTANCES", |v| plain(word(&v["instances"]))),
    ("MEMORY", |v| {
        plain(format!("{} of {}", bytes(&v["allocated"]["memory"]), bytes(&v["capacity"]["memory"])))
    }),
    ("DISK FREE", |v| plain(bytes(&v["free_disk"]))),
    ("RETIRED", |v| plain(retired(v))),
    ("AGENT", |v| plain(word(&v["agent_version"]))),
    ("WARNINGS", |v| (warnings(v), Tone::Attention)),
];

const CONTROLLERS: &[Column] = &[
    ("ID", |v| plain(word(&v["id"]))),
    ("HOST", |v| plain(word(&v["host"]))),
    ("VERSION", |v| plain(word(&v["version"]))),
    ("IN OFFICE", |v| plain(yes(&v["leader"]))),
    ("SINCE", |v| plain(moment(&v["since"]))),
];

const OPERATIONS: &[Column] = &[
    ("ID", |v| plain(word(&v["id"]))),
    ("KIND", |v| plain(word(&v["kind"]))),
    ("CLUSTERS", |v| plain(list(&v["clusters"]))),
    ("STATE", |v| (word(&v["state"]), state(v))),
    ("DONE", |v| plain(done(v))),
    ("REQUESTED", |v| plain(format!("{} by {}", moment(&v["requested_at"]), word(&v["requested_by"])))),
    ("", |v| plain(way(v))),
];

const EVENTS: &[Column] = &[
    ("TIME", |v| plain(moment(&v["time"]))),
    ("CLUSTER", |v| plain(word(&v["cluster"]))),
    ("ABOUT", |v| plain(if v["instance"].is_null() { word(&v["host"]) } else { word(&v["instance"]) })),
    ("KIND", |v| plain(word(&v["kind"]))),
    ("MESSAGE", |v| plain(word(&v["message"]))),
    ("BY", |v| plain(word(&v["by"]))),
];

/// One operation with all that is known of it, a field a line.
pub fn operation(row: &Value) -> String {
    let mut lines: Vec<(&str, String)> = vec![
        ("id", word(&row["id"])),
        ("kind", word(&row["kind"])),
        ("clusters", list(&row["clusters"])),
        ("state", word(&row["state"])),
        ("done", done(row)),
        ("step", word(&row["step"])),
        ("requested", format!("{} by {}", moment(&row["requested_at"]), word(&row["requested_by"]))),
        ("written", moment(&row["updated_at"])),
    ];
    if !row["waiting_on"].is_null() {
        let on = &row["waiting_on"];
        lines.push(("waits", format!("{} (since {})", word(&on["message"]), moment(&on["since"]))));
    }
    if !row["outcome"].is_null() {
        lines.push(("outcome", word(&row["outcome"])));
    }
    let plan = row["plan"].as_array().map(Vec::as_slice).unwrap_or_default();
    lines.extend(
        plan.iter().zip(1..).map(|(step, number)| {
            (if number == 1 { "plan" } else { "" }, format!("{number}. {}", word(step)))
        }),
    );
    lines.iter().map(|(name, text)| format!("{name:<10} {text}")).collect::<Vec<_>>().join("\n")
}

fn done(row: &Value) -> String {
    match row["progress"]["total"].as_u64() {
        Some(total) if total > 0 => format!("{} of {total}", word(&row["progress"]["done"])),
        _ => "-".to_owned(),
    }
}

fn state(row: &Value) -> Tone {
    match row["state"].as_str() {
        Some("done") => Tone::Good,
        Some("failed" | "undone") => Tone::Bad,
        Some("held") => Tone::Attention,
        _ => Tone::Plain,
    }
}

/// How it ended, else what is being done and waited for.
fn way(row: &Value) -> String {
    if let Some(outcome) = row["outcome"].as_str() {
        return outcome.to_owned();
    }
    let step = row["step"].as_str().map(str::to_owned);
    let waits = row["waiting_on"]["message"].as_str().map(|message| format!("waits: {message}"));
    step.into_iter().chain(waits).collect::<Vec<_>>().join("; ")
}

fn plain(text: String) -> (String, Tone) {
    (text, Tone::Plain)
}

fn word(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn yes(value: &Value) -> String {
    match value {
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        _ => "-".to_owned(),
    }
}

fn list(value: &Value) -> String {
    value.as_array().map(|items| items.iter().map(word).collect::<Vec<_>>().join(", ")).unwrap_or_default()
}

fn bytes(value: &Value) -> String {
    value.as_u64().map_or_else(|| "-".to_owned(), format_bytes)
}

fn seconds(value: &Value) -> String {
    value.as_f64().map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.0} s"))
}

/// Without the fraction of a second.
fn moment(value: &Value) -> String {
    let text = word(value);
    match text.split_once('.') {
        Some((whole, _)) => format!("{whole}Z"),
        None => text,
    }
}

fn address(host: &Value, port: &Value) -> String {
    match (host, port) {
        (Value::Null, Value::Null) => "-".to_owned(),
        (Value::Null, port) => format!(":{port}"),
        (host, Value::Null) => word(host),
        (host, port) => format!("{}:{port}", word(host)),
    }
}

fn size(value: &Value) -> String {
    match value {
        Value::Object(exact) => {
            let parts = ["memory", "cpus", "disk"].iter().filter_map(|name| Some((name, exact.get(*name)?)));
            parts.map(|(name, value)| format!("{name} {}", word(value))).collect::<Vec<_>>().join(", ")
        }
        other => word(other),
    }
}

fn switches(data: &Value) -> String {
    let set = ["disabled", "maintenance"].iter().filter(|name| data[**name] == true);
    set.copied().collect::<Vec<_>>().join(", ")
}

/// The role, and the observed one where it is another.
fn role(row: &Value) -> String {
    let (wished, observed) = (&row["role"], &row["observed_role"]);
    match observed == wished || observed == "none" {
        true => word(wished),
        false => format!("{} (is {})", word(wished), word(observed)),
    }
}

fn phase(row: &Value) -> Tone {
    match row["phase"].as_str() {
        Some("failed") => Tone::Bad,
        _ if row["converged"] == true => Tone::Good,
        _ => Tone::Attention,
    }
}

fn message(row: &Value) -> String {
    let mut words = Vec::new();
    if row["stale"] == true {
        words.push("stale".to_owned());
    }
    if row["maintenance"] == true && row["waiting_on"]["kind"] != "maintenance" {
        words.push("in maintenance".to_owned());
    }
    let waiting = &row["waiting_on"];
    // Of these two the message says all.
    let said = waiting["kind"] == "paused" || waiting["kind"] == "maintenance";
    if let Value::Object(on) = waiting
        && !said
    {
        let text = |name: &str| on.get(name).map(word).unwrap_or_default();
        words.push(format!("waits for {} {}", text("kind"), text("name")).trim_end().to_owned());
    }
    if let Some(percent) = row["seed"]["percent"].as_f64() {
        words.push(format!("{percent:.0} % from {}", word(&row["seed"]["donor"])));
    }
    if let Some(text) = row["message"].as_str().filter(|text| !text.is_empty()) {
        words.push(text.to_owned());
    }
    let pending = row["restart_pending"].as_array().map(Vec::as_slice).unwrap_or_default();
    let pending: Vec<String> = pending.iter().map(|one| word(&one["variable"])).collect();
    if !pending.is_empty() {
        words.push(format!("restart pending for {}", pending.join(", ")));
    }
    words.join("; ")
}

fn durability(row: &Value) -> String {
    match row["durability"] == row["durability_wished"] {
        true => word(&row["durability"]),
        false => format!("{} (wished {})", word(&row["durability"]), word(&row["durability_wished"])),
    }
}

fn members(row: &Value) -> String {
    let members = row["members"].as_array().map(Vec::as_slice).unwrap_or_default();
    let good = members.iter().filter(|member| member["converged"] == true).count();
    format!("{good} of {} converged", members.len())
}

fn remarks(row: &Value) -> String {
    let mut words = Vec::new();
    if row["paused"] == true {
        words.push("paused".to_owned());
    }
    if let Some(operation) = row["operation"].as_str() {
        words.push(format!("held by {operation}"));
    }
    words.extend(row["warnings"].as_array().into_iter().flatten().map(word));
    words.join("; ")
}

fn retired(row: &Value) -> String {
    let all = row["retired"].as_array().map(Vec::as_slice).unwrap_or_default();
    let one = |entry: &Value| {
        let since = moment(&entry["since"]);
        let day = since.split('T').next().unwrap_or_default();
        format!("{} ({}, since {day})", word(&entry["instance"]), bytes(&entry["bytes"]))
    };
    if all.is_empty() { "-".to_owned() } else { all.iter().map(one).collect::<Vec<_>>().join(", ") }
}

fn warnings(row: &Value) -> String {
    let mut words: Vec<String> = Vec::new();
    if row["cordoned"] == true {
        words.push("cordoned".to_owned());
    }
    if row["store"]["state"].as_str().is_some_and(|state| state != "ok") {
        words.push(format!("its store is {}", word(&row["store"]["state"])));
    }
    let told = row["warnings"].as_array().into_iter().flatten();
    words.extend(told.map(|one| format!("{} ({})", word(&one["message"]), word(&one["hint"]))));
    words.join("; ")
}
