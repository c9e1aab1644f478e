//! purge, reseed, restart and `get --live`, with an agent played by the test.

use std::time::Duration;

use futures::StreamExt;
use schemadock_schema::keys::Keys;
use schemadock_store::{Change, Selector};
use serde_json::{Value, json};

use crate::fleet::{Fleet, three};

async fn one_cluster() -> Fleet {
    let fleet = Fleet::start().await;
    for host in ["h1", "h2"] {
        fleet.register(host).await;
    }
    fleet.apply(&three()).await.ends(0);
    let entry = json!({"term": 1, "name": "h1-c-db1", "server_uuid": "u", "base": ""});
    let record = json!({"term": 1, "master": "h1-c-db1", "phase": "steady", "durability": "async", "founder": "u",
        "lineage": [entry]});
    fleet.put(&[("leadership/c", record)]).await;
    fleet
}

/// Answers the next request of a host, and returns it.
async fn agent(fleet: &Fleet, host: &str, outcome: &str, reason: Option<&str>) -> Value {
    let part = Selector::Prefix(fleet.keys.requests_of(&host.parse().unwrap()));
    let mut changes = fleet.store.watch(&part, fleet.all().await.revision).await.unwrap();
    loop {
        let (_, batch) = changes.next().await.unwrap().unwrap();
        for change in batch {
            let Change::Put(entry) = change else { continue };
            let id = Keys::last_part(&entry.key).to_owned();
            let request: Value = serde_json::from_slice(&entry.value).unwrap();
            let event = json!({"id": "1", "time": "2026-01-02T03:04:05Z", "cluster": "c",
                "instance": request["instance"], "host": host, "kind": "request", "message": "it is so", "by": "agent",
                "details": {"request": id, "outcome": outcome, "reason": reason}});
            fleet.put(&[(&format!("events/c/1-{id}"), event)]).await;
            fleet.delete(&[&format!("requests/{host}/{id}")]).await;
            return request;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_is_asked_and_its_answer_told() {
    let fleet = one_cluster().await;
    let restart = ["restart", "h2-c-db2", "--yes", "-o", "json"];
    let (said, request) = tokio::join!(fleet.run(&restart), agent(&fleet, "h2", "done", None));
    assert_eq!(said.ends(0).json()["outcome"], "done");
    assert_eq!((&request["kind"], &request["instance"]), (&json!("restart"), &json!("h2-c-db2")));
    assert!(request["by"].as_str().unwrap().starts_with("tester@"));

    let reseed = ["reseed", "h2-c-db2", "--yes"];
    let refuses = agent(&fleet, "h2", "refused", Some("it is in maintenance"));
    let (said, _) = tokio::join!(fleet.run(&reseed), refuses);
    let said = said.ends(1);
    assert!(said.err.contains("it is in maintenance"), "{said:#?}");

    let said = fleet.run(&["restart", "h2-c-db2", "--yes", "--timeout", "500ms"]).await.ends(1);
    assert!(said.err.contains("has not answered"), "{said:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_asked_is_refused_at_once() {
    let fleet = one_cluster().await;
    let said = fleet.run(&["reseed", "h1-c-db1", "--yes"]).await.ends(1);
    assert!(said.err.contains("is the master"), "{said:#?}");
    let said = fleet.run(&["restart", "h3-c-db3", "--yes"]).await.ends(1);
    assert!(said.err.contains("not alive"), "{said:#?}");
    let said = fleet.run(&["restart", "h2-c-db3", "--yes"]).await.ends(1);
    assert!(said.err.contains("did you mean"), "{said:#?}");
    fleet.run(&["restart", "h2-c-db2"]).await.ends(2);
    fleet.run(&["purge", "h2-c-db2", "--yes"]).await.ends(1);
    assert!(fleet.all().await.entries.keys().all(|key| !key.contains("/requests/")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retired_data_are_destroyed_by_name() {
    let fleet = one_cluster().await;
    let mut host = fleet.document("hosts/h2").await.unwrap();
    host["retired"] = json!([{"instance": "h2-old-db1", "bytes": 1048576, "since": "2026-01-02T03:04:05Z"}]);
    fleet.put(&[("hosts/h2", host)]).await;
    let purge = ["purge", "h2-old-db1", "--yes"];
    let (said, request) = tokio::join!(fleet.run(&purge), agent(&fleet, "h2", "done", None));
    assert!(said.ends(0).out.contains("it is so"));
    assert_eq!((&request["kind"], &request["instance"]), (&json!("purge"), &json!("h2-old-db1")));
    let said = fleet.run(&["purge", "h2-old-db1"]).await.ends(2);
    assert!(said.err.contains("1MiB, set aside 2026-01-02"), "{said:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_values_are_asked_for() {
    let fleet = one_cluster().await;
    fleet.report("h2", "h2-c-db2", json!({"attempts": 1})).await;
    let live = ["get", "instances", "h2-c-db2", "--live", "-o", "json"];
    let answers = async {
        let request = agent(&fleet, "h2", "done", None).await;
        assert_eq!(request["kind"], "refresh");
    };
    let (said, ()) = tokio::join!(fleet.run(&live), answers);
    assert_eq!(said.ends(0).json()[0]["attempts"], 1);
    // An agent that does not answer costs a moment, no more.
    let said = tokio::time::timeout(Duration::from_secs(20), fleet.run(&live)).await.unwrap().ends(0);
    assert!(said.err.contains("no fresh values from h2"), "{said:#?}");
    fleet.run(&["get", "hosts", "--live"]).await.ends(2);
}
