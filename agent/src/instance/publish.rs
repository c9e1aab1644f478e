//! When a status is worth a write.
//!
//! Positions, lag, message and time ride along: by themselves they cause a write only when the lag crosses a bound,
//! every 2 s while seeding, and on request.

use std::sync::Arc;
use std::time::Duration;

use schemadock_schema::proposal::{Guard, Proposal, Write};
use schemadock_schema::status::{LAG_TOLD, Status, StoreState};
use schemadock_store::Committed;
use schemadock_store::backoff::Delays;
use tokio::time::Instant;

use super::Instance;

/// Between two writes. What changes in steps is told once: each write is news to all agents of the cluster, and in a
/// change of master they have better things to do.
const APART: Duration = Duration::from_millis(50);
/// How often a seed's progress is told.
const SEED_EVERY: Duration = Duration::from_secs(2);

pub(super) async fn run(instance: Arc<Instance>) {
    let mut news = instance.status.subscribe();
    let mut written: Option<(Status, Instant)> = None;
    let mut delays = Delays::new(instance.ctx.seed, Duration::from_millis(100), Duration::from_secs(1));
    // The last write did not arrive, as far as is known.
    let mut failed = false;
    let mut not_before = Instant::now();
    loop {
        tokio::select! {
            biased;
            () = instance.stop.cancelled() => return,
            () = tokio::time::sleep_until(not_before.max(instance.quiet_until())) => {}
        }
        let latest = news.borrow_and_update().clone();
        if let Some(latest) = latest {
            let due = match &written {
                Some((before, at)) if !failed => worth_writing(before, &latest, at.elapsed()),
                _ => true,
            };
            if due {
                failed = !write(&instance, &latest).await;
                not_before = Instant::now() + if failed { delays.next_delay() } else { APART };
                if failed {
                    continue;
                }
                delays.reset();
                written = Some((latest.clone(), Instant::now()));
            }
        }
        let seeding = written.as_ref().is_some_and(|(status, _)| status.seed.is_some());
        let pause = if seeding { SEED_EVERY } else { Duration::MAX };
        tokio::select! {
            biased;
            () = instance.stop.cancelled() => return,
            changed = news.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Whether `latest` says something that must be known at once.
fn worth_writing(before: &Status, latest: &Status, age: Duration) -> bool {
    if before.seed.is_some() && latest.seed.is_some() && age >= SEED_EVERY {
        return true;
    }
    let class = |status: &Status| {
        let lag = status.source.as_ref().and_then(|source| source.lag_seconds).unwrap_or(0.0);
        LAG_TOLD.iter().filter(|bound| lag >= **bound).count()
    };
    if class(before) != class(latest) {
        return true;
    }
    essence(before) != essence(latest)
}

/// A status without what rides along.
fn essence(status: &Status) -> Status {
    let mut essence = status.clone();
    essence.gtid_executed = None;
    essence.received = None;
    essence.message = String::new();
    essence.commits_waiting = essence.commits_waiting.map(|waiting| waiting.min(1));
    essence.updated_at = schemadock_schema::Timestamp::UNIX_EPOCH;
    if let Some(source) = &mut essence.source {
        source.lag_seconds = None;
    }
    if let Some(seed) = &mut essence.seed {
        (seed.percent, seed.bytes, seed.bytes_total, seed.eta_seconds) = (None, None, None, None);
    }
    essence
}

async fn write(instance: &Instance, status: &Status) -> bool {
    let ctx = &instance.ctx;
    let key = ctx.keys.status(&ctx.settings.host, &instance.name);
    let mut proposal = Proposal { writes: vec![Write::document(key, status)], ..Proposal::default() };
    let view = ctx.mirror.view();
    if view.store.as_ref().is_some_and(|store| store.state == StoreState::Ok)
        && let Some(create_revision) = view.fleet_created
    {
        proposal.guards.push(Guard::Created { key: ctx.keys.fleet(), create_revision });
    }
    matches!(ctx.write(&proposal).await, Ok(Committed::Written { .. }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> Status {
        serde_json::from_value(serde_json::json!({
            "name": "h-c-db1", "host": "h", "cluster": "c", "observed_role": "minion", "phase": "running",
            "converged": true, "data": {"state": "own", "server_uuid": null},
            "store": {"state": "ok", "expected": null, "found": null}, "updated_at": "2026-01-01T00:00:00Z",
            "source": {"host": null, "port": 1, "address": "a", "io": "ON", "sql": "ON", "lag_seconds": 0.0,
                       "error": null}
        }))
        .unwrap()
    }

    #[test]
    fn positions_and_lag_within_its_class_are_not_worth_a_write() {
        let before = status();
        let mut latest = before.clone();
        latest.message = "x".to_owned();
        latest.source.as_mut().unwrap().lag_seconds = Some(0.9);
        assert!(!worth_writing(&before, &latest, Duration::from_secs(100)));
        latest.source.as_mut().unwrap().lag_seconds = Some(1.1);
        assert!(worth_writing(&before, &latest, Duration::ZERO));
    }

    #[test]
    fn a_change_of_state_is_worth_a_write() {
        let before = status();
        let mut latest = before.clone();
        latest.source.as_mut().unwrap().io = "OFF".to_owned();
        assert!(worth_writing(&before, &latest, Duration::ZERO));
    }
}
