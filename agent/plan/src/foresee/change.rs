//! The steps that an agent would take when a target changes, from what etcd holds alone.
//!
//! Sound as far as documents go: what the status says is taken at its word; what it does not say (files, drift, whether
//! an image or a template is there, what a source has purged) is taken to be as the target before wanted it. So the
//! steps are those of an undisturbed host; nobody acts on them.

use std::collections::{BTreeMap, BTreeSet};

use schemadock_schema::host::Host;
use schemadock_schema::known::Known;
use schemadock_schema::leadership::Leadership;
use schemadock_schema::policy::ClusterPolicy;
use schemadock_schema::secrets::{Secrets, replication_user};
use schemadock_schema::size::{GIB, Resources};
use schemadock_schema::status::{
    DataState, ObservedRole, Phase, SourceReport, Status, StoreReport, StoreState, WaitKind,
};
use schemadock_schema::target::Target;
use schemadock_schema::{ClusterName, HostName, InstanceName};

use super::{End, Step, steps, wanted_accounts};
use crate::converge::wanted_config;
use crate::desired::{Desired, HostDefaults};
use crate::observed::{
    AcksSeen, ChannelSeen, ContainerSeen, ContainerState, DataSeen, HandoverSeen, ImageSeen, ProcessSeen,
    Resident, RetiredSeen, Seen, ServerSeen, SourceSeen, Stopping, TemplateSeen, ThreadState, VotingSeen,
    Work,
};
use crate::record::{AcceptedTerm, DataOrigin, Record};
use crate::step::{ConvergeStep, Plan, StandingStep};
use crate::voting;
use crate::wish::{Grant, Member, SourceWish, Wanted, Wish};

/// What is known where a target is to change.
#[derive(Debug, Clone)]
pub struct Change<'a> {
    /// The instance.
    pub instance: &'a InstanceName,
    /// Its cluster.
    pub cluster: &'a ClusterName,
    /// Its host.
    pub host: &'a HostName,
    /// The target that stands; none for a new instance.
    pub before: Option<&'a Target>,
    /// The target that is to stand; none for a deletion.
    pub after: Option<&'a Target>,
    /// The cluster's policy.
    pub policy: Option<&'a ClusterPolicy>,
    /// Who leads, the end of a handover folded in.
    pub leadership: Option<&'a Leadership>,
    /// What its agent reports.
    pub status: Option<&'a Status>,
    /// Whether the cluster has credentials.
    pub secrets: bool,
    /// All registered hosts.
    pub hosts: &'a BTreeMap<HostName, Host>,
    /// The other members, with the targets that are to stand.
    pub others: Vec<Other<'a>>,
}

/// Another member.
#[derive(Debug, Clone)]
pub struct Other<'a> {
    /// The instance.
    pub name: &'a InstanceName,
    /// Its host.
    pub host: &'a HostName,
    /// Its target.
    pub target: &'a Target,
    /// What its agent reports.
    pub status: Option<&'a Status>,
}

/// The steps in order, one line each; the last line says what is waited for or refused, if anything is. Empty where
/// nothing is to be done. A wish that changes nothing on the host is no step (`promotion`, for example).
pub fn steps_of_change(change: &Change<'_>) -> Vec<String> {
    let course = steps(&seen(change), &wish(change, change.after));
    let mut lines: Vec<String> = Vec::new();
    if !change.hosts.contains_key(change.host) {
        lines.push(format!("wait for an agent on host {}", change.host));
    }
    let mut written = false;
    for (step, line) in course.steps.iter().zip(course.lines) {
        let Step::Converge(step) = step else {
            lines.push(line);
            continue;
        };
        let again = written && matches!(step, ConvergeStep::WriteConfig { .. });
        written |= matches!(step, ConvergeStep::WriteConfig { .. });
        if !again && !is_note(step) {
            lines.push(line);
        }
    }
    match course.end {
        End::Rest { standing, converge } => lines.extend(last_line(&standing, &converge)),
        End::Forgotten => {}
        End::Endless => lines.push("and so on, without an end".to_owned()),
    }
    lines
}

/// What an agent only notes on its disk.
fn is_note(step: &ConvergeStep) -> bool {
    matches!(
        step,
        ConvergeStep::KeepIdentity { .. }
            | ConvergeStep::KeepGoodConfig
            | ConvergeStep::WriteInit
            | ConvergeStep::Replace { .. }
            | ConvergeStep::KeepData { .. }
            | ConvergeStep::FinishSeed
    )
}

