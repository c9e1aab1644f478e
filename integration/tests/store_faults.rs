//! The faults of the simulated store, and what the mirror and leases make of them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use schemadock_integration::sim::store::{SimEtcd, SimStore};
use schemadock_schema::keys::Keys;
use schemadock_schema::proposal::{Guard, Proposal, Write};
use schemadock_store::lease::KeptLease;
use schemadock_store::mirror::{Gate, Mirror};
use schemadock_store::{Committed, Selector, Store, StoreError};
use tokio::time::Instant;

fn put(key: &str, value: &str) -> Proposal {
    let write = Write::Put { key: key.to_owned(), value: value.as_bytes().to_vec(), lease: None };
    Proposal { writes: vec![write], ..Proposal::default() }
}

fn all() -> Selector {
    Selector::Prefix("/".to_owned())
}

#[tokio::test(start_paused = true)]
async fn one_client_can_be_cut_off() {
    let etcd = SimEtcd::new();
    let [cut, whole] = [etcd.client(), etcd.client()];
    let mut watch = cut.watch(&all(), 1).await.unwrap();
    cut.cut_off();
    assert!(matches!(cut.read(&[]).await, Err(StoreError::Unreachable { .. })));
    assert!(matches!(watch.next().await, Some(Err(StoreError::Unreachable { .. }))));
    assert_eq!(whole.commit(&put("/k", "1")).await.unwrap(), Committed::Written { revision: 2 });
    cut.mend();
    assert_eq!(cut.read(&[all()]).await.unwrap().entries.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn silence_meets_the_deadline_and_changes_nothing() {
    let etcd = SimEtcd::new();
    let client = etcd.client();
    let mut watch = client.watch(&all(), 1).await.unwrap();
    client.silence();
    let begun = Instant::now();
    assert!(matches!(client.commit(&put("/k", "1")).await, Err(StoreError::Deadline { .. })));
    assert_eq!(begun.elapsed(), Duration::from_secs(3));
    assert_eq!(client.last_heard(), Duration::from_secs(3));
    assert_eq!(etcd.revision(), 1);
    assert!(matches!(watch.next().await, Some(Err(StoreError::Unreachable { .. }))));
    assert!(begun.elapsed() < Duration::from_secs(12));
}

#[tokio::test(start_paused = true)]
async fn answers_held_back_say_nothing_of_what_was_done() {
    let etcd = SimEtcd::new();
    let client = etcd.client();
    client.hold_answers();
    assert!(matches!(client.commit(&put("/k", "1")).await, Err(StoreError::Deadline { .. })));
    assert_eq!(etcd.revision(), 2, "it was done");
    let proposal = put("/k", "2");
    let asked = client.commit(&proposal);
    let mended = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        client.mend();
    };
    let (answer, ()) = tokio::join!(asked, mended);
    assert_eq!(answer.unwrap(), Committed::Written { revision: 3 });
}

#[tokio::test(start_paused = true)]
async fn an_answer_can_be_lost_after_the_commit() {
    let etcd = SimEtcd::new();
    let client = etcd.client();
    client.lose_answers(1);
    let once = Proposal { guards: vec![Guard::Absent { key: "/k".to_owned() }], ..put("/k", "1") };
    assert!(matches!(client.commit(&once).await, Err(StoreError::Unreachable { .. })));
    assert_eq!(client.commit(&once).await.unwrap(), Committed::Conflict, "it was made");
}

#[tokio::test(start_paused = true)]
async fn a_round_trip_can_take_its_time() {
    let client = SimEtcd::new().client();
    client.delay(Duration::from_millis(200));
    let begun = Instant::now();
    client.read(&[]).await.unwrap();
    assert_eq!(begun.elapsed(), Duration::from_millis(200));
    client.delay(Duration::from_secs(4));
    assert!(matches!(client.read(&[]).await, Err(StoreError::Deadline { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_mirror_comes_back_within_seconds_of_a_minute_away() {
    let etcd = SimEtcd::new();
    let keys = Keys::new("/p");
    let [client, writer] = [etcd.client(), etcd.client()];
    writer.commit(&put(&keys.fleet(), r#"{"id": "a"}"#)).await.unwrap();
    let mut mirror = Mirror::start(Arc::new(client.clone()), keys, Gate::default(), 1);
    mirror.want(BTreeSet::from([Selector::Prefix("/p/targets/".to_owned())]));
    for break_link in [SimStore::cut_off, SimStore::silence] {
        while mirror.view().reached("/p/targets/") != Some(etcd.revision()) {
            mirror.changed().await;
        }
        break_link(&client);
        tokio::time::sleep(Duration::from_secs(60)).await;
        writer.commit(&put("/p/targets/a", &etcd.revision().to_string())).await.unwrap();
        client.mend();
        let mended = Instant::now();
        while mirror.view().reached("/p/targets/") != Some(etcd.revision()) {
            mirror.changed().await;
        }
        assert!(mended.elapsed() <= Duration::from_secs(3), "{:?}", mended.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_not_shown_beyond_its_end() {
    let client = SimEtcd::new().client();
    let (ttl, every) = (Duration::from_secs(5), Duration::from_secs(1));
    let kept = KeptLease::start(Arc::new(client.clone()), ttl, every);
    let mut current = kept.watch();
    let first = current.wait_for(Option::is_some).await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(kept.id(), Some(first));
    client.silence();
    let cut = Instant::now();
    current.wait_for(Option::is_none).await.unwrap();
    assert!(cut.elapsed() <= ttl, "{:?}", cut.elapsed());
    client.mend();
    let second = current.wait_for(Option::is_some).await.unwrap().unwrap();
    assert_ne!(first, second);
}

#[tokio::test(start_paused = true)]
async fn a_mirror_lists_anew_when_compaction_overtakes_it() {
    let etcd = SimEtcd::new();
    let keys = Keys::new("/p");
    let [client, writer] = [etcd.client(), etcd.client()];
    writer.commit(&put(&keys.fleet(), r#"{"id": "a"}"#)).await.unwrap();
    // The list is made after 100 ms, the watches begin at 300 ms.
    client.delay(Duration::from_millis(200));
    let mut mirror = Mirror::start(Arc::new(client), keys, Gate::default(), 1);
    mirror.want(BTreeSet::from([Selector::Prefix("/p/targets/".to_owned())]));
    tokio::time::sleep(Duration::from_millis(150)).await;
    for value in ["1", "2", "3"] {
        writer.commit(&put("/p/targets/a", value)).await.unwrap();
    }
    etcd.compact(etcd.revision());
    while mirror.view().get("/p/targets/a").present().is_none_or(|entry| entry.value != b"3") {
        mirror.changed().await;
    }
}
