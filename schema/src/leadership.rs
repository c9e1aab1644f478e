//! Who may write: the record of a cluster, how a handover ended, votes and evidence.

use serde::{Deserialize, Serialize};

use crate::gtid::GtidSet;
use crate::{InstanceName, Timestamp};

/// How many terms a record keeps: enough for every member alive.
pub const LINEAGE: usize = 20;

/// `P/leadership/<cluster>`. Never deleted: an emptied cluster leaves `master: null` and its term.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Leadership {
    /// Rises with every change of who may write.
    pub term: u64,
    /// The instance that may write; none when released.
    pub master: Option<InstanceName>,
    /// What is going on.
    pub phase: LeadershipPhase,
    /// In a handover: the candidate.
    #[serde(default)]
    pub to: Option<InstanceName>,
    /// In a handover: until when.
    #[serde(default)]
    pub deadline: Option<Timestamp>,
    /// Whose acknowledgements count; never the master.
    #[serde(default)]
    pub voters: Vec<Voter>,
    /// How many voters must acknowledge a commit.
    #[serde(default)]
    pub acks: u32,
    /// A larger count that the master already waits for.
    #[serde(default)]
    pub acks_next: Option<u32>,
    /// Voters on their way out.
    #[serde(default)]
    pub leaving: Vec<InstanceName>,
    /// The durability in force.
    pub durability: Durability,
    /// The `server_uuid` that founded the cluster.
    pub founder: String,
    /// GTIDs that a merge declared executed.
    #[serde(default)]
    pub settled: GtidSet,
    /// The recent terms, oldest first.
    #[serde(default)]
    pub lineage: Vec<LineageEntry>,
    /// Who wrote it.
    #[serde(default)]
    pub by: String,
    /// Why.
    #[serde(default)]
    pub reason: String,
}

/// What is going on with the leadership of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LeadershipPhase {
    /// The master may write.
    Steady,
    /// A newer term is being prepared; nobody may open.
    Revoking,
    /// A planned change is under way.
    Handover,
}

/// The durability in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// A commit is on `acks` voters before the client hears of it.
    Lossless,
    /// Lossless is wished, but no voter is left.
    Alone,
    /// A commit is on the master.
    Async,
}

/// A member whose acknowledgement counts, with the history that it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Voter {
    /// The instance.
    pub name: InstanceName,
    /// Its data directory.
    pub server_uuid: String,
}

/// One term of a cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LineageEntry {
    /// The term.
    pub term: u64,
    /// Who led.
    pub name: InstanceName,
    /// With which data directory.
    pub server_uuid: String,
    /// What it had executed when it opened.
    pub base: GtidSet,
}

/// `P/handover/<cluster>/<term>`: how the handover of that term ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Handover {
    /// Who leads from now on.
    pub winner: InstanceName,
    /// With which data directory.
    pub server_uuid: String,
    /// What it had executed.
    pub base: GtidSet,
}

/// `P/votes/<host>/<instance>`: the newest term accepted, with what had been received by then.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Vote {
    /// The cluster of the term.
    pub cluster: crate::ClusterName,
    /// The term accepted.
    pub term: u64,
    /// The data directory that accepted it.
    pub server_uuid: String,
    /// Executed and retrieved.
    pub received: GtidSet,
    /// Executed.
    pub executed: GtidSet,
}

/// `P/evidence/<host>/<instance>`: what an agent sees of its own server, or of its master.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// The term under which it was seen.
    pub term: u64,
    /// What was seen.
    pub says: Says,
    /// Since when.
    pub since: Timestamp,
}

/// What may be seen of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Says {
    /// It answers.
    Alive,
    /// Its process has ended.
    Exited,
    /// It does not answer.
    Hung,
    /// It answers, but its disk does not.
    Stalled,
    /// Nothing is heard of it.
    Silent,
}

impl Leadership {
    /// The lineage entry of the newest term.
    pub fn last_lineage(&self) -> Option<&LineageEntry> {
        self.lineage.last()
    }

    /// True when nobody leads and the cluster was emptied.
    pub fn is_released(&self) -> bool {
        self.master.is_none() && self.phase == LeadershipPhase::Steady
    }

    /// How many acknowledgements the master waits for: of a pending change the larger count (V3).
    pub fn acks_wanted(&self) -> u32 {
        self.acks.max(self.acks_next.unwrap_or(0))
    }

    /// Whether the voters are enough to acknowledge a commit where this member is none of them.
    pub fn suffices_without(&self, member: &InstanceName) -> bool {
        self.voters.iter().filter(|voter| voter.name != *member).count() >= self.acks_wanted() as usize
    }

    /// Whether the first commits of a handover's candidate wait for the old master: the other voters are not enough.
    pub fn needs_old_master(&self) -> bool {
        self.phase == LeadershipPhase::Handover
            && self.to.as_ref().is_some_and(|to| !self.suffices_without(to))
    }

    /// The voters that move behind a candidate before the freeze: with the candidate itself they are more than
    /// |voters| − acks, so no commit of the old master can be acknowledged without one of them.
    pub fn movers<'a>(&'a self, to: Option<&'a InstanceName>) -> impl Iterator<Item = &'a Voter> {
        let count = self.voters.len().saturating_sub(self.acks.max(1) as usize);
        self.voters.iter().filter(move |voter| to != Some(&voter.name)).take(count)
    }

    /// What the record means, given how the handover of its term ended: from the creation of that key it is
    /// `steady` with the winner as master, and the other one in its place among the voters.
    #[must_use]
    pub fn with_handover(&self, ended: Option<&Handover>) -> Leadership {
        let mut meant = self.clone();
        let (LeadershipPhase::Handover, Some(ended)) = (self.phase, ended) else {
            return meant;
        };
        if meant.master.as_ref() != Some(&ended.winner) {
            let loser = meant.master.clone();
            let loser_uuid = self
                .lineage
                .iter()
                .rev()
                .find(|entry| Some(&entry.name) == loser.as_ref())
                .map(|entry| entry.server_uuid.clone());
            meant.voters.retain(|voter| voter.name != ended.winner);
            if let (Some(name), Some(server_uuid)) = (loser, loser_uuid) {
                meant.voters.push(Voter { name, server_uuid });
            }
        }
        meant.phase = LeadershipPhase::Steady;
        meant.master = Some(ended.winner.clone());
        meant.to = None;
        meant.deadline = None;
        meant.lineage.push(LineageEntry {
            term: self.term,
            name: ended.winner.clone(),
            server_uuid: ended.server_uuid.clone(),
            base: ended.base.clone(),
        });
        let surplus = meant.lineage.len().saturating_sub(LINEAGE);
        meant.lineage.drain(..surplus);
        meant
    }
}
