//! What there is to tell of an operation under way, line by line. Pure.

use schemadock_schema::Timestamp;
use schemadock_schema::operation::{Operation, OperationState, Waited};

/// A wait that lasts is told again after so many seconds, and then each time after twice as many.
const AGAIN: i64 = 10;

/// What was told already.
#[derive(Debug, Default)]
pub struct Telling {
    state: Option<OperationState>,
    step: Option<String>,
    waits: Option<String>,
    again: i64,
    cancel: bool,
    nobody: bool,
}

impl Telling {
    /// The lines that are news; `office` says whether a controller is in office.
    pub fn news(&mut self, operation: &Operation, office: bool, now: Timestamp) -> Vec<String> {
        let mut lines = Vec::new();
        if self.nobody == office && !operation.state.is_over() {
            self.nobody = !office;
            lines.push(if office { IN_OFFICE.to_owned() } else { NOBODY.to_owned() });
        }
        if operation.cancel && !self.cancel && !operation.state.is_over() {
            self.cancel = true;
            lines.push("its end was asked for; what can be undone is undone".to_owned());
        }
        if self.state != Some(operation.state) {
            self.state = Some(operation.state);
            if operation.state == OperationState::Queued {
                lines.push("queued".to_owned());
            }
        }
        if operation.step != self.step {
            self.step.clone_from(&operation.step);
            lines.extend(operation.step.as_ref().map(|step| format!("{}{step}", count(operation))));
        }
        let waited = operation.waiting_on.as_ref().filter(|_| !operation.state.is_over());
        lines.extend(self.wait(waited, now));
        lines
    }

    fn wait(&mut self, waited: Option<&Waited>, now: Timestamp) -> Option<String> {
        let Some(waited) = waited else {
            self.waits = None;
            return None;
        };
        let seconds = seconds(waited, now);
        if self.waits.as_ref() != Some(&waited.message) {
            self.waits = Some(waited.message.clone());
            self.again = AGAIN;
            while self.again <= seconds {
                self.again *= 2;
            }
            return Some(format!("  waits: {}", waited.message));
        }
        if seconds < self.again {
            return None;
        }
        self.again *= 2;
        Some(format!("  has waited for {}: {}", duration(seconds), waited.message))
    }
}

const NOBODY: &str = "no controller is in office: nothing goes on until one is";
const IN_OFFICE: &str = "a controller is in office again";

/// Where an operation stands, in one line that changes.
pub fn line(operation: &Operation, office: bool, now: Timestamp) -> String {
    let mut line = match &operation.step {
        Some(step) => format!("{}{step}", count(operation)),
        None => operation.state.to_string(),
    };
    if let Some(waited) = &operation.waiting_on {
        line.push_str(&format!("; waits {}: {}", duration(seconds(waited, now)), waited.message));
    }
    if !office {
        line.push_str(&format!(" ({NOBODY})"));
    }
    line
}

fn count(operation: &Operation) -> String {
    let progress = operation.progress;
    match progress.total {
        0 => String::new(),
        total => format!("[{}/{total}] ", (progress.done + 1).min(total)),
    }
}

fn seconds(waited: &Waited, now: Timestamp) -> i64 {
    now.duration_since(waited.since).as_secs().max(0)
}

fn duration(seconds: i64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        _ => format!("{} min {} s", seconds / 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use schemadock_schema::operation::{Progress, Request};

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn operation() -> Operation {
        Operation {
            id: "1-t-1".to_owned(),
            request: Request::Switchover { to: None },
            clusters: vec!["c".parse().unwrap()],
            state: OperationState::Queued,
            step: None,
            waiting_on: None,
            progress: Progress::default(),
            plan: Vec::new(),
            requested_by: "t".to_owned(),
            requested_at: at(0),
            updated_at: at(0),
            outcome: None,
            cancel: false,
            memory: Default::default(),
        }
    }

    #[test]
    fn each_step_is_told_once_and_a_wait_again_and_again() {
        let mut told = Telling::default();
        let mut now = operation();
        let mut said = Vec::new();
        let mut tell = |now: &Operation, office: bool, second: i64| {
            for line in told.news(now, office, at(second)) {
                said.push(format!("{second:3} {line}"));
            }
            if second % 20 == 0 {
                said.push(format!("{second:3}                      ({})", line(now, office, at(second))));
            }
        };
        tell(&now, true, 0);
        now.state = OperationState::Running;
        now.step = Some("freeze h1-c-db1".to_owned());
        now.progress = Progress { done: 0, total: 2 };
        tell(&now, true, 1);
        now.waiting_on = Some(Waited { message: "sessions of h1-c-db1 to end".to_owned(), since: at(1) });
        for second in 2..60 {
            tell(&now, second != 30, second);
        }
        now.cancel = true;
        now.waiting_on = None;
        now.step = Some("open h2-c-db2".to_owned());
        now.progress.done = 1;
        tell(&now, true, 60);
        now.state = OperationState::Done;
        now.progress.done = 2;
        tell(&now, false, 61);
        insta::assert_snapshot!(said.join("\n"));
    }
}
