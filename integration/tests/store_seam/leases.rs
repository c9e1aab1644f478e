//! Leases.

use std::time::Duration;

use futures::StreamExt as _;
use schemadock_store::lease::{HourlyLease, KeptLease};
use schemadock_store::{Change, Selector, Store};

use crate::world::{PATIENCE, World, all, leased, put, write};

/// Waits for a key's deletion; returns its revision.
async fn gone(store: &dyn Store, key: &str, after: i64) -> i64 {
    let mut watch = store.watch(&Selector::Key(key.to_owned()), after).await.unwrap();
    let seen = async {
        loop {
            let (_, changes) = watch.next().await.unwrap().unwrap();
            for change in changes {
                if let Change::Delete { revision, .. } = change {
                    return revision;
                }
            }
        }
    };
    tokio::time::timeout(PATIENCE, seen).await.expect("the key stays")
}

pub(crate) async fn keys_end_with_their_lease(world: &mut dyn World) {
    let store = world.store();
    let lease = store.grant_lease(Duration::from_secs(60)).await.unwrap();
    let revision =
        write(&*store, vec![leased("/p/a", "1", lease), leased("/p/b", "1", lease), put("/p/c", "1")]).await;
    assert_eq!(
        store.read_linearizable(&["/p/a".to_owned()]).await.unwrap().get("/p/a").unwrap().lease,
        lease
    );
    store.revoke_lease(lease).await.unwrap();
    assert_eq!(gone(&*store, "/p/a", revision).await, revision + 1);
    assert_eq!(gone(&*store, "/p/b", revision).await, revision + 1, "at one revision");
    assert_eq!(all(&*store, "/p/").await.into_keys().collect::<Vec<_>>(), ["/p/c"]);
}

pub(crate) async fn a_lease_lives_as_long_as_it_is_kept(world: &mut dyn World) {
    let store = world.store();
    let lease = store.grant_lease(Duration::from_secs(2)).await.unwrap();
    let revision = write(&*store, vec![leased("/p/a", "1", lease)]).await;
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_millis(700)).await;
        assert!(store.keep_lease(lease).await.unwrap());
    }
    assert!(all(&*store, "/p/").await.contains_key("/p/a"));
    gone(&*store, "/p/a", revision).await;
    assert!(!store.keep_lease(lease).await.unwrap());
}

pub(crate) async fn a_key_can_leave_its_lease(world: &mut dyn World) {
    let store = world.store();
    let [one, other] =
        [store.grant_lease(PATIENCE).await.unwrap(), store.grant_lease(PATIENCE).await.unwrap()];
    let keys = vec![leased("/p/a", "1", one), leased("/p/b", "1", one), leased("/p/c", "1", one)];
    write(&*store, keys).await;
    let revision = write(&*store, vec![put("/p/a", "2"), leased("/p/b", "2", other)]).await;
    store.revoke_lease(one).await.unwrap();
    gone(&*store, "/p/c", revision).await;
    assert_eq!(all(&*store, "/p/").await.into_keys().collect::<Vec<_>>(), ["/p/a", "/p/b"]);
}

pub(crate) async fn unknown_leases_are_told(world: &mut dyn World) {
    let store = world.store();
    assert!(!store.keep_lease(4711).await.unwrap());
    store.revoke_lease(4711).await.unwrap();
    let lease = store.grant_lease(PATIENCE).await.unwrap();
    store.revoke_lease(lease).await.unwrap();
    assert!(!store.keep_lease(lease).await.unwrap());
}

async fn another(kept: &KeptLease, than: Option<i64>) -> i64 {
    let mut current = kept.watch();
    let found = current.wait_for(|id| id.is_some() && *id != than);
    tokio::time::timeout(PATIENCE, found).await.expect("no other lease").unwrap().unwrap()
}

pub(crate) async fn a_kept_lease_is_replaced(world: &mut dyn World) {
    let store = world.store();
    let kept = KeptLease::start(store.clone(), Duration::from_secs(2), Duration::from_millis(200));
    let first = another(&kept, None).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(kept.id(), Some(first), "it is kept");
    store.revoke_lease(first).await.unwrap();
    let second = another(&kept, Some(first)).await;
    let revision = write(&*store, vec![leased("/p/alive", "1", second)]).await;
    kept.stop();
    gone(&*store, "/p/alive", revision).await;
}

pub(crate) async fn a_kept_lease_outlives_a_restart(world: &mut dyn World) {
    let store = world.store();
    let kept = KeptLease::start(store.clone(), Duration::from_secs(2), Duration::from_millis(200));
    let first = another(&kept, None).await;
    let mut current = kept.watch();
    world.down().await;
    let none = current.wait_for(Option::is_none);
    tokio::time::timeout(PATIENCE, none).await.expect("a lease nobody can vouch for is shown").unwrap();
    world.up().await;
    assert_eq!(another(&kept, None).await, first, "etcd kept it");

    world.down().await;
    world.wipe().await;
    world.up().await;
    another(&kept, Some(first)).await;
}

pub(crate) async fn events_share_a_lease(world: &mut dyn World) {
    let store = world.store();
    let events = HourlyLease::new(store.clone());
    let first = events.id().await.unwrap();
    assert_eq!(events.id().await.unwrap(), first);
    events.forget(first + 1).await;
    assert_eq!(events.id().await.unwrap(), first);
    events.forget(first).await;
    let second = events.id().await.unwrap();
    assert_ne!(second, first);
    assert!(store.keep_lease(second).await.unwrap());
}
