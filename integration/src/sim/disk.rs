//! A simulated disk, held against the real one by the suite `disk_seam`.
//!
//! What [`Local`](schemadock_agent::disk::local::Local) does with one rename happens at once here, and what takes it two
//! steps takes two: an agent can end in between. Data directories live in the [world](super::world), so that a server
//! goes on with the one it has opened wherever that is moved.

mod rooms;

use std::collections::BTreeMap;
use std::path::PathBuf;

use async_trait::async_trait;
use schemadock_agent::disk::{AgentRecord, Disk, DiskError, InstanceFile, Places, Retired, RetiredWhy};
use schemadock_agent_plan::config::SOCKET;
use schemadock_agent_plan::observed::{DataSeen, ProcessSeen};
use schemadock_agent_plan::record::Record;
use schemadock_schema::known::Known;
use schemadock_schema::{HostName, InstanceName, Timestamp};

use super::life::Life;
use super::world::State;
pub(super) use rooms::{Rooms, instance_at, instance_at_run, template_at};
use rooms::{Shelved, name_of};

/// A small file, in microseconds.
const SMALL: std::ops::Range<u64> = 100..3_000;
/// Copying a template.
const COPY: std::ops::Range<u64> = 40_000..200_000;

/// The disk of a host, as one life of its agent reaches it.
#[derive(Clone)]
pub struct SimDisk {
    life: Life,
}

impl SimDisk {
    /// For this life.
    pub fn new(life: Life) -> SimDisk {
        SimDisk { life }
    }

    async fn call<T>(
        &self,
        micros: std::ops::Range<u64>,
        effect: impl FnOnce(&mut State, &HostName) -> T,
    ) -> T {
        self.life.call(micros, |state| effect(state, self.life.host())).await
    }

    /// The same for what takes room.
    async fn write<T>(
        &self,
        micros: std::ops::Range<u64>,
        effect: impl FnOnce(&mut State, &HostName) -> Result<T, DiskError>,
    ) -> Result<T, DiskError> {
        self.call(micros, |state, host| match state.hosts[host].full {
            true => Err(DiskError::Full { path: "/sim".to_owned() }),
            false => effect(state, host),
        })
        .await
    }

    async fn ask<T>(&self, look: impl FnOnce(&State, &Rooms) -> T) -> T {
        let host = self.life.host();
        self.life.ask(SMALL, |state| look(state, &state.hosts[host].rooms)).await
    }

    fn root(&self) -> PathBuf {
        PathBuf::from(format!("/sim/{}", self.life.host()))
    }

    fn places_of(&self, instance: &InstanceName) -> Places {
        let run = self.root().join("run").join(instance.as_str());
        let mount = self.root().join("instances").join(instance.as_str());
        Places { socket: run.join(SOCKET), mount, run }
    }
}

fn io(what: &'static str, path: impl std::fmt::Display, kind: std::io::ErrorKind) -> DiskError {
    DiskError::Io { what, path: path.to_string(), source: kind.into() }
}

#[async_trait]
impl Disk for SimDisk {
    async fn places(&self, instance: &InstanceName) -> Result<Places, DiskError> {
        self.call(SMALL, |state, host| {
            state.host(host).rooms.homes.entry(instance.clone()).or_default().bytes()
        })
        .await;
        Ok(self.places_of(instance))
    }

    async fn instances(&self) -> Result<Vec<InstanceName>, DiskError> {
        Ok(self.ask(|_, rooms| rooms.homes.keys().cloned().collect()).await)
    }

    async fn record(&self, instance: &InstanceName) -> Result<Record, DiskError> {
        let record =
            self.ask(|_, rooms| rooms.homes.get(instance).and_then(|home| home.record.clone())).await;
        Ok(record.unwrap_or_default())
    }

    async fn write_record(&self, instance: &InstanceName, record: &Record) -> Result<(), DiskError> {
        self.write(SMALL, |state, host| {
            state.judge_record(host, instance, record);
            state.host(host).rooms.homes.entry(instance.clone()).or_default().record = Some(record.clone());
            Ok(())
        })
        .await
    }

    async fn data(&self, instance: &InstanceName) -> Known<DataSeen> {
        self.ask(|state, rooms| {
            let found = state.data_at(rooms, instance);
            Known::from(
                found.map(|(_, data)| DataSeen { server_uuid: data.uuid.clone(), complete: data.complete }),
            )
        })
        .await
    }

