//! The Docker daemon is restarted: with `live-restore` databases run on, without it they are started again.

use schemadock_integration::fleet::{
    Daemon, Fleet, Options, Writer, docker, documents, host, in_own_network, member,
};

/// When the server's present life began.
async fn life(fleet: &Fleet) -> String {
    fleet
        .sql(1)
        .await
        .text(
            "SELECT ROUND(UNIX_TIMESTAMP() - variable_value) FROM performance_schema.global_status \
                             WHERE variable_name = 'Uptime'",
        )
        .await
}

#[tokio::test]
async fn docker_is_restarted() {
    if !in_own_network("docker_is_restarted") {
        return;
    }
    let mut daemon = Daemon::start(true).await;
    let mut fleet = Fleet::bare(Options::hosts(1)).await;
    fleet.start_agents().await;
    fleet.apply(&documents(1)).await;
    fleet.until_converged(1).await;
    let mut writer = fleet.writer(1).await;
    writer.more(20).await;
    let before = life(&fleet).await;

    // Gone: what needs no Docker is looked after, and the host says what is missing.
    daemon.down();
    fleet.sql(1).await.run("SET GLOBAL super_read_only = ON").await;
    fleet
        .until("opened without a daemon", |world| {
            (world.told(&member(1), "mended", "super_read_only") > 0
                && world.status(&member(1))?.writable == Some(true))
            .then_some(())
        })
        .await;
    writer.more(20).await;
    let warned = |fleet: &Fleet, kind: &str| {
        fleet.world().host(&host(1)).is_some_and(|host| host.warnings.iter().any(|w| w.kind == kind))
    };
    fleet
        .until("the host says that Docker cannot be reached", |world| {
            world.host(&host(1))?.warnings.iter().any(|warning| warning.kind == "docker").then_some(())
        })
        .await;

    // Back: the same life of the server, and its container is looked after again.
    daemon.up(true).await;
    fleet
        .until("the daemon is seen again", |world| {
            world.host(&host(1))?.warnings.iter().all(|warning| warning.kind != "docker").then_some(())
        })
        .await;
    assert!(!warned(&fleet, "live-restore"));
    assert_eq!(life(&fleet).await, before, "the server was restarted");
    writer.more(20).await;
    docker(&["kill", &fleet.container(&member(1))]);
    fleet
        .until("mended through the new daemon", |world| {
            (world.told(&member(1), "mended", "had ended") > 0 && world.converged(&member(1))).then_some(())
        })
        .await;

    // Without live-restore its end takes the server down: said beforehand, and started again by the agent.
    daemon.down();
    daemon.up(false).await;
    fleet
        .until("the host says what is missing", |world| {
            world.host(&host(1))?.warnings.iter().any(|warning| warning.kind == "live-restore").then_some(())
        })
        .await;
    fleet.until_converged(1).await;
    writer.more(20).await;
    let before = life(&fleet).await;
    let told = fleet.world().told(&member(1), "mended", "had ended");
    daemon.down();
    daemon.up(false).await;
    fleet
        .until("started again", |world| {
            (world.told(&member(1), "mended", "had ended") > told && world.converged(&member(1)))
                .then_some(())
        })
        .await;
    assert_ne!(life(&fleet).await, before);
    writer.more(20).await;
    let ledger = writer.stop().await;
    Writer::verify(&ledger, &mut fleet.sql(1).await).await;
}
