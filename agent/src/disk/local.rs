//! The real disk.
//!
//! Everything runs on threads of its own under a deadline: a disk that hangs delays those who need it, and nobody else.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use nix::fcntl::{Flock, FlockArg};
use schemadock_agent_plan::config::SOCKET;
use schemadock_agent_plan::observed::{DataSeen, ProcessSeen};
use schemadock_agent_plan::record::Record;
use schemadock_schema::known::{Known, WhyUnknown};
use schemadock_schema::{InstanceName, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::files::{self, Owner, io_error};
use super::template::{self, DATA, Templates};
use super::{AgentRecord, Disk, DiskError, InstanceFile, Places, Retired, RetiredWhy, process, retired};

/// Calls that move no data.
const SHORT: Duration = Duration::from_secs(10);
/// Calls that copy, flush or destroy data.
const LONG: Duration = Duration::from_secs(600);

/// The disk of this host.
#[derive(Debug, Clone)]
pub struct Local {
    rooms: Arc<Rooms>,
}

#[derive(Debug)]
struct Rooms {
    state: PathBuf,
    run: PathBuf,
    /// Who the servers run as; none where that is the agent's own user.
    owner: Option<Owner>,
    sizes: retired::Sizes,
    /// Held as long as this lives.
    _lock: Flock<std::fs::File>,
}

/// A value of the store, as text where it is text.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Cached {
    Text(String),
    Bytes(Vec<u8>),
}

impl Local {
    /// Opens the state directory, makes what is missing in it, and takes its lock. `owner` is `uid` and `gid` of mysqld.
    ///
    /// # Errors
    /// When another agent uses the directory, or it cannot be used.
    pub fn open(state: &Path, run: &Path, owner: (u32, u32)) -> Result<Local, DiskError> {
        let owner = nix::unistd::geteuid().is_root().then_some(owner);
        for dir in ["instances", "templates", "retired", "cache"] {
            files::make_dir(&state.join(dir), None)?;
        }
        files::make_dir(run, None)?;
        let state = state.canonicalize().map_err(io_error("resolving", state))?;
        let run = run.canonicalize().map_err(io_error("resolving", run))?;
        let lock = lock(&state.join("agent.lock"))?;
        let rooms = Rooms { state, run, owner, sizes: retired::Sizes::default(), _lock: lock };
        rooms.sweep()?;
        Ok(Local { rooms: Arc::new(rooms) })
    }

    /// Runs `work` on a thread where it may block.
    async fn off<T: Send + 'static>(
        &self,
        what: &'static str,
        deadline: Duration,
        work: impl FnOnce(&Rooms) -> Result<T, DiskError> + Send + 'static,
    ) -> Result<T, DiskError> {
        let rooms = self.rooms.clone();
        let done = tokio::task::spawn_blocking(move || work(&rooms));
        match tokio::time::timeout(deadline, done).await {
            Ok(Ok(result)) => result,
            Ok(Err(join)) => Err(DiskError::Io {
                what,
                path: self.rooms.state.display().to_string(),
                source: std::io::Error::other(join),
            }),
            Err(_) => Err(DiskError::Deadline { what, seconds: deadline.as_secs_f64() }),
        }
    }

    /// The same for observations: an error is not knowing.
    async fn look<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl FnOnce(&Rooms) -> Result<Known<T>, DiskError> + Send + 'static,
    ) -> Known<T> {
        match self.off(what, SHORT, work).await {
            Ok(known) => known,
            Err(DiskError::Deadline { .. }) => Known::Unknown(WhyUnknown::Deadline("the disk".to_owned())),
            Err(error) => Known::Unknown(WhyUnknown::Error(error.to_string())),
        }
    }
}