    async fn process(&self, instance: &InstanceName) -> Known<ProcessSeen> {
        self.ask(|state, rooms| {
            let held = state.data_at(rooms, instance).and_then(|(id, _)| state.holder(id));
            Known::from(held.map(|server| ProcessSeen { pid: server.pid, started: server.pid as u64 }))
        })
        .await
    }

    async fn resident(&self, _: &ProcessSeen) -> Known<u64> {
        // What servers occupy is not simulated: any limit has room.
        self.ask(|_, _| Known::Present(0)).await
    }

    async fn kill_process(&self, process: &ProcessSeen) -> Result<(), DiskError> {
        let pid = process.pid;
        self.call(SMALL, |state, host| {
            // Only this host's processes can be meant.
            if state.servers.get(&pid).is_some_and(|server| server.host == *host) {
                state.server_ends(pid, 137, "its agent has killed the process");
            }
        })
        .await;
        Ok(())
    }

    async fn read_file(
        &self,
        instance: &InstanceName,
        file: InstanceFile,
    ) -> Result<Option<String>, DiskError> {
        Ok(self.ask(|_, rooms| rooms.homes.get(instance).and_then(|home| home.file(file).cloned())).await)
    }

    async fn write_file(
        &self,
        instance: &InstanceName,
        file: InstanceFile,
        text: Option<&str>,
    ) -> Result<(), DiskError> {
        let effect = |state: &mut State, host: &HostName| {
            let homes = &mut state.host(host).rooms.homes;
            match text {
                Some(text) => {
                    let home = homes.entry(instance.clone()).or_default();
                    home.files.insert(name_of(file), text.to_owned());
                }
                None => {
                    homes.get_mut(instance).and_then(|home| home.files.remove(name_of(file)));
                }
            }
            Ok(())
        };
        match text {
            Some(_) => self.write(SMALL, effect).await,
            None => self.call(SMALL, effect).await,
        }
    }

    async fn template(&self, key: &str) -> Result<Option<String>, DiskError> {
        Ok(self.ask(|_, rooms| rooms.templates.get(key).cloned()).await)
    }

    async fn begin_template(&self, key: &str) -> Result<PathBuf, DiskError> {
        self.call(SMALL, |state, host| {
            state.host(host).rooms.unfinished.insert(key.to_owned(), false);
        })
        .await;
        Ok(self.root().join("templates").join(key))
    }

    async fn finish_template(&self, key: &str, version: &str) -> Result<(), DiskError> {
        self.write(COPY, |state, host| {
            let rooms = &mut state.host(host).rooms;
            if rooms.unfinished.get(key) != Some(&true) {
                let why = "no complete data directory was made there".to_owned();
                return Err(DiskError::Garbage { path: key.to_owned(), why });
            }
            rooms.unfinished.remove(key);
            rooms.templates.insert(key.to_owned(), version.to_owned());
            Ok(())
        })
        .await
    }

    async fn copy_template(&self, key: &str, instance: &InstanceName) -> Result<(), DiskError> {
        const WHAT: &str = "copying the template to";
        self.write(COPY, |state, host| {
            let rooms = &state.hosts[host].rooms;
            if let Some((_, data)) = state.data_at(rooms, instance) {
                let untouched = data.complete && data.uuid.is_none();
                let taken = || io(WHAT, instance, std::io::ErrorKind::AlreadyExists);
                return if untouched { Ok(()) } else { Err(taken()) };
            }
            if !rooms.templates.contains_key(key) {
                return Err(io(WHAT, instance, std::io::ErrorKind::NotFound));
            }
            let id = state.new_data();
            state.note(format!("{host}: {instance} gets data from the template"));
            state.host(host).rooms.homes.entry(instance.clone()).or_default().data = Some(id);
            Ok(())
        })
        .await
    }

    async fn retire(
        &self,
        instance: &InstanceName,
        now: Timestamp,
        why: RetiredWhy,
    ) -> Result<(), DiskError> {
        self.write(SMALL, |state, host| {
            state.judge_retiring(host, instance);
            let rooms = &mut state.host(host).rooms;
            let missing = || io("moving", instance, std::io::ErrorKind::NotFound);
            let mut home = rooms.homes.remove(instance).ok_or_else(missing)?;
            home.files.remove(name_of(InstanceFile::Init));
            let shelf = rooms.shelves.entry(instance.clone()).or_default();
            let mut name = now.strftime("%Y%m%dT%H%M%S.%3fZ").to_string();
            let plain = name.clone();
            for n in 2.. {
                if !shelf.iter().any(|other| other.name == name) {
                    break;
                }
                name = format!("{plain}-{n}");
            }
            state.note(format!("{host}: data of {instance} are set aside ({why:?})"));
            let shelved = Shelved { name, since: now, why, home };
            state.host(host).rooms.shelves.entry(instance.clone()).or_default().push(shelved);
            Ok(())
        })
        .await
    }

