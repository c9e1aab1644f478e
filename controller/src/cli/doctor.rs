//! `doctor`: looks for what a person should mend.

mod controllers;
mod docker;
mod etcd;
mod fleet;

use schemadock_store::Selector;
use serde::Serialize;
use serde_json::json;

use super::context::OutputArg;
use super::{Context, Failure, seen};

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// For people or for scripts.
    #[command(flatten)]
    pub output: OutputArg,
}

impl Args {
    /// Whether scripts read the output.
    pub(super) fn json(&self) -> bool {
        self.output.json()
    }
}

/// How much it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    /// As it should be.
    Ok,
    /// It would be better otherwise.
    Advice,
    /// It must be mended.
    Mend,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    level: Level,
    /// Where: `etcd`, `docker`, `host NAME`, an instance.
    subject: String,
    found: String,
    expected: Option<String>,
    hint: Option<String>,
}

impl Finding {
    fn ok(subject: impl Into<String>, found: impl Into<String>) -> Finding {
        Finding { level: Level::Ok, subject: subject.into(), found: found.into(), expected: None, hint: None }
    }

    fn of(
        level: Level,
        subject: impl Into<String>,
        found: impl Into<String>,
        expected: &str,
        hint: &str,
    ) -> Finding {
        Finding {
            level,
            subject: subject.into(),
            found: found.into(),
            expected: (!expected.is_empty()).then(|| expected.to_owned()),
            hint: (!hint.is_empty()).then(|| hint.to_owned()),
        }
    }

    fn advice(subject: impl Into<String>, found: impl Into<String>, expected: &str, hint: &str) -> Finding {
        Finding::of(Level::Advice, subject, found, expected, hint)
    }

    fn mend(subject: impl Into<String>, found: impl Into<String>, expected: &str, hint: &str) -> Finding {
        Finding::of(Level::Mend, subject, found, expected, hint)
    }
}

/// Runs the command.
///
/// # Errors
/// Exit code 1 when something must be mended, 3 when etcd cannot be reached.
pub async fn run(ctx: &Context, args: Args) -> Result<(), Failure> {
    let mut findings = etcd::look(ctx).await;
    let copies = vec![Selector::Prefix(ctx.keys.controllers())];
    let reached = match seen::look(ctx, copies).await {
        Ok(seen) => {
            findings.extend(fleet::look(&seen));
            findings.extend(controllers::look(&ctx.keys, &seen));
            findings.extend(fleet::clocks(ctx, &seen).await?);
            findings.extend(docker::look(Some(&seen)).await);
            true
        }
        // Why was said already, member by member.
        Err(_) => {
            findings.extend(docker::look(None).await);
            false
        }
    };
    show(&findings, args.json());
    let to_mend = findings.iter().filter(|finding| finding.level == Level::Mend).count();
    match (reached, to_mend) {
        (false, _) => Err(Failure::Told(3)),
        (true, 0) => Ok(()),
        (true, _) => Err(Failure::Told(1)),
    }
}

fn show(findings: &[Finding], as_json: bool) {
    if as_json {
        anstream::println!("{:#}", json!(findings));
        return;
    }
    let width = findings.iter().map(|finding| finding.subject.len()).max().unwrap_or(0);
    for finding in findings {
        let (word, style) = match finding.level {
            Level::Ok => ("ok    ", anstyle::AnsiColor::Green.on_default()),
            Level::Advice => ("advice", anstyle::AnsiColor::Yellow.on_default()),
            Level::Mend => ("MEND  ", anstyle::AnsiColor::Red.on_default().bold()),
        };
        anstream::println!("{style}{word}{style:#}  {:<width$}  {}", finding.subject, finding.found);
        let more = [("expected", &finding.expected), ("to do", &finding.hint)];
        for (label, text) in more.into_iter().filter_map(|(label, text)| Some((label, text.as_ref()?))) {
            anstream::println!("{:8}{:<width$}  {label}: {text}", "", "");
        }
    }
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    match (count(Level::Mend), count(Level::Advice)) {
        (0, 0) => anstream::println!("nothing to mend"),
        (0, advice) => anstream::println!("nothing must be mended; {advice} to think about"),
        (mend, advice) => anstream::println!("{mend} to mend, {advice} to think about"),
    }
}
