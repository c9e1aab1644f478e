//! `host forget`: removes the keys of a dead host.

use schemadock_schema::HostName;
use schemadock_schema::keys::Keys;
use schemadock_schema::proposal::{Guard, Proposal, Write};
use schemadock_schema::refusal::Refusal;
use schemadock_store::{Committed, Selector};

use crate::cli::seen::{self, Seen};
use crate::cli::{Context, Failure, output, targets};

/// Removes what is kept of a host.
///
/// # Errors
/// While its agent is alive or a target names it, and for an unknown host (exit code 1).
pub(super) async fn run(ctx: &Context, host: &HostName) -> Result<(), Failure> {
    let store = ctx.store().await?;
    let mut removed = 0;
    loop {
        let kept = ctx.keys.kept_of(host).into_iter().map(Selector::Prefix);
        let seen = seen::look(ctx, kept.collect()).await?;
        let refusals = refusals(&seen, host);
        if !refusals.is_empty() {
            return Err(Failure::Refused(refusals));
        }
        let keys = keys_of(&ctx.keys, &seen, host);
        if keys.is_empty() && removed == 0 {
            return Err(targets::unknown("host", host.as_str(), seen.hosts.keys().map(HostName::as_str)));
        }
        let Some(batch) = keys.chunks(BATCH).next() else {
            output::line(format!("{host} is forgotten ({removed} keys)"));
            return Ok(());
        };
        let proposal = Proposal {
            writes: batch.iter().map(|key| Write::Delete { key: key.clone() }).collect(),
            guards: vec![
                Guard::Absent { key: ctx.keys.alive(host) },
                Guard::PrefixUnchanged { prefix: ctx.keys.targets(), revision: seen.revision },
            ],
            report: Vec::new(),
        };
        // Lost guards are judged anew.
        if let Committed::Written { .. } = store.commit(&proposal).await? {
            removed += batch.len();
        }
    }
}

/// Writes a transaction.
const BATCH: usize = 100;

/// Why a host cannot be forgotten.
fn refusals(seen: &Seen, host: &HostName) -> Vec<Refusal> {
    let refuse = |found: String, expected: &str, hint: String| Refusal {
        file: None,
        path: Some(host.to_string()),
        found,
        expected: expected.to_owned(),
        hint: Some(hint),
    };
    let mut refusals = Vec::new();
    if seen.alive.contains(host) {
        let hint = format!("stop schemadock-agent on {host} for good first");
        refusals.push(refuse("a living agent".to_owned(), "a dead host", hint));
    }
    let own: Vec<&str> = seen
        .all_targets()
        .filter(|(_, stored)| stored.host == *host)
        .map(|(name, _)| name.as_str())
        .collect();
    if !own.is_empty() {
        let hint = "`delete` them first, or put them on another host".to_owned();
        refusals.push(refuse(format!("targets on it: {}", own.join(", ")), "no target on it", hint));
    }
    let following: Vec<&str> = seen
        .all_targets()
        .filter(|(_, stored)| {
            let target = stored.target.as_ref().ok();
            stored.host != *host && target.is_some_and(|target| target.master_host.as_ref() == Some(host))
        })
        .map(|(name, _)| name.as_str())
        .collect();
    if !following.is_empty() {
        let found = format!("it as master_host of {}", following.join(", "));
        refusals.push(refuse(
            found,
            "no target that names it",
            "let them follow another host first".to_owned(),
        ));
    }
    refusals
}

/// All that is kept of a host; its own document last, so that a forgetting cut short can be repeated.
fn keys_of(keys: &Keys, seen: &Seen, host: &HostName) -> Vec<String> {
    let below = keys.kept_of(host);
    let mut found: Vec<String> = seen
        .revisions
        .keys()
        .filter(|key| below.iter().any(|prefix| key.starts_with(prefix)))
        .cloned()
        .collect();
    found.extend(
        [keys.cordon(host), keys.host(host)].into_iter().filter(|key| seen.revisions.contains_key(key)),
    );
    found
}
