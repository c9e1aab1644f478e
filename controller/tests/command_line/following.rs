//! Following operations to their end, with the controller played by the test.

use std::time::Duration;

use futures::StreamExt;
use schemadock_store::{Change, Selector};
use serde_json::{Value, json};

use crate::fleet::{Fleet, Said};
use crate::operations::{OFFICE, at_work, in_office, operations};

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
