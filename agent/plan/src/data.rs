//! The converge lane's part about the data directory: made, taken up, set aside, made anew, or refused.
//!
//! Whatever replaces data asks first who leads: not known is not "somebody else" (I4).

use schemadock_schema::known::Known;
use schemadock_schema::status::{DataState, Phase, WaitKind};

use crate::converge::{image, stop};
use crate::desired::Desired;
use crate::observed::{Seen, TemplateSeen};
use crate::record::{DataOrigin, Replacing};
use crate::standing::foreign_data;
use crate::step::{ConvergeStep as Step, Plan};
use crate::voting::must_leave_first;
use crate::wish::{Wanted, Wish};

/// In one word, what the data directory holds.
pub fn data_state(wish: &Wish, seen: &Seen) -> DataState {
    let found = match &seen.data {
        Known::Unknown(_) => return DataState::Unknown,
        Known::Absent => return DataState::None,
        Known::Present(found) => found,
    };
    match &seen.record.data {
        DataOrigin::Copying | DataOrigin::Cloning { .. } => DataState::None,
        DataOrigin::Template if seen.record.accepted.is_none() => DataState::Template,
        _ if !found.complete => DataState::Unknown,
        // Data without an identity that nobody here has made are somebody's, too.
        _ => match recorded(wish, seen) {
            Some(recorded) if found.server_uuid.as_deref() == Some(recorded) => DataState::Own,
            None if wish.recorded_uuid.is_unknown() => DataState::Unknown,
            _ => DataState::Foreign,
        },
    }
}

/// The identity that this instance's data are to have, as its host or else etcd remembers.
fn recorded<'a>(wish: &'a Wish, seen: &'a Seen) -> Option<&'a str> {
    seen.record.server_uuid.as_deref().or(wish.recorded_uuid.present().map(String::as_str))
}

/// The data directory: made, seeded, set aside, or refused.
pub(crate) fn data(wish: &Wish, desired: &Desired, seen: &Seen) -> Option<Plan<Step>> {
    if let Some(replacing) = &seen.record.replacing {
        return Some(match not_to_be_replaced(wish, seen) {
            Some(Kept::Unknown(plan)) => plan,
            Some(Kept::Leads) => Plan::Do(Step::KeepData { why: replacing.why.clone() }),
            None => must_leave_first(wish).unwrap_or_else(|| set_aside(seen, &replacing.why)),
        });
    }
    // A host that has lost its record judges its data by what etcd remembers, and by nothing else.
    if let (DataOrigin::None, None, Known::Unknown(why)) =
        (&seen.record.data, &seen.record.server_uuid, &wish.recorded_uuid)
    {
        let message = format!("what data this instance had is asked of etcd: {why}");
        return Some(Plan::wait(WaitKind::Etcd, "status", message));
    }
    let found = match &seen.data {
        Known::Unknown(why) => {
            return Some(Plan::wait(WaitKind::Disk, "data", format!("the data directory: {why}")));
        }
        Known::Absent => return Some(missing(wish, desired, seen)),
        Known::Present(found) => found,
    };
    let uuid = found.server_uuid.as_deref();
    let recorded = recorded(wish, seen);
    let foreign = || Some(Plan::refuse(foreign_data(recorded.unwrap_or("none"), uuid.unwrap_or("unknown"))));
    match &seen.record.data {
        DataOrigin::Copying => Some(made_anew(wish, desired, seen, "half a copy")),
        // A server that starts moves what was cloned to its place.
        DataOrigin::Cloning { .. }
            if !found.complete && !seen.container_runs() && seen.process.is_absent() =>
        {
            Some(lost(wish, desired, seen, "incomplete"))
        }
        DataOrigin::Cloning { .. } => None,
        DataOrigin::Template | DataOrigin::Own if !found.complete => {
            Some(lost(wish, desired, seen, "incomplete"))
        }
        DataOrigin::Template => {
            let own = seen.record.server_uuid.as_deref();
            if own.is_some() && uuid.is_some() && uuid != own { foreign() } else { None }
        }
        DataOrigin::Own if uuid.is_none() || uuid == recorded => None,
        DataOrigin::None if found.complete && uuid.is_some() && uuid == recorded => {
            Some(Plan::Do(Step::AdoptData))
        }
        DataOrigin::Own | DataOrigin::None => foreign(),
    }
}

