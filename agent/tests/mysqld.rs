//! The adapter to MySQL, every verb on real servers: what it does, and how it fails.
//!
//! The parts follow each other on one pair of servers, since what they do (closing, freezing, killing) is felt by all.

mod acknowledging;
mod halves;
mod locks;
mod schemas;
mod servers;

use std::time::{Duration, Instant};

use acknowledging::{commits_wait_for_acknowledgements, receivers_are_shut_out};
use halves::an_applier_with_half_a_transaction_stops;
use locks::who_waits_for_a_lock_hears_of_its_exchange;
use mysql_async::prelude::Queryable as _;
use schemadock_agent::mysqld::adapter::Adapter;
use schemadock_agent::mysqld::{Endpoint, Login, MysqlError, Mysqld as _, Session, SourceSpec};
use schemadock_agent_plan::accounts::{self, Account, AccountKind};
use schemadock_agent_plan::observed::{CloneState, ServerSeen, ThreadState};
use schemadock_schema::gtid::GtidSet;
use schemadock_schema::secrets::{AGENT_USER, Password, replication_user};
use schemas::a_schema_is_frozen_on_one_server;
use servers::{LOGIN, Pair, Server};

type Boxed = Box<dyn Session>;

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_verb_does_what_it_says() {
    let begun = Instant::now();
    let pair = Pair::start().await;
    let (a, b) = (&pair.a, &pair.b);
    let (mut at_a, mut at_b) = (a.up().await, b.up().await);
    let told = |part: &str| println!("{:6.2} s  {part}", begun.elapsed().as_secs_f64());
    told("two servers");
    a_new_server_is_closed_and_empty(a, &mut at_a).await;
    logins_fail_by_number(a).await;
    variables_are_set(&mut at_a).await;
    semi_sync_is_switched(&mut at_b).await;
    a_server_is_opened_by_steps(a, &mut at_a).await;
    told("opened");
    closing_gives_up_and_writes_go_on(a, &mut at_a).await;
    told("closed and opened");
    accounts_reach_no_log(a, &mut at_a).await;
    a_channel_is_made(a, b, &mut at_a, &mut at_b).await;
    told("replicates");
    commits_wait_for_acknowledgements(a, &mut at_a, &mut at_b).await;
    told("acknowledged");
    receivers_are_shut_out(&mut at_a, &mut at_b).await;
    told("shut out");
    repointing_keeps_what_was_received(a, b, &mut at_a, &mut at_b).await;
    told("re-pointed");
    an_applier_with_half_a_transaction_stops(a, b, &mut at_a, &mut at_b).await;
    told("cut");
    what_is_harmless_is_told_from_what_is_not(a, b, &mut at_a, &mut at_b).await;
    told("judged");
    who_waits_for_a_lock_hears_of_its_exchange(a, &mut at_a).await;
    a_schema_is_frozen_on_one_server(a, &mut at_a).await;
    told("a schema frozen");
    sessions_are_ended(a, &mut at_a).await;
    a_full_server_still_takes_the_agent(a, &mut at_a).await;
    told("sessions");
    a_frozen_server_poisons(a, at_a).await;
    let mut at_a = a.up().await;
    told("frozen");
    a_clone_is_taken(a, b, &mut at_a, at_b).await;
    told("cloned");
    a_killed_server_breaks_the_connection(b).await;
    told("done");
}

fn refused<T>(answer: Result<T, MysqlError>, number: u16) {
    let found = answer.err().expect("it should be refused");
    assert_eq!(found.number(), Some(number), "{found}");
}

async fn seen(session: &mut Boxed) -> ServerSeen {
    session.observe().await.unwrap()
}

async fn executed(session: &mut Boxed) -> GtidSet {
    seen(session).await.gtid_executed
}

