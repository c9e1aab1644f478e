//! The instance's status, for people and for other agents.

use schemadock_schema::known::Known;
use schemadock_schema::status::{
    ContainerReport, DataReport, ForeignReport, ObservedRole, Phase, SeedReport, SourceReport, Status,
    StoreReport, StoreState, WaitKind, WaitingOn,
};
use schemadock_schema::{HostName, Timestamp};

use crate::converge::restart_pending;
use crate::data::data_state;
use crate::frozen;
use crate::observed::{Seen, ServerSeen};
use crate::record::DataOrigin;
use crate::step::{ConvergeStep, Plan, StandingStep, Waiting};
use crate::voting;
use crate::wish::{Wanted, Wish};

/// What the lanes came to, beside what they saw.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The standing lane's plan.
    pub standing: Plan<StandingStep>,
    /// The converge lane's plan.
    pub converge: Plan<ConvergeStep>,
    /// The last error of a step that is tried again.
    pub error: Option<String>,
    /// Progress of a seed under way.
    pub seed: Option<SeedReport>,
}

/// Whether a status would take etcd's memory of the data away: neither this host nor etcd, as far as it was heard, says
/// which they are. A store that is blank or another fleet's has no such memory.
pub fn would_forget(wish: &Wish, seen: &Seen) -> bool {
    let strange = wish
        .store
        .as_ref()
        .is_some_and(|store| matches!(store.state, StoreState::Blank | StoreState::Foreign));
    seen.record.server_uuid.is_none() && wish.recorded_uuid.is_unknown() && !strange
}

/// The status of an instance. `previous` keeps the time since when it waits.
pub fn status(
    wish: &Wish,
    seen: &Seen,
    outcome: &Outcome,
    host: &HostName,
    previous: Option<&Status>,
    now: Timestamp,
) -> Status {
    let desired = wish.desired();
    let server = seen.server.present();
    let phase = phase(wish, seen, outcome);
    let waiting = waiting(outcome).map(|waiting| {
        let since = previous
            .and_then(|status| status.waiting_on.as_ref())
            .filter(|before| before.kind == waiting.kind && before.name == waiting.name)
            .map_or(now, |before| before.since);
        WaitingOn { kind: waiting.kind, name: waiting.name.clone(), since }
    });
    let converged = outcome.error.is_none()
        && matches!(wish.wanted, Wanted::Run(_))
        && outcome.converge == Plan::Converged
        && match phase {
            Phase::Stopped => true,
            _ => outcome.standing == Plan::Converged,
        };
    let data = data_state(wish, seen);
    Status {
        name: wish.instance.clone(),
        host: host.clone(),
        cluster: wish.grant.cluster.clone(),
        address: desired.map(|d| d.address.clone()),
        port: desired.map(|d| d.port),
        role: desired.map(|d| d.role),
        disabled: desired.is_some_and(|d| d.disabled),
        maintenance: desired.is_some_and(|d| d.maintenance),
        observed_role: match server {
            Some(server) if wish.leads() && server.writable() => ObservedRole::Master,
            Some(server) if server.channel.is_some() => ObservedRole::Minion,
            _ => ObservedRole::None,
        },
        phase,
        converged,
        waiting_on: waiting,
        message: message(outcome),
        data: DataReport {
            state: data,
            server_uuid: seen.data.present().and_then(|data| data.server_uuid.clone()),
        },
        foreign: seen
            .judged
            .as_ref()
            .map(|judged| ForeignReport { gtids: judged.gtids.clone(), harmless: judged.harmless }),
        store: wish.store.clone().unwrap_or(StoreReport {
            state: StoreState::Ok,
            expected: None,
            found: None,
        }),
        attempts: seen.record.attempts,
        writable: server.map(|server| server.writable()),
        term: seen.record.accepted.as_ref().map(|accepted| accepted.term),
        received: server.map(|server| server.received()),
        // A host that has lost its record does not take etcd's memory of it away, too.
        server_uuid: seen.record.server_uuid.clone().or_else(|| wish.recorded_uuid.present().cloned()),
        server_id: seen.record.server_id,
        gtid_executed: server.map(|server| server.gtid_executed.clone()),
        source: server.and_then(|server| server.channel.as_ref()).map(|channel| SourceReport {
            host: wish
                .source
                .as_ref()
                .filter(|s| s.address.present() == Some(&channel.host) && s.port == channel.port)
                .map(|s| s.host.clone()),
            port: channel.port,
            address: channel.host.clone(),
            io: channel.receiver.word().to_owned(),
            sql: channel.applier.word().to_owned(),
            lag_seconds: channel.lag_seconds.or(Some(0.0)),
            error: channel
                .receiver_error
                .as_ref()
                .or(channel.applier_error.as_ref())
                .map(|(number, text)| format!("{number} {text}")),
        }),
        leadership_revision: voting::revision_in_force(wish, seen),
        acknowledges: server.map(ServerSeen::may_acknowledge),
        acks: server.filter(|_| wish.leads()).map(ServerSeen::acks_in_force),
        receivers: server
            .filter(|_| wish.leads())
            .map(|server| voting::receivers(wish, server))
            .unwrap_or_default(),
        // Those that wait for a moment only are no news.
        commits_waiting: server
            .filter(|_| wish.leads())
            .map(|server| if seen.voting.stalled { server.acks.waiting } else { 0 }),
        frozen: frozen::in_force(seen),
        seed: outcome.seed.clone(),
        restart_pending: desired.map(|desired| restart_pending(desired, seen)).unwrap_or_default(),
        container: seen.container.present().map(|container| ContainerReport {
            id: container.id.clone(),
            image: container.image.clone(),
            state: container.state.word().to_owned(),
        }),
        mysql_version: server.map(|server| server.version.clone()),
        size: desired.map(|desired| desired.limits),
        target_revision: wish.target_revision,
        policy_revision: wish.policy_revision,
        updated_at: now,
    }
}

