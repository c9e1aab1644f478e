//! Who may claim a leadership that nobody has (S1).

use schemadock_schema::leadership::Leadership;
use schemadock_schema::status::{DataState, WaitKind};
use schemadock_schema::target::Role;

use crate::desired::Desired;
use crate::observed::{Seen, ServerSeen};
use crate::record::DataOrigin;
use crate::standing::{follow, held, writable_minion};
use crate::step::{Plan, StandingStep as Step};
use crate::wish::{Wanted, Wish};

/// An emptied cluster: the last to lead may take it up again, else it is founded anew.
pub(crate) fn released(
    record: &Leadership,
    wish: &Wish,
    desired: &Desired,
    seen: &Seen,
    server: &ServerSeen,
) -> Plan<Step> {
    if desired.role == Role::Minion {
        return Plan::wait(WaitKind::Leadership, &desired.cluster, "nobody leads the cluster");
    }
    if let Some(plan) = not_now(wish, desired) {
        return plan;
    }
    let last = record.last_lineage().map(|entry| entry.server_uuid.as_str());
    if last == Some(server.server_uuid.as_str()) && desired.source.is_none() {
        return Plan::Do(Step::Claim);
    }
    free_claim(wish, desired, seen, server)
}

/// A cluster of which etcd holds no leadership.
pub(crate) fn without_leadership(
    wish: &Wish,
    desired: &Desired,
    seen: &Seen,
    server: &ServerSeen,
) -> Plan<Step> {
    // Whoever follows leads nothing, whatever became of the record.
    if server.channel.is_some() && !server.closed() {
        return Plan::Do(Step::Close { found: writable_minion(server) });
    }
    if server.writable() {
        return Plan::refuse(format!(
            "it takes writes, but the leadership of {} is gone from etcd; it is left as it is: \
             `schemadock fleet rebuild`",
            desired.cluster
        ));
    }
    if desired.role == Role::Minion {
        let master = wish.members.iter().find(|member| member.role == Role::Master);
        return match master {
            Some(master) => Plan::wait(WaitKind::Master, &master.name, "its master has not opened yet"),
            None => {
                let name =
                    desired.source.as_ref().map(|(host, port)| format!("{host}:{port}")).unwrap_or_default();
                Plan::wait(WaitKind::Master, name, "there is no target of its master yet")
            }
        };
    }
    if desired.source.is_some() {
        return follow(None, wish, desired, seen, server);
    }
    if server.channel.is_some() {
        return Plan::wait(
            WaitKind::Controller,
            &desired.cluster,
            "its master_host was taken away: a controller makes the cut",
        );
    }
    free_claim(wish, desired, seen, server)
}

/// Why nothing is claimed now, whoever may.
fn not_now(wish: &Wish, desired: &Desired) -> Option<Plan<Step>> {
    if let Some(waiting) = held(desired) {
        return Some(Plan::Wait(waiting));
    }
    if !matches!(wish.wanted, Wanted::Run(_)) {
        return Some(Plan::wait(WaitKind::Target, &wish.instance, "its target cannot be read"));
    }
    (!wish.believes_store()).then(|| {
        Plan::wait(WaitKind::Etcd, "leadership", "only an answering etcd can tell that nobody leads")
    })
}

/// S1: who may claim a free leadership.
fn free_claim(wish: &Wish, desired: &Desired, seen: &Seen, server: &ServerSeen) -> Plan<Step> {
    if let Some(plan) = not_now(wish, desired) {
        return plan;
    }
    if desired.source.is_some() {
        let message = "it is to follow another server: it claims nothing";
        return Plan::wait(WaitKind::Leadership, &desired.cluster, message);
    }
    let fresh = seen.record.data == DataOrigin::Template
        && seen.record.accepted.is_none()
        && server.gtid_executed.is_empty();
    if !fresh {
        return Plan::refuse(format!(
            "nobody leads {}, and its data are not new: this is for a person (`schemadock fleet rebuild`)",
            desired.cluster
        ));
    }
    for member in wish.members.iter().filter(|member| member.registered) {
        match member.data {
            Some(DataState::None | DataState::Template) => {}
            Some(DataState::Unknown) => {
                return Plan::wait(WaitKind::Members, &member.name, "it cannot tell yet what data it holds");
            }
            Some(_) => {
                return Plan::refuse(format!(
                    "nobody leads {}, but {} holds data of it: this is for a person (`schemadock fleet rebuild`)",
                    desired.cluster, member.name
                ));
            }
            None => {
                return Plan::wait(
                    WaitKind::Members,
                    &member.name,
                    "it has not reported that it holds no data",
                );
            }
        }
    }
    Plan::Do(Step::Claim)
}
