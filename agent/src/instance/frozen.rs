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

    /// In an opening, before anybody can write: while clients are kept out nobody is in the way.
    pub(super) async fn freeze_before_opening(&mut self, wish: &Wish) -> Result<(), StepError> {
        let record = self.instance.state().seen.record.clone();
        let Some(desired) = wish.desired().filter(|desired| concerned(desired, &record)) else {
            return Ok(());
        };
        let schemas = self.own()?.schemas().await?;
        self.set_flags(&changes(&desired.frozen, &record.frozen, &schemas)).await
    }

    /// What is frozen by us stands on disk before it is, and until it is no more.
    async fn set_flags(&mut self, flags: &Flags) -> Result<(), StepError> {
        let instance = self.instance.clone();
        instance.update_record(|record| record.frozen.extend(flags.freeze.iter().cloned())).await?;
        let session = self.own()?;
        let schemas = session.schemas().await?;
        for schema in &flags.freeze {
            session.set_schema_read_only(schema, true).await?;
        }
        for schema in flags.thaw.iter().filter(|schema| schemas.get(*schema) == Some(&true)) {
            session.set_schema_read_only(schema, false).await?;
        }
        instance.update_record(|record| record.frozen.retain(|schema| !flags.thaw.contains(schema))).await
    }
}