fn missing(wish: &Wish, desired: &Desired, seen: &Seen) -> Plan<Step> {
    let recorded = recorded(wish, seen);
    if let Some(retired) = seen.retired.iter().rev().find(|retired| retired.deleted)
        && seen.record.data == DataOrigin::None
        && (!wish.leads() || retired.server_uuid.as_deref() == recorded || recorded.is_none())
    {
        return Plan::Do(Step::TakeUp { name: retired.name.clone() });
    }
    match &seen.record.data {
        DataOrigin::Own => lost(wish, desired, seen, "missing"),
        DataOrigin::None if recorded.is_some() => lost(wish, desired, seen, "missing"),
        _ => made_anew(wish, desired, seen, "missing"),
    }
}

/// Nothing that was ever opened is here: from the template, unless this instance leads.
fn made_anew(wish: &Wish, desired: &Desired, seen: &Seen, how: &str) -> Plan<Step> {
    if not_to_be_replaced(wish, seen).is_some() {
        return lost(wish, desired, seen, how);
    }
    // A container that is left over is bound to a directory that was there before.
    match set_aside(seen, "its data directory is gone") {
        Plan::Do(Step::SetAside) => fresh(desired, seen),
        plan => plan,
    }
}

/// Why data are not replaced by anything.
pub(crate) enum Kept {
    /// Who leads is not known.
    Unknown(Plan<Step>),
    /// They are the leader's, or of the one that led last.
    Leads,
}

/// Why the data of this instance are not replaced now; none where another member leads, or nobody ever did.
pub(crate) fn not_to_be_replaced(wish: &Wish, seen: &Seen) -> Option<Kept> {
    if wish.grant.leadership.is_unknown() {
        let message = "who leads is not known until etcd answers: its data are left as they are";
        return Some(Kept::Unknown(Plan::wait(WaitKind::Etcd, "leadership", message)));
    }
    let record = wish.grant.record()?;
    let led_last = record.is_released()
        && record
            .last_lineage()
            .is_some_and(|last| recorded(wish, seen).is_some_and(|uuid| uuid == last.server_uuid));
    (wish.leads() || led_last).then_some(Kept::Leads)
}

/// Data that were there and are not any more.
fn lost(wish: &Wish, desired: &Desired, seen: &Seen, how: &str) -> Plan<Step> {
    match not_to_be_replaced(wish, seen) {
        Some(Kept::Unknown(plan)) => return plan,
        Some(Kept::Leads) => {}
        // The record of who leads is gone, and these were a master's: that is for a person.
        None if wish.grant.leadership.is_absent() && seen.record.led_under.is_some() => {}
        None => {
            let nothing_here = seen.record.data == DataOrigin::None && seen.data.is_absent();
            if nothing_here && seen.container.is_absent() && seen.process.is_absent() {
                return fresh(desired, seen);
            }
            let why = format!("the data directory was {how}");
            return Plan::Do(Step::Replace { why: Replacing { asked: false, why } });
        }
    }
    let led = wish.grant.record().and_then(|record| record.last_lineage()).map(|last| &last.server_uuid);
    let expected = recorded(wish, seen).or(led.map(String::as_str));
    let retired = seen.retired.iter().find(|r| expected.is_some() && r.server_uuid.as_deref() == expected);
    let place = match retired {
        Some(retired) => format!("they lie in retired/{}/{}", desired.instance, retired.name),
        None => "retired/ does not hold them either".to_owned(),
    };
    Plan::refuse(format!(
        "the data directory of the leading instance is {how}, expected server_uuid {}; {place}. Nothing is \
         initialised anew: put these data back, or let another member lead",
        expected.unwrap_or("unknown")
    ))
}

/// A reseed that a person asked for. It comes before everything that is found wrong with the data.
pub(crate) fn reseed(wish: &Wish, seen: &Seen) -> Option<Plan<Step>> {
    if !wish.reseed_asked || seen.record.replacing.is_some() {
        return None;
    }
    match not_to_be_replaced(wish, seen) {
        Some(Kept::Unknown(plan)) => return Some(plan),
        Some(Kept::Leads) => {
            return Some(Plan::refuse(
                "it leads: a reseed would throw the cluster's data away; switch over first",
            ));
        }
        None => {}
    }
    // I4: another live member holds what the cluster has; without a leadership a person has decided.
    let live = wish
        .enabled_others()
        .any(|member| member.data == Some(DataState::Own) && member.phase == Some(Phase::Running));
    if wish.grant.record().is_some() && !live {
        return Some(Plan::refuse(
            "no other live member holds the cluster's data: a reseed would leave it without any; its data are \
             left as they are",
        ));
    }
    let why = "a reseed was asked for".to_owned();
    Some(Plan::Do(Step::Replace { why: Replacing { asked: true, why } }))
}

