//! What a case needs of the world: a disk, and what servers do on it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use schemadock_agent::disk::Disk;
use schemadock_agent::disk::local::Local;
use schemadock_integration::sim::disk::SimDisk;
use schemadock_integration::sim::fleet::host;
use schemadock_integration::sim::life::Life;
use schemadock_integration::sim::world::World as SimWorld;
use schemadock_schema::InstanceName;

#[async_trait]
pub(crate) trait World: Send {
    fn disk(&self) -> Arc<dyn Disk>;
    /// The agent ends, and another life of it begins.
    fn restart(&mut self);
    /// What `mysqld --initialize-insecure` leaves in a directory that is mounted.
    fn initialise(&self, mount: &Path);
    /// A server starts on the data for the first time: they have an identity from then on.
    async fn first_start(&self, instance: &InstanceName, uuid: &str);
    /// Somebody takes files of the data away.
    async fn damage(&self, instance: &InstanceName);
}

pub(crate) struct Real {
    dir: tempfile::TempDir,
    disk: Option<Arc<Local>>,
}

impl Real {
    pub(crate) fn start() -> Self {
        let mut world = Self { dir: tempfile::tempdir().unwrap(), disk: None };
        world.restart();
        world
    }

    async fn data(&self, instance: &InstanceName) -> PathBuf {
        self.disk().places(instance).await.unwrap().mount.join("data")
    }
}

#[async_trait]
impl World for Real {
    fn disk(&self) -> Arc<dyn Disk> {
        self.disk.clone().unwrap()
    }

    fn restart(&mut self) {
        // Its lock goes first.
        self.disk = None;
        let (state, run) = (self.dir.path().join("state"), self.dir.path().join("run"));
        self.disk = Some(Arc::new(Local::open(&state, &run, (999, 999)).unwrap()));
    }

    fn initialise(&self, mount: &Path) {
        std::fs::create_dir(mount.join("data")).unwrap();
        for file in ["ibdata1", "mysql.ibd", "auto.cnf"] {
            std::fs::write(mount.join("data").join(file), [7; 8192]).unwrap();
        }
    }

    async fn first_start(&self, instance: &InstanceName, uuid: &str) {
        let text = format!("[auto]\nserver-uuid={uuid}\n");
        std::fs::write(self.data(instance).await.join("auto.cnf"), text).unwrap();
    }

    async fn damage(&self, instance: &InstanceName) {
        std::fs::remove_file(self.data(instance).await.join("ibdata1")).unwrap();
    }
}

pub(crate) struct Simulated {
    world: SimWorld,
    disk: Arc<SimDisk>,
}

impl Simulated {
    pub(crate) fn start() -> Self {
        let world = SimWorld::new(0);
        world.add_host(&host(1), "10.0.0.1");
        let disk = Arc::new(SimDisk::new(Life::begin(&world, &host(1))));
        Self { world, disk }
    }
}

#[async_trait]
impl World for Simulated {
    fn disk(&self) -> Arc<dyn Disk> {
        self.disk.clone()
    }

    fn restart(&mut self) {
        self.world.end_life(&host(1), "the case says so");
        self.disk = Arc::new(SimDisk::new(Life::begin(&self.world, &host(1))));
    }

    fn initialise(&self, mount: &Path) {
        self.world.initialise(&host(1), mount);
    }

    async fn first_start(&self, instance: &InstanceName, uuid: &str) {
        self.world.change_data(&host(1), instance, |uuid_kept, _| *uuid_kept = Some(uuid.to_owned()));
    }

    async fn damage(&self, instance: &InstanceName) {
        self.world.change_data(&host(1), instance, |_, complete| *complete = false);
    }
}
