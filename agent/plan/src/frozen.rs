//! Schemas that take no writes here though their server does: another cluster owns them, or is about to.
//!
//! The flag is MySQL's READ ONLY of a schema. It is set without the binary log on each member by its own agent: logged, it
//! would travel to another cluster over a link, and on the master alone the next one would not have it.

use std::collections::{BTreeMap, BTreeSet};

use schemadock_schema::known::{Known, WhyUnknown};
use schemadock_schema::status::WaitKind;

use crate::desired::Desired;
use crate::observed::Seen;
use crate::record::Record;
use crate::standing::hands_off;
use crate::step::{Plan, StandingStep as Step};
use crate::wish::Wish;

/// The schemas of a server by name, and whether each is READ ONLY.
pub type Schemas = BTreeMap<String, bool>;

/// What is to change: schemas to be frozen, and schemas to be thawed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Flags {
    /// These take no writes any more.
    pub freeze: BTreeSet<String>,
    /// These take writes again. Only such as were frozen by us: people may have set the flag of others.
    pub thaw: BTreeSet<String>,
}

impl Flags {
    /// Whether nothing is to change.
    pub fn is_empty(&self) -> bool {
        self.freeze.is_empty() && self.thaw.is_empty()
    }
}

/// What makes a server's flags those that are wished. `set` are the schemas that its record says were frozen by us; one that
/// is wished and has its flag from elsewhere (a CLONE, a person) is ours from then on.
pub fn changes(wished: &BTreeSet<String>, set: &BTreeSet<String>, schemas: &Schemas) -> Flags {
    let lacks = |schema: &&String| match schemas.get(*schema) {
        Some(read_only) => !read_only || !set.contains(*schema),
        None => false,
    };
    Flags {
        freeze: wished.iter().filter(lacks).cloned().collect(),
        thaw: set.difference(wished).cloned().collect(),
    }
}

/// Whether flags are of interest on this server at all: none are looked at otherwise.
pub fn concerned(desired: &Desired, record: &Record) -> bool {
    !desired.frozen.is_empty() || !record.frozen.is_empty()
}

/// Schemas that we froze, and that are.
pub fn in_force(seen: &Seen) -> Vec<String> {
    let Some(schemas) = seen.schemas.present() else { return Vec::new() };
    let frozen = |schema: &&String| schemas.get(*schema) == Some(&true);
    seen.record.frozen.iter().filter(frozen).cloned().collect()
}

/// The step that mends them. It waits for transactions of others, so all else comes first.
pub(crate) fn step(wish: &Wish, desired: &Desired, seen: &Seen) -> Option<Plan<Step>> {
    if hands_off(desired) || !concerned(desired, &seen.record) {
        return None;
    }
    let schemas = match &seen.schemas {
        Known::Present(schemas) => schemas,
        Known::Unknown(WhyUnknown::Error(why)) => {
            return Some(Plan::wait(WaitKind::Server, &desired.instance, format!("its schemas: {why}")));
        }
        _ => return Some(Plan::wait(WaitKind::Server, &desired.instance, "its schemas are being looked at")),
    };
    let mut flags = changes(&desired.frozen, &seen.record.frozen, schemas);
    // What is remembered may be older than what was frozen, and another cluster may take writes there by now (I6).
    if !wish.believes_store() || wish.policy_revision.is_none() {
        flags.thaw.clear();
    }
    if flags.is_empty() {
        return None;
    }
    let undone = flags.freeze.intersection(&seen.record.frozen).map(String::as_str).collect::<Vec<_>>();
    let found = (!undone.is_empty()).then(|| format!("schema {} was not READ ONLY", undone.join(", ")));
    Some(Plan::Do(Step::SetFrozen { flags, found }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn only_what_was_frozen_by_us_is_thawed() {
        let schemas: Schemas =
            [("a", false), ("b", true), ("c", true)].map(|(name, flag)| (name.to_owned(), flag)).into();
        // `a` is to be frozen, `b` was by us and is no more, `c` was by somebody else, `d` is not there.
        let flags = changes(&set(&["a", "d"]), &set(&["b"]), &schemas);
        assert_eq!(flags, Flags { freeze: set(&["a"]), thaw: set(&["b"]) });
        assert!(changes(&set(&["c"]), &set(&["c"]), &schemas).is_empty());
        // Once it is wished it is ours, wherever its flag came from.
        assert_eq!(changes(&set(&["c"]), &set(&[]), &schemas).freeze, set(&["c"]));
    }
}
