//! The three-instance document becomes a replicating cluster, in whatever order its parts arrive.

use std::time::{Duration, Instant};

use schemadock_integration::fleet::{
    CLUSTER, Fleet, Options, PORT, docker, documents, host, master, member, minion,
};
use schemadock_schema::status::{DataState, ObservedRole, Phase, WaitKind};

/// Both minions follow, and hold what the master was told.
async fn replicates(fleet: &Fleet, mark: &str) {
    let mut sql = fleet.sql(1).await;
    sql.run("CREATE DATABASE IF NOT EXISTS shop").await;
    sql.run(&format!("CREATE TABLE shop.{mark} (id INT PRIMARY KEY)")).await;
    sql.run(&format!("INSERT INTO shop.{mark} VALUES (42)")).await;
    let executed = sql.global("gtid_executed").await;
    for number in [2, 3] {
        let mut sql = fleet.sql(number).await;
        let waited = sql.text(&format!("SELECT WAIT_FOR_EXECUTED_GTID_SET('{executed}', 20)")).await;
        assert_eq!(waited, "0", "host {number} does not apply");
        assert_eq!(sql.text(&format!("SELECT id FROM shop.{mark}")).await, "42");
        assert_eq!(sql.global("super_read_only").await, "1");
    }
}

#[tokio::test]
async fn the_document_converges_and_replicates() {
    let fleet = Fleet::start(3).await;
    fleet.apply(&documents(3)).await;
    fleet.until_converged(3).await;
    let world = fleet.world();
    let leadership = world.leadership(CLUSTER).expect("somebody leads");
    assert_eq!(leadership.master.as_ref().map(|name| name.as_str()), Some(member(1).as_str()));
    assert_eq!((leadership.term, leadership.acks, leadership.voters.len()), (1, 0, 0));
    for number in 1..=3u8 {
        let status = world.status(&member(number)).expect("a status");
        assert_eq!(status.phase, Phase::Running);
        assert_eq!(status.writable, Some(number == 1));
        let role = if number == 1 { ObservedRole::Master } else { ObservedRole::Minion };
        assert_eq!(status.observed_role, role);
        assert_eq!(status.data.state, DataState::Own);
        let source = status.source.map(|source| (source.address, source.port));
        assert_eq!(source, (number != 1).then(|| (fleet.address(1), PORT)));
    }
    replicates(&fleet, "first").await;

    // Applying the same again changes nothing.
    let before = fleet.world().status(&member(1)).expect("a status").target_revision;
    fleet.apply(&documents(3)).await;
    assert_eq!(fleet.world().status(&member(1)).expect("a status").target_revision, before);

    // Steady means that nobody writes anything but leases.
    let revision = fleet.revision().await;
    let names: Vec<String> = (1..=3).map(member).collect();
    fleet.holds_for(Duration::from_secs(10), "steady", |w| names.iter().all(|n| w.converged(n))).await;
    let later = fleet.revision().await;
    assert_eq!(later, revision, "a steady fleet wrote to etcd");
}

/// The targets one by one in every order; each is seen to wait for the right thing before the next one comes.
#[tokio::test]
async fn any_order_of_arrival() {
    let orders = [[1, 2, 3], [1, 3, 2], [2, 1, 3], [2, 3, 1], [3, 1, 2], [3, 2, 1]];
    let mut fleet = Fleet::bare(Options::hosts(3)).await;
    fleet.start_agents().await;
    for (round, order) in orders.iter().enumerate() {
        let cluster = format!("order{round}");
        let name = |number: u8| format!("{}-{cluster}-db{number}", host(number));
        for number in *order {
            let document = if number == 1 { master() } else { minion() };
            fleet.put(&fleet.target_key(&name(number)), &document).await;
            if number == 1 {
                fleet.until_all_converged(&[name(1)]).await;
            } else if fleet.world().leadership(&cluster).is_none() {
                let status = fleet
                    .until_status(&name(number), "waits for its master", |status| {
                        status.waiting_on.as_ref().is_some_and(|w| w.kind == WaitKind::Master)
                    })
                    .await;
                assert_eq!(status.phase, Phase::Attaching, "{status:?}");
            }
        }
        let all: Vec<String> = (1..=3).map(name).collect();
        fleet.until_all_converged(&all).await;
        for number in (1..=3).rev() {
            fleet.remove(&fleet.target_key(&name(number))).await;
        }
        fleet
            .until(&format!("{cluster} is gone"), |world| {
                all.iter().all(|name| world.status(name).is_none()).then_some(())
            })
            .await;
    }
}

