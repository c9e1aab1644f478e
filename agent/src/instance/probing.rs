//! What the standing lane asks of other servers: its source, and the member that leads.

use std::time::Duration;

use schemadock_agent_plan::handover::receives_early;
use schemadock_agent_plan::observed::{Seen, SourceSeen, Stopping, ThreadState};
use schemadock_agent_plan::record::DataOrigin;
use schemadock_agent_plan::wish::Wish;
use schemadock_schema::known::{Known, WhyUnknown};
use schemadock_schema::secrets::{Secrets, replication_user};

use super::standing::Lane;
use crate::mysqld::{Endpoint, Login};

impl Lane {
    /// Looks at the source and the leader, where something is to be judged by them; `true`: it has looked.
    pub(super) async fn probe(&mut self, wish: &Wish, seen: &Seen) -> bool {
        let Some(server) = seen.server.present() else { return false };
        // A master looks at its successor once, before it receives from it.
        let follows = !wish.leads() || (receives_early(wish) && server.channel.is_none());
        let Some(source) = wish.source.as_ref().filter(|_| follows) else { return false };
        let Known::Present(address) = &source.address else { return false };
        let attached = server.channel.as_ref().is_some_and(|channel| {
            channel.receiver == ThreadState::On
                && channel.applier == ThreadState::On
                && channel.host == *address
                && channel.port == source.port
        });
        // Transactions of its own are looked into as soon as they appear.
        let own = server.gtid_executed.of_uuid(&server.server_uuid);
        let own_known = seen
            .leader
            .present()
            .or(seen.source.present())
            .is_some_and(|other| other.gtid_executed.contains(&own));
        let quiet = attached && (own.is_empty() || own_known) && seen.judged.is_none();
        let cloning = matches!(seen.record.data, DataOrigin::Cloning { .. });
        if quiet || cloning || seen.stopping != Stopping::No {
            return false;
        }
        // One that its agent does not report as running is not worth a knock.
        let account = seen.record.server_id.map(replication_user).unwrap_or_default();
        let login = |secrets: &Known<Secrets>| secrets.present().map(Login::admin);
        let reported = source.instance.is_none()
            || source.phase.is_some_and(|phase| {
                use schemadock_schema::status::Phase;
                matches!(phase, Phase::Running | Phase::Fenced)
            });
        let endpoint = Endpoint::Tcp { host: address.clone(), port: source.port };
        let found = match login(&source.secrets) {
            Some(login) if reported => self.look(&endpoint, &login, &account, false).await,
            _ => Known::Absent,
        };
        let leader = match &wish.leader {
            Some((host, port)) if *host == *address && *port == source.port => found.clone(),
            // Nobody asks himself.
            Some(_) if wish.leads() => Known::Absent,
            Some((host, port)) => match login(&wish.grant.secrets) {
                Some(login) => {
                    let endpoint = Endpoint::Tcp { host: host.clone(), port: *port };
                    self.look(&endpoint, &login, &account, true).await
                }
                None => Known::Unknown(WhyUnknown::NotYet),
            },
            None => Known::Absent,
        };
        let mut state = self.instance.state();
        let news = state.seen.source != found;
        state.seen.source = found;
        state.seen.leader = leader;
        drop(state);
        if news {
            self.instance.wake_converge.notify_one();
        }
        true
    }

    async fn look(
        &mut self,
        endpoint: &Endpoint,
        login: &Login,
        account: &str,
        leader: bool,
    ) -> Known<SourceSeen> {
        let slot = if leader { &mut self.leader } else { &mut self.source };
        let kept = slot.take().filter(|(kept, _)| kept == endpoint);
        let mut session = match kept {
            Some((_, session)) => session,
            None => match self.instance.ctx.mysqld.connect(endpoint, login, Duration::from_secs(1)).await {
                Ok(session) => session,
                Err(error) => return Known::Unknown(WhyUnknown::Error(error.to_string())),
            },
        };
        match session.observe_source(account).await {
            Ok(seen) => {
                let slot = if leader { &mut self.leader } else { &mut self.source };
                *slot = Some((endpoint.clone(), session));
                Known::Present(seen)
            }
            Err(error) => Known::Unknown(WhyUnknown::Error(error.to_string())),
        }
    }
}
