//! What a server keeps in its data directory: it survives every end of the process.

use std::collections::BTreeMap;

use schemadock_agent_plan::frozen::Schemas;
use schemadock_agent_plan::observed::{CloneSeen, CloneState};
use schemadock_schema::gtid::{GtidSet, Source};
use schemadock_schema::secrets::Password;

/// A data directory.
#[derive(Debug, Clone)]
pub(in crate::sim) struct Data {
    /// `ibdata1` and `mysql.ibd` are there.
    pub(in crate::sim) complete: bool,
    /// In `auto.cnf`; made at the first start.
    pub(in crate::sim) uuid: Option<String>,
    pub(in crate::sim) executed: GtidSet,
    /// In the binary log and sent to replicas, but not committed: it waits for acknowledgements.
    pub(in crate::sim) written: GtidSet,
    pub(in crate::sim) purged: GtidSet,
    /// By user and host part.
    pub(in crate::sim) accounts: BTreeMap<(String, String), AccountKept>,
    pub(in crate::sim) channel: Option<Channel>,
    pub(in crate::sim) cloned: CloneSeen,
    /// A CLONE has dropped the rows, and has not brought others: `executed` lies.
    pub(in crate::sim) gutted: bool,
    /// Transactions of its own that touch no row of a base table.
    pub(in crate::sim) harmless: GtidSet,
    /// The schemas of people, and whether each is READ ONLY.
    pub(in crate::sim) schemas: Schemas,
}

/// An account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sim) struct AccountKept {
    pub(in crate::sim) password: String,
    pub(in crate::sim) locked: bool,
}

/// The channel `''`, with its relay logs.
#[derive(Debug, Clone)]
pub(in crate::sim) struct Channel {
    pub(in crate::sim) host: String,
    pub(in crate::sim) port: u16,
    pub(in crate::sim) user: String,
    pub(in crate::sim) password: Password,
    pub(in crate::sim) retrieved: GtidSet,
    pub(in crate::sim) source_uuid: Option<String>,
}

pub(in crate::sim) const NO_CLONE: CloneSeen =
    CloneSeen { state: CloneState::None, bytes: 0, bytes_total: 0, error: None };

impl Data {
    /// As `--initialize-insecure` leaves it, less `auto.cnf`.
    pub(in crate::sim) fn from_template() -> Data {
        let root = AccountKept { password: String::new(), locked: false };
        Data {
            complete: true,
            uuid: None,
            executed: GtidSet::new(),
            written: GtidSet::new(),
            purged: GtidSet::new(),
            accounts: BTreeMap::from([(("root".to_owned(), "localhost".to_owned()), root)]),
            channel: None,
            cloned: NO_CLONE,
            gutted: false,
            harmless: GtidSet::new(),
            schemas: Schemas::new(),
        }
    }

    /// Executed and retrieved.
    pub(in crate::sim) fn received(&self) -> GtidSet {
        match &self.channel {
            Some(channel) => self.executed.union(&channel.retrieved),
            None => self.executed.clone(),
        }
    }

    /// What its replicas get.
    pub(in crate::sim) fn sent(&self) -> GtidSet {
        self.executed.union(&self.written)
    }

    /// Commits a transaction of its own and returns it.
    pub(in crate::sim) fn commit(&mut self) -> GtidSet {
        let gtid = self.next();
        self.executed = self.executed.union(&gtid);
        gtid
    }

    /// Writes a transaction of its own to the binary log and returns it.
    pub(in crate::sim) fn write(&mut self) -> GtidSet {
        let gtid = self.next();
        self.written = self.written.union(&gtid);
        gtid
    }

    fn next(&self) -> GtidSet {
        let (uuid, taken) = (self.uuid.clone().unwrap_or_default(), self.sent());
        let mut number = taken.of_uuid(&uuid).count() + 1;
        let mut gtid = single(&uuid, number);
        while taken.contains(&gtid) {
            number += 1;
            gtid = single(&uuid, number);
        }
        gtid
    }

    /// Runs the statements of an init file, one a line. Without `sql_log_bin=0` before them they would take GTIDs.
    pub(in crate::sim) fn run_init(&mut self, text: &str) {
        let mut logged = true;
        for line in text.lines() {
            let mut quoted = line.split('\'').skip(1).step_by(2);
            let (user, host) = (quoted.next().unwrap_or_default(), quoted.next().unwrap_or_default());
            let who = (user.to_owned(), host.to_owned());
            if line.starts_with("SET SESSION sql_log_bin=0") {
                logged = false;
                continue;
            }
            if line.contains("ACCOUNT LOCK") {
                if let Some(account) = self.accounts.get_mut(&who) {
                    account.locked = true;
                }
            } else if line.contains("IDENTIFIED BY") {
                let password = quoted.next().unwrap_or_default().to_owned();
                self.accounts.insert(who, AccountKept { password, locked: false });
            }
            if logged {
                self.commit();
            }
        }
    }
}

/// One transaction.
pub(in crate::sim) fn single(uuid: &str, number: u64) -> GtidSet {
    let mut set = GtidSet::new();
    set.insert(Source { uuid: uuid.to_owned(), tag: None }, number, number);
    set
}
