//! A program of this build as a child process, with a log over all its lives.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// See the module. It ends with its owner.
#[derive(Debug)]
pub struct Process {
    name: String,
    log: PathBuf,
    running: Option<Child>,
}

/// A program of this build.
pub(super) fn program(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("this program has a path");
    let build = own.ancestors().find(|dir| dir.join(name).is_file());
    build.unwrap_or_else(|| panic!("{name} is not built: cargo build --workspace")).join(name)
}

impl Process {
    pub(super) fn new(name: String, log: PathBuf) -> Process {
        Process { name, log, running: None }
    }

    /// Starts it with these arguments, and that in its environment.
    pub(super) fn start(&mut self, name: &str, arguments: &[String], environment: &[(&str, &str)]) {
        assert!(!self.is_running(), "{} runs", self.name);
        let log: File = OpenOptions::new().create(true).append(true).open(&self.log).expect("a log");
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(program(name)).args(arguments);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("SCHEMADOCK_") {
                command.env_remove(name);
            }
        }
        command.env(
            "RUST_LOG",
            "info,schemadock_agent=debug,schemadock_controller=debug,schemadock_store=debug",
        );
        command.envs(environment.iter().copied());
        let output = log.try_clone().expect("a second handle of a file");
        let child = command.stdin(Stdio::null()).stdout(output).stderr(log).spawn();
        self.running = Some(child.expect("setpriv is installed"));
    }

    /// Its output, of all its lives.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// All of its output.
    pub fn log_text(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The end of its output.
    pub fn last_lines(&self, count: usize) -> String {
        let text = self.log_text();
        let lines: Vec<&str> = text.lines().collect();
        let last = lines[lines.len().saturating_sub(count)..].join("\n");
        format!("--- the end of the log of {}:\n{last}\n", self.name)
    }

    /// Whether its process lives.
    pub fn is_running(&mut self) -> bool {
        self.running.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.running.as_ref().unwrap_or_else(|| panic!("{} was not started", self.name)).id() as i32
    }

    /// Ends it as `kill -9` does; what it looks after runs on.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.running.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Asks it to end, and waits until it has.
    pub async fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.ended(Duration::from_secs(20))
            .await
            .unwrap_or_else(|| panic!("{} does not end when asked\n{}", self.name, self.last_lines(30)))
    }

    /// Waits until its process has ended by itself; none if it has not within `bound`.
    pub async fn ended(&mut self, bound: Duration) -> Option<ExitStatus> {
        let mut child = self.running.take().expect("it was started");
        let pid = child.id();
        let waiting = tokio::task::spawn_blocking(move || {
            // `wait` without a bound of its own would hold a thread for ever where the process lives on.
            let deadline = std::time::Instant::now() + bound;
            loop {
                match child.try_wait() {
                    Ok(Some(status)) => return (child, Some(status)),
                    _ if std::time::Instant::now() >= deadline => return (child, None),
                    _ => std::thread::sleep(Duration::from_millis(5)),
                }
            }
        });
        let (child, status) = waiting.await.unwrap_or_else(|why| panic!("waiting for {pid}: {why}"));
        if status.is_none() {
            self.running = Some(child);
        }
        status
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).unwrap_or_else(|why| panic!("{}: {why}", self.name));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
