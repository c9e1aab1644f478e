//! The converge lane: identity, image, data, configuration, container, settings, seeds, and the way out.

use std::collections::BTreeSet;

use schemadock_schema::known::Known;
use schemadock_schema::size::format_bytes;
use schemadock_schema::status::{RestartPending, WaitKind};

use crate::config::{ServerConfig, Start, is_for_first_start, settings_of, unquoted};
use crate::data::{data, disabled, reseed, without_target};
use crate::desired::Desired;
use crate::observed::{ContainerSeen, ContainerState, Seen, Stopping, Work};
use crate::record::DataOrigin;
use crate::seed::{seed, seeding};
use crate::standing::held;
use crate::step::{ConvergeStep as Step, Plan};
use crate::wish::{Wanted, Wish};

/// The one next step of the converge lane.
pub fn plan(wish: &Wish, seen: &Seen) -> Plan<Step> {
    let Some(desired) = wish.desired() else {
        return without_target(wish, seen);
    };
    if let Some(waiting) = held(desired) {
        return Plan::Wait(waiting);
    }
    if desired.disabled {
        return disabled(wish, desired, seen);
    }
    let plan = prepare(wish, desired, seen)
        .or_else(|| reseed(wish, seen))
        .or_else(|| data(wish, desired, seen))
        .or_else(|| restart(wish, seen))
        .or_else(|| configuration(desired, seen))
        .or_else(|| container(wish, desired, seen))
        .or_else(|| running(wish, desired, seen))
        .unwrap_or(Plan::Converged);
    match (&plan, &wish.wanted) {
        (Plan::Converged, Wanted::Unreadable { reason, .. }) => {
            Plan::wait(WaitKind::Target, &wish.instance, format!("its target cannot be read: {reason}"))
        }
        _ => plan,
    }
}

/// What must be there before anything is made: an id, credentials.
fn prepare(wish: &Wish, desired: &Desired, seen: &Seen) -> Option<Plan<Step>> {
    // What is made here is made in etcd, and in none that is not believed.
    let missing = seen.record.server_id.is_none() || wish.grant.secrets.is_absent();
    if missing && !wish.believes_store() {
        let message = "a server id and credentials can only be had from an answering etcd that is known";
        return Some(Plan::wait(WaitKind::Etcd, "etcd", message));
    }
    if seen.record.server_id.is_none() {
        return Some(Plan::Do(Step::TakeServerId));
    }
    match &wish.grant.secrets {
        Known::Present(_) => None,
        Known::Absent => Some(Plan::Do(Step::MakeSecrets)),
        Known::Unknown(why) => {
            let message = format!("the credentials of {}: {why}", desired.cluster);
            Some(Plan::wait(WaitKind::Etcd, "secrets", message))
        }
    }
}

/// The image: here, or on its way.
pub(crate) fn image(desired: &Desired, seen: &Seen) -> Option<Plan<Step>> {
    match (&seen.image, &seen.pull) {
        (Known::Present(_), _) => None,
        (Known::Unknown(why), _) => Some(Plan::wait(WaitKind::Docker, "docker", format!("Docker: {why}"))),
        (Known::Absent, Work::Idle) => Some(Plan::Do(Step::PullImage)),
        (Known::Absent, Work::Running) => {
            Some(Plan::wait(WaitKind::Image, &desired.image, "the image is being fetched"))
        }
        (Known::Absent, Work::Failed(why)) => Some(Plan::refuse(why.clone())),
    }
}

/// A restart that was asked for, or is the only way on.
fn restart(wish: &Wish, seen: &Seen) -> Option<Plan<Step>> {
    let running = seen.container_runs() || seen.process.present().is_some();
    let why = match (wish.restart_asked, seen.voting.hangs) {
        (true, _) => "a restart was asked for",
        (_, true) => "its semi-sync hangs: acknowledgements are not read any more",
        _ => return None,
    };
    running.then(|| stop(why.to_owned()))
}

/// The file as it is to be.
pub fn wanted_config(desired: &Desired, seen: &Seen) -> Option<ServerConfig> {
    let start = if seen.record.server_uuid.is_none() { Start::First } else { Start::Again };
    Some(ServerConfig::of(desired, seen.record.server_id?, start))
}