async fn a_new_server_is_closed_and_empty(a: &Server, session: &mut Boxed) {
    let server = seen(session).await;
    assert!(server.offline_mode && server.super_read_only && server.read_only && !server.writable());
    assert!(!server.semi_sync_source && !server.semi_sync_replica);
    assert!(server.gtid_executed.is_empty() && server.gtid_purged.is_empty());
    assert_eq!((server.server_id, server.server_uuid.len()), (1, 36));
    assert_eq!(server.channel, None);
    assert!(server.version.split('.').all(|part| part.parse::<u32>().is_ok()), "{}", server.version);
    assert!(server.uptime < 600);

    let accounts = session.accounts().await.unwrap();
    let locked: Vec<&str> = accounts.iter().filter(|one| one.locked).map(|one| one.user.as_str()).collect();
    assert_eq!(locked, ["root"]);
    assert_eq!(accounts.len(), 6, "{accounts:?}");

    let mut admin = Adapter::new().connect(&a.tcp(), &a.admin(), LOGIN).await.unwrap();
    let source = admin.observe_source(&replication_user(2)).await.unwrap();
    assert!(source.account && !source.writable && source.gtid_executed.is_empty());
    assert_eq!((source.server_uuid, source.version), (server.server_uuid, server.version));
    assert!(!admin.observe_source("schemadock_r9").await.unwrap().account);
    assert!(!session.error_log(5).await.unwrap().is_empty());
}

async fn logins_fail_by_number(a: &Server) {
    let adapter = Adapter::new();
    let wrong = Login { password: Password::new("not it".to_owned()), ..a.agent() };
    refused(adapter.connect(&a.socket(), &wrong, LOGIN).await, 1045);
    // The agent's account is for the socket only.
    refused(adapter.connect(&a.tcp(), &a.agent(), LOGIN).await, 1045);
    let nobody = Endpoint::Socket("/nonexistent/mysqld.sock".into());
    let error = adapter.connect(&nobody, &a.agent(), LOGIN).await.err().unwrap();
    assert!(matches!(error, MysqlError::Connection { .. }), "{error}");
    let Err(mysql_async::Error::Server(offline)) = a.application().await else { panic!("it is offline") };
    assert_eq!(offline.code, 3032);
}

async fn variables_are_set(session: &mut Boxed) {
    for (name, written, shown) in [
        ("max_connections", "200", "200"),
        ("max_allowed_packet", "32M", "33554432"),
        ("long_query_time", "1.5", "1.500000"),
        ("log_queries_not_using_indexes", "ON", "ON"),
        ("binlog_row_image", "minimal", "MINIMAL"),
        ("init_connect", "5", "5"),
        ("init_connect", "SELECT 'a\\b'", "SELECT 'a\\b'"),
    ] {
        session.set_variable(name, Some(written)).await.unwrap();
        assert_eq!(session.variables(&[name]).await.unwrap()[name], shown);
        session.set_variable(name, None).await.unwrap();
    }
    refused(session.set_variable("no_such_variable", Some("1")).await, 1193);
    refused(session.set_variable("innodb_page_size", Some("8K")).await, 1238);
    refused(session.set_variable("max_connections", Some("many")).await, 1232);
    refused(session.set_variable("binlog_row_image", Some("most")).await, 1231);
    refused(session.set_variable("max_connections", Some("0")).await, 1231);
    let injected = session.set_variable("max_connections = 1, GLOBAL port", Some("1")).await;
    assert!(matches!(injected, Err(MysqlError::Answer { .. })), "{injected:?}");
    assert!(session.variables(&["no_such_variable"]).await.unwrap().is_empty());
    let wanted = [("server_id", "9"), ("gtid_mode", "on")].map(|(n, v)| (n.to_owned(), v.to_owned()));
    let differing = session.differing(&wanted.into()).await.unwrap();
    assert_eq!(differing.into_iter().collect::<Vec<_>>(), [("server_id".to_owned(), "1".to_owned())]);
}

