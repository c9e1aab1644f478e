//! Who holds a data directory, whatever Docker says.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use schemadock_agent_plan::observed::ProcessSeen;
use schemadock_schema::known::{Known, WhyUnknown};

use super::DiskError;
use super::files::io_error;

/// The process that holds the lock which mysqld keeps on `ibdata1` while it runs.
///
/// The kernel is asked for the lock in the way (`F_GETLK`), so that neither device numbers nor process lists have to
/// be matched. It names no process of another pid namespace: such a holder is known to be there, and no more.
pub(super) fn holder(data: &Path) -> Known<ProcessSeen> {
    let file = data.join("ibdata1");
    let unknown = |what: String| Known::Unknown(WhyUnknown::Error(what));
    // One that ends between the two questions is asked for again.
    for _ in 0..3 {
        match lock_holder(&file) {
            Ok(None) => return Known::Absent,
            Ok(Some(pid)) if pid <= 0 => {
                return unknown(format!(
                    "{} is locked by a process that this agent cannot see (another pid namespace): run the agent in the \
                     host's",
                    file.display()
                ));
            }
            Ok(Some(pid)) => match started(pid) {
                Ok(Some(started)) => return Known::Present(ProcessSeen { pid, started }),
                Ok(None) => {}
                Err(e) => return unknown(format!("process {pid} that locks {}: {e}", file.display())),
            },
            Err(e) => return unknown(format!("lock of {}: {e}", file.display())),
        }
    }
    unknown(format!("the holder of {} changes all the time", file.display()))
}

/// The pid of whoever has a lock that excludes writers; 0 or less where the kernel does not name it.
fn lock_holder(file: &Path) -> io::Result<Option<i32>> {
    let file = match OpenOptions::new().read(true).open(file) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let mut lock = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(file.as_fd(), FcntlArg::F_GETLK(&mut lock))?;
    Ok((lock.l_type != libc::F_UNLCK as libc::c_short).then_some(lock.l_pid))
}

/// When a process started, in clock ticks since boot; none where it is gone. One that is dying still holds its locks.
fn started(pid: i32) -> io::Result<Option<u64>> {
    let stat = match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat,
        Err(e) if e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(libc::ESRCH) => {
            return Ok(None);
        }
        Err(e) => return Err(e),
    };
    read_stat(&stat).map(Some).ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat cannot be read")))
}

fn read_stat(stat: &str) -> Option<u64> {
    // The name in parentheses may hold anything, parentheses too. The 22nd field is the 20th behind it.
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
    fields.nth(19)?.parse().ok()
}

/// What no file backs (`RssAnon`): the rest the kernel takes back where it is short of memory.
pub(super) fn resident(process: &ProcessSeen) -> Known<u64> {
    let path = format!("/proc/{}/status", process.pid);
    let status = match fs::read_to_string(&path) {
        Ok(status) => status,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Known::Absent,
        Err(e) => return Known::Unknown(WhyUnknown::Error(format!("{path}: {e}"))),
    };
    // Read before: a pid that means another process by now has another start.
    match started(process.pid) {
        Ok(Some(began)) if began == process.started => {}
        _ => return Known::Absent,
    }
    let field = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = field.and_then(|rest| rest.split_ascii_whitespace().next()?.parse::<u64>().ok());
    kib.map(|kib| Known::Present(kib << 10))
        .unwrap_or_else(|| Known::Unknown(WhyUnknown::Error(format!("{path} says no RssAnon"))))
}

/// SIGKILL, if it is still the same process. Nothing happens where it is gone.
pub(super) fn kill(process: &ProcessSeen) -> Result<(), DiskError> {
    let path = format!("/proc/{}", process.pid);
    let error = |e: io::Error| io_error("killing the process of", Path::new(&path))(e);
    let Some(pid) = (process.pid > 1).then(|| Pid::from_raw(process.pid)).flatten() else {
        return Err(error(io::ErrorKind::InvalidInput.into()));
    };
    // The handle first: from then on the pid cannot come to mean another process unnoticed.
    let handle = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(handle) => handle,
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        Err(e) => return Err(error(e.into())),
    };
    if started(process.pid).map_err(error)? != Some(process.started) {
        return Ok(());
    }
    match pidfd_send_signal(&handle, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(e) => Err(error(e.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_is_found_behind_any_name() {
        let tail = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20 21";
        assert_eq!(read_stat(&format!("42 (mysqld) {tail}")), Some(4711));
        assert_eq!(read_stat(&format!("42 (a) b) Z () {tail}")), Some(4711));
        assert_eq!(read_stat("42 mysqld"), None);
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(started(own).unwrap().is_some());
    }
}
