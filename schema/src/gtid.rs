//! Sets of transactions.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A set of GTIDs: for each source (`uuid`, or `uuid:tag` from MySQL 8.3 on) the numbers, as sorted, disjoint,
/// non-adjacent intervals with both ends inside.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GtidSet {
    sources: BTreeMap<Source, Vec<(u64, u64)>>,
}

/// Who numbered the transactions: a `server_uuid`, and the tag if there is one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source {
    /// In lower case.
    pub uuid: String,
    /// In lower case; none for plain GTIDs.
    pub tag: Option<String>,
}

/// Why a text is no GTID set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no GTID set: {why}")]
pub struct GtidError {
    text: String,
    why: &'static str,
}

impl GtidSet {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// True when no transaction is in it.
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// How many transactions are in it.
    pub fn count(&self) -> u64 {
        self.sources.values().flatten().map(|(from, to)| to - from + 1).sum()
    }

    /// The sources, in order.
    pub fn sources(&self) -> impl Iterator<Item = &Source> {
        self.sources.keys()
    }

    /// True when every transaction of `other` is in it.
    pub fn contains(&self, other: &GtidSet) -> bool {
        other.minus(self).is_empty()
    }

    /// Adds the transactions `from..=to` of a source.
    pub fn insert(&mut self, source: Source, from: u64, to: u64) {
        debug_assert!(from >= 1 && from <= to);
        let intervals = self.sources.entry(source).or_default();
        intervals.push((from, to));
        intervals.sort_unstable();
        let mut merged: Vec<(u64, u64)> = Vec::with_capacity(intervals.len());
        for &(from, to) in intervals.iter() {
            match merged.last_mut() {
                Some(last) if from <= last.1.saturating_add(1) => last.1 = last.1.max(to),
                _ => merged.push((from, to)),
            }
        }
        *intervals = merged;
    }

    /// All of both.
    #[must_use]
    pub fn union(&self, other: &GtidSet) -> GtidSet {
        let mut all = self.clone();
        for (source, intervals) in &other.sources {
            for &(from, to) in intervals {
                all.insert(source.clone(), from, to);
            }
        }
        all
    }

    /// What is in it and not in `other`.
    #[must_use]
    pub fn minus(&self, other: &GtidSet) -> GtidSet {
        let mut left = BTreeMap::new();
        for (source, intervals) in &self.sources {
            let mut rest = intervals.clone();
            for &(cut_from, cut_to) in other.sources.get(source).map(Vec::as_slice).unwrap_or_default() {
                rest = rest
                    .into_iter()
                    .flat_map(|(from, to)| {
                        let before = (from < cut_from).then(|| (from, to.min(cut_from - 1)));
                        let after = (to > cut_to).then(|| (from.max(cut_to + 1), to));
                        [before, after].into_iter().flatten()
                    })
                    .collect();
            }
            if !rest.is_empty() {
                left.insert(source.clone(), rest);
            }
        }
        GtidSet { sources: left }
    }

    /// The part whose source has this `server_uuid`, tagged or not.
    #[must_use]
    pub fn of_uuid(&self, uuid: &str) -> GtidSet {
        let wanted = |source: &Source| source.uuid.eq_ignore_ascii_case(uuid);
        let sources =
            self.sources.iter().filter(|(s, _)| wanted(s)).map(|(s, i)| (s.clone(), i.clone())).collect();
        GtidSet { sources }
    }

    /// Every single GTID, in order, as the server writes it.
    pub fn iter(&self) -> impl Iterator<Item = String> + '_ {
        self.sources.iter().flat_map(|(source, intervals)| {
            intervals
                .iter()
                .flat_map(move |&(from, to)| (from..=to).map(move |number| format!("{source}:{number}")))
        })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.tag {
            None => f.write_str(&self.uuid),
            Some(tag) => write!(f, "{}:{tag}", self.uuid),
        }
    }
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, b)| match at {
            8 | 13 | 18 | 23 => b == b'-',
            _ => b.is_ascii_hexdigit(),
        })
}

fn is_tag(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && text.len() <= 32
}

impl FromStr for GtidSet {
    type Err = GtidError;

