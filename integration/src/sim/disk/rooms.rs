//! What lies on the disk of a host, and where it is found.

use std::collections::BTreeMap;
use std::path::Path;

use schemadock_agent::disk::{AgentRecord, InstanceFile, RetiredWhy};
use schemadock_agent_plan::record::Record;
use schemadock_schema::{HostName, InstanceName, Timestamp};

use crate::sim::mysqld::data::Data;
use crate::sim::world::{DataId, State, World};

/// What a data directory takes, in bytes.
const BYTES: u64 = 100 << 20;

/// What lies on the disk of a host.
#[derive(Default)]
pub(in crate::sim) struct Rooms {
    pub(super) agent: Option<AgentRecord>,
    pub(super) cache: BTreeMap<String, Vec<u8>>,
    /// Version by key.
    pub(super) templates: BTreeMap<String, String>,
    /// Begun: whether a complete data directory lies there.
    pub(in crate::sim) unfinished: BTreeMap<String, bool>,
    pub(in crate::sim) homes: BTreeMap<InstanceName, Home>,
    pub(super) shelves: BTreeMap<InstanceName, Vec<Shelved>>,
}

/// `STATE/instances/<instance>`.
#[derive(Default)]
pub(in crate::sim) struct Home {
    pub(super) record: Option<Record>,
    pub(super) files: BTreeMap<&'static str, String>,
    pub(in crate::sim) data: Option<DataId>,
}

pub(super) struct Shelved {
    pub(super) name: String,
    pub(super) since: Timestamp,
    pub(super) why: RetiredWhy,
    pub(super) home: Home,
}

impl Home {
    pub(in crate::sim) fn file(&self, file: InstanceFile) -> Option<&String> {
        self.files.get(name_of(file))
    }

    /// Bytes of disk.
    pub(super) fn bytes(&self) -> u64 {
        4096 + self.data.map_or(0, |_| BYTES)
    }
}

pub(super) fn name_of(file: InstanceFile) -> &'static str {
    match file {
        InstanceFile::Config => "my.cnf",
        InstanceFile::GoodConfig => "my.cnf.good",
        InstanceFile::CandidateConfig => "my.cnf.candidate",
        InstanceFile::Init => "init.sql",
    }
}

/// The instance whose directory is mounted from here.
pub(in crate::sim) fn instance_at(mount: &Path) -> Option<InstanceName> {
    mount.parent()?.ends_with("instances").then(|| mount.file_name()?.to_str()?.parse().ok())?
}

/// The instance whose socket this is.
pub(in crate::sim) fn instance_at_run(socket: &Path) -> Option<InstanceName> {
    socket.parent()?.file_name()?.to_str()?.parse().ok()
}

/// The template that is made here.
pub(in crate::sim) fn template_at(mount: &Path) -> Option<String> {
    mount.parent()?.ends_with("templates").then(|| Some(mount.file_name()?.to_str()?.to_owned()))?
}

impl World {
    /// What `mysqld --initialize-insecure` leaves in a directory that is mounted.
    pub fn initialise(&self, host: &HostName, mount: &Path) {
        self.change(|state| {
            if let Some(key) = template_at(mount) {
                state.host(host).rooms.unfinished.insert(key, true);
            }
        });
    }

    /// Changes the identity of an instance's data, and whether they are complete.
    pub fn change_data(
        &self,
        host: &HostName,
        instance: &InstanceName,
        change: impl FnOnce(&mut Option<String>, &mut bool),
    ) {
        self.change(|state| {
            let home = state.hosts[host].rooms.homes.get(instance);
            if let Some(data) = home.and_then(|home| home.data).and_then(|id| state.data.get_mut(&id)) {
                change(&mut data.uuid, &mut data.complete);
            }
        });
    }
}

impl State {
    /// A data directory from the template, without an identity.
    pub(in crate::sim) fn new_data(&mut self) -> DataId {
        let id = self.next_id();
        self.data.insert(id, Data::from_template());
        id
    }

    pub(super) fn data_at(&self, rooms: &Rooms, instance: &InstanceName) -> Option<(DataId, &Data)> {
        let id = rooms.homes.get(instance)?.data?;
        Some((id, &self.data[&id]))
    }
}
