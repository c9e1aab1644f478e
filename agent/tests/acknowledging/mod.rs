//! Semi-sync and the lock of receivers, on real servers.

use std::time::{Duration, Instant};

use schemadock_agent::mysqld::MysqlError;
use schemadock_agent_plan::observed::{AccountSeen, ThreadState};
use schemadock_schema::secrets::replication_user;

use super::servers::Server;
use super::{Boxed, SECOND, executed, seen, until};

pub(crate) async fn commits_wait_for_acknowledgements(a: &Server, at_a: &mut Boxed, at_b: &mut Boxed) {
    // The switch has no effect on a receiver that runs.
    at_b.set_semi_sync_replica(true).await.unwrap();
    let server = seen(at_b).await;
    assert!(server.semi_sync_replica && !server.acknowledging && server.may_acknowledge());
    assert_eq!(seen(at_a).await.acks.clients, 0);
    at_b.stop_receiver(3 * SECOND).await.unwrap();
    at_b.start_receiver().await.unwrap();
    until(at_b, |server| server.acknowledging.then_some(())).await;
    let server = until(at_a, |server| (server.acks.clients == 1).then(|| server.clone())).await;
    assert_eq!(server.receivers.into_iter().collect::<Vec<_>>(), [replication_user(2)]);
    assert_eq!(server.acknowledgers.into_iter().collect::<Vec<_>>(), [replication_user(2)]);
    assert!(at_a.end_acknowledgers(&[replication_user(2)].into()).await.unwrap().is_empty());
    assert_eq!(seen(at_a).await.acks.clients, 1);
    // Seen gone; it comes back at once.
    let ended = at_a.end_acknowledgers(&["somebody".to_owned()].into()).await.unwrap();
    assert_eq!(ended, [replication_user(2)].into());
    let server = until(at_a, |server| (server.acks.clients == 1).then(|| server.clone())).await;
    assert!(!server.acks.working && !server.semi_sync_source);

    at_a.set_semi_sync_source(Some(1)).await.unwrap();
    let before = seen(at_a).await;
    assert!(before.acks.working && before.acks_in_force() == 1 && before.acks.waiting == 0);
    at_a.marker(SECOND).await.unwrap();
    until(at_a, |server| (server.acks.answered > before.acks.answered).then_some(())).await;

    // Nobody acknowledges: a marker waits, its deadline ends only the wait, and others are not in its way.
    at_b.stop_receiver(3 * SECOND).await.unwrap();
    at_b.set_semi_sync_replica(false).await.unwrap();
    at_b.start_receiver().await.unwrap();
    let server = until(at_b, |server| {
        let on = server.channel.as_ref()?.receiver == ThreadState::On;
        (on && !server.may_acknowledge()).then(|| server.clone())
    })
    .await;
    assert!(!server.semi_sync_replica);
    let mut other = a.up().await;
    let late = other.marker(Duration::from_millis(300)).await;
    assert!(matches!(late, Err(MysqlError::Deadline { .. })), "{late:?}");
    drop(other);
    let mut second = a.up().await;
    assert!(second.marker(Duration::from_millis(300)).await.is_err());
    drop(second);
    assert_eq!(seen(at_a).await.acks.waiting, 1);
    // A killed session that waits cannot be ended, and is not waited for.
    let begun = Instant::now();
    at_a.end_own_sessions().await.unwrap();
    assert!(begun.elapsed() < 2 * SECOND, "{:?}", begun.elapsed());
    // L5: what waits keeps it from being closed.
    assert!(at_a.set_super_read_only(true, Duration::from_millis(300)).await.is_err());
    at_b.stop_receiver(3 * SECOND).await.unwrap();
    at_b.set_semi_sync_replica(true).await.unwrap();
    at_b.start_receiver().await.unwrap();
    until(at_a, |server| (server.acks.clients >= 1).then_some(())).await;
    // L13: it holds them already, and is not asked for them again, but for the next one.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(seen(at_a).await.acks.waiting, 1);
    at_a.marker(5 * SECOND).await.unwrap();
    until(at_a, |server| (server.acks.waiting == 0).then_some(())).await;
    let all = executed(at_a).await;
    assert!(at_b.wait_executed(&all, 5 * SECOND).await.unwrap());
    at_a.set_super_read_only(true, SECOND).await.unwrap();
    at_a.set_read_only(false).await.unwrap();
    at_a.set_semi_sync_source(None).await.unwrap();
    at_b.stop_receiver(3 * SECOND).await.unwrap();
    at_b.set_semi_sync_replica(false).await.unwrap();
    at_b.start_receiver().await.unwrap();
}

pub(crate) async fn receivers_are_shut_out(at_a: &mut Boxed, at_b: &mut Boxed) {
    let user = [replication_user(2)];
    let before = executed(at_a).await;
    at_a.lock_accounts(&user, &[]).await.unwrap();
    at_a.end_sessions_of(&user, SECOND / 10).await.unwrap();
    assert!(seen(at_a).await.receivers.is_empty());
    let locked = |all: Vec<AccountSeen>| all.into_iter().find(|one| one.user == user[0]).unwrap().locked;
    assert!(locked(at_a.accounts().await.unwrap()));
    let error = until(at_b, |server| server.channel.as_ref()?.receiver_error.clone()).await;
    assert_eq!(error.0, 3118, "{error:?}");
    at_a.lock_accounts(&[], &user).await.unwrap();
    assert!(!locked(at_a.accounts().await.unwrap()));
    assert_eq!(executed(at_a).await, before);
    // One that is not there is left out.
    at_a.lock_accounts(&["schemadock_r99".to_owned()], &[]).await.unwrap();
    until(at_b, |server| (server.channel.as_ref()?.receiver == ThreadState::On).then_some(())).await;
    // One that ends by itself in time is not killed.
    let (killed, stopped) =
        tokio::join!(at_a.end_sessions_of(&user, 8 * SECOND), at_b.stop_receiver(3 * SECOND));
    stopped.unwrap();
    assert_eq!(killed.unwrap(), 0);
    at_b.start_receiver().await.unwrap();
    until(at_b, |server| (server.channel.as_ref()?.receiver == ThreadState::On).then_some(())).await;
}
