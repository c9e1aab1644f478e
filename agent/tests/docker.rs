//! The adapter to Docker, on the real daemon and on daemons that do not answer.

mod fixture;

use std::time::{Duration, Instant};

use fixture::{Fixture, IMAGE, SOCKET, client, errand, name};
use futures::StreamExt;
use schemadock_agent::containers::docker::Docker;
use schemadock_agent::containers::{ContainerError, Containers, Owner};
use schemadock_agent_plan::observed::ContainerState;
use schemadock_schema::size::{MIB, Resources};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn the_daemon_and_images_are_known() {
    let fixture = Fixture::new("daemon").await;
    let daemon = fixture.docker.daemon().await.unwrap();
    assert!(!daemon.version.is_empty());
    assert!(daemon.limits);
    let image = fixture.docker.image(IMAGE).await.unwrap().unwrap();
    assert!(image.id.starts_with("sha256:"), "{}", image.id);
    assert_eq!(fixture.docker.image("schemadock-no-such-image:1").await.unwrap(), None);
    let bad = fixture.docker.image("Not A Reference").await.unwrap_err();
    assert!(matches!(bad, ContainerError::Image { .. }), "{bad:?}");
}

#[tokio::test]
async fn an_image_that_cannot_be_had_is_told_by_name() {
    let fixture = Fixture::new("image").await;
    let disk = fixture.disk("d");
    // No registry is there: nothing leaves this machine.
    let error = fixture.docker.pull("127.0.0.1:9/schemadock-none:1").await.unwrap_err();
    assert!(
        matches!(&error, ContainerError::Image { image, .. } if image.contains("schemadock-none")),
        "{error:?}"
    );
    let mut spec = fixture.spec(&disk, &name("ithost-it-db1")).await;
    spec.image = "schemadock-no-such-image:1".to_owned();
    let error = fixture.docker.create(&fixture.owner, &spec).await.unwrap_err();
    assert!(matches!(error, ContainerError::Image { .. }), "{error:?}");
    let mut none = errand(&["true"], None);
    none.image = spec.image;
    let error = fixture.docker.run(&fixture.owner, &none, 10).await.unwrap_err();
    assert!(matches!(error, ContainerError::Image { .. }), "{error:?}");
}

