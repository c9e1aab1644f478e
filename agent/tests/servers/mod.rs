//! Two real servers in Docker, made from Schemadock's own file and first statements.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, OptsBuilder, SslOpts};
use schemadock_agent::mysqld::adapter::Adapter;
use schemadock_agent::mysqld::{Endpoint, Login, Mysqld as _, Session, SourceSpec};
use schemadock_agent_plan::accounts;
use schemadock_agent_plan::config::{MOUNT, RUN_MOUNT, SOCKET, ServerConfig, Start};
use schemadock_agent_plan::desired::{Desired, HostDefaults};
use schemadock_schema::secrets::{ADMIN_USER, AGENT_USER, Password, Secrets, replication_user};
use schemadock_schema::size::{MIB, Resources};
use schemadock_schema::target::Target;

const IMAGE: &str = "schemadock-mysql:debian";

/// How long a login may take here.
pub(crate) const LOGIN: Duration = Duration::from_secs(5);

/// One server.
pub(crate) struct Server {
    pub(crate) server_id: u32,
    pub(crate) address: String,
    pub(crate) port: u16,
    pub(crate) secrets: Secrets,
    name: String,
    dir: PathBuf,
}

/// Both, and what removes them.
pub(crate) struct Pair {
    pub(crate) a: Server,
    pub(crate) b: Server,
    fleet: String,
    _dir: tempfile::TempDir,
}

impl Drop for Pair {
    fn drop(&mut self) {
        remove_all(&self.fleet);
    }
}

fn docker(arguments: &[&str]) -> String {
    let done = Command::new("docker").args(arguments).output().expect("docker runs");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "docker {arguments:?}: {said}");
    String::from_utf8_lossy(&done.stdout).trim().to_owned()
}

fn remove_all(fleet: &str) {
    let label = format!("label=schemadock.fleet={fleet}");
    for id in docker(&["ps", "-aq", "--filter", &label]).lines() {
        docker(&["rm", "-f", id]);
    }
}

/// Who the servers run as: uid and gid.
fn user() -> (u32, u32) {
    let uid = nix::unistd::geteuid();
    if uid.is_root() { (999, 999) } else { (uid.as_raw(), nix::unistd::getegid().as_raw()) }
}

fn give_away(path: &Path) {
    let (uid, gid) = user();
    std::os::unix::fs::chown(path, Some(uid), Some(gid)).unwrap();
}

impl Pair {
    /// Makes and starts both.
    pub(crate) async fn start() -> Pair {
        // An error means that it was named already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let fleet = format!("it-mysqld-{}", std::process::id());
        remove_all(&fleet);
        let dir = tempfile::Builder::new().prefix("it-m").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let template = dir.path().join("t");
        make_template(&fleet, &template);
        let mut count = 0;
        let password = || {
            count += 1;
            format!("p\\w'{count}\"%")
        };
        let secrets = Secrets::from_random(password, "0a0b0c0d");
        let port = 23_300 + (std::process::id() % 500) as u16;
        let server = |letter: &str, server_id: u32| Server {
            server_id,
            address: format!("127.0.9.{server_id}"),
            port,
            secrets: secrets.clone(),
            name: format!("{fleet}-{letter}"),
            dir: dir.path().join(letter),
        };
        let (a, b) = (server("a", 1), server("b", 2));
        for server in [&a, &b] {
            server.create(&fleet, &template);
        }
        for server in [&a, &b] {
            server.up().await;
        }
        Pair { a, b, fleet, _dir: dir }
    }
}

fn make_template(fleet: &str, template: &Path) {
    std::fs::create_dir_all(template).unwrap();
    give_away(template);
    let (uid, gid) = user();
    docker(&[
        "run",
        "--rm",
        "--label",
        &format!("schemadock.fleet={fleet}"),
        "--user",
        &format!("{uid}:{gid}"),
        "-v",
        &format!("{}:{MOUNT}", template.display()),
        IMAGE,
        "mysqld",
        "--no-defaults",
        "--initialize-insecure",
        "--loose-mysqlx=OFF",
        "--secure-file-priv=NULL",
        &format!("--datadir={MOUNT}/data"),
    ]);
    for entry in std::fs::read_dir(template.join("data")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name == "auto.cnf" || name.ends_with(".pem") {
            std::fs::remove_file(path).unwrap();
        }
    }
}

