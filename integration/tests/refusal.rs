//! It refuses rather than loses: missing, foreign and errant data, and what must be there before anything can run.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use schemadock_integration::fleet::{
    CLUSTER, Fleet, Options, PORT, Writer, docker, documents, master, member,
};
use schemadock_schema::status::{DataState, Phase, Status};
use serde_json::json;

/// Does something to an instance's files while neither agent nor server runs.
async fn at_rest(fleet: &mut Fleet, number: u8, harm: impl FnOnce(PathBuf)) {
    let name = member(number);
    let (container, home) = (fleet.container(&name), fleet.home(number, &name));
    fleet.agent(number).kill();
    docker(&["rm", "-f", &container]);
    harm(home);
    fleet.agent(number).start(&[]);
}

fn shell(command: &str, at: &PathBuf) {
    let done = Command::new("sh").args(["-ec", command]).current_dir(at).status();
    assert!(done.expect("sh is there").success(), "{command} in {}", at.display());
}

fn failed(status: &Status) -> bool {
    status.phase == Phase::Failed
}

fn uuid(fleet: &Fleet, number: u8) -> String {
    fleet.world().status(&member(number)).and_then(|status| status.server_uuid).expect("a server_uuid")
}

const OTHER: &str = "11111111-2222-3333-4444-555555555555";

#[tokio::test]
async fn a_minions_data() {
    let mut fleet = Fleet::converged(2).await;
    let mut writer = fleet.writer(1).await;
    writer.more(20).await;
    let name = member(2);

    // Missing: seeded anew by itself, with an event and a new identity.
    let before = uuid(&fleet, 2);
    at_rest(&mut fleet, 2, |home| shell("rm -rf mount/data", &home)).await;
    fleet
        .until("seeded anew", |world| {
            let status = world.status(&name)?;
            (world.converged(&name) && status.server_uuid.as_deref() != Some(&before)).then_some(())
        })
        .await;
    assert!(fleet.world().told(&name, "replacing", "missing") > 0, "{}", fleet.describe());

    // Foreign: refused with the reason, nothing deleted; a reseed is the way out.
    let theirs = format!("sed -i 's/server-uuid=.*/server-uuid={OTHER}/' mount/data/auto.cnf");
    at_rest(&mut fleet, 2, |home| shell(&theirs, &home)).await;
    let status = fleet.until_status(&name, "failed for foreign data", failed).await;
    assert_eq!(status.data.state, DataState::Foreign);
    assert!(status.message.contains(OTHER), "{}", status.message);
    let home = fleet.home(2, &name);
    fleet
        .holds_for(Duration::from_secs(5), "nothing is deleted", |_| {
            home.join("mount/data/auto.cnf").exists()
        })
        .await;
    let done = fleet.run(&["reseed", &name, "--yes"]).await;
    assert_eq!(done.code, 0, "{done:?}");
    fleet.until_converged(2).await;

    // Half gone: as good as gone.
    at_rest(&mut fleet, 2, |home| shell("rm -f mount/data/ibdata1 mount/data/mysql.ibd", &home)).await;
    fleet
        .until("seeded anew again", |world| {
            (world.told(&name, "replacing", "incomplete") > 0 && world.converged(&name)).then_some(())
        })
        .await;

    // The record is gone, the data are not: recognised by what etcd remembers, nothing is copied.
    let kept = uuid(&fleet, 2);
    at_rest(&mut fleet, 2, |home| shell("rm -f record.json", &home)).await;
    fleet
        .until("adopted", |world| {
            (world.told(&name, "adopted", "") > 0 && world.converged(&name)).then_some(())
        })
        .await;
    assert_eq!(uuid(&fleet, 2), kept);

    let ledger = writer.stop().await;
    let executed = fleet.sql(1).await.global("gtid_executed").await;
    let mut sql = fleet.sql(2).await;
    sql.run(&format!("DO WAIT_FOR_EXECUTED_GTID_SET('{executed}', 20)")).await;
    Writer::verify(&ledger, &mut sql).await;
}

#[tokio::test]
async fn the_leaders_data() {
    let mut fleet = Fleet::converged(2).await;
    let mut writer = fleet.writer(1).await;
    writer.more(20).await;
    let ledger = writer.stop().await;
    let (name, own) = (member(1), uuid(&fleet, 1));

    // Missing: never initialised anew; the message says where it looked.
    at_rest(&mut fleet, 1, |home| shell("mv mount/data elsewhere", &home)).await;
    let status = fleet.until_status(&name, "failed for missing data", failed).await;
    assert!(status.message.contains(&own) && status.message.contains("retired/"), "{}", status.message);
    let home = fleet.home(1, &name);
    fleet
        .holds_for(Duration::from_secs(6), "nothing is made anew", |_| !home.join("mount/data").exists())
        .await;
    shell("mv elsewhere mount/data", &home);
    fleet.until_converged(2).await;

    // Empty is as good as missing.
    at_rest(&mut fleet, 1, |home| shell("mv mount/data elsewhere; mkdir mount/data", &home)).await;
    fleet.until_status(&name, "failed for empty data", failed).await;
    fleet
        .holds_for(Duration::from_secs(4), "nothing is made in it", |_| {
            !home.join("mount/data/auto.cnf").exists()
        })
        .await;
    shell("rmdir mount/data; mv elsewhere mount/data", &home);
    fleet.until_converged(2).await;

    // Foreign.
    let theirs = format!(
        "cp mount/data/auto.cnf kept; sed -i 's/server-uuid=.*/server-uuid={OTHER}/' mount/data/auto.cnf"
    );
    at_rest(&mut fleet, 1, |home| shell(&theirs, &home)).await;
    let status = fleet.until_status(&name, "failed for foreign data", failed).await;
    assert!(status.message.contains(OTHER) && status.message.contains(&own), "{}", status.message);
    shell("cp kept mount/data/auto.cnf", &home);
    fleet.until_converged(2).await;
    assert_eq!(uuid(&fleet, 1), own);
    Writer::verify(&ledger, &mut fleet.sql(1).await).await;
}

