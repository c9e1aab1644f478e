//! Operations: what is asked for, what is refused, and how one is followed, with the controller played by the test.

use std::time::Duration;

use futures::StreamExt;
use schemadock_store::{Change, Selector};
use serde_json::{Value, json};

use crate::fleet::{Fleet, Said, master, minion};

const OFFICE: (&str, &str) = ("controller/leader", "k1");

/// Cluster c at work on h1 to h3, room on h4 and h5, nobody in office.
async fn at_work() -> Fleet {
    let fleet = Fleet::start().await;
    for host in ["h1", "h2", "h3", "h4", "h5"] {
        fleet.register(host).await;
    }
    let mut targets = json!({"h1-c-db1": master(3306), "h2-c-db2": minion(3306, "h1", 3306),
        "h3-c-db3": minion(3306, "h1", 3306)});
    for (_, target) in targets.as_object_mut().unwrap() {
        target["data"]["size"] = json!("small");
    }
    fleet.apply(&targets).await.ends(0);
    let leads = json!({"role": "master", "observed_role": "master", "writable": true, "term": 1, "server_uuid": "u1",
        "data": {"state": "own", "server_uuid": "u1"}});
    fleet.report("h1", "h1-c-db1", leads).await;
    for (host, name, uuid) in [("h2", "h2-c-db2", "u2"), ("h3", "h3-c-db3", "u3")] {
        let follows = json!({"role": "minion", "term": 1, "server_uuid": uuid,
            "data": {"state": "own", "server_uuid": uuid},
            "source": {"host": "h1", "port": 3306, "address": "127.0.0.1", "io": "ON", "sql": "ON", "lag_seconds": 0.0,
                "error": null}});
        fleet.report(host, name, follows).await;
    }
    let entry = json!({"term": 1, "name": "h1-c-db1", "server_uuid": "u1", "base": ""});
    let record = json!({"term": 1, "master": "h1-c-db1", "phase": "steady", "durability": "async", "founder": "u1",
        "lineage": [entry]});
    fleet.put(&[("leadership/c", record)]).await;
    fleet
}

async fn in_office() -> Fleet {
    let fleet = at_work().await;
    fleet.put(&[(OFFICE.0, json!(OFFICE.1))]).await;
    fleet
}

async fn operations(fleet: &Fleet) -> Vec<Value> {
    let prefix = fleet.keys.operations();
    let all = fleet.all().await;
    all.below(&prefix).map(|entry| serde_json::from_slice(&entry.value).unwrap()).collect()
}

