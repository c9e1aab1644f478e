//! `cluster switchover`.

use schemadock_schema::InstanceName;

use super::step::{Goal, best, led_by};
use super::{Scene, Step};

/// How long it waits until it can begin, in milliseconds; what stands in its way longer is for a person.
const BEGIN_WITHIN: i64 = 60_000;

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
    let Some(candidate) = &memory.candidate else {
        let named =
            to.cloned().or_else(|| best(&cluster, |member| !scene.view.cordons.contains(member.host)));
        let Some(candidate) = named else {
            return Err(Step::Failed(format!("no member of {} can lead now", cluster.name)));
        };
        let what = format!("{candidate} is to lead");
        let choose = |memory: &mut schemadock_schema::operation::Memory| memory.candidate = Some(candidate);
        return Err(scene.remember(choose, what));
    };
    if let Err(step) = led_by(scene, &cluster, candidate, true) {
        let late = !begun && scene.longer(scene.operation.requested_at, BEGIN_WITHIN);
        return Err(match step {
            Step::Wait(why) if late => {
                Step::Failed(format!("it could not begin: {why}; nothing was changed"))
            }
            step => step.after(1),
        });
    }
    let before = memory.led.as_ref().filter(|before| *before != candidate);
    if let Some(before) = before.and_then(|name| cluster.members.get(name))
        && before.alive
        && !before.target.disabled
        && !before.follows(5.0)
    {
        return Err(Step::Wait(format!("{} to follow {candidate}", before.name)));
    }
    let term = cluster.meant.map_or(0, |record| record.term);
    Ok(format!("{candidate} leads {} in term {term}", cluster.name))
}
