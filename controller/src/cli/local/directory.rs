//! The directory of a local fleet, and what it remembers: `DIR/local.json`.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use schemadock_schema::HostName;
use schemadock_schema::fleet::Fleet;
use serde::{Deserialize, Serialize};

use crate::cli::Failure;

/// What a local fleet remembers of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Remembered {
    /// Eight hexadecimal digits that stand before the names of its containers and in its run directory.
    pub(super) name: String,
    /// Hosts have the addresses 127.0.`block`.1 and so on.
    pub(super) block: Option<u8>,
    /// Whether each host is a network namespace with an address of its own.
    #[serde(default)]
    pub(super) netns: bool,
    /// Then which network of 198.18.0.0/15 they are in, counted in 256 addresses.
    #[serde(default)]
    pub(super) subnet: Option<u16>,
    /// How many hosts it has.
    pub(super) hosts: u8,
    /// How many copies of the controller it has, once somebody has said so.
    #[serde(default)]
    pub(super) controllers: Option<u8>,
    /// Where etcd answers, on 127.0.0.1.
    pub(super) etcd_port: Option<u16>,
    /// What its keys begin with.
    pub(super) prefix: String,
    /// The image of instances for which nothing names one.
    pub(super) image: Option<String>,
    /// Where sockets are.
    pub(super) run_dir: PathBuf,
    /// The ids that the fleet has had, the present one last.
    #[serde(default)]
    pub(super) fleet: Vec<String>,
}

/// The directory of a local fleet, held by a lock: nobody else starts or stops anything in it meanwhile.
pub(super) struct Directory {
    /// Absolute.
    pub(super) path: PathBuf,
    /// What it remembers; changes are kept by [`Directory::remember`].
    pub(super) remembered: Remembered,
    _lock: Flock<fs::File>,
}

/// The most hosts on one machine.
pub(super) const MAX_HOSTS: u8 = 100;

const MEMORY: &str = "local.json";

/// Where a local fleet lives unless `--dir` says otherwise.
pub(super) fn default_path() -> Result<PathBuf, Failure> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let state = set("XDG_STATE_HOME").or_else(|| set("HOME").map(|home| home.join(".local/state")));
    state
        .map(|state| state.join("schemadock/local"))
        .ok_or_else(|| Failure::usage("neither XDG_STATE_HOME nor HOME is set; name a directory with --dir"))
}

/// Reads what a directory remembers without touching it; none where no local fleet was made.
pub(super) fn look(path: &Path) -> Result<Option<(PathBuf, Remembered)>, Failure> {
    let file = path.join(MEMORY);
    let bytes = match fs::read(&file) {
        Ok(bytes) => bytes,
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(why) => return Err(trouble("read", &file, &why)),
    };
    let remembered = serde_json::from_slice(&bytes).map_err(|why| {
        Failure::failed(format!("{} cannot be read: {why}", file.display()))
            .hint("It is written by `local up`; put it back, or remove the directory and start again.")
    })?;
    Ok(Some((fs::canonicalize(path).map_err(|why| trouble("find", path, &why))?, remembered)))
}

impl Directory {
    /// Opens the directory of a local fleet that exists; none where there is none.
    pub(super) fn open(path: &Path) -> Result<Option<Directory>, Failure> {
        if look(path)?.is_none() {
            return Ok(None);
        }
        let lock = lock(path)?;
        // Read again: what was there before the lock may have been taken away.
        Ok(look(path)?.map(|(path, remembered)| Directory { path, remembered, _lock: lock }))
    }

    /// Opens the directory, making it first where there is none.
    pub(super) fn make(path: &Path, prefix: &str) -> Result<Directory, Failure> {
        private_dir(path)?;
        let lock = lock(path)?;
        if let Some((path, remembered)) = look(path)? {
            return Ok(Directory { path, remembered, _lock: lock });
        }
        let path = fs::canonicalize(path).map_err(|why| trouble("find", path, &why))?;
        for part in PARTS {
            let part = path.join(part);
            if part.exists() {
                let found =
                    format!("{} exists, but {} does not", part.display(), path.join(MEMORY).display());
                return Err(Failure::failed(format!("{found}: this is not the directory of a local fleet"))
                    .hint("Name another directory with --dir, or an empty one."));
            }
        }
        let remembered = Remembered::new(&path, prefix);
        let directory = Directory { path, remembered, _lock: lock };
        directory.remember()?;
        Ok(directory)
    }