    fn from_str(text: &str) -> Result<Self, GtidError> {
        let error = |why| GtidError { text: text.to_owned(), why };
        let mut set = GtidSet::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let mut fields = part.split(':').map(str::trim);
            let uuid =
                fields.next().filter(|uuid| is_uuid(uuid)).ok_or_else(|| error("a UUID is expected"))?;
            let mut source = Source { uuid: uuid.to_ascii_lowercase(), tag: None };
            let mut any = false;
            for field in fields {
                if is_tag(field) {
                    source.tag = Some(field.to_ascii_lowercase());
                    continue;
                }
                let (from, to) = field.split_once('-').unwrap_or((field, field));
                let number =
                    |text: &str| text.trim().parse::<u64>().ok().filter(|n| *n >= 1 && *n < i64::MAX as u64);
                let (Some(from), Some(to)) = (number(from), number(to)) else {
                    return Err(error("numbers from 1 on are expected"));
                };
                if from > to {
                    return Err(error("an interval runs backwards"));
                }
                set.insert(source.clone(), from, to);
                any = true;
            }
            if !any {
                return Err(error("a UUID without numbers"));
            }
        }
        Ok(set)
    }
}

impl TryFrom<String> for GtidSet {
    type Error = GtidError;
    fn try_from(text: String) -> Result<Self, GtidError> {
        text.parse()
    }
}

impl From<GtidSet> for String {
    fn from(set: GtidSet) -> String {
        set.to_string()
    }
}

impl fmt::Display for GtidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (source, intervals)) in self.sources.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            write!(f, "{source}")?;
            for &(from, to) in intervals {
                if from == to {
                    write!(f, ":{from}")?;
                } else {
                    write!(f, ":{from}-{to}")?;
                }
            }
        }
        Ok(())
    }
}

impl fmt::Debug for GtidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GtidSet({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
    const B: &str = "4e11fa47-71ca-11e1-9e33-c80aa9429562";

    fn set(text: &str) -> GtidSet {
        text.parse().unwrap()
    }

    #[test]
    fn reads_and_writes_what_the_server_writes() {
        for text in ["", &format!("{A}:1-5"), &format!("{A}:1-5:7:9-11,{B}:1"), &format!("{A}:1,{A}:tag:2-3")]
        {
            assert_eq!(set(text).to_string(), text);
        }
        assert_eq!(set(&format!("{A}:1-3:2-8,\n{A}:9")).to_string(), format!("{A}:1-9"));
        assert_eq!(set(&format!("{}:1:t:4", A.to_uppercase())).to_string(), format!("{A}:1,{A}:t:4"));
    }

    #[test]
    fn refuses_what_is_no_set() {
        for bad in ["x", A, &format!("{A}:0"), &format!("{A}:3-2"), &format!("{A}:1-x")] {
            assert!(bad.parse::<GtidSet>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn single_gtids_and_parts_by_uuid() {
        let both = set(&format!("{A}:1-2:t:5,{B}:7"));
        assert_eq!(
            both.iter().collect::<Vec<_>>(),
            [format!("{A}:1"), format!("{A}:2"), format!("{A}:t:5"), format!("{B}:7")]
        );
        assert_eq!(both.of_uuid(B), set(&format!("{B}:7")));
        assert_eq!(both.count(), 4);
    }

    fn numbers() -> impl Strategy<Value = BTreeSet<(bool, u64)>> {
        proptest::collection::btree_set((any::<bool>(), 1u64..40), 0..40)
    }

    fn build(numbers: &BTreeSet<(bool, u64)>) -> GtidSet {
        let mut built = GtidSet::new();
        for (which, number) in numbers {
            let uuid = if *which { A } else { B }.to_owned();
            built.insert(Source { uuid, tag: None }, *number, *number);
        }
        built
    }

    proptest! {
        #[test]
        fn agrees_with_sets_of_numbers(a in numbers(), b in numbers()) {
            let (x, y) = (build(&a), build(&b));
            prop_assert_eq!(x.union(&y), build(&a.union(&b).copied().collect()));
            prop_assert_eq!(x.minus(&y), build(&a.difference(&b).copied().collect()));
            prop_assert_eq!(x.contains(&y), a.is_superset(&b));
            prop_assert_eq!(x.count(), a.len() as u64);
            prop_assert_eq!(set(&x.to_string()), x);
        }
    }
}
