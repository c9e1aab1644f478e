//! The adapter to the disk: in directories of its own, on a small file system, and under a real server.

mod fixture;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use fixture::{Fixture, KEY, errand, files_of, is_root, name};
use schemadock_agent::containers::Containers;
use schemadock_agent::disk::local::Local;
use schemadock_agent::disk::{Disk, DiskError, InstanceFile, RetiredWhy};
use schemadock_agent_plan::observed::ProcessSeen;
use schemadock_agent_plan::record::{DataOrigin, Record};
use schemadock_schema::{Known, Timestamp, WhyUnknown};

const UUID: &str = "2be60ca8-e5a2-11f1-8056-02fc00000001";

fn at(dir: &Path) -> Local {
    Local::open(&dir.join("state"), &dir.join("run"), (999, 999)).unwrap()
}

fn now() -> Timestamp {
    "2026-11-21T11:53:00.123Z".parse().unwrap()
}

/// A data directory that looks like one.
async fn data(disk: &Local, instance: &str, uuid: Option<&str>) -> std::path::PathBuf {
    let data = disk.places(&name(instance)).await.unwrap().mount.join("data");
    std::fs::create_dir(&data).unwrap();
    for file in ["ibdata1", "mysql.ibd"] {
        std::fs::write(data.join(file), [7; 8192]).unwrap();
    }
    if let Some(uuid) = uuid {
        std::fs::write(data.join("auto.cnf"), format!("[auto]\nserver-uuid={uuid}\n")).unwrap();
    }
    data
}

#[tokio::test]
async fn a_state_directory_has_one_agent() {
    let dir = tempfile::tempdir().unwrap();
    let first = at(dir.path());
    let second = Local::open(&dir.path().join("state"), &dir.path().join("run"), (999, 999)).unwrap_err();
    assert!(matches!(&second, DiskError::Locked { pid, .. } if *pid == std::process::id().to_string()));
    assert!(second.to_string().contains(&std::process::id().to_string()), "{second}");
    drop(first);
    at(dir.path());
}

#[tokio::test]
async fn places_are_short_closed_and_the_servers_own() {
    let dir = tempfile::tempdir().unwrap();
    let disk = at(dir.path());
    let long = name("a-very-long-host-name-of-a-rack-in-berlin-mezzanine-cluster1-db");
    let places = disk.places(&long).await.unwrap();
    assert_eq!(places.run.file_name().unwrap().len(), 8);
    assert_eq!(places.socket, places.run.join("mysqld.sock"));
    for path in [&places.mount, &places.run] {
        let there = std::fs::metadata(path).unwrap();
        assert_eq!(there.permissions().mode() & 0o777, 0o700);
        assert_eq!(there.uid(), if is_root() { 999 } else { nix::unistd::geteuid().as_raw() });
    }
    assert_eq!(disk.places(&long).await.unwrap(), places);
    assert_eq!(disk.instances().await.unwrap(), std::slice::from_ref(&long));
    disk.forget(&long).await.unwrap();
    assert!(!places.run.exists() && !places.mount.exists());
    disk.forget(&long).await.unwrap();
}

#[tokio::test]
async fn records_and_files_are_whole_closed_and_never_guessed() {
    let dir = tempfile::tempdir().unwrap();
    let disk = at(dir.path());
    let db1 = name("h-c-db1");
    assert_eq!(disk.record(&db1).await.unwrap(), Record::default());
    let record = Record { server_id: Some(7), data: DataOrigin::Template, ..Record::default() };
    disk.write_record(&db1, &record).await.unwrap();
    assert_eq!(disk.record(&db1).await.unwrap(), record);

    assert_eq!(disk.read_file(&db1, InstanceFile::Init).await.unwrap(), None);
    disk.write_file(&db1, InstanceFile::Init, Some("secret")).await.unwrap();
    disk.write_file(&db1, InstanceFile::Init, Some("secret ü")).await.unwrap();
    assert_eq!(disk.read_file(&db1, InstanceFile::Init).await.unwrap().as_deref(), Some("secret ü"));
    let file = disk.places(&db1).await.unwrap().mount.join("init.sql");
    let there = std::fs::metadata(&file).unwrap();
    assert_eq!(there.permissions().mode() & 0o777, 0o600);
    assert_eq!(there.uid(), if is_root() { 999 } else { nix::unistd::geteuid().as_raw() });
    disk.write_file(&db1, InstanceFile::Init, None).await.unwrap();
    disk.write_file(&db1, InstanceFile::Init, None).await.unwrap();
    assert!(!file.exists());

    // A link that the server's user might put there is neither followed nor written through.
    let target = dir.path().join("target");
    std::fs::write(&target, "mine").unwrap();
    std::os::unix::fs::symlink(&target, &file).unwrap();
    assert!(disk.read_file(&db1, InstanceFile::Init).await.is_err());
    disk.write_file(&db1, InstanceFile::Init, Some("x")).await.unwrap();
    assert_eq!(std::fs::read_to_string(&target).unwrap(), "mine");

    let path = dir.path().join("state/instances/h-c-db1/record.json");
    std::fs::write(&path, "{\"server_id\": 7").unwrap();
    let garbage = disk.record(&db1).await.unwrap_err();
    assert!(matches!(garbage, DiskError::Garbage { .. }), "{garbage:?}");
    assert!(garbage.to_string().contains("record.json"), "{garbage}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"server_id\": 7");
}

