//! `cluster switchover`.

use schemadock_schema::InstanceName;
use schemadock_schema::operation::Memory;
use schemadock_schema::status::LAG_WELL;

use super::step::{Goal, best, forget_unfit, led_by};
use super::{Scene, Step};

/// How long it waits until it can begin, in milliseconds; what stands in its way longer is for a person.
const BEGIN_WITHIN: i64 = 60_000;
/// How long it waits for the former master to follow, in milliseconds: the change itself is done by then.
const FOLLOWS_WITHIN: i64 = 30_000;

pub(super) fn next<'a>(scene: &Scene<'a>, to: Option<&InstanceName>) -> Step<'a> {
    match switched(scene, to) {
        Ok(outcome) => Step::Done(outcome),
        Err(step) => step,
    }
}

fn switched<'a>(scene: &Scene<'a>, to: Option<&InstanceName>) -> Goal<'a, String> {
    let cluster = scene.own_cluster()?;
    let memory = &scene.operation.memory;
    let begun = memory.term.is_some();
    if scene.operation.cancel && !begun {
        return Err(Step::Cancelled("nothing was changed".to_owned()));
    }
    let began = memory.since.unwrap_or(scene.now);
    let Some(candidate) = &memory.candidate else {
        let named =
            to.cloned().or_else(|| best(&cluster, |member| !scene.view.cordons.contains(member.host)));
        let Some(candidate) = named else {
            return Err(Step::Failed(format!("no member of {} can lead now", cluster.name)));
        };
        let what = format!("{candidate} is to lead");
        let choose = |memory: &mut Memory| {
            memory.candidate = Some(candidate);
            memory.since = Some(scene.now);
        };
        return Err(scene.remember(choose, what));
    };
    if to.is_none() {
        forget_unfit(scene, &cluster, candidate)?;
    }
    if let Err(step) = led_by(scene, &cluster, candidate, true) {
        let late = !begun && scene.longer(began, BEGIN_WITHIN);
        return Err(match step {
            Step::Wait(why) if late => {
                Step::Failed(format!("it could not begin: {why}; nothing was changed"))
            }
            step => step.after(1),
        });
    }
    let term = cluster.meant.map_or(0, |record| record.term);
    let outcome = format!("{candidate} leads {} in term {term}", cluster.name);
    let before = memory.led.as_ref().filter(|before| *before != candidate);
    let Some(before) =
        before.and_then(|name| cluster.members.get(name)).filter(|before| !before.follows(LAG_WELL))
    else {
        return Ok(outcome);
    };
    let waited = scene.operation.waiting_on.as_ref().is_some_and(|w| scene.longer(w.since, FOLLOWS_WITHIN));
    if scene.operation.cancel || waited || !before.alive || before.target.disabled {
        return Ok(format!("{outcome}; {} does not follow yet", before.name));
    }
    Err(Step::Wait(format!("{} to follow {candidate}", before.name)))
}
