//! What a disk does, real or simulated.

use std::collections::BTreeMap;

use schemadock_agent::disk::{Disk, DiskError, InstanceFile, Retired, RetiredWhy};
use schemadock_agent_plan::record::{DataOrigin, Record};
use schemadock_schema::{InstanceName, Timestamp};

use crate::world::World;

const UUID: &str = "2be60ca8-e5a2-11f1-8056-02fc00000001";
const KEY: &str = "0123456789abcdef";

fn db1() -> InstanceName {
    "h-c-db1".parse().unwrap()
}

fn now() -> Timestamp {
    "2026-11-21T11:53:00.123Z".parse().unwrap()
}

fn record() -> Record {
    Record { server_id: Some(7), data: DataOrigin::Own, ..Record::default() }
}

async fn template(world: &dyn World) {
    let mount = world.disk().begin_template(KEY).await.unwrap();
    world.initialise(&mount);
    world.disk().finish_template(KEY, "9.7.4").await.unwrap();
}

/// Data that a server has started on.
async fn own_data(world: &dyn World) {
    template(world).await;
    world.disk().copy_template(KEY, &db1()).await.unwrap();
    world.first_start(&db1(), UUID).await;
}

async fn uuid(disk: &dyn Disk) -> Option<String> {
    disk.data(&db1()).await.present().expect("data are there").server_uuid.clone()
}

async fn only_retired(disk: &dyn Disk) -> Retired {
    let mut all = disk.retired().await.unwrap();
    assert_eq!(all.len(), 1);
    all.remove(0)
}

fn is_io<T: std::fmt::Debug>(result: Result<T, DiskError>) {
    assert!(matches!(result, Err(DiskError::Io { .. })), "{result:?}");
}

pub(crate) async fn what_was_never_written_is_not_there(world: &mut impl World) {
    let disk = world.disk();
    assert_eq!(disk.record(&db1()).await.unwrap(), Record::default());
    assert_eq!(disk.read_file(&db1(), InstanceFile::Config).await.unwrap(), None);
    disk.write_file(&db1(), InstanceFile::Config, None).await.unwrap();
    assert!(disk.data(&db1()).await.is_absent());
    assert!(disk.process(&db1()).await.is_absent());
    assert!(disk.instances().await.unwrap().is_empty());
    assert!(disk.retired().await.unwrap().is_empty());
    assert!(disk.read_cache().await.unwrap().is_empty());
    disk.forget(&db1()).await.unwrap();
    is_io(disk.retire(&db1(), now(), RetiredWhy::Deleted).await);
}

pub(crate) async fn records_and_files_outlive_the_agent(world: &mut impl World) {
    let disk = world.disk();
    let places = disk.places(&db1()).await.unwrap();
    assert!(places.socket.starts_with(&places.run));
    disk.write_record(&db1(), &record()).await.unwrap();
    disk.write_file(&db1(), InstanceFile::Config, Some("one")).await.unwrap();
    disk.write_file(&db1(), InstanceFile::Config, Some("two ü")).await.unwrap();
    disk.write_file(&db1(), InstanceFile::Init, Some("secret")).await.unwrap();
    drop(disk);
    world.restart();
    let disk = world.disk();
    assert_eq!(disk.places(&db1()).await.unwrap(), places);
    assert_eq!(disk.instances().await.unwrap(), [db1()]);
    assert_eq!(disk.record(&db1()).await.unwrap(), record());
    assert_eq!(disk.read_file(&db1(), InstanceFile::Config).await.unwrap().as_deref(), Some("two ü"));
    assert_eq!(disk.read_file(&db1(), InstanceFile::GoodConfig).await.unwrap(), None);
    disk.write_file(&db1(), InstanceFile::Init, None).await.unwrap();
    assert_eq!(disk.read_file(&db1(), InstanceFile::Init).await.unwrap(), None);
}

pub(crate) async fn an_agent_keeps_its_identity_and_its_memory(world: &mut impl World) {
    let disk = world.disk();
    let mut record = disk.agent().await.unwrap();
    assert_eq!(record.id.len(), 36);
    record.fleet = Some("f".to_owned());
    disk.write_agent(&record).await.unwrap();
    let cache = [("/a/b", b"{}".to_vec()), ("/c", vec![0xff, 0, 0xfe])];
    let cache: BTreeMap<_, _> = cache.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    disk.write_cache(&cache).await.unwrap();
    drop(disk);
    world.restart();
    assert_eq!(world.disk().agent().await.unwrap(), record);
    assert_eq!(world.disk().read_cache().await.unwrap(), cache);
}

pub(crate) async fn a_template_is_ready_or_not_there(world: &mut impl World) {
    let disk = world.disk();
    assert_eq!(disk.template(KEY).await.unwrap(), None);
    disk.begin_template(KEY).await.unwrap();
    let nothing = disk.finish_template(KEY, "9").await.unwrap_err();
    assert!(matches!(nothing, DiskError::Garbage { .. }), "{nothing:?}");
    // What an earlier try has left does not count.
    let mount = disk.begin_template(KEY).await.unwrap();
    world.initialise(&mount);
    disk.begin_template(KEY).await.unwrap();
    assert!(disk.finish_template(KEY, "9").await.is_err());
    assert_eq!(disk.template(KEY).await.unwrap(), None);
    template(world).await;
    assert_eq!(disk.template(KEY).await.unwrap().as_deref(), Some("9.7.4"));
    assert_eq!(disk.template("fedcba9876543210").await.unwrap(), None);
}