#[tokio::test]
async fn many_writers_leave_one_whole_file_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let disk = at(dir.path());
    let db1 = name("h-c-db1");
    disk.places(&db1).await.unwrap();
    let writes = (0..16).map(|id| {
        let (disk, db1) = (disk.clone(), db1.clone());
        async move { disk.write_record(&db1, &Record { server_id: Some(id), ..Record::default() }).await }
    });
    for written in futures::future::join_all(writes).await {
        written.unwrap();
    }
    assert!(disk.record(&db1).await.unwrap().server_id.is_some());
    let home = dir.path().join("state/instances/h-c-db1");
    // What a life leaves that was killed while it wrote.
    std::fs::write(home.join(".record.json.9.unfinished"), "{").unwrap();
    drop(disk);
    at(dir.path());
    assert_eq!(files_of(&home), [home.join("record.json")]);
}

#[tokio::test]
async fn data_directories_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let disk = at(dir.path());
    assert!(disk.data(&name("h-c-none")).await.is_absent());
    let mount = disk.places(&name("h-c-empty")).await.unwrap().mount;
    std::fs::create_dir(mount.join("data")).unwrap();
    assert!(disk.data(&name("h-c-empty")).await.is_absent());

    data(&disk, "h-c-new", None).await;
    let seen = disk.data(&name("h-c-new")).await;
    assert_eq!(seen.present().map(|d| (d.complete, d.server_uuid.clone())), Some((true, None)));

    let own = data(&disk, "h-c-own", Some(UUID)).await;
    let seen = disk.data(&name("h-c-own")).await;
    assert_eq!(seen.present().map(|d| (d.complete, d.server_uuid.as_deref())), Some((true, Some(UUID))));

    std::fs::remove_file(own.join("ibdata1")).unwrap();
    assert!(!disk.data(&name("h-c-own")).await.present().unwrap().complete);
    // An identity that cannot be read is not the same as none.
    std::fs::write(own.join("auto.cnf"), "[auto]\n").unwrap();
    assert!(disk.data(&name("h-c-own")).await.is_unknown());
}