async fn semi_sync_is_switched(session: &mut Boxed) {
    session.set_semi_sync_source(Some(1)).await.unwrap();
    session.set_semi_sync_replica(true).await.unwrap();
    let server = seen(session).await;
    assert!(server.semi_sync_source && server.semi_sync_replica);
    session.set_semi_sync_source(None).await.unwrap();
    session.set_semi_sync_replica(false).await.unwrap();
    let server = seen(session).await;
    assert!(!server.semi_sync_source && !server.semi_sync_replica);
}

async fn a_server_is_opened_by_steps(a: &Server, session: &mut Boxed) {
    refused(session.marker(SECOND).await, 1290);
    session.set_super_read_only(false, SECOND).await.unwrap();
    // There is no schema of that name.
    session.marker(SECOND).await.unwrap();
    let server = seen(session).await;
    assert_eq!(server.gtid_executed.count(), 1);
    assert!(server.read_only && !server.super_read_only);
    session.set_read_only(false).await.unwrap();
    session.set_offline_mode(false).await.unwrap();
    assert!(seen(session).await.writable());
    let mut application = a.application().await.unwrap();
    for sql in
        ["CREATE DATABASE shop", "CREATE TABLE shop.t (a INT PRIMARY KEY)", "INSERT INTO shop.t VALUES (1)"]
    {
        application.query_drop(sql).await.unwrap();
    }
    assert!(application.query_drop("SELECT authentication_string FROM mysql.user").await.is_err());
}

async fn closing_gives_up_and_writes_go_on(a: &Server, session: &mut Boxed) {
    let mut holder = a.application().await.unwrap();
    holder.query_drop("LOCK TABLES shop.t WRITE").await.unwrap();
    let begun = Instant::now();
    refused(session.set_super_read_only(true, Duration::from_millis(300)).await, 1317);
    assert!(begun.elapsed() < SECOND, "{:?}", begun.elapsed());
    assert!(seen(session).await.writable());
    holder.query_drop("INSERT INTO shop.t VALUES (2)").await.unwrap();
    holder.query_drop("UNLOCK TABLES").await.unwrap();
    session.set_super_read_only(true, SECOND).await.unwrap();
    let server = seen(session).await;
    assert!(server.super_read_only && server.read_only);
    assert!(holder.query_drop("INSERT INTO shop.t VALUES (3)").await.is_err());
    session.set_read_only(false).await.unwrap();
    assert!(!seen(session).await.super_read_only);
}

async fn accounts_reach_no_log(a: &Server, session: &mut Boxed) {
    let account = |password: &str| Account {
        user: replication_user(7),
        host: "%",
        password: Password::new(password.to_owned()),
        kind: AccountKind::Replication,
    };
    session.set_super_read_only(true, SECOND).await.unwrap();
    refused(session.ensure_account(&account("first'\\")).await, 1290);
    session.set_read_only(false).await.unwrap();
    let before = executed(session).await;
    session.ensure_account(&account("first'\\")).await.unwrap();
    session.ensure_account(&account("second")).await.unwrap();
    assert_eq!(executed(session).await, before);
    assert!(a.raw("schemadock_r7", &Password::new("first'\\".to_owned())).await.is_err());
    a.raw("schemadock_r7", &Password::new("second".to_owned())).await.unwrap();
    for account in accounts::wanted(&a.secrets, [1, 2]).iter().chain(&accounts::wanted(&a.secrets, [])) {
        session.ensure_account(account).await.unwrap();
    }
    assert_eq!(executed(session).await, before);
    // What the session does next is logged again.
    session.marker(SECOND).await.unwrap();
    assert_eq!(executed(session).await.count(), before.count() + 1);
}

