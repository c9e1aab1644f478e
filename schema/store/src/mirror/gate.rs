//! Whether a store is ours.

use schemadock_schema::fleet::Fleet;
use schemadock_schema::status::{StoreReport, StoreState};

use crate::Entry;

/// What is remembered of the store, to tell another one from it.
///
/// A store is believed when it holds `P/fleet` with the id remembered, at a revision not lower than the last one seen;
/// or when a person has declared it (`accepted`) to be the store of the id remembered, for all who had seen at most
/// the revision that is remembered. One that went back stays disbelieved until then: revisions alone do not tell when
/// those who write to it, agents among them, have brought it past the one remembered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Gate {
    /// The fleet id remembered; none: the first one seen is adopted.
    pub expected: Option<String>,
    /// The last revision seen.
    pub revision: i64,
    /// It was seen at an older one since.
    pub went_back: bool,
}

impl Gate {
    /// Judges what was found at `P/fleet` by a read at `revision`. Returns what is to be remembered from now on, or
    /// why the store is not believed.
    pub fn judge(&self, fleet: Option<&Entry>, revision: i64) -> Result<Gate, StoreReport> {
        let report =
            |state, found: Option<String>| StoreReport { state, expected: self.expected.clone(), found };
        let Some(entry) = fleet else {
            return Err(report(StoreState::Blank, None));
        };
        // Garbage at that place is nobody's fleet.
        let Ok(fleet) = serde_json::from_slice::<Fleet>(&entry.value) else {
            return Err(report(StoreState::Foreign, None));
        };
        let Some(expected) = &self.expected else {
            return Ok(Gate { expected: Some(fleet.id), revision, went_back: false });
        };
        let accepted = fleet.accepted.iter().any(|one| one.id == *expected && one.revision >= self.revision);
        if fleet.id != *expected && !accepted {
            return Err(report(StoreState::Foreign, Some(fleet.id)));
        }
        if (self.went_back || revision < self.revision) && !accepted {
            return Err(report(StoreState::Older, Some(fleet.id)));
        }
        Ok(Gate { expected: Some(fleet.id), revision, went_back: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet(document: &str) -> Entry {
        Entry {
            key: "/p/fleet".to_owned(),
            value: document.as_bytes().to_vec(),
            mod_revision: 2,
            create_revision: 2,
            lease: 0,
        }
    }

    fn gate(expected: Option<&str>, revision: i64) -> Gate {
        Gate { expected: expected.map(str::to_owned), revision, went_back: false }
    }

    const ACCEPTED: &str =
        r#"{"id": "b", "accepted": [{"id": "a", "revision": 50, "by": "x", "at": "2026-01-01T00:00:00Z"}]}"#;

    #[test]
    fn stores_are_believed_or_not() {
        let ok = |expected: &str, revision| Ok(gate(Some(expected), revision));
        let not = |state, expected: Option<&str>, found: Option<&str>| {
            Err(StoreReport { state, expected: expected.map(str::to_owned), found: found.map(str::to_owned) })
        };
        let cases = [
            ("first seen", gate(None, 0), Some(r#"{"id": "a"}"#), 7, ok("a", 7)),
            ("ours", gate(Some("a"), 7), Some(r#"{"id": "a"}"#), 7, ok("a", 7)),
            ("blank", gate(Some("a"), 7), None, 9, not(StoreState::Blank, Some("a"), None)),
            ("blank, nothing remembered", gate(None, 0), None, 9, not(StoreState::Blank, None, None)),
            ("garbage", gate(None, 0), Some("{"), 9, not(StoreState::Foreign, None, None)),
            (
                "another",
                gate(Some("a"), 7),
                Some(r#"{"id": "b"}"#),
                9,
                not(StoreState::Foreign, Some("a"), Some("b")),
            ),
            (
                "gone back",
                gate(Some("a"), 7),
                Some(r#"{"id": "a"}"#),
                6,
                not(StoreState::Older, Some("a"), Some("a")),
            ),
            (
                "gone back, and grown past the revision remembered",
                Gate { went_back: true, ..gate(Some("a"), 7) },
                Some(r#"{"id": "a"}"#),
                8,
                not(StoreState::Older, Some("a"), Some("a")),
            ),
            (
                "gone back, and declared ours",
                Gate { went_back: true, ..gate(Some("a"), 50) },
                Some(ACCEPTED),
                90,
                ok("b", 90),
            ),
            ("declared ours", gate(Some("a"), 50), Some(ACCEPTED), 9, ok("b", 9)),
            (
                "declared ours for those who had seen less",
                gate(Some("a"), 51),
                Some(ACCEPTED),
                90,
                not(StoreState::Foreign, Some("a"), Some("b")),
            ),
        ];
        for (name, gate, document, revision, expected) in cases {
            let entry = document.map(fleet);
            assert_eq!(gate.judge(entry.as_ref(), revision), expected, "{name}");
        }
    }
}