/// What keeps it from being converged: a refusal first, then what the converge lane waits for.
fn last_line(standing: &Plan<StandingStep>, converge: &Plan<ConvergeStep>) -> Option<String> {
    fn refusal<S>(plan: &Plan<S>) -> Option<String> {
        match plan {
            Plan::Refuse(reason) => Some(format!("refused: {reason}")),
            _ => None,
        }
    }
    fn waiting<S>(plan: &Plan<S>) -> Option<String> {
        match plan {
            Plan::Wait(waiting) if waiting.kind != WaitKind::Server => {
                Some(format!("wait for {} {}: {}", waiting.kind, waiting.name, waiting.message))
            }
            _ => None,
        }
    }
    let refused = refusal(converge).or_else(|| refusal(standing));
    refused.or_else(|| waiting(converge)).or_else(|| waiting(standing))
}

fn defaults(change: &Change<'_>) -> HostDefaults {
    let host = change.hosts.get(change.host);
    let unnamed = |target: &Target| target.image.is_none();
    let of_policy = change.policy.is_some_and(|policy| policy.image.is_some());
    // Where nobody names an image, the one that runs is the agent's default.
    let running = change.status.and_then(|status| status.container.as_ref()).map(|c| c.image.clone());
    let running = running.filter(|_| !of_policy && change.before.is_some_and(unnamed));
    HostDefaults {
        host: change.host.clone(),
        address: host.map_or_else(|| change.host.to_string(), |host| host.address.clone()),
        image: running.unwrap_or_else(|| "of the agent's settings".to_owned()),
        offered: host.map_or(Resources { memory: 4 * GIB, cpus: 2.0, disk: None }, |host| host.capacity),
    }
}

/// Where a server receives from, as its status says.
fn receives_from(status: &Status) -> Option<(String, u16)> {
    let source = status.source.as_ref().filter(|source| source.io == "ON")?;
    Some((source.address.clone(), source.port))
}

fn member(change: &Change<'_>, other: &Other<'_>) -> Member {
    let host = change.hosts.get(other.host);
    let status = other.status;
    Member {
        name: other.name.clone(),
        host: other.host.clone(),
        role: other.target.role,
        disabled: other.target.disabled,
        registered: host.is_some(),
        address: host.map(|host| host.address.clone()),
        port: other.target.port,
        data: status.map(|status| status.data.state),
        phase: status.map(|status| status.phase),
        version: status.and_then(|status| status.mysql_version.clone()),
        server_id: status.and_then(|status| status.server_id),
        server_uuid: status.and_then(|status| status.server_uuid.clone()),
        acknowledges: status.and_then(|status| status.acknowledges).into(),
        receives_from: status.and_then(receives_from),
        lag_seconds: status.and_then(|s| s.source.as_ref()).and_then(|source| source.lag_seconds),
        writable: status.and_then(|status| status.writable).unwrap_or(false),
    }
}

fn wish(change: &Change<'_>, target: Option<&Target>) -> Wish {
    let desired = target.map(|target| {
        Desired::resolve(change.instance, change.cluster, target, change.policy, &defaults(change))
    });
    let members: Vec<Member> = change.others.iter().map(|other| member(change, other)).collect();
    let master = change.leadership.and_then(|record| record.master.as_ref());
    let leader = members.iter().find(|member| Some(&member.name) == master);
    let named = desired.as_ref().and_then(|desired| desired.source.clone());
    let meant = named.as_ref().and_then(|(host, port)| {
        change.others.iter().find(|other| other.host == host && other.target.port == *port)
    });
    let meant = meant.map(|other| other.name);
    let place = |name: &InstanceName| {
        members.iter().find(|member| member.name == *name).map(|member| (member.host.clone(), member.port))
    };
    let by_record =
        change.leadership.and_then(|record| voting::source_by_record(record, change.instance, meant));
    let leads = leader.map(|leader| (leader.host.clone(), leader.port));
    let named = match by_record {
        Some(meant) => place(meant),
        None => named.or(leads),
    };
    let secrets = match change.secrets {
        true => Known::Present(Secrets::from_random(|| "foreseen".to_owned(), "00000000")),
        false => Known::Absent,
    };
    let source =
        named.filter(|_| by_record.is_some() || master != Some(change.instance)).map(|(host, port)| {
            let there = change.others.iter().find(|other| *other.host == host && other.target.port == port);
            let status = there.and_then(|other| other.status);
            SourceWish {
                address: change.hosts.get(&host).map(|host| host.address.clone()).into(),
                instance: there.map(|other| other.name.clone()),
                own_cluster: true,
                phase: status.map(|status| status.phase),
                server_uuid: status.and_then(|status| status.server_uuid.clone()),
                secrets: secrets.clone(),
                host,
                port,
            }
        });
    Wish {
        instance: change.instance.clone(),
        wanted: desired.map_or(Wanted::Deleted, |desired| Wanted::Run(Box::new(desired))),
        target_revision: None,
        policy_revision: None,
        grant: Grant {
            cluster: Some(change.cluster.clone()),
            leadership: change.leadership.cloned().into(),
            revision: None,
            secrets,
        },
        source,
        leader: leader.and_then(|leader| Some((leader.address.clone()?, leader.port))),
        followers: members.iter().filter_map(|member| member.server_id).collect::<BTreeSet<u32>>(),
        members,
        votes: BTreeMap::new(),
        recorded_uuid: change.status.and_then(|status| status.server_uuid.clone()).into(),
        store: Some(StoreReport { state: StoreState::Ok, expected: None, found: None }),
        controller: false,
        restart_asked: false,
        reseed_asked: false,
    }
}

