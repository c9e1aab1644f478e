//! An application that writes all the time and keeps a ledger of what was acknowledged.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;
use schemadock_schema::secrets::Secrets;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::Sql;
use super::sql::options;

/// A writer; it goes on over refused and broken connections until it is stopped.
#[derive(Debug)]
pub struct Writer {
    acknowledged: Arc<Mutex<BTreeSet<u64>>>,
    count: watch::Receiver<usize>,
    writing: JoinHandle<()>,
}

impl Writer {
    pub(super) async fn start(address: &str, port: u16, secrets: &Secrets) -> Writer {
        let (user, password) = (&secrets.application.user, secrets.application.password.expose());
        let mut sql = Sql::connect(address, port, user, password).await;
        sql.run("CREATE DATABASE IF NOT EXISTS ledger").await;
        sql.run("CREATE TABLE IF NOT EXISTS ledger.rows_written (id BIGINT PRIMARY KEY)").await;
        let options = options(address, port, user, password);
        let acknowledged = Arc::new(Mutex::new(BTreeSet::new()));
        let (counted, count) = watch::channel(0);
        let ledger = acknowledged.clone();
        let writing = tokio::spawn(async move {
            let mut conn: Option<Conn> = None;
            for id in 0u64.. {
                if conn.is_none() {
                    conn = Conn::new(options.clone()).await.ok();
                }
                let Some(open) = &mut conn else {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                };
                match open.query_drop(format!("INSERT INTO ledger.rows_written VALUES ({id})")).await {
                    Ok(()) => {
                        let mut all = ledger.lock().expect("nobody panics holding it");
                        all.insert(id);
                        counted.send_replace(all.len());
                    }
                    Err(_) => conn = None,
                }
                // A light load: live tests share the machine.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        Writer { acknowledged, count, writing }
    }

    /// Waits until that many more rows were acknowledged.
    pub async fn more(&mut self, rows: usize) {
        let wanted = *self.count.borrow() + rows;
        let reached = self.count.wait_for(|count| *count >= wanted);
        let bound = super::PATIENCE;
        assert!(
            tokio::time::timeout(bound, reached).await.is_ok_and(|seen| seen.is_ok()),
            "the application cannot write any more"
        );
    }

    /// Stops it; what was acknowledged.
    pub async fn stop(self) -> BTreeSet<u64> {
        self.writing.abort();
        // Ended by the line above.
        let _ = self.writing.await;
        self.acknowledged.lock().expect("nobody panics holding it").clone()
    }

    /// Panics unless a server holds every acknowledged row.
    pub async fn verify(ledger: &BTreeSet<u64>, sql: &mut Sql) {
        let rows = sql.rows("SELECT id FROM ledger.rows_written").await;
        let there: BTreeSet<u64> = rows.iter().filter_map(|row| row.first()?.parse().ok()).collect();
        let lost: Vec<&u64> = ledger.difference(&there).collect();
        assert!(!ledger.is_empty(), "nothing was ever acknowledged");
        let (count, first) = (lost.len(), &lost[..lost.len().min(10)]);
        assert!(
            lost.is_empty(),
            "{count} of {} acknowledged rows are gone, the first of them: {first:?}",
            ledger.len()
        );
    }
}
