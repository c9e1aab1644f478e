//! An application that finds the master by itself: it writes to whichever member takes it, all the time, and keeps a
//! ledger of what was acknowledged, and of the time without.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;
use schemadock_schema::Timestamp;
use schemadock_schema::secrets::Secrets;
use tokio::task::JoinHandle;

use super::Sql;
use super::sql::options;

/// Between two writes.
const EVERY: Duration = Duration::from_millis(2);
/// After this a member is given up for another one.
const PATIENCE: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
pub struct Roamer {
    ledger: Arc<Mutex<Ledger>>,
    members: Arc<Mutex<Vec<(String, u16)>>>,
    writing: JoinHandle<()>,
}

/// What the application has seen.
#[derive(Debug, Clone)]
pub struct Ledger {
    /// Rows that were acknowledged.
    pub acknowledged: BTreeSet<u64>,
    /// The longest time between two acknowledgements since it was last asked for.
    pub gap: Duration,
    /// When that began and ended.
    pub around: (Timestamp, Timestamp),
    /// The longest that one statement took to be answered, in any way, since then.
    pub longest: Duration,
    last: (Instant, Timestamp),
}

impl Ledger {
    fn note(&mut self, acknowledged: Option<u64>, began: Instant) {
        self.longest = self.longest.max(began.elapsed());
        if let Some(id) = acknowledged {
            self.acknowledged.insert(id);
            let now = (Instant::now(), Timestamp::now());
            let gap = now.0 - self.last.0;
            if gap > self.gap {
                (self.gap, self.around) = (gap, (self.last.1, now.1));
            }
            self.last = now;
        }
    }
}

impl Roamer {
    pub(super) async fn start(members: Vec<(String, u16)>, first: usize, secrets: &Secrets) -> Roamer {
        let (user, password) =
            (secrets.application.user.clone(), secrets.application.password.expose().to_owned());
        let (address, port) = members[first].clone();
        let mut sql = Sql::connect(&address, port, &user, &password).await;
        sql.run("CREATE DATABASE IF NOT EXISTS ledger").await;
        sql.run("CREATE TABLE IF NOT EXISTS ledger.rows_written (id BIGINT PRIMARY KEY)").await;
        let ledger = Arc::new(Mutex::new(Ledger {
            acknowledged: BTreeSet::new(),
            gap: Duration::ZERO,
            around: Default::default(),
            longest: Duration::ZERO,
            last: (Instant::now(), Timestamp::now()),
        }));
        let members = Arc::new(Mutex::new(members));
        let (shared, known) = (ledger.clone(), members.clone());
        let writing = tokio::spawn(async move {
            let mut open: std::collections::BTreeMap<(String, u16), Conn> = Default::default();
            let mut at = first;
            for id in 0u64.. {
                let all = lock(&known).clone();
                let place = all[at % all.len()].clone();
                let began = Instant::now();
                let written = tokio::time::timeout(PATIENCE, async {
                    let mut conn = match open.remove(&place) {
                        Some(conn) => conn,
                        None => Conn::new(options(&place.0, place.1, &user, &password)).await.ok()?,
                    };
                    let insert = format!("INSERT INTO ledger.rows_written VALUES ({id})");
                    match conn.query_drop(insert).await {
                        Ok(()) => Some((conn, true)),
                        // Refused, but the session is good.
                        Err(mysql_async::Error::Server(why)) if why.code == 1290 => Some((conn, false)),
                        Err(_) => None,
                    }
                })
                .await;
                let done = match written {
                    Ok(Some((conn, done))) => {
                        open.insert(place, conn);
                        done
                    }
                    _ => false,
                };
                lock(&shared).note(done.then_some(id), began);
                if !done {
                    at += 1;
                }
                // One that finds nobody does not turn without a pause.
                if done || at.is_multiple_of(all.len()) {
                    tokio::time::sleep(EVERY).await;
                }
            }
        });
        Roamer { ledger, members, writing }
    }

    /// The members it tries, from now on.
    pub fn set_members(&self, members: Vec<(String, u16)>) {
        *lock(&self.members) = members;
    }

    /// What it has seen; the longest times begin anew.
    pub fn look(&self) -> Ledger {
        let mut ledger = lock(&self.ledger);
        let seen = ledger.clone();
        (ledger.gap, ledger.longest) = (Duration::ZERO, Duration::ZERO);
        seen
    }

    /// Waits until that many more rows were acknowledged.
    pub async fn more(&self, rows: usize) {
        let wanted = lock(&self.ledger).acknowledged.len() + rows;
        let reached = async {
            while lock(&self.ledger).acknowledged.len() < wanted {
                tokio::time::sleep(EVERY).await;
            }
        };
        let in_time = tokio::time::timeout(super::PATIENCE, reached).await;
        assert!(in_time.is_ok(), "the application cannot write any more");
    }

    /// Stops it; what it has seen.
    pub async fn stop(self) -> Ledger {
        self.writing.abort();
        // Ended by the line above.
        let _ = self.writing.await;
        lock(&self.ledger).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
