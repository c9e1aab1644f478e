//! What only a real etcd can show: large answers, a store that is away, frozen, or restarted under a mirror.
//!
//! What the simulated store must do as well stands in `integration/tests/store_seam.rs`.

// Both suites use the fixture, neither all of it.
#[allow(dead_code)]
mod fixture;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fixture::EtcdServer;
use futures::StreamExt as _;
use schemadock_schema::keys::Keys;
use schemadock_schema::proposal::{Proposal, Write};
use schemadock_schema::status::StoreState;
use schemadock_store::etcd::Etcd;
use schemadock_store::mirror::{Gate, Mirror, View};
use schemadock_store::{Change, Committed, Selector, Store, StoreError};

const DEADLINE: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(30);

async fn put(store: &dyn Store, writes: &[(&str, &[u8])]) -> i64 {
    let writes = writes
        .iter()
        .map(|(key, value)| Write::Put { key: (*key).to_owned(), value: value.to_vec(), lease: None })
        .collect();
    match store.commit(&Proposal { writes, ..Proposal::default() }).await.unwrap() {
        Committed::Written { revision } => revision,
        Committed::Conflict => panic!("nothing was compared"),
    }
}

async fn until(mirror: &mut Mirror, what: &str, holds: impl Fn(&View) -> bool) {
    let held = async {
        while !holds(&mirror.view()) {
            mirror.changed().await;
        }
    };
    if tokio::time::timeout(PATIENCE, held).await.is_err() {
        panic!("not seen: {what}; the view is {:?}", mirror.view());
    }
}

fn prefix(start: &str) -> Selector {
    Selector::Prefix(start.to_owned())
}

#[tokio::test]
async fn many_large_documents_are_read_at_one_revision() {
    let server = EtcdServer::start().await;
    let etcd = server.client(Duration::from_secs(10)).await;
    // A page of 500 holds 5 MB, more than a gRPC answer may have by default; all together 12 MB.
    let value = vec![b'x'; 10_000];
    for hundred in 0..12 {
        let keys: Vec<String> = (0..100).map(|n| format!("/p/many/{:04}", hundred * 100 + n)).collect();
        let writes: Vec<(&str, &[u8])> = keys.iter().map(|key| (key.as_str(), value.as_slice())).collect();
        put(&etcd, &writes).await;
    }
    put(&etcd, &[("/p/many0", b"beyond")]).await;
    put(&etcd, &[("/p/many/1199", b"old"), ("/p/one", b"1")]).await;

    // Somebody writes to the last page all the while.
    let writer = etcd.clone();
    let writing = tokio::spawn(async move {
        loop {
            put(&writer, &[("/p/many/1199", b"new"), ("/p/one", b"2")]).await;
        }
    });
    for _ in 0..5 {
        let parts = [prefix("/p/many/"), Selector::Key("/p/one".to_owned())];
        let snapshot = etcd.read(&parts).await.unwrap();
        assert_eq!(snapshot.entries.len(), 1201);
        assert!(snapshot.entries.values().all(|entry| entry.mod_revision <= snapshot.revision));
        let [last, one] = ["/p/many/1199", "/p/one"].map(|key| snapshot.get(key).unwrap().mod_revision);
        assert_eq!(last, one, "they are always written together");
    }
    writing.abort();
}