#[tokio::test]
async fn data_are_set_aside_whole_and_taken_up_again() {
    let dir = tempfile::tempdir().unwrap();
    let disk = at(dir.path());
    let db1 = name("h-c-db1");
    data(&disk, "h-c-db1", Some(UUID)).await;
    let record = Record { server_id: Some(7), data: DataOrigin::Own, ..Record::default() };
    disk.write_record(&db1, &record).await.unwrap();
    disk.write_file(&db1, InstanceFile::Init, Some("password")).await.unwrap();
    disk.retire(&db1, now(), RetiredWhy::Deleted).await.unwrap();
    assert!(disk.data(&db1).await.is_absent());
    assert_eq!(disk.record(&db1).await.unwrap(), Record::default());
    let all = disk.retired().await.unwrap();
    assert_eq!(all.len(), 1);
    assert_eq!(
        (all[0].why, all[0].since, all[0].server_uuid.as_deref()),
        (RetiredWhy::Deleted, now(), Some(UUID))
    );
    assert!(all[0].bytes >= 16384);
    assert_eq!(all[0].name, "20261121T115300.123Z");
    let left = files_of(&dir.path().join("state/retired"));
    assert!(!left.iter().any(|path| path.ends_with("init.sql")), "{left:?}");

    // A second one at the same moment; new data are no reason to lose the old.
    data(&disk, "h-c-db1", None).await;
    let busy = disk.take_up(&all[0]).await.unwrap_err();
    assert!(matches!(busy, DiskError::Io { .. }), "{busy:?}");
    disk.retire(&db1, now(), RetiredWhy::Replaced).await.unwrap();
    assert_eq!(disk.retired().await.unwrap().len(), 2);

    disk.places(&db1).await.unwrap();
    disk.take_up(&all[0]).await.unwrap();
    assert_eq!(disk.record(&db1).await.unwrap(), record);
    assert_eq!(disk.data(&db1).await.present().unwrap().server_uuid.as_deref(), Some(UUID));
    assert!(disk.take_up(&all[0]).await.is_err());
    let refused = disk.forget(&db1).await.unwrap_err();
    assert!(matches!(refused, DiskError::Io { .. }), "{refused:?}");

    let rest = disk.retired().await.unwrap();
    assert_eq!(rest.iter().map(|r| r.why).collect::<Vec<_>>(), [RetiredWhy::Replaced]);
    assert!(disk.purge(&db1).await.unwrap() >= 16384);
    assert_eq!(disk.purge(&db1).await.unwrap(), 0);
    assert!(disk.retired().await.unwrap().is_empty());
    assert!(!disk.data(&db1).await.is_absent());
}

#[tokio::test]
async fn retired_data_without_a_note_are_shown() {
    let dir = tempfile::tempdir().unwrap();
    let disk = at(dir.path());
    data(&disk, "h-c-db1", Some(UUID)).await;
    disk.retire(&name("h-c-db1"), now(), RetiredWhy::Deleted).await.unwrap();
    let shelf = dir.path().join("state/retired/h-c-db1/20261121T115300.123Z");
    std::fs::write(shelf.join("why.json"), "garbage").unwrap();
    let all = disk.retired().await.unwrap();
    assert_eq!((all[0].why, all[0].server_uuid.as_deref()), (RetiredWhy::Replaced, Some(UUID)));
}

#[tokio::test]
async fn the_agents_memory_comes_back_byte_for_byte() {
    let dir = tempfile::tempdir().unwrap();
    let disk = at(dir.path());
    let mut record = disk.agent().await.unwrap();
    assert_eq!(record.id.len(), 36);
    record.fleet = Some("f".to_owned());
    disk.write_agent(&record).await.unwrap();
    assert!(disk.read_cache().await.unwrap().is_empty());
    let cache = [("/a/b", b"{\"x\": 1}".to_vec()), ("/c", vec![0xff, 0, 0xfe])];
    let cache = cache.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    disk.write_cache(&cache).await.unwrap();
    drop(disk);
    let disk = at(dir.path());
    assert_eq!(disk.agent().await.unwrap(), record);
    assert_eq!(disk.read_cache().await.unwrap(), cache);
    assert!(disk.free_bytes().await.unwrap() > 1 << 20);
}

/// A template without a server: some small files.
async fn small_template(disk: &Local, bytes: usize) {
    let place = disk.begin_template(KEY).await.unwrap();
    for path in ["data/ibdata1", "data/mysql.ibd", "data/mysql/a.sdi", "data/#innodb_redo/#ib_redo1"] {
        std::fs::create_dir_all(place.join(path).parent().unwrap()).unwrap();
        std::fs::write(place.join(path), vec![1; bytes]).unwrap();
    }
    for path in ["data/auto.cnf", "data/ca.pem", "data/#innodb_redo/#ib_redo2_tmp"] {
        std::fs::write(place.join(path), "none of a copy's business").unwrap();
    }
    disk.finish_template(KEY, "9.7.4").await.unwrap();
}

#[tokio::test]
async fn a_template_is_ready_or_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let disk = at(dir.path());
    assert_eq!(disk.template(KEY).await.unwrap(), None);
    let place = disk.begin_template(KEY).await.unwrap();
    std::fs::write(place.join("half"), "x").unwrap();
    assert_eq!(disk.template(KEY).await.unwrap(), None);
    assert!(matches!(disk.finish_template(KEY, "9").await.unwrap_err(), DiskError::Garbage { .. }));
    small_template(&disk, 100).await;
    assert_eq!(disk.template(KEY).await.unwrap().as_deref(), Some("9.7.4"));
    assert_eq!(disk.template("sha256:other").await.unwrap(), None);
}

