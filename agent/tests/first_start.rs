//! A server's first start on the real image: with the very file and statements that the plan makes.

mod fixture;

use fixture::{Fixture, IMAGE, name};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, DriverError, OptsBuilder, SslOpts};
use schemadock_agent::containers::ContainerSpec;
use schemadock_agent::disk::{Disk, InstanceFile, Places};
use schemadock_agent_plan::accounts;
use schemadock_agent_plan::config::{ServerConfig, Start};
use schemadock_agent_plan::desired::{Desired, HostDefaults};
use schemadock_schema::secrets::{ADMIN_USER, AGENT_USER, Password, Secrets, replication_user};
use schemadock_schema::size::{GIB, MIB, Resources};

/// What MySQL says to a wrong password, to a locked account, to a missing right, to closed doors.
const DENIED: u16 = 1045;
const LOCKED: u16 = 3118;
const TABLE_DENIED: u16 = 1142;
const OFFLINE: u16 = 3032;
const ENGINE_DISABLED: u16 = 3161;

enum Way<'a> {
    Socket(&'a Places),
    Tcp(u16),
    Tls(u16),
}

async fn log_in(way: &Way<'_>, user: &str, password: &str) -> Result<Conn, u16> {
    let options = OptsBuilder::default().user(Some(user)).pass(Some(password)).prefer_socket(false);
    let options = match way {
        Way::Socket(places) => options.socket(Some(places.socket.to_str().unwrap())),
        Way::Tcp(port) => options.ip_or_hostname("127.0.0.1").tcp_port(*port),
        Way::Tls(port) => options.ip_or_hostname("127.0.0.1").tcp_port(*port).ssl_opts(
            SslOpts::default()
                .with_danger_accept_invalid_certs(true)
                .with_danger_skip_domain_validation(true),
        ),
    };
    match Conn::new(options).await {
        Ok(conn) => Ok(conn),
        Err(mysql_async::Error::Server(error)) => Err(error.code),
        // To somebody it does not know, MySQL feigns any plugin.
        Err(mysql_async::Error::Driver(DriverError::UnknownAuthPlugin { .. })) => Err(DENIED),
        Err(error) => panic!("{user}: {error}"),
    }
}

async fn refused(conn: &mut Conn, sql: &str) -> Option<u16> {
    match conn.query_drop(sql).await {
        Ok(()) => None,
        Err(mysql_async::Error::Server(error)) => Some(error.code),
        Err(error) => panic!("{sql}: {error}"),
    }
}

#[tokio::test]
async fn a_server_comes_up_closed_with_its_accounts_and_an_empty_history() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let fixture = Fixture::new("first").await;
    let disk = fixture.disk("d");
    for (member, memory) in [("db1", GIB), ("db2", 512 * MIB)] {
        let instance = name(&format!("ithost-it-{member}"));
        let secrets = Secrets::from_random(
            {
                // Every character that could go wrong on the way.
                let mut n = 0;
                move || {
                    n += 1;
                    format!("p'w\"\\{n}#;-- x")
                }
            },
            "0badf00d",
        );
        let port = free_port();
        let desired = desired(&instance, port, memory);
        let config = ServerConfig::of(&desired, 101, Start::First);
        let init = accounts::first_start(&accounts::wanted(&secrets, [101, 102]));
        let mut spec = fixture.server(&disk, instance.as_str()).await;
        disk.write_file(&instance, InstanceFile::Config, Some(&config.render())).await.unwrap();
        disk.write_file(&instance, InstanceFile::Init, Some(&init)).await.unwrap();
        spec = ContainerSpec { command: vec!["--defaults-file=/schemadock/my.cnf".to_owned()], ..spec };
        spec.limits.memory = memory;
        fixture.up(&spec).await;
        let places = disk.places(&instance).await.unwrap();
        let socket = Way::Socket(&places);
        let mut agent = log_in(&socket, AGENT_USER, secrets.agent.expose()).await.unwrap();

        let closed: (String, bool, bool, bool) = agent
            .query_first("SELECT @@gtid_executed, @@offline_mode, @@super_read_only, @@read_only")
            .await
            .unwrap()
            .unwrap();
        assert_eq!(closed, (String::new(), true, true, true));
        for (variable, wanted) in &config.verified {
            let sql = format!("SHOW GLOBAL VARIABLES WHERE variable_name = '{variable}'");
            let found: Option<(String, String)> = agent.query_first(sql).await.unwrap();
            assert_eq!(found.map(|(_, value)| value).as_ref(), Some(wanted), "{variable}");
        }
        let plugins: Vec<String> = agent
            .query("SELECT plugin_name FROM information_schema.plugins WHERE plugin_status = 'ACTIVE'")
            .await
            .unwrap();
        for plugin in ["rpl_semi_sync_source", "rpl_semi_sync_replica", "clone"] {
            assert!(plugins.iter().any(|active| active == plugin), "{plugin}: {plugins:?}");
        }
        only_the_right_ones_get_in(&socket, port, &secrets).await;

        for open in ["super_read_only", "read_only", "offline_mode"] {
            agent.query_drop(format!("SET GLOBAL {open} = OFF")).await.unwrap();
        }
        the_application_keeps_to_its_schemas(port, &secrets).await;

        // Made anew, the accounts are the same, and the history knows nothing of it.
        let before: String = agent.query_first("SELECT @@gtid_executed").await.unwrap().unwrap();
        for statement in init.lines() {
            agent.query_drop(statement).await.unwrap();
        }
        let after: String = agent.query_first("SELECT @@gtid_executed").await.unwrap().unwrap();
        assert_eq!(before, after);
        the_application_keeps_to_its_schemas(port, &secrets).await;
    }
}