/// The file on disk; what a change of it asks for.
fn configuration(desired: &Desired, seen: &Seen) -> Option<Plan<Step>> {
    let config = wanted_config(desired, seen)?;
    let text = config.render();
    if seen.record.server_uuid.is_none() && !seen.init {
        return Some(Plan::Do(Step::WriteInit));
    }
    if seen.config.as_deref() == Some(&text) {
        return None;
    }
    let judged = judgement(&text, &desired.image);
    if let Some(rejected) = seen.record.rejected.as_ref().filter(|rejected| rejected.hash == judged) {
        // The file that worked stays; without one there is nothing to start with. A file of data that were here before
        // has not the statements of a first start, which lock root.
        let first = seen.record.server_uuid.is_none();
        let none_works = seen.config.as_deref().is_none_or(|text| first && !is_for_first_start(text));
        return none_works
            .then(|| Plan::refuse(format!("mysqld refused the variables of `mysql`: {}", rejected.error)));
    }
    if !desired.mysql.is_empty() && seen.record.validated.as_deref() != Some(&judged) {
        if let Some(plan) = image(desired, seen) {
            return Some(plan);
        }
        return Some(Plan::Do(Step::Validate { config: Box::new(config) }));
    }
    Some(Plan::Do(Step::WriteConfig { config: Box::new(config) }))
}

/// What a judgement over a file is about: its text and the image. A plain hash, stable over versions (FNV-1a).
pub fn judgement(text: &str, image: &str) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in text.bytes().chain([0]).chain(image.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    format!("{hash:016x}")
}

/// The container: there, of the right kind, running.
fn container(wish: &Wish, desired: &Desired, seen: &Seen) -> Option<Plan<Step>> {
    let found = match &seen.container {
        Known::Unknown(why) => {
            // Docker is silent: a server that answers goes on being looked after.
            return match &seen.server {
                Known::Present(_) => None,
                _ => Some(Plan::wait(WaitKind::Docker, "docker", format!("Docker: {why}"))),
            };
        }
        Known::Absent => {
            if let Some(plan) = lost_server(seen, "Docker knows no container for it") {
                return Some(plan);
            }
            if let Some(plan) = image(desired, seen) {
                return Some(plan);
            }
            return Some(Plan::Do(Step::CreateContainer));
        }
        Known::Present(found) => found,
    };
    let change = document_change(desired, seen, found);
    match found.state {
        ContainerState::Running => {
            if desired.own_image
                && found.image != desired.image
                && let Some(plan) = image(desired, seen)
            {
                return Some(plan);
            }
            if seen.stopping != Stopping::No {
                return Some(stop("a stop had begun".to_owned()));
            }
            if seen.unheld {
                return Some(stop(
                    "Docker says that it runs, but no mysqld holds its data directory".to_owned(),
                ));
            }
            change.map(stop)
        }
        ContainerState::Paused => Some(Plan::Do(Step::Unpause)),
        ContainerState::Restarting => {
            Some(Plan::wait(WaitKind::Docker, &found.id, "Docker restarts the container"))
        }
        ContainerState::Dead => {
            if let Some(plan) = lost_server(seen, "Docker calls its container dead") {
                return Some(plan);
            }
            Some(Plan::Do(Step::RemoveContainer { why: "Docker calls it dead".to_owned() }))
        }
        ContainerState::Created | ContainerState::Exited { .. } => {
            if let Some(plan) = lost_server(seen, "Docker says that its container has ended") {
                return Some(plan);
            }
            if found.image != desired.image || found.shape.as_deref() != Some(&seen.shape) {
                let own = desired.own_image && found.image != desired.image;
                match image(desired, seen) {
                    None => {
                        return Some(Plan::Do(Step::RemoveContainer { why: "it is made anew".to_owned() }));
                    }
                    Some(plan) if own => return Some(plan),
                    // What is only pending keeps nobody from serving.
                    Some(_) => {}
                }
            }
            Some(start(wish, desired, seen, found))
        }
    }
}

