//! `P/alive/<host>`: present while the agent lives, and whose name this is.

use std::sync::Arc;
use std::time::Duration;

use schemadock_schema::proposal::{Guard, Proposal, Write};
use schemadock_store::lease::KeptLease;
use schemadock_store::{Committed, Entry, StoreError};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::context::{Context, Whose};

/// How long the key outlives the agent.
const TTL: Duration = Duration::from_secs(5);
/// How often the lease is kept alive.
const EVERY: Duration = Duration::from_secs(1);
/// A store that has not answered for this long since the agent's start counts as away.
const AWAY_AFTER: Duration = Duration::from_secs(2);

#[derive(Debug, Serialize, Deserialize)]
struct Alive {
    agent: String,
}

/// The agent that a key names; none where it cannot be read.
pub(crate) fn agent_of(entry: &Entry) -> Option<String> {
    serde_json::from_slice::<Alive>(&entry.value).ok().map(|alive| alive.agent)
}

/// Keeps the key, and says whose the name is.
pub(super) fn start(ctx: &Arc<Context>) {
    let lease = KeptLease::start(ctx.store().clone(), TTL, EVERY);
    tokio::spawn(keep(ctx.clone(), lease));
}

async fn keep(ctx: Arc<Context>, lease: KeptLease) {
    let mut ids = lease.watch();
    let mut put_under = None;
    let away_at = Instant::now() + AWAY_AFTER;
    let say = |now: Whose| {
        ctx.whose_name.send_if_modified(|before| {
            // A store that goes away later changes nothing about whose the name is; one that has not answered yet may
            // merely be slow.
            let away = now == Whose::StoreAway;
            let now =
                if away && (*before != Whose::NotYet || Instant::now() < away_at) { *before } else { now };
            let differs = *before != now;
            *before = now;
            differs
        });
    };
    loop {
        let id = *ids.borrow_and_update();
        let pause = match id {
            None => {
                say(Whose::StoreAway);
                Duration::from_secs(1)
            }
            Some(id) if put_under == Some(id) => Duration::from_secs(2),
            Some(id) => match take(&ctx, id).await {
                Ok(true) => {
                    put_under = Some(id);
                    say(Whose::Ours);
                    Duration::from_secs(2)
                }
                Ok(false) => {
                    if *ctx.whose_name.borrow() != Whose::Others {
                        tracing::error!(
                            host = %ctx.settings.host,
                            "another agent lives under this host's name; this one waits until it is gone: stop one of \
                             them, or give it another `host`"
                        );
                    }
                    say(Whose::Others);
                    Duration::from_secs(1)
                }
                Err(error) => {
                    tracing::debug!(%error, "the host's name cannot be taken yet");
                    say(Whose::StoreAway);
                    Duration::from_millis(500)
                }
            },
        };
        tokio::select! {
            biased;
            () = ctx.stop.cancelled() => {
                lease.stop();
                return;
            }
            changed = ids.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(pause) => {
                // The key can be taken away by hand, or another store be there.
                if let Some(id) = id
                    && put_under == Some(id)
                    && !still_there(&ctx).await
                {
                    put_under = None;
                }
            }
        }
    }
}

/// `false`: another living agent has the name.
async fn take(ctx: &Context, lease: i64) -> Result<bool, StoreError> {
    let key = ctx.keys.alive(&ctx.settings.host);
    loop {
        let found = ctx.store().read_linearizable(std::slice::from_ref(&key)).await?;
        let entry = found.get(&key);
        if entry.and_then(agent_of).is_some_and(|agent| agent != ctx.agent) {
            return Ok(false);
        }
        let alive = Alive { agent: ctx.agent.clone() };
        let value = serde_json::to_vec(&alive).expect("a small document serializes");
        let proposal = Proposal {
            guards: vec![Guard::unchanged(key.clone(), entry.map(|entry| entry.mod_revision))],
            writes: vec![Write::Put { key: key.clone(), value, lease: Some(lease) }],
            report: Vec::new(),
        };
        if let Committed::Written { .. } = ctx.store().commit(&proposal).await? {
            return Ok(true);
        }
    }
}

async fn still_there(ctx: &Context) -> bool {
    let key = ctx.keys.alive(&ctx.settings.host);
    match ctx.store().read_linearizable(std::slice::from_ref(&key)).await {
        Ok(found) => found.get(&key).and_then(agent_of).is_some_and(|agent| agent == ctx.agent),
        Err(_) => true,
    }
}
