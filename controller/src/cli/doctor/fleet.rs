//! What agents report, and what does not fit together.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use schemadock_schema::request::RequestKind;
use schemadock_schema::size::format_bytes;
use schemadock_schema::status::{Phase, StoreState, WaitKind};
use schemadock_schema::{HostName, InstanceName};

use super::{Finding, Level};
use crate::cli::fleet::ask::ask;
use crate::cli::fleet::opinion;
use crate::cli::seen::Seen;
use crate::cli::{Context, Failure};

/// Clocks that differ by more than this make times hard to compare.
const SKEW_SECONDS: f64 = 2.0;
/// Clocks that differ by more than this are broken.
const WRONG_SECONDS: f64 = 60.0;

/// How long agents may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks each living agent for a trifle: the answer carries its clock.
pub(super) async fn clocks(ctx: &Context, seen: &Seen) -> Result<Vec<Finding>, Failure> {
    let of = seen.alive.iter().filter(|host| seen.hosts.contains_key(*host)).map(|host| {
        let instance = seen.statuses.values().find(|status| status.host == *host);
        (host.clone(), instance.map(|status| status.name.clone()))
    });
    let of: BTreeMap<HostName, Option<InstanceName>> = of.collect();
    if of.is_empty() {
        return Ok(Vec::new());
    }
    let store = ctx.store().await?;
    let answers = ask(ctx, store.as_ref(), RequestKind::Refresh, &of, PATIENCE).await?;
    let mut findings = Vec::new();
    for (host, answer) in &answers.by {
        let subject = format!("host {host}");
        let Some(answer) = answer else {
            findings.push(Finding::mend(
                subject,
                format!("its agent has not answered within {} s", PATIENCE.as_secs()),
                "an answer at once",
                "look at its log; it may hang on Docker or on its disk",
            ));
            continue;
        };
        let ahead = (answer.time.as_millisecond() - answer.received.as_millisecond()) as f64 / 1000.0;
        let behind = (answers.asked.as_millisecond() - answer.time.as_millisecond()) as f64 / 1000.0;
        findings.extend(clock(subject, ahead, behind));
    }
    if findings.is_empty() {
        findings
            .push(Finding::ok("clocks", format!("{} hosts answer and agree with this machine", of.len())));
    }
    Ok(findings)
}

/// A clock that is ahead of, or behind, the time between question and answer.
fn clock(subject: String, ahead: f64, behind: f64) -> Option<Finding> {
    let off = ahead.max(behind);
    if off <= SKEW_SECONDS {
        return None;
    }
    let level = if off > WRONG_SECONDS { Level::Mend } else { Level::Advice };
    let word = if ahead > behind { "ahead of" } else { "behind" };
    let found = format!("its clock is {off:.0} s {word} this machine's");
    let hint = "run an NTP client (chrony, systemd-timesyncd) on both";
    Some(Finding::of(level, subject, found, "clocks that differ by less than 2 s", hint))
}

/// All else that etcd knows.
pub(super) fn look(seen: &Seen) -> Vec<Finding> {
    let mut findings = Vec::new();
    if seen.fleet_created.is_none() {
        findings.push(Finding::advice(
            "fleet",
            "etcd holds no fleet",
            "one",
            "the first `schemadock apply` makes it; if this etcd has lost one: `schemadock fleet rebuild`",
        ));
    }
    for (key, why) in &seen.complaints {
        findings.push(Finding::mend(
            key.as_str(),
            format!("cannot be read: {why}"),
            "a document as the contract has it",
            "write it anew, or delete the key",
        ));
    }
    hosts(seen, &mut findings);
    ports(seen, &mut findings);
    instances(seen, &mut findings);
    findings
}

