//! get, topology and wait over statuses written by hand.

use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::fleet::{Fleet, three};

async fn at_work() -> Fleet {
    let fleet = Fleet::start().await;
    for host in ["h1", "h2", "h3"] {
        fleet.register(host).await;
    }
    fleet.apply(&three()).await.ends(0);
    fleet
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wait_ends_as_soon_as_all_is_well() {
    let fleet = at_work().await;
    let said = fleet.run(&["wait", "--cluster", "c", "--timeout", "1s"]).await.ends(1);
    for name in ["h1-c-db1", "h2-c-db2", "h3-c-db3"] {
        assert!(said.err.contains(name), "{said:#?}");
    }
    let waits = fleet.run(&["wait", "--timeout", "30s"]);
    let works = async {
        for (host, name) in [("h1", "h1-c-db1"), ("h2", "h2-c-db2"), ("h3", "h3-c-db3")] {
            let on_its_way = json!({"converged": false, "phase": "seeding", "message": "half of it is here"});
            fleet.report(host, name, on_its_way).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
            fleet.report(host, name, json!({})).await;
        }
        Instant::now()
    };
    let ((said, ended), worked) = tokio::join!(async { (waits.await, Instant::now()) }, works);
    let said = said.ends(0);
    assert!(said.err.contains("h2-c-db2: minion seeding: half of it is here"), "{said:#?}");
    assert!(ended.duration_since(worked) < Duration::from_secs(2), "by watch, not by asking again and again");

    // The word of a dead agent does not count.
    fleet.delete(&["alive/h3"]).await;
    let said = fleet.run(&["wait", "--timeout", "1s"]).await.ends(1);
    assert!(said.err.contains("the agent of h3 is not alive"), "{said:#?}");
    fleet.run(&["wait", "--cluster", "d"]).await.ends(1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn get_says_what_the_contract_names() {
    let fleet = at_work().await;
    fleet.report("h1", "h1-c-db1", json!({"observed_role": "master", "writable": true})).await;
    let fields = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
    let instances = fleet.run(&["get", "instances", "-o", "json"]).await.ends(0).json();
    let expected = "name host cluster address port role disabled maintenance observed_role phase converged stale \
        waiting_on message data foreign store attempts writable term received server_uuid server_id gtid_executed \
        source seed restart_pending container mysql_version size target_revision policy_revision updated_at";
    for instance in instances.as_array().unwrap() {
        assert_eq!(fields(instance), expected);
    }
    assert_eq!((&instances[0]["converged"], &instances[0]["role"]), (&json!(true), &json!("master")));
    assert_eq!((&instances[1]["converged"], &instances[1]["phase"]), (&json!(false), &json!("pending")));
    let clusters = fleet.run(&["get", "clusters", "c", "-o", "json"]).await.ends(0).json();
    assert_eq!(
        fields(&clusters[0]),
        "name master term phase durability durability_wished acks voters paused failover replicas writable converged \
         operation members warnings"
    );
    let hosts = fleet.run(&["get", "hosts", "-o", "json"]).await.ends(0).json();
    assert_eq!(
        fields(&hosts[0]),
        "name address alive zone labels cordoned capacity allocated free_disk retired instances warnings store \
         agent_version docker_version updated_at"
    );
    let topology = fleet.run(&["topology", "c", "-o", "json"]).await.ends(0).json();
    assert_eq!(topology[0]["writes"]["state"], "open");
    assert_eq!(topology[0]["trees"][0]["replicas"][1]["name"], "h3-c-db3");
    for (what, colour) in [("instances", "always"), ("clusters", "never")] {
        let said = fleet.run(&["get", what]).await.ends(0);
        assert!(!said.out.contains('\x1b'), "no colours without a terminal ({colour}): {said:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn get_follows_changes() {
    let fleet = at_work().await;
    let mut command = fleet.command();
    command.args(["get", "instances", "-w", "-o", "json"]);
    let mut child = command.spawn().unwrap();
    let (told, mut lines) = tokio::sync::mpsc::unbounded_channel();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    std::thread::spawn(move || {
        for line in stdout.lines().map_while(Result::ok) {
            let _ = told.send(serde_json::from_str::<Value>(&line).unwrap());
        }
    });
    let mut next = async |what: &str| {
        let line = tokio::time::timeout(Duration::from_secs(10), lines.recv()).await;
        line.unwrap_or_else(|_| panic!("nothing was told of {what}")).unwrap()
    };
    for name in ["h1-c-db1", "h2-c-db2", "h3-c-db3"] {
        let line = next(name).await;
        assert_eq!((&line["type"], &line["object"]["name"]), (&json!("put"), &json!(name)));
    }
    fleet.report("h2", "h2-c-db2", json!({})).await;
    let line = next("a status").await;
    assert_eq!((&line["object"]["name"], &line["object"]["converged"]), (&json!("h2-c-db2"), &json!(true)));
    fleet.run(&["delete", "h3-c-db3", "--yes"]).await.ends(0);
    let line = next("a deletion").await;
    assert_eq!((&line["type"], &line["object"]["name"]), (&json!("delete"), &json!("h3-c-db3")));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_told_by_cluster_instance_and_host() {
    let fleet = at_work().await;
    let event = |id: &str, instance: &str, host: &str| {
        json!({"id": id, "time": "2026-01-02T03:04:05Z", "cluster": "c", "instance": instance, "host": host,
            "kind": "mended", "message": "m", "by": "t", "details": {}})
    };
    fleet
        .put(&[
            ("events/c/0001-h2-000001", event("0001-h2-000001", "h2-c-db2", "h2")),
            ("events/c/0000-h1-000001", event("0000-h1-000001", "h1-c-db1", "h1")),
        ])
        .await;
    let ids = |said: Value| -> Vec<String> {
        said.as_array().unwrap().iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect()
    };
    let all = fleet.run(&["get", "events", "-o", "json"]).await.ends(0).json();
    assert_eq!(ids(all), ["0000-h1-000001", "0001-h2-000001"]);
    for name in ["h2-c-db2", "h2"] {
        let some = fleet.run(&["get", "events", name, "-o", "json"]).await.ends(0).json();
        assert_eq!(ids(some), ["0001-h2-000001"]);
    }
    fleet.run(&["get", "events", "nobody"]).await.ends(1);
}