/// The way to data set aside: the server stopped, the container removed (it is bound to the directory), then the data.
fn set_aside(seen: &Seen, why: &str) -> Plan<Step> {
    if seen.container_runs() || seen.process.present().is_some() {
        return stop(why.to_owned());
    }
    match (&seen.container, &seen.process) {
        (Known::Unknown(docker), _) => Plan::wait(WaitKind::Docker, "docker", format!("Docker: {docker}")),
        (_, Known::Unknown(why)) => {
            Plan::wait(WaitKind::Disk, "data", format!("who holds the data directory: {why}"))
        }
        (Known::Present(_), _) => Plan::Do(Step::RemoveContainer { why: why.to_owned() }),
        (Known::Absent, _) => Plan::Do(Step::SetAside),
    }
}

/// A data directory from the template.
fn fresh(desired: &Desired, seen: &Seen) -> Plan<Step> {
    if let Some(plan) = image(desired, seen) {
        return plan;
    }
    match &seen.template {
        TemplateSeen::Missing => Plan::Do(Step::MakeTemplate),
        TemplateSeen::Making => {
            Plan::wait(WaitKind::Template, &desired.image, "the image's template is being made")
        }
        TemplateSeen::Failed { reason } => {
            Plan::refuse(format!("no template of image {}: {reason}", desired.image))
        }
        TemplateSeen::Ready { .. } => Plan::Do(Step::CopyTemplate),
    }
}

/// Stopped, with everything kept.
pub(crate) fn disabled(wish: &Wish, desired: &Desired, seen: &Seen) -> Plan<Step> {
    let runs = seen.container_runs() || seen.process.present().is_some();
    if wish.enabled_others().next().is_some() {
        if wish.leads() {
            let message = if runs {
                "it leads and others are enabled: it goes on serving; switch over, or disable all members"
            } else {
                "it leads, others are enabled, and it does not run: enable it, or disable all members"
            };
            return Plan::wait(WaitKind::Person, &desired.cluster, message);
        }
        if runs && wish.grant.leadership.is_unknown() {
            let message = "who leads is not known until etcd answers: it goes on serving";
            return Plan::wait(WaitKind::Etcd, "leadership", message);
        }
    }
    if runs && let Some(plan) = must_leave_first(wish) {
        return plan;
    }
    if runs {
        return stop("its target says disabled".to_owned());
    }
    match (&seen.container, &seen.process) {
        (Known::Unknown(why), _) => Plan::wait(WaitKind::Docker, "docker", format!("Docker: {why}")),
        (_, Known::Unknown(why)) => {
            Plan::wait(WaitKind::Disk, "data", format!("who holds the data directory: {why}"))
        }
        _ => Plan::Converged,
    }
}

/// The target is gone: the container goes, the data stay.
pub(crate) fn deleted(wish: &Wish, seen: &Seen) -> Plan<Step> {
    // Without a cluster nothing was ever made that could lead.
    if let (Some(cluster), Known::Unknown(why)) = (&wish.grant.cluster, &wish.grant.leadership) {
        return Plan::wait(WaitKind::Etcd, "leadership", format!("who leads {cluster}: {why}"));
    }
    if wish.leads() && !wish.members.is_empty() {
        return Plan::wait(
            WaitKind::Person,
            &wish.instance,
            "its target is gone, but it leads and other members exist: it goes on serving; put the target back, or \
             switch over first",
        );
    }
    if wish.leads() && !wish.grant.steady() {
        let message = "its target is gone, but its leadership is being changed: it is taken away after that";
        return Plan::wait(WaitKind::Controller, &wish.instance, message);
    }
    if let Some(plan) = must_leave_first(wish) {
        return plan;
    }
    match (&seen.data, set_aside(seen, "its target is gone")) {
        (Known::Unknown(why), _) => {
            return Plan::wait(WaitKind::Disk, "data", format!("the data directory: {why}"));
        }
        (Known::Absent, Plan::Do(Step::SetAside)) => {}
        (_, plan) => return plan,
    }
    if wish.leads() {
        return Plan::Do(Step::Release);
    }
    Plan::Do(Step::Forget)
}

/// What becomes of an instance whose target is not there, or cannot be read and never could.
pub(crate) fn without_target(wish: &Wish, seen: &Seen) -> Plan<Step> {
    match &wish.wanted {
        Wanted::Unreadable { reason, .. } => Plan::refuse(format!("its target cannot be read: {reason}")),
        Wanted::Run(_) | Wanted::Deleted => deleted(wish, seen),
    }
}