/// Hosts too may come late: a minion whose master's host nobody knows waits for it, and attaches at once when the
/// master is there.
#[tokio::test]
async fn hosts_that_come_late() {
    let mut fleet = Fleet::bare(Options::hosts(3)).await;
    for number in 1..=3u8 {
        let document = if number == 1 { master() } else { minion() };
        fleet.put(&fleet.target_key(&member(number)), &document).await;
    }
    for number in [3, 2] {
        fleet.agent(number).start(&[]);
        fleet
            .until_status(&member(number), "waits for master or host", |status| {
                status.phase == Phase::Attaching
                    && status
                        .waiting_on
                        .as_ref()
                        .is_some_and(|w| matches!(w.kind, WaitKind::Master | WaitKind::Host))
            })
            .await;
    }
    fleet.agent(1).start(&[]);
    // The master is ready when it takes writes; from there a second is enough.
    let mut ready: Option<Instant> = None;
    let took = fleet
        .until("both minions attached", |world| {
            if world.status(&member(1)).is_some_and(|status| status.writable == Some(true)) {
                ready.get_or_insert_with(Instant::now);
            }
            let attached =
                |n| world.status(&member(n)).and_then(|s| s.source).is_some_and(|source| source.io == "ON");
            let ready = ready?;
            (attached(2) && attached(3)).then(|| ready.elapsed())
        })
        .await;
    assert!(took < Duration::from_secs(1), "attaching took {took:?}");
    fleet.until_converged(3).await;
    replicates(&fleet, "late").await;
}

