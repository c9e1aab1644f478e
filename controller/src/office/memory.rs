//! Which fleet this copy serves, and how far it has seen: kept on disk, so that another store is not believed. And the
//! lease it last held office by: its next life need not wait until that one has run out.

// The adapter to the disk.
#![allow(clippy::disallowed_methods)]

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use schemadock_schema::status::StoreState;
use schemadock_store::mirror::{Gate, View};
use serde::{Deserialize, Serialize};

use super::OfficeError;

/// Locked by the copy that lives in the state directory.
const LOCK: &str = "controller.lock";
/// The file in the state directory.
const FILE: &str = "controller.json";

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Remembered {
    fleet: Option<String>,
    #[serde(default)]
    revision: i64,
    #[serde(default)]
    went_back: bool,
    #[serde(default)]
    lease: Option<i64>,
}

/// See the module.
pub(super) struct Memory {
    path: Option<PathBuf>,
    kept: Remembered,
    gate: Gate,
    /// Held for as long as this copy lives: its directory has no second one.
    _lock: Option<Flock<fs::File>>,
}

impl Memory {
    pub(super) fn open(dir: Option<&Path>) -> Result<Self, OfficeError> {
        let Some(dir) = dir else {
            return Ok(Memory {
                path: None,
                kept: Remembered::default(),
                gate: Gate::default(),
                _lock: None,
            });
        };
        let path = dir.join(FILE);
        let error = |why: String| OfficeError::Memory { path: path.display().to_string(), why };
        fs::create_dir_all(dir).map_err(|why| error(why.to_string()))?;
        let lock = fs::File::create(dir.join(LOCK)).map_err(|why| error(why.to_string()))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|(_, why)| match why {
            Errno::EWOULDBLOCK => error("another controller uses this directory".to_owned()),
            why => error(why.to_string()),
        })?;
        let kept: Remembered = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|why| error(why.to_string()))?,
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => Remembered::default(),
            Err(why) => return Err(error(why.to_string())),
        };
        let gate = Gate { expected: kept.fleet.clone(), revision: kept.revision, went_back: kept.went_back };
        Ok(Memory { path: Some(path.clone()), kept, gate, _lock: Some(lock) })
    }

    /// The lease by which an earlier life of this copy held office; that life is over.
    pub(super) fn former_lease(&self) -> Option<i64> {
        self.kept.lease
    }

    /// Remembers the lease by which the office is about to be taken.
    pub(super) fn holds(&mut self, lease: i64) -> Result<(), OfficeError> {
        self.kept.lease = Some(lease);
        self.save()
    }

    pub(super) fn gate(&self) -> &Gate {
        &self.gate
    }

    /// What a view says of the store; `true`: it is worth keeping now, not merely a newer revision.
    pub(super) fn learn(&mut self, view: &View) -> bool {
        let mut news = self.kept.clone();
        match view.store.as_ref().map(|store| store.state) {
            Some(StoreState::Ok) => {
                news.fleet.clone_from(&view.fleet);
                news.revision = view.revision;
                news.went_back = false;
            }
            Some(StoreState::Older) => news.went_back = true,
            _ => {}
        }
        let urgent = news.fleet != self.kept.fleet || news.went_back != self.kept.went_back;
        self.kept = news;
        urgent
    }

    /// Temp file, fsync, rename, fsync of the directory.
    pub(super) fn save(&self) -> Result<(), OfficeError> {
        let Some(path) = &self.path else { return Ok(()) };
        let error = |why: String| OfficeError::Memory { path: path.display().to_string(), why };
        let dir = path.parent().unwrap_or(Path::new("."));
        let write = || -> std::io::Result<()> {
            let mut file = tempfile::NamedTempFile::new_in(dir)?;
            file.write_all(&serde_json::to_vec(&self.kept)?)?;
            file.as_file().sync_all()?;
            file.persist(path).map_err(|why| why.error)?;
            fs::File::open(dir)?.sync_all()
        };
        write().map_err(|why| error(why.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use schemadock_schema::status::StoreReport;

    use super::*;

    fn view(state: StoreState, fleet: &str, revision: i64) -> View {
        let store = Some(StoreReport { state, expected: None, found: Some(fleet.to_owned()) });
        let fleet = (state == StoreState::Ok).then(|| fleet.to_owned());
        View { store, fleet, revision, ..View::default() }
    }

    #[test]
    fn what_was_seen_is_known_to_the_next_life() {
        let dir = tempfile::tempdir().unwrap();
        let mut memory = Memory::open(Some(dir.path())).unwrap();
        assert_eq!(*memory.gate(), Gate::default());
        assert!(memory.learn(&view(StoreState::Ok, "a", 7)), "the first fleet is kept at once");
        assert!(!memory.learn(&view(StoreState::Ok, "a", 9)), "a newer revision can wait");
        memory.holds(77).unwrap();
        let second = Memory::open(Some(dir.path())).err().map(|why| why.to_string()).unwrap_or_default();
        assert!(second.contains("another controller"), "{second}");
        drop(memory);
        let mut next = Memory::open(Some(dir.path())).unwrap();
        assert_eq!(*next.gate(), Gate { expected: Some("a".to_owned()), revision: 9, went_back: false });
        assert!(next.learn(&view(StoreState::Older, "a", 3)));
        assert_eq!(next.former_lease(), Some(77));
        next.save().unwrap();
        drop(next);
        let gate = Memory::open(Some(dir.path())).unwrap().gate().clone();
        assert_eq!(gate, Gate { expected: Some("a".to_owned()), revision: 9, went_back: true });
    }
}
