//! What is asked once: `P/requests/<host>/<id>`. The id is noted on disk before anything is done; the request goes in
//! the transaction that writes the event which says how it ended.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use schemadock_schema::InstanceName;
use schemadock_schema::fleet::Cache;
use schemadock_schema::proposal::{Guard, Proposal, Write};
use schemadock_schema::request::{Outcome, Request, RequestKind, RequestOutcome};
use schemadock_schema::status::StoreState;
use schemadock_store::{Committed, Selector};

use crate::context::{Context, StepError};
use crate::disk::AgentRecord;
use crate::facts::Facts;
use crate::instance::Instance;

/// How many ids are remembered.
const NOTED: usize = 500;

/// Requests taken up in this life and not yet ended, with what they ask.
#[derive(Debug, Default)]
pub struct Requests {
    open: BTreeMap<String, Request>,
    /// Ended in this life: the view may show them for a moment yet.
    ended: BTreeSet<String>,
    /// Outcomes that are not told yet: the store may be away at that moment.
    untold: Vec<RequestOutcome>,
}

impl Requests {
    /// Takes up what is new, and tells what has ended. Returns whether the agent's record changed.
    pub async fn attend(
        &mut self,
        ctx: &Arc<Context>,
        facts: &Facts<'_>,
        instances: &BTreeMap<InstanceName, Arc<Instance>>,
        record: &mut AgentRecord,
    ) -> Result<(), StepError> {
        for instance in instances.values() {
            for (id, result) in instance.take_ended() {
                let (outcome, reason) = match result {
                    Ok(()) => (Outcome::Done, None),
                    Err(reason) => (Outcome::Refused, Some(reason)),
                };
                self.untold.push(RequestOutcome { request: id, outcome, reason });
            }
        }
        let prefix = ctx.keys.requests_of(&ctx.settings.host);
        let believed = facts.view.store.as_ref().is_some_and(|store| store.state == StoreState::Ok);
        let found: Vec<(String, Vec<u8>)> = if believed {
            facts.view.below(&prefix).map(|entry| (entry.key.clone(), entry.value.clone())).collect()
        } else if facts.view.store.is_some() {
            // A strange store may still ask what we remember.
            let answer = ctx.store().read(&[Selector::Prefix(prefix)]).await?;
            answer.entries.into_iter().map(|(key, entry)| (key, entry.value)).collect()
        } else {
            Vec::new()
        };
        self.ended.retain(|id| found.iter().any(|(key, _)| key.ends_with(id)));
        for (key, bytes) in found {
            let id = schemadock_schema::keys::Keys::last_part(&key).to_owned();
            if self.open.contains_key(&id) || self.ended.contains(&id) {
                continue;
            }
            let request: Request = match serde_json::from_slice(&bytes) {
                Ok(request) => request,
                Err(error) => {
                    tracing::warn!(key, %error, "a request cannot be read; it is left alone");
                    continue;
                }
            };
            if !believed && request.kind != RequestKind::Cache {
                continue;
            }
            self.open.insert(id.clone(), request.clone());
            if request.not_after < ctx.clock.now() {
                let reason = Some("it came too late".to_owned());
                self.untold.push(RequestOutcome { request: id, outcome: Outcome::Expired, reason });
                continue;
            }
            if record.requests.contains(&id) {
                let reason = "the agent ended while it was at it; look at the instance, then ask again";
                let reason = Some(reason.to_owned());
                self.untold.push(RequestOutcome { request: id, outcome: Outcome::Refused, reason });
                continue;
            }
            record.requests.push(id.clone());
            let surplus = record.requests.len().saturating_sub(NOTED);
            record.requests.drain(..surplus);
            ctx.disk.write_agent(record).await?;
            let (outcome, reason) = match self.take_up(ctx, facts, instances, &id, &request).await {
                Ok(None) => continue,
                Ok(Some(message)) => (Outcome::Done, message),
                Err(error) => (Outcome::Refused, error.to_string()),
            };
            self.untold.push(RequestOutcome { request: id, outcome, reason: Some(reason) });
        }
        while let Some(outcome) = self.untold.first().cloned() {
            self.tell(ctx, outcome).await?;
            self.untold.remove(0);
        }
        Ok(())
    }