/// Asks without waiting; the document that was written, which is taken away again.
async fn asked(fleet: &Fleet, args: &[&str]) -> Value {
    let said = fleet.run(&[args, &["--no-wait", "-o", "json"]].concat()).await.ends(0);
    let written = operations(fleet).await.pop().expect("a document");
    assert_eq!(said.json()["id"], written["id"]);
    assert_eq!((&written["state"], &said.json()["kind"]), (&json!("queued"), &written["request"]["kind"]));
    fleet.delete(&[&format!("operations/{}", written["id"].as_str().unwrap())]).await;
    written
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_command_writes_its_request() {
    let fleet = in_office().await;
    let create = [
        "cluster",
        "create",
        "d",
        "--replicas",
        "1",
        "--size",
        "1GiB",
        "--image",
        "mysql:9",
        "--hosts",
        "h4",
    ];
    let more = ["--host", "h5", "--durability", "async", "--port", "7335"];
    let scale = ["cluster", "scale", "c", "--replicas", "3", "--host", "h4", "--hosts", "h5,h4"];
    let table: &[(&[&str], Value)] = &[
        (
            &[&create[..], &more[..]].concat(),
            json!({"kind": "create", "replicas": 1, "size": {"memory": "1GiB"}, "image": "mysql:9", "zones": [],
                "hosts": ["h4", "h5"], "labels": {}, "durability": "async", "port": 7335}),
        ),
        (&scale, json!({"kind": "scale", "replicas": 3, "hosts": ["h5", "h4"]})),
        (
            &["cluster", "switchover", "c", "--to", "h2-c-db2"],
            json!({"kind": "switchover", "to": "h2-c-db2"}),
        ),
        (&["cluster", "switchover", "c"], json!({"kind": "switchover", "to": null})),
        (
            &["cluster", "upgrade", "c", "--image", "mysql:9", "--soak", "1500ms"],
            json!({"kind": "upgrade", "image": "mysql:9", "soak": 2}),
        ),
        (
            &["cluster", "resize", "c", "--size", "2GiB"],
            json!({"kind": "resize", "size": {"memory": "2GiB"}}),
        ),
        (
            &["cluster", "move", "h3-c-db3", "--to", "h4"],
            json!({"kind": "move", "instance": "h3-c-db3", "to": "h4"}),
        ),
        (&["cluster", "stop", "c", "--yes"], json!({"kind": "stop"})),
        (&["cluster", "delete", "c", "--yes"], json!({"kind": "delete"})),
        (
            &["cluster", "set", "c", "mysql.max_connections=500", "mysql.wait_timeout="],
            json!({"kind": "set", "mysql": {"max_connections": 500, "wait_timeout": null}}),
        ),
    ];
    for (args, request) in table {
        let written = asked(&fleet, args).await;
        assert_eq!(written["request"], *request, "{args:?}");
        let cluster = if request["kind"] == "create" { "d" } else { "c" };
        assert_eq!(written["clusters"], json!([cluster]), "{args:?}");
        assert!(written["requested_by"].as_str().unwrap().starts_with("tester@"));
        let (id, at) = (written["id"].as_str().unwrap(), written["requested_at"].as_str().unwrap());
        assert!(
            id.split_once('-').is_some_and(|(ms, writer)| ms.len() == 13 && writer.starts_with("tester-")),
            "{id}"
        );
        // What a dry run prints is what is written down.
        let dry = fleet.run(&[args, &["--dry-run"][..]].concat()).await.ends(0);
        let plan: Vec<&str> = dry.out.lines().collect();
        assert!(!plan.is_empty());
        assert_eq!(written["plan"], json!(plan), "{args:?}");
        let event = fleet.document(&format!("events/{cluster}/{id}")).await.expect("an event");
        assert_eq!((&event["kind"], &event["details"]["operation"]), (&json!("operation"), &json!(id)));
        assert_eq!((&event["time"], &event["by"]), (&json!(at), &written["requested_by"]));
    }
    assert!(operations(&fleet).await.is_empty(), "dry runs write nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_cordons_its_host_and_names_what_it_moves() {
    let fleet = in_office().await;
    let document = asked(&fleet, &["host", "drain", "h1"]).await;
    assert_eq!(document["request"], json!({"kind": "drain", "host": "h1", "evict": false}));
    assert_eq!(document["clusters"], json!(["c"]));
    let cordon = fleet.document("cordons/h1").await.unwrap();
    assert!(cordon["reason"].as_str().unwrap().contains(document["id"].as_str().unwrap()));
    // No master is on h2: only an eviction has something to do there.
    assert_eq!(asked(&fleet, &["host", "drain", "h2"]).await["clusters"], json!([]));
    assert_eq!(asked(&fleet, &["host", "drain", "h3", "--evict"]).await["clusters"], json!(["c"]));

    fleet.run(&["host", "uncordon", "h1"]).await.ends(0);
    assert!(fleet.document("cordons/h1").await.is_none());
    let said = fleet.run(&["host", "drain", "h9", "--no-wait"]).await.ends(1);
    assert!(said.err.contains("h9") && fleet.document("cordons/h9").await.is_none(), "{said:#?}");
    fleet.run(&["host", "drain", "h5", "--dry-run"]).await.ends(0);
    assert!(fleet.document("cordons/h5").await.is_none(), "a dry run writes nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_are_cordoned_without_a_controller() {
    let fleet = at_work().await;
    let said = fleet.run(&["host", "cordon", "h4", "--reason", "new disk", "-o", "json"]).await.ends(0);
    assert_eq!((&said.json()["written"], &said.json()["cordoned"]), (&json!(true), &json!(true)));
    let cordon = fleet.document("cordons/h4").await.unwrap();
    assert_eq!(cordon["reason"], "new disk");
    assert!(cordon["by"].as_str().unwrap().starts_with("tester@") && cordon["at"].is_string());
    let hosts = fleet.run(&["get", "hosts", "h4", "-o", "json"]).await.ends(0).json();
    assert_eq!(hosts[0]["cordoned"], true);
    let said = fleet.run(&["host", "cordon", "h4"]).await.ends(0);
    assert!(said.out.contains("before, by tester@") && said.out.contains("new disk"), "{said:#?}");
    let said = fleet.run(&["get", "events", "h4"]).await.ends(0);
    assert!(said.out.contains("h4 was cordoned: it takes no new members (new disk)"), "{said:#?}");
    fleet.run(&["host", "uncordon", "h4"]).await.ends(0);
    assert!(fleet.document("cordons/h4").await.is_none());
    assert!(fleet.run(&["host", "uncordon", "h4"]).await.ends(0).out.contains("was not cordoned"));
    fleet.run(&["host", "cordon", "h44"]).await.ends(1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_is_refused_and_nothing_is_written() {
    let fleet = at_work().await;
    let revision = fleet.all().await.revision;
    let wrong: &[(&[&str], &str)] = &[
        (&["cluster", "create", "D_", "--replicas", "1"], "not a name"),
        (&["cluster", "create", "d", "--replicas", "1", "--size", "hlf"], "did you mean \"half\""),
        (&["cluster", "create", "d", "--replicas", "1", "--label", "disk"], "KEY=VALUE"),
        (&["cluster", "create", "d", "--replicas", "1", "--durability", "asink"], "lossless or async"),
        (&["cluster", "create", "d"], "--replicas"),
        (&["cluster", "resize", "c", "--size", "100MiB"], "512MiB"),
        (&["cluster", "upgrade", "c", "--image", ""], "--image"),
        (&["cluster", "switchover", "c", "--to", "H2"], "not a name"),
        (&["cluster", "switchover", "c", "--here", "--no-wait"], "cannot be used with"),
    ];
    for (args, expected) in wrong {
        let said = fleet.run(args).await.ends(2);
        assert!(said.err.contains(expected), "{args:?}: {said:#?}");
    }
    let unknown: &[(&[&str], &[&str])] = &[
        (&["cluster", "switchover", "cc"], &["cc"]),
        (&["cluster", "switchover", "c", "--to", "h9-c-db9"], &["h9-c-db9"]),
        (&["cluster", "create", "c", "--replicas", "1"], &["c"]),
        (&["cluster", "scale", "c", "--replicas", "9", "--hosts", "h8,h9"], &["h8", "h9"]),
        (&["cluster", "move", "h9-c-db9", "--to", "h9"], &["h9-c-db9", "h9"]),
        (&["cluster", "stop", "cc", "--yes"], &["cc"]),
    ];
    for (args, expected) in unknown {
        for flag in ["--dry-run", "--no-wait"] {
            let said = fleet.run(&[args, &[flag][..]].concat()).await.ends(1);
            assert!(expected.iter().all(|name| said.err.contains(name)), "{args:?}: {said:#?}");
            assert!(said.err.contains("nothing was written") && said.out.is_empty(), "{args:?}: {said:#?}");
        }
    }
    let said = fleet
        .run(&["cluster", "scale", "c", "--replicas", "9", "--hosts", "h8,h9", "-o", "json"])
        .await
        .ends(1);
    for line in said.err.lines() {
        let refusal: Value = serde_json::from_str(line).unwrap();
        assert!(
            refusal["error"]["found"].is_string() && refusal["error"]["expected"].is_string(),
            "{said:#?}"
        );
    }
    // Nobody would carry it out.
    for args in
        [&["cluster", "switchover", "c"][..], &["cluster", "stop", "c", "--yes"], &["host", "drain", "h1"]]
    {
        let said = fleet.run(args).await.ends(1);
        assert!(said.err.contains("no controller is in office") && said.err.contains("--here"), "{said:#?}");
    }
    fleet.run(&["cluster", "switchover", "c", "--dry-run"]).await.ends(0);
    assert_eq!(fleet.all().await.revision, revision);
    // Without a terminal somebody must have said yes.
    fleet.put(&[(OFFICE.0, json!(OFFICE.1))]).await;
    for what in ["stop", "delete"] {
        let said = fleet.run(&["cluster", what, "c"]).await.ends(2);
        assert!(said.err.contains("--yes"), "{said:#?}");
    }
    assert!(operations(&fleet).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_operation_holds_a_cluster_and_others_may_queue() {
    let fleet = in_office().await;
    fleet.run(&["cluster", "switchover", "c", "--no-wait"]).await.ends(0);
    let first = operations(&fleet).await.pop().unwrap();
    let id = first["id"].as_str().unwrap();
    for flag in ["--no-wait", "--dry-run"] {
        let said = fleet.run(&["cluster", "resize", "c", "--size", "2GiB", flag]).await.ends(1);
        assert!(said.err.contains(id) && said.err.contains("--queue"), "{said:#?}");
    }
    fleet.run(&["cluster", "create", "d", "--replicas", "0", "--no-wait"]).await.ends(0);
    fleet.run(&["cluster", "resize", "c", "--size", "2GiB", "--no-wait", "--queue"]).await.ends(0);
    assert_eq!(operations(&fleet).await.len(), 3);
    // It is over, but its lock stands; then neither.
    let mut over = first.clone();
    over["state"] = json!("done");
    fleet.put(&[(&format!("operations/{id}"), over), ("locks/c", json!({"operation": id}))]).await;
    let all = operations(&fleet).await;
    let resize = all.iter().find(|one| one["request"]["kind"] == "resize").unwrap();
    fleet.delete(&[&format!("operations/{}", resize["id"].as_str().unwrap())]).await;
    let switchover = ["cluster", "switchover", "c", "--no-wait"];
    assert!(fleet.run(&switchover).await.ends(1).err.contains(id));
    let said = fleet.run(&["topology", "c"]).await.ends(0);
    assert!(said.out.contains(&format!("held by operation {id}")), "{said:#?}");
    let clusters = fleet.run(&["get", "clusters", "c", "-o", "json"]).await.ends(0).json();
    assert_eq!(clusters[0]["operation"], id);
    fleet.delete(&["locks/c"]).await;
    fleet.run(&switchover).await.ends(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_people_who_ask_at_once_one_is_heard() {
    let fleet = in_office().await;
    let switchover = ["cluster", "switchover", "c", "--no-wait"];
    let said = futures::future::join_all((0..6).map(|_| fleet.run(&switchover))).await;
    assert_eq!(said.iter().filter(|one| one.code == 0).count(), 1, "{said:#?}");
    assert!(said.iter().all(|one| one.code == 0 || one.err.contains("which holds the cluster")), "{said:#?}");
    assert_eq!(operations(&fleet).await.len(), 1);
}

/// The next operation that is asked for, once it is written.
async fn next(fleet: &Fleet) -> Value {
    let part = Selector::Prefix(fleet.keys.operations());
    let mut changes = fleet.store.watch(&part, fleet.all().await.revision).await.unwrap();
    loop {
        let (_, batch) = changes.next().await.unwrap().unwrap();
        if let Some(Change::Put(entry)) = batch.into_iter().next() {
            return serde_json::from_slice(&entry.value).unwrap();
        }
    }
}

async fn change(fleet: &Fleet, operation: &mut Value, fields: Value) {
    operation.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let key = format!("operations/{}", operation["id"].as_str().unwrap());
    fleet.put(&[(&key, operation.clone())]).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
}

/// Asks for something, and plays the controller that does it step by step until it ends so.
async fn carried_out(fleet: &Fleet, args: &[&str], end: Value) -> (Said, String) {
    let controller = async {
        let mut operation = next(fleet).await;
        change(
            fleet,
            &mut operation,
            json!({"state": "running", "step": "take the lock of c",
            "progress": {"done": 0, "total": 2}}),
        )
        .await;
        change(
            fleet,
            &mut operation,
            json!({"step": "freeze h1-c-db1",
            "waiting_on": {"message": "3 sessions to end", "since": "2026-01-02T03:04:05Z"},
            "progress": {"done": 1, "total": 2}}),
        )
        .await;
        change(fleet, &mut operation, json!({"waiting_on": null})).await;
        change(fleet, &mut operation, end).await;
        operation["id"].as_str().unwrap().to_owned()
    };
    tokio::join!(fleet.run(args), controller)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operation_is_followed_to_its_end() {
    let fleet = in_office().await;
    let done = json!({"state": "done", "outcome": "h2-c-db2 leads since term 2"});
    let switchover = ["cluster", "switchover", "c", "--to", "h2-c-db2"];
    let (said, id) = carried_out(&fleet, &switchover, done.clone()).await;
    let said = said.ends(0);
    assert_eq!(said.out, "switchover of c to h2-c-db2: done: h2-c-db2 leads since term 2\n");
    let expected = format!(
        "switchover of c to h2-c-db2: operation {id}\n[1/2] take the lock of c\n[2/2] freeze h1-c-db1\n  waits: 3 \
         sessions to end\n"
    );
    // A controller may be faster than the eye.
    assert_eq!(said.err.replace("queued\n", ""), expected);
    // Whoever comes late hears how it ended.
    assert_eq!(fleet.run(&["operation", "wait", &id]).await.ends(0).out, said.out);
    let told = fleet.run(&["get", "operations", &id]).await.ends(0);
    assert!(told.out.contains("h2-c-db2 leads since term 2"), "{told:#?}");

    let json = [&switchover[..], &["-o", "json"]].concat();
    let (said, id) = carried_out(&fleet, &json, done).await;
    let said = said.ends(0);
    assert_eq!((&said.json()["id"], &said.json()["state"]), (&json!(id), &json!("done")));
    assert!(said.err.is_empty(), "{said:#?}");
    let fields: Vec<String> = said.json().as_object().unwrap().keys().cloned().collect();
    assert_eq!(
        fields.join(" "),
        "id kind clusters state step waiting_on progress plan requested_by requested_at updated_at outcome"
    );
    let listed = fleet.run(&["get", "operations", &id, "-o", "json"]).await.ends(0).json();
    assert_eq!(listed[0], said.json());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_does_not_end_well_says_what_next() {
    let fleet = in_office().await;
    for (state, hint) in [
        ("failed", "What was done stays"),
        ("undone", "taken back"),
        ("cancelled", "asked for again"),
        ("held", "operation continue"),
    ] {
        let end = json!({"state": state, "outcome": "the agent of h2 is silent"});
        let (said, id) = carried_out(&fleet, &["cluster", "stop", "c", "--yes"], end).await;
        let said = said.ends(1);
        assert!(said.err.contains(&format!("stop of c: {state}")), "{said:#?}");
        assert!(said.err.contains("the agent of h2 is silent") && said.err.contains(hint), "{said:#?}");
        assert!(said.out.is_empty(), "{said:#?}");
        fleet.delete(&[&format!("operations/{id}")]).await;
    }
    let (said, _) =
        carried_out(&fleet, &["cluster", "stop", "c", "--yes", "-o", "json"], json!({"state": "failed"}))
            .await;
    assert_eq!(said.ends(1).json()["state"], "failed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_goes_on_when_nobody_looks() {
    let fleet = in_office().await;
    let said = fleet.run(&["cluster", "switchover", "c", "--timeout", "1s"]).await.ends(1);
    let id = operations(&fleet).await.pop().unwrap()["id"].as_str().unwrap().to_owned();
    assert!(said.err.contains(&format!("operation wait {id}")), "{said:#?}");

    let mut command = fleet.command();
    command.args(["operation", "wait", &id]);
    let child = command.spawn().unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let output = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains(&format!("operation wait {id}")) && err.contains("It goes on"), "{err}");
    assert_eq!(operations(&fleet).await[0]["state"], "queued");

    // The controller goes; that is told, since nothing happens until one comes.
    fleet.delete(&[OFFICE.0]).await;
    let said = fleet.run(&["operation", "wait", &id, "--timeout", "1s"]).await.ends(1);
    assert!(said.err.contains("no controller is in office: nothing goes on"), "{said:#?}");
    fleet.run(&["operation", "wait", "nothing"]).await.ends(1);
    let gone = async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        fleet.delete(&[&format!("operations/{id}")]).await;
    };
    let wait = ["operation", "wait", &id];
    let (said, ()) = tokio::join!(fleet.run(&wait), gone);
    assert!(said.ends(1).err.contains("is gone from etcd"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_an_operation_can_be_asked_for() {
    let fleet = in_office().await;
    fleet.run(&["cluster", "switchover", "c", "--no-wait"]).await.ends(0);
    let mut document = operations(&fleet).await.pop().unwrap();
    let id = document["id"].as_str().unwrap().to_owned();
    document["newer"] = json!({"field": 1});
    fleet.put(&[(&format!("operations/{id}"), document)]).await;
    for (what, done) in [("continue", "continued"), ("undo", "undone"), ("finish", "finished")] {
        let said = fleet.run(&["operation", what, &id]).await.ends(1);
        assert!(said.err.contains(&format!("nothing of operation {id} can be {done}")), "{said:#?}");
    }
    let said = fleet.run(&["operation", "cancel", &id]).await.ends(0);
    assert!(said.out.contains("its end is asked for"), "{said:#?}");
    let mut document = fleet.document(&format!("operations/{id}")).await.unwrap();
    assert_eq!((&document["cancel"], &document["state"]), (&json!(true), &json!("queued")));
    assert_eq!(document["newer"], json!({"field": 1}), "what a newer program wrote stays");
    let said = fleet.run(&["operation", "cancel", &id]).await.ends(0);
    assert!(said.out.contains("asked for before"), "{said:#?}");
    let events = fleet.run(&["get", "events", "c"]).await.ends(0);
    assert!(events.out.contains("the end of the switchover of c was asked for by tester@"), "{events:#?}");
    change(&fleet, &mut document, json!({"state": "cancelled", "outcome": "nothing had been done"})).await;
    let said = fleet.run(&["operation", "cancel", &id]).await.ends(1);
    assert!(said.err.contains("is over: cancelled"), "{said:#?}");
    assert!(fleet.run(&["operation", "wait", &id]).await.ends(1).err.contains("nothing had been done"));
    fleet.run(&["operation", "cancel", "nothing"]).await.ends(1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn variables_are_set_by_an_operation_where_somebody_can() {
    let fleet = at_work().await;
    // Nobody in office: as a wish that agents obey.
    fleet.run(&["cluster", "set", "c", "mysql.max_connections=5"]).await.ends(0);
    assert_eq!(fleet.document("clusters/c").await.unwrap()["mysql"]["max_connections"], 5);
    assert!(operations(&fleet).await.is_empty());
    fleet.put(&[(OFFICE.0, json!(OFFICE.1))]).await;
    let said = fleet.run(&["cluster", "set", "c", "acks=1", "--dry-run"]).await.ends(0);
    assert!(
        said.out.contains("wishes for c")
            && fleet.document("clusters/c").await.unwrap().get("acks").is_none()
    );
    fleet.run(&["cluster", "set", "c", "acks=1"]).await.ends(0);
    assert!(operations(&fleet).await.is_empty(), "what agents obey is written at once");
    // Lossless needs it, here as there.
    fleet.run(&["cluster", "set", "c", "mysql.sync_binlog=0", "--no-wait"]).await.ends(1);
    fleet.run(&["cluster", "set", "c", "durability=async", "mysql.sync_binlog=0", "--no-wait"]).await.ends(0);
    let policy = fleet.document("clusters/c").await.unwrap();
    assert_eq!((&policy["durability"], policy["mysql"].get("sync_binlog")), (&json!("async"), None));
    assert_eq!(operations(&fleet).await[0]["request"], json!({"kind": "set", "mysql": {"sync_binlog": 0}}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_names_another_master_becomes_a_switchover() {
    let fleet = at_work().await;
    let mut file = fleet.run(&["get", "targets", "c", "-o", "json"]).await.ends(0).json();
    for (name, role, of) in
        [("h1-c-db1", "minion", Some("h2")), ("h2-c-db2", "master", None), ("h3-c-db3", "minion", Some("h2"))]
    {
        let data = file[name]["data"].as_object_mut().unwrap();
        data.insert("role".to_owned(), json!(role));
        data.shift_remove("master_host");
        data.shift_remove("master_port");
        if let Some(of) = of {
            data.insert("master_host".to_owned(), json!(of));
            data.insert("master_port".to_owned(), json!(3306));
        }
    }
    file["h3-c-db3"]["data"]["promotion"] = json!("never");
    let file = fleet.file("swapped.json", &file.to_string());
    let apply = ["apply", "-f", file.to_str().unwrap(), "--yes", "--move-master"];
    let said = fleet.run(&apply).await.ends(1);
    assert!(said.err.contains("no controller in office"), "{said:#?}");

    fleet.put(&[(OFFICE.0, json!(OFFICE.1))]).await;
    let dry = fleet.run(&[&apply[..], &["--dry-run"]].concat()).await.ends(0);
    let steps = fleet.run(&["cluster", "switchover", "c", "--to", "h2-c-db2", "--dry-run"]).await.ends(0).out;
    assert!(dry.out.contains(&steps), "{dry:#?}");
    let done = json!({"state": "done", "outcome": "h2-c-db2 leads since term 2"});
    let (said, id) = carried_out(&fleet, &apply, done.clone()).await;
    let said = said.ends(0);
    assert!(said.err.contains("h2-c-db2 becomes the master of c by a switchover"), "{said:#?}");
    assert!(
        said.out.contains("written: 1 changed") && said.out.contains("h2-c-db2 leads since term 2"),
        "{said:#?}"
    );
    let written = fleet.document(&format!("operations/{id}")).await.unwrap();
    assert_eq!(written["request"], json!({"kind": "switchover", "to": "h2-c-db2"}));
    // Roles are the controller's to change.
    let target = fleet.document("targets/h3/h3-c-db3").await.unwrap();
    assert_eq!(
        (&target["data"]["promotion"], &target["data"]["master_host"]),
        (&json!("never"), &json!("h1"))
    );
    fleet.delete(&[&format!("operations/{id}")]).await;

    let (said, id) = carried_out(&fleet, &[&apply[..], &["-o", "json"]].concat(), done).await;
    let said = said.ends(0).json();
    assert_eq!((&said["operations"][0]["id"], &said["written"]), (&json!(id), &json!(false)));
    fleet.delete(&[&format!("operations/{id}")]).await;
    let failed = json!({"state": "undone", "outcome": "the agent of h2 is silent"});
    let (said, id) = carried_out(&fleet, &apply, failed).await;
    assert!(said.ends(1).err.contains("the agent of h2 is silent"));

    // Leadership has moved: the file says what is.
    fleet.delete(&[&format!("operations/{id}")]).await;
    let mut record = fleet.document("leadership/c").await.unwrap();
    record["term"] = json!(2);
    record["master"] = json!("h2-c-db2");
    fleet.put(&[("leadership/c", record)]).await;
    fleet.run(&apply).await.ends(0);
    assert!(operations(&fleet).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_of_the_controller_are_shown() {
    let fleet = at_work().await;
    let findings = |said: Said| -> Vec<Value> {
        let all = said.json();
        let of = all.as_array().unwrap().iter().filter(|one| one["subject"] == "controller");
        of.cloned().collect()
    };
    let doctor = ["doctor", "-o", "json"];
    let nobody = findings(fleet.run(&doctor).await);
    assert_eq!((&nobody[0]["level"], &nobody[0]["found"]), (&json!("advice"), &json!("none runs")));
    assert!(fleet.run(&["fleet", "status"]).await.ends(0).out.contains("none is in office"));
    let copy = |id: &str| json!({"id": id, "host": "m1", "pid": 7, "version": env!("CARGO_PKG_VERSION"), "since": "2026-01-02T03:04:05Z"});
    fleet
        .put(&[("controllers/k1", copy("k1")), ("controllers/k2", copy("k2")), (OFFICE.0, json!(OFFICE.1))])
        .await;
    let found = findings(fleet.run(&doctor).await);
    assert_eq!(found[0]["found"], "k1 on m1 is in office; 1 copy stands by");
    let expected = json!([
        {"id": "k1", "host": "m1", "version": env!("CARGO_PKG_VERSION"), "leader": true, "since": "2026-01-02T03:04:05Z"},
        {"id": "k2", "host": "m1", "version": env!("CARGO_PKG_VERSION"), "leader": false, "since": "2026-01-02T03:04:05Z"}
    ]);
    assert_eq!(fleet.run(&["get", "controllers", "-o", "json"]).await.ends(0).json(), expected);
    assert_eq!(fleet.run(&["fleet", "status", "-o", "json"]).await.ends(0).json()["controllers"], expected);
    assert!(fleet.run(&["fleet", "status"]).await.ends(0).out.contains("k1 on m1, version"));
}