async fn a_channel_is_made(a: &Server, b: &Server, at_a: &mut Boxed, at_b: &mut Boxed) {
    let wrong = SourceSpec { password: Password::new("hidden".to_owned()), ..a.spec(b) };
    at_b.change_source(&wrong).await.unwrap();
    at_b.start_receiver().await.unwrap();
    let error = until(at_b, |server| server.channel.as_ref()?.receiver_error.clone()).await;
    assert_eq!(error.0, 1045);
    assert!(!error.1.contains("hidden"));
    assert_eq!(seen(at_b).await.channel.unwrap().receiver, ThreadState::Connecting);
    refused(at_b.change_source(&a.spec(b)).await, 3081);
    at_b.stop_receiver(3 * SECOND).await.unwrap();

    at_b.change_source(&a.spec(b)).await.unwrap();
    at_b.start_applier().await.unwrap();
    at_b.start_receiver().await.unwrap();
    let wanted = executed(at_a).await;
    assert!(at_b.wait_executed(&wanted, 5 * SECOND).await.unwrap());
    let server = until(at_b, |server| {
        let channel = server.channel.as_ref()?;
        let at_rest = channel.receiver == ThreadState::On && channel.lag_seconds.is_none();
        at_rest.then(|| server.clone())
    })
    .await;
    assert_eq!(server.gtid_executed, wanted);
    assert_eq!(server.received(), wanted);
    let channel = server.channel.unwrap();
    assert_eq!((channel.host, channel.port), (a.address.clone(), a.port));
    assert_eq!((channel.user, channel.applier), (replication_user(2), ThreadState::On));
    assert!(channel.auto_position && channel.ssl && channel.delay == 0);
    assert_eq!((channel.receiver_error, channel.applier_error), (None, None));
    assert_eq!(channel.source_uuid.unwrap(), seen(at_a).await.server_uuid);
    // Replicas, too, take clients.
    at_b.set_offline_mode(false).await.unwrap();
    let mut never = GtidSet::new();
    never.insert(wanted.sources().next().unwrap().clone(), 1000, 1000);
    assert!(!at_b.wait_executed(&never, Duration::from_millis(50)).await.unwrap());
    assert!(!at_b.wait_executed(&never, Duration::ZERO).await.unwrap());
}

async fn repointing_keeps_what_was_received(a: &Server, b: &Server, at_a: &mut Boxed, at_b: &mut Boxed) {
    let mut holder = b.sql(&["LOCK TABLES shop.t READ"]).await;
    a.sql(&["INSERT INTO shop.t VALUES (10)", "INSERT INTO shop.t VALUES (11)"]).await;
    let wanted = executed(at_a).await;
    until(at_b, |server| server.received().contains(&wanted).then_some(())).await;
    let before = until(at_b, |server| {
        server.channel.as_ref()?.lag_seconds?;
        Some(server.clone())
    })
    .await;
    assert!(!before.gtid_executed.contains(&wanted));
    assert!(before.channel.as_ref().unwrap().lag_seconds.unwrap() < 10.0);

    refused(at_b.repoint("127.0.9.9", 1).await, 3021);
    at_b.stop_receiver(3 * SECOND).await.unwrap();
    at_b.repoint("127.0.9.9", 1).await.unwrap();
    at_b.start_receiver().await.unwrap();
    let after = seen(at_b).await;
    assert_eq!(after.received(), wanted);
    let channel = after.channel.unwrap();
    assert_eq!((channel.host.as_str(), channel.port), ("127.0.9.9", 1));
    assert!(channel.auto_position && channel.ssl);
    assert_eq!(channel.user, replication_user(2));
    holder.query_drop("UNLOCK TABLES").await.unwrap();
    // Nobody is there to send it again.
    assert!(at_b.wait_executed(&wanted, 5 * SECOND).await.unwrap());

    at_b.stop_receiver(3 * SECOND).await.unwrap();
    at_b.stop_applier(3 * SECOND).await.unwrap();
    let loses = at_b.repoint(&a.address, a.port).await;
    assert!(matches!(loses, Err(MysqlError::Answer { .. })), "{loses:?}");
    at_b.start_applier().await.unwrap();
    at_b.repoint(&a.address, a.port).await.unwrap();
    at_b.start_receiver().await.unwrap();
    until(at_b, |server| (server.channel.as_ref()?.receiver == ThreadState::On).then_some(())).await;
}

