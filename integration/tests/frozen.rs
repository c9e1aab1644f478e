//! Schemas that the cluster's policy names as frozen, on real parts.

use schemadock_integration::fleet::{Fleet, Sql};
use serde_json::{Value, json};

const SHOP: &str = "shop";

/// The application on whoever leads.
async fn application(fleet: &Fleet) -> Sql {
    let leads = fleet.leads(SHOP);
    let members = fleet.world().members(SHOP);
    let (_, address, port) = members.iter().find(|(name, ..)| *name == leads).expect("a member").clone();
    let login = fleet.secrets_of(SHOP).application;
    Sql::connect(&address, port, &login.user, login.password.expose()).await
}

/// Names the schemas in the policy as an operation does.
async fn freeze(fleet: &Fleet, schemas: &[&str]) {
    let key = fleet.keys.cluster(&SHOP.parse().unwrap());
    let stored = fleet.world().entry(&key).map(|entry| entry.value.clone());
    let mut policy: Value = stored.map_or(json!({}), |value| serde_json::from_slice(&value).unwrap());
    let frozen = schemas
        .iter()
        .map(|schema| json!({"schema": schema, "since": "2026-01-01T00:00:00Z", "operation": "it"}));
    policy["frozen"] = frozen.collect();
    fleet.put(&key, &policy).await;
    let wanted: Vec<String> = schemas.iter().map(|schema| (*schema).to_owned()).collect();
    fleet
        .until("every member has these schemas frozen", |world| {
            let members = world.members(SHOP);
            members
                .iter()
                .all(|(name, ..)| {
                    world.converged(name) && world.status(name).is_some_and(|s| s.frozen == wanted)
                })
                .then_some(())
        })
        .await;
}

/// The READ ONLY schemas of every member.
async fn read_only(fleet: &Fleet) -> Vec<String> {
    let mut found = Vec::new();
    for (name, ..) in fleet.world().members(SHOP) {
        let sql = "SELECT IFNULL(GROUP_CONCAT(SCHEMA_NAME ORDER BY SCHEMA_NAME), '') FROM \
                   information_schema.SCHEMATA_EXTENSIONS WHERE OPTIONS LIKE '%READ ONLY=1%'";
        found.push(fleet.sql_of(SHOP, &name).await.text(sql).await);
    }
    found
}

async fn is_refused(fleet: &Fleet) {
    let mut sql = application(fleet).await;
    let why = sql.try_run("INSERT INTO s1.t VALUES (NULL)").await.unwrap_err();
    assert!(why.contains("3989"), "{why}");
    sql.run("INSERT INTO s2.t VALUES (NULL)").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_schema_takes_no_writes_whoever_leads() {
    let fleet = Fleet::with_cluster(4, SHOP).await;
    let mut sql = application(&fleet).await;
    for schema in ["s1", "s2", "s3"] {
        sql.run(&format!("CREATE DATABASE {schema}")).await;
        sql.run(&format!("CREATE TABLE {schema}.t (id BIGINT AUTO_INCREMENT PRIMARY KEY)")).await;
    }
    // Somebody's own flag, on all of them: it is none of ours.
    let leads = fleet.leads(SHOP);
    fleet.sql_of(SHOP, &leads).await.run("ALTER DATABASE s3 READ ONLY = 1").await;

    freeze(&fleet, &["s1"]).await;
    assert_eq!(read_only(&fleet).await, ["s1,s3"; 3]);
    is_refused(&fleet).await;

    // Undone by a person, by a statement that reaches all members: mended on each, and told.
    fleet.sql_of(SHOP, &leads).await.run("ALTER DATABASE s1 READ ONLY = 0").await;
    fleet
        .until("it was mended everywhere", |world| {
            let members = world.members(SHOP);
            members
                .iter()
                .all(|(name, ..)| world.told(name, "mended", "schema s1 was not READ ONLY") == 1)
                .then_some(())
        })
        .await;
    assert_eq!(read_only(&fleet).await, ["s1,s3"; 3]);

    fleet.until_converged_cluster(SHOP).await;
    fleet.done(&["cluster", "switchover", SHOP]).await;
    assert_ne!(fleet.leads(SHOP), leads);
    is_refused(&fleet).await;
    fleet.done(&["cluster", "scale", SHOP, "--replicas", "3"]).await;
    assert_eq!(read_only(&fleet).await, ["s1,s3"; 4]);
    fleet.done(&["cluster", "stop", SHOP, "--yes"]).await;
    fleet.done(&["cluster", "start", SHOP]).await;
    is_refused(&fleet).await;

    // An idle reader on the master holds the flag up, and is named; others wait a second at most.
    let mut reader = application(&fleet).await;
    reader.run("BEGIN").await;
    reader.rows("SELECT * FROM s2.t").await;
    let leads = fleet.leads(SHOP);
    let key = fleet.keys.cluster(&SHOP.parse().unwrap());
    let mut policy: Value = serde_json::from_slice(&fleet.world().entry(&key).unwrap().value).unwrap();
    policy["frozen"]
        .as_array_mut()
        .unwrap()
        .push(json!({"schema": "s2", "since": "2026-01-01T00:00:00Z", "operation": "it"}));
    fleet.put(&key, &policy).await;
    let status = fleet
        .until_status(&leads, "it says who is in the way", |status| status.message.contains("is in use"))
        .await;
    assert!(status.message.contains("schema s2 is in use: connection"), "{}", status.message);
    // It is in nobody's way where the master is opened again: then it is ended.
    fleet.sql_of(SHOP, &leads).await.run("SET GLOBAL super_read_only = ON").await;
    fleet
        .until_status(&leads, "open, and frozen", |s| s.writable == Some(true) && s.frozen == ["s1", "s2"])
        .await;
    assert!(reader.try_run("SELECT 1").await.is_err());
    freeze(&fleet, &["s1", "s2"]).await;
    let why = application(&fleet).await.try_run("INSERT INTO s2.t VALUES (NULL)").await.unwrap_err();
    assert!(why.contains("3989"), "{why}");

    freeze(&fleet, &[]).await;
    assert_eq!(read_only(&fleet).await, ["s3"; 4]);
    let mut sql = application(&fleet).await;
    sql.run("INSERT INTO s1.t VALUES (NULL)").await;
    sql.run("INSERT INTO s2.t VALUES (NULL)").await;
}
