//! Data set aside: `STATE/retired/<instance>/<time>/`. Everything moves with one rename, so that it is always whole in
//! one of the two places.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use schemadock_schema::{InstanceName, Timestamp};
use serde::{Deserialize, Serialize};
use walkdir::WalkDir;

use super::files::{self, io_error};
use super::template::DATA;
use super::{DiskError, Retired, RetiredWhy};

const WHY: &str = "why.json";

/// Why and when data were set aside, beside them.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Why {
    why: RetiredWhy,
    since: Timestamp,
    server_uuid: Option<String>,
}

/// Bytes of what was set aside; it does not change any more.
pub(super) type Sizes = Mutex<BTreeMap<PathBuf, u64>>;

/// Sets an instance's directory aside.
pub(super) fn retire(
    home: &Path,
    shelf: &Path,
    now: Timestamp,
    why: RetiredWhy,
    server_uuid: Option<String>,
) -> Result<(), DiskError> {
    // It holds passwords that nobody needs any more.
    files::remove(&home.join("mount/init.sql"))?;
    let note = Why { why, since: now, server_uuid };
    files::write_json(&home.join(WHY), &note)?;
    files::make_dir(shelf, None)?;
    let name = now.strftime("%Y%m%dT%H%M%S.%3fZ").to_string();
    let mut place = shelf.join(&name);
    for n in 2.. {
        if !place.exists() {
            break;
        }
        place = shelf.join(format!("{name}-{n}"));
    }
    files::rename(home, &place)
}

/// All data set aside, by instance, the oldest first.
pub(super) fn list(root: &Path, sizes: &Sizes) -> Result<Vec<Retired>, DiskError> {
    let mut all = Vec::new();
    for instance in files::names(root)? {
        // Something that a person has put there.
        let Ok(named) = instance.parse::<InstanceName>() else { continue };
        let shelf = root.join(&instance);
        for name in files::names(&shelf)? {
            let place = shelf.join(&name);
            let note = note(&place);
            all.push(Retired {
                instance: named.clone(),
                since: note.since,
                bytes: size(&place, sizes)?,
                why: note.why,
                server_uuid: note.server_uuid,
                name,
            });
        }
    }
    Ok(all)
}

/// What is written beside the data. Data whose note is missing or garbage are shown, and nothing is taken up by itself
/// on their word.
fn note(place: &Path) -> Why {
    match files::read_json(&place.join(WHY)) {
        Ok(Some(note)) => note,
        Ok(None) | Err(_) => Why {
            why: RetiredWhy::Replaced,
            since: Timestamp::UNIX_EPOCH,
            server_uuid: server_uuid(&place.join("mount").join(DATA)).ok().flatten(),
        },
    }
}

fn size(place: &Path, sizes: &Sizes) -> Result<u64, DiskError> {
    let known = |sizes: &Sizes| {
        let sizes = sizes.lock().unwrap_or_else(PoisonError::into_inner);
        sizes.get(place).copied()
    };
    if let Some(bytes) = known(sizes) {
        return Ok(bytes);
    }
    let bytes = bytes_in(place)?;
    let mut sizes = sizes.lock().unwrap_or_else(PoisonError::into_inner);
    sizes.insert(place.to_owned(), bytes);
    Ok(bytes)
}

/// Bytes of disk that a directory takes.
fn bytes_in(place: &Path) -> Result<u64, DiskError> {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    for entry in WalkDir::new(place) {
        let there =
            entry.and_then(|entry| entry.metadata()).map_err(|e| io_error("looking at", place)(e.into()))?;
        bytes += there.blocks() * 512;
    }
    Ok(bytes)
}

/// Takes data up again. `home` must hold no data.
pub(super) fn take_up(shelf: &Path, name: &str, home: &Path, sizes: &Sizes) -> Result<(), DiskError> {
    let place = shelf.join(name);
    let data = home.join("mount").join(DATA);
    if !files::is_empty(&data)? {
        return Err(io_error("taking data up to", &data)(std::io::ErrorKind::AlreadyExists.into()));
    }
    if !place.is_dir() {
        return Err(io_error("taking up", &place)(std::io::ErrorKind::NotFound.into()));
    }
    files::remove_tree(home)?;
    files::rename(&place, home)?;
    files::remove(&home.join(WHY))?;
    forget_sizes(&place, sizes);
    // Only an empty one goes.
    let _ = std::fs::remove_dir(shelf);
    Ok(())
}

/// Destroys what was set aside of one instance.
pub(super) fn purge(shelf: &Path, sizes: &Sizes) -> Result<u64, DiskError> {
    if files::is_empty(shelf)? {
        return Ok(0);
    }
    let bytes = bytes_in(shelf)?;
    files::remove_tree(shelf)?;
    forget_sizes(shelf, sizes);
    Ok(bytes)
}

fn forget_sizes(below: &Path, sizes: &Sizes) {
    let mut sizes = sizes.lock().unwrap_or_else(PoisonError::into_inner);
    sizes.retain(|place, _| !place.starts_with(below));
}

/// The identity in `auto.cnf`; none where there is no such file.
pub(super) fn server_uuid(data: &Path) -> Result<Option<String>, DiskError> {
    let path = data.join("auto.cnf");
    let Some(bytes) = files::read(&path)? else { return Ok(None) };
    let text = String::from_utf8_lossy(&bytes);
    let found = text.lines().find_map(|line| {
        let (name, value) = line.split_once('=')?;
        (name.trim().replace('_', "-") == "server-uuid").then(|| value.trim().to_owned())
    });
    match found {
        Some(uuid) if uuid::Uuid::parse_str(&uuid).is_ok() => Ok(Some(uuid)),
        _ => Err(DiskError::Garbage {
            path: path.display().to_string(),
            why: "it holds no server-uuid".to_owned(),
        }),
    }
}
