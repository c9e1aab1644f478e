//! Single files and directories: whole or not at all, and durable before anybody relies on them.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::DiskError;

/// End of the names of files that are being written.
const UNFINISHED: &str = ".unfinished";

/// `uid` and `gid` of a server.
pub(super) type Owner = (u32, u32);

/// What an error of the system means here.
pub(super) fn io_error<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> DiskError + 'a {
    move |source| match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            DiskError::Full { path: path.display().to_string() }
        }
        _ => DiskError::Io { what, path: path.display().to_string(), source },
    }
}

/// Makes a directory (0700) and those above it; a living one is left as it is, but for its owner.
pub(super) fn make_dir(path: &Path, owner: Option<Owner>) -> Result<(), DiskError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io_error("making directory", path))?;
    give(path, owner)
}

/// Gives a file or directory to the server's user, where it is not its already.
pub(super) fn give(path: &Path, owner: Option<Owner>) -> Result<(), DiskError> {
    let Some((uid, gid)) = owner else { return Ok(()) };
    let there = fs::symlink_metadata(path).map_err(io_error("looking at", path))?;
    if (there.uid(), there.gid()) == (uid, gid) {
        return Ok(());
    }
    std::os::unix::fs::lchown(path, Some(uid), Some(gid)).map_err(io_error("giving to mysqld's user", path))
}

/// Makes names in a directory durable.
pub(super) fn sync_dir(path: &Path) -> Result<(), DiskError> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(io_error("flushing directory", path))
}

/// Makes everything on the file system that holds `path` durable.
pub(super) fn sync_all_of(path: &Path) -> Result<(), DiskError> {
    File::open(path)
        .and_then(|dir| nix::unistd::syncfs(dir).map_err(io::Error::from))
        .map_err(io_error("flushing", path))
}

/// Writes a file (0600) whole or not at all: temp file, fsync, rename, fsync of the directory.
pub(super) fn write(path: &Path, bytes: &[u8], owner: Option<Owner>) -> Result<(), DiskError> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let (dir, name) = (parent(path), path.file_name().unwrap_or_default());
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let temporary = dir.join(format!(".{}.{count}{UNFINISHED}", name.to_string_lossy()));
    let written = fresh(&temporary, bytes, owner)
        .and_then(|()| fs::rename(&temporary, path).map_err(io_error("writing", path)));
    if let Err(error) = written {
        // The first error tells; a leftover is removed at the next start.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    sync_dir(&dir)
}

fn fresh(path: &Path, bytes: &[u8], owner: Option<Owner>) -> Result<(), DiskError> {
    let error = |e| io_error("writing", path)(e);
    if fs::symlink_metadata(path).is_ok() {
        fs::remove_file(path).map_err(error)?;
    }
    // Never through a link: the server's user could have put one there.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(error)?;
    file.write_all(bytes).map_err(error)?;
    give(path, owner)?;
    file.sync_all().map_err(error)
}

/// A file's bytes; none where there is none. Links are not followed.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, DiskError> {
    let open = OpenOptions::new().read(true).custom_flags(nix::libc::O_NOFOLLOW).open(path);
    let mut file = match open {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(io_error("reading", path)(e)),
    };
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(io_error("reading", path))?;
    Ok(Some(bytes))
}

/// A file's JSON; none where there is no file.
pub(super) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, DiskError> {
    let Some(bytes) = read(path)? else { return Ok(None) };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|e| DiskError::Garbage { path: path.display().to_string(), why: e.to_string() })
}

/// Writes JSON for programs and people.
pub(super) fn write_json<T: serde::Serialize>(path: &Path, value: &T) -> Result<(), DiskError> {
    let mut bytes = serde_json::to_vec_pretty(value).map_err(|e| DiskError::Io {
        what: "writing",
        path: path.display().to_string(),
        source: e.into(),
    })?;
    bytes.push(b'\n');
    write(path, &bytes, None)
}

/// Removes a file; nothing happens where there is none.
pub(super) fn remove(path: &Path) -> Result<(), DiskError> {
    match fs::remove_file(path) {
        Ok(()) => sync_dir(&parent(path)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(io_error("removing", path)(e)),
    }
}

/// Removes a directory with all in it; nothing happens where there is none.
pub(super) fn remove_tree(path: &Path) -> Result<(), DiskError> {
    match fs::remove_dir_all(path) {
        Ok(()) => sync_dir(&parent(path)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(io_error("removing", path)(e)),
    }
}

/// Moves within one file system, durably. What is in the way is an error.
pub(super) fn rename(from: &Path, to: &Path) -> Result<(), DiskError> {
    if fs::symlink_metadata(to).is_ok() {
        return Err(io_error("moving to", to)(io::ErrorKind::AlreadyExists.into()));
    }
    fs::rename(from, to).map_err(io_error("moving", from))?;
    sync_dir(&parent(to))?;
    sync_dir(&parent(from))
}

/// The names in a directory, in order; none where there is none.
pub(super) fn names(path: &Path) -> Result<Vec<String>, DiskError> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(io_error("listing", path)(e)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(io_error("listing", path))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Removes what earlier lives began to write in a directory.
pub(super) fn sweep(dir: &Path) -> Result<(), DiskError> {
    for name in names(dir)? {
        if name.starts_with('.') && name.ends_with(UNFINISHED) {
            remove(&dir.join(name))?;
        }
    }
    Ok(())
}

/// Whether there is nothing, or an empty directory.
pub(super) fn is_empty(path: &Path) -> Result<bool, DiskError> {
    Ok(names(path)?.is_empty())
}

/// Only its owner may look into it.
pub(super) fn close_to_others(path: &Path, mode: u32) -> Result<(), DiskError> {
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(io_error("setting permissions of", path))
}

/// The directory that a path is in.
pub(super) fn parent(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("/")).to_owned()
}
