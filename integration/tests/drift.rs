//! Whatever a person or a fault does to a running cluster is mended within seconds, and an event says what was found.

use std::time::Duration;

use schemadock_integration::fleet::{CLUSTER, Fleet, Sql, Writer, docker, member};
use schemadock_schema::status::WaitKind;
use serde_json::json;

/// Within seconds.
const SECONDS: Duration = Duration::from_secs(20);

struct Cluster {
    fleet: Fleet,
}

impl Cluster {
    /// Does something to the member of host `number`; it must be mended, with an event that has these words.
    async fn mends(&self, number: u8, words: &str, harm: impl AsyncFnOnce(&Fleet)) {
        let name = member(number);
        let before = self.fleet.world().told(&name, "mended", words);
        harm(&self.fleet).await;
        self.fleet
            .until_within(SECONDS, &format!("{name}: an event about {words:?}, and converged"), |world| {
                (world.told(&name, "mended", words) > before && world.converged(&name)).then_some(())
            })
            .await;
    }

    async fn mends_sql(&self, number: u8, words: &str, statements: &[&str]) {
        self.mends(number, words, async |fleet| {
            let mut sql = fleet.sql(number).await;
            for statement in statements {
                sql.run(statement).await;
            }
        })
        .await;
    }

    async fn mends_docker(&self, number: u8, words: &str, verb: &[&str]) {
        self.mends(number, words, async |fleet| {
            let container = fleet.container(&member(number));
            let all: Vec<&str> = verb.iter().copied().chain([container.as_str()]).collect();
            let (said, done) = docker(&all);
            assert!(done, "{said}");
        })
        .await;
    }
}

#[tokio::test]
async fn drift_is_mended() {
    let cluster = Cluster { fleet: Fleet::converged(2).await };
    let mut writer = cluster.fleet.writer(1).await;
    writer.more(10).await;

    // Replication stopped, in part and in whole; pointed elsewhere; forgotten.
    cluster.mends_sql(2, "applier", &["STOP REPLICA SQL_THREAD"]).await;
    cluster.mends_sql(2, "receiver", &["STOP REPLICA IO_THREAD"]).await;
    cluster.mends_sql(2, "stopped", &["STOP REPLICA"]).await;
    let elsewhere = ["STOP REPLICA IO_THREAD", "CHANGE REPLICATION SOURCE TO SOURCE_PORT = 1"];
    cluster.fleet.sql(2).await.run(elsewhere[0]).await;
    cluster.fleet.sql(2).await.run(elsewhere[1]).await;
    cluster
        .fleet
        .until_within(SECONDS, "pointed back", |world| {
            let told = world.events().iter().any(|event| event.message.contains(":1"));
            (told && world.converged(&member(2))).then_some(())
        })
        .await;
    cluster.fleet.sql(2).await.run("STOP REPLICA").await;
    cluster.fleet.sql(2).await.run("RESET REPLICA ALL").await;
    cluster
        .fleet
        .until_within(SECONDS, "follows again", |world| {
            let source = world.status(&member(2))?.source?;
            (source.io == "ON" && world.converged(&member(2))).then_some(())
        })
        .await;
    writer.more(10).await;

    // Who may write.
    cluster.mends_sql(2, "read_only off", &["SET GLOBAL read_only = OFF"]).await;
    let mut minion = cluster.fleet.sql(2).await;
    assert_eq!(minion.global("super_read_only").await, "1");
    cluster.mends_sql(1, "super_read_only", &["SET GLOBAL super_read_only = ON"]).await;
    cluster.mends_sql(1, "read_only", &["SET GLOBAL read_only = ON"]).await;
    writer.more(10).await;

    // A setting and an account.
    cluster.mends_sql(1, "sync_binlog", &["SET GLOBAL sync_binlog = 0"]).await;
    assert_eq!(cluster.fleet.sql(1).await.global("sync_binlog").await, "1");
    let user = cluster.fleet.secrets().application.user;
    let drop = format!("DROP USER '{user}'@'%'");
    cluster.mends_sql(1, &user, &["SET SESSION sql_log_bin = 0", &drop]).await;
    writer.more(10).await;

    // The container.
    cluster.mends_docker(2, "ended", &["kill"]).await;
    cluster.mends_docker(2, "container", &["rm", "-f"]).await;
    cluster.mends_docker(2, "paused", &["pause"]).await;
    cluster.mends_docker(1, "ended", &["stop"]).await;
    writer.more(10).await;
    cluster.mends_docker(1, "paused", &["pause"]).await;
    cluster.mends_docker(1, "container", &["rm", "-f"]).await;
    writer.more(10).await;

    // Nothing acknowledged was lost on the way.
    let ledger = writer.stop().await;
    let mut master = cluster.fleet.sql(1).await;
    Writer::verify(&ledger, &mut master).await;
    let executed = master.global("gtid_executed").await;
    let mut minion = cluster.fleet.sql(2).await;
    minion.run(&format!("DO WAIT_FOR_EXECUTED_GTID_SET('{executed}', 20)")).await;
    Writer::verify(&ledger, &mut minion).await;
}

