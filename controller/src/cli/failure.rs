//! How a command fails: what is said, and with which exit code.

use std::fmt;

use schemadock_schema::refusal::Refusal;
use schemadock_store::StoreError;
use serde_json::json;

/// Why a command did not do what was asked.
#[derive(Debug)]
pub enum Failure {
    /// The files alone show it to be wrong: exit code 2.
    Files(Vec<Refusal>),
    /// What etcd or the fleet holds forbids it: exit code 1.
    Refused(Vec<Refusal>),
    /// It was tried, and failed: exit code 1.
    Failed {
        /// What was found.
        message: String,
        /// What to do next.
        hint: Option<String>,
    },
    /// Wrong usage: exit code 2.
    Usage {
        /// What is wrong.
        message: String,
        /// What to do next.
        hint: Option<String>,
    },
    /// etcd did not do it: exit code 3 where it cannot be reached, else 1.
    Store(StoreError),
    /// All was said already; only the exit code is left.
    Told(u8),
}

impl Failure {
    /// Tried, and failed.
    pub fn failed(message: impl Into<String>) -> Self {
        Failure::Failed { message: message.into(), hint: None }
    }

    /// Wrong usage.
    pub fn usage(message: impl Into<String>) -> Self {
        Failure::Usage { message: message.into(), hint: None }
    }

    /// The same, with what to do next.
    #[must_use]
    pub fn hint(mut self, text: impl Into<String>) -> Self {
        if let Failure::Failed { hint, .. } | Failure::Usage { hint, .. } = &mut self {
            *hint = Some(text.into());
        }
        self
    }

    /// Of `contract.md`: 1 refused or failed, 2 usage or files, 3 etcd unreachable.
    pub fn exit_code(&self) -> u8 {
        match self {
            Failure::Files(_) | Failure::Usage { .. } => 2,
            Failure::Refused(_) | Failure::Failed { .. } => 1,
            Failure::Store(StoreError::Deadline { .. } | StoreError::Unreachable { .. }) => 3,
            Failure::Store(StoreError::Address { .. }) => 2,
            Failure::Store(_) => 1,
            Failure::Told(code) => *code,
        }
    }

    /// On stderr: text for people, or one object a line for scripts.
    pub fn print(&self, json: bool) {
        let text = if json { self.json_lines() } else { self.to_string() };
        if !text.is_empty() {
            anstream::eprintln!("{}", text.trim_end());
        }
    }

    fn json_lines(&self) -> String {
        let plain = |found: String, hint: &Option<String>| {
            json!({"error": {"file": null, "path": null, "found": found, "expected": null, "hint": hint}})
                .to_string()
        };
        match self {
            Failure::Files(refusals) | Failure::Refused(refusals) => {
                let lines: Vec<String> = refusals.iter().map(|r| json!({ "error": r }).to_string()).collect();
                lines.join("\n")
            }
            Failure::Failed { message, hint } | Failure::Usage { message, hint } => {
                plain(message.clone(), hint)
            }
            Failure::Store(_) => plain(self.to_string(), &None),
            Failure::Told(_) => String::new(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Files(refusals) | Failure::Refused(refusals) => {
                for refusal in refusals {
                    writeln!(f, "refused: {refusal}")?;
                }
                f.write_str("nothing was written")
            }
            Failure::Failed { message, hint } | Failure::Usage { message, hint } => {
                f.write_str(message)?;
                match hint {
                    Some(hint) => write!(f, "\n{hint}"),
                    None => Ok(()),
                }
            }
            Failure::Store(why @ (StoreError::Deadline { .. } | StoreError::Unreachable { .. })) => {
                write!(f, "{why}\nIs it running? Its address comes from --etcd or SCHEMADOCK_ETCD.")
            }
            Failure::Store(why) => why.fmt(f),
            Failure::Told(_) => Ok(()),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(why: StoreError) -> Self {
        Failure::Store(why)
    }
}