#[tokio::test]
async fn a_torn_copy_is_made_anew_and_nothing_else_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    let disk = at(dir.path());
    small_template(&disk, 5000).await;
    let db1 = name("h-c-db1");
    let mount = disk.places(&db1).await.unwrap().mount;
    // As a power cut leaves it.
    std::fs::create_dir(mount.join("data.copying")).unwrap();
    std::fs::write(mount.join("data.copying/ibdata1"), "torn").unwrap();
    std::fs::create_dir(mount.join("data")).unwrap();
    assert!(disk.data(&db1).await.is_absent());
    disk.copy_template(KEY, &db1).await.unwrap();
    let mut files: Vec<_> = files_of(&mount)
        .into_iter()
        .map(|path| path.strip_prefix(&mount).unwrap().display().to_string())
        .collect();
    files.sort();
    assert_eq!(files, ["data/#innodb_redo/#ib_redo1", "data/ibdata1", "data/mysql.ibd", "data/mysql/a.sdi"]);
    for path in files_of(&mount) {
        let there = std::fs::metadata(&path).unwrap();
        assert_eq!((there.len(), there.permissions().mode() & 0o777), (5000, 0o600));
    }
    // The same again: the copy is there. Once it was started it is nobody's to replace.
    disk.copy_template(KEY, &db1).await.unwrap();
    std::fs::write(mount.join("data/auto.cnf"), format!("[auto]\nserver-uuid={UUID}\n")).unwrap();
    assert!(disk.copy_template(KEY, &db1).await.is_err());
    assert_eq!(disk.data(&db1).await.present().unwrap().server_uuid.as_deref(), Some(UUID));
    assert!(disk.copy_template("sha256:none", &name("h-c-db2")).await.is_err());
    assert!(disk.data(&name("h-c-db2")).await.is_absent());
}

/// A file system of 4 MiB; none where it cannot be mounted.
struct Small(std::path::PathBuf);