async fn stop_replica(fleet: &Fleet) -> Sql {
    let mut sql = fleet.sql(2).await;
    sql.run("STOP REPLICA").await;
    sql
}

#[tokio::test]
async fn maintenance_and_paused_keep_hands_off() {
    let fleet = Fleet::converged(2).await;
    let waits = |kind: WaitKind| {
        move |status: &schemadock_schema::status::Status| {
            status.waiting_on.as_ref().is_some_and(|waiting| waiting.kind == kind)
        }
    };
    fleet.edit(&member(2), json!({"maintenance": true})).await;
    let status = fleet.until_status(&member(2), "shows maintenance", waits(WaitKind::Maintenance)).await;
    assert!(status.maintenance);
    let mut sql = stop_replica(&fleet).await;
    fleet
        .until_status(&member(2), "the receiver is off", |s| s.source.as_ref().is_some_and(|s| s.io == "OFF"))
        .await;
    let off = |world: &schemadock_integration::fleet::World| {
        world.status(&member(2)).and_then(|s| s.source).is_some_and(|source| source.io == "OFF")
    };
    fleet.holds_for(Duration::from_secs(6), "nobody starts replication under maintenance", off).await;
    // Fencing never stops: a minion must not take writes, maintenance or not.
    sql.run("SET GLOBAL read_only = OFF").await;
    fleet
        .until_within(SECONDS, "closed all the same", |world| {
            (world.told(&member(2), "mended", "read_only off") > 0).then_some(())
        })
        .await;
    fleet.edit(&member(2), json!({"maintenance": null})).await;
    fleet.until_converged(2).await;

    fleet.put(&fleet.keys.cluster(&CLUSTER.parse().expect("a name")), &json!({"paused": true})).await;
    fleet.until_status(&member(2), "shows the pause", waits(WaitKind::Paused)).await;
    stop_replica(&fleet).await;
    fleet
        .until_status(&member(2), "the receiver is off", |s| s.source.as_ref().is_some_and(|s| s.io == "OFF"))
        .await;
    fleet.holds_for(Duration::from_secs(6), "nobody starts replication while paused", off).await;
    fleet.put(&fleet.keys.cluster(&CLUSTER.parse().expect("a name")), &json!({"paused": false})).await;
    fleet.until_converged(2).await;
}

/// Somebody who undoes every repair is told of once, and the agent backs off.
#[tokio::test]
async fn a_fight_is_told_once() {
    let fleet = Fleet::converged(1).await;
    let mut sql = fleet.sql(1).await;
    for round in 1..=6 {
        sql.run("SET GLOBAL sync_binlog = 0").await;
        fleet
            .until_within(Duration::from_secs(30), &format!("round {round} was seen"), |world| {
                let mended = world.told(&member(1), "mended", "sync_binlog");
                let undone = world.told(&member(1), "undone", "sync_binlog");
                (mended + undone >= round).then_some(())
            })
            .await;
    }
    assert_eq!(fleet.world().told(&member(1), "undone", "sync_binlog"), 1);
    assert_eq!(fleet.world().told(&member(1), "mended", "sync_binlog"), 5);
}