#[tokio::test]
async fn transactions_of_a_minions_own() {
    let mut fleet = Fleet::converged(2).await;
    let name = member(2);

    // Harmless ones are settled by themselves.
    let mut sql = fleet.sql(2).await;
    sql.run("FLUSH STATUS").await;
    sql.run("FLUSH PRIVILEGES").await;
    let own = uuid(&fleet, 2);
    fleet
        .until("harmless ones are settled", |world| {
            (world.told(&name, "settled", &own) > 0 && world.converged(&name)).then_some(())
        })
        .await;
    let executed = fleet.sql(1).await.global("gtid_executed").await;
    assert!(executed.contains(&own), "the master does not know them: {executed}");

    // A row is another matter: reported with its GTID, not attached.
    fleet.agent(2).kill();
    sql.run("SET GLOBAL read_only = OFF").await;
    sql.run("CREATE DATABASE errant").await;
    fleet.agent(2).start(&[]);
    let status =
        fleet.until_status(&name, "reports foreign transactions", |status| status.foreign.is_some()).await;
    let foreign = status.foreign.expect("just seen");
    assert!(!foreign.harmless && foreign.gtids.to_string().contains(&own), "{foreign:?}");
    let status = fleet.until_status(&name, "failed", failed).await;
    assert!(status.message.contains(&own), "{}", status.message);
    let detached = |status: &Status| status.source.as_ref().is_none_or(|source| source.io == "OFF");
    fleet.until_status(&name, "is detached", detached).await;
    let apart =
        |world: &schemadock_integration::fleet::World| world.status(&name).is_some_and(|s| detached(&s));
    fleet.holds_for(Duration::from_secs(5), "stays detached", apart).await;
    assert_eq!(fleet.sql(2).await.global("super_read_only").await, "1");

    // Seeded anew they are gone, and set aside.
    assert_eq!(fleet.run(&["reseed", &name, "--yes"]).await.code, 0);
    fleet.until_converged(2).await;
    let mut sql = fleet.sql(2).await;
    assert_eq!(sql.rows("SHOW DATABASES LIKE 'errant'").await.len(), 0);
    fleet
        .until("set aside", |world| {
            let host = world.host("schemadock02")?;
            host.retired.iter().any(|retired| retired.instance.as_str() == name).then_some(())
        })
        .await;
}

#[tokio::test]
async fn what_must_be_there_first() {
    let fleet = Fleet::start(1).await;
    let name = member(1);
    let key = fleet.target_key(&name);

    // A taken port: one message; healed when it is free.
    let taken = std::net::TcpListener::bind((fleet.address(1), PORT)).expect("a free port");
    fleet.put(&key, &master()).await;
    let status = fleet
        .until_status(&name, "says that the port is taken", |status| status.message.contains("7335"))
        .await;
    assert!(status.message.contains("taken"), "{}", status.message);
    drop(taken);
    fleet.until_converged(1).await;

    // An image that cannot be had; the server that runs is left alone.
    fleet.edit(&name, json!({"image": "127.0.0.1:1/nowhere/mysql:none"})).await;
    let status = fleet
        .until_status(&name, "says that the image cannot be had", |status| status.message.contains("nowhere"))
        .await;
    assert_eq!(status.container.map(|container| container.state).as_deref(), Some("running"));
    assert_eq!(status.writable, Some(true));
    fleet.edit(&name, json!({"image": null})).await;
    fleet.until_converged(1).await;
}

/// A full disk: one clear message, healed when there is room.
#[tokio::test]
async fn a_full_disk() {
    let mut fleet = Fleet::bare(Options { templates: false, ..Options::hosts(1) }).await;
    let small = fleet.dir().join("small");
    std::fs::create_dir(&small).expect("a directory");
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=40m", "tmpfs"]).arg(&small).status();
    if !mount.is_ok_and(|status| status.success()) {
        eprintln!("not root: a small file system cannot be mounted, nothing was tested");
        return;
    }
    let state = format!("{:?}", small.display().to_string());
    fleet.agent(1).set("state_dir", &state);
    fleet.start_agents().await;
    let name = member(1);
    fleet.apply(&documents(1)).await;
    let status = fleet.until_status(&name, "says that the disk is full", |status| {
        let message = status.message.to_lowercase();
        message.contains("space") || message.contains("full")
    });
    let status = status.await;
    eprintln!("{}", status.message);
    let grown = Command::new("mount").args(["-o", "remount,size=2g"]).arg(&small).status();
    assert!(grown.is_ok_and(|status| status.success()));
    fleet.until_converged(1).await;
    assert_eq!(fleet.world().leadership(CLUSTER).map(|record| record.term), Some(1));
    // The mount goes last: what stands on it must be gone.
    fleet.agent(1).kill();
    docker(&["rm", "-f", &fleet.container(&name)]);
    let gone = Command::new("umount").arg("-l").arg(&small).status();
    assert!(gone.is_ok_and(|status| status.success()));
}
