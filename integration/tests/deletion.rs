//! Deleting keeps data, putting back takes them up, purge destroys; a cluster that was emptied leaves its leadership.

use schemadock_integration::fleet::{CLUSTER, Fleet, Writer, docker, documents, member};
use schemadock_schema::leadership::LeadershipPhase;
use serde_json::json;

fn container_exists(fleet: &Fleet, number: u8) -> bool {
    docker(&["inspect", &fleet.container(&member(number))]).1
}

fn retired(fleet: &Fleet, number: u8) -> usize {
    let dir = fleet.agents[usize::from(number) - 1].state_dir().join("retired").join(member(number));
    std::fs::read_dir(dir).map_or(0, |entries| entries.flatten().count())
}

async fn until_gone(fleet: &Fleet, number: u8) {
    let name = member(number);
    fleet.until(&format!("{name} is gone"), |world| world.status(&name).is_none().then_some(())).await;
    assert!(!container_exists(fleet, number));
}

#[tokio::test]
async fn deleted_and_put_back() {
    let fleet = Fleet::converged(2).await;
    let mut writer = fleet.writer(1).await;
    writer.more(20).await;
    let uuid = |number| fleet.world().status(&member(number)).and_then(|status| status.server_uuid);
    let before = uuid(2);

    // The master is refused while another member exists.
    let refused = fleet.run(&["delete", &member(1), "--yes"]).await;
    assert_eq!(refused.code, 1, "{refused:?}");

    let done = fleet.run(&["delete", &member(2), "--yes"]).await;
    assert_eq!(done.code, 0, "{done:?}");
    until_gone(&fleet, 2).await;
    assert_eq!(retired(&fleet, 2), 1);
    let listed = fleet
        .until("listed as retired", |world| {
            let host = world.host("schemadock02")?;
            host.retired.into_iter().find(|retired| retired.instance.as_str() == member(2))
        })
        .await;
    assert!(listed.bytes > 1 << 20, "{listed:?}");
    writer.more(20).await;

    // Put back: the same data, which catch up.
    fleet.apply(&documents(2)).await;
    fleet.until_converged(2).await;
    assert_eq!(uuid(2), before);
    assert_eq!(retired(&fleet, 2), 0);
    let ledger = writer.stop().await;
    let executed = fleet.sql(1).await.global("gtid_executed").await;
    let mut sql = fleet.sql(2).await;
    sql.run(&format!("DO WAIT_FOR_EXECUTED_GTID_SET('{executed}', 20)")).await;
    Writer::verify(&ledger, &mut sql).await;

    // Purge destroys what is retired.
    assert_eq!(fleet.run(&["delete", &member(2), "--yes"]).await.code, 0);
    until_gone(&fleet, 2).await;
    fleet
        .until("listed as retired again", |world| {
            let host = world.host("schemadock02")?;
            host.retired.into_iter().find(|retired| retired.instance.as_str() == member(2))
        })
        .await;
    let done = fleet.run(&["purge", &member(2), "--yes"]).await;
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(retired(&fleet, 2), 0);

    // The last member: released, and whole again when it is put back.
    let done = fleet.run(&["delete", &member(1), "--yes"]).await;
    assert_eq!(done.code, 0, "{done:?}");
    until_gone(&fleet, 1).await;
    let record = fleet
        .until("released", |world| world.leadership(CLUSTER).filter(|record| record.is_released()))
        .await;
    assert_eq!((record.term, record.phase, record.voters.len()), (1, LeadershipPhase::Steady, 0));
    fleet.apply(&documents(2)).await;
    fleet.until_converged(2).await;
    let record = fleet.world().leadership(CLUSTER).expect("somebody leads");
    assert_eq!(record.term, 2);
    Writer::verify(&ledger, &mut fleet.sql(1).await).await;
}

/// A master whose target is taken away or disabled by hand goes on serving while others are enabled, and says so.
#[tokio::test]
async fn a_master_taken_away_by_hand_goes_on() {
    let fleet = Fleet::converged(2).await;
    let mut writer = fleet.writer(1).await;
    let key = fleet.target_key(&member(1));
    fleet.remove(&key).await;
    fleet
        .until_status(&member(1), "says that it waits", |status| {
            status.waiting_on.is_some() && status.message.contains("goes on serving")
        })
        .await;
    writer.more(50).await;
    fleet.put(&key, &documents(1)[member(1)]).await;
    fleet.until_converged(2).await;
    fleet.edit(&member(1), json!({"disabled": true})).await;
    fleet
        .until_status(&member(1), "says that it waits", |status| {
            status.waiting_on.is_some() && status.message.contains("goes on serving")
        })
        .await;
    writer.more(50).await;

    // All members disabled is how a cluster stops, and it comes back whole.
    fleet.edit(&member(2), json!({"disabled": true})).await;
    for number in [1, 2] {
        let stopped = |status: &schemadock_schema::status::Status| {
            status.phase == schemadock_schema::status::Phase::Stopped && status.converged
        };
        fleet.until_status(&member(number), "stopped", stopped).await;
    }
    let ledger = writer.stop().await;
    fleet.edit(&member(2), json!({"disabled": false})).await;
    fleet.edit(&member(1), json!({"disabled": false})).await;
    fleet.until_converged(2).await;
    for number in [1, 2] {
        let executed = fleet.sql(1).await.global("gtid_executed").await;
        let mut sql = fleet.sql(number).await;
        sql.run(&format!("DO WAIT_FOR_EXECUTED_GTID_SET('{executed}', 20)")).await;
        Writer::verify(&ledger, &mut sql).await;
    }
}
