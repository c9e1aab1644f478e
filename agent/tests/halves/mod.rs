//! A transaction of which only a part was received, on real servers.

use std::time::{Duration, Instant};

use mysql_async::Row;
use mysql_async::prelude::Queryable as _;
use schemadock_agent_plan::observed::ThreadState;

use super::servers::Server;
use super::{Boxed, SECOND, executed, seen, until};

/// By itself the server waits a minute for the rest.
pub(crate) async fn an_applier_with_half_a_transaction_stops(
    a: &Server,
    b: &Server,
    at_a: &mut Boxed,
    at_b: &mut Boxed,
) {
    a.sql(&["CREATE TABLE shop.large (a INT AUTO_INCREMENT PRIMARY KEY, b LONGBLOB)"]).await;
    let mut looks = b.sql(&["SELECT 1"]).await;
    let mut rows = 0;
    loop {
        assert!(rows < 40 * 48, "no receiver could be stopped within a transaction");
        let mut writes = a.sql(&["BEGIN"]).await;
        for _ in 0..48 {
            writes.query_drop("INSERT INTO shop.large (b) VALUES (REPEAT('x', 1000000))").await.unwrap();
        }
        rows += 48;
        let before = executed(at_b).await;
        let committed = tokio::spawn(async move { writes.query_drop("COMMIT").await.unwrap() });
        // The beginning has come, and is being applied.
        let late = Instant::now() + 20 * SECOND;
        loop {
            assert!(Instant::now() < late, "nothing of it comes");
            if executed(at_b).await != before {
                break;
            }
            let sql = "SELECT 1 FROM performance_schema.replication_applier_status_by_worker \
                       WHERE APPLYING_TRANSACTION <> ''";
            if !looks.query::<Row, _>(sql).await.unwrap().is_empty() {
                break;
            }
        }
        at_b.stop_receiver(3 * SECOND).await.unwrap();
        committed.await.unwrap();
        let received = seen(at_b).await.received();
        if !received.contains(&executed(at_a).await) {
            break;
        }
        at_b.start_receiver().await.unwrap();
        assert!(at_b.wait_executed(&received, 10 * SECOND).await.unwrap());
    }
    let begun = Instant::now();
    at_b.stop_applier(5 * SECOND).await.unwrap();
    println!("         half a transaction was given up after {:.2} s", begun.elapsed().as_secs_f64());
    let channel = seen(at_b).await.channel.unwrap();
    assert_eq!((channel.receiver, channel.applier), (ThreadState::Off, ThreadState::Off));

    // It comes again, whole.
    at_b.start_applier().await.unwrap();
    at_b.start_receiver().await.unwrap();
    let wanted = executed(at_a).await;
    assert!(at_b.wait_executed(&wanted, 20 * SECOND).await.unwrap());
    let there: Option<u64> = looks.query_first("SELECT COUNT(*) FROM shop.large").await.unwrap();
    assert_eq!(there, Some(rows));
    a.sql(&["DROP TABLE shop.large"]).await;
    let wanted = executed(at_a).await;
    assert!(at_b.wait_executed(&wanted, Duration::from_secs(20)).await.unwrap());
    until(at_b, |server| (server.channel.as_ref()?.applier == ThreadState::On).then_some(())).await;
}
