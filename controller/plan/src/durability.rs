//! Who votes, and how many acknowledgements a commit waits for.
//!
//! etcd always describes the weaker of old and new: more voters, a smaller count. Rules are named as in the project's
//! leadership design (V1 … V5). One change at a time; a change that MySQL must make first (V3) stands in the record as
//! pending (`leaving`, `acks_next`) until the master's agent says that it is in force.

use schemadock_schema::leadership::{Durability, Leadership, Voter};
use schemadock_schema::policy::WishedDurability;
use schemadock_schema::status::WaitKind;
use schemadock_schema::{InstanceName, Timestamp};

use crate::cluster::{Cluster, Member};
use crate::since::{Bounds, Fact, Since};

/// How far behind a member may be that becomes a voter, in seconds.
const CLOSE_BEHIND: f64 = 10.0;

/// What is to become of a record.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Nothing.
    None,
    /// It is to be this one, and why.
    Record(Box<Leadership>, String),
    /// Nothing yet; what is waited for.
    Wait(String),
}

/// The next change of who votes in this cluster.
pub fn change(cluster: &Cluster<'_>, since: &Since, now: Timestamp, bounds: &Bounds) -> Change {
    let Some(stored) = cluster.record.filter(|_| cluster.steady()) else { return Change::None };
    let record = &stored.value;
    let Some(master) = record.master.as_ref().and_then(|name| cluster.members.get(name)) else {
        return Change::None;
    };
    // Where every member is told to stop nobody leaves, and whoever led opens again.
    if cluster.policy.paused || !master.alive || cluster.stopped() {
        return Change::None;
    }
    if let Some(key) = &cluster.unreadable {
        return Change::Wait(format!("{key} to be readable"));
    }
    let wished = cluster.wished();
    let judge = Judge { cluster, record, master, since, now, bounds };
    match (record.durability, wished) {
        (Durability::Async, WishedDurability::Async) if record.acks_next.is_some() => {
            judge.write("its policy wishes async", |record| record.acks_next = None)
        }
        (Durability::Async, WishedDurability::Async) => judge.follow_async(),
        // V2, lowering: etcd first, then the master.
        (_, WishedDurability::Async) => judge.write("its policy wishes async", |record| {
            record.durability = Durability::Async;
            record.acks = 0;
            record.acks_next = None;
            record.leaving.clear();
        }),
        (Durability::Async | Durability::Alone, WishedDurability::Lossless) => judge.towards_lossless(),
        (Durability::Lossless, WishedDurability::Lossless) => {
            judge.in_force(stored.mod_revision).unwrap_or_else(|| judge.keep_lossless())
        }
    }
}

struct Judge<'a> {
    cluster: &'a Cluster<'a>,
    record: &'a Leadership,
    master: &'a Member<'a>,
    since: &'a Since,
    now: Timestamp,
    bounds: &'a Bounds,
}

