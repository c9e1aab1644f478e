//! Writing targets and policies.

use std::path::Path;

use serde_json::{Value, json};

use crate::fleet::{Fleet, master, minion, text, three};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_round_trip_changes_nothing() {
    let fleet = Fleet::start().await;
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/mezzanine-cluster1.json");
    fleet.run(&["apply", "-f", example, "--yes", "--dry-run"]).await.ends(0);
    assert!(fleet.all().await.entries.is_empty(), "a dry run writes nothing");
    fleet.run(&["apply", "-f", example, "--yes"]).await.ends(0);
    let stored = fleet.document("targets/schemadock02/schemadock02-mezzanine-cluster1-db2").await.unwrap();
    assert_eq!(stored["data"]["host"], "schemadock02");
    assert_eq!(stored["data"]["cluster"], "mezzanine-cluster1");
    let members = fleet.document("members/mezzanine-cluster1").await.unwrap();
    assert_eq!(members["members"].as_array().unwrap().len(), 3);
    assert!(fleet.document("fleet").await.unwrap()["id"].is_string());

    let revision = fleet.all().await.revision;
    let read = fleet.run(&["get", "targets", "-o", "json"]).await.ends(0);
    let back = fleet.file("back.json", &read.out);
    for file in [example, &text(&back)] {
        let said = fleet.run(&["apply", "-f", file]).await.ends(0);
        assert!(said.out.contains("nothing to change"), "{said:#?}");
        fleet.run(&["diff", "-f", file, "--exit-code"]).await.ends(0);
    }
    assert_eq!(fleet.all().await.revision, revision);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn diff_and_apply_tell_the_fields() {
    let fleet = Fleet::start().await;
    fleet.apply(&three()).await.ends(0);
    let mut changed = three();
    changed["h3-c-db3"]["data"]["mysql"] = json!({"max_connections": 500});
    let file = fleet.file("f.json", &changed.to_string());
    fleet.run(&["diff", "-f", &text(&file)]).await.ends(0);
    let said = fleet.run(&["diff", "-f", &text(&file), "--exit-code", "-o", "json"]).await.ends(1);
    assert_eq!(
        said.json()["changes"],
        json!([{"cluster": "c", "instance": "h3-c-db3", "host": "h3", "change": "change",
        "fields": [{"path": "mysql.max_connections", "before": null, "after": 500}],
        "steps": [
            "wait for the agent of h3",
            "have mysqld check max_connections",
            "set max_connections on the running server; restart it where it cannot be set live"
        ]}])
    );
    let said = fleet.run(&["apply", "-f", &text(&file), "--yes"]).await.ends(0);
    assert!(said.out.contains("mysql.max_connections: (none) → 500"), "{said:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_taken_away_in_a_safe_order() {
    let fleet = Fleet::start().await;
    fleet.apply(&three()).await.ends(0);
    fleet.apply(&json!({"h1-d-db1": master(2)})).await.ends(0);
    let said = fleet.run(&["delete", "h1-c-db1", "--yes"]).await.ends(1);
    assert!(said.err.contains("delete the others first"), "{said:#?}");
    fleet.run(&["delete", "h3-c-db3"]).await.ends(2);
    fleet.run(&["delete", "h3-c-db3", "--yes"]).await.ends(0);
    // Pruning keeps to the clusters that the file names.
    let one = json!({"h1-c-db1": master(1)}).to_string();
    fleet.run_with(&["apply", "-f", "-", "--prune", "--yes"], &one).await.ends(0);
    let left = fleet.run(&["get", "targets", "-o", "json"]).await.ends(0).json();
    assert_eq!(left.as_object().unwrap().keys().collect::<Vec<_>>(), ["h1-c-db1", "h1-d-db1"]);
    assert_eq!(fleet.document("members/c").await.unwrap(), json!({"members": ["h1-c-db1"]}));
    fleet.run(&["delete", "h1-c-db1", "--yes"]).await.ends(0);
    assert_eq!(fleet.document("members/c").await.unwrap(), json!({"members": []}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_decides_the_roles() {
    let fleet = Fleet::start().await;
    fleet.apply(&three()).await.ends(0);
    let entry = json!({"term": 2, "name": "h2-c-db2", "server_uuid": "u", "base": ""});
    let mut record = json!({"term": 2, "master": "h2-c-db2", "phase": "steady", "durability": "async", "founder": "u",
        "lineage": [entry]});
    fleet.put(&[("leadership/c", record.clone())]).await;
    let mut wider = three();
    wider["h4-c-db4"] = minion(1, "h1", 1);
    let said = fleet.apply(&wider).await.ends(0);
    assert!(said.err.contains("leadership (term 2) names h2-c-db2 master of c"), "{said:#?}");
    let data = |name: &'static str| {
        let key = format!("targets/{}/{name}", &name[..2]);
        let fleet = &fleet;
        async move { fleet.document(&key).await.unwrap()["data"].clone() }
    };
    assert_eq!(data("h2-c-db2").await["role"], "master");
    assert!(data("h2-c-db2").await.get("master_host").is_none());
    for name in ["h1-c-db1", "h3-c-db3", "h4-c-db4"] {
        assert_eq!(
            (&data(name).await["role"], &data(name).await["master_host"]),
            (&json!("minion"), &json!("h2"))
        );
    }
    let said = fleet.apply(&wider).await.ends(0);
    assert!(said.out.contains("nothing to change"), "{said:#?}");
    let document = wider.to_string();
    let said = fleet.run_with(&["apply", "-f", "-", "--yes", "--move-master"], &document).await.ends(1);
    assert!(said.err.contains("no controller in office"), "{said:#?}");
    fleet.run(&["delete", "h2-c-db2", "--yes"]).await.ends(1);

    // From the creation of its key a handover means its winner; a released record its last master.
    record["phase"] = json!("handover");
    record["to"] = json!("h1-c-db1");
    record["term"] = json!(3);
    let ended = json!({"winner": "h1-c-db1", "server_uuid": "v", "base": ""});
    fleet.put(&[("leadership/c", record.clone()), ("handover/c/3", ended)]).await;
    fleet.apply(&three()).await.ends(0);
    assert_eq!(data("h1-c-db1").await["role"], "master");
    record["phase"] = json!("steady");
    record["master"] = Value::Null;
    fleet.put(&[("leadership/c", record)]).await;
    fleet.apply(&three()).await.ends(0);
    assert_eq!(data("h2-c-db2").await["role"], "master");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_people_at_once_do_not_half_overwrite_each_other() {
    let fleet = Fleet::start().await;
    for round in 0..3 {
        let cluster = format!("r{round}");
        // Eight people found the same cluster, each with another master; on one host, so that ports clash too.
        let documents: Vec<Value> = (1..=8)
            .map(|n| {
                let (own, other) = (format!("h{n}-{cluster}-db1"), format!("h{n}-{cluster}-db2"));
                let port = 100 * (round + 1);
                json!({own: master(port), other: minion(port + 1, &format!("h{n}"), port),
                    (format!("h9-{cluster}{n}-db1")): master(port)})
            })
            .collect();
        let said = futures::future::join_all(documents.iter().map(|document| fleet.apply(document))).await;
        let won: Vec<usize> = (0..8).filter(|n| said[*n].code == 0).collect();
        assert_eq!(won.len(), 1, "{said:#?}");
        assert!(said.iter().all(|one| one.code == 0 || one.code == 1), "{said:#?}");
        let targets = fleet.run(&["get", "targets", &cluster, "-o", "json"]).await.ends(0).json();
        let n = won[0] + 1;
        let names: Vec<&String> = targets.as_object().unwrap().keys().collect();
        assert_eq!(names, [&format!("h{n}-{cluster}-db1"), &format!("h{n}-{cluster}-db2")]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_who_change_different_things_all_succeed() {
    let fleet = Fleet::start().await;
    fleet.apply(&three()).await.ends(0);
    let changes: Vec<Value> =
        (4..10).map(|n| json!({(format!("h{n}-c-db{n}")): minion(1, "h1", 1)})).collect();
    for said in futures::future::join_all(changes.iter().map(|change| fleet.apply(change))).await {
        said.ends(0);
    }
    let members = fleet.document("members/c").await.unwrap();
    assert_eq!(members["members"].as_array().unwrap().len(), 9);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operation_that_holds_a_cluster_is_named() {
    let fleet = Fleet::start().await;
    fleet.apply(&three()).await.ends(0);
    fleet.put(&[("locks/c", json!({"operation": "op-7"}))]).await;
    let mut changed = three();
    changed["h3-c-db3"]["data"]["size"] = json!("half");
    let said = fleet.apply(&changed).await.ends(1);
    assert!(said.err.contains("op-7"), "{said:#?}");
    fleet.run(&["delete", "h3-c-db3", "--yes"]).await.ends(1);
    let said = edit(&fleet, r#"sed -i 's/"all"/"half"/' "$1""#, &["h3-c-db3"]).await.ends(1);
    assert!(said.err.contains("op-7") && kept(&said).contains("half"), "{said:#?}");
    let mut calm = three();
    calm["h3-c-db3"]["data"]["maintenance"] = json!(true);
    fleet.apply(&calm).await.ends(0);
    fleet.run(&["cluster", "pause", "c"]).await.ends(0);
}

async fn edit(fleet: &Fleet, script: &str, args: &[&str]) -> crate::fleet::Said {
    let editor = fleet.file("editor.sh", script);
    let mut command = fleet.command();
    command.args(["edit"]).args(args).env("EDITOR", format!("sh {}", text(&editor))).env_remove("VISUAL");
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    crate::fleet::Said {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn kept(said: &crate::fleet::Said) -> String {
    let path = said.err.lines().find_map(|line| line.strip_prefix("your text is kept in ")).expect("a path");
    std::fs::read_to_string(Path::new(path)).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edit_writes_or_keeps_the_text() {
    let fleet = Fleet::start().await;
    fleet.apply(&three()).await.ends(0);
    let said = edit(&fleet, "true", &["h2-c-db2"]).await.ends(0);
    assert!(said.out.contains("nothing was changed"), "{said:#?}");
    edit(&fleet, r#"sed -i 's/"all"/"half"/' "$1""#, &["h2-c-db2"]).await.ends(0);
    assert_eq!(fleet.document("targets/h2/h2-c-db2").await.unwrap()["data"]["size"], "half");
    edit(&fleet, r#"sed -i 's/"all"/"quarter"/' "$1""#, &["--cluster", "c"]).await.ends(0);
    assert_eq!(fleet.document("targets/h3/h3-c-db3").await.unwrap()["data"]["size"], "quarter");

    let said = edit(&fleet, r#"sed -i 's/"port": 1/"port": 0/' "$1""#, &["--host", "h2"]).await.ends(2);
    assert!(kept(&said).contains("\"port\": 0"), "{said:#?}");

    // Somebody else is faster.
    let other = r#"sed 's/"half"/"eighth"/' "$1" > "$1.other"; sed -i 's/"half"/"small"/' "$1"
        "$SCHEMADOCK" apply -f "$1.other" --yes"#;
    let other = other.replace("$SCHEMADOCK", env!("CARGO_BIN_EXE_schemadock"));
    let said = edit(&fleet, &other, &["h2-c-db2"]).await.ends(1);
    assert!(said.err.contains("somebody else has changed it meanwhile"), "{said:#?}");
    assert!(kept(&said).contains("small"), "{said:#?}");
    assert_eq!(fleet.document("targets/h2/h2-c-db2").await.unwrap()["data"]["size"], "eighth");
    edit(&fleet, "true", &["nobody-c-db1"]).await.ends(1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policies_are_set_by_compare_and_swap() {
    let fleet = Fleet::start().await;
    fleet.run(&["cluster", "set", "c", "acks=1"]).await.ends(1);
    let mut own = three();
    own["h2-c-db2"]["data"]["mysql"] = json!({"max_connections": 5});
    fleet.apply(&own).await.ends(0);
    fleet.put(&[("clusters/c", json!({"acks": 2, "newer": {"field": 1}}))]).await;
    let said =
        fleet.run(&["cluster", "set", "c", "mysql.max_connections=500", "durability=async"]).await.ends(0);
    assert!(said.err.contains("h2-c-db2 has max_connections"), "{said:#?}");
    fleet.run(&["cluster", "set", "c", "mysql.sync_binlog=0", "acks="]).await.ends(0);
    fleet.run(&["cluster", "set", "c", "durability=lossless"]).await.ends(1);
    fleet.run(&["cluster", "set", "c", "acks=3"]).await.ends(2);
    let jobs = (0..6).map(|n| {
        let setting = format!("mysql.x{n}={n}");
        let fleet = &fleet;
        async move { fleet.run(&["cluster", "set", "c", &setting]).await }
    });
    for said in futures::future::join_all(jobs).await {
        said.ends(0);
    }
    fleet.run(&["cluster", "pause", "c"]).await.ends(0);
    let policy = fleet.document("clusters/c").await.unwrap();
    assert_eq!(policy["newer"], json!({"field": 1}), "what a newer program wrote stays");
    assert_eq!((&policy["paused"], &policy["durability"]), (&json!(true), &json!("async")));
    assert_eq!(policy["mysql"].as_object().unwrap().len(), 8);
    assert!(policy.get("acks").is_none());
    fleet.run(&["cluster", "resume", "c"]).await.ends(0);
    assert!(fleet.document("clusters/c").await.unwrap().get("paused").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_host_is_forgotten() {
    let fleet = Fleet::start().await;
    fleet.register("h1").await;
    fleet.register("h2").await;
    fleet.apply(&json!({"h1-c-db1": master(1), "h2-c-db2": minion(1, "h1", 1)})).await.ends(0);
    fleet.report("h1", "h1-c-db1", json!({})).await;
    let said = fleet.run(&["host", "forget", "h1"]).await.ends(1);
    for found in ["a living agent", "h1-c-db1", "h2-c-db2"] {
        assert!(said.err.contains(found), "{said:#?}");
    }
    fleet.run(&["delete", "h2-c-db2", "--yes"]).await.ends(0);
    fleet.run(&["delete", "h1-c-db1", "--yes"]).await.ends(0);
    fleet.delete(&["alive/h1"]).await;
    fleet.run(&["host", "forget", "h1"]).await.ends(0);
    assert!(fleet.all().await.entries.keys().all(|key| !key.contains("/h1")));
    fleet.run(&["host", "forget", "h1"]).await.ends(1);
}