/// What another member's status says of its server; none while it is not ready to be followed.
fn other_server(change: &Change<'_>, name: Option<&InstanceName>) -> Option<SourceSeen> {
    let status = change.others.iter().find(|other| Some(other.name) == name)?.status?;
    if !matches!(status.phase, Phase::Running | Phase::Fenced) {
        return None;
    }
    // Documents are of different moments: only what its own agent calls foreign is taken for that.
    let own = change.status;
    let theirs = own.and_then(|own| own.received.clone()).unwrap_or_default();
    let foreign = own.and_then(|own| own.foreign.as_ref()).map(|foreign| foreign.gtids.clone());
    let all = status.gtid_executed.clone().unwrap_or_default().union(&theirs);
    Some(SourceSeen {
        server_uuid: status.server_uuid.clone()?,
        version: status.mysql_version.clone().unwrap_or_default(),
        gtid_executed: all.minus(&foreign.unwrap_or_default()),
        gtid_purged: Default::default(),
        writable: status.writable.unwrap_or(false),
        account: true,
    })
}

fn record(change: &Change<'_>, status: &Status) -> Record {
    let accepted = status.term.map(|term| AcceptedTerm { cluster: change.cluster.clone(), term });
    Record {
        server_id: status.server_id,
        server_uuid: status.server_uuid.clone(),
        data: match status.data.state {
            DataState::None => DataOrigin::None,
            DataState::Template => DataOrigin::Template,
            DataState::Own | DataState::Foreign | DataState::Unknown => DataOrigin::Own,
        },
        voted: accepted.clone(),
        accepted,
        ..Record::default()
    }
}

fn server(status: &Status) -> Option<ServerSeen> {
    let writable = status.writable?;
    let serves = writable || (status.observed_role == ObservedRole::Minion && status.phase == Phase::Running);
    Some(ServerSeen {
        server_uuid: status.data.server_uuid.clone().or(status.server_uuid.clone())?,
        server_id: status.server_id.unwrap_or_default(),
        version: status.mysql_version.clone().unwrap_or_default(),
        offline_mode: !serves,
        super_read_only: !writable,
        read_only: !writable,
        gtid_executed: status.gtid_executed.clone().unwrap_or_default(),
        gtid_purged: Default::default(),
        channel: status.source.as_ref().map(|source| channel(status, source)),
        semi_sync_source: status.acks.is_some_and(|acks| acks > 0),
        acks: AcksSeen {
            count: status.acks.unwrap_or(0),
            working: status.acks.is_some_and(|acks| acks > 0),
            clients: status.receivers.len() as u32,
            ..AcksSeen::default()
        },
        semi_sync_replica: status.acknowledges.unwrap_or(false),
        acknowledging: status.acknowledges.unwrap_or(false),
        receivers: BTreeSet::new(),
        acknowledgers: BTreeSet::new(),
        events: writable,
        uptime: 0,
    })
}

fn channel(status: &Status, source: &SourceReport) -> ChannelSeen {
    let state = |word: &str| match word {
        "ON" => ThreadState::On,
        "CONNECTING" => ThreadState::Connecting,
        _ => ThreadState::Off,
    };
    ChannelSeen {
        host: source.address.clone(),
        port: source.port,
        user: status.server_id.map(replication_user).unwrap_or_default(),
        auto_position: true,
        ssl: true,
        receiver: state(&source.io),
        applier: state(&source.sql),
        retrieved: status.received.clone().unwrap_or_default(),
        receiver_error: None,
        applier_error: None,
        source_uuid: None,
        lag_seconds: source.lag_seconds,
        delay: 0,
    }
}