async fn only_the_right_ones_get_in(socket: &Way<'_>, port: u16, secrets: &Secrets) {
    let admin = |password: &Password| password.expose().to_owned();
    assert_eq!(log_in(socket, "root", "").await.err(), Some(LOCKED));
    assert_eq!(log_in(&Way::Tls(port), AGENT_USER, secrets.agent.expose()).await.err(), Some(DENIED));
    log_in(&Way::Tls(port), ADMIN_USER, &admin(&secrets.admin)).await.unwrap();
    assert_eq!(log_in(&Way::Tcp(port), ADMIN_USER, &admin(&secrets.admin)).await.err(), Some(DENIED));
    for id in [101, 102] {
        log_in(&Way::Tls(port), &replication_user(id), secrets.replication.expose()).await.unwrap();
    }
    let application = &secrets.application;
    let password = application.password.expose();
    assert_eq!(log_in(&Way::Tls(port), &application.user, password).await.err(), Some(OFFLINE));
}

async fn the_application_keeps_to_its_schemas(port: u16, secrets: &Secrets) {
    let application = &secrets.application;
    let mut conn = log_in(&Way::Tls(port), &application.user, application.password.expose()).await.unwrap();
    for sql in [
        "DROP DATABASE IF EXISTS s",
        "CREATE DATABASE s",
        "CREATE TABLE s.t (a INT PRIMARY KEY)",
        "INSERT INTO s.t VALUES (1)",
        "CREATE VIEW s.v AS SELECT * FROM s.t",
        "CREATE PROCEDURE s.p() SELECT 1",
    ] {
        assert_eq!(refused(&mut conn, sql).await, None, "{sql}");
    }
    assert_eq!(refused(&mut conn, "SELECT * FROM mysql.user").await, Some(TABLE_DENIED));
    assert_eq!(refused(&mut conn, "SELECT * FROM sys.version").await, Some(TABLE_DENIED));
    assert_eq!(refused(&mut conn, "CREATE TABLE s.m (a INT) ENGINE=MyISAM").await, Some(ENGINE_DISABLED));
    for sql in [
        "CREATE TABLE mysql.mine (a INT)",
        "DROP TABLE mysql.user",
        "SET GLOBAL offline_mode = ON",
        "CREATE USER other",
        "CREATE DEFINER='root'@'localhost' PROCEDURE s.q() SELECT * FROM mysql.user",
        "GRANT SELECT ON mysql.* TO CURRENT_USER()",
    ] {
        assert!(refused(&mut conn, sql).await.is_some(), "{sql}");
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn desired(instance: &schemadock_schema::InstanceName, port: u16, memory: u64) -> Desired {
    let target = serde_json::json!({ "role": "master", "port": port, "size": { "memory": memory } });
    let offered = Resources { memory: 8 * GIB, cpus: 2.0, disk: None };
    let defaults = HostDefaults {
        host: "ithost".parse().unwrap(),
        address: "127.0.0.1".to_owned(),
        image: IMAGE.to_owned(),
        offered,
    };
    let cluster = "it".parse().unwrap();
    Desired::resolve(instance, &cluster, &serde_json::from_value(target).unwrap(), None, &defaults)
}
