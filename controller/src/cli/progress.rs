//! Progress of instances on their way: a line each that changes on a terminal, else one for each change.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use schemadock_schema::InstanceName;
use schemadock_schema::size::format_bytes;

use super::view::InstanceRow;

/// Shows how instances come along, on stderr.
pub struct Progress {
    bars: Option<MultiProgress>,
    lines: BTreeMap<InstanceName, ProgressBar>,
    said: BTreeMap<InstanceName, String>,
    silent: bool,
}

impl Progress {
    /// For people, or silent.
    pub fn new(silent: bool) -> Self {
        let bars = (!silent && std::io::stderr().is_terminal()).then(MultiProgress::new);
        Self { bars, lines: BTreeMap::new(), said: BTreeMap::new(), silent }
    }

    /// Shows the present state.
    pub fn show<'a>(&mut self, rows: impl Iterator<Item = &'a InstanceRow<'a>>) {
        for row in rows.filter(|_| !self.silent) {
            match &self.bars {
                Some(bars) => {
                    let line = self.lines.entry(row.name.clone()).or_insert_with(|| line(bars, row.name));
                    line.set_message(format!("{}{}", state(row), seed(row)));
                    if row.converged && !line.is_finished() {
                        line.finish();
                    } else if !row.converged && line.is_finished() {
                        line.reset();
                        line.enable_steady_tick(TICK);
                    }
                }
                None => {
                    let text = state(row);
                    if self.said.get(row.name) != Some(&text) {
                        anstream::eprintln!("{}: {text}", row.name);
                        self.said.insert(row.name.clone(), text);
                    }
                }
            }
        }
    }

    /// Leaves the last state standing.
    pub fn end(&mut self) {
        for line in self.lines.values().filter(|line| !line.is_finished()) {
            line.abandon();
        }
    }
}

const TICK: Duration = Duration::from_millis(100);

fn line(bars: &MultiProgress, name: &InstanceName) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{spinner} {prefix}  {wide_msg}").expect("the template is sound");
    let line = bars.add(ProgressBar::new_spinner());
    line.set_style(style.tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏✓"));
    line.set_prefix(name.to_string());
    line.enable_steady_tick(TICK);
    line
}

fn state(row: &InstanceRow<'_>) -> String {
    let role = row.role().map(|role| format!("{role} ")).unwrap_or_default();
    let missing = row.missing();
    let end = if row.converged { " as it is to be".to_owned() } else { String::new() };
    match missing.is_empty() {
        true => format!("{role}{}{end}", row.phase()),
        false => format!("{role}{}: {missing}", row.phase()),
    }
}

fn seed(row: &InstanceRow<'_>) -> String {
    let Some(seed) = row.status.and_then(|status| status.seed.as_ref()) else { return String::new() };
    let mut words = vec![format!("  from {}", seed.donor)];
    words.extend(seed.percent.map(|percent| format!("{percent:.0} %")));
    if let (Some(bytes), Some(total)) = (seed.bytes, seed.bytes_total) {
        words.push(format!("{} of {}", format_bytes(bytes), format_bytes(total)));
    }
    words.extend(seed.eta_seconds.map(|eta| format!("{eta} s left")));
    words.join(", ")
}
