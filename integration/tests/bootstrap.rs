//! Where a new member's data come from, and what is done with garbage.

use schemadock_integration::fleet::{CLUSTER, Fleet, Writer, documents, host, master, member, minion};
use schemadock_schema::status::{Phase, WaitKind};
use serde_json::json;

/// The master has purged what a new minion would need: CLONE, from a minion rather than the master.
#[tokio::test]
async fn seeded_by_clone() {
    let fleet = Fleet::start(3).await;
    fleet.apply(&documents(2)).await;
    fleet.until_converged(2).await;
    let mut writer = fleet.writer(1).await;
    writer.more(20).await;
    for number in [1, 2] {
        let mut sql = fleet.sql(number).await;
        sql.run("FLUSH BINARY LOGS").await;
        let logs = sql.rows("SHOW BINARY LOGS").await;
        let newest = logs.last().and_then(|row| row.first()).expect("a log").clone();
        sql.run(&format!("PURGE BINARY LOGS TO '{newest}'")).await;
        assert_ne!(sql.global("gtid_purged").await, "");
    }
    fleet.put(&fleet.target_key(&member(3)), &minion()).await;
    let donor = fleet
        .until("shows its seed", |world| {
            let status = world.status(&member(3))?;
            status.seed.map(|seed| (seed.method, seed.donor))
        })
        .await;
    assert_eq!((donor.0.as_str(), donor.1.as_str()), ("clone", member(2).as_str()));
    fleet.until_converged(3).await;
    assert!(fleet.world().told(&member(3), "seeded", &member(2)) > 0);
    writer.more(20).await;
    let ledger = writer.stop().await;
    let executed = fleet.sql(1).await.global("gtid_executed").await;
    let mut sql = fleet.sql(3).await;
    sql.run(&format!("DO WAIT_FOR_EXECUTED_GTID_SET('{executed}', 20)")).await;
    Writer::verify(&ledger, &mut sql).await;
    // An identity, keys and an id of its own.
    let (mut uuids, mut ids) = (Vec::new(), Vec::new());
    for number in 1..=3 {
        let status = fleet.world().status(&member(number)).expect("a status");
        uuids.push(status.server_uuid.expect("a server_uuid"));
        ids.push(status.server_id.expect("a server_id"));
    }
    uuids.sort();
    uuids.dedup();
    assert_eq!(uuids.len(), 3);
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 3);

    // Tables that CLONE would empty make it refuse by name.
    let mut sql = fleet.sql(1).await;
    assert!(
        sql.try_run("CREATE TABLE ledger.m (id INT) ENGINE = MyISAM").await.is_err(),
        "MyISAM is disabled"
    );
    fleet.edit(&member(1), json!({"mysql": {"disabled_storage_engines": ""}})).await;
    fleet.edit(&member(2), json!({"mysql": {"disabled_storage_engines": ""}})).await;
    for number in [1, 2] {
        let asked = fleet.run(&["restart", &member(number), "--yes"]).await;
        assert_eq!(asked.code, 0, "{asked:?}");
    }
    fleet.until_converged(3).await;
    fleet.sql(1).await.run("CREATE TABLE ledger.m (id INT) ENGINE = MyISAM").await;
    let executed = fleet.sql(1).await.global("gtid_executed").await;
    for number in [2, 3] {
        let mut sql = fleet.sql(number).await;
        sql.run(&format!("DO WAIT_FOR_EXECUTED_GTID_SET('{executed}', 20)")).await;
    }
    let asked = tokio::spawn(fleet.cli(&["reseed", &member(3), "--yes"]).run());
    let status = fleet
        .until_status(&member(3), "refuses to clone", |status| status.message.contains("ledger.m"))
        .await;
    assert!(status.message.contains("MyISAM"), "{}", status.message);
    fleet.sql(1).await.run("DROP TABLE ledger.m").await;
    fleet.until_converged(3).await;
    assert_eq!(asked.await.expect("it runs").code, 0);
}

