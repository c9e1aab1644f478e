//! Schemas that take no writes: looked at, and their flags set.

use schemadock_agent_plan::frozen::{Flags, changes, concerned};
use schemadock_agent_plan::observed::Seen;
use schemadock_agent_plan::wish::Wish;
use schemadock_schema::known::{Known, WhyUnknown};

use super::standing::{CLOSE_DEADLINE, Lane};
use crate::context::StepError;

impl Lane {
    /// Looks at them where some are frozen, or were; `true`: there are news.
    pub(super) async fn look_at_schemas(&mut self) -> bool {
        let of_interest = {
            let asked = self.instance.asked.borrow();
            let state = self.instance.state();
            asked.wish.desired().is_some_and(|desired| concerned(desired, &state.seen.record))
        };
        let schemas = match (&mut self.session, of_interest) {
            (Some(session), true) => match session.schemas().await {
                Ok(schemas) => Known::Present(schemas),
                Err(error) => Known::Unknown(WhyUnknown::Error(error.to_string())),
            },
            _ => Known::Unknown(WhyUnknown::NotYet),
        };
        let mut state = self.instance.state();
        let news = state.seen.schemas != schemas;
        state.seen.schemas = schemas;
        news
    }

    /// On a minion under `read_only` alone (L1).
    pub(super) async fn set_frozen(
        &mut self,
        wish: &Wish,
        seen: &Seen,
        flags: &Flags,
    ) -> Result<(), StepError> {
        let closed = seen.server.present().is_some_and(|server| server.super_read_only);
        if closed && wish.leads() {
            return Err(StepError::Changed("who leads"));
        }
        if closed {
            self.own()?.set_super_read_only(false, CLOSE_DEADLINE).await?;
        }
        let result = self.set_flags(flags).await;
        if closed {
            self.own()?.set_super_read_only(true, CLOSE_DEADLINE).await?;
        }
        result
    }

    /// In an opening, before anybody can write. Clients that read are ended where a flag is to be set: one of them could hold
    /// the opening up without an end. Nothing is thawed here.
    pub(super) async fn freeze_before_opening(&mut self, wish: &Wish) -> Result<(), StepError> {
        let record = self.instance.state().seen.record.clone();
        let Some(desired) = wish.desired().filter(|desired| concerned(desired, &record)) else {
            return Ok(());
        };
        let session = self.own()?;
        let schemas = session.schemas().await?;
        let freeze = changes(&desired.frozen, &record.frozen, &schemas).freeze;
        if freeze.iter().any(|schema| schemas.get(schema) == Some(&false)) {
            session.end_client_sessions().await?;
        }
        self.set_flags(&Flags { freeze, ..Flags::default() }).await
    }

    /// In a take-over, before it is decided: a wished flag that is not set ends it.
    pub(super) async fn are_frozen(&mut self, wish: &Wish) -> Result<(), StepError> {
        let record = self.instance.state().seen.record.clone();
        let Some(desired) = wish.desired().filter(|desired| concerned(desired, &record)) else {
            return Ok(());
        };
        let schemas = self.own()?.schemas().await?;
        let set = |schema: &String| schemas.get(schema) != Some(&false);
        if desired.frozen.iter().all(set) { Ok(()) } else { Err(StepError::Changed("the frozen schemas")) }
    }

    /// What is frozen by us stands on disk before it is, and until it is no more.
    async fn set_flags(&mut self, flags: &Flags) -> Result<(), StepError> {
        let instance = self.instance.clone();
        instance.update_record(|record| record.frozen.extend(flags.freeze.iter().cloned())).await?;
        let session = self.own()?;
        let schemas = session.schemas().await?;
        let is = |schema: &&String, read_only: bool| schemas.get(*schema) == Some(&read_only);
        // Somebody in the way of one schema ends the step: nobody waits for several, one after another.
        for schema in flags.thaw.iter().filter(|schema| is(schema, true)) {
            session.set_schema_read_only(schema, false).await?;
        }
        instance.update_record(|record| record.frozen.retain(|schema| !flags.thaw.contains(schema))).await?;
        let session = self.own()?;
        for schema in flags.freeze.iter().filter(|schema| is(schema, false)) {
            session.set_schema_read_only(schema, true).await?;
        }
        Ok(())
    }
}
