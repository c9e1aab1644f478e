//! Locks by name, on a real server.

use std::time::Instant;

use schemadock_agent::mysqld::adapter::Adapter;
use schemadock_agent::mysqld::{LockSeen, MysqlError, Mysqld as _};

use super::servers::{LOGIN, Server};
use super::{Boxed, SECOND};

const OPEN: &str = "it's open";
const FROZEN: &str = "frozen";

pub(crate) async fn who_waits_for_a_lock_hears_of_its_exchange(a: &Server, at_a: &mut Boxed) {
    let mut other = Adapter::new().connect(&a.tcp(), &a.admin(), LOGIN).await.unwrap();
    assert_eq!(other.await_exchange(OPEN, FROZEN, SECOND).await.unwrap(), LockSeen::Free);

    assert!(at_a.take_lock(OPEN).await.unwrap() && !other.take_lock(OPEN).await.unwrap());
    let begun = Instant::now();
    assert_eq!(other.await_exchange(OPEN, FROZEN, SECOND).await.unwrap(), LockSeen::Held);
    assert!(begun.elapsed() >= SECOND);

    // Another one is no such exchange.
    let wrong = other.exchange_lock(OPEN, FROZEN).await;
    assert!(matches!(wrong, Err(MysqlError::Answer { .. })), "{wrong:?}");
    assert!(other.take_lock("something else").await.unwrap());
    let waiting = tokio::spawn(async move { (other.await_exchange(OPEN, FROZEN, 5 * SECOND).await, other) });
    at_a.exchange_lock(OPEN, FROZEN).await.unwrap();
    let (heard, mut other) = waiting.await.unwrap();
    assert_eq!(heard.unwrap(), LockSeen::Exchanged);
    assert_eq!(other.await_exchange(OPEN, FROZEN, SECOND).await.unwrap(), LockSeen::Exchanged);

    // Whoever takes one has no other any more; and who waited has kept none.
    assert!(at_a.take_lock(OPEN).await.unwrap());
    assert_eq!(other.await_exchange("else", FROZEN, SECOND).await.unwrap(), LockSeen::Free);

    // A session that ends says nothing.
    let mut short = a.up().await;
    assert!(short.take_lock("short").await.unwrap());
    let waiting = tokio::spawn(async move { other.await_exchange("short", "lived", 5 * SECOND).await });
    drop(short);
    assert_eq!(waiting.await.unwrap().unwrap(), LockSeen::Free);
}