/// Garbage in a target, a status, a record or a secret: that instance says so and keeps running as it was; all others
/// go on; nothing panics.
#[tokio::test]
async fn garbage() {
    let mut fleet = Fleet::converged(2).await;
    let mut writer = fleet.writer(1).await;
    let second = format!("{}-other-db1", host(2));
    for garbage in ["}{", "", "[]", "{\"data\": 7}", "{\"data\": {\"role\": \"queen\", \"port\": 1}}"] {
        fleet.put_raw(&fleet.target_key(&member(2)), garbage.as_bytes().to_vec()).await;
        let status = fleet
            .until_status(&member(2), "its target cannot be read", |status| {
                status.waiting_on.as_ref().is_some_and(|waiting| waiting.kind == WaitKind::Target)
            })
            .await;
        assert!(status.message.contains("cannot be read"), "{}", status.message);
        assert_eq!(status.source.map(|source| source.io).as_deref(), Some("ON"));
    }
    fleet.put_raw(&fleet.target_key(&member(2)), vec![0xff, 0xfe, 0, 1]).await;
    // A new instance on the same host goes on all the same; garbage without a past is reported, too.
    let mut elsewhere = master();
    elsewhere["data"]["port"] = json!(7444);
    fleet.put(&fleet.target_key(&second), &elsewhere).await;
    fleet.until_all_converged(std::slice::from_ref(&second)).await;
    let third = format!("{}-third-db1", host(2));
    fleet.put_raw(&fleet.target_key(&third), b"garbage".to_vec()).await;
    fleet.until_status(&third, "reported", |s| s.message.contains("cannot be read")).await;
    // A key that is no name at all.
    fleet.put_raw("/schemadock/targets/schemadock02/Not A Name!", b"{}".to_vec()).await;
    fleet.put(&fleet.target_key(&member(2)), &minion()).await;
    fleet.until_converged(2).await;
    fleet.remove(&fleet.target_key(&third)).await;
    fleet.until("the third is gone", |world| world.status(&third).is_none().then_some(())).await;

    // A status is written anew when there is something to say.
    fleet.put_raw(&format!("/schemadock/status/{}/{}", host(1), member(1)), b"garbage".to_vec()).await;
    fleet.sql(1).await.run("SET GLOBAL super_read_only = ON").await;
    fleet.until("a status again", |world| world.converged(&member(1)).then_some(())).await;

    // Credentials, leadership and policy: what runs goes on.
    for kind in ["secrets", "leadership", "clusters"] {
        let key = format!("/schemadock/{kind}/{CLUSTER}");
        let before = fleet.world().entry(&key).map(|entry| entry.value.clone());
        fleet.put_raw(&key, b"garbage".to_vec()).await;
        writer.more(100).await;
        let phase = fleet.world().status(&member(2)).map(|status| status.phase);
        assert_ne!(phase, Some(Phase::Stopped));
        match before {
            Some(value) => fleet.put_raw(&key, value).await,
            None => fleet.remove(&key).await,
        };
        fleet.until_converged(2).await;
    }

    // A record on disk: that instance is left as it is and reported by its host; others go on.
    let record = fleet.home(2, &member(2)).join("record.json");
    let kept = std::fs::read(&record).expect("a record");
    fleet.agent(2).kill();
    std::fs::write(&record, b"{").expect("a file can be written");
    fleet.agent(2).start(&[]);
    fleet
        .until("the host reports the record", |world| {
            let host = world.host(&host(2))?;
            host.warnings.iter().any(|w| w.kind == "record" && w.message.contains(&member(2))).then_some(())
        })
        .await;
    fleet.until_all_converged(std::slice::from_ref(&second)).await;
    writer.more(20).await;
    fleet.agent(2).kill();
    std::fs::write(&record, kept).expect("a file can be written");
    fleet.agent(2).start(&[]);
    fleet.until_converged(2).await;
    for agent in &fleet.agents {
        assert!(!agent.log_text().contains("panicked"), "{}", agent.log_text());
    }
    let ledger = writer.stop().await;
    let executed = fleet.sql(1).await.global("gtid_executed").await;
    let mut sql = fleet.sql(2).await;
    sql.run(&format!("DO WAIT_FOR_EXECUTED_GTID_SET('{executed}', 20)")).await;
    Writer::verify(&ledger, &mut sql).await;
}
