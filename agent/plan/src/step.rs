//! What a plan may say.

use schemadock_schema::InstanceName;
use schemadock_schema::gtid::GtidSet;
use schemadock_schema::status::WaitKind;

use crate::config::ServerConfig;
use crate::frozen::Flags;
use crate::record::Replacing;

/// One next step, or why there is none.
#[derive(Debug, Clone, PartialEq)]
pub enum Plan<S> {
    /// All is as it is to be.
    Converged,
    /// To be done now; then observe again.
    Do(S),
    /// Not yet.
    Wait(Waiting),
    /// Not at all, until somebody mends it.
    Refuse(String),
}

/// Something that is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// What kind of thing.
    pub kind: WaitKind,
    /// Which one.
    pub name: String,
    /// One sentence for people.
    pub message: String,
}

impl<S> Plan<S> {
    /// Waits.
    pub fn wait(kind: WaitKind, name: impl ToString, message: impl Into<String>) -> Plan<S> {
        Plan::Wait(Waiting { kind, name: name.to_string(), message: message.into() })
    }

    /// Refuses.
    pub fn refuse(reason: impl Into<String>) -> Plan<S> {
        Plan::Refuse(reason.into())
    }
}

/// A step of the converge lane: Docker, disk, seeds, settings.
#[derive(Debug, Clone, PartialEq)]
pub enum ConvergeStep {
    /// Take a server id from etcd and keep it in the record.
    TakeServerId,
    /// Make the cluster's credentials, unless somebody was faster.
    MakeSecrets,
    /// Fetch the image (long).
    PullImage,
    /// Make the image's template (long).
    MakeTemplate,
    /// Keep in the record that data of etcd's memory are here.
    AdoptData,
    /// Copy the template as data directory.
    CopyTemplate,
    /// Take data set aside up again.
    TakeUp {
        /// Directory below `retired/<instance>/`.
        name: String,
    },
    /// Keep in the record that the data are to be set aside and made anew.
    Replace {
        /// Why.
        why: Replacing,
    },
    /// Give that up: it leads meanwhile, and its data are the cluster's.
    KeepData {
        /// Why they were to be replaced.
        why: String,
    },
    /// Set the data aside: the server is stopped, its container gone.
    SetAside,
    /// Let mysqld itself check the variables.
    Validate {
        /// The file.
        config: Box<ServerConfig>,
    },
    /// Write the file for the next start.
    WriteConfig {
        /// The file.
        config: Box<ServerConfig>,
    },
    /// Put the last file back with which the server came up.
    RestoreConfig {
        /// What the server said to the new one.
        error: String,
    },
    /// Write the statements of the first start.
    WriteInit,
    /// Make the container.
    CreateContainer,
    /// Start it.
    StartContainer {
        /// What was found, where it is a repair.
        found: Option<String>,
    },
    /// Thaw it.
    Unpause,
    /// Stop the server safely: closed first, then ended.
    Stop {
        /// Why.
        why: String,
    },
    /// End a server that Docker has lost.
    EndLost,
    /// Remove the container.
    RemoveContainer {
        /// Why.
        why: String,
    },
    /// Keep the new data directory's identity in the record.
    KeepIdentity {
        /// It.
        server_uuid: String,
    },
    /// Keep the present file as the last good one, and remove the statements of the first start.
    KeepGoodConfig,
    /// Set a variable of the running server.
    SetVariable {
        /// Its name.
        name: String,
        /// Its value; the default where none.
        value: Option<String>,
        /// What was found, where it is a repair.
        found: Option<String>,
    },
    /// Set the limits of the living container.
    SetLimits,
    /// Begin a CLONE (long).
    Seed {
        /// The member the data come from.
        donor: InstanceName,
        /// Where it listens.
        address: String,
        /// On which port.
        port: u16,
    },
    /// Keep in the record that the CLONE is complete.
    FinishSeed,
    /// Give the leadership back: the cluster is empty.
    Release,
    /// Remove what is left of a deleted instance, its status last.
    Forget,
}

