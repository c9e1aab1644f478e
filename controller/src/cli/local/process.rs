//! Background processes that outlive the command: started in a session of their own, found again by a pid file that
//! holds the start time too, so that a reused pid is never taken for ours.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::unix::AsyncFd;

use super::network::in_namespace;

/// What a background process is started with.
pub(super) struct Start<'a> {
    /// The program.
    pub(super) program: &'a Path,
    /// Its arguments.
    pub(super) arguments: Vec<String>,
    /// Where stdout and stderr are appended.
    pub(super) log: &'a Path,
    /// Where its pid is written.
    pub(super) pid_file: &'a Path,
    /// Environment variables with this prefix are kept from it: they would win over its settings.
    pub(super) without_environment: &'a str,
    /// What is set for it all the same.
    pub(super) environment: Vec<(&'a str, String)>,
    /// The network namespace that it runs in; this one's where none is named.
    pub(super) network: Option<PathBuf>,
}

/// A process, held by a descriptor: it cannot turn into another one.
#[derive(Debug)]
pub(super) struct Process {
    /// Its process id.
    pub(super) pid: i32,
    handle: AsyncFd<OwnedFd>,
}

/// Starts a process in a session of its own and writes its pid file.
pub(super) fn start(what: &Start<'_>) -> io::Result<Process> {
    let log = fs::OpenOptions::new().create(true).append(true).open(what.log)?;
    // setsid(1) becomes the program itself, under the same pid; a session of its own survives the terminal.
    let mut command = match &what.network {
        // So does nsenter(1) with setsid.
        Some(network) => in_namespace(network, "setsid"),
        None => Command::new("setsid"),
    };
    command.arg(what.program).args(&what.arguments);
    for (name, _) in std::env::vars_os() {
        if name.as_bytes().starts_with(what.without_environment.as_bytes()) {
            command.env_remove(name);
        }
    }
    command.envs(what.environment.iter().map(|(name, value)| (name, value)));
    let child =
        command.current_dir("/").stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn().map_err(
            |why| match why.kind() {
                io::ErrorKind::NotFound => {
                    io::Error::new(why.kind(), "setsid or nsenter (of util-linux) is not on the PATH")
                }
                _ => why,
            },
        )?;
    let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
    record(pid, what.pid_file)
}

/// Writes the pid file of a process, and holds it.
pub(super) fn record(pid: i32, pid_file: &Path) -> io::Result<Process> {
    let started = start_time(pid).unwrap_or(0);
    fs::write(pid_file, format!("{pid} {started}\n"))?;
    open(pid)
}

/// The process that a pid file names, if it still is that process; else one that was started with this word among
/// its arguments (its pid file may have been lost).
pub(super) fn find(pid_file: &Path, program: &str, word: &str) -> Option<Process> {
    from_pid_file(pid_file).or_else(|| {
        let pid = all_pids().find(|pid| is_program(*pid, program, word))?;
        let process = open(pid).ok().filter(|_| is_program(pid, program, word))?;
        // Only the short way to it is lost, so a failure here costs nothing.
        let _ = fs::write(pid_file, format!("{pid} {}\n", start_time(pid)?));
        Some(process)
    })
}

/// The process that a pid file names, if it still is that process.
pub(super) fn from_pid_file(pid_file: &Path) -> Option<Process> {
    let text = fs::read_to_string(pid_file).ok()?;
    let (pid, started) = text.trim().split_once(' ')?;
    let (pid, started) = (pid.parse().ok()?, started.parse::<u64>().ok()?);
    let process = open(pid).ok()?;
    // Looked at after the descriptor is open: from here on the pid cannot be reused unnoticed.
    (start_time(pid)? == started).then_some(process)
}

fn is_program(pid: i32, program: &str, word: &str) -> bool {
    let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else { return false };
    let mut words = line.split(|byte| *byte == 0);
    let named = words.next().is_some_and(|first| Path::new(OsStr::from_bytes(first)).ends_with(program));
    named && words.any(|own| own == word.as_bytes()) && start_time(pid).is_some()
}

fn all_pids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn open(pid: i32) -> io::Result<Process> {
    let raw = Pid::from_raw(pid).ok_or_else(|| io::Error::other("no pid"))?;
    let handle = pidfd_open(raw, PidfdFlags::empty())?;
    // Its successor is an unsafe function; a descriptor that is owned and never given away meets what that asks for.
    #[expect(deprecated, reason = "no unsafe code here")]
    let handle = AsyncFd::new(handle)?;
    Ok(Process { pid, handle })
}

/// Start time of a living process in clock ticks since boot; none of one that has ended (a zombie included).
fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything.
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?;
    let started = fields.nth(18)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(started)
}

impl Process {
    /// Returns when the process has ended.
    pub(super) async fn ended(&self) {
        // An error means that the descriptor cannot be waited on, which is so only of a process that is gone.
        let _ = self.handle.readable().await;
    }

    /// Whether this word stands among its arguments.
    pub(super) fn has_argument(&self, word: &str) -> bool {
        let line = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|own| own == word.as_bytes())
    }

    /// Whether it runs a program file that has been replaced or removed since.
    pub(super) fn is_outdated(&self, program: &Path) -> bool {
        let running = fs::read_link(format!("/proc/{}/exe", self.pid));
        running.is_ok_and(|running| {
            running != fs::canonicalize(program).unwrap_or_else(|_| PathBuf::from(program))
        })
    }

    /// Ends it: asked politely, and after `patience` no longer politely. Returns once it is gone; false where it
    /// does not even go then (a process stuck in the kernel).
    pub(super) async fn stop(&self, patience: Duration) -> bool {
        for signal in [Signal::TERM, Signal::CONT, Signal::KILL] {
            if pidfd_send_signal(self.handle.get_ref(), signal).is_err() {
                return true;
            }
            // A stopped process takes SIGTERM only once it goes on.
            let patience = if signal == Signal::TERM { Duration::ZERO } else { patience };
            if tokio::time::timeout(patience, self.ended()).await.is_ok() {
                return true;
            }
        }
        false
    }
}

/// The last lines of a log, for an error message.
pub(super) fn last_lines(log: &Path, count: usize) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