pub(crate) async fn a_copy_is_new_data_and_is_made_once(world: &mut impl World) {
    let disk = world.disk();
    is_io(disk.copy_template(KEY, &db1()).await);
    assert!(disk.data(&db1()).await.is_absent());
    template(world).await;
    disk.copy_template(KEY, &db1()).await.unwrap();
    assert_eq!(uuid(&*disk).await, None);
    disk.copy_template(KEY, &db1()).await.unwrap();
    world.first_start(&db1(), UUID).await;
    is_io(disk.copy_template(KEY, &db1()).await);
    assert_eq!(uuid(&*disk).await.as_deref(), Some(UUID));
}

pub(crate) async fn data_are_told_apart(world: &mut impl World) {
    let disk = world.disk();
    disk.places(&db1()).await.unwrap();
    assert!(disk.data(&db1()).await.is_absent());
    own_data(world).await;
    assert!(disk.data(&db1()).await.present().unwrap().complete);
    world.damage(&db1()).await;
    assert!(!disk.data(&db1()).await.present().unwrap().complete);
    assert_eq!(uuid(&*disk).await.as_deref(), Some(UUID));
}

pub(crate) async fn data_are_set_aside_whole_and_taken_up_again(world: &mut impl World) {
    own_data(world).await;
    let disk = world.disk();
    disk.write_record(&db1(), &record()).await.unwrap();
    disk.write_file(&db1(), InstanceFile::Config, Some("text")).await.unwrap();
    disk.write_file(&db1(), InstanceFile::Init, Some("secret")).await.unwrap();
    disk.retire(&db1(), now(), RetiredWhy::Deleted).await.unwrap();
    assert!(disk.data(&db1()).await.is_absent());
    assert!(disk.instances().await.unwrap().is_empty());
    assert_eq!(disk.record(&db1()).await.unwrap(), Record::default());
    assert_eq!(disk.read_file(&db1(), InstanceFile::Config).await.unwrap(), None);
    let retired = only_retired(&*disk).await;
    assert_eq!((&retired.instance, retired.why, retired.since), (&db1(), RetiredWhy::Deleted, now()));
    assert_eq!((retired.server_uuid.as_deref(), retired.name.as_str()), (Some(UUID), "20261121T115300.123Z"));
    assert!(retired.bytes > 0);
    disk.places(&db1()).await.unwrap();
    disk.take_up(&retired).await.unwrap();
    assert!(disk.retired().await.unwrap().is_empty());
    assert_eq!(disk.record(&db1()).await.unwrap(), record());
    assert_eq!(uuid(&*disk).await.as_deref(), Some(UUID));
    assert_eq!(disk.read_file(&db1(), InstanceFile::Config).await.unwrap().as_deref(), Some("text"));
    // It holds passwords that nobody needs any more.
    assert_eq!(disk.read_file(&db1(), InstanceFile::Init).await.unwrap(), None);
    disk.retire(&db1(), now(), RetiredWhy::Reseed).await.unwrap();
    disk.purge(&db1()).await.unwrap();
    is_io(disk.take_up(&retired).await);
}

pub(crate) async fn what_is_set_aside_twice_has_two_names(world: &mut impl World) {
    own_data(world).await;
    let disk = world.disk();
    disk.retire(&db1(), now(), RetiredWhy::Replaced).await.unwrap();
    disk.copy_template(KEY, &db1()).await.unwrap();
    disk.retire(&db1(), now(), RetiredWhy::Reseed).await.unwrap();
    let all = disk.retired().await.unwrap();
    let told: Vec<_> =
        all.iter().map(|one| (one.name.as_str(), one.why, one.server_uuid.as_deref())).collect();
    let first = ("20261121T115300.123Z", RetiredWhy::Replaced, Some(UUID));
    assert_eq!(told, [first, ("20261121T115300.123Z-2", RetiredWhy::Reseed, None)]);
}

pub(crate) async fn new_data_are_no_reason_to_lose_the_old(world: &mut impl World) {
    own_data(world).await;
    let disk = world.disk();
    disk.retire(&db1(), now(), RetiredWhy::Deleted).await.unwrap();
    let retired = only_retired(&*disk).await;
    disk.copy_template(KEY, &db1()).await.unwrap();
    is_io(disk.take_up(&retired).await);
    assert_eq!(only_retired(&*disk).await, retired);
    assert_eq!(uuid(&*disk).await, None);
}

pub(crate) async fn only_what_holds_no_data_is_forgotten(world: &mut impl World) {
    own_data(world).await;
    let disk = world.disk();
    is_io(disk.forget(&db1()).await);
    assert_eq!(uuid(&*disk).await.as_deref(), Some(UUID));
    disk.retire(&db1(), now(), RetiredWhy::Deleted).await.unwrap();
    disk.write_record(&db1(), &record()).await.unwrap();
    assert_eq!(disk.instances().await.unwrap(), [db1()]);
    disk.forget(&db1()).await.unwrap();
    disk.forget(&db1()).await.unwrap();
    assert!(disk.instances().await.unwrap().is_empty());
    assert_eq!(disk.record(&db1()).await.unwrap(), Record::default());
    only_retired(&*disk).await;
}

pub(crate) async fn only_what_was_set_aside_is_purged(world: &mut impl World) {
    own_data(world).await;
    let disk = world.disk();
    assert_eq!(disk.purge(&db1()).await.unwrap(), 0);
    assert_eq!(uuid(&*disk).await.as_deref(), Some(UUID));
    disk.retire(&db1(), now(), RetiredWhy::Reseed).await.unwrap();
    disk.copy_template(KEY, &db1()).await.unwrap();
    assert!(disk.purge(&db1()).await.unwrap() > 0);
    assert!(disk.retired().await.unwrap().is_empty());
    assert_eq!(uuid(&*disk).await, None);
}
