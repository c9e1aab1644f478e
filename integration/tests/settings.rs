//! What people change in a target: live where the server can, else pending; refused without harm; with the least
//! disturbance for the rest.

use std::time::Duration;

use schemadock_integration::fleet::{CLUSTER, Fleet, IMAGE, PORT, Sql, Writer, docker, host, member};
use schemadock_schema::status::Phase;
use serde_json::json;

async fn started_at(sql: &mut Sql) -> u64 {
    let query = "SELECT UNIX_TIMESTAMP() - variable_value FROM performance_schema.global_status \
                 WHERE variable_name = 'Uptime'";
    sql.text(query).await.split('.').next().and_then(|text| text.parse().ok()).expect("a time")
}

async fn same_life(sql: &mut Sql, before: u64) -> bool {
    started_at(sql).await.abs_diff(before) <= 1
}

#[tokio::test]
async fn variables() {
    let fleet = Fleet::converged(1).await;
    let name = member(1);
    let mut sql = fleet.sql(1).await;
    let born = started_at(&mut sql).await;

    // Live.
    fleet.edit(&name, json!({"mysql": {"max_connections": 321, "long_query_time": 2}})).await;
    fleet.until_converged(1).await;
    assert_eq!(sql.global("max_connections").await, "321");
    // Taken away: the default again.
    fleet.edit(&name, json!({"mysql": {"long_query_time": 2}})).await;
    fleet.until_converged(1).await;
    assert_eq!(sql.global("max_connections").await, "151");
    assert!(same_life(&mut sql, born).await);

    // Not live: pending with variable and reason, until a restart.
    fleet.edit(&name, json!({"mysql": {"table_open_cache_instances": 4, "back_log": 77}})).await;
    let status = fleet
        .until_status(&name, "a restart is pending", |s| {
            s.restart_pending.iter().any(|p| p.variable == "back_log")
        })
        .await;
    assert!(status.restart_pending.iter().all(|pending| !pending.reason.is_empty()));
    assert_ne!(sql.global("back_log").await, "77");
    assert!(same_life(&mut sql, born).await);
    let done = fleet.run(&["restart", &name, "--yes"]).await;
    assert_eq!(done.code, 0, "{done:?}");
    fleet.until_status(&name, "nothing is pending", |status| status.restart_pending.is_empty()).await;
    fleet.until_converged(1).await;
    let mut sql = fleet.sql(1).await;
    assert_eq!(sql.global("back_log").await, "77");
    let born = started_at(&mut sql).await;

    // One that the server does not know: refused, and the server stays as it is.
    fleet.edit(&name, json!({"mysql": {"back_log": 77, "no_such_variable": 1}})).await;
    let status = fleet
        .until_status(&name, "the unknown variable is refused", |status| {
            status.restart_pending.iter().any(|pending| pending.reason.contains("no_such_variable"))
        })
        .await;
    assert_eq!(status.writable, Some(true));
    assert!(same_life(&mut sql, born).await);

    // One with which it does not come up: the last good file is started again.
    fleet.edit(&name, json!({"mysql": {"back_log": 77, "innodb_page_size": "8k"}})).await;
    fleet.until_status(&name, "a restart is pending", |s| !s.restart_pending.is_empty()).await;
    let asked = tokio::spawn(fleet.cli(&["restart", &name, "--yes"]).run());
    let status = fleet
        .until("back with the last good file", |world| {
            let status = world.status(&name)?;
            let told = world.told(&name, "refused", "did not come up") > 0;
            (told && status.phase == Phase::Running && status.writable == Some(true)).then_some(status)
        })
        .await;
    assert!(!status.restart_pending.is_empty(), "{status:?}");
    // How the request ended is the agent's word; the server is what counts here.
    let _ = asked.await.expect("it runs");
    assert_eq!(fleet.sql(1).await.global("back_log").await, "77");
    fleet.edit(&name, json!({"mysql": {"back_log": 77}})).await;
    fleet.until_converged(1).await;
}