fn start(wish: &Wish, desired: &Desired, seen: &Seen, found: &ContainerSeen) -> Plan<Step> {
    // A first start needs the file with the statements that lock root.
    if let Some(error) = seen.start_error.as_ref().filter(|_| seen.record.server_uuid.is_some()) {
        let text = seen.config.as_deref().unwrap_or_default();
        if let Some(good) = seen.good_config.as_deref().filter(|good| *good != text)
            && !good.is_empty()
        {
            return Plan::Do(Step::RestoreConfig { error: error.clone() });
        }
    }
    if let Some(taken) = &seen.port_taken {
        return Plan::wait(WaitKind::Port, desired.port, taken.clone());
    }
    if !seen.start_slot {
        return Plan::wait(WaitKind::Slot, &desired.host, "other servers of this host start first");
    }
    let ended_unasked = match found.state {
        ContainerState::Exited { code, out_of_memory } => {
            // The end of a CLONE is an exit with code 0 or 16.
            let cloned = matches!(seen.record.data, DataOrigin::Cloning { .. });
            let asked = wish.restart_asked || seen.stopping != Stopping::No || cloned;
            let memory = if out_of_memory { ", for want of memory" } else { "" };
            (!asked).then(|| format!("its container had ended with code {code}{memory}"))
        }
        _ => None,
    };
    Plan::Do(Step::StartContainer { found: ended_unasked })
}

/// A server that Docker has lost: left serving while it answers, ended when it does not.
fn lost_server(seen: &Seen, what: &str) -> Option<Plan<Step>> {
    match &seen.process {
        Known::Absent => None,
        Known::Unknown(why) => {
            Some(Plan::wait(WaitKind::Disk, "data", format!("{what}; who holds its data directory: {why}")))
        }
        Known::Present(process) => Some(match &seen.server {
            Known::Present(_) if seen.stopping == Stopping::No => Plan::wait(
                WaitKind::Docker,
                process.pid,
                format!(
                    "{what}, but mysqld serves as process {}: it is left serving until a restart",
                    process.pid
                ),
            ),
            // One that nobody has asked yet, or that answered with an error, may be serving.
            Known::Unknown(why) if seen.stopping == Stopping::No => Plan::wait(
                WaitKind::Server,
                process.pid,
                format!("{what}, but mysqld runs as process {}; the server: {why}", process.pid),
            ),
            _ => Plan::Do(Step::EndLost),
        }),
    }
}

/// A change of the instance's own document that needs a restart, which is done by itself.
fn document_change(desired: &Desired, seen: &Seen, found: &ContainerSeen) -> Option<String> {
    if desired.own_image && found.image != desired.image {
        return Some(format!("its image is to be {}", desired.image));
    }
    let file = settings_of(seen.config.as_deref()?);
    let in_force = settings_of(seen.record.in_force.as_deref()?);
    [("port", "port"), ("bind_address", "address")].into_iter().find_map(|(name, what)| {
        let now = file.get(name)?;
        (in_force.get(name) != Some(now)).then(|| format!("its {what} is to be {now}"))
    })
}

/// Stops the server: asks the standing lane to close it, then ends it.
pub(crate) fn stop(why: String) -> Plan<Step> {
    Plan::Do(Step::Stop { why })
}

/// What remains to be done on a running server.
fn running(wish: &Wish, desired: &Desired, seen: &Seen) -> Option<Plan<Step>> {
    let server = match &seen.server {
        Known::Present(server) => server,
        Known::Absent => return Some(Plan::wait(WaitKind::Server, &wish.instance, "the server starts")),
        Known::Unknown(why) => {
            return Some(Plan::wait(WaitKind::Server, &wish.instance, format!("the server: {why}")));
        }
    };
    if let Some(plan) = seeding(wish, seen, server) {
        return Some(plan);
    }
    if seen.record.server_uuid.is_none() {
        return Some(Plan::Do(Step::KeepIdentity { server_uuid: server.server_uuid.clone() }));
    }
    if let (Some(config), Some(in_force)) = (&seen.config, &seen.record.in_force)
        && settings_of(config) == settings_of(in_force)
        && (seen.good_config.as_ref() != Some(config) || seen.init)
    {
        return Some(Plan::Do(Step::KeepGoodConfig));
    }
    if let Some(plan) = settings(seen) {
        return Some(plan);
    }
    if let Known::Present(container) = &seen.container
        && limits_differ(desired, container)
    {
        match (lowers(desired, container), &seen.resident) {
            (true, Known::Unknown(_) | Known::Absent) => {
                let message = "how much memory it occupies is not known yet";
                return Some(Plan::wait(WaitKind::Server, &wish.instance, message));
            }
            _ => match too_large(desired, container, seen) {
                None => return Some(Plan::Do(Step::SetLimits)),
                Some((why, false)) => return Some(Plan::wait(WaitKind::Server, &wish.instance, why)),
                // It waits for a restart.
                Some((_, true)) => {}
            },
        }
    }
    seed(wish, seen, server)
}

