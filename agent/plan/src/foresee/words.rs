//! Steps for people, one line each.

use std::collections::BTreeSet;

use schemadock_schema::size::format_bytes;

use super::Step;
use crate::step::{ConvergeStep as C, StandingStep as S};
use crate::wish::Wish;

/// One step.
pub(super) fn line(step: &Step, wish: &Wish) -> String {
    match step {
        Step::Converge(step) => converge(step, wish),
        Step::Standing(step) => standing(step, wish),
    }
}

fn with_found(text: String, found: Option<&str>) -> String {
    match found {
        Some(found) => format!("{text} ({found})"),
        None => text,
    }
}

fn converge(step: &C, wish: &Wish) -> String {
    let desired = wish.desired();
    let image = desired.map(|desired| desired.image.as_str()).unwrap_or_default();
    match step {
        C::TakeServerId => "take a server id".to_owned(),
        C::MakeSecrets => "make the cluster's credentials".to_owned(),
        C::PullImage => format!("fetch the image {image}, unless it is there"),
        C::MakeTemplate => "make the image's template, unless it is there".to_owned(),
        C::AdoptData => "recognise its data by their server_uuid".to_owned(),
        C::CopyTemplate => "make a data directory from the template".to_owned(),
        C::TakeUp { .. } => "take its retired data up again".to_owned(),
        C::KeepData { why } => format!("keep its data, which were to be made anew ({why}): it leads"),
        C::Replace { why } => format!("note that its data are made anew: {}", why.why),
        C::SetAside => "set its data aside in retired/".to_owned(),
        C::Validate { .. } => format!("let mysqld of {image} check the variables"),
        C::WriteConfig { .. } => "write the server's configuration".to_owned(),
        C::RestoreConfig { error } => format!("put the last working configuration back ({error})"),
        C::WriteInit => "write the statements of the first start".to_owned(),
        C::CreateContainer => "make the container".to_owned(),
        C::StartContainer { found } => with_found("start the server".to_owned(), found.as_deref()),
        C::Unpause => "thaw the container".to_owned(),
        C::Stop { why } => format!("close and stop the server: {why}"),
        C::EndLost => "end the server that Docker has lost".to_owned(),
        C::RemoveContainer { why } => format!("remove the container: {why}"),
        C::KeepIdentity { .. } => "keep the new server_uuid".to_owned(),
        C::KeepGoodConfig => "keep the configuration as the one that works".to_owned(),
        C::SetVariable { name, found: Some(found), .. } => format!("set {name} back ({found})"),
        C::SetVariable { name, value, .. } => {
            let value = value.as_deref().unwrap_or("its default");
            format!("set {name} to {value}, live where the server can, else at its next restart")
        }
        C::SetLimits => {
            let limits = desired.map(|desired| &desired.limits);
            let memory = limits.map(|limits| format_bytes(limits.memory)).unwrap_or_default();
            format!("limit the container to {memory} and {:.2} cores", limits.map_or(0.0, |l| l.cpus))
        }
        C::Seed { donor, .. } => format!("seed it by CLONE from {donor}"),
        C::FinishSeed => "note that its data are complete".to_owned(),
        C::Release => "release the leadership: the cluster is empty".to_owned(),
        C::Forget => "forget the instance, and remove its status".to_owned(),
    }
}

fn standing(step: &S, wish: &Wish) -> String {
    let cluster = wish.grant.cluster.as_ref().map(ToString::to_string).unwrap_or_default();
    match step {
        S::AcceptTerm { term } => format!("accept term {term} of {cluster}"),
        S::Claim => format!("claim the leadership of {cluster}"),
        S::Open { found, .. } => with_found("open for writes".to_owned(), found.as_deref()),
        S::Close { found } => format!("close for writes ({found})"),
        S::CloseToStop => "close, so that it can be stopped".to_owned(),
        S::Attach { host, port, found, .. } => with_found(format!("follow {host}:{port}"), found.as_deref()),
        S::Repoint { host, port, found, .. } => format!("follow {host}:{port} instead ({found})"),
        S::StartReceiver { found, .. } => format!("start the receiver ({found})"),
        S::StartApplier { found } => format!("start the applier ({found})"),
        S::Detach { found } => format!("stop receiving, take no clients ({found})"),
        S::ForgetSource { found } => format!("forget its source ({found})"),
        S::LiftOffline => "take clients".to_owned(),
        S::EnsureAccounts { found } => with_found("make accounts".to_owned(), found.as_deref()),
        S::JudgeForeign => "look into transactions that its master lacks".to_owned(),
        S::SettleForeign => "settle harmless transactions on the master".to_owned(),
        S::SemiSyncOff { found } => format!("switch semi-sync off ({found})"),
        S::Acknowledge { on: true, found, .. } => with_found("acknowledge".to_owned(), found.as_deref()),
        S::Acknowledge { on: false, found, .. } => {
            with_found("acknowledge no more".to_owned(), found.as_deref())
        }
        S::LockReceivers { lock, unlock } => {
            let told = |what: &str, users: &[String]| match users {
                [] => None,
                users => Some(format!("{what} {}", users.join(", "))),
            };
            [told("lock", lock), told("unlock", unlock)].into_iter().flatten().collect::<Vec<_>>().join(", ")
        }
        S::EndStrangers { users } => format!("end connections of {}, which acknowledge", users.join(", ")),
        S::EndReceivers { users } => format!("end connections of {}", users.join(", ")),
        S::RaiseAcks { acks, found } => {
            with_found(format!("let commits wait for {acks} acknowledgements"), found.as_deref())
        }
        S::LowerAcks { acks } => format!("let commits wait for {acks} acknowledgements only"),
        S::Nudge => "commit a marker, since commits wait although enough voters are connected".to_owned(),
        S::Prepare { term } => format!("prepare the handover of {cluster} in term {term}"),
        S::FollowCandidate { host, port } => format!("receive from {host}:{port}, which is to lead"),
        S::MoveBehind { term } => format!("stop receiving, and vote in term {term}"),
        S::Freeze { .. } => "take no writes any more, and publish what was executed".to_owned(),
        S::PublishFinal { .. } => "publish what was executed".to_owned(),
        S::TakeBack { term, why } => format!("take the leadership back in term {term} ({why})"),
        S::TakeOver { term, .. } => format!("take the leadership over in term {term}, and open for writes"),
        S::ScheduleEvents { on, .. } => format!("let scheduled events {}", if *on { "run" } else { "rest" }),
        S::SetFrozen { flags, .. } => {
            let told = |what: &str, schemas: &BTreeSet<String>| {
                let names = schemas.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
                (!schemas.is_empty()).then(|| format!("{what} {names}"))
            };
            let both = [told("freeze", &flags.freeze), told("thaw", &flags.thaw)];
            format!("{} (READ ONLY)", both.into_iter().flatten().collect::<Vec<_>>().join(", "))
        }
        S::StepDown => "end all clients".to_owned(),
        S::TakeEvents { from, .. } => format!("turn the scheduled events on that ran on {from}"),
        S::BeginBarrier { .. } => "look whether the voters have what was committed before".to_owned(),
    }
}