    async fn retired(&self) -> Result<Vec<Retired>, DiskError> {
        Ok(self
            .ask(|state, rooms| {
                let each =
                    rooms.shelves.iter().flat_map(|(name, all)| all.iter().map(move |one| (name, one)));
                each.map(|(instance, one)| Retired {
                    instance: instance.clone(),
                    name: one.name.clone(),
                    since: one.since,
                    bytes: one.home.bytes(),
                    why: one.why,
                    server_uuid: one.home.data.and_then(|id| state.data[&id].uuid.clone()),
                })
                .collect()
            })
            .await)
    }

    async fn take_up(&self, retired: &Retired) -> Result<(), DiskError> {
        const WHAT: &str = "taking up";
        let instance = &retired.instance;
        self.call(SMALL, |state, host| {
            let rooms = &mut state.host(host).rooms;
            if rooms.homes.get(instance).is_some_and(|home| home.data.is_some()) {
                return Err(io(WHAT, instance, std::io::ErrorKind::AlreadyExists));
            }
            let there =
                rooms.shelves.get(instance).is_some_and(|all| all.iter().any(|one| one.name == retired.name));
            if !there {
                return Err(io(WHAT, instance, std::io::ErrorKind::NotFound));
            }
            rooms.homes.remove(instance);
            Ok(())
        })
        .await?;
        self.call(SMALL, |state, host| {
            let rooms = &mut state.host(host).rooms;
            let shelf = rooms.shelves.entry(instance.clone()).or_default();
            let at = shelf.iter().position(|one| one.name == retired.name);
            let at = at.ok_or_else(|| io(WHAT, instance, std::io::ErrorKind::NotFound))?;
            let home = shelf.remove(at).home;
            rooms.homes.insert(instance.clone(), home);
            state.note(format!("{host}: data of {instance} are taken up again"));
            Ok(())
        })
        .await
    }

    async fn purge(&self, instance: &InstanceName) -> Result<u64, DiskError> {
        self.call(COPY, |state, host| {
            state.note(format!("{host}: retired data of {instance} are destroyed"));
            let shelf = state.host(host).rooms.shelves.remove(instance).unwrap_or_default();
            Ok(shelf.iter().map(|one| one.home.bytes()).sum())
        })
        .await
    }

    async fn forget(&self, instance: &InstanceName) -> Result<(), DiskError> {
        self.call(SMALL, |state, host| {
            let homes = &mut state.host(host).rooms.homes;
            if homes.get(instance).is_some_and(|home| home.data.is_some()) {
                return Err(io("forgetting", instance, std::io::ErrorKind::DirectoryNotEmpty));
            }
            homes.remove(instance);
            Ok(())
        })
        .await
    }

    async fn free_bytes(&self) -> Result<u64, DiskError> {
        Ok(self.ask(|_, _| 500 << 30).await)
    }

    async fn read_cache(&self) -> Result<BTreeMap<String, Vec<u8>>, DiskError> {
        Ok(self.ask(|_, rooms| rooms.cache.clone()).await)
    }

    async fn write_cache(&self, cache: &BTreeMap<String, Vec<u8>>) -> Result<(), DiskError> {
        self.write(SMALL, |state, host| {
            state.host(host).rooms.cache.clone_from(cache);
            Ok(())
        })
        .await
    }

    async fn agent(&self) -> Result<AgentRecord, DiskError> {
        self.call(SMALL, |state, host| {
            let id = state.uuid();
            let new = || AgentRecord { id, ..AgentRecord::default() };
            Ok(state.host(host).rooms.agent.get_or_insert_with(new).clone())
        })
        .await
    }

    async fn write_agent(&self, record: &AgentRecord) -> Result<(), DiskError> {
        self.write(SMALL, |state, host| {
            state.host(host).rooms.agent = Some(record.clone());
            Ok(())
        })
        .await
    }
}