#[tokio::test]
async fn image_port_size_and_disabled() {
    let mut fleet = Fleet::converged(2).await;
    let mut writer = fleet.writer(1).await;
    writer.more(20).await;
    let name = member(2);
    let data = |fleet: &Fleet| fleet.world().status(&name).and_then(|status| status.server_uuid);
    let before = data(&fleet);

    // Another image in its own document: another container on the same data, by itself.
    let other = format!("{}:other", fleet.name);
    assert!(docker(&["tag", IMAGE, &other]).1);
    fleet.edit(&name, json!({"image": other})).await;
    fleet.until_all_converged(std::slice::from_ref(&name)).await;
    let status = fleet.world().status(&name).expect("a status");
    assert_eq!(status.container.map(|container| container.image), Some(other.clone()));
    assert_eq!(data(&fleet), before);
    fleet.edit(&name, json!({"image": IMAGE})).await;
    fleet.until_all_converged(std::slice::from_ref(&name)).await;
    fleet.edit(&name, json!({"image": null})).await;
    fleet.until_all_converged(std::slice::from_ref(&name)).await;

    // From the policy it waits for a restart.
    let policy = fleet.keys.cluster(&CLUSTER.parse().expect("a name"));
    fleet.put(&policy, &json!({"image": other})).await;
    let pending = |status: &schemadock_schema::status::Status| {
        status.restart_pending.iter().any(|pending| pending.variable == "image")
    };
    fleet.until_status(&name, "the image is pending", pending).await;
    fleet.put(&policy, &json!({})).await;
    fleet.until_status(&name, "nothing is pending", |status| status.restart_pending.is_empty()).await;
    assert!(docker(&["rmi", &other]).1 || other.is_empty());

    // The size: limits of the living container.
    let mut sql = fleet.sql(2).await;
    let born = started_at(&mut sql).await;
    fleet.edit(&name, json!({"size": {"memory": "900MiB", "cpus": 1}})).await;
    fleet.until_all_converged(std::slice::from_ref(&name)).await;
    let (memory, _) = docker(&["inspect", "--format", "{{.HostConfig.Memory}}", &fleet.container(&name)]);
    assert_eq!(memory, (900u64 << 20).to_string());
    assert!(same_life(&mut sql, born).await, "a change of size restarted the server");

    // The port.
    fleet.edit(&name, json!({"port": 7441})).await;
    fleet.until_all_converged(std::slice::from_ref(&name)).await;
    let secrets = fleet.secrets();
    let user = schemadock_schema::secrets::ADMIN_USER;
    let mut sql = Sql::connect(&fleet.address(2), 7441, user, secrets.admin.expose()).await;
    assert_eq!(sql.global("super_read_only").await, "1");
    fleet.edit(&name, json!({"port": 7335})).await;
    fleet.until_all_converged(std::slice::from_ref(&name)).await;

    // Disabled, and enabled again: nothing is lost.
    fleet.edit(&name, json!({"disabled": true})).await;
    fleet.until_status(&name, "stopped", |status| status.phase == Phase::Stopped && status.converged).await;
    let (running, _) = docker(&["inspect", "--format", "{{.State.Running}}", &fleet.container(&name)]);
    assert_eq!(running, "false");
    writer.more(20).await;
    fleet.edit(&name, json!({"disabled": false})).await;
    fleet.until_converged(2).await;
    assert_eq!(data(&fleet), before);

    // The master's host has another address: the minion is repointed, not seeded anew.
    let address = fleet.address(101);
    let text = format!("{address:?}");
    fleet.agent(1).stop().await;
    fleet.agent(1).set("address", &text);
    fleet.agent(1).start(&[]);
    fleet
        .until("the minion follows the new address", |world| {
            let source = world.status(&name)?.source?;
            (source.address == address && source.io == "ON" && world.converged(&name)).then_some(())
        })
        .await;
    assert_eq!(data(&fleet), before);
    assert!(fleet.world().told(&name, "repointed", &address) > 0, "{}", fleet.describe());
    let ledger = writer.stop().await;
    let mut master = Sql::connect(&address, PORT, user, secrets.admin.expose()).await;
    let executed = master.global("gtid_executed").await;
    let mut minion = fleet.sql(2).await;
    let waited = minion.text(&format!("SELECT WAIT_FOR_EXECUTED_GTID_SET('{executed}', 60)")).await;
    assert_eq!(waited, "0", "the minion does not apply");
    Writer::verify(&ledger, &mut minion).await;
}

/// A minion of a minion, and a minion that is told to follow another server.
#[tokio::test]
async fn another_master_host() {
    let fleet = Fleet::converged(3).await;
    let mut writer = fleet.writer(1).await;
    writer.more(20).await;
    fleet.edit(&member(3), json!({"master_host": host(2)})).await;
    fleet
        .until("a chain", |world| {
            let source = world.status(&member(3))?.source?;
            (source.address == fleet.address(2) && source.io == "ON" && world.converged(&member(3)))
                .then_some(())
        })
        .await;
    writer.more(20).await;
    fleet.edit(&member(3), json!({"master_host": host(1)})).await;
    fleet
        .until("beside the other one again", |world| {
            let source = world.status(&member(3))?.source?;
            (source.address == fleet.address(1) && source.io == "ON" && world.converged(&member(3)))
                .then_some(())
        })
        .await;
    let ledger = writer.stop().await;
    let executed = fleet.sql(1).await.global("gtid_executed").await;
    let mut sql = fleet.sql(3).await;
    sql.run(&format!("DO WAIT_FOR_EXECUTED_GTID_SET('{executed}', 20)")).await;
    Writer::verify(&ledger, &mut sql).await;
}

/// Stopping is safe: stop signal KILL, and a polite shutdown only after `super_read_only=ON` has returned.
#[tokio::test]
async fn a_stop_waits_for_no_commit_it_could_break() {
    let fleet = Fleet::converged(1).await;
    let name = member(1);
    let (signal, _) = docker(&["inspect", "--format", "{{.Config.StopSignal}}", &fleet.container(&name)]);
    assert!(signal.ends_with("KILL"), "the stop signal is {signal}");
    // A lock that keeps super_read_only=ON from returning.
    let app = fleet.secrets().application;
    let mut holder = Sql::connect(&fleet.address(1), 7335, &app.user, app.password.expose()).await;
    holder.run("CREATE DATABASE held").await;
    holder.run("CREATE TABLE held.t (id INT PRIMARY KEY)").await;
    holder.run("LOCK TABLES held.t WRITE").await;
    fleet.edit(&name, json!({"disabled": true})).await;
    fleet
        .until_within(Duration::from_secs(30), "stopped all the same", |world| {
            world.status(&name).filter(|status| status.phase == Phase::Stopped).map(|_| ())
        })
        .await;
    let (code, _) = docker(&["inspect", "--format", "{{.State.ExitCode}}", &fleet.container(&name)]);
    assert!(holder.try_run("SELECT 1").await.is_err(), "sessions go on");
    assert!(code == "137" || code == "0", "ended with {code}");
}
