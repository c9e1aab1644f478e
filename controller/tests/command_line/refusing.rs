//! Bad input: nothing is written, every refusal says where, what and what instead.

use serde_json::{Value, json};

use crate::fleet::{Fleet, master, minion, text, three};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_files_are_refused_whole() {
    let fleet = Fleet::start().await;
    let with = |field: &str, value: Value| {
        let mut document = three();
        document["h2-c-db2"]["data"][field] = value;
        document.to_string()
    };
    let without = |field: &str| {
        let mut document = three();
        document["h2-c-db2"]["data"].as_object_mut().unwrap().remove(field);
        document.to_string()
    };
    let table: &[(&str, String, &str)] = &[
        ("malformed", "{\n \"a\": }".to_owned(), "line 2, column 7"),
        ("unknown field", with("prot", json!(1)), "did you mean \"port\"?"),
        ("wrong type", with("disabled", json!("true")), "h2-c-db2.data.disabled"),
        ("port 0", with("port", json!(0)), "found 0, expected a whole number from 1 to 65535"),
        ("port 70000", with("port", json!(70000)), "found 70000"),
        ("no master_host", without("master_host"), "h2-c-db2.data.master_host"),
        ("no master_port", without("master_port"), "h2-c-db2.data.master_port"),
        (
            "two masters",
            json!({"h1-c-db1": master(1), "h2-c-db2": master(1)}).to_string(),
            "2 masters in cluster c",
        ),
        (
            "a port twice",
            json!({"h1-c-db1": master(1), "h1-d-db1": master(1)}).to_string(),
            "taken by h1-c-db1",
        ),
        (
            "a circle",
            json!({"h1-c-db1": minion(1, "h2", 1), "h2-c-db2": minion(1, "h1", 1)}).to_string(),
            "a circle: h1-c-db1 follows h2-c-db2 follows h1-c-db1",
        ),
        ("a name", json!({"db1": master(1)}).to_string(), "<host>-<cluster>-<member>"),
        ("a small size", with("size", json!({"memory": "256MiB"})), "at least 512MiB"),
        ("an owned variable", with("mysql", json!({"read_only": false})), "leadership decides who may write"),
        (
            "a key twice",
            r#"{"h-c-db1": {"data": {"role": "master", "port": 1, "port": 2}}}"#.to_owned(),
            "twice",
        ),
    ];
    for (what, document, expected) in table {
        let said = fleet.run_with(&["apply", "-f", "-", "--yes"], document).await.ends(2);
        assert!(said.err.contains(expected), "{what}: {said:#?}");
        assert!(said.out.is_empty(), "{what}: {said:#?}");
    }
    assert!(fleet.all().await.entries.is_empty(), "nothing was written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_etcd_holds_against_a_file_is_refused() {
    let fleet = Fleet::start().await;
    for host in ["h1", "h2", "h3"] {
        fleet.register(host).await;
    }
    fleet.apply(&three()).await.ends(0);
    let before = fleet.all().await;
    let mut large = minion(2, "h1", 1);
    large["data"]["size"] = json!({"memory": "5GiB"});
    let mut unsafe_ = minion(2, "h1", 1);
    unsafe_["data"]["mysql"] = json!({"sync_binlog": 0});
    let mut disabled = three();
    disabled["h1-c-db1"]["data"]["disabled"] = json!(true);
    let table: &[(&str, Value, &str)] = &[
        ("a port in etcd", json!({"h2-d-db1": master(1)}), "taken by h2-c-db2"),
        ("a second master", json!({"h2-c-db4": master(2)}), "2 masters in cluster c"),
        ("a circle with etcd", json!({"h1-c-db1": minion(1, "h2", 1)}), "a circle"),
        ("larger than its host", json!({"h2-c-db4": large}), "all that h2 offers"),
        ("what lossless needs", json!({"h2-c-db4": unsafe_}), "durability lossless needs it"),
        ("another cluster's master", json!({"h2-d-db4": minion(2, "h1", 1)}), "h1-c-db1 of cluster c"),
        ("the master disabled", disabled, "switchover"),
    ];
    for (what, document, expected) in table {
        let said = fleet.apply(document).await.ends(1);
        assert!(said.err.contains(expected), "{what}: {said:#?}");
    }
    assert_eq!(fleet.all().await.entries, before.entries, "nothing was written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_come_later_is_a_warning() {
    let fleet = Fleet::start().await;
    fleet.register("h2").await;
    let mut minions = json!({"h2-c-db2": minion(1, "h11", 1), "h2-c-db3": minion(2, "h11", 1)});
    let said = fleet.apply(&minions).await.ends(0);
    assert!(said.err.contains("no agent of a host h11 has registered yet"), "{said:#?}");
    assert!(said.err.contains("200 % of the memory"), "{said:#?}");
    minions["h2-c-db2"]["data"]["size"] = json!("half");
    minions["h2-c-db3"]["data"]["size"] = json!("half");
    let said = fleet.apply(&minions).await.ends(0);
    assert!(!said.err.contains("of the memory"), "{said:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_refusals_come_at_once_and_scripts_can_read_them() {
    let fleet = Fleet::start().await;
    let one =
        fleet.file("one.json", &json!({"h1-c-db1": {"data": {"role": "mastr", "port": 0}}}).to_string());
    let two = fleet.file("two.json", "[");
    let args = ["apply", "-f", &text(&one), &text(&two), "/nowhere.json", "--yes", "-o", "json"];
    let said = fleet.run(&args).await.ends(2);
    let refusals: Vec<Value> = said.err.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(refusals.len(), 4, "{said:#?}");
    for refusal in &refusals {
        let fields: Vec<&String> = refusal["error"].as_object().unwrap().keys().collect();
        assert_eq!(fields, ["file", "path", "found", "expected", "hint"]);
    }
    assert_eq!(refusals[0]["error"]["path"], "h1-c-db1.data.role");
    assert_eq!(refusals[0]["error"]["hint"], "did you mean \"master\"?");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exit_codes_tell_files_from_etcd() {
    let fleet = Fleet::start().await;
    let good = fleet.file("good.json", &three().to_string());
    let two = json!({"h1-c-db1": master(1), "h2-c-db2": master(1)});
    let bad = fleet.file("bad.json", &two.to_string());
    let away = ["--etcd", "http://127.0.0.1:1"];
    let said = fleet.run(&[&["apply", "-f", &text(&good), "--yes"], &away[..]].concat()).await.ends(3);
    assert!(said.err.contains("SCHEMADOCK_ETCD"), "{said:#?}");
    fleet.run(&[&["apply", "-f", &text(&bad), "--yes"], &away[..]].concat()).await.ends(2);
    fleet.run(&[&["get", "instances"], &away[..]].concat()).await.ends(3);
    fleet.run(&["get", "nonsense"]).await.ends(2);
    fleet.run(&["get", "instances", "nobody"]).await.ends(1);
    fleet.run(&["delete", "h1-c-db1", "--yes"]).await.ends(1);
    fleet.run(&["wait", "--timeout", "1s"]).await.ends(1);
    // Without a terminal somebody must have said yes.
    let said = fleet.run(&["apply", "-f", &text(&good)]).await.ends(2);
    assert!(said.err.contains("--yes"), "{said:#?}");
    assert!(fleet.all().await.entries.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_written_by_hand_disturbs_nobody_else() {
    let fleet = Fleet::start().await;
    fleet.apply(&three()).await.ends(0);
    fleet
        .put(&[
            ("targets/h2/h2-c-db2", json!("{garbage")),
            ("targets/h9/h9-d-db1", json!("")),
            ("targets/odd", json!("x")),
            ("status/h1/h1-c-db1", json!("[1")),
            ("leadership/c", json!("nonsense")),
            ("clusters/c", json!("7")),
            ("hosts/h1", json!("null")),
            ("events/c/1", json!("?")),
        ])
        .await;
    for kind in ["targets", "instances", "clusters", "hosts", "controllers", "operations", "events"] {
        fleet.run(&["get", kind]).await.ends(0);
        fleet.run(&["get", kind, "-o", "json"]).await.ends(0).json();
    }
    fleet.run(&["topology"]).await.ends(0);
    let said = fleet.run(&["get", "instances"]).await.ends(0);
    assert!(said.err.contains("targets/h2/h2-c-db2 cannot be read"), "{said:#?}");
    // A good document takes the place of a bad one.
    let said = fleet.apply(&three()).await.ends(0);
    assert!(said.out.contains("h2-c-db2"), "{said:#?}");
    assert_eq!(fleet.document("targets/h2/h2-c-db2").await.unwrap()["data"]["port"], 1);
    let said = fleet.run(&["cluster", "set", "c", "acks=1"]).await.ends(1);
    assert!(said.err.contains("by hand"), "{said:#?}");
}
