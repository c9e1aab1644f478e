//! A fleet's own etcd, with the faults that one can have.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use schemadock_store::Store as _;
use schemadock_store::etcd::Etcd;

/// How long an etcd may take to come up.
const COMES_UP: Duration = Duration::from_secs(30);

/// A running or stopped etcd.
#[derive(Debug)]
pub struct EtcdServer {
    dir: PathBuf,
    address: String,
    port: u16,
    running: Option<Child>,
}

impl EtcdServer {
    /// One that does not run yet; peers would meet it on the port above.
    pub(super) fn new(dir: &Path, address: &str, port: u16) -> EtcdServer {
        EtcdServer { dir: dir.to_owned(), address: address.to_owned(), port, running: None }
    }

    /// Where clients reach it.
    pub fn url(&self) -> String {
        format!("http://{}:{}", self.address, self.port)
    }

    /// A client of it, with a deadline of its own.
    pub async fn client(&self, deadline: Duration) -> Etcd {
        Etcd::connect(&self.url(), deadline).await.expect("the address is one")
    }

    fn data(&self) -> PathBuf {
        self.dir.join("etcd")
    }

    /// Starts it on what it holds, and waits until it answers.
    pub async fn up(&mut self) {
        assert!(self.running.is_none(), "etcd runs");
        let log = File::create(self.dir.join("etcd.log")).expect("the fleet's directory can be used");
        let peer = format!("http://{}:{}", self.address, self.port + 1);
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "etcd", "--name", "one", "--logger", "zap", "--log-level", "error"])
            .arg("--data-dir")
            .arg(self.data())
            .args(["--listen-client-urls", &self.url(), "--advertise-client-urls", &self.url()])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("one={peer}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("etcd and setpriv are installed");
        self.running = Some(child);
        let client = self.client(Duration::from_secs(1)).await;
        let begun = Instant::now();
        while client.read_linearizable(&[]).await.is_err() {
            assert!(begun.elapsed() < COMES_UP, "etcd does not come up\n{}", self.log());
            // etcd tells nobody that it listens.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.join("etcd.log")).unwrap_or_default()
    }

    /// Kills it.
    pub fn down(&mut self) {
        if let Some(mut child) = self.running.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Removes all that it holds; it must be down.
    pub fn wipe(&self) {
        assert!(self.running.is_none());
        fs::remove_dir_all(self.data()).expect("etcd's data can be removed");
    }

    /// Keeps a copy of all that it holds; it must be down.
    pub fn back_up(&self) {
        assert!(self.running.is_none());
        self.copy("etcd", "etcd.backup");
    }

    /// Goes back to the copy; it must be down.
    pub fn restore(&self) {
        self.wipe();
        self.copy("etcd.backup", "etcd");
    }

    fn copy(&self, from: &str, to: &str) {
        let done = Command::new("cp").arg("-a").args([from, to]).current_dir(&self.dir).status();
        assert!(done.expect("cp is installed").success());
    }

    /// Stops it in its tracks: connections stay open, nothing is answered.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
        // A thread that runs is stopped when the kernel is next asked: until then it may answer.
        let tasks = format!("/proc/{}/task", self.running.as_ref().expect("etcd runs").id());
        let stopped = || {
            let states = std::fs::read_dir(&tasks).into_iter().flatten().flatten();
            let mut states = states.filter_map(|task| std::fs::read_to_string(task.path().join("stat")).ok());
            states.all(|stat| stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" T")))
        };
        while !stopped() {
            std::thread::yield_now();
        }
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        let child = self.running.as_ref().expect("etcd runs");
        kill(Pid::from_raw(child.id() as i32), signal).expect("etcd can be signalled");
    }

    /// Forgets the history before this revision.
    pub async fn compact(&self, revision: i64) {
        let mut client = etcd_client::Client::connect([self.url()], None).await.expect("etcd answers");
        client.compact(revision, None).await.expect("that revision can be compacted");
    }
}

impl Drop for EtcdServer {
    fn drop(&mut self) {
        self.down();
    }
}
