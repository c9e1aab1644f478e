//! `P/alive/<host>`: present while the agent lives, and whose name this is.

use std::sync::Arc;
use std::time::Duration;

use schemadock_schema::proposal::{Guard, Proposal, Write};
use schemadock_store::lease::KeptLease;
use schemadock_store::{Committed, StoreError, watch};
use serde::{Deserialize, Serialize};

use crate::context::Context;

/// How long the key outlives the agent.
const TTL: Duration = Duration::from_secs(5);
/// How often the lease is kept alive.
const EVERY: Duration = Duration::from_secs(1);

/// Whose the host's name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    /// Nobody was asked yet.
    NotYet,
    /// This agent's.
    Ours,
    /// Another living agent's: this one waits.
    Others,
    /// The store does not answer, and never said that it is another's.
    StoreAway,
}

#[derive(Debug, Serialize, Deserialize)]
struct Alive {
    agent: String,
}

/// Keeps the key, and says whose the name is.
pub(super) fn start(ctx: &Arc<Context>, agent: &str) -> watch::Receiver<Name> {
    let (name, receiver) = watch::channel(Name::NotYet);
    let lease = KeptLease::start(ctx.store().clone(), TTL, EVERY);
    tokio::spawn(keep(ctx.clone(), agent.to_owned(), lease, name));
    receiver
}

async fn keep(ctx: Arc<Context>, agent: String, lease: KeptLease, name: watch::Sender<Name>) {
    let mut ids = lease.watch();
    let mut put_under = None;
    let say = |now: Name| {
        name.send_if_modified(|before| {
            // A store that goes away later changes nothing about whose the name is.
            let now = if now == Name::StoreAway && *before != Name::NotYet { *before } else { now };
            let differs = *before != now;
            *before = now;
            differs
        });
    };
    loop {
        let id = *ids.borrow_and_update();
        let pause = match id {
            None => {
                say(Name::StoreAway);
                Duration::from_secs(3600)
            }
            Some(id) if put_under == Some(id) => Duration::from_secs(2),
            Some(id) => match take(&ctx, &agent, id).await {
                Ok(true) => {
                    put_under = Some(id);
                    say(Name::Ours);
                    Duration::from_secs(2)
                }
                Ok(false) => {
                    if *name.borrow() != Name::Others {
                        tracing::error!(
                            host = %ctx.settings.host,
                            "another agent lives under this host's name; this one waits until it is gone: stop one of \
                             them, or give it another `host`"
                        );
                    }
                    say(Name::Others);
                    Duration::from_secs(1)
                }
                Err(error) => {
                    tracing::debug!(%error, "the host's name cannot be taken yet");
                    say(Name::StoreAway);
                    Duration::from_millis(500)
                }
            },
        };
        // Before the first lease the store may merely be slow; after a second it counts as away.
        let pause = if id.is_none() { pause.min(Duration::from_secs(3600)) } else { pause };
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
                    && !still_there(&ctx, &agent).await
                {
                    put_under = None;
                }
            }
        }
    }
}

/// `false`: another living agent has the name.
async fn take(ctx: &Context, agent: &str, lease: i64) -> Result<bool, StoreError> {
    let key = ctx.keys.alive(&ctx.settings.host);
    loop {
        let found = ctx.store().read_linearizable(std::slice::from_ref(&key)).await?;
        let entry = found.get(&key);
        let other = entry
            .and_then(|entry| serde_json::from_slice::<Alive>(&entry.value).ok())
            .is_some_and(|alive| alive.agent != agent);
        if other {
            return Ok(false);
        }
        let alive = Alive { agent: agent.to_owned() };
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

async fn still_there(ctx: &Context, agent: &str) -> bool {
    let key = ctx.keys.alive(&ctx.settings.host);
    match ctx.store().read_linearizable(std::slice::from_ref(&key)).await {
        Ok(found) => found
            .get(&key)
            .and_then(|entry| serde_json::from_slice::<Alive>(&entry.value).ok())
            .is_some_and(|alive| alive.agent == agent),
        Err(_) => true,
    }
}