async fn what_is_harmless_is_told_from_what_is_not(
    a: &Server,
    b: &Server,
    at_a: &mut Boxed,
    at_b: &mut Boxed,
) {
    a.sql(&[
        "CREATE TABLE shop.m (a INT) ENGINE = MEMORY",
        "INSERT INTO shop.m VALUES (1)",
        "CREATE TABLE shop.i (a INT) ENGINE = MyISAM",
    ])
    .await;
    let emptied = at_a.tables_that_clone_empties().await.unwrap();
    assert_eq!(emptied, ["shop.i (MyISAM)", "shop.m (MEMORY)"]);
    let common = executed(at_a).await;
    assert!(at_b.wait_executed(&common, 5 * SECOND).await.unwrap());
    assert!(at_a.harmless(&GtidSet::new()).await.unwrap().is_empty());

    // On a read-only replica: a FLUSH, a change of the log's file, and a restart that empties the MEMORY table.
    b.sql(&["FLUSH TABLES", "FLUSH BINARY LOGS"]).await;
    b.docker("kill");
    *at_b = b.start_again().await;
    assert!(seen(at_b).await.super_read_only);
    b.sql(&["SELECT * FROM shop.m", "FLUSH PRIVILEGES"]).await;
    let server = seen(at_b).await;
    let foreign = server.gtid_executed.minus(&common);
    assert_eq!(foreign, server.gtid_executed.of_uuid(&server.server_uuid));
    assert_eq!(foreign.count(), 3, "{foreign}");
    assert_eq!(at_b.harmless(&foreign).await.unwrap(), foreign);
    // Nor is what somebody else did, and what is not there.
    assert!(at_a.harmless(&foreign).await.unwrap().is_empty());

    // The emptying of another table looks the same, but for its engine.
    b.sql(&[
        "SET GLOBAL super_read_only = OFF",
        "CREATE TABLE shop.own (a INT)",
        "TRUNCATE TABLE `shop`.`own` /* generated by server, implicitly emptying in-memory table */",
        "INSERT INTO shop.own VALUES (1)",
        "SET GLOBAL super_read_only = ON",
    ])
    .await;
    let harmful = executed(at_b).await.minus(&server.gtid_executed);
    assert_eq!(harmful.count(), 3);
    assert_eq!(at_b.harmless(&harmful.union(&foreign)).await.unwrap(), foreign);
    let whole = executed(at_a).await;
    let among = at_a.harmless(&whole).await.unwrap();
    assert!(among.is_empty(), "{among}");

    at_a.inject_empty(&foreign).await.unwrap();
    assert!(executed(at_a).await.contains(&foreign));
    assert_eq!(at_a.harmless(&foreign).await.unwrap(), foreign);
    at_a.marker(SECOND).await.unwrap();
    assert!(executed(at_a).await.minus(&whole.union(&foreign)).count() == 1);
    at_a.set_super_read_only(true, SECOND).await.unwrap();
    at_a.inject_empty(&harmful).await.unwrap();
    at_a.set_read_only(false).await.unwrap();
    a.sql(&["DROP TABLE shop.m, shop.i"]).await;
}

async fn sessions_are_ended(a: &Server, at_a: &mut Boxed) {
    let mut other = a.up().await;
    let _another = a.up().await;
    let mut sleeper = a.up().await;
    let blocked = tokio::spawn(async move {
        let mut never = GtidSet::new();
        let uuid = "3e11fa47-71ca-11e1-9e33-c80aa9429562".to_owned();
        never.insert(schemadock_schema::gtid::Source { uuid, tag: None }, 1, 1);
        sleeper.wait_executed(&never, 60 * SECOND).await
    });
    let begun = Instant::now();
    assert_eq!(at_a.end_own_sessions().await.unwrap(), 3);
    assert!(begun.elapsed() < 2 * SECOND, "{:?}", begun.elapsed());
    assert_eq!(at_a.end_own_sessions().await.unwrap(), 0);
    let broken = other.observe().await.err().unwrap();
    assert!(broken.is_broken(), "{broken}");
    assert!(blocked.await.unwrap().is_err());

    let mut application = a.application().await.unwrap();
    let mut admin = a.sql(&["SELECT 1"]).await;
    assert_eq!(at_a.end_client_sessions().await.unwrap(), 1);
    assert!(application.query_drop("SELECT 1").await.is_err());
    admin.query_drop("SELECT 1").await.unwrap();
    // A replica's session is not a client's.
    assert_eq!(at_a.end_client_sessions().await.unwrap(), 0);
}

