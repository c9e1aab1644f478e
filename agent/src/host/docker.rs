//! Keeps what is known of this host's containers: by Docker's events, with a slow relist.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use schemadock_store::backoff::Delays;

use crate::context::Context;

/// How often containers are listed where no event came.
const RELIST: Duration = Duration::from_secs(10);

pub(super) async fn observe(ctx: Arc<Context>) {
    let mut owner = ctx.owner.subscribe();
    let mut delays = Delays::new(ctx.seed ^ 3, Duration::from_millis(200), Duration::from_secs(5));
    let mut prepared = false;
    loop {
        let current = owner.borrow_and_update().clone();
        let Some(current) = current else {
            tokio::select! {
                biased;
                () = ctx.stop.cancelled() => return,
                changed = owner.changed() => if changed.is_err() { return },
            }
            continue;
        };
        match ctx.containers.remove_errands(&current).await {
            Ok(0) => {}
            Ok(removed) => tracing::info!(removed, "short-lived containers of an earlier life were removed"),
            Err(error) => tracing::debug!(%error, "containers of an earlier life cannot be looked for"),
        }
        if !std::mem::replace(&mut prepared, true) {
            let (ctx, owner) = (ctx.clone(), current.clone());
            tokio::spawn(async move { ctx.containers.prepare(&owner, &ctx.defaults.image).await });
        }
        // The stream first, then the list: what happens in between is in both.
        let mut changes = match ctx.containers.changes(&current).await {
            Ok(changes) => changes.fuse(),
            Err(error) => {
                tracing::debug!(%error, "Docker's events cannot be followed");
                ctx.look_at_containers().await;
                let delay = delays.next_delay();
                tokio::select! {
                    biased;
                    () = ctx.stop.cancelled() => return,
                    () = tokio::time::sleep(delay) => continue,
                }
            }
        };
        loop {
            ctx.look_at_containers().await;
            tokio::select! {
                biased;
                () = ctx.stop.cancelled() => return,
                changed = owner.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    break;
                }
                change = changes.next() => match change {
                    Some(()) => delays.reset(),
                    None => {
                        tokio::time::sleep(delays.next_delay()).await;
                        break;
                    }
                },
                () = tokio::time::sleep(RELIST) => {}
            }
        }
    }
}
