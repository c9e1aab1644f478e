//! An application that finds the master by itself: it writes to whichever member takes it, all the time, and keeps a
//! ledger of what was acknowledged, and of the time without.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;
use schemadock_schema::Timestamp;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::Sql;
use super::sql::options;

/// Between two writes.
const EVERY: Duration = Duration::from_millis(2);
/// Between two looks at sessions that are not used.
const KEPT_EVERY: Duration = Duration::from_millis(50);
/// MySQL: the server is read-only.
const READ_ONLY: u16 = 1290;
/// After this a member is given up for another one.
const PATIENCE: Duration = Duration::from_secs(5);

/// A member, and the session there; none that is known to be good.
#[derive(Debug)]
struct Place {
    address: String,
    port: u16,
    session: tokio::sync::Mutex<Option<Conn>>,
}

/// A session to every member, as connection pools have them: one that was ended is opened anew before it is needed.
#[derive(Debug)]
struct Pool {
    places: Mutex<Vec<Arc<Place>>>,
    user: String,
    password: String,
}

impl Pool {
    fn set(&self, members: Vec<(String, u16)>) {
        let mut places = lock(&self.places);
        let old = std::mem::take(&mut *places);
        *places = members
            .into_iter()
            .map(|(address, port)| {
                let same = old.iter().find(|place| (&place.address, place.port) == (&address, port));
                let new = || Arc::new(Place { address, port, session: Default::default() });
                same.cloned().unwrap_or_else(new)
            })
            .collect();
    }

    fn len(&self) -> usize {
        lock(&self.places).len()
    }

    fn at(&self, number: usize) -> Arc<Place> {
        let places = lock(&self.places);
        places[number % places.len()].clone()
    }

    async fn open(&self, place: &Place) -> Option<Conn> {
        Conn::new(options(&place.address, place.port, &self.user, &self.password)).await.ok()
    }

    /// Whether the member took it; one that is just being looked at is left for the next one.
    async fn write(&self, place: &Place, statement: &str) -> bool {
        let Ok(mut session) = place.session.try_lock() else { return false };
        let written = async {
            let mut conn = match session.take() {
                Some(conn) => conn,
                None => self.open(place).await?,
            };
            match conn.query_drop(statement).await {
                Ok(()) => Some((conn, true)),
                // Refused, but the session is good.
                Err(mysql_async::Error::Server(why)) if why.code == READ_ONLY => Some((conn, false)),
                Err(_) => None,
            }
        };
        match tokio::time::timeout(PATIENCE, written).await {
            Ok(Some((conn, done))) => {
                *session = Some(conn);
                done
            }
            _ => false,
        }
    }

    /// Looks whether the session is good, unless it is being used.
    async fn keep(&self, place: &Place) {
        let Ok(mut session) = place.session.try_lock() else { return };
        let kept = async {
            if let Some(mut conn) = session.take()
                && conn.ping().await.is_ok()
            {
                return Some(conn);
            }
            self.open(place).await
        };
        *session = tokio::time::timeout(KEPT_EVERY, kept).await.ok().flatten();
    }
}

/// See the module.
#[derive(Debug)]
pub struct Roamer {
    ledger: Arc<Mutex<Ledger>>,
    /// How many rows were acknowledged.
    count: watch::Sender<usize>,
    /// It does not write now.
    rests: watch::Sender<bool>,
    pool: Arc<Pool>,
    tasks: [JoinHandle<()>; 2],
}

/// What the application has seen.
#[derive(Debug, Clone)]
pub struct Ledger {
    /// Rows that were acknowledged.
    pub acknowledged: BTreeSet<u64>,
    /// The longest time between two acknowledgements since it was last asked for.
    pub gap: Duration,
    /// When rows were acknowledged since then.
    pub times: Vec<Timestamp>,
    /// The longest that one statement took to be answered, in any way, since then.
    pub longest: Duration,
    last: Instant,
}

impl Ledger {
    /// The acknowledgements before and after a moment; none where it was not in between.
    pub fn around(&self, moment: Timestamp) -> Option<(Timestamp, Timestamp)> {
        let after = self.times.partition_point(|time| *time <= moment);
        Some((*self.times.get(after.checked_sub(1)?)?, *self.times.get(after)?))
    }

