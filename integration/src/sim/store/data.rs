//! What an etcd holds, and the rules by which it changes. Synchronous; time is an argument.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use schemadock_schema::proposal::{Guard, Proposal, Write};
use schemadock_store::{Change, Committed, Entry, MAX_OPERATIONS, Selector, Snapshot, StoreError};
use tokio::time::Instant;

/// Keys, their history, and leases.
#[derive(Clone)]
pub(super) struct Data {
    /// A new etcd is at revision 1.
    revision: i64,
    compacted: i64,
    entries: BTreeMap<String, Entry>,
    history: BTreeMap<i64, Vec<Change>>,
    leases: BTreeMap<i64, Lease>,
    next_lease: i64,
}

#[derive(Clone)]
struct Lease {
    ttl: Duration,
    ends: Instant,
}

/// Refuses what the real client refuses.
pub(super) fn check_size(found: usize, what: &'static str) -> Result<(), StoreError> {
    match found > MAX_OPERATIONS {
        true => {
            Err(StoreError::Refused { what, why: format!("{found} operations, at most {MAX_OPERATIONS}") })
        }
        false => Ok(()),
    }
}

impl Data {
    pub(super) fn new() -> Self {
        Self {
            revision: 1,
            compacted: 0,
            entries: BTreeMap::new(),
            history: BTreeMap::new(),
            leases: BTreeMap::new(),
            next_lease: 1000,
        }
    }

    /// Never hands out a lease that the other has handed out: the real ids are random.
    pub(super) fn continue_leases_of(&mut self, other: &Data) {
        self.next_lease = self.next_lease.max(other.next_lease);
    }

    pub(super) fn revision(&self) -> i64 {
        self.revision
    }

    pub(super) fn compacted(&self) -> i64 {
        self.compacted
    }

    pub(super) fn compact(&mut self, revision: i64) {
        self.compacted = self.compacted.max(revision.min(self.revision));
        self.history = self.history.split_off(&self.compacted);
    }

    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.get(key)
    }

    pub(super) fn read(&self, parts: &[Selector]) -> Snapshot {
        let mut entries = BTreeMap::new();
        for part in parts {
            let found = self.entries.range(part.start().to_owned()..).take_while(|(key, _)| part.covers(key));
            entries.extend(found.map(|(key, entry)| (key.clone(), entry.clone())));
        }
        Snapshot { revision: self.revision, entries }
    }

    /// All changes of a part after a revision, and how far they reach.
    pub(super) fn changes(&self, part: &Selector, after: i64) -> Option<(i64, Vec<Change>)> {
        let mut reached = None;
        let mut found = Vec::new();
        for (revision, changes) in self.history.range(after + 1..) {
            for change in changes {
                let key = match change {
                    Change::Put(entry) => &entry.key,
                    Change::Delete { key, .. } => key,
                };
                if part.covers(key) {
                    reached = Some(*revision);
                    found.push(change.clone());
                }
            }
        }
        reached.map(|revision| (revision, found))
    }

    pub(super) fn commit(&mut self, proposal: &Proposal) -> Result<Committed, StoreError> {
        self.check(&proposal.writes)?;
        if !proposal.guards.iter().all(|guard| self.holds(guard)) {
            return Ok(Committed::Conflict);
        }
        for write in &proposal.writes {
            if let Write::Put { lease: Some(lease), .. } = write
                && !self.leases.contains_key(lease)
            {
                return Err(StoreError::LeaseNotFound);
            }
        }
        self.write(&proposal.writes);
        Ok(Committed::Written { revision: self.revision })
    }

    /// etcd refuses to touch a key twice in one transaction if one of the two puts it.
    fn check(&self, writes: &[Write]) -> Result<(), StoreError> {
        let mut put = BTreeSet::new();
        let mut deleted = BTreeSet::new();
        for write in writes {
            let twice = match write {
                Write::Put { key, .. } => deleted.contains(key) || !put.insert(key),
                Write::Delete { key } => {
                    deleted.insert(key);
                    put.contains(key)
                }
            };
            if write.key().is_empty() {
                return Err(StoreError::Refused { what: "a write", why: "key is not provided".to_owned() });
            }
            if twice {
                return Err(StoreError::Refused { what: "a write", why: "duplicate key".to_owned() });
            }
        }
        Ok(())
    }

    fn holds(&self, guard: &Guard) -> bool {
        match guard {
            Guard::Absent { key } => !self.entries.contains_key(key),
            Guard::At { key, mod_revision } => {
                self.entries.get(key).map_or(0, |entry| entry.mod_revision) == *mod_revision
            }
            Guard::Created { key, create_revision } => {
                self.entries.get(key).map_or(0, |entry| entry.create_revision) == *create_revision
            }
            Guard::PrefixUnchanged { prefix, revision } => self
                .entries
                .range(prefix.clone()..)
                .take_while(|(key, _)| key.starts_with(prefix.as_str()))
                .all(|(_, entry)| entry.mod_revision <= *revision),
        }
    }

    /// Writes all at one new revision; at none if nothing changes.
    fn write(&mut self, writes: &[Write]) {
        let revision = self.revision + 1;
        let mut changes = Vec::new();
        for write in writes {
            match write {
                Write::Put { key, value, lease } => {
                    let entry = Entry {
                        key: key.clone(),
                        value: value.clone(),
                        mod_revision: revision,
                        create_revision: self
                            .entries
                            .get(key)
                            .map_or(revision, |entry| entry.create_revision),
                        lease: lease.unwrap_or(0),
                    };
                    self.entries.insert(key.clone(), entry.clone());
                    changes.push(Change::Put(entry));
                }
                Write::Delete { key } => {
                    if self.entries.remove(key).is_some() {
                        changes.push(Change::Delete { key: key.clone(), revision });
                    }
                }
            }
        }
        if !changes.is_empty() {
            self.revision = revision;
            self.history.insert(revision, changes);
        }
    }

    pub(super) fn grant(&mut self, ttl: Duration, now: Instant) -> i64 {
        // Whole seconds, rounded up, as the real client asks for.
        let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
        let ttl = Duration::from_secs(seconds.max(1));
        self.next_lease += 1;
        self.leases.insert(self.next_lease, Lease { ttl, ends: now + ttl });
        self.next_lease
    }

    pub(super) fn keep(&mut self, lease: i64, now: Instant) -> bool {
        match self.leases.get_mut(&lease) {
            Some(lease) => {
                lease.ends = now + lease.ttl;
                true
            }
            None => false,
        }
    }

    /// Ends a lease; its keys go at one revision.
    pub(super) fn revoke(&mut self, lease: i64) {
        if self.leases.remove(&lease).is_some() {
            let keys = self.entries.values().filter(|entry| entry.lease == lease);
            let writes: Vec<Write> = keys.map(|entry| Write::Delete { key: entry.key.clone() }).collect();
            self.write(&writes);
        }
    }

    pub(super) fn renew_leases(&mut self, now: Instant) {
        for lease in self.leases.values_mut() {
            lease.ends = now + lease.ttl;
        }
    }

    /// Ends the leases that are due. Says whether there were any.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        let due = self.leases.iter().filter(|(_, lease)| lease.ends <= now);
        let mut due: Vec<(Instant, i64)> = due.map(|(id, lease)| (lease.ends, *id)).collect();
        due.sort();
        for (_, lease) in &due {
            self.revoke(*lease);
        }
        !due.is_empty()
    }

    /// What watches must be woken by, when it changes.
    pub(super) fn stirs(&self) -> (i64, Option<Instant>) {
        (self.revision, self.next_expiry())
    }

    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.leases.values().map(|lease| lease.ends).min()
    }
}
