//! Scheduled events of MySQL run on the master and nowhere else, before and after a change of master.

use std::time::Duration;

use schemadock_agent_plan::config::EVENT_SCHEDULER;
use schemadock_agent_plan::wish::Wish;
use schemadock_schema::InstanceName;

use super::endpoint_of;
use super::standing::Lane;
use crate::context::StepError;
use crate::mysqld::Login;

/// How often the one that led before is asked, some 5 s apart in the end, until a person is told.
const ASKED: u32 = 10;

impl Lane {
    /// Lets events run or not, unless the documents say it themselves.
    pub(super) async fn schedule_events(&mut self, wish: &Wish, on: bool) -> Result<(), StepError> {
        let said = wish.desired().is_some_and(|desired| desired.mysql.contains_key(EVENT_SCHEDULER));
        if !said {
            let value = if on { "ON" } else { "OFF" };
            self.own()?.set_variable(EVENT_SCHEDULER, Some(value)).await?;
        }
        Ok(())
    }

    /// Turns on what ran on the one that led before. Where that one is not there to be asked, a person is told.
    pub(super) async fn take_events(
        &mut self,
        wish: &Wish,
        from: &InstanceName,
        term: u64,
    ) -> Result<(), StepError> {
        let instance = self.instance.clone();
        let enabled = match (endpoint_of(wish, from), wish.grant.secrets.present()) {
            (Some(endpoint), Some(secrets)) => {
                let mysqld = &instance.ctx.mysqld;
                match mysqld.connect(&endpoint, &Login::admin(secrets), Duration::from_secs(1)).await {
                    Ok(mut session) => Some(session.enabled_events().await?),
                    // That it does not answer says nothing of what it ran.
                    Err(error) if self.events_asked < ASKED => {
                        self.events_asked += 1;
                        return Err(error.into());
                    }
                    Err(_) => None,
                }
            }
            _ => None,
        };
        match enabled {
            Some(events) if events.is_empty() => {}
            Some(events) => {
                // A session of its own: it is left with the settings of the last event.
                let count = instance.session(wish).await?.enable_events(&events).await?;
                if count > 0 {
                    instance.tell(wish, "events", format!("{count} scheduled events run here now"));
                }
            }
            None => instance.tell(
                wish,
                "events",
                format!(
                    "{from}, which led before, could not be asked which scheduled events it ran: none was turned on; \
                     `ALTER EVENT … ENABLE` those that are to run"
                ),
            ),
        }
        self.events_asked = 0;
        instance.update_record(|record| record.events_term = Some(term)).await
    }
}
