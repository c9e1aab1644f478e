//! Writes together with what they were judged by. There is one way to write: `store.commit(Proposal)`.

use serde::Serialize;

/// One write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Sets a key.
    Put {
        /// The key.
        key: String,
        /// The document.
        value: Vec<u8>,
        /// The lease that the key lives by, if any.
        lease: Option<i64>,
    },
    /// Removes a key; nothing happens where it is absent.
    Delete {
        /// The key.
        key: String,
    },
}

impl Write {
    /// Puts a document.
    pub fn document(key: String, document: &impl Serialize) -> Self {
        let value = serde_json::to_vec(document).expect("documents of this crate serialize");
        Write::Put { key, value, lease: None }
    }

    /// The key that is written.
    pub fn key(&self) -> &str {
        match self {
            Write::Put { key, .. } | Write::Delete { key } => key,
        }
    }
}

/// What must still hold for a proposal to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Guard {
    /// The key is not there.
    Absent {
        /// The key.
        key: String,
    },
    /// The key was last written at this revision.
    At {
        /// The key.
        key: String,
        /// Its modification revision.
        mod_revision: i64,
    },
    /// The key was created at this revision and has been there since (an office, the fleet).
    Created {
        /// The key.
        key: String,
        /// Its creation revision.
        create_revision: i64,
    },
    /// No key below the prefix was written after this revision. Deletions are not seen.
    PrefixUnchanged {
        /// The prefix.
        prefix: String,
        /// The revision at which it was read.
        revision: i64,
    },
}

impl Guard {
    /// That a key is as it was read: absent, or last written at that revision.
    pub fn unchanged(key: String, mod_revision: Option<i64>) -> Self {
        match mod_revision {
            None => Guard::Absent { key },
            Some(mod_revision) => Guard::At { key, mod_revision },
        }
    }
}

/// Writes, and the guards under which they are right. All or nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Proposal {
    /// What is written.
    pub writes: Vec<Write>,
    /// What must still hold.
    pub guards: Vec<Guard>,
    /// What was not done, and why; for people.
    pub report: Vec<String>,
}

impl Proposal {
    /// True when there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }
}
