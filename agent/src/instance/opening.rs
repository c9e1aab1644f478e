//! The permit to open a server for writes, and to let its commits wait for fewer acknowledgements: only a linearizable read of a believed store can make one (L2).

use schemadock_agent_plan::wish::Wish;
use schemadock_schema::fleet::Fleet;
use schemadock_schema::leadership::{Durability, Handover, Leadership, LeadershipPhase};

use crate::context::{Context, StepError};
use crate::host::agent_of;

/// See the module. It is used up by opening.
#[derive(Debug)]
pub(super) struct OpeningPermit {
    term: u64,
    acks: u32,
    durability: Durability,
}

impl OpeningPermit {
    /// Asks the store, now, whether this data directory may open in this term.
    pub(super) async fn ask(
        ctx: &Context,
        wish: &Wish,
        server_uuid: &str,
        accepted: u64,
    ) -> Result<OpeningPermit, StepError> {
        let cluster = wish.grant.cluster.as_ref().ok_or(StepError::Changed("the cluster"))?;
        let record_key = ctx.keys.leadership(cluster);
        let expected_term = wish.grant.record().map_or(0, |record| record.term);
        let handover_key = ctx.keys.handover(cluster, expected_term);
        let alive_key = ctx.keys.alive(&ctx.settings.host);
        let keys = [ctx.keys.fleet(), record_key.clone(), handover_key.clone(), alive_key.clone()];
        let view = ctx.mirror.view();
        let answer = ctx.store().read_linearizable(&keys).await?;
        let fleet: Option<Fleet> =
            answer.get(&ctx.keys.fleet()).and_then(|entry| serde_json::from_slice(&entry.value).ok());
        if fleet.as_ref().map(|fleet| &fleet.id) != view.fleet.as_ref() {
            return Err(StepError::Refused("etcd holds another fleet: nothing is opened".to_owned()));
        }
        // The mirror may not have noticed yet.
        if answer.revision < view.revision {
            return Err(StepError::Refused(format!(
                "etcd went back from revision {} to {}: nothing is opened",
                view.revision, answer.revision
            )));
        }
        if answer.get(&alive_key).and_then(agent_of).is_some_and(|agent| agent != ctx.agent) {
            return Err(StepError::Refused(
                "another agent lives under this host's name: nothing is opened".to_owned(),
            ));
        }
        let record: Leadership = answer
            .get(&record_key)
            .and_then(|entry| serde_json::from_slice(&entry.value).ok())
            .ok_or(StepError::Changed("the leadership"))?;
        let ended: Option<Handover> =
            answer.get(&handover_key).and_then(|entry| serde_json::from_slice(&entry.value).ok());
        let record = record.with_handover(ended.as_ref());
        let named = record.master.as_ref() == Some(&wish.instance)
            && record.last_lineage().is_some_and(|entry| entry.server_uuid == server_uuid);
        if record.phase != LeadershipPhase::Steady || !named || record.term < accepted {
            return Err(StepError::Changed("the leadership"));
        }
        Ok(OpeningPermit { term: record.term, acks: record.acks_wanted(), durability: record.durability })
    }

    /// The success of the own deciding transaction: what the record means from then on.
    pub(super) fn by_deciding(meant: &Leadership) -> OpeningPermit {
        OpeningPermit { term: meant.term, acks: meant.acks_wanted(), durability: meant.durability }
    }

    /// The term to open in.
    pub(super) fn term(&self) -> u64 {
        self.term
    }

    /// How many voters must acknowledge; 0: semi-sync stays off.
    pub(super) fn acks(&self) -> u32 {
        self.acks
    }

    /// Under which durability.
    pub(super) fn durability(&self) -> Durability {
        self.durability
    }
}
