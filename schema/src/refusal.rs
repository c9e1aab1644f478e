//! Why an input is refused, for people and for scripts.

use std::fmt;

use serde::Serialize;

/// One reason to refuse an input: what was found where, what was expected, what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Default)]
pub struct Refusal {
    /// The file, or the key in etcd; `-` is stdin.
    pub file: Option<String>,
    /// The JSON path, for example `schemadock01-a-db1.data.port`; line and column for a matter of syntax.
    pub path: Option<String>,
    /// What stands there.
    pub found: String,
    /// What was expected.
    pub expected: String,
    /// What to do; the nearest known field or name.
    pub hint: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{file}: ")?;
        }
        if let Some(path) = &self.path {
            write!(f, "{path}: ")?;
        }
        write!(f, "found {}, expected {}", self.found, self.expected)?;
        if let Some(hint) = &self.hint {
            write!(f, " ({hint})")?;
        }
        Ok(())
    }
}
