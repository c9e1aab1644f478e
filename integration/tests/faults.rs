//! etcd gone, frozen, compacted, wiped, foreign, older; Docker hung; servers lost; connections used up; a reboot; two
//! agents of one name. Databases run on, and nothing is taken away on the word of a store that is not ours.

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use schemadock_integration::fleet::{
    CLUSTER, Fleet, Mode, Options, PORT, Sql, Writer, docker, documents, host, member,
};
use schemadock_schema::status::{StoreState, WaitKind};
use serde_json::json;

async fn verify(fleet: &Fleet, writer: Writer) {
    let ledger = writer.stop().await;
    let executed = fleet.sql(1).await.global("gtid_executed").await;
    for number in [1, 2] {
        let mut sql = fleet.sql(number).await;
        let waited = sql.text(&format!("SELECT WAIT_FOR_EXECUTED_GTID_SET('{executed}', 20)")).await;
        assert_eq!(waited, "0", "host {number} does not apply");
        Writer::verify(&ledger, &mut sql).await;
    }
}

/// Asks again until an answer is as wished: for what etcd cannot tell, since it is away.
async fn until_global(fleet: &Fleet, sql: &mut Sql, query: &str, wanted: &str) {
    let asking = async {
        while sql.text(query).await != wanted {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let within = tokio::time::timeout(Duration::from_secs(30), asking).await;
    assert!(within.is_ok(), "{query} is not {wanted}\n{}", fleet.describe());
}

const RECEIVER: &str = "SELECT service_state FROM performance_schema.replication_connection_status";

#[tokio::test]
async fn etcd_gone_frozen_and_compacted() {
    let mut fleet = Fleet::converged(2).await;
    let mut writer = fleet.writer(1).await;
    writer.more(10).await;
    let mut minion = fleet.sql(2).await;

    // Gone: databases run on, replication is mended from what the agent knows.
    fleet.etcd.down();
    writer.more(50).await;
    minion.run("STOP REPLICA").await;
    until_global(&fleet, &mut minion, RECEIVER, "ON").await;
    // A master that is started does not open on the cache's word.
    let secrets = fleet.secrets();
    docker(&["kill", &fleet.container(&member(1))]);
    let mut back = None;
    for _ in 0..200 {
        let user = schemadock_schema::secrets::ADMIN_USER;
        back = Sql::try_connect(&fleet.address(1), PORT, user, secrets.admin.expose()).await.ok();
        if back.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let mut back = back.expect("the master's server is started again without etcd");
    for _ in 0..20 {
        assert_eq!(back.global("super_read_only").await, "1", "it opened without a linearizable read");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    fleet.etcd.up().await;
    fleet.until_converged(2).await;
    writer.more(10).await;

    // Frozen: connections stay open, nothing is answered.
    fleet.etcd.freeze();
    writer.more(50).await;
    minion.run("STOP REPLICA").await;
    until_global(&fleet, &mut minion, RECEIVER, "ON").await;
    fleet.etcd.thaw();
    fleet.until_converged(2).await;

    // Compacted while an agent was away: what changed meanwhile is picked up.
    fleet.agent(2).kill();
    fleet.etcd.down();
    fleet.etcd.up().await;
    fleet.edit(&member(2), json!({"mysql": {"max_connections": 222}})).await;
    let revision = fleet.revision().await;
    fleet.etcd.compact(revision).await;
    fleet.agent(2).start(&[]);
    fleet.until_converged(2).await;
    assert_eq!(fleet.sql(2).await.global("max_connections").await, "222");
    let running = fleet.revision().await;
    fleet.etcd.compact(running).await;
    fleet.edit(&member(2), json!({"mysql": {"max_connections": 223}})).await;
    fleet.until_converged(2).await;
    assert_eq!(fleet.sql(2).await.global("max_connections").await, "223");
    verify(&fleet, writer).await;
}

#[tokio::test]
async fn a_store_that_is_not_ours() {
    let mut fleet = Fleet::converged(2).await;
    let mut writer = fleet.writer(1).await;
    writer.more(10).await;
    let containers = |fleet: &Fleet| {
        let filter = format!("label=schemadock.fleet={}", fleet.name);
        docker(&["ps", "--filter", &filter, "--no-trunc", "--format", "{{.ID}}"]).0
    };
    let before = containers(&fleet);
    fleet.etcd.down();
    fleet.etcd.back_up();

    let reports = async |fleet: &Fleet, state: StoreState| {
        fleet
            .until(&format!("both hosts report {state:?}"), |world| {
                (1..=2)
                    .all(|n| world.host(&host(n)).is_some_and(|host| host.store.state == state))
                    .then_some(())
            })
            .await;
        fleet
            .until_status(&member(1), &format!("reports {state:?}"), |status| status.store.state == state)
            .await;
    };
    let untouched = async |fleet: &Fleet, writer: &mut Writer| {
        fleet
            .holds_for(Duration::from_secs(4), "containers are left alone", |_| containers(fleet) == before)
            .await;
        writer.more(20).await;
    };

    // Blank: all keys gone. Nothing is stopped, and drift of the SQL kind is still mended.
    fleet.etcd.wipe();
    fleet.etcd.up().await;
    reports(&fleet, StoreState::Blank).await;
    untouched(&fleet, &mut writer).await;

    // Foreign: another fleet, with targets that would stop everything.
    fleet.put(&fleet.keys.fleet(), &json!({"id": "another", "accepted": []})).await;
    let mut stops = documents(2);
    for number in [1, 2] {
        stops[member(number)]["data"]["disabled"] = json!(true);
        fleet.put(&fleet.target_key(&member(number)), &stops[member(number)]).await;
    }
    reports(&fleet, StoreState::Foreign).await;
    untouched(&fleet, &mut writer).await;
    let written: Vec<String> = fleet
        .world()
        .below("/schemadock/")
        .map(|entry| entry.key.clone())
        .filter(|key| !["fleet", "targets/", "hosts/", "alive/", "status/"].iter().any(|k| key.contains(k)))
        .collect();
    assert!(written.is_empty(), "agents wrote {written:?} into a foreign store");

    // Older: our own of some time ago.
    fleet.etcd.down();
    fleet.etcd.restore();
    fleet.etcd.up().await;
    // Agents and events may have moved the live store on by little: enough is written before the backup is older.
    let older = fleet.until("older, or in step again", |world| {
        (1..=2)
            .all(|n| {
                world
                    .host(&host(n))
                    .is_some_and(|h| matches!(h.store.state, StoreState::Older | StoreState::Ok))
            })
            .then_some(())
    });
    older.await;
    untouched(&fleet, &mut writer).await;
    verify(&fleet, writer).await;
}

#[tokio::test]
async fn an_older_store_is_told() {
    let mut fleet = Fleet::converged(1).await;
    let mut writer = fleet.writer(1).await;
    fleet.etcd.down();
    fleet.etcd.back_up();
    fleet.etcd.up().await;
    // Seen by the agent: later revisions than the backup has.
    for value in 0..150 {
        fleet.edit(&member(1), json!({"mysql": {"max_connections": 300 + value}})).await;
    }
    fleet.until_converged(1).await;
    fleet.etcd.down();
    fleet.etcd.restore();
    fleet.etcd.up().await;
    let status = fleet
        .until_status(&member(1), "says that the store went back", |s| s.store.state == StoreState::Older)
        .await;
    assert_eq!(status.store.expected, status.store.found);
    // What it says is not obeyed.
    writer.more(50).await;
    assert_eq!(fleet.sql(1).await.global("max_connections").await, "449");
}

#[tokio::test]
async fn docker_hung_and_slow() {
    let mut fleet = Fleet::bare(Options { docker_proxy: true, ..Options::hosts(2) }).await;
    fleet.start_agents().await;
    for agent in &fleet.agents {
        agent.docker_proxy.as_ref().expect("asked for").set(Mode::Delay(Duration::from_millis(30)));
    }
    fleet.apply(&documents(2)).await;
    fleet.until_converged(2).await;
    let mut writer = fleet.writer(1).await;
    for agent in &fleet.agents {
        agent.docker_proxy.as_ref().expect("asked for").set(Mode::Hang);
    }
    // SQL supervision goes on.
    let words = "stopped";
    let mut minion = fleet.sql(2).await;
    minion.run("STOP REPLICA").await;
    fleet
        .until("mended without Docker", |world| {
            (world.told(&member(2), "mended", words) > 0 && world.status(&member(2))?.source?.io == "ON")
                .then_some(())
        })
        .await;
    let mut master = fleet.sql(1).await;
    master.run("SET GLOBAL super_read_only = ON").await;
    fleet
        .until("opened without Docker", |world| {
            (world.told(&member(1), "mended", "super_read_only") > 0
                && world.status(&member(1))?.writable == Some(true))
            .then_some(())
        })
        .await;
    fleet
        .until("the host says that Docker does not answer", |world| {
            let host = world.host(&host(1))?;
            host.warnings.iter().any(|warning| warning.kind == "docker").then_some(())
        })
        .await;
    writer.more(20).await;
    for agent in &fleet.agents {
        agent.docker_proxy.as_ref().expect("asked for").set(Mode::Pass);
    }
    fleet.until_converged(2).await;
    docker(&["kill", &fleet.container(&member(2))]);
    fleet
        .until("Docker is heard again", |world| {
            (world.told(&member(2), "mended", "ended") > 0 && world.converged(&member(2))).then_some(())
        })
        .await;
    verify(&fleet, writer).await;
}

/// The shim of a container dies: mysqld runs on under pid 1, and Docker no longer knows it. There is never a second
/// server on one directory.
#[tokio::test]
async fn a_server_that_docker_has_lost() {
    let fleet = Fleet::converged(1).await;
    let mut writer = fleet.writer(1).await;
    writer.more(10).await;
    let container = fleet.container(&member(1));
    let (pid, _) = docker(&["inspect", "--format", "{{.State.Pid}}", &container]);
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the server runs");
    let shim: i32 =
        stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok()).expect("a parent");
    assert_ne!(shim, 1, "it has a shim");
    if kill(Pid::from_raw(shim), Signal::SIGKILL).is_err() {
        eprintln!("not root: the shim cannot be ended, nothing was tested");
        return;
    }
    // Whether the server is left serving or was taken over: clients can write, and one server has the data.
    fleet
        .until("still or again converged, or left serving", |world| {
            let status = world.status(&member(1))?;
            (status.writable == Some(true)).then_some(())
        })
        .await;
    writer.more(50).await;
    assert_eq!(servers_on(&fleet.data(1, &member(1))), 1);
    let ledger = writer.stop().await;
    let done = fleet.run(&["restart", &member(1), "--yes"]).await;
    assert_eq!(done.code, 0, "{done:?}\n{}", fleet.describe());
    fleet.until_converged(1).await;
    assert_eq!(servers_on(&fleet.data(1, &member(1))), 1);
    Writer::verify(&ledger, &mut fleet.sql(1).await).await;
}

/// How many processes hold files in a data directory open.
fn servers_on(data: &Path) -> usize {
    let ibdata = std::fs::metadata(data.join("ibdata1")).expect("data are there");
    let same = |path: std::path::PathBuf| {
        use std::os::unix::fs::MetadataExt as _;
        std::fs::metadata(path).is_ok_and(|meta| (meta.dev(), meta.ino()) == (ibdata.dev(), ibdata.ino()))
    };
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter(|process| {
            let files = std::fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
            files.into_iter().any(|file| same(file.path()))
        })
        .count()
}

#[tokio::test]
async fn connections_used_up() {
    let fleet = Fleet::start(2).await;
    let mut documents = documents(2);
    documents[member(1)]["data"]["mysql"] = json!({"max_connections": 12});
    fleet.apply(&documents).await;
    fleet.until_converged(2).await;
    let app = fleet.secrets().application;
    let mut admin = fleet.sql(1).await;
    let mut taken = Vec::new();
    while let Ok(sql) = Sql::try_connect(&fleet.address(1), PORT, &app.user, app.password.expose()).await {
        taken.push(sql);
        assert!(taken.len() < 50, "there is no limit");
    }
    assert!(taken.len() > 3);
    admin.run("SET GLOBAL super_read_only = ON").await;
    fleet
        .until("mended with no connection left", |world| {
            (world.told(&member(1), "mended", "super_read_only") > 0 && world.converged(&member(1)))
                .then_some(())
        })
        .await;
}

#[tokio::test]
async fn a_reboot_with_etcd_away() {
    let mut fleet = Fleet::converged(2).await;
    let mut writer = fleet.writer(1).await;
    writer.more(20).await;
    let secrets = fleet.secrets();
    fleet.etcd.down();
    for number in [1, 2] {
        let container = fleet.container(&member(number));
        fleet.agent(number).kill();
        docker(&["kill", &container]);
        let run = fleet.agent(number).run_dir().to_owned();
        std::fs::remove_dir_all(run).expect("the run directory can be removed");
    }
    for number in [1, 2] {
        fleet.agent(number).start(&[]);
    }
    // From its own cache: the servers start, closed.
    let user = schemadock_schema::secrets::ADMIN_USER;
    for number in [1, 2] {
        let mut found = None;
        for _ in 0..300 {
            found = Sql::try_connect(&fleet.address(number), PORT, user, secrets.admin.expose()).await.ok();
            if found.is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let mut sql = found.unwrap_or_else(|| panic!("host {number} does not start\n{}", fleet.describe()));
        assert_eq!(sql.global("super_read_only").await, "1", "opened on the cache's word");
    }
    fleet.etcd.up().await;
    fleet.until_converged(2).await;
    writer.more(20).await;
    assert_eq!(fleet.world().leadership(CLUSTER).map(|record| record.term), Some(1));
    verify(&fleet, writer).await;
}

#[tokio::test]
async fn two_agents_of_one_name() {
    let mut fleet = Fleet::bare(Options::hosts(2)).await;
    fleet.agent(1).start(&[]);
    let address =
        fleet.until("the first is there", |world| world.host(&host(1)).map(|host| Some(host.address))).await;
    let name = format!("{:?}", host(1));
    fleet.agent(2).set("host", &name);
    fleet.agent(2).start(&[]);
    fleet.apply(&documents(1)).await;
    fleet.until_converged(1).await;
    // The second waits and says so; it does nothing, and overwrites nothing.
    let log = |fleet: &Fleet| fleet.agents[1].log_text();
    for _ in 0..100 {
        if log(&fleet).contains("another agent lives under this host's name") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(log(&fleet).contains("another agent lives under this host's name"));
    assert_eq!(fleet.world().host(&host(1)).map(|host| host.address), address);
    assert!(!log(&fleet).contains("converge lane"), "the second agent acts");
    // A new life of the first replaces its own key at once.
    fleet.agent(1).kill();
    fleet.agent(1).start(&[]);
    let before = fleet.world().status(&member(1)).map(|status| status.updated_at);
    fleet.sql(1).await.run("SET GLOBAL super_read_only = ON").await;
    fleet
        .until("the first acts again", |world| {
            let status = world.status(&member(1))?;
            (Some(status.updated_at) != before && world.converged(&member(1))).then_some(())
        })
        .await;
}

/// The same state directory is refused at once.
#[tokio::test]
async fn two_agents_in_one_directory() {
    let mut fleet = Fleet::bare(Options::hosts(2)).await;
    fleet.agent(1).start(&[]);
    fleet.until("the first is there", |world| world.is_alive(&host(1)).then_some(())).await;
    let state = format!("{:?}", fleet.agent(1).state_dir().display().to_string());
    fleet.agent(2).set("state_dir", &state);
    fleet.agent(2).start(&[]);
    let ended = fleet.agent(2).ended(Duration::from_secs(20)).await.expect("it ends");
    assert!(!ended.success());
    assert!(
        fleet.agent(2).log_text().contains("agent.lock")
            || fleet.agent(2).log_text().contains("another agent")
    );
}

/// An etcd that answers late is no etcd that is gone.
#[tokio::test]
async fn etcd_slow() {
    let mut fleet = Fleet::bare(Options { etcd_proxy: true, ..Options::hosts(2) }).await;
    for agent in &fleet.agents {
        agent.etcd_proxy.as_ref().expect("asked for").set(Mode::Delay(Duration::from_millis(150)));
    }
    fleet.start_agents().await;
    fleet.apply(&documents(2)).await;
    fleet.until_converged(2).await;
    let mut writer = fleet.writer(1).await;
    // One agent cut off: its server goes on, and what changed meanwhile is picked up.
    fleet.agents[1].etcd_proxy.as_ref().expect("asked for").set(Mode::Cut);
    fleet.until("its lease ends", |world| (!world.is_alive(&host(2))).then_some(())).await;
    fleet.edit(&member(2), json!({"mysql": {"max_connections": 77}})).await;
    writer.more(20).await;
    fleet.agents[1].etcd_proxy.as_ref().expect("asked for").set(Mode::Pass);
    fleet.until_converged(2).await;
    assert_eq!(fleet.sql(2).await.global("max_connections").await, "77");
    assert!(
        fleet.world().status(&member(2)).and_then(|s| s.waiting_on).is_none_or(|w| w.kind != WaitKind::Etcd)
    );
    verify(&fleet, writer).await;
}
