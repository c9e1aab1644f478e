//! What a person would do by hand: copied templates, plain `docker run`, SQL.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use schemadock_integration::fleet::{Fleet, IMAGE, Roamer, Sql, docker};

/// The password of the accounts made by hand.
const PASSWORD: &str = "floor-7eW2kq";

/// A server started by hand, on an address of a fleet's block that the fleet does not use.
pub(crate) struct Server {
    address: String,
    container: String,
    dir: PathBuf,
    number: u8,
}

impl Server {
    pub(crate) fn new(fleet: &Fleet, number: u8) -> Server {
        let address = fleet.address(100 + number);
        let container = format!("{}-floor{number}", fleet.name);
        Server { address, container, dir: fleet.dir().join(format!("floor{number}")), number }
    }

    /// Copies the template that the fleet's agents use, and writes the file and the accounts.
    pub(crate) fn prepare(&self, fleet: &Fleet) {
        let templates = fleet.agents[0].state_dir().join("templates");
        let script = format!(
            "mkdir -p {0}; cp -a --reflink=auto {1}/of-*/data {0}/data; rm -f {0}/data/auto.cnf {0}/data/*.pem; \
             chown --reference={0}/data {0}",
            self.dir.display(),
            templates.display(),
        );
        let done = Command::new("sh").args(["-ec", &script]).status();
        assert!(done.is_ok_and(|status| status.success()), "the template cannot be copied");
        let accounts = format!(
            "SET SESSION sql_log_bin=0;\n\
             CREATE USER 'by_hand'@'%' IDENTIFIED BY '{PASSWORD}';\nGRANT ALL ON *.* TO 'by_hand'@'%';\n"
        );
        self.write("init.sql", &accounts);
        let config = format!(
            "[mysqld]\ndatadir=/x/data\nsocket=/x/s\npid_file=/x/pid\nbind_address={0}\nport=7335\n\
             server_id={1}\nlog_bin=binlog\ngtid_mode=ON\nenforce_gtid_consistency=ON\nsync_binlog=1\n\
             loose_mysqlx=OFF\nsecure_file_priv=NULL\ninit_file=/x/init.sql\nskip_name_resolve=ON\n\
             innodb_buffer_pool_size=288M\nplugin_load_add=clone=mysql_clone.so\nreport_host={0}\n",
            self.address,
            700 + u32::from(self.number),
        );
        self.write("my.cnf", &config);
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.dir.join(name), text).expect("the fleet's directory can be used");
    }

    pub(crate) fn start(&self) {
        let owner = Command::new("stat").args(["-c", "%u:%g"]).arg(self.dir.join("data")).output();
        let owner = String::from_utf8_lossy(&owner.expect("stat is there").stdout).trim().to_owned();
        let volume = format!("{}:/x", self.dir.display());
        let arguments = [
            "run",
            "-d",
            "--name",
            &self.container,
            "--network",
            "host",
            "--user",
            &owner,
            "-v",
            &volume,
            "--entrypoint",
            "mysqld",
            IMAGE,
            "--defaults-file=/x/my.cnf",
        ];
        let (said, done) = docker(&arguments);
        assert!(done, "{said}");
    }

    pub(crate) async fn answers(&self) -> Sql {
        self.answers_as("by_hand", PASSWORD).await
    }

    pub(crate) async fn answers_as(&self, user: &str, password: &str) -> Sql {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            match Sql::try_connect(&self.address, 7335, user, password).await {
                Ok(sql) => return sql,
                Err(why) => assert!(Instant::now() < deadline, "{}: {why}", self.container),
            }
            // A server by hand tells nobody that it listens.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) async fn attach(&self, sql: &mut Sql, source: &Server) {
        sql.run(&format!(
            "CHANGE REPLICATION SOURCE TO SOURCE_HOST='{}', SOURCE_PORT=7335, SOURCE_USER='by_hand', \
             SOURCE_PASSWORD='{PASSWORD}', SOURCE_SSL=1, SOURCE_AUTO_POSITION=1",
            source.address
        ))
        .await;
        sql.run("START REPLICA").await;
        let both = "SELECT c.service_state = 'ON' AND a.service_state = 'ON' \
                    FROM performance_schema.replication_connection_status c, \
                    performance_schema.replication_applier_status a";
        while sql.text(both).await != "1" {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// An application that writes to whichever of these servers takes it, the first one first.
    pub(crate) async fn roamer(servers: &[Server]) -> Roamer {
        let places = servers.iter().map(|server| (server.address.clone(), 7335)).collect();
        Roamer::start(places, 0, "by_hand", PASSWORD).await
    }

    /// CLONE from another server, until this one would answer again.
    pub(crate) async fn clone_from(&self, address: &str, port: u16, user: &str, password: &str) {
        let mut sql = self.answers().await;
        sql.run(&format!("SET GLOBAL clone_valid_donor_list = '{address}:{port}'")).await;
        // It ends the server, and with it the connection.
        let statement =
            format!("CLONE INSTANCE FROM '{user}'@'{address}':{port} IDENTIFIED BY '{password}' REQUIRE SSL");
        let _ = sql.run_to_its_end(&statement).await;
        let (_, exited) = docker(&["wait", &self.container]);
        assert!(exited);
        docker(&["start", &self.container]);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        docker(&["rm", "-f", &self.container]);
    }
}
