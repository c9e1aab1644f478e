//! The office: one key, under its holder's lease.

use schemadock_schema::keys::Keys;
use schemadock_schema::operation::ControllerCopy;
use schemadock_schema::proposal::{Guard, Proposal, Write};
use schemadock_store::mirror::View;
use schemadock_store::{Committed, Store, StoreError};

/// Who holds the office, as far as a view tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Office {
    /// Not known yet.
    Unknown,
    /// Nobody.
    Free,
    /// This copy; the key's creation is what every transaction compares.
    Ours {
        /// Revision at which the key was created.
        created: i64,
    },
    /// Another copy.
    Other(String),
}

impl Office {
    /// Only a key under the lease that this copy holds now is its own.
    pub(super) fn of(view: &View, keys: &Keys, id: &str, lease: Option<i64>) -> Office {
        let key = keys.controller_leader();
        let Some(entry) = view.get(&key).present().copied() else {
            return if view.get(&key).is_absent() { Office::Free } else { Office::Unknown };
        };
        let holder = String::from_utf8_lossy(&entry.value);
        if holder == id && Some(entry.lease) == lease {
            return Office::Ours { created: entry.create_revision };
        }
        Office::Other(holder.into_owned())
    }
}

/// Takes the office if nobody has it.
pub(super) async fn take(
    store: &dyn Store,
    keys: &Keys,
    id: &str,
    lease: i64,
    fleet_created: i64,
) -> Result<bool, StoreError> {
    let key = keys.controller_leader();
    let proposal = Proposal {
        writes: vec![Write::Put { key: key.clone(), value: id.as_bytes().to_vec(), lease: Some(lease) }],
        guards: vec![Guard::Absent { key }, fleet(keys, fleet_created)],
        report: Vec::new(),
    };
    Ok(matches!(store.commit(&proposal).await?, Committed::Written { .. }))
}

/// Says that this copy lives.
pub(super) async fn register(
    store: &dyn Store,
    keys: &Keys,
    copy: &ControllerCopy,
    lease: i64,
    fleet_created: i64,
) -> Result<bool, StoreError> {
    let value = serde_json::to_vec(copy).unwrap_or_default();
    let proposal = Proposal {
        writes: vec![Write::Put { key: keys.controller(&copy.id), value, lease: Some(lease) }],
        guards: vec![fleet(keys, fleet_created)],
        report: Vec::new(),
    };
    Ok(matches!(store.commit(&proposal).await?, Committed::Written { .. }))
}

pub(super) fn fleet(keys: &Keys, create_revision: i64) -> Guard {
    Guard::Created { key: keys.fleet(), create_revision }
}