/// Whether the container is to have less memory than it has.
pub fn lowers(desired: &Desired, container: &ContainerSeen) -> bool {
    container.memory > desired.limits.memory
}

/// Why the memory cannot be lowered now, and whether that lasts: what is resident must fit with a tenth to spare, else the
/// kernel ends the server, or refuses the limit.
fn too_large(desired: &Desired, container: &ContainerSeen, seen: &Seen) -> Option<(String, bool)> {
    let resident = seen.resident.present().filter(|_| lowers(desired, container))?;
    let needed = resident.bytes + resident.bytes / 10;
    let why = || {
        format!(
            "{} are resident: a limit of {} needs a tenth of it to spare",
            format_bytes(resident.bytes >> 20 << 20),
            format_bytes(desired.limits.memory)
        )
    };
    (needed > desired.limits.memory).then(|| (why(), resident.lasting))
}

fn limits_differ(desired: &Desired, container: &ContainerSeen) -> bool {
    // A daemon that cannot set limits reports none.
    let nano = (desired.limits.cpus * 1e9) as u64;
    let memory = container.memory != 0 && container.memory != desired.limits.memory;
    memory || (container.nano_cpus != 0 && container.nano_cpus.abs_diff(nano) > 1_000_000)
}

/// Variables that only the standing lane changes on a running server (L1, L5).
const STANDING: [&str; 5] = [
    "offline_mode",
    "read_only",
    "super_read_only",
    "rpl_semi_sync_source_enabled",
    "rpl_semi_sync_replica_enabled",
];

/// Settings of a changed file that can be changed live; then those that were changed by hand.
fn settings(seen: &Seen) -> Option<Plan<Step>> {
    let (file, in_force) =
        (settings_of(seen.config.as_deref()?), settings_of(seen.record.in_force.as_deref()?));
    let settable = |name: &str| !seen.unsettable.contains_key(name) && !STANDING.contains(&name);
    let names: BTreeSet<&str> = file.keys().chain(in_force.keys()).copied().collect();
    if let Some(name) = names.into_iter().find(|name| file.get(name) != in_force.get(name) && settable(name))
    {
        let value = file.get(name).map(|value| unquoted(value));
        return Some(Plan::Do(Step::SetVariable { name: name.to_owned(), value, found: None }));
    }
    let differing = seen.differing.present()?;
    // What the file does not say is no drift: it was refused, and the file that worked is back.
    let said = |name: &str, wanted: &str| file.get(name).is_some_and(|value| unquoted(value) == wanted);
    let (name, wanted, found) =
        differing.iter().find(|(name, wanted, _)| settable(name) && said(name, wanted))?;
    Some(Plan::Do(Step::SetVariable {
        name: name.clone(),
        value: Some(wanted.clone()),
        found: Some(format!("{name} was {found}, expected {wanted}")),
    }))
}

/// Settings that wait for a restart, each with its reason.
pub fn restart_pending(desired: &Desired, seen: &Seen) -> Vec<RestartPending> {
    let refused = desired.refused.iter();
    let mut pending: Vec<RestartPending> = refused
        .map(|(variable, why)| RestartPending { variable: variable.clone(), reason: why.clone() })
        .collect();
    let Some(config) = wanted_config(desired, seen) else {
        return pending;
    };
    if let Some(rejected) = &seen.record.rejected
        && rejected.hash == judgement(&config.render(), &desired.image)
    {
        let variable = desired.mysql.keys().cloned().collect::<Vec<_>>().join(", ");
        pending.push(RestartPending { variable, reason: rejected.error.clone() });
        return pending;
    }
    for (variable, reason) in &seen.unsettable {
        pending.push(RestartPending { variable: variable.clone(), reason: reason.clone() });
    }
    if let Known::Present(container) = &seen.container {
        if container.image != desired.image && !desired.own_image {
            let reason = format!("it runs {}, wished is {}", container.image, desired.image);
            pending.push(RestartPending { variable: "image".to_owned(), reason });
        }
        if container.shape.as_deref() != Some(&seen.shape) {
            let reason = "the agent's settings make another container".to_owned();
            pending.push(RestartPending { variable: "container".to_owned(), reason });
        }
        if let Some((reason, true)) = too_large(desired, container, seen) {
            pending.push(RestartPending { variable: "memory".to_owned(), reason });
        }
    }
    pending
}
