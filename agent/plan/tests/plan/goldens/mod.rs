//! What the plans do in every situation that has a name, as people would read it.

mod documents;
mod faults;
mod founding;

use std::fmt::Write as _;

use schemadock_agent_plan::foresee::End;
use schemadock_agent_plan::observed::{ChannelSeen, ContainerSeen, ContainerState, DataSeen, Seen};
use schemadock_agent_plan::step::Plan;
use schemadock_schema::known::Known;

use crate::fixture::*;

fn plan_text<S: std::fmt::Debug>(plan: &Plan<S>) -> String {
    match plan {
        Plan::Converged => "converged".to_owned(),
        Plan::Wait(waiting) => format!("waits for {} {}: {}", waiting.kind, waiting.name, waiting.message),
        Plan::Refuse(reason) => format!("refuses: {reason}"),
        Plan::Do(step) => format!("{step:?}"),
    }
}

/// The steps of some cases, and how they end.
pub(super) fn show(cases: Vec<(&str, Case)>) -> String {
    let mut text = String::new();
    for (title, case) in cases {
        let _ = writeln!(text, "# {title}");
        let course = case.course();
        for line in &course.lines {
            let _ = writeln!(text, "  {line}");
        }
        let _ = match &course.end {
            End::Rest { standing: Plan::Converged, converge: Plan::Converged } => {
                writeln!(text, "  = converged")
            }
            End::Rest { standing, converge } => {
                writeln!(text, "  = standing {}\n  = converge {}", plan_text(standing), plan_text(converge))
            }
            end => writeln!(text, "  = {end:?}"),
        };
    }
    text
}

pub(super) fn container(seen: &mut Seen) -> &mut ContainerSeen {
    match &mut seen.container {
        Known::Present(container) => container,
        _ => panic!("no container"),
    }
}

pub(super) fn channel(seen: &mut Seen) -> &mut ChannelSeen {
    server(seen).channel.as_mut().expect("a channel")
}

/// The server has ended, and Docker says so.
pub(super) fn ended(seen: &mut Seen) {
    container(seen).state = ContainerState::Exited { code: 137, out_of_memory: false };
    (seen.process, seen.server) = (Known::Absent, Known::Absent);
    (seen.accounts, seen.differing) = (unknown(), unknown());
}

pub(super) fn no_data(seen: &mut Seen) {
    seen.data = Known::Absent;
}

pub(super) fn data(uuid: &str, complete: bool) -> Known<DataSeen> {
    Known::Present(DataSeen { server_uuid: Some(uuid.to_owned()), complete })
}
