//! Operations: what is asked for, and what is refused.

use serde_json::{Value, json};

use crate::fleet::{Fleet, Said, master, minion};

pub(crate) const OFFICE: (&str, &str) = ("controller/leader", "k1");

/// Cluster c at work on h1 to h3, room on h4 and h5, nobody in office.
pub(crate) async fn at_work() -> Fleet {
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
    let voters =
        json!([{"name": "h2-c-db2", "server_uuid": "u2"}, {"name": "h3-c-db3", "server_uuid": "u3"}]);
    let record = json!({"term": 1, "master": "h1-c-db1", "phase": "steady", "durability": "async", "founder": "u1",
        "voters": voters, "lineage": [entry]});
    fleet.put(&[("leadership/c", record)]).await;
    fleet
}

pub(crate) async fn in_office() -> Fleet {
    let fleet = at_work().await;
    fleet.put(&[(OFFICE.0, json!(OFFICE.1))]).await;
    fleet
}

pub(crate) async fn operations(fleet: &Fleet) -> Vec<Value> {
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
async fn members_that_were_stopped_can_be_started() {
    let fleet = in_office().await;
    for (host, name) in [("h1", "h1-c-db1"), ("h2", "h2-c-db2"), ("h3", "h3-c-db3")] {
        let key = format!("targets/{host}/{name}");
        let mut target = fleet.document(&key).await.unwrap();
        target["data"]["disabled"] = json!(true);
        fleet.put(&[(&key, target)]).await;
        let stopped = json!({"disabled": true, "phase": "stopped", "observed_role": "none", "source": null});
        fleet.report(host, name, stopped).await;
    }
    let written = asked(&fleet, &["cluster", "start", "c"]).await;
    assert_eq!((&written["request"], &written["clusters"]), (&json!({"kind": "start"}), &json!(["c"])));
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