/// One agent for one state directory.
fn lock(path: &Path) -> Result<Flock<std::fs::File>, DiskError> {
    let error = |e| io_error("locking", path)(e);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(error)?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut lock) => {
            lock.set_len(0).map_err(error)?;
            writeln!(lock, "{}", std::process::id()).map_err(error)?;
            Ok(lock)
        }
        Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
            let mut pid = String::new();
            file.read_to_string(&mut pid).map_err(error)?;
            Err(DiskError::Locked {
                path: files::parent(path).display().to_string(),
                pid: pid.trim().to_owned(),
            })
        }
        Err((_, errno)) => Err(error(errno.into())),
    }
}

impl Rooms {
    fn home(&self, instance: &InstanceName) -> PathBuf {
        self.state.join("instances").join(instance.to_string())
    }

    fn mount(&self, instance: &InstanceName) -> PathBuf {
        self.home(instance).join("mount")
    }

    fn data(&self, instance: &InstanceName) -> PathBuf {
        self.mount(instance).join(DATA)
    }

    fn record(&self, instance: &InstanceName) -> PathBuf {
        self.home(instance).join("record.json")
    }

    fn shelf(&self, instance: &InstanceName) -> PathBuf {
        self.state.join("retired").join(instance.to_string())
    }

    /// Short, since a socket's path has at most 107 bytes.
    fn run(&self, instance: &InstanceName) -> PathBuf {
        let hash = Sha256::digest(instance.to_string());
        let name: String = hash.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        self.run.join(name)
    }

    fn file(&self, instance: &InstanceName, file: InstanceFile) -> PathBuf {
        self.mount(instance).join(match file {
            InstanceFile::Config => "my.cnf",
            InstanceFile::GoodConfig => "my.cnf.good",
            InstanceFile::CandidateConfig => "my.cnf.candidate",
            InstanceFile::Init => "init.sql",
        })
    }

    fn templates<'a>(&self, root: &'a Path) -> Templates<'a> {
        Templates { root, owner: self.owner }
    }

    /// Removes what earlier lives began to write.
    fn sweep(&self) -> Result<(), DiskError> {
        files::sweep(&self.state)?;
        files::sweep(&self.state.join("cache"))?;
        let instances = self.state.join("instances");
        for name in files::names(&instances)? {
            files::sweep(&instances.join(&name))?;
            files::sweep(&instances.join(&name).join("mount"))?;
        }
        Ok(())
    }

    fn places(&self, instance: &InstanceName) -> Result<Places, DiskError> {
        let (mount, run) = (self.mount(instance), self.run(instance));
        files::make_dir(&self.home(instance), None)?;
        files::make_dir(&mount, self.owner)?;
        files::make_dir(&run, self.owner)?;
        Ok(Places { socket: run.join(SOCKET), mount, run })
    }

    fn look_at_data(&self, instance: &InstanceName) -> Result<Known<DataSeen>, DiskError> {
        let data = self.data(instance);
        if files::is_empty(&data)? {
            return Ok(Known::Absent);
        }
        Ok(Known::Present(DataSeen {
            server_uuid: retired::server_uuid(&data)?,
            complete: template::complete(&data).map_err(io_error("looking at", &data))?,
        }))
    }

    fn forget(&self, instance: &InstanceName) -> Result<(), DiskError> {
        let data = self.data(instance);
        if !files::is_empty(&data)? {
            return Err(io_error("forgetting", &data)(std::io::ErrorKind::DirectoryNotEmpty.into()));
        }
        files::remove_tree(&self.home(instance))?;
        files::remove_tree(&self.run(instance))
    }
}

#[async_trait]
impl Disk for Local {
    async fn places(&self, instance: &InstanceName) -> Result<Places, DiskError> {
        let instance = instance.clone();
        self.off("for an instance's places", SHORT, move |rooms| rooms.places(&instance)).await
    }

    async fn instances(&self) -> Result<Vec<InstanceName>, DiskError> {
        self.off("for its instances", SHORT, |rooms| {
            let names = files::names(&rooms.state.join("instances"))?;
            Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
        })
        .await
    }

