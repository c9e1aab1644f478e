//! Locks by name, on a real server.

use std::time::{Duration, Instant};

use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;
use schemadock_agent::mysqld::adapter::Adapter;
use schemadock_agent::mysqld::{LockSeen, MysqlError, Mysqld as _};
use schemadock_schema::secrets::AGENT_USER;
use tokio::task::JoinHandle;

use super::servers::{LOGIN, Server};
use super::{Boxed, SECOND};

const OPEN: &str = "it's open";
const FROZEN: &str = "frozen";

async fn awaited(session: &mut Boxed, deadline: Duration) -> LockSeen {
    session.await_exchange(OPEN, FROZEN, AGENT_USER, deadline).await.unwrap()
}

/// Waits in a task of its own; returns once the server says that it does.
async fn begin_to_wait(mut session: Boxed, looker: &mut Conn) -> JoinHandle<(LockSeen, Boxed)> {
    let waiting = tokio::spawn(async move { (awaited(&mut session, 8 * SECOND).await, session) });
    let begun = Instant::now();
    loop {
        let sql = "SELECT COUNT(*) FROM performance_schema.threads WHERE PROCESSLIST_STATE = 'User lock'";
        if looker.query_first::<u32, _>(sql).await.unwrap() == Some(1) {
            return waiting;
        }
        assert!(begun.elapsed() < 8 * SECOND, "nobody waits");
    }
}

pub(crate) async fn who_waits_for_a_lock_hears_of_its_exchange(a: &Server, at_a: &mut Boxed) {
    let mut looker = a.sql(&[]).await;
    let mut other = Adapter::new().connect(&a.tcp(), &a.admin(), LOGIN).await.unwrap();
    assert_eq!(awaited(&mut other, SECOND).await, LockSeen::Free);
    assert!(at_a.take_lock(OPEN).await.unwrap() && !other.take_lock(OPEN).await.unwrap());
    let begun = Instant::now();
    assert_eq!(awaited(&mut other, SECOND).await, LockSeen::Held);
    assert!(begun.elapsed() >= SECOND);

    let waiting = begin_to_wait(other, &mut looker).await;
    let begun = Instant::now();
    at_a.exchange_lock(OPEN, FROZEN).await.unwrap();
    let (heard, mut other) = waiting.await.unwrap();
    assert_eq!(heard, LockSeen::Exchanged);
    assert!(begun.elapsed() < 4 * SECOND, "it was told only at its deadline");
    assert_eq!(awaited(&mut other, SECOND).await, LockSeen::Exchanged);

    // Who has not the first one takes nothing; and who has waited has kept none.
    for session in [&mut *at_a, &mut other] {
        let wrong = session.exchange_lock(OPEN, "third").await;
        assert!(matches!(wrong, Err(MysqlError::Answer { .. })), "{wrong:?}");
    }
    assert!(other.take_lock("third").await.unwrap());

    // Another user's lock of that name says nothing. Whoever takes one gives up all others.
    assert!(at_a.take_lock(OPEN).await.unwrap());
    assert!(other.take_lock(FROZEN).await.unwrap() && at_a.take_lock("else").await.unwrap());
    let mut second = a.up().await;
    assert_eq!(awaited(&mut second, SECOND).await, LockSeen::Free);

    // Neither does a session that ends.
    assert!(second.take_lock(OPEN).await.unwrap());
    let waiting = begin_to_wait(other, &mut looker).await;
    drop(second);
    assert_eq!(waiting.await.unwrap().0, LockSeen::Free);
}