async fn a_full_server_still_takes_the_agent(a: &Server, at_a: &mut Boxed) {
    at_a.set_variable("max_connections", Some("8")).await.unwrap();
    let mut crowd = Vec::new();
    let full = loop {
        match a.application().await {
            Ok(conn) => crowd.push(conn),
            Err(mysql_async::Error::Server(error)) => break error.code,
            Err(other) => panic!("{other}"),
        }
    };
    assert_eq!(full, 1040);
    let mut extra = a.up().await;
    extra.observe().await.unwrap();
    // There is one such place; the session that exists is not in need of it.
    refused(Adapter::new().connect(&a.socket(), &a.agent(), LOGIN).await, 1040);
    // Without a place for the second session the server gives up by itself.
    crowd[0].query_drop("LOCK TABLES shop.t WRITE").await.unwrap();
    let begun = Instant::now();
    refused(at_a.set_super_read_only(true, Duration::from_millis(100)).await, 1205);
    assert!(begun.elapsed() < 4 * SECOND, "{:?}", begun.elapsed());
    assert!(seen(at_a).await.writable());
    crowd[0].query_drop("UNLOCK TABLES").await.unwrap();
    at_a.set_offline_mode(true).await.unwrap();
    at_a.set_offline_mode(false).await.unwrap();
    at_a.set_variable("max_connections", None).await.unwrap();
}

