//! Changes of whole clusters, one safe step after another.
//!
//! *Expected flow*: an operation is asked for (`queued`), takes the locks of its clusters (`running`), and is advanced
//! whenever something it looks at has changed, until it is over and its locks are given back in the same transaction.
//!
//! *Guarantees*: where it stands is derived from targets, statuses and leadership; its document remembers only what they
//! do not tell ([`Memory`](schemadock_schema::operation::Memory)). Every write of a step is one transaction with the
//! operation's own document, under its locks: a controller that dies at any point is followed by one that goes on.

mod create;
mod drain;
mod movement;
mod preflight;
mod rolling;
mod scale;
mod step;
mod stopping;
mod switchover;

use schemadock_schema::keys::Keys;
use schemadock_schema::operation::{Lock, Memory, Operation, OperationState, Progress, Request, Waited};
use schemadock_schema::proposal::Proposal;
use schemadock_schema::{ClusterName, Timestamp};

pub use preflight::{foresee, preflight};
pub(crate) use step::Step;

use crate::changes::Changes;
use crate::cluster::Cluster;
use crate::since::{Bounds, Since};
use crate::view::FleetView;

/// What a step looks at.
#[derive(Clone, Copy)]
pub(crate) struct Scene<'a> {
    pub(crate) view: &'a FleetView,
    pub(crate) keys: &'a Keys,
    pub(crate) since: &'a Since,
    pub(crate) now: Timestamp,
    pub(crate) bounds: &'a Bounds,
    pub(crate) operation: &'a Operation,
}

impl<'a> Scene<'a> {
    pub(crate) fn changes(&self) -> Changes<'a> {
        Changes::new(self.view, self.keys)
    }

    pub(crate) fn memory(&self) -> Memory {
        self.operation.memory.clone()
    }
}

/// What is to be written for an operation, and what people read of it.
pub struct Advanced {
    /// The transaction.
    pub proposal: Proposal,
    /// One sentence.
    pub what: String,
    /// Whether it is worth an event.
    pub told: bool,
}

/// The next write for one operation; none where it waits for what it said that it waits for.
pub fn advance(
    view: &FleetView,
    keys: &Keys,
    operation: &Operation,
    since: &Since,
    now: Timestamp,
    bounds: &Bounds,
) -> Option<Advanced> {
    let scene = Scene { view, keys, since, now, bounds, operation };
    match operation.state {
        OperationState::Queued => begin(&scene),
        OperationState::Running => running(&scene),
        _ => None,
    }
}

fn running(scene: &Scene<'_>) -> Option<Advanced> {
    for cluster in scene.operation.locks() {
        match scene.view.locks.get(cluster) {
            Some(id) if *id == scene.operation.id => {}
            // Parts of the view are not in step: the lock comes.
            None if scene.view.revision_of(&scene.keys.lock(cluster)).is_none() => return None,
            _ => {
                let outcome = format!("the lock of {cluster} was taken from it; what was done stays");
                return Some(end(scene, OperationState::Failed, &outcome));
            }
        }
    }
    for cluster in touched(scene.view, scene.operation) {
        let seen = Cluster::of(scene.view, cluster);
        if let Some(key) = seen.unreadable {
            return waits(scene, format!("{key} to be readable"));
        }
        if seen.policy.paused && !scene.operation.cancel && seen.record.is_none_or(|_| seen.steady()) {
            return waits(scene, format!("{cluster}, which is paused, to be resumed"));
        }
    }
    take(scene, next(scene))
}

fn begin(scene: &Scene<'_>) -> Option<Advanced> {
    let operation = scene.operation;
    if operation.cancel {
        return Some(ended(scene, scene.changes(), OperationState::Cancelled, "cancelled before it began"));
    }
    let other = operation.locks().iter().find_map(|cluster| Some((cluster, holder(scene, cluster)?)));
    if let Some((cluster, other)) = other {
        return waits(scene, format!("operation {other}, which holds {cluster}"));
    }
    let refusals = preflight(scene.view, scene.keys, &operation.request, &operation.clusters);
    if !refusals.is_empty() {
        let reasons: Vec<String> = refusals.iter().map(ToString::to_string).collect();
        let outcome = format!("refused: {}", reasons.join("; "));
        return Some(ended(scene, scene.changes(), OperationState::Failed, &outcome));
    }
    let mut changes = scene.changes();
    for cluster in operation.locks() {
        changes.put(scene.keys.lock(cluster), &Lock { operation: operation.id.clone() });
    }
    let mut after = operation.clone();
    after.state = OperationState::Running;
    after.plan = foresee(scene.view, scene.keys, &operation.request, &operation.clusters);
    after.progress = Progress { done: 0, total: after.plan.len() as u32 };
    after.waiting_on = None;
    let what = format!("{} began, asked by {}", operation.request.kind(), operation.requested_by);
    Some(written(scene, changes, after, what))
}