    /// Begins a request; `Some`: it is done.
    async fn take_up(
        &mut self,
        ctx: &Arc<Context>,
        facts: &Facts<'_>,
        instances: &BTreeMap<InstanceName, Arc<Instance>>,
        id: &str,
        request: &Request,
    ) -> Result<Option<String>, StepError> {
        let refused = |why: &str| StepError::Refused(why.to_owned());
        if request.kind == RequestKind::Cache {
            let count = publish_caches(ctx, facts, instances).await?;
            return Ok(Some(format!("{count} clusters")));
        }
        let name = request.instance.as_ref().ok_or_else(|| refused("the request names no instance"))?;
        let instance = instances.get(name);
        match request.kind {
            RequestKind::Purge => {
                let bytes = ctx.disk.purge(name).await?;
                if bytes == 0 {
                    return Err(refused("there are no retired data of it on this host"));
                }
                Ok(Some(format!("{bytes} bytes were destroyed")))
            }
            RequestKind::Refresh => {
                instance.ok_or_else(|| refused("it is not on this host"))?.refresh();
                Ok(Some("written".to_owned()))
            }
            RequestKind::Restart => {
                instance.ok_or_else(|| refused("it is not on this host"))?.ask_restart(id.to_owned());
                Ok(None)
            }
            RequestKind::Reseed => {
                instance.ok_or_else(|| refused("it is not on this host"))?.ask_reseed(id.to_owned());
                Ok(None)
            }
            RequestKind::Cache => Ok(None),
        }
    }

    /// Removes the request in the transaction that writes the event with its outcome.
    async fn tell(&mut self, ctx: &Context, told: RequestOutcome) -> Result<(), StepError> {
        let id = told.request.as_str();
        let Some(request) = self.open.get(id) else { return Ok(()) };
        let word = serde_json::to_value(told.outcome).expect("a word serializes");
        let what = match &request.instance {
            Some(instance) => format!("{} {instance}", request.kind),
            None => request.kind.to_string(),
        };
        let why = told.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        let message = format!("{what}, asked by {}: {}{why}", request.by, word.as_str().unwrap_or_default());
        let details = serde_json::to_value(&told).expect("an outcome serializes");
        let cluster = request.instance.as_ref().and_then(|instance| {
            let hosts = BTreeSet::from([ctx.settings.host.clone()]);
            schemadock_schema::names::read_name(instance, &hosts).ok().map(|parts| parts.cluster)
        });
        let event =
            ctx.events.event(cluster.as_ref(), request.instance.as_ref(), "request", message, details);
        let key = ctx.keys.request(&ctx.settings.host, id);
        let mut proposal = Proposal {
            writes: vec![Write::Delete { key }, ctx.events.write_of(&event).await?],
            ..Proposal::default()
        };
        if let Some(create_revision) = ctx.mirror.view().fleet_created
            && request.kind != RequestKind::Cache
        {
            proposal.guards.push(Guard::Created { key: ctx.keys.fleet(), create_revision });
        }
        if ctx.write(&proposal).await? == Committed::Conflict {
            return Err(StepError::Changed("the store"));
        }
        tracing::info!(request = id, "{}", event.message);
        self.open.remove(id);
        self.ended.insert(id.to_owned());
        Ok(())
    }
}

/// Publishes what the agent remembers, cluster by cluster.
async fn publish_caches(
    ctx: &Arc<Context>,
    facts: &Facts<'_>,
    instances: &BTreeMap<InstanceName, Arc<Instance>>,
) -> Result<usize, StepError> {
    let mut caches: BTreeMap<schemadock_schema::ClusterName, Cache> = BTreeMap::new();
    for (name, instance) in instances {
        let Some(cluster) = instance.cluster() else { continue };
        let cache = caches.entry(cluster.clone()).or_insert_with(|| Cache {
            host: ctx.settings.host.clone(),
            cluster: cluster.clone(),
            fleet: facts.view.fleet.clone(),
            revision: facts.view.revision,
            terms: BTreeMap::new(),
            leadership: remembered(facts, &ctx.keys.leadership(&cluster)),
            policy: remembered(facts, &ctx.keys.cluster(&cluster)),
            targets: BTreeMap::new(),
            secrets: remembered(facts, &ctx.keys.secrets(&cluster)),
            server_ids: BTreeMap::new(),
        });
        let (term, server_id) = instance.remembered();
        cache.terms.extend(term.map(|term| (name.clone(), term)));
        cache.server_ids.extend(server_id.map(|server_id| (name.clone(), server_id)));
        let target = remembered(facts, &ctx.keys.target(&ctx.settings.host, name));
        cache.targets.extend(target.map(|target| (name.clone(), target)));
    }
    let writes: Vec<Write> = caches
        .iter()
        .map(|(cluster, cache)| Write::document(ctx.keys.cache(&ctx.settings.host, cluster), cache))
        .collect();
    for chunk in writes.chunks(50) {
        let proposal = Proposal { writes: chunk.to_vec(), ..Proposal::default() };
        ctx.write(&proposal).await?;
    }
    Ok(caches.len())
}

fn remembered<T: serde::de::DeserializeOwned + Clone>(facts: &Facts<'_>, key: &str) -> Option<T> {
    facts.document::<T>(key).present().map(|doc| doc.value.clone())
}