async fn a_frozen_server_poisons(a: &Server, mut at_a: Boxed) {
    let mut given_up = a.up().await;
    let idle = a.up().await;
    a.docker("pause");
    let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = alive();
    assert!(tokio::time::timeout(Duration::from_millis(50), given_up.observe()).await.is_err());
    let poisoned = given_up.observe().await;
    assert!(matches!(poisoned, Err(MysqlError::Connection { .. })), "{poisoned:?}");
    drop(idle);
    let begun = Instant::now();
    let endpoint = a.socket();
    let (login, adapter) = (a.agent(), Adapter::new());
    let (late, no_login) =
        tokio::join!(at_a.observe(), adapter.connect(&endpoint, &login, Duration::from_millis(300)));
    assert!(matches!(late, Err(MysqlError::Deadline { .. })), "{late:?}");
    assert!(matches!(no_login, Err(MysqlError::Deadline { .. })));
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(1900) && took < Duration::from_millis(2600), "{took:?}");
    let begun = Instant::now();
    let poisoned = at_a.observe().await;
    assert!(matches!(poisoned, Err(MysqlError::Connection { .. })), "{poisoned:?}");
    let unusable = at_a.clone_from(&a.spec(a)).await;
    assert!(matches!(unusable, Err(MysqlError::Connection { .. })), "{unusable:?}");
    drop(at_a);
    assert!(begun.elapsed() < Duration::from_millis(20), "{:?}", begun.elapsed());
    // Nobody goes on waiting for it in the background.
    let parted = async {
        while alive() > before {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(2 * SECOND, parted).await.expect("every good-bye has an end");
    a.docker("unpause");
}

async fn a_clone_is_taken(a: &Server, b: &Server, at_a: &mut Boxed, mut at_b: Boxed) {
    a.sql(&["CREATE TABLE shop.big (a INT AUTO_INCREMENT PRIMARY KEY, b LONGBLOB)"]).await;
    for _ in 0..12 {
        a.sql(&["INSERT INTO shop.big (b) VALUES (RANDOM_BYTES(1024)), (REPEAT('x', 4000000))"]).await;
    }
    let donor = a.spec(b);
    at_b.stop_receiver(3 * SECOND).await.unwrap();
    at_b.stop_applier(3 * SECOND).await.unwrap();
    at_b.forget_source().await.unwrap();
    assert_eq!(seen(&mut at_b).await.channel, None);
    assert_eq!(at_b.clone_progress().await.unwrap().state, CloneState::None);

    refused(at_b.clone_from(&donor).await, 3869);
    at_b.set_clone_donors(&format!("{}:{}", donor.host, donor.port)).await.unwrap();
    refused(at_b.clone_from(&donor).await, 1290);
    at_b.set_super_read_only(false, SECOND).await.unwrap();
    let wrong = SourceSpec { password: Password::new("hidden".to_owned()), ..donor.clone() };
    let error = at_b.clone_from(&wrong).await.err().unwrap();
    assert_eq!(error.number(), Some(3862), "{error}");
    assert!(!error.to_string().contains("hidden"));

    let mut watcher = b.up().await;
    let cloning = tokio::spawn(async move { at_b.clone_from(&donor).await });
    let mut progress = Vec::new();
    while let Ok(now) = watcher.clone_progress().await {
        if now.state == CloneState::InProgress {
            progress.push(now.bytes);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    cloning.await.unwrap().unwrap();
    assert!(progress.iter().any(|bytes| *bytes > 0), "{progress:?}");
    assert!(progress.is_sorted());

    let mut at_b = b.start_again().await;
    let done = at_b.clone_progress().await.unwrap();
    assert!(done.state == CloneState::Completed && done.error.is_none(), "{done:?}");
    assert!(done.bytes > 48_000_000 && done.bytes_total >= done.bytes, "{done:?}");
    let (one, two) = (seen(at_a).await, seen(&mut at_b).await);
    assert_eq!(one.gtid_executed, two.gtid_executed);
    assert_ne!(one.server_uuid, two.server_uuid);
    assert!(two.super_read_only && two.offline_mode);
}

async fn a_killed_server_breaks_the_connection(b: &Server) {
    let mut session = b.up().await;
    b.docker("kill");
    let broken = session.observe().await.err().unwrap();
    assert!(matches!(broken, MysqlError::Connection { .. }), "{broken}");
    assert!(broken.to_string().contains("mysqld.sock"), "{broken}");
    assert_eq!(b.agent().user, AGENT_USER);
}

/// Looks until it finds something.
async fn until<T>(session: &mut Boxed, find: impl Fn(&ServerSeen) -> Option<T>) -> T {
    let end = Instant::now() + 10 * SECOND;
    loop {
        let server = seen(session).await;
        if let Some(found) = find(&server) {
            return found;
        }
        assert!(Instant::now() < end, "{server:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// What an observation costs the agent: `cargo test -p schemadock-agent --test mysqld -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "a measurement"]
async fn what_an_observation_costs() {
    let pair = Pair::start().await;
    let (a, b) = (&pair.a, &pair.b);
    let (mut at_a, mut at_b) = (a.up().await, b.up().await);
    at_a.set_super_read_only(false, SECOND).await.unwrap();
    at_a.marker(SECOND).await.unwrap();
    at_b.change_source(&a.spec(b)).await.unwrap();
    at_b.start_applier().await.unwrap();
    at_b.start_receiver().await.unwrap();
    for (what, session) in [("a master", &mut at_a), ("a replica", &mut at_b)] {
        for _ in 0..200 {
            seen(session).await;
        }
        let (begun, before, rounds) = (Instant::now(), cpu_ticks(), 5000);
        for _ in 0..rounds {
            seen(session).await;
        }
        let micros = begun.elapsed().as_micros() as f64 / f64::from(rounds);
        // A tick is 10 ms.
        let cpu = (cpu_ticks() - before) as f64 * 10_000.0 / f64::from(rounds);
        println!("{what}: {micros:.0} µs, of them {cpu:.0} µs of this process's CPU");
    }
}

fn cpu_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}