    /// Writes down what is to be remembered.
    pub(super) fn remember(&self) -> Result<(), Failure> {
        let text =
            serde_json::to_vec_pretty(&self.remembered).map_err(|why| Failure::failed(why.to_string()))?;
        write_private(&self.path.join(MEMORY), &text)
    }

    /// Keeps the ids of a fleet, the present one last: servers are found by them.
    pub(super) fn remember_ids(&mut self, fleet: Fleet) -> Result<(), Failure> {
        let mut ids: Vec<String> = fleet.accepted.into_iter().map(|accepted| accepted.id).collect();
        ids.retain(|id| *id != fleet.id);
        ids.push(fleet.id);
        let kept = &mut self.remembered.fleet;
        kept.retain(|id| !ids.contains(id));
        kept.extend(ids);
        self.remember()
    }

    /// Removes everything that this directory holds of the fleet; what else lies in it stays.
    pub(super) fn purge(self) -> Result<(), Failure> {
        let run_dir = self.remembered.run_dir.clone();
        for part in PARTS.map(|part| self.path.join(part)).into_iter().chain([run_dir]) {
            remove_tree(&part)?;
        }
        // The memory goes last: a purge that failed half-way can be run again.
        for part in [MEMORY, "etcd.pid", LOCK] {
            let file = self.path.join(part);
            match fs::remove_file(&file) {
                Err(why) if why.kind() != io::ErrorKind::NotFound => {
                    return Err(trouble("remove", &file, &why));
                }
                _ => {}
            }
        }
        // Left where somebody put something else into it.
        let _ = fs::remove_dir(&self.path);
        Ok(())
    }
}

const PARTS: [&str; 4] = ["hosts", "controllers", "etcd", "log"];
const LOCK: &str = "lock";

fn lock(path: &Path) -> Result<Flock<fs::File>, Failure> {
    let file = path.join(LOCK);
    let open = fs::OpenOptions::new().create(true).write(true).truncate(false).mode(0o600).open(&file);
    let open = open.map_err(|why| trouble("open", &file, &why))?;
    Flock::lock(open, FlockArg::LockExclusiveNonblock).map_err(|(_, why)| match why {
        nix::errno::Errno::EWOULDBLOCK => {
            Failure::failed(format!("another `schemadock local` is at work in {}", path.display()))
                .hint("Wait until it has finished, then try again.")
        }
        why => Failure::failed(format!("{} cannot be locked: {why}", file.display())),
    })
}

impl Remembered {
    /// What a new fleet in this directory begins with.
    pub(super) fn new(path: &Path, prefix: &str) -> Remembered {
        let name = name_of(path);
        Remembered {
            run_dir: run_dir(&name),
            name,
            block: None,
            netns: false,
            subnet: None,
            hosts: 0,
            controllers: None,
            etcd_port: None,
            prefix: prefix.to_owned(),
            image: None,
            fleet: Vec::new(),
        }
    }

    /// The names of the hosts, in order.
    pub(super) fn host_names(&self) -> Vec<HostName> {
        (1..=self.hosts).map(host_name).collect()
    }

    /// Where etcd answers.
    pub(super) fn etcd_url(&self) -> Option<String> {
        self.etcd_port.map(|port| format!("http://127.0.0.1:{port}"))
    }

    /// Where etcd answers the hosts.
    pub(super) fn etcd_url_of_hosts(&self) -> Option<String> {
        match self.network() {
            Some(network) => self.etcd_port.map(|port| format!("http://{}:{port}", network.own_address())),
            None => self.etcd_url(),
        }
    }

    /// The address of host `number` (from 1 on).
    pub(super) fn address(&self, number: u8) -> String {
        match self.network() {
            Some(network) => network.address(number).to_string(),
            None => format!("127.0.{}.{number}", self.block.unwrap_or_default()),
        }
    }
}

/// The name of host `number` (from 1 on).
pub(super) fn host_name(number: u8) -> HostName {
    format!("schemadock{number:02}").parse().expect("digits after a word are a name")
}