/// A step of the standing lane: who writes, and who follows whom.
#[derive(Debug, Clone, PartialEq)]
pub enum StandingStep {
    /// Keep a term on disk, then vote.
    AcceptTerm {
        /// It.
        term: u64,
    },
    /// Claim a free leadership (S1).
    Claim,
    /// Open for writes (L2).
    Open {
        /// The term.
        term: u64,
        /// What was found, where it is a repair.
        found: Option<String>,
    },
    /// Take no writes any more.
    Close {
        /// What was found.
        found: String,
    },
    /// Take no clients and no writes, so that it can be stopped.
    CloseToStop,
    /// Make the channel and start both threads.
    Attach {
        /// Address of the source.
        host: String,
        /// Its port.
        port: u16,
        /// Whether the receiver is to acknowledge.
        acknowledge: bool,
        /// What was found, where it is a repair.
        found: Option<String>,
    },
    /// Follow another address, keeping what was received (L6).
    Repoint {
        /// Address of the source.
        host: String,
        /// Its port.
        port: u16,
        /// Whether the receiver is to acknowledge.
        acknowledge: bool,
        /// What was found.
        found: String,
    },
    /// Start the receiver.
    StartReceiver {
        /// Whether it is to acknowledge.
        acknowledge: bool,
        /// What was found.
        found: String,
    },
    /// Start the applier.
    StartApplier {
        /// What was found.
        found: String,
    },
    /// Stop receiving and take no clients: it has transactions of its own.
    Detach {
        /// What was found.
        found: String,
    },
    /// Forget a channel that is not to be.
    ForgetSource {
        /// What was found.
        found: String,
    },
    /// Take clients again.
    LiftOffline,
    /// Make or mend accounts.
    EnsureAccounts {
        /// What was found, where it is a repair.
        found: Option<String>,
    },
    /// Look whether foreign transactions are harmless.
    JudgeForeign,
    /// Commit empty transactions on the master for harmless foreign ones (L7 b).
    SettleForeign,
    /// Switch semi-sync towards replicas off on a server that follows.
    SemiSyncOff {
        /// What was found.
        found: String,
    },
    /// Let the receiver acknowledge, or no more: it takes effect with the receiver's start.
    Acknowledge {
        /// Whether.
        on: bool,
        /// The receiver runs, and is started again.
        restart: bool,
        /// What was found, where it is a repair.
        found: Option<String>,
    },
    /// Lock replication accounts of those that must not be counted, unlock the others (V3).
    LockReceivers {
        /// Users to lock; their connections are ended, too.
        lock: Vec<String>,
        /// Users to unlock.
        unlock: Vec<String>,
    },
    /// End connections of receivers that are shut out (V3, L12).
    EndReceivers {
        /// Whose.
        users: Vec<String>,
    },
    /// End connections that acknowledge and are not to be counted (L12).
    EndStrangers {
        /// Whose.
        users: Vec<String>,
    },
    /// Let commits wait for so many acknowledgements, more than now.
    RaiseAcks {
        /// How many.
        acks: u32,
        /// What was found, where it is a repair.
        found: Option<String>,
    },
    /// Let commits wait for fewer acknowledgements, 0 for none: only on a linearizable read that says so (L5).
    LowerAcks {
        /// How many.
        acks: u32,
    },
    /// Commit a marker, so that voters which hold the waiting commits already are asked again (L13).
    Nudge,
    /// A handover is seen: keep its term on disk, and have at hand what will be needed at once.
    Prepare {
        /// The term.
        term: u64,
    },
    /// The old master receives from the candidate before the freeze, and applies nothing: the other's first commits wait for
    /// its acknowledgement.
    FollowCandidate {
        /// The candidate's address.
        host: String,
        /// Its port.
        port: u16,
    },
    /// Stop receiving from the old master, for good, and vote: the way behind the candidate.
    MoveBehind {
        /// The term.
        term: u64,
    },
    /// Take no writes any more, let the candidate hear of it, and publish what was executed last unless it wins soon.
    Freeze {
        /// The term.
        term: u64,
    },
    /// Publish the final set of a frozen server.
    PublishFinal {
        /// The term.
        term: u64,
    },
    /// Win the decision for the old master, which goes on in the new term.
    TakeBack {
        /// The term.
        term: u64,
        /// Why.
        why: String,
    },
    /// Apply the old master's final set, win the decision, open.
    TakeOver {
        /// The term.
        term: u64,
        /// The final set.
        executed: GtidSet,
    },
    /// Let scheduled events run, or not.
    ScheduleEvents {
        /// Run.
        on: bool,
        /// What was found, where that is drift.
        found: Option<String>,
    },
    /// Set and clear the READ ONLY flags of schemas.
    SetFrozen {
        /// Which.
        flags: Flags,
        /// What was found, where that is drift.
        found: Option<String>,
    },
    /// End the clients of a server that led: it follows now.
    StepDown,
    /// Turn on the scheduled events that ran on the one that led before.
    TakeEvents {
        /// It.
        from: InstanceName,
        /// The term they are taken over in.
        term: u64,
    },
    /// Commit a marker behind the change of voters, and look for it on those that stay (V3; long).
    BeginBarrier {
        /// The record, by its revision.
        revision: i64,
    },
}

impl ConvergeStep {
    /// Its name, for logs and failpoints.
    pub fn name(&self) -> String {
        variant(self)
    }
}

impl StandingStep {
    /// Its name, for logs and failpoints.
    pub fn name(&self) -> String {
        variant(self)
    }
}

fn variant(step: &impl std::fmt::Debug) -> String {
    let text = format!("{step:?}");
    text.split([' ', '{', '(']).next().unwrap_or_default().to_owned()
}
