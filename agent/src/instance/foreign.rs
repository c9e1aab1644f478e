//! The standing lane's steps about transactions that the master lacks (L7).

use std::time::Duration;

use schemadock_agent_plan::observed::{Judged, Seen};
use schemadock_agent_plan::wish::Wish;
use schemadock_schema::gtid::GtidSet;

use super::standing::Lane;
use crate::context::StepError;
use crate::mysqld::{Endpoint, Login};

/// How long the marker behind settled transactions may wait.
const MARKED_WITHIN: Duration = Duration::from_secs(10);

impl Lane {
    fn foreign(&self, seen: &Seen, wish: &Wish) -> Result<GtidSet, StepError> {
        let server = seen.server.present().ok_or(StepError::Changed("the server"))?;
        let other =
            seen.leader.present().or(seen.source.present()).ok_or(StepError::Changed("the master"))?;
        let settled = wish.grant.record().map(|record| record.settled.clone()).unwrap_or_default();
        let own = server.gtid_executed.of_uuid(&server.server_uuid);
        Ok(own.minus(&other.gtid_executed).minus(&settled))
    }

    pub(super) async fn judge(&mut self, wish: &Wish, seen: &Seen) -> Result<(), StepError> {
        let gtids = self.foreign(seen, wish)?;
        let harmless = self.own()?.harmless(&gtids).await?;
        let judged = Judged { harmless: harmless == gtids, gtids };
        self.instance.state().seen.judged = Some(judged);
        Ok(())
    }

    /// L7 (b): attached already; empty transactions on the master, then a marker at once.
    pub(super) async fn settle(&mut self, wish: &Wish, seen: &Seen) -> Result<(), StepError> {
        let gtids = self.foreign(seen, wish)?;
        let secrets = wish.grant.secrets.present().ok_or(StepError::Changed("the credentials"))?;
        let (host, port) = wish.leader.clone().ok_or(StepError::Changed("who leads"))?;
        let endpoint = Endpoint::Tcp { host, port };
        let login = Login::admin(secrets);
        let mut master = self.instance.ctx.mysqld.connect(&endpoint, &login, Duration::from_secs(1)).await?;
        master.inject_empty(&gtids).await?;
        master.marker(MARKED_WITHIN).await?;
        self.instance.state().seen.judged = None;
        self.instance.tell(
            wish,
            "settled",
            format!("harmless transactions {gtids} were settled on the master"),
        );
        Ok(())
    }
}