impl Server {
    fn create(&self, fleet: &str, template: &Path) {
        std::fs::create_dir_all(self.dir.join("run")).unwrap();
        give_away(&self.dir.join("run"));
        let mount = self.dir.join("mount");
        let copied = Command::new("cp").arg("-a").arg(template).arg(&mount).status().unwrap();
        assert!(copied.success());
        let target = serde_json::json!({
            "role": "master",
            "port": self.port,
            "size": {"memory": 768 * MIB, "cpus": 1},
            "mysql": {"disabled_storage_engines": ""},
        });
        let target: Target = serde_json::from_value(target).unwrap();
        let limits = Resources { memory: 768 * MIB, cpus: 1.0, disk: None };
        let defaults = HostDefaults {
            host: "ithost".parse().unwrap(),
            address: self.address.clone(),
            image: IMAGE.to_owned(),
            offered: limits,
        };
        let instance = format!("ithost-it-db{}", self.server_id).parse().unwrap();
        let desired = Desired::resolve(&instance, &"it".parse().unwrap(), &target, None, &defaults);
        let config = ServerConfig::of(&desired, self.server_id, Start::First);
        std::fs::write(mount.join("my.cnf"), config.render()).unwrap();
        let wanted = accounts::wanted(&self.secrets, [1, 2]);
        std::fs::write(mount.join("init.sql"), accounts::first_start(&wanted)).unwrap();
        for file in ["my.cnf", "init.sql"] {
            give_away(&mount.join(file));
        }
        let (uid, gid) = user();
        docker(&[
            "create",
            "--name",
            &self.name,
            "--label",
            &format!("schemadock.fleet={fleet}"),
            "--network",
            "host",
            "--stop-signal",
            "KILL",
            "--user",
            &format!("{uid}:{gid}"),
            "-v",
            &format!("{}:{MOUNT}", mount.display()),
            "-v",
            &format!("{}:{RUN_MOUNT}", self.dir.join("run").display()),
            IMAGE,
            "mysqld",
            &format!("--defaults-file={MOUNT}/my.cnf"),
        ]);
        docker(&["start", &self.name]);
    }

    /// Waits until the agent can log in.
    pub(crate) async fn up(&self) -> Box<dyn Session> {
        let until = Instant::now() + Duration::from_secs(40);
        loop {
            match Adapter::new().connect(&self.socket(), &self.agent(), LOGIN).await {
                Ok(session) => return session,
                Err(error) if Instant::now() > until => {
                    panic!("{error}: {}", docker(&["logs", "--tail", "20", &self.name]));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    pub(crate) fn docker(&self, verb: &str) -> String {
        docker(&[verb, &self.name])
    }

    /// Waits until its process has ended, and starts it again.
    pub(crate) async fn start_again(&self) -> Box<dyn Session> {
        docker(&["wait", &self.name]);
        docker(&["start", &self.name]);
        self.up().await
    }

    pub(crate) fn socket(&self) -> Endpoint {
        Endpoint::Socket(self.dir.join("run").join(SOCKET))
    }

    pub(crate) fn tcp(&self) -> Endpoint {
        Endpoint::Tcp { host: self.address.clone(), port: self.port }
    }

    pub(crate) fn agent(&self) -> Login {
        Login { user: AGENT_USER.to_owned(), password: self.secrets.agent.clone() }
    }

    pub(crate) fn admin(&self) -> Login {
        Login { user: ADMIN_USER.to_owned(), password: self.secrets.admin.clone() }
    }

    /// What `follower` replicates from.
    pub(crate) fn spec(&self, follower: &Server) -> SourceSpec {
        SourceSpec {
            host: self.address.clone(),
            port: self.port,
            user: replication_user(follower.server_id),
            password: self.secrets.replication.clone(),
        }
    }

    /// A session without the adapter, over TCP with TLS.
    pub(crate) async fn raw(&self, user: &str, password: &Password) -> Result<Conn, mysql_async::Error> {
        let tls = SslOpts::default()
            .with_danger_accept_invalid_certs(true)
            .with_danger_skip_domain_validation(true);
        let options = OptsBuilder::default()
            .ip_or_hostname(self.address.clone())
            .tcp_port(self.port)
            .user(Some(user.to_owned()))
            .pass(Some(password.expose().to_owned()))
            .ssl_opts(tls)
            .prefer_socket(false);
        Conn::new(options).await
    }

    /// The application.
    pub(crate) async fn application(&self) -> Result<Conn, mysql_async::Error> {
        self.raw(&self.secrets.application.user, &self.secrets.application.password).await
    }

    /// Statements as administrator.
    pub(crate) async fn sql(&self, statements: &[&str]) -> Conn {
        let mut conn = self.raw(ADMIN_USER, &self.secrets.admin).await.unwrap();
        for statement in statements {
            conn.query_drop(*statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
        }
        conn
    }
}