#[tokio::test]
async fn errands_end_are_killed_and_leave_nothing() {
    let fixture = Fixture::new("errand").await;
    let run = |command: &[&str], seconds| {
        let errand = errand(command, None);
        let (docker, owner) = (&fixture.docker, &fixture.owner);
        async move { docker.run(owner, &errand, seconds).await }
    };
    let end = run(&["sh", "-c", "echo out; echo err >&2; exit 3"], 20).await.unwrap();
    assert_eq!(end.code, 3);
    assert!(end.output.contains("out\n") && end.output.contains("err\n"), "{:?}", end.output);

    let started = Instant::now();
    let late = run(&["sleep", "100"], 1).await.unwrap_err();
    assert!(matches!(late, ContainerError::Deadline { .. }), "{late:?}");
    assert!(started.elapsed() < Duration::from_secs(20));

    let missing = run(&["no-such-program"], 10).await.unwrap_err();
    assert!(matches!(missing, ContainerError::Refused { .. }), "{missing:?}");
    assert_eq!(fixture.docker.remove_errands(&fixture.owner).await.unwrap(), 0);

    // One that is given up half way, as when the agent's task ends.
    let given_up = tokio::time::timeout(Duration::from_secs(2), run(&["sleep", "100"], 60)).await;
    assert!(given_up.is_err());
    let gone = async {
        while !errands(&fixture.owner).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.unwrap();

    // One that an agent left which was killed.
    let own = client();
    let (id, other) = (made(&own, "yes", &fixture.owner).await, stranger());
    let foreign = made(&own, "yes", &other).await;
    // One of this life goes on.
    let (ended, removed) = futures::join!(run(&["sleep", "2"], 20), async {
        while errands(&fixture.owner).await.len() < 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        fixture.docker.remove_errands(&fixture.owner).await
    });
    assert_eq!((ended.unwrap().code, removed.unwrap()), (0, 1));
    assert!(errands(&fixture.owner).await.is_empty(), "{id}");
    assert_eq!(errands(&other).await, [foreign]);
    assert_eq!(fixture.docker.remove_errands(&other).await.unwrap(), 1);
}

#[tokio::test]
async fn a_server_lives_through_everything_that_can_be_done_to_it() {
    let fixture = Fixture::new("life").await;
    let disk = fixture.disk("d");
    let spec = fixture.server(&disk, "ithost-it-db1").await;
    let seen = fixture.up(&spec).await;
    let (docker, id) = (&fixture.docker, seen.id.as_str());
    assert_eq!(seen.state, ContainerState::Running);
    assert!(seen.pid.is_some_and(|pid| pid > 1));
    assert_eq!(seen.shape.as_deref(), Some(schemadock_agent::containers::shape(&spec).as_str()));
    assert_eq!((seen.memory, seen.nano_cpus), (768 * MIB, 1_000_000_000));
    assert_eq!(seen.image, IMAGE);
    let listed = docker.list(&fixture.owner).await.unwrap();
    assert_eq!(listed[&name("ithost-it-db1")].present(), Some(&seen));
    assert!(docker.list(&stranger()).await.unwrap().is_empty());

    let raw = client().inspect_container(id, None).await.unwrap();
    let host = raw.host_config.unwrap();
    // Where the daemon has the right to lower it.
    assert!(matches!(host.oom_score_adj, None | Some(0 | -500)), "{:?}", host.oom_score_adj);
    assert_eq!(host.memory_swap, host.memory);
    assert_eq!(raw.config.unwrap().stop_signal.as_deref(), Some("SIGKILL"));

    // What is done already is done again without harm.
    docker.start(id).await.unwrap();
    docker.unpause(id).await.unwrap();
    client().pause_container(id).await.unwrap();
    assert_eq!(docker.inspect(id).await.unwrap().unwrap().state, ContainerState::Paused);
    docker.unpause(id).await.unwrap();
    assert_eq!(docker.inspect(id).await.unwrap().unwrap().state, ContainerState::Running);

    let taken = docker.remove(id).await.unwrap_err();
    assert!(matches!(taken, ContainerError::Conflict { .. }), "{taken:?}");
    assert!(docker.output(id, 3).await.unwrap().len() <= 3);

    client().pause_container(id).await.unwrap();
    docker.kill(id).await.unwrap();
    let end = fixture.until(id, |state| matches!(state, ContainerState::Exited { .. })).await;
    assert_eq!(end, ContainerState::Exited { code: 137, out_of_memory: false });
    docker.kill(id).await.unwrap();

    // A first process without a handler ignores SIGTERM: it has to be up.
    fixture.start(&spec, id).await;
    docker.terminate(id, 60).await.unwrap();
    let end = docker.inspect(id).await.unwrap().unwrap();
    assert_eq!((end.state, end.pid), (ContainerState::Exited { code: 0, out_of_memory: false }, None));

    docker.remove(id).await.unwrap();
    docker.remove(id).await.unwrap();
    docker.kill(id).await.unwrap();
    assert_eq!(docker.inspect(id).await.unwrap(), None);
    let gone = docker.start(id).await.unwrap_err();
    assert!(matches!(gone, ContainerError::NotFound { .. }), "{gone:?}");
}

#[tokio::test]
async fn a_name_in_the_way_is_taken_only_from_a_dead_container_of_our_own() {
    let fixture = Fixture::new("name").await;
    let disk = fixture.disk("d");
    let spec = fixture.server(&disk, "ithost-it-db1").await;
    let (docker, owner) = (&fixture.docker, &fixture.owner);
    let first = docker.create(owner, &spec).await.unwrap();
    let second = docker.create(owner, &spec).await.unwrap();
    assert_ne!(first, second);
    assert_eq!(docker.inspect(&first).await.unwrap(), None);

    docker.start(&second).await.unwrap();
    let busy = docker.create(owner, &spec).await.unwrap_err();
    assert!(matches!(busy, ContainerError::Conflict { .. }), "{busy:?}");
    docker.kill(&second).await.unwrap();

    let foreign = docker.create(&stranger(), &spec).await.unwrap_err();
    assert!(matches!(foreign, ContainerError::Conflict { .. }), "{foreign:?}");
    assert!(docker.inspect(&second).await.unwrap().is_some());

    let nobody = Owner { fleets: Vec::new(), host: owner.host.clone() };
    let refused = docker.create(&nobody, &spec).await.unwrap_err();
    assert!(matches!(refused, ContainerError::Conflict { .. }), "{refused:?}");
}

#[tokio::test]
async fn limits_follow_up_and_down_and_are_enforced() {
    let fixture = Fixture::new("limits").await;
    let disk = fixture.disk("d");
    let mut spec = fixture.server(&disk, "ithost-it-db1").await;
    let seen = fixture.up(&spec).await;
    let docker = &fixture.docker;
    for (memory, cpus) in [(2048, 2.0), (700, 0.5), (1024, 64.0)] {
        let limits = Resources { memory: memory * MIB, cpus, disk: None };
        docker.set_limits(&seen.id, &limits).await.unwrap();
        let now = docker.inspect(&seen.id).await.unwrap().unwrap();
        assert_eq!((now.memory, now.pid), (memory * MIB, seen.pid));
        let cores = std::thread::available_parallelism().unwrap().get() as f64;
        assert_eq!(now.nano_cpus, (cpus.min(cores) * 1e9) as u64);
    }
    docker.kill(&seen.id).await.unwrap();

    // Far too little to start with.
    spec.limits.memory = 48 * MIB;
    let id = docker.create(&fixture.owner, &spec).await.unwrap();
    docker.start(&id).await.unwrap();
    let end = fixture.until(&id, |state| matches!(state, ContainerState::Exited { .. })).await;
    // Docker on cgroup v1 does not always learn that it was for want of memory.
    assert!(matches!(end, ContainerState::Exited { code: 137, .. }), "{end:?}");
}

#[tokio::test]
async fn changes_tell_of_everything_since_they_were_asked_for() {
    let fixture = Fixture::new("changes").await;
    let disk = fixture.disk("d");
    let spec = fixture.server(&disk, "ithost-it-db1").await;
    let docker = &fixture.docker;
    let mut changes = docker.changes(&fixture.owner).await.unwrap();
    let mut others = docker.changes(&stranger()).await.unwrap();
    // Before the first poll.
    let id = docker.create(&fixture.owner, &spec).await.unwrap();
    wake(&mut changes, "create").await;
    docker.start(&id).await.unwrap();
    wake(&mut changes, "start").await;
    docker.kill(&id).await.unwrap();
    wake(&mut changes, "die").await;
    docker.remove(&id).await.unwrap();
    wake(&mut changes, "destroy").await;
    assert!(tokio::time::timeout(Duration::from_millis(300), others.next()).await.is_err());
}

async fn wake(changes: &mut futures::stream::BoxStream<'static, ()>, what: &str) {
    let next = tokio::time::timeout(Duration::from_secs(5), changes.next()).await;
    assert_eq!(next.expect(what), Some(()), "{what}");
}

#[tokio::test]
async fn a_daemon_that_hangs_holds_nobody_beyond_the_deadline() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("docker.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    let docker = Docker::connect(path.to_str().unwrap(), Duration::from_millis(200));
    let owner = stranger();
    let started = Instant::now();
    let errors = [
        docker.daemon().await.unwrap_err(),
        docker.list(&owner).await.unwrap_err(),
        docker.inspect("x").await.unwrap_err(),
        docker.image(IMAGE).await.unwrap_err(),
        docker.pull(IMAGE).await.unwrap_err(),
        docker.start("x").await.unwrap_err(),
        docker.kill("x").await.unwrap_err(),
        docker.terminate("x", 100).await.unwrap_err(),
        docker.remove("x").await.unwrap_err(),
        docker.run(&owner, &errand(&["true"], None), 100).await.unwrap_err(),
        docker.changes(&owner).await.err().unwrap(),
    ];
    for error in errors {
        assert!(matches!(error, ContainerError::Deadline { .. }), "{error:?}");
    }
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_daemon_that_falls_silent_is_noticed_and_one_that_comes_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("docker.sock");
    let docker = Docker::connect(path.to_str().unwrap(), Duration::from_millis(500));
    let away = docker.daemon().await.unwrap_err();
    assert!(matches!(away, ContainerError::Unreachable { .. }), "{away:?}");
    assert!(away.to_string().contains("no such socket"), "{away}");

    let (proxy, mut talking) = tokio::sync::watch::channel(true);
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let task = tokio::spawn(async move {
        while let Ok((mut here, _)) = listener.accept().await {
            if !*talking.borrow_and_update() {
                std::mem::forget(here);
                continue;
            }
            tokio::spawn(async move {
                let mut there = tokio::net::UnixStream::connect(SOCKET).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut here, &mut there).await;
            });
        }
    });
    docker.daemon().await.unwrap();
    proxy.send(false).unwrap();
    let late = docker.list(&stranger()).await.unwrap_err();
    assert!(matches!(late, ContainerError::Deadline { .. }), "{late:?}");
    proxy.send(true).unwrap();
    docker.list(&stranger()).await.unwrap();
    task.abort();
    let _ = task.await;
    let gone = docker.list(&stranger()).await.unwrap_err();
    assert!(matches!(gone, ContainerError::Unreachable { .. }), "{gone:?}");
}

