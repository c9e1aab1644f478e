//! The claim of a leadership that nobody has (S1).

use schemadock_agent_plan::observed::Seen;
use schemadock_agent_plan::wish::Wish;
use schemadock_schema::leadership::{Durability, LINEAGE, Leadership, LeadershipPhase, LineageEntry};
use schemadock_schema::proposal::{Guard, Write};

use super::standing::Lane;
use crate::context::StepError;

impl Lane {
    /// S1. The record of a new cluster promises nothing: async, no voters.
    pub(super) async fn claim(&mut self, wish: &Wish, seen: &Seen) -> Result<(), StepError> {
        let instance = self.instance.clone();
        let ctx = &instance.ctx;
        let cluster = wish.grant.cluster.as_ref().ok_or(StepError::Changed("the cluster"))?;
        let server = seen.server.present().ok_or(StepError::Changed("the server"))?;
        let (record_key, members_key) = (ctx.keys.leadership(cluster), ctx.keys.members(cluster));
        let answer = ctx.store().read_linearizable(&[record_key.clone(), members_key.clone()]).await?;
        let entry = answer.get(&record_key);
        let before: Option<Leadership> = match entry {
            None => None,
            Some(entry) => Some(
                serde_json::from_slice(&entry.value)
                    .map_err(|error| StepError::Refused(format!("{record_key} cannot be read: {error}")))?,
            ),
        };
        if before.as_ref() != wish.grant.record() {
            return Err(StepError::Changed("the leadership"));
        }
        // Members that joined since the view was made have not been judged.
        if let Some(entry) = answer.get(&members_key) {
            let listed: Option<Vec<String>> = serde_json::from_slice::<serde_json::Value>(&entry.value)
                .ok()
                .and_then(|value| serde_json::from_value(value.get("members")?.clone()).ok());
            let known = |name: &String| {
                wish.instance.as_str() == name || wish.members.iter().any(|m| m.name.as_str() == name)
            };
            if !listed.is_none_or(|listed| listed.iter().all(known)) {
                return Err(StepError::Changed("the members"));
            }
        }
        let term = before.as_ref().map_or(1, |record| record.term + 1);
        let mut lineage = before.as_ref().map(|record| record.lineage.clone()).unwrap_or_default();
        lineage.push(LineageEntry {
            term,
            name: instance.name.clone(),
            server_uuid: server.server_uuid.clone(),
            base: server.gtid_executed.clone(),
        });
        let surplus = lineage.len().saturating_sub(LINEAGE);
        lineage.drain(..surplus);
        let record = Leadership {
            term,
            master: Some(instance.name.clone()),
            phase: LeadershipPhase::Steady,
            to: None,
            deadline: None,
            voters: Vec::new(),
            acks: 0,
            acks_next: None,
            leaving: Vec::new(),
            durability: Durability::Async,
            founder: before
                .as_ref()
                .map_or_else(|| server.server_uuid.clone(), |record| record.founder.clone()),
            settled: before.map(|record| record.settled).unwrap_or_default(),
            lineage,
            by: format!("agent {}", ctx.settings.host),
            reason: "claimed a leadership that was free".to_owned(),
        };
        let guards = vec![
            Guard::unchanged(record_key.clone(), entry.map(|entry| entry.mod_revision)),
            Guard::unchanged(members_key.clone(), answer.get(&members_key).map(|entry| entry.mod_revision)),
        ];
        let revision = ctx.commit(vec![Write::document(record_key, &record)], guards).await?;
        instance.tell(wish, "claimed", format!("leads {cluster} in term {term}"));
        instance.await_revision(revision).await;
        Ok(())
    }
}