    async fn record(&self, instance: &InstanceName) -> Result<Record, DiskError> {
        let instance = instance.clone();
        self.off("for a record", SHORT, move |rooms| {
            Ok(files::read_json(&rooms.record(&instance))?.unwrap_or_default())
        })
        .await
    }

    async fn write_record(&self, instance: &InstanceName, record: &Record) -> Result<(), DiskError> {
        let (instance, record) = (instance.clone(), record.clone());
        self.off("to write a record", SHORT, move |rooms| {
            files::make_dir(&rooms.home(&instance), None)?;
            files::write_json(&rooms.record(&instance), &record)
        })
        .await
    }

    async fn data(&self, instance: &InstanceName) -> Known<DataSeen> {
        let instance = instance.clone();
        self.look("for a data directory", move |rooms| rooms.look_at_data(&instance)).await
    }

    async fn process(&self, instance: &InstanceName) -> Known<ProcessSeen> {
        let instance = instance.clone();
        self.look("for who holds a data directory", move |rooms| Ok(process::holder(&rooms.data(&instance))))
            .await
    }

    async fn resident(&self, process: &ProcessSeen) -> Known<u64> {
        let process = process.clone();
        self.look("for how much memory a process occupies", move |_| Ok(process::resident(&process))).await
    }

    async fn kill_process(&self, process: &ProcessSeen) -> Result<(), DiskError> {
        let process = process.clone();
        self.off("to kill a process", SHORT, move |_| process::kill(&process)).await
    }

    async fn read_file(
        &self,
        instance: &InstanceName,
        file: InstanceFile,
    ) -> Result<Option<String>, DiskError> {
        let instance = instance.clone();
        self.off("for a file", SHORT, move |rooms| {
            let path = rooms.file(&instance, file);
            let Some(bytes) = files::read(&path)? else { return Ok(None) };
            String::from_utf8(bytes)
                .map(Some)
                .map_err(|e| DiskError::Garbage { path: path.display().to_string(), why: e.to_string() })
        })
        .await
    }

    async fn write_file(
        &self,
        instance: &InstanceName,
        file: InstanceFile,
        text: Option<&str>,
    ) -> Result<(), DiskError> {
        let (instance, text) = (instance.clone(), text.map(str::to_owned));
        self.off("to write a file", SHORT, move |rooms| {
            let path = rooms.file(&instance, file);
            match text {
                None => files::remove(&path),
                Some(text) => {
                    rooms.places(&instance)?;
                    files::write(&path, text.as_bytes(), rooms.owner)
                }
            }
        })
        .await
    }

    async fn template(&self, key: &str) -> Result<Option<String>, DiskError> {
        let key = key.to_owned();
        self.off("for a template", SHORT, move |rooms| {
            rooms.templates(&rooms.state.join("templates")).version(&key)
        })
        .await
    }

    async fn begin_template(&self, key: &str) -> Result<PathBuf, DiskError> {
        let key = key.to_owned();
        self.off("to begin a template", LONG, move |rooms| {
            rooms.templates(&rooms.state.join("templates")).begin(&key)
        })
        .await
    }

    async fn finish_template(&self, key: &str, version: &str) -> Result<(), DiskError> {
        let (key, version) = (key.to_owned(), version.to_owned());
        self.off("to finish a template", LONG, move |rooms| {
            rooms.templates(&rooms.state.join("templates")).finish(&key, &version)
        })
        .await
    }

    async fn copy_template(&self, key: &str, instance: &InstanceName) -> Result<(), DiskError> {
        let (key, instance) = (key.to_owned(), instance.clone());
        self.off("to copy a template", LONG, move |rooms| {
            let places = rooms.places(&instance)?;
            rooms.templates(&rooms.state.join("templates")).copy(&key, &places.mount)
        })
        .await
    }