#[tokio::test]
async fn one_container_that_cannot_be_inspected_delays_no_other() {
    let fixture = Fixture::new("inspect").await;
    let disk = fixture.disk("d");
    let mut ids = Vec::new();
    for member in ["db1", "db2"] {
        let spec = fixture.spec(&disk, &name(&format!("ithost-it-{member}"))).await;
        ids.push(fixture.docker.create(&fixture.owner, &spec).await.unwrap());
    }
    // A proxy that loses every question about the first one.
    let path = fixture.dir.path().join("docker.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let lost = format!("/containers/{}/json", ids[0]);
    tokio::spawn(async move {
        while let Ok((mut here, _)) = listener.accept().await {
            let lost = lost.clone();
            tokio::spawn(async move {
                let mut head = vec![0; 4096];
                let read = here.read(&mut head).await.unwrap();
                if String::from_utf8_lossy(&head[..read]).contains(&lost) {
                    return std::future::pending::<()>().await;
                }
                let mut there = tokio::net::UnixStream::connect(SOCKET).await.unwrap();
                there.write_all(&head[..read]).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut here, &mut there).await;
            });
        }
    });
    let docker = Docker::connect(path.to_str().unwrap(), Duration::from_secs(1));
    let listed = docker.list(&fixture.owner).await.unwrap();
    assert!(listed[&name("ithost-it-db1")].is_unknown(), "{listed:?}");
    assert_eq!(listed[&name("ithost-it-db2")].present().map(|seen| &seen.id), Some(&ids[1]));
}

