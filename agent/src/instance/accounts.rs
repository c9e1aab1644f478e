//! The standing lane's step about accounts.

use std::collections::BTreeSet;

use schemadock_agent_plan::accounts;
use schemadock_agent_plan::observed::Seen;
use schemadock_agent_plan::voting;
use schemadock_agent_plan::wish::Wish;

use super::standing::{CLOSE_DEADLINE, Lane};
use crate::context::StepError;

impl Lane {
    /// With `sql_log_bin=0`; on a minion under `read_only` alone (L1).
    pub(super) async fn ensure_accounts(&mut self, wish: &Wish, seen: &Seen) -> Result<(), StepError> {
        let secrets = wish.grant.secrets.present().ok_or(StepError::Changed("the credentials"))?;
        let present = seen.accounts.present().cloned().unwrap_or_default();
        let renewed = seen.accounts_version.is_some_and(|version| version != secrets.version);
        let closed = seen.server.present().is_some_and(|server| server.super_read_only);
        if closed && wish.leads() {
            return Err(StepError::Changed("who leads"));
        }
        let session = self.own()?;
        if closed {
            session.set_super_read_only(false, CLOSE_DEADLINE).await?;
        }
        let mut result = Ok(());
        for account in accounts::wanted(secrets, wish.followers.iter().copied()) {
            let there = present.iter().any(|have| have.user == account.user && have.host == account.host);
            if !there || renewed {
                result = session.ensure_account(&account).await;
                if result.is_err() {
                    break;
                }
            }
        }
        if !wish.leads() {
            let (_, unlock) = voting::changes_of_locks(&BTreeSet::new(), &present);
            result = match result {
                Ok(()) if !unlock.is_empty() => session.lock_accounts(&[], &unlock).await,
                other => other,
            };
        }
        if closed {
            session.set_super_read_only(true, CLOSE_DEADLINE).await?;
        }
        result?;
        self.accounts_at = None;
        self.instance.state().seen.accounts_version = Some(secrets.version);
        Ok(())
    }
}