impl Small {
    fn mount(dir: &Path) -> Option<Small> {
        use nix::mount::{MsFlags, mount};
        let options = Some("size=4m,mode=700");
        let mounted = mount(Some("none"), dir, Some("tmpfs"), MsFlags::empty(), options);
        (is_root() && mounted.is_ok()).then(|| Small(dir.to_owned()))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

#[tokio::test]
async fn a_full_disk_is_told_as_such_and_heals() {
    let dir = tempfile::tempdir().unwrap();
    let Some(small) = Small::mount(dir.path()) else {
        eprintln!("skipped: only root can mount a small file system");
        return;
    };
    let disk = at(&small.0);
    let db1 = name("h-c-db1");
    small_template(&disk, 700 * 1024).await;
    let full = disk.copy_template(KEY, &db1).await.unwrap_err();
    assert!(matches!(full, DiskError::Full { .. }), "{full:?}");
    assert!(disk.data(&db1).await.is_absent());
    assert!(files_of(&small.0.join("state/instances")).is_empty(), "the room is given back");

    let record = Record { server_id: Some(7), ..Record::default() };
    disk.write_record(&db1, &record).await.unwrap();
    std::fs::write(small.0.join("filler"), vec![0; 8 << 20]).unwrap_err();
    let text = "x".repeat(100_000);
    let full = disk.write_file(&db1, InstanceFile::Config, Some(&text)).await.unwrap_err();
    assert!(matches!(full, DiskError::Full { .. }), "{full:?}");
    // What was there is there still, and nothing half-written lies about.
    assert_eq!(disk.record(&db1).await.unwrap(), record);
    assert_eq!(disk.read_file(&db1, InstanceFile::Config).await.unwrap(), None);
    let left = files_of(&small.0.join("state/instances"));
    assert!(!left.iter().any(|path| path.to_string_lossy().contains("unfinished")), "{left:?}");
    std::fs::remove_file(small.0.join("filler")).unwrap();
    disk.write_file(&db1, InstanceFile::Config, Some(&text)).await.unwrap();
}

#[tokio::test]
async fn whoever_holds_the_data_is_found_whatever_docker_says() {
    let fixture = Fixture::new("lock").await;
    let disk = fixture.disk("d");
    let db1 = name("ithost-it-db1");
    assert!(disk.process(&db1).await.is_absent());
    let spec = fixture.server(&disk, db1.as_str()).await;
    assert!(disk.process(&db1).await.is_absent());
    let seen = fixture.up(&spec).await;
    let held = disk.process(&db1).await;
    let process = held.present().unwrap().clone();
    assert_eq!(Some(process.pid), seen.pid);
    let uuid = disk.data(&db1).await.present().unwrap().server_uuid.clone();
    assert!(uuid.is_some());

    // Another life of that pid is somebody else.
    let other = ProcessSeen { started: process.started + 1, ..process.clone() };
    disk.kill_process(&other).await.unwrap();
    assert_eq!(disk.process(&db1).await, held);
    assert!(disk.kill_process(&ProcessSeen { pid: 1, started: 0 }).await.is_err());

    disk.kill_process(&process).await.unwrap();
    let gone = async {
        while !disk.process(&db1).await.is_absent() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.unwrap();
    disk.kill_process(&process).await.unwrap();
}

#[tokio::test]
async fn a_holder_that_cannot_be_seen_is_unknown() {
    let fixture = Fixture::new("ns").await;
    let disk = fixture.disk("d");
    let db1 = name("ithost-it-db1");
    let spec = fixture.server(&disk, db1.as_str()).await;
    fixture.up(&spec).await;
    // The same question asked in another pid namespace, where the kernel names no pid.
    if !is_root() {
        eprintln!("skipped: only root can enter another pid namespace");
        return;
    }
    let probe = std::process::Command::new("unshare")
        .args(["--pid", "--fork", "--mount-proc"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "--nocapture", "asks_for_a_holder"])
        .env("IT_DATA", disk.places(&db1).await.unwrap().mount)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&probe.stdout);
    assert!(probe.status.success(), "{said}");
}

/// Run by the test above in another pid namespace.
#[tokio::test]
#[ignore = "part of another test"]
async fn asks_for_a_holder() {
    let mount = std::path::PathBuf::from(std::env::var_os("IT_DATA").unwrap());
    let dir = tempfile::tempdir().unwrap();
    let disk = at(dir.path());
    let db1 = name("ithost-it-db1");
    let own = disk.places(&db1).await.unwrap().mount;
    std::os::unix::fs::symlink(mount.join("data"), own.join("data")).unwrap();
    let seen = disk.process(&db1).await;
    assert!(matches!(&seen, Known::Unknown(why) if why.to_string().contains("pid namespace")), "{seen:?}");
}

#[tokio::test]
async fn a_disk_that_hangs_holds_nobody_beyond_the_deadline() {
    let dir = tempfile::tempdir().unwrap();
    let disk = at(dir.path());
    let db1 = name("h-c-db1");
    let mount = disk.places(&db1).await.unwrap().mount;
    std::fs::create_dir(mount.join("data")).unwrap();
    // Whoever opens it waits until somebody writes.
    let pipe = mount.join("data/auto.cnf");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let started = Instant::now();
    let seen = disk.data(&db1).await;
    assert!(matches!(&seen, Known::Unknown(WhyUnknown::Deadline(_))), "{seen:?}");
    assert!(started.elapsed() < Duration::from_secs(15));
    assert_eq!(disk.record(&db1).await.unwrap(), Record::default(), "others go on");
    std::fs::write(&pipe, "").unwrap();
}

/// How long a copy takes; figures for the record, nothing is asserted about them.
#[tokio::test]
#[ignore = "a measurement"]
async fn how_long_a_copy_takes() {
    let fixture = Fixture::new("copy").await;
    let disk = fixture.disk("d");
    fixture::template(&fixture, &disk).await;
    for n in 0..5 {
        let instance = name(&format!("ithost-it-db{n}"));
        let started = Instant::now();
        disk.copy_template(KEY, &instance).await.unwrap();
        let copied = started.elapsed();
        let spec = fixture.spec(&disk, &instance).await;
        let started = Instant::now();
        let seen = fixture.up(&spec).await;
        println!("copy {copied:?}, start {:?}", started.elapsed());
        fixture.docker.kill(&seen.id).await.unwrap();
    }
    let end = fixture.docker.run(&fixture.owner, &errand(&["true"], None), 10).await.unwrap();
    assert_eq!(end.code, 0);
}