/// What a fresh cluster's servers are, seen from outside: accounts, history, settings, container.
#[tokio::test]
async fn a_fresh_cluster_is_clean() {
    let fleet = Fleet::converged(2).await;
    let uuid = fleet.world().status(&member(1)).and_then(|status| status.server_uuid).expect("a uuid");
    let secrets = fleet.secrets();
    let words = [
        secrets.agent.expose(),
        secrets.admin.expose(),
        secrets.replication.expose(),
        secrets.application.password.expose(),
    ];
    for number in 1..=2u8 {
        let mut sql = fleet.sql(number).await;
        // The marker and nothing else was ever committed.
        assert_eq!(sql.global("gtid_executed").await, format!("{uuid}:1"), "host {number}");
        let root = "SELECT account_locked FROM mysql.user WHERE user = 'root' AND host = 'localhost'";
        assert_eq!(sql.text(root).await, "Y");
        let open = "SELECT COUNT(*) FROM mysql.user WHERE account_locked = 'N' \
                    AND (authentication_string = '' OR user = '')";
        assert_eq!(sql.text(open).await, "0");
        for (name, value) in [("gtid_mode", "ON"), ("binlog_format", "ROW"), ("skip_name_resolve", "1")] {
            assert_eq!(sql.global(name).await, value, "{name}");
        }
        for (name, value) in [("sync_binlog", "1"), ("innodb_flush_log_at_trx_commit", "1")] {
            assert_eq!(sql.global(name).await, value, "{name}");
        }
        let plugins = "SELECT COUNT(*) FROM information_schema.plugins WHERE plugin_status = 'ACTIVE' \
                       AND plugin_name IN ('clone', 'rpl_semi_sync_source', 'rpl_semi_sync_replica')";
        assert_eq!(sql.text(plugins).await, "3");
        // No password where others can read it.
        let container = fleet.container(&member(number));
        let (inspected, _) = docker(&["inspect", &container]);
        let (output, _) = docker(&["logs", &container]);
        let (top, _) = docker(&["top", &container, "-eo", "pid,args"]);
        assert!(
            inspected.contains("SIGKILL") || inspected.contains("\"StopSignal\": \"KILL\""),
            "stop signal"
        );
        let log = fleet.agents[usize::from(number) - 1].log_text();
        let events = format!("{:?}", fleet.world().events());
        for (place, text) in [
            ("inspect", inspected),
            ("logs", output),
            ("top", top),
            ("the agent's log", log),
            ("events", events),
        ] {
            assert!(words.iter().all(|word| !text.contains(word)), "a password in {place}");
        }
        readable_files_hold_none(&fleet.agents[usize::from(number) - 1].state_dir(), &words);
    }
    let mut master = fleet.sql(1).await;
    let ids: Vec<u32> =
        (1..=2).map(|n| fleet.world().status(&member(n)).and_then(|s| s.server_id).expect("an id")).collect();
    assert_ne!(ids[0], ids[1]);
    // Replication is encrypted.
    let ciphers = master
        .rows(
            "SELECT t.processlist_user, s.variable_value FROM performance_schema.threads t \
             JOIN performance_schema.status_by_thread s ON s.thread_id = t.thread_id \
             WHERE t.processlist_command LIKE 'Binlog Dump%' AND s.variable_name = 'Ssl_cipher'",
        )
        .await;
    assert_eq!(ciphers.len(), 1);
    assert_eq!(ciphers[0][0], format!("schemadock_r{}", ids[1]));
    assert!(!ciphers[0][1].is_empty(), "replication is not encrypted");
    // The application may write user schemas, and sees no hash.
    let app = &secrets.application;
    let mut sql = schemadock_integration::fleet::Sql::connect(
        &fleet.address(1),
        PORT,
        &app.user,
        app.password.expose(),
    )
    .await;
    sql.run("CREATE DATABASE shop").await;
    sql.run("CREATE TABLE shop.t (id INT PRIMARY KEY)").await;
    sql.run("INSERT INTO shop.t VALUES (1)").await;
    assert!(sql.try_run("SELECT authentication_string FROM mysql.user").await.is_err());
    assert!(sql.try_run("CREATE TABLE mysql.t (id INT PRIMARY KEY)").await.is_err());
    assert!(sql.try_run("SET GLOBAL super_read_only = ON").await.is_err());
    let mut minion = schemadock_integration::fleet::Sql::connect(
        &fleet.address(2),
        PORT,
        &app.user,
        app.password.expose(),
    )
    .await;
    assert!(minion.try_run("CREATE DATABASE elsewhere").await.is_err(), "a minion took a write");
}

/// No file that everybody can read holds a password.
fn readable_files_hold_none(dir: &std::path::Path, words: &[&str]) {
    use std::os::unix::fs::PermissionsExt as _;
    let mut left = vec![dir.to_owned()];
    let mut looked_at = 0;
    while let Some(dir) = left.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let Ok(meta) = entry.path().symlink_metadata() else { continue };
            if meta.is_dir() {
                left.push(entry.path());
            } else if meta.is_file() && meta.permissions().mode() & 0o004 != 0 && meta.len() < 1 << 20 {
                looked_at += 1;
                let text = std::fs::read(entry.path()).unwrap_or_default();
                let text = String::from_utf8_lossy(&text);
                assert!(words.iter().all(|word| !text.contains(word)), "a password in {:?}", entry.path());
            }
        }
    }
    // Directories that nobody else can enter are as good as no file at all.
    let closed = std::fs::metadata(dir).map(|meta| meta.permissions().mode() & 0o001 == 0);
    assert!(looked_at > 0 || closed.unwrap_or(false), "{} was not looked at", dir.display());
}
