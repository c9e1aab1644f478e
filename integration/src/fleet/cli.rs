//! The `schemadock` command against a fleet under test.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::process::program;

/// A command about to be run.
#[derive(Debug)]
pub struct Cli {
    command: Command,
    stdin: String,
}

/// How it ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// Its exit code.
    pub code: i32,
    /// What it said to scripts.
    pub stdout: String,
    /// What it said to people.
    pub stderr: String,
}

impl Cli {
    pub(super) fn new(etcd: &str, prefix: &str, arguments: &[&str]) -> Cli {
        let mut command = Command::new(program("schemadock"));
        command.args(arguments).env("SCHEMADOCK_ETCD", etcd).env("SCHEMADOCK_PREFIX", prefix);
        command.kill_on_drop(true);
        Cli { command, stdin: String::new() }
    }

    /// What it reads.
    pub fn stdin(mut self, text: &str) -> Cli {
        self.stdin = text.to_owned();
        self
    }

    /// Runs it to its end.
    pub async fn run(mut self) -> Output {
        let command = self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("schemadock starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        // One that does not read all of it says so in its own words.
        let _ = stdin.write_all(self.stdin.as_bytes()).await;
        drop(stdin);
        let ended = tokio::time::timeout(Duration::from_secs(180), child.wait_with_output()).await;
        let ended = ended.unwrap_or_else(|_| panic!("{:?} does not end", self.command)).expect("its output");
        Output {
            code: ended.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&ended.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&ended.stderr).into_owned(),
        }
    }
}