fn hosts(seen: &Seen, findings: &mut Vec<Finding>) {
    let wanted: BTreeSet<&HostName> = seen.targets.values().flatten().map(|target| &target.host).collect();
    for (name, host) in &seen.hosts {
        let subject = format!("host {name}");
        let before = findings.len();
        if !seen.alive.contains(name) {
            let found =
                format!("its agent has been gone since {} or later", host.updated_at.strftime("%F %T UTC"));
            findings.push(if wanted.contains(name) {
                Finding::mend(
                    &subject,
                    found,
                    "an agent that lives",
                    "start schemadock-agent there (its log says why it ended)",
                )
            } else {
                Finding::advice(
                    &subject,
                    found,
                    "",
                    &format!("gone for good? `schemadock host forget {name}`"),
                )
            });
        }
        if host.store.state != StoreState::Ok {
            findings.push(Finding::mend(
                &subject,
                opinion(&host.store),
                "an agent that believes this etcd",
                "`schemadock fleet status` says what to do",
            ));
        }
        for warning in &host.warnings {
            // Databases run on without it, until the daemon is restarted.
            let make = if warning.kind == "live-restore" { Finding::advice } else { Finding::mend };
            findings.push(make(subject.clone(), warning.message.clone(), "", &warning.hint));
        }
        if host.agent_version != env!("CARGO_PKG_VERSION") {
            let found = format!("its agent is version {}", host.agent_version);
            findings.push(Finding::advice(
                &subject,
                found,
                concat!("version ", env!("CARGO_PKG_VERSION"), ", as this program"),
                "upgrade the older one",
            ));
        }
        if host.allocated.memory > host.capacity.memory {
            let found =
                format!("its instances may use {} of memory together", format_bytes(host.allocated.memory));
            let expected = format!("at most the {} that it offers", format_bytes(host.capacity.memory));
            findings.push(Finding::advice(&subject, found, &expected, "smaller sizes, or fewer instances"));
        }
        if findings.len() == before {
            let disk = host
                .free_disk
                .map_or("disk unknown".to_owned(), |free| format!("{} of disk free", format_bytes(free)));
            let docker = host.docker_version.as_deref().unwrap_or("unknown");
            findings.push(Finding::ok(subject, format!("agent lives, Docker {docker}, {disk}")));
        }
    }
    for name in wanted.into_iter().filter(|name| !seen.hosts.contains_key(*name)) {
        findings.push(Finding::mend(
            format!("host {name}"),
            "a target names it, but no agent of it has registered",
            "",
            "start schemadock-agent there, or correct the target (is the name right?)",
        ));
    }
}

fn ports(seen: &Seen, findings: &mut Vec<Finding>) {
    let mut taken: BTreeMap<(&HostName, u16), Vec<&InstanceName>> = BTreeMap::new();
    for (name, stored) in
        seen.targets.iter().flat_map(|(name, all)| all.iter().map(move |stored| (name, stored)))
    {
        if let Ok(target) = &stored.target {
            taken.entry((&stored.host, target.port)).or_default().push(name);
        }
    }
    for ((host, port), names) in taken.into_iter().filter(|(_, names)| names.len() > 1) {
        let names: Vec<&str> = names.into_iter().map(InstanceName::as_str).collect();
        let found = format!("{} all want port {port}", names.join(" and "));
        findings.push(Finding::mend(
            format!("host {host}"),
            found,
            "one instance for each port",
            "`schemadock edit` one of them",
        ));
    }
}

/// What an instance waits for that only a person can give.
const FOR_A_PERSON: [WaitKind; 7] = [
    WaitKind::Image,
    WaitKind::Port,
    WaitKind::Disk,
    WaitKind::Person,
    WaitKind::Target,
    WaitKind::Docker,
    WaitKind::Host,
];

fn instances(seen: &Seen, findings: &mut Vec<Finding>) {
    let mut converged = 0;
    for status in seen.statuses.values().filter(|status| seen.alive.contains(&status.host)) {
        let stuck = status.waiting_on.as_ref().filter(|on| FOR_A_PERSON.contains(&on.kind));
        let message =
            if status.message.is_empty() { status.phase.to_string() } else { status.message.clone() };
        if status.phase == Phase::Failed || stuck.is_some() {
            let hint = format!("`schemadock logs {}` may tell more", status.name);
            findings.push(Finding::mend(status.name.as_str(), message, "", &hint));
        } else if let Some(foreign) = status.foreign.as_ref().filter(|foreign| !foreign.harmless) {
            let found = format!("it has transactions that its master lacks: {:?}", foreign.gtids.to_string());
            let hint = format!("save what you need of them, then `schemadock reseed {}`", status.name);
            findings.push(Finding::mend(status.name.as_str(), found, "none", &hint));
        } else if !status.restart_pending.is_empty() {
            let names: Vec<&str> = status.restart_pending.iter().map(|one| one.variable.as_str()).collect();
            let found = format!("a restart would bring into force: {}", names.join(", "));
            findings.push(Finding::advice(
                status.name.as_str(),
                found,
                "",
                &format!("`schemadock restart {}`", status.name),
            ));
        }
        converged += usize::from(status.converged);
    }
    if !seen.targets.is_empty() {
        findings.push(Finding::ok(
            "instances",
            format!("{converged} of {} are as they are to be", seen.targets.len()),
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_are_judged_by_how_far_they_are_off() {
        let word = |ahead, behind| {
            clock("h".to_owned(), ahead, behind).map(|finding| (finding.level, finding.found))
        };
        assert_eq!(word(-0.1, -0.2), None);
        assert_eq!(
            word(5.0, -5.1),
            Some((Level::Advice, "its clock is 5 s ahead of this machine's".to_owned()))
        );
        assert_eq!(
            word(-90.0, 89.9),
            Some((Level::Mend, "its clock is 90 s behind this machine's".to_owned()))
        );
    }
}