fn waiting(outcome: &Outcome) -> Option<&Waiting> {
    let standing = match &outcome.standing {
        Plan::Wait(waiting) => Some(waiting),
        _ => None,
    };
    match &outcome.converge {
        // What the server waits for says more than that it is waited for.
        Plan::Wait(waiting) if waiting.kind == WaitKind::Server => {
            standing.filter(|standing| standing.kind != WaitKind::Server).or(Some(waiting))
        }
        Plan::Wait(waiting) => Some(waiting),
        _ => standing
            .filter(|standing| standing.kind != WaitKind::Server || outcome.converge == Plan::Converged),
    }
}

fn message(outcome: &Outcome) -> String {
    if let Plan::Refuse(reason) = &outcome.converge {
        return reason.clone();
    }
    if let Plan::Refuse(reason) = &outcome.standing {
        return reason.clone();
    }
    if let Some(error) = &outcome.error {
        return error.clone();
    }
    waiting(outcome).map(|waiting| waiting.message.clone()).unwrap_or_default()
}

fn phase(wish: &Wish, seen: &Seen, outcome: &Outcome) -> Phase {
    let refused = matches!(outcome.converge, Plan::Refuse(_)) || matches!(outcome.standing, Plan::Refuse(_));
    if refused {
        return Phase::Failed;
    }
    let disabled = wish.desired().is_some_and(|desired| desired.disabled);
    let Known::Present(server) = &seen.server else {
        if matches!(seen.record.data, DataOrigin::Cloning { .. }) {
            return Phase::Seeding;
        }
        if disabled && outcome.converge == Plan::Converged {
            return Phase::Stopped;
        }
        if seen.container_runs() || matches!(outcome.converge, Plan::Do(ConvergeStep::StartContainer { .. }))
        {
            return Phase::Starting;
        }
        let begun = seen.record.server_id.is_some();
        return if begun { Phase::Provisioning } else { Phase::Pending };
    };
    if matches!(seen.record.data, DataOrigin::Cloning { .. }) {
        return Phase::Seeding;
    }
    if wish.leads() {
        return if server.writable() { Phase::Running } else { Phase::Fenced };
    }
    let follows = server.channel.is_some() && !server.offline_mode;
    // A flag may wait for a reader without an end; it is in nobody's way.
    let rests = matches!(
        outcome.standing,
        Plan::Converged | Plan::Wait(_) | Plan::Do(StandingStep::SetFrozen { .. })
    );
    let lifted = rests && follows;
    if lifted { Phase::Running } else { Phase::Attaching }
}