    async fn retire(
        &self,
        instance: &InstanceName,
        now: Timestamp,
        why: RetiredWhy,
    ) -> Result<(), DiskError> {
        let instance = instance.clone();
        self.off("to set data aside", SHORT, move |rooms| {
            // An identity that cannot be read keeps nobody from setting the data aside.
            let uuid = retired::server_uuid(&rooms.data(&instance)).ok().flatten();
            retired::retire(&rooms.home(&instance), &rooms.shelf(&instance), now, why, uuid)
        })
        .await
    }

    async fn retired(&self) -> Result<Vec<Retired>, DiskError> {
        self.off("for data set aside", LONG, |rooms| {
            retired::list(&rooms.state.join("retired"), &rooms.sizes)
        })
        .await
    }

    async fn take_up(&self, retired: &Retired) -> Result<(), DiskError> {
        let (instance, name) = (retired.instance.clone(), retired.name.clone());
        self.off("to take data up", SHORT, move |rooms| {
            retired::take_up(&rooms.shelf(&instance), &name, &rooms.home(&instance), &rooms.sizes)
        })
        .await
    }

    async fn purge(&self, instance: &InstanceName) -> Result<u64, DiskError> {
        let instance = instance.clone();
        self.off("to destroy data set aside", LONG, move |rooms| {
            retired::purge(&rooms.shelf(&instance), &rooms.sizes)
        })
        .await
    }

    async fn forget(&self, instance: &InstanceName) -> Result<(), DiskError> {
        let instance = instance.clone();
        self.off("to forget an instance", SHORT, move |rooms| rooms.forget(&instance)).await
    }

    async fn free_bytes(&self) -> Result<u64, DiskError> {
        self.off("how much room it has", SHORT, |rooms| {
            let seen = nix::sys::statvfs::statvfs(&rooms.state)
                .map_err(|errno| io_error("asking the file system of", &rooms.state)(errno.into()))?;
            Ok(seen.blocks_available() * seen.fragment_size())
        })
        .await
    }

    async fn read_cache(&self) -> Result<BTreeMap<String, Vec<u8>>, DiskError> {
        self.off("for the cache", SHORT, |rooms| {
            let all: Option<BTreeMap<String, Cached>> =
                files::read_json(&rooms.state.join("cache/store.json"))?;
            Ok(all
                .unwrap_or_default()
                .into_iter()
                .map(|(key, value)| match value {
                    Cached::Text(text) => (key, text.into_bytes()),
                    Cached::Bytes(bytes) => (key, bytes),
                })
                .collect())
        })
        .await
    }

    async fn write_cache(&self, cache: &BTreeMap<String, Vec<u8>>) -> Result<(), DiskError> {
        let all: BTreeMap<String, Cached> = cache
            .iter()
            .map(|(key, value)| {
                let value = match std::str::from_utf8(value) {
                    Ok(text) => Cached::Text(text.to_owned()),
                    Err(_) => Cached::Bytes(value.clone()),
                };
                (key.clone(), value)
            })
            .collect();
        self.off("to write the cache", SHORT, move |rooms| {
            files::write_json(&rooms.state.join("cache/store.json"), &all)
        })
        .await
    }

    async fn agent(&self) -> Result<AgentRecord, DiskError> {
        self.off("for the agent's identity", SHORT, |rooms| {
            let path = rooms.state.join("agent.json");
            if let Some(record) = files::read_json(&path)? {
                return Ok(record);
            }
            let record = AgentRecord { id: uuid::Uuid::new_v4().to_string(), ..AgentRecord::default() };
            files::write_json(&path, &record)?;
            Ok(record)
        })
        .await
    }

    async fn write_agent(&self, record: &AgentRecord) -> Result<(), DiskError> {
        let record = record.clone();
        self.off("to write the agent's identity", SHORT, move |rooms| {
            files::write_json(&rooms.state.join("agent.json"), &record)
        })
        .await
    }
}
