//! Asks many agents one thing each, and waits for the events that answer.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use schemadock_schema::event::Event;
use schemadock_schema::proposal::{Proposal, Write};
use schemadock_schema::request::{Outcome, REQUEST_SECONDS, Request, RequestKind, RequestOutcome};
use schemadock_schema::{HostName, InstanceName, Timestamp};
use schemadock_store::{Change, Committed, Selector, Store};

use crate::cli::{Context, Failure};

/// Writes in one transaction, below etcd's limit of 128 operations.
const CHUNK: usize = 100;

/// What an agent answered.
#[derive(Debug)]
pub(in crate::cli) struct Answer {
    /// How it ended, and why.
    pub(in crate::cli) outcome: Outcome,
    /// What it says.
    pub(in crate::cli) message: String,
    /// The agent's clock when it answered.
    pub(in crate::cli) time: Timestamp,
    /// This machine's clock when the answer arrived.
    pub(in crate::cli) received: Timestamp,
}

/// All answers that came in time.
#[derive(Debug)]
pub(in crate::cli) struct Answers {
    /// This machine's clock when the agents were asked.
    pub(in crate::cli) asked: Timestamp,
    /// The revision of the first question.
    pub(in crate::cli) since: i64,
    /// Who answered what; none: not in time.
    pub(in crate::cli) by: BTreeMap<HostName, Option<Answer>>,
}

/// Asks one thing of each of these hosts' agents.
///
/// # Errors
/// When etcd does not do its part; an agent that does not answer is no error.
pub(in crate::cli) async fn ask(
    ctx: &Context,
    store: &dyn Store,
    kind: RequestKind,
    of: &BTreeMap<HostName, Option<InstanceName>>,
    timeout: Duration,
) -> Result<Answers, Failure> {
    let asked = ctx.now();
    let not_after = asked + jiff::SignedDuration::from_secs(REQUEST_SECONDS);
    let id = uuid::Uuid::new_v4().to_string();
    let all: Vec<_> = of.iter().collect();
    let mut answers = Answers { asked, since: 0, by: of.keys().map(|host| (host.clone(), None)).collect() };
    for some in all.chunks(CHUNK) {
        let writes = some.iter().map(|(host, instance)| {
            let instance = (*instance).clone();
            let request = Request { kind, instance, by: ctx.who.clone(), at: asked, not_after };
            Write::document(ctx.keys.request(host, &id), &request)
        });
        let proposal = Proposal { writes: writes.collect(), ..Proposal::default() };
        if let Committed::Written { revision } = store.commit(&proposal).await?
            && answers.since == 0
        {
            answers.since = revision;
        }
    }
    // In time or not: whoever is missing shows in the answers.
    if let Ok(ended) = tokio::time::timeout(timeout, collect(ctx, store, &id, &mut answers)).await {
        ended?;
    }
    Ok(answers)
}

async fn collect(ctx: &Context, store: &dyn Store, id: &str, answers: &mut Answers) -> Result<(), Failure> {
    let mut changes = store.watch(&Selector::Prefix(ctx.keys.events()), answers.since).await?;
    while answers.by.values().any(Option::is_none) {
        let batch = changes.next().await.ok_or_else(|| Failure::failed("etcd ended a watch"))??;
        let received = ctx.now();
        for change in batch.1 {
            let Change::Put(entry) = change else { continue };
            let Ok(event) = serde_json::from_slice::<Event>(&entry.value) else { continue };
            let outcome = serde_json::from_value::<RequestOutcome>(event.details);
            let Some(outcome) = outcome.ok().filter(|outcome| outcome.request == id) else { continue };
            let Some(host) = event.host else { continue };
            let message = outcome.reason.unwrap_or(event.message);
            let answer = Answer { outcome: outcome.outcome, message, time: event.time, received };
            answers.by.insert(host, Some(answer));
        }
    }
    Ok(())
}
