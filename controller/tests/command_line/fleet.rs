//! An etcd of its own for each test, the command line against it, and documents as agents write them.

use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use schemadock_schema::keys::Keys;
use schemadock_schema::proposal::{Proposal, Write};
use schemadock_store::etcd::Etcd;
use schemadock_store::{Selector, Snapshot, Store};
use serde_json::{Value, json};
use tempfile::TempDir;

/// What a command said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    fn of(output: Output) -> Self {
        Said {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    #[track_caller]
    pub(crate) fn ends(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        assert!(!self.err.contains("panicked"), "{self:#?}");
        self
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|why| panic!("{why}: {self:#?}"))
    }
}

pub(crate) struct Fleet {
    etcd: Child,
    pub(crate) dir: TempDir,
    pub(crate) url: String,
    pub(crate) keys: Keys,
    pub(crate) store: Arc<dyn Store>,
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let _ = self.etcd.kill();
        let _ = self.etcd.wait();
    }
}

fn free_ports() -> [u16; 2] {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.each_ref().map(|listener| listener.local_addr().unwrap().port())
}

impl Fleet {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let [client, peer] = free_ports();
        let (url, peer) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
        let log = std::fs::File::create(dir.path().join("etcd.log")).unwrap();
        let etcd = Command::new("etcd")
            .args(["--name", "t", "--unsafe-no-fsync", "--data-dir"])
            .arg(dir.path().join("etcd"))
            .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("t={peer}")])
            .env("ETCD_UNSUPPORTED_ARCH", std::env::consts::ARCH)
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("etcd is installed");
        let store: Arc<dyn Store> = Arc::new(Etcd::connect(&url, Duration::from_secs(5)).await.unwrap());
        let keys = Keys::new("/schemadock");
        let fleet = Fleet { etcd, dir, url, keys, store };
        let key = Selector::Key(fleet.keys.fleet());
        for _ in 0..200 {
            if fleet.store.read(std::slice::from_ref(&key)).await.is_ok() {
                return fleet;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("etcd did not start: {}", std::fs::read_to_string(fleet.dir.path().join("etcd.log")).unwrap());
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_schemadock"));
        command
            .env("SCHEMADOCK_ETCD", &self.url)
            .env_remove("SCHEMADOCK_PREFIX")
            .env("USER", "tester")
            .env("TMPDIR", self.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs the command line to its end.
    pub(crate) async fn run(&self, args: &[&str]) -> Said {
        let mut command = self.command();
        command.args(args);
        tokio::task::spawn_blocking(move || Said::of(command.output().unwrap())).await.unwrap()
    }

    /// The same with text on stdin.
    pub(crate) async fn run_with(&self, args: &[&str], stdin: &str) -> Said {
        let mut command = self.command();
        command.args(args).stdin(Stdio::piped());
        let stdin = stdin.to_owned();
        tokio::task::spawn_blocking(move || {
            let mut child = command.spawn().unwrap();
            // One that has seen enough may close it early.
            let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
            Said::of(child.wait_with_output().unwrap())
        })
        .await
        .unwrap()
    }

    /// Writes a file and returns its path.
    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    pub(crate) async fn apply(&self, document: &Value) -> Said {
        self.run_with(&["apply", "-f", "-", "--yes"], &document.to_string()).await
    }

    /// Puts documents below the prefix; text is taken as it is.
    pub(crate) async fn put(&self, documents: &[(&str, Value)]) {
        let write = |(key, value): &(&str, Value)| Write::Put {
            key: format!("{}/{key}", self.keys.prefix()),
            value: value.as_str().map_or_else(|| value.to_string(), str::to_owned).into_bytes(),
            lease: None,
        };
        let proposal = Proposal { writes: documents.iter().map(write).collect(), ..Proposal::default() };
        self.store.commit(&proposal).await.unwrap();
    }

    pub(crate) async fn delete(&self, keys: &[&str]) {
        let write = |key: &&str| Write::Delete { key: format!("{}/{key}", self.keys.prefix()) };
        let proposal = Proposal { writes: keys.iter().map(write).collect(), ..Proposal::default() };
        self.store.commit(&proposal).await.unwrap();
    }

    pub(crate) async fn all(&self) -> Snapshot {
        self.store.read(&[Selector::Prefix(format!("{}/", self.keys.prefix()))]).await.unwrap()
    }

    pub(crate) async fn document(&self, key: &str) -> Option<Value> {
        let key = format!("{}/{key}", self.keys.prefix());
        self.all().await.get(&key).map(|entry| serde_json::from_slice(&entry.value).unwrap())
    }

    pub(crate) async fn revision_of(&self, key: &str) -> i64 {
        let key = format!("{}/{key}", self.keys.prefix());
        self.all().await.get(&key).map_or(0, |entry| entry.mod_revision)
    }

    /// Registers a host whose agent lives.
    pub(crate) async fn register(&self, host: &str) {
        let document = json!({
            "name": host, "address": "127.0.0.1", "capacity": {"memory": 4u64 << 30, "cpus": 2.0, "disk": null},
            "allocated": {"memory": 0, "cpus": 0.0, "disk": null}, "retired": [], "store": {"state": "ok"},
            "agent_version": "0", "updated_at": "2026-01-02T03:04:05Z"
        });
        self.put(&[(&format!("hosts/{host}"), document), (&format!("alive/{host}"), json!("agent"))]).await;
    }

    /// Says what an agent says of an instance at work.
    pub(crate) async fn report(&self, host: &str, name: &str, more: Value) {
        let revision = self.revision_of(&format!("targets/{host}/{name}")).await;
        let mut status = json!({
            "name": name, "host": host, "cluster": "c", "address": "127.0.0.1", "port": 1, "observed_role": "minion",
            "phase": "running", "converged": true, "data": {"state": "own", "server_uuid": "u"},
            "store": {"state": "ok"}, "writable": false, "target_revision": revision, "policy_revision": 0,
            "updated_at": "2026-01-02T03:04:05Z"
        });
        status.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.put(&[(&format!("status/{host}/{name}"), status)]).await;
    }
}

pub(crate) fn master(port: u16) -> Value {
    json!({"data": {"role": "master", "port": port}})
}

pub(crate) fn minion(port: u16, of: &str, of_port: u16) -> Value {
    json!({"data": {"role": "minion", "port": port, "master_host": of, "master_port": of_port}})
}

/// h1 leads, h2 and h3 follow.
pub(crate) fn three() -> Value {
    json!({"h1-c-db1": master(1), "h2-c-db2": minion(1, "h1", 1), "h3-c-db3": minion(1, "h1", 1)})
}

pub(crate) fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}