#[tokio::test]
async fn a_store_that_is_away_at_the_start_is_found_later() {
    let mut server = EtcdServer::stopped();
    let etcd = Arc::new(server.client(DEADLINE).await);
    let why = etcd.read(&[prefix("/")]).await.unwrap_err();
    assert!(matches!(why, StoreError::Unreachable { .. }), "{why}");
    assert!(why.to_string().contains(&server.url()), "{why}");
    let keys = Keys::new("/p");
    let mut mirror = Mirror::start(etcd.clone(), keys.clone(), Gate::default(), 1);
    server.up().await;
    until(&mut mirror, "blank", |view| view.store.as_ref().is_some_and(|s| s.state == StoreState::Blank))
        .await;
    put(&*etcd, &[(&keys.fleet(), br#"{"id": "a"}"#)]).await;
    until(&mut mirror, "the fleet", |view| view.fleet.as_deref() == Some("a")).await;
}

#[tokio::test]
async fn one_member_that_is_away_does_not_matter() {
    let server = EtcdServer::start().await;
    let gone = EtcdServer::stopped();
    let etcd = Etcd::connect(&format!("{},{}", gone.url(), server.url()), DEADLINE).await.unwrap();
    for _ in 0..10 {
        etcd.read_linearizable(&[]).await.unwrap();
    }
    put(&etcd, &[("/p/k", b"1")]).await;
}

#[tokio::test]
async fn a_frozen_etcd_meets_the_deadline_and_is_used_again_afterwards() {
    let server = EtcdServer::start().await;
    let etcd = server.client(Duration::from_millis(500)).await;
    put(&etcd, &[("/p/k", b"1")]).await;
    assert!(etcd.last_heard() < Duration::from_millis(500));
    server.freeze();
    let begun = Instant::now();
    let ended = etcd.read_linearizable(&["/p/k".to_owned()]).await;
    assert!(matches!(ended, Err(StoreError::Deadline { .. })), "{ended:?}");
    assert!(begun.elapsed() < Duration::from_secs(2));
    let ended = etcd.grant_lease(Duration::from_secs(5)).await;
    assert!(matches!(ended, Err(StoreError::Deadline { .. })), "{ended:?}");
    assert!(etcd.last_heard() >= Duration::from_secs(1));
    server.thaw();
    let snapshot = etcd.with_deadline(DEADLINE).read_linearizable(&["/p/k".to_owned()]).await.unwrap();
    assert_eq!(snapshot.get("/p/k").unwrap().value, b"1");
    etcd.read_linearizable(&[]).await.unwrap();
}

#[tokio::test]
async fn a_watch_on_a_frozen_etcd_ends_within_seconds() {
    let server = EtcdServer::start().await;
    let etcd = server.client(DEADLINE).await;
    let revision = put(&etcd, &[("/p/k", b"1")]).await;
    let mut watch = etcd.watch(&prefix("/p/"), revision).await.unwrap();
    server.freeze();
    let begun = Instant::now();
    let ended = watch.next().await;
    assert!(matches!(ended, Some(Err(StoreError::Unreachable { .. }))), "{ended:?}");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn a_quiet_watch_is_left_alone() {
    // etcd ends connections that ping too often; that would show after the third ping.
    let server = EtcdServer::start().await;
    let etcd = server.client(DEADLINE).await;
    let revision = put(&etcd, &[("/p/k", b"1")]).await;
    let mut watch = etcd.watch(&prefix("/p/"), revision).await.unwrap();
    let quiet = tokio::time::timeout(Duration::from_secs(24), watch.next()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    put(&etcd, &[("/p/k", b"2")]).await;
    let (_, changes) = watch.next().await.unwrap().unwrap();
    assert!(matches!(&changes[..], [Change::Put(entry)] if entry.value == b"2"));
}

#[tokio::test]
async fn a_mirror_outlives_a_frozen_etcd() {
    let server = EtcdServer::start().await;
    let etcd = Arc::new(server.client(DEADLINE).await);
    let keys = Keys::new("/p");
    put(&*etcd, &[(&keys.fleet(), br#"{"id": "a"}"#), ("/p/targets/h/i", b"1")]).await;
    let mut mirror = Mirror::start(etcd.clone(), keys.clone(), Gate::default(), 1);
    mirror.want(BTreeSet::from([prefix("/p/targets/")]));
    until(&mut mirror, "the target", |view| view.get("/p/targets/h/i").present().is_some()).await;
    server.freeze();
    let frozen = etcd.watch(&prefix("/p/"), 1).await;
    assert!(matches!(frozen, Err(StoreError::Deadline { .. })));
    assert!(mirror.view().get("/p/targets/h/i").present().is_some());
    server.thaw();
    put(&*etcd, &[("/p/targets/h/i", b"2")]).await;
    until(&mut mirror, "the new target", |view| {
        view.get("/p/targets/h/i").present().is_some_and(|entry| entry.value == b"2")
    })
    .await;
}
