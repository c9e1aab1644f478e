//! A Docker daemon of a test's own, that can be restarted without harm to anybody else.
//!
//! It lives in a network namespace of its own, with everything that speaks to it: a test runs itself again in there
//! ([`in_own_network`]), and every fleet that it makes then uses the daemon at `DOCKER_HOST`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::IMAGE;
use super::cleaning::{self, docker};

/// Says to the test that it runs inside, and where.
const INSIDE: &str = "IT_OWN_DOCKER";
/// How long a daemon may take to come up.
const COMES_UP: Duration = Duration::from_secs(60);

/// The daemon.
#[derive(Debug)]
pub struct Daemon {
    dir: PathBuf,
    running: Option<Child>,
}

/// Runs the test of this name again, in a network of its own; `true` inside. Outside it returns when the test inside
/// has ended well, and panics when it has not. Without root nothing is tested, and that is said.
pub fn in_own_network(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    if !nix::unistd::geteuid().is_root() {
        eprintln!("not root: a Docker daemon of its own cannot be started, nothing was tested");
        return false;
    }
    // A number that no fleet of this process reaches.
    let dir = std::env::temp_dir().join(format!("schemadock-it-{}-99", std::process::id()));
    fs::create_dir_all(&dir).expect("the temporary directory can be used");
    let (said, saved) = docker(&["save", "-o", &dir.join("image.tar").display().to_string(), IMAGE]);
    assert!(saved, "{said}");
    let own = std::env::current_exe().expect("this program has a path");
    let done = Command::new("setpriv")
        .args([
            "--pdeathsig",
            "KILL",
            "unshare",
            "--net",
            "sh",
            "-ec",
            "ip link set lo up; exec \"$@\"",
            "sh",
        ])
        .arg(own)
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, &dir)
        .env("DOCKER_HOST", format!("unix://{}", dir.join("docker.sock").display()))
        .output()
        .expect("setpriv and unshare are installed");
    // What it had mounted goes first; nothing but this directory is touched.
    let mounted = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let below = |line: &&str| line.split(' ').nth(1).is_some_and(|at| Path::new(at).starts_with(&dir));
    for line in mounted.lines().rev().filter(below) {
        let _ = Command::new("umount").args(["-l", line.split(' ').nth(1).unwrap_or_default()]).status();
    }
    cleaning::remove_dir(&dir);
    // Its lines are not for whoever counts the results of tests.
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(done.status.success(), "{test} failed inside\n{}{}", said(&done.stdout), said(&done.stderr));
    false
}

impl Daemon {
    /// Starts the daemon for the test inside, with the image under test.
    pub async fn start(live_restore: bool) -> Daemon {
        let dir = PathBuf::from(std::env::var_os(INSIDE).expect("runs inside"));
        let mut daemon = Daemon { dir, running: None };
        daemon.up(live_restore).await;
        let image = daemon.dir.join("image.tar");
        let (said, loaded) = docker(&["load", "-i", &image.display().to_string()]);
        assert!(loaded, "{said}");
        fs::remove_file(image).expect("the image was saved there");
        daemon
    }

    /// Starts it on what it holds, and waits until it answers.
    pub async fn up(&mut self, live_restore: bool) {
        assert!(self.running.is_none(), "the daemon runs");
        let config = self.dir.join("daemon.json");
        fs::write(&config, format!("{{\"live-restore\": {live_restore}}}"))
            .expect("the directory can be used");
        let log = File::options().create(true).append(true).open(self.dir.join("dockerd.log"));
        let log = log.expect("the directory can be used");
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "dockerd", "--config-file"])
            .arg(&config)
            .arg(format!("--data-root={}", self.dir.join("data").display()))
            .arg(format!("--exec-root={}", self.dir.join("exec").display()))
            .arg(format!("--pidfile={}", self.dir.join("pid").display()))
            .arg(format!("--host=unix://{}", self.dir.join("docker.sock").display()))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle of a file"))
            .stderr(log)
            .spawn();
        self.running = Some(child.expect("dockerd and setpriv are installed"));
        let begun = Instant::now();
        while !docker(&["version", "--format", "{{.Server.Version}}"]).1 {
            let log = fs::read_to_string(self.dir.join("dockerd.log")).unwrap_or_default();
            assert!(begun.elapsed() < COMES_UP, "the daemon does not come up\n{log}");
            // The daemon tells nobody that it listens.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Asks it to end, and waits until it has.
    pub fn down(&mut self) {
        if let Some(mut child) = self.running.take() {
            let _ = kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM);
            let _ = child.wait();
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let (all, _) = docker(&["ps", "-aq"]);
        for container in all.lines() {
            docker(&["rm", "-f", container]);
        }
        self.down();
    }
}

/// Where agents reach Docker, where it is not at its usual place.
pub(super) fn socket() -> Option<String> {
    Some(std::env::var("DOCKER_HOST").ok()?.strip_prefix("unix://")?.to_owned())
}
