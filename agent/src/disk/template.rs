//! Templates and their copies.
//!
//! A copy is made beside its place and moved there when it is durable: whatever lies in `data` is never half a copy.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use walkdir::WalkDir;

use super::DiskError;
use super::files::{self, Owner, io_error};

/// The data directory within a mount.
pub(super) const DATA: &str = "data";
/// A copy under way.
const COPYING: &str = "data.copying";
/// Files copied at once: more than two do not pay on the disks tried.
const THREADS: usize = 2;

/// Where templates are.
pub(super) struct Templates<'a> {
    /// `STATE/templates`.
    pub(super) root: &'a Path,
    /// Who the servers run as.
    pub(super) owner: Option<Owner>,
}

impl Templates<'_> {
    /// Keys are ids of images: what is no plain character in them is no part of a file's name.
    fn dir(&self, key: &str) -> PathBuf {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let name: String = key.chars().map(|c| if plain(c) { c } else { '_' }).collect();
        self.root.join(format!("of-{name}"))
    }

    fn unfinished(&self, key: &str) -> PathBuf {
        let mut name = self.dir(key).into_os_string();
        name.push(".unfinished");
        name.into()
    }

    /// A template's version, if it is ready.
    pub(super) fn version(&self, key: &str) -> Result<Option<String>, DiskError> {
        let dir = self.dir(key);
        let Some(version) = files::read(&dir.join("version"))? else {
            return Ok(None);
        };
        let there = complete(&dir.join(DATA)).map_err(io_error("looking at", &dir))?;
        Ok(there.then(|| String::from_utf8_lossy(&version).trim().to_owned()))
    }

    /// An empty directory in which it can be made.
    pub(super) fn begin(&self, key: &str) -> Result<PathBuf, DiskError> {
        let dir = self.unfinished(key);
        files::remove_tree(&dir)?;
        files::make_dir(&dir, self.owner)?;
        Ok(dir)
    }

    /// Declares it ready.
    pub(super) fn finish(&self, key: &str, version: &str) -> Result<(), DiskError> {
        let (from, to) = (self.unfinished(key), self.dir(key));
        let data = from.join(DATA);
        if !complete(&data).map_err(io_error("looking at", &data))? {
            return Err(DiskError::Garbage {
                path: data.display().to_string(),
                why: "no complete data directory was made there".to_owned(),
            });
        }
        files::write(&from.join("version"), version.as_bytes(), None)?;
        files::sync_all_of(&from)?;
        files::remove_tree(&to)?;
        files::rename(&from, &to)
    }

    /// Copies it to `mount`.
    pub(super) fn copy(&self, key: &str, mount: &Path) -> Result<(), DiskError> {
        let (data, copying) = (mount.join(DATA), mount.join(COPYING));
        files::remove_tree(&copying)?;
        if !files::is_empty(&data)? {
            // Moved there by an earlier try, and never started: the copy is done.
            let untouched =
                complete(&data).map_err(io_error("looking at", &data))? && !data.join("auto.cnf").exists();
            return if untouched {
                Ok(())
            } else {
                Err(io_error("copying the template to", &data)(io::ErrorKind::AlreadyExists.into()))
            };
        }
        files::remove_tree(&data)?;
        let copied = self.copy_tree(&self.dir(key).join(DATA), &copying);
        if copied.is_err() {
            // The room is needed, most of all where it was the disk that was full. The first error tells.
            let _ = files::remove_tree(&copying);
        }
        copied?;
        files::rename(&copying, &data)
    }

    fn copy_tree(&self, from: &Path, to: &Path) -> Result<(), DiskError> {
        let mut copies = Vec::new();
        for entry in WalkDir::new(from) {
            let entry = entry.map_err(|e| io_error("reading", from)(e.into()))?;
            let within = entry.path().strip_prefix(from).unwrap_or(entry.path());
            let target = to.join(within);
            if entry.file_type().is_dir() {
                files::make_dir(&target, self.owner)?;
            } else if entry.file_type().is_file() && belongs(within) {
                copies.push((entry.into_path(), target));
            }
        }
        self.copy_all(copies)?;
        files::sync_all_of(to)
    }

    fn copy_all(&self, copies: Vec<(PathBuf, PathBuf)>) -> Result<(), DiskError> {
        let next = AtomicUsize::new(0);
        let failed: Mutex<Option<DiskError>> = Mutex::new(None);
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    while let Some((from, to)) = copies.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if let Err(error) = self.copy_one(from, to) {
                            next.store(copies.len(), Ordering::Relaxed);
                            *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                        }
                    }
                });
            }
        });
        match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn copy_one(&self, from: &Path, to: &Path) -> Result<(), DiskError> {
        reflink_copy::reflink_or_copy(from, to).map_err(io_error("copying to", to))?;
        files::close_to_others(to, 0o600)?;
        files::give(to, self.owner)
    }
}

/// Whether a template's file belongs into a copy. Identity and keys are made per instance; spare redo logs and
/// temporary tablespaces are made anew at the start, and are half of the bytes.
fn belongs(within: &Path) -> bool {
    let name = within.file_name().unwrap_or_default().to_string_lossy();
    let first = within.iter().next().unwrap_or_default().to_string_lossy();
    let spare = first == "#innodb_redo" && name.ends_with("_tmp");
    !(name == "auto.cnf" || name.ends_with(".pem") || spare || first == "#innodb_temp")
}

/// Whether a directory looks like mysqld's data directory.
pub(super) fn complete(data: &Path) -> io::Result<bool> {
    for name in ["ibdata1", "mysql.ibd"] {
        match fs::symlink_metadata(data.join(name)) {
            Ok(there) if there.is_file() && there.len() > 0 => {}
            Ok(_) => return Ok(false),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(e),
        }
    }
    // A directory that cannot be listed is not known to be complete.
    File::open(data).map(|_| true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_into_a_copy() {
        for name in ["ibdata1", "mysql.ibd", "undo_001", "#innodb_redo/#ib_redo5", "mysql/general_log.CSV"] {
            assert!(belongs(Path::new(name)), "{name}");
        }
        for name in ["auto.cnf", "ca.pem", "#innodb_redo/#ib_redo6_tmp", "#innodb_temp/temp_1.ibt"] {
            assert!(!belongs(Path::new(name)), "{name}");
        }
    }
}