/// FNV-1a of the path, in eight digits: fleets in different directories get different names.
fn name_of(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    let hash = path.as_os_str().as_bytes().iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{:08x}", (hash ^ (hash >> 32)) as u32)
}

/// Short, since the path of a socket has at most 107 bytes.
fn run_dir(name: &str) -> PathBuf {
    if nix::unistd::geteuid().is_root() {
        return PathBuf::from(format!("/run/schemadock-{name}"));
    }
    match std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_dir()) {
        Some(dir) => dir.join(format!("sd-{name}")),
        None => PathBuf::from(format!("/tmp/sd-{}-{name}", nix::unistd::geteuid())),
    }
}

/// Makes a directory for the owner only, with those above it; refuses one that belongs to somebody else.
pub(super) fn private_dir(path: &Path) -> Result<(), Failure> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|why| trouble("make", path, &why))?;
    let found = fs::metadata(path).map_err(|why| trouble("look at", path, &why))?;
    let me = nix::unistd::geteuid();
    if found.uid() != me.as_raw() && !me.is_root() {
        return Err(Failure::failed(format!(
            "{} belongs to uid {}, not to uid {me}",
            path.display(),
            found.uid()
        ))
        .hint(
            "Was the fleet started with sudo? Then use sudo again; else name another directory with --dir.",
        ));
    }
    Ok(())
}

/// Writes a file for the owner only, all of it or nothing.
pub(super) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let error = |why: io::Error| trouble("write", path, &why);
    let parent = path.parent().unwrap_or(Path::new("/"));
    // Temporary files are for the owner only from the start.
    let mut file = tempfile::NamedTempFile::new_in(parent).map_err(error)?;
    io::Write::write_all(&mut file, bytes).map_err(error)?;
    file.as_file().sync_all().map_err(error)?;
    file.persist(path).map_err(|why| error(why.error))?;
    Ok(())
}

fn remove_tree(path: &Path) -> Result<(), Failure> {
    match fs::remove_dir_all(path) {
        Err(why) if why.kind() == io::ErrorKind::PermissionDenied => Err(trouble("remove", path, &why)
            .hint("Data of a fleet that was started with sudo needs sudo here, too.")),
        Err(why) if why.kind() != io::ErrorKind::NotFound => Err(trouble("remove", path, &why)),
        _ => Ok(()),
    }
}

/// What could not be done to which path.
pub(super) fn trouble(verb: &str, path: &Path, why: &io::Error) -> Failure {
    Failure::failed(format!("cannot {verb} {}: {why}", path.display()))
}

/// There is no fleet where one was expected.
pub(super) fn none_in(path: &Path) -> Failure {
    Failure::failed(format!("there is no local fleet in {}", path.display()))
        .hint("`schemadock local up` makes one; --dir names another directory.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_remembers_and_is_purged_without_what_is_not_its_own() {
        let outer = tempfile::tempdir().unwrap();
        let path = outer.path().join("fleet");
        let mut made = Directory::make(&path, "/schemadock").unwrap();
        made.remembered.block = Some(7);
        made.remember().unwrap();
        assert!(Directory::open(&path).is_err(), "it is locked");
        fs::create_dir(path.join("hosts")).unwrap();
        fs::write(path.join("letter"), "mine").unwrap();
        drop(made);
        let again = Directory::make(&path, "/other").unwrap();
        assert_eq!((again.remembered.block, again.remembered.prefix.as_str()), (Some(7), "/schemadock"));
        assert_eq!(again.remembered.address(2), "127.0.7.2");
        again.purge().unwrap();
        let left: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["letter"]);
        assert!(Directory::open(&path).unwrap().is_none());
    }

    #[test]
    fn a_directory_of_somebody_else_is_left_alone() {
        let outer = tempfile::tempdir().unwrap();
        fs::create_dir(outer.path().join("hosts")).unwrap();
        assert!(Directory::make(outer.path(), "/schemadock").is_err());
        assert!(outer.path().join("hosts").exists());
    }

    #[test]
    fn names_of_hosts_and_directories() {
        assert_eq!(host_name(1).as_str(), "schemadock01");
        assert_eq!(name_of(Path::new("/a")).len(), 8);
        assert_ne!(name_of(Path::new("/a")), name_of(Path::new("/b")));
    }
}