fn next<'a>(scene: &Scene<'a>) -> Step<'a> {
    match &scene.operation.request {
        Request::Create(create) => create::next(scene, create),
        Request::Scale { replicas, hosts } => scale::next(scene, *replicas, hosts),
        Request::Switchover { to } => switchover::next(scene, to.as_ref()),
        Request::Stop => stopping::stop(scene),
        Request::Start => stopping::start(scene),
        Request::Delete => stopping::delete(scene),
        Request::Upgrade { image, soak } => rolling::upgrade(scene, image, *soak),
        Request::Set { mysql } => rolling::set(scene, mysql),
        Request::Resize { size } => rolling::resize(scene, size),
        Request::Move { instance, to } => movement::next(scene, instance, to),
        Request::Drain { host, evict } => drain::next(scene, host, *evict),
    }
}

fn take<'a>(scene: &Scene<'a>, step: Step<'a>) -> Option<Advanced> {
    match step {
        Step::Write { mut changes, memory, what, done } => {
            hold(scene, &mut changes);
            let mut after = scene.operation.clone();
            after.memory = *memory;
            after.step = Some(what.clone());
            after.waiting_on = None;
            after.progress.done = done.unwrap_or(after.progress.done).min(after.progress.total);
            Some(written(scene, *changes, after, what))
        }
        Step::Wait(message) => waits(scene, message),
        Step::Done(outcome) => Some(end(scene, OperationState::Done, &outcome)),
        Step::Undone(outcome) => Some(end(scene, OperationState::Undone, &outcome)),
        Step::Failed(outcome) => Some(end(scene, OperationState::Failed, &outcome)),
        Step::Cancelled(outcome) => Some(end(scene, OperationState::Cancelled, &outcome)),
    }
}

/// Nothing is written for an operation whose locks another one has.
fn hold(scene: &Scene<'_>, changes: &mut Changes<'_>) {
    for cluster in touched(scene.view, scene.operation) {
        changes.judged_by(scene.keys.lock(cluster));
    }
}

fn end(scene: &Scene<'_>, state: OperationState, outcome: &str) -> Advanced {
    let mut changes = scene.changes();
    hold(scene, &mut changes);
    for cluster in held(scene.view, scene.operation) {
        changes.delete(scene.keys.lock(cluster));
    }
    ended(scene, changes, state, outcome)
}

/// The operation that holds a cluster; a lock that cannot be read is somebody's.
fn holder<'a>(scene: &Scene<'a>, cluster: &ClusterName) -> Option<&'a str> {
    scene.view.revision_of(&scene.keys.lock(cluster))?;
    Some(scene.view.locks.get(cluster).map_or("that cannot be read", String::as_str))
}

/// The clusters that an operation holds.
fn held<'a>(view: &'a FleetView, operation: &'a Operation) -> impl Iterator<Item = &'a ClusterName> {
    view.locks.iter().filter(|(_, holder)| **holder == operation.id).map(|(cluster, _)| cluster)
}

/// The clusters that an operation touches now: those it holds, or is to hold from its beginning.
pub(crate) fn touched<'a>(
    view: &'a FleetView,
    operation: &'a Operation,
) -> impl Iterator<Item = &'a ClusterName> {
    operation.locks().iter().chain(held(view, operation))
}

fn ended(scene: &Scene<'_>, changes: Changes<'_>, state: OperationState, outcome: &str) -> Advanced {
    let mut after = scene.operation.clone();
    after.state = state;
    after.outcome = Some(outcome.to_owned());
    after.waiting_on = None;
    after.memory.out.clear();
    if state == OperationState::Done {
        after.progress.done = after.progress.total;
    }
    let what = format!("{} {state}: {outcome}", scene.operation.request.kind());
    written(scene, changes, after, what)
}

/// Says once what is waited for; the operation's document is not written again while that is the same.
fn waits(scene: &Scene<'_>, message: String) -> Option<Advanced> {
    let told = scene.operation.waiting_on.as_ref();
    // What is counted or measured in it is no news.
    let plain = |text: &str| text.replace(|c: char| c.is_ascii_digit(), "");
    if told.is_some_and(|waited| plain(&waited.message) == plain(&message)) {
        return None;
    }
    let mut after = scene.operation.clone();
    after.waiting_on = Some(Waited { message: message.clone(), since: scene.now });
    let mut advanced = written(scene, scene.changes(), after, format!("waits for {message}"));
    advanced.told = false;
    Some(advanced)
}

fn written(scene: &Scene<'_>, mut changes: Changes<'_>, mut after: Operation, what: String) -> Advanced {
    after.updated_at = scene.now;
    changes.put(scene.keys.operation(&after.id), &after);
    Advanced { proposal: changes.proposal(), what, told: true }
}