    fn note(&mut self, acknowledged: Option<u64>, began: Instant) {
        self.longest = self.longest.max(began.elapsed());
        if let Some(id) = acknowledged {
            self.acknowledged.insert(id);
            let now = Instant::now();
            self.gap = self.gap.max(now - self.last);
            self.last = now;
            self.times.push(Timestamp::now());
        }
    }
}

impl Roamer {
    /// Starts it; the one at `first` takes writes now, and gets the table.
    pub async fn start(members: Vec<(String, u16)>, first: usize, user: &str, password: &str) -> Roamer {
        let (user, password) = (user.to_owned(), password.to_owned());
        let (address, port) = members[first].clone();
        let mut sql = Sql::connect(&address, port, &user, &password).await;
        sql.run("CREATE DATABASE IF NOT EXISTS ledger").await;
        sql.run("CREATE TABLE IF NOT EXISTS ledger.rows_written (id BIGINT PRIMARY KEY)").await;
        let ledger = Arc::new(Mutex::new(Ledger {
            acknowledged: BTreeSet::new(),
            gap: Duration::ZERO,
            times: Vec::new(),
            longest: Duration::ZERO,
            last: Instant::now(),
        }));
        let pool = Arc::new(Pool { places: Mutex::default(), user, password });
        pool.set(members);
        let count = watch::Sender::new(0);
        let rests = watch::Sender::new(false);
        let mut may_write = rests.subscribe();
        let (shared, known, counted) = (ledger.clone(), pool.clone(), count.clone());
        let writing = tokio::spawn(async move {
            let mut at = first;
            for id in 0u64.. {
                if may_write.wait_for(|rests| !rests).await.is_err() {
                    return;
                }
                let place = known.at(at);
                let began = Instant::now();
                let insert = format!("INSERT INTO ledger.rows_written VALUES ({id})");
                let done = known.write(&place, &insert).await;
                let rows = {
                    let mut ledger = lock(&shared);
                    ledger.note(done.then_some(id), began);
                    ledger.acknowledged.len()
                };
                counted.send_replace(rows);
                if !done {
                    at += 1;
                }
                // One that finds nobody does not turn without a pause.
                if done || at.is_multiple_of(known.len()) {
                    tokio::time::sleep(EVERY).await;
                }
            }
        });
        let kept = pool.clone();
        let keeping = tokio::spawn(async move {
            for at in 0.. {
                tokio::time::sleep(KEPT_EVERY).await;
                kept.keep(&kept.at(at)).await;
            }
        });
        Roamer { ledger, count, rests, pool, tasks: [writing, keeping] }
    }

    /// The members it tries, from now on.
    pub fn set_members(&self, members: Vec<(String, u16)>) {
        self.pool.set(members);
    }

    /// Lets it rest, or write again.
    pub fn pause(&self, rests: bool) {
        self.rests.send_replace(rests);
    }

    /// What it has seen; the longest times begin anew.
    pub fn look(&self) -> Ledger {
        let mut ledger = lock(&self.ledger);
        let seen = ledger.clone();
        (ledger.gap, ledger.longest) = (Duration::ZERO, Duration::ZERO);
        ledger.times.clear();
        seen
    }

    /// Waits until that many more rows were acknowledged.
    pub async fn more(&self, rows: usize) {
        let wanted = lock(&self.ledger).acknowledged.len() + rows;
        let mut count = self.count.subscribe();
        let reached = count.wait_for(|rows| *rows >= wanted);
        let in_time = tokio::time::timeout(super::PATIENCE, reached).await;
        assert!(in_time.is_ok_and(|seen| seen.is_ok()), "the application cannot write any more");
    }

    /// Stops it; what it has seen.
    pub async fn stop(mut self) -> Ledger {
        for task in &mut self.tasks {
            task.abort();
            // Ended by the line above.
            let _ = task.await;
        }
        lock(&self.ledger).clone()
    }
}

impl Drop for Roamer {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