fn container(change: &Change<'_>, status: &Status) -> Option<ContainerSeen> {
    let reported = status.container.as_ref()?;
    let state = match reported.state.as_str() {
        "created" => ContainerState::Created,
        "paused" => ContainerState::Paused,
        "restarting" => ContainerState::Restarting,
        "exited" => ContainerState::Exited { code: 0, out_of_memory: false },
        "dead" => ContainerState::Dead,
        _ => ContainerState::Running,
    };
    let limits = change
        .before
        .map(|before| before.size.limits(&defaults(change).offered))
        .or(status.size)
        .unwrap_or(Resources { memory: 0, cpus: 0.0, disk: None });
    Some(ContainerSeen {
        id: reported.id.clone(),
        image: reported.image.clone(),
        image_id: String::new(),
        pid: (state == ContainerState::Running).then_some(1),
        state,
        shape: Some(String::new()),
        memory: limits.memory,
        nano_cpus: (limits.cpus * 1e9) as u64,
    })
}

/// The instance as its status has it, with files as the target before wanted them.
fn seen(change: &Change<'_>) -> Seen {
    let before = wish(change, change.before);
    let status = change.status;
    let record = status.map(|status| record(change, status)).unwrap_or_default();
    let data: Known<DataSeen> = match status {
        Some(status) if status.data.state == DataState::Unknown => super::not_yet(),
        Some(status) if status.data.state != DataState::None => {
            Known::Present(DataSeen { server_uuid: status.data.server_uuid.clone(), complete: true })
        }
        _ => Known::Absent,
    };
    let server = status.and_then(server);
    let container = status.and_then(|status| container(change, status));
    let runs = container.as_ref().is_some_and(|container| container.state == ContainerState::Running);
    let image = container.as_ref().map(|container| container.image.clone());
    let after = wish(change, change.after);
    let same_image = after.desired().is_some_and(|desired| Some(&desired.image) == image.as_ref());
    let shelf = change.hosts.get(change.host).map(|host| host.retired.as_slice()).unwrap_or_default();
    // An instance that is new to etcd and has data here was deleted.
    let newest = shelf.iter().filter(|r| r.instance == *change.instance).max_by_key(|r| r.since);
    let retired =
        newest.filter(|_| status.is_none()).map(|retired| {
            // The cluster's last leader takes the leadership up again by this.
            let last = change
                .leadership
                .and_then(|record| record.lineage.iter().rev().find(|led| led.name == *change.instance));
            RetiredSeen {
                name: retired.since.to_string(),
                deleted: true,
                server_uuid: Some(last.map_or_else(
                    || super::server_uuid(change.instance, false),
                    |led| led.server_uuid.clone(),
                )),
            }
        });
    let source = after.source.as_ref().and_then(|source| source.instance.as_ref());
    let leader = change.leadership.and_then(|record| record.master.as_ref());
    let frozen: BTreeSet<String> = status.iter().flat_map(|status| &status.frozen).cloned().collect();
    let mut seen = Seen {
        record: Record { frozen: frozen.clone(), ..record },
        data,
        retired: retired.into_iter().collect(),
        config: None,
        good_config: None,
        init: false,
        container: container.into(),
        shape: String::new(),
        process: if runs { Known::Present(ProcessSeen { pid: 1, started: 0 }) } else { Known::Absent },
        unheld: false,
        resident: Known::Present(Resident { bytes: 0, lasting: false }),
        image: if same_image { Known::Present(ImageSeen { id: String::new() }) } else { Known::Absent },
        pull: Work::Idle,
        template: TemplateSeen::Missing,
        port_taken: None,
        start_slot: true,
        accounts: if server.is_some() { wanted_accounts(&before) } else { super::not_yet() },
        differing: if server.is_some() { Known::Present(Vec::new()) } else { super::not_yet() },
        server: server.into(),
        start_error: None,
        unsettable: status
            .map(|status| status.restart_pending.as_slice())
            .unwrap_or_default()
            .iter()
            .map(|pending| (pending.variable.clone(), pending.reason.clone()))
            .collect(),
        accounts_version: None,
        schemas: Known::Present(frozen.iter().map(|schema| (schema.clone(), true)).collect()),
        source: other_server(change, source).into(),
        leader: other_server(change, leader).into(),
        clone: super::not_yet(),
        seed: Work::Idle,
        stopping: Stopping::No,
        judged: None,
        voting: VotingSeen::default(),
        handover: HandoverSeen::default(),
    };
    if let Some(desired) = before.desired()
        && status.is_some_and(|status| status.container.is_some())
    {
        let text = wanted_config(desired, &seen).map(|config| config.render());
        (seen.config, seen.good_config) = (text.clone(), text.clone());
        seen.record.in_force = text;
    }
    seen
}