impl Judge<'_> {
    fn write(&self, why: impl Into<String>, edit: impl FnOnce(&mut Leadership)) -> Change {
        let mut record = self.record.clone();
        edit(&mut record);
        let why = why.into();
        "controller".clone_into(&mut record.by);
        record.reason.clone_from(&why);
        Change::Record(Box::new(record), why)
    }

    /// A member whose acknowledgement may count.
    fn fit(&self, member: &Member<'_>) -> bool {
        !self.must_leave(member.name)
            && member.name != self.master.name
            && member.server_uuid().is_some()
            && member.status.is_some_and(|status| status.term == Some(self.record.term))
            && self.receives(member)
    }

    /// Whether commits are acknowledged by this voter already, so that they can do without another: also by one that is to
    /// leave itself.
    fn acknowledges(&self, voter: &Voter) -> bool {
        let member = self.cluster.members.get(&voter.name);
        !self.away(voter)
            && member.is_some_and(|member| {
                member.server_uuid() == Some(voter.server_uuid.as_str())
                    && self.receives(member)
                    && member.status.and_then(|status| status.leadership_revision) == self.revision()
            })
    }

    /// Whether it follows the master itself and is close behind. What its own agent said last may be long past: that agent
    /// lives, and the master's sees it receive.
    fn receives(&self, member: &Member<'_>) -> bool {
        let connected = self.master.status.is_some_and(|status| status.receivers.contains(member.name));
        let direct = member.status.and_then(|status| status.source.as_ref()).is_some_and(|source| {
            Some(source.address.as_str()) == self.master.address && source.port == self.master.target.port
        });
        connected && direct && member.alive && member.follows(CLOSE_BEHIND)
    }

    /// V5: whoever is about to stop, to move or to lose its data.
    fn must_leave(&self, name: &InstanceName) -> bool {
        let member = self.cluster.members.get(name);
        member.is_none_or(|member| member.target.disabled || asks(member)) || self.cluster.out.contains(name)
    }

    /// Voters that stay and are there.
    fn staying(&self) -> usize {
        let stays = |voter: &&Voter| !self.record.leaving.contains(&voter.name) && !self.away(voter);
        self.record.voters.iter().filter(stays).count()
    }

    fn fit_voters(&self) -> Vec<Voter> {
        let fit = self.cluster.minions().filter(|member| self.fit(member));
        fit.filter_map(|member| {
            Some(Voter { name: member.name.clone(), server_uuid: member.server_uuid()?.to_owned() })
        })
        .collect()
    }

    /// Without acknowledgements the voters are the minions that follow; no barrier.
    fn follow_async(&self) -> Change {
        let mut voters = self.fit_voters();
        // One that is away for a moment stays named.
        let there = self.record.voters.iter().filter(|voter| {
            let same = self.cluster.members.get(&voter.name).and_then(|member| member.server_uuid());
            same == Some(voter.server_uuid.as_str())
                && !self.must_leave(&voter.name)
                && voter.name != *self.master.name
                && self.why_out(voter).is_none()
                && !voters.contains(voter)
        });
        let kept: Vec<Voter> = there.cloned().collect();
        voters.extend(kept);
        voters.sort_by(|a, b| a.name.cmp(&b.name));
        let mut before = self.record.voters.clone();
        before.sort_by(|a, b| a.name.cmp(&b.name));
        if voters == before {
            return Change::None;
        }
        self.write("the members that follow", |record| record.voters = voters)
    }

    /// From no acknowledgements to some: the voters are named, then the master waits for the larger count (V3).
    fn towards_lossless(&self) -> Change {
        let fit = self.fit_voters();
        if let Some(count) = self.record.acks_next {
            // Their receivers are started anew for it: one that is away for a moment is not lost.
            let here = self.record.voters.iter().filter(|voter| self.why_out(voter).is_none()).count();
            if here < count as usize {
                // Nothing was promised yet: taken back, and begun again when they are there.
                return self.write("too few members follow", |record| record.acks_next = None);
            }
            let Some(revision) = self.revision() else { return Change::None };
            if self.master_has(revision) {
                return self.write("the master waits for acknowledgements", |record| {
                    record.durability = Durability::Lossless;
                    record.acks = count;
                    record.acks_next = None;
                });
            }
            return Change::Wait(format!("{} to wait for acknowledgements", self.master.name));
        }
        // By the same measure as above; else it would be begun and taken back without end.
        let here = fit.iter().filter(|voter| self.why_out(voter).is_none()).count();
        let count = self.cluster.wished_acks().min(here as u32);
        if count == 0 || !self.master.runs() {
            return match self.record.durability {
                Durability::Async => self.follow_async(),
                _ => Change::Wait("a member that follows".to_owned()),
            };
        }
        self.write("lossless: the master is to wait for acknowledgements", |record| {
            record.voters = fit;
            record.acks_next = Some(count);
        })
    }

    fn revision(&self) -> Option<i64> {
        self.cluster.record.map(|stored| stored.mod_revision)
    }

    /// Whether the record of that revision is wholly in force on the master.
    fn master_has(&self, revision: i64) -> bool {
        self.master.status.is_some_and(|status| status.leadership_revision == Some(revision))
    }

    /// What is pending under lossless: done once the master has it in force.
    fn in_force(&self, revision: i64) -> Option<Change> {
        let record = self.record;
        if record.leaving.is_empty() && record.acks_next.is_none() {
            return None;
        }
        if !self.master_has(revision)
            && let Some(change) = self.unblocked()
        {
            return Some(change);
        }
        if !self.master_has(revision) {
            let waits = match record.leaving.is_empty() {
                true => "the larger count of acknowledgements".to_owned(),
                false => format!("{} to be shut out, and a barrier", names(record.leaving.iter())),
            };
            return Some(Change::Wait(waits));
        }
        let why = "the master has it in force";
        Some(self.write(why, |record| {
            let gone = std::mem::take(&mut record.leaving);
            record.voters.retain(|voter| !gone.contains(&voter.name));
            record.acks = record.acks_next.take().unwrap_or(record.acks);
        }))
    }

    /// A change under way whose barrier waits for voters that are gone meanwhile is taken back as far as it must be.
    fn unblocked(&self) -> Option<Change> {
        let record = self.record;
        let (here, needed) = (self.staying() as u32, record.acks_wanted());
        if here >= needed {
            return None;
        }
        if record.acks_next.is_some() {
            return Some(self.write("too few voters are there for more acknowledgements", |record| {
                record.acks_next = None;
            }));
        }
        // It was a voter all the time. Its account is locked: that its server runs is all that it can show.
        let back = |name: &InstanceName| {
            let member = self.cluster.members.get(name);
            let same = record.voters.iter().any(|voter| {
                voter.name == *name
                    && member.and_then(Member::server_uuid) == Some(voter.server_uuid.as_str())
            });
            same && !self.must_leave(name) && member.is_some_and(Member::runs)
        };
        if let Some(name) = record.leaving.iter().find(|name| back(name)).cloned() {
            let why = format!("{name} is needed");
            return Some(self.write(why, |record| record.leaving.retain(|other| *other != name)));
        }
        let enough = 1 + self.staying() >= self.cluster.min_copies();
        (record.acks > 1 && here > 0 && enough)
            .then(|| self.write("fewer voters are there", |record| record.acks = here))
    }

    fn keep_lossless(&self) -> Change {
        let record = self.record;
        let (voters, acks) = (record.voters.len(), record.acks as usize);
        let wished = (self.cluster.wished_acks() as usize).min(voters).max(1);
        // V2: etcd first, then the member's flag. Before anybody leaves, who may be needed then.
        let mut wider = record.voters.clone();
        wider.extend(self.fit_voters().into_iter().filter(|voter| !record.voters.contains(voter)));
        if wider.len() > voters {
            let why = format!("{} votes", names(wider[voters..].iter().map(|voter| &voter.name)));
            return self.write(why, |record| record.voters = wider);
        }
        if let Some((voter, why)) = record.voters.iter().find_map(|voter| Some((voter, self.why_out(voter)?)))
        {
            return self.without(voter, &why);
        }
        if wished < acks {
            return self.write("fewer acknowledgements are wished", |record| record.acks = wished as u32);
        }
        // One whose agent is away counts as there only while no commit waits: with more to wait for it would come and go.
        let fit = self.fit_voters();
        let here =
            record.voters.iter().filter(|voter| fit.contains(voter) && self.acknowledges(voter)).count();
        if wished > acks && here >= wished {
            return self
                .write("more acknowledgements are wished", |record| record.acks_next = Some(wished as u32));
        }
        Change::None
    }

    /// Why a voter is to leave, if it is.
    fn why_out(&self, voter: &Voter) -> Option<String> {
        let name = &voter.name;
        let Some(member) = self.cluster.members.get(name) else {
            return Some(format!("the target of {name} is gone"));
        };
        if member.target.disabled {
            return Some(format!("{name} is disabled"));
        }
        if self.cluster.out.contains(name) {
            return Some(format!("{name} is taken out by an operation"));
        }
        if asks(member) {
            return Some(format!("the agent of {name} asks for it"));
        }
        if member.server_uuid().is_some_and(|uuid| uuid != voter.server_uuid) {
            return Some(format!("{name} has other data now"));
        }
        let lost = self.since.longer(&self.away_fact(name), self.now, self.bounds.voter_lost);
        lost.then(|| format!("{name} is lost"))
    }

    fn away(&self, voter: &Voter) -> bool {
        self.since.holds(&self.away_fact(&voter.name))
    }

    fn away_fact(&self, voter: &InstanceName) -> Fact {
        Fact::VoterAway(self.cluster.name.clone(), voter.clone())
    }

    /// Takes a voter out, or says why not.
    fn without(&self, voter: &Voter, why: &str) -> Change {
        let record = self.record;
        let left = record.voters.len() - 1;
        let copies =
            1 + record.voters.iter().filter(|other| other.name != voter.name && !self.away(other)).count();
        let floor = self.cluster.min_copies();
        if copies < floor {
            return Change::Wait(format!(
                "{} copies without {}, and min_copies is {floor}: {why}, but its place is kept",
                copies, voter.name
            ));
        }
        if left == 0 {
            // V4: one write; from it on no failover without a person.
            return self.write(format!("{why}: no voter is left, it goes on alone"), |record| {
                record.durability = Durability::Alone;
                record.acks = 0;
                record.acks_next = None;
                record.voters.clear();
                record.leaving.clear();
            });
        }
        if copies - 1 < record.acks as usize {
            // V2, lowering: etcd first. With one voter that is there the count is one.
            if record.acks > 1 && copies > 1 {
                return self.write(format!("{why}: fewer acknowledgements"), |record| record.acks -= 1);
            }
            return Change::Wait(format!("a voter that is there, so that {} can leave: {why}", voter.name));
        }
        // A lost one is not counted anyway, nor one whose data are others now: nothing is gained by its staying.
        let counts = self.cluster.members.get(&voter.name).and_then(|member| member.server_uuid());
        if !self.away(voter) && counts == Some(voter.server_uuid.as_str()) {
            let others = record.voters.iter().filter(|other| other.name != voter.name);
            let (ready, late): (Vec<_>, Vec<_>) = others.partition(|other| self.acknowledges(other));
            if ready.len() < record.acks as usize {
                let late = names(late.into_iter().map(|other| &other.name));
                return Change::Wait(format!(
                    "{late} to acknowledge, so that {} can leave: {why}",
                    voter.name
                ));
            }
        }
        let name = voter.name.clone();
        self.write(why, |record| record.leaving = vec![name])
    }
}

/// V5: its agent waits until it votes no more, before it stops the server or replaces its data.
fn asks(member: &Member<'_>) -> bool {
    member
        .status
        .and_then(|status| status.waiting_on.as_ref())
        .is_some_and(|waiting| waiting.kind == WaitKind::Voters && waiting.name == member.name.as_str())
}

fn names<'a>(names: impl Iterator<Item = &'a InstanceName>) -> String {
    names.map(InstanceName::as_str).collect::<Vec<_>>().join(", ")
}