/// Somebody else, on the same machine.
fn stranger() -> Owner {
    Owner { fleets: vec![format!("it-docker-{}-other", std::process::id())], host: "ithost".parse().unwrap() }
}

/// An errand's container as an agent leaves it that is killed.
async fn made(client: &bollard::Docker, label: &str, owner: &Owner) -> String {
    let labels = [
        ("schemadock.errand", label),
        ("schemadock.fleet", owner.fleets[0].as_str()),
        ("schemadock.host", owner.host.as_str()),
    ];
    let body = bollard::models::ContainerCreateBody {
        image: Some(IMAGE.to_owned()),
        cmd: Some(vec!["sleep".to_owned(), "100".to_owned()]),
        labels: Some(labels.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()),
        ..Default::default()
    };
    let options = None::<bollard::query_parameters::CreateContainerOptions>;
    let id = client.create_container(options, body).await.unwrap().id;
    client.start_container(&id, None::<bollard::query_parameters::StartContainerOptions>).await.unwrap();
    id
}

async fn errands(owner: &Owner) -> Vec<String> {
    let labels = vec!["schemadock.errand".to_owned(), format!("schemadock.fleet={}", owner.fleets[0])];
    let options = bollard::query_parameters::ListContainersOptions {
        all: true,
        filters: Some([("label".to_owned(), labels)].into_iter().collect()),
        ..Default::default()
    };
    let all = client().list_containers(Some(options)).await.unwrap();
    all.into_iter().filter_map(|row| row.id).collect()
}
