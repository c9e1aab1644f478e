//! Where a fleet is: name, directory, addresses, and one of the two places that there are.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::fcntl::{Flock, FlockArg};

use super::cleaning;

/// A fleet's place, free again with its end.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) name: String,
    pub(super) dir: PathBuf,
    block: u8,
    _reserved: TcpListener,
    _slot: Flock<File>,
}

impl Place {
    /// Waits for one of two slots of this machine, cleans up after runs that were killed, and takes a block of
    /// addresses that nobody uses.
    pub(super) fn take() -> Place {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let slot = slot(number);
        cleaning::clean_up();
        let name = format!("it-{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(format!("schemadock-{name}"));
        fs::create_dir_all(&dir).expect("the temporary directory can be used");
        let (block, reserved) = block();
        Place { name, dir, block, _reserved: reserved, _slot: slot }
    }

    pub(super) fn address(&self, number: u8) -> String {
        format!("127.0.{}.{number}", self.block)
    }
}

/// At most two fleets at once on a machine: more would measure the machine, not the programs.
fn slot(number: u32) -> Flock<File> {
    let open = |slot: u32| {
        let path = std::env::temp_dir().join(format!("schemadock-it.slot{slot}"));
        File::create(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()))
    };
    for slot in 0..2 {
        if let Ok(lock) = Flock::lock(open(slot), FlockArg::LockExclusiveNonblock) {
            return lock;
        }
    }
    Flock::lock(open(number % 2), FlockArg::LockExclusive).expect("a file can be locked")
}

/// A listener on an address of the block keeps other fleets from it.
fn block() -> (u8, TcpListener) {
    let first = 20 + (std::process::id() % 200) as u8;
    for block in (first..250).chain(20..first) {
        let at = |last, port| TcpListener::bind((Ipv4Addr::new(127, 0, block, last), port));
        if let (Ok(reserved), Ok(_), Ok(_)) = (at(254, 2381), at(254, 2379), at(254, 2380)) {
            return (block, reserved);
        }
    }
    panic!("no block of addresses from 127.0.20.0 on is free");
}

static TEMPLATES: Mutex<()> = Mutex::new(());

fn cache() -> PathBuf {
    std::env::temp_dir().join(format!("schemadock-it-templates-{}", nix::unistd::geteuid()))
}

/// Keeps templates for later fleets.
pub(super) fn keep_templates(state_dir: &Path) {
    let _guard = TEMPLATES.lock();
    for template in entries(&state_dir.join("templates")) {
        let name = template.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let kept = cache().join(&name);
        if !name.starts_with("of-") || name.ends_with(".unfinished") || kept.exists() {
            continue;
        }
        let unfinished = cache().join(format!("{name}.{}", std::process::id()));
        let made = fs::create_dir_all(cache()).is_ok() && copy(&template, &unfinished);
        // Somebody else was faster: theirs is as good.
        if !made || fs::rename(&unfinished, &kept).is_err() {
            cleaning::remove_dir(&unfinished);
        }
    }
}

/// Puts kept templates in place.
pub(super) fn provide_templates(state_dir: &Path) {
    let _guard = TEMPLATES.lock();
    let to = state_dir.join("templates");
    for template in entries(&cache()) {
        let name = template.file_name().unwrap_or_default().to_owned();
        if template.join("version").exists() && !name.to_string_lossy().contains('.') {
            fs::create_dir_all(&to).expect("the fleet's directory can be used");
            assert!(copy(&template, &to.join(name)), "{} cannot be copied", template.display());
        }
    }
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn copy(from: &Path, to: &Path) -> bool {
    let done = Command::new("cp").args(["-a", "--reflink=auto"]).arg(from).arg(to).status();
    done.is_ok_and(|status| status.success())
}
