//! A planned change of who leads, in every order of what the agents do.

use proptest::prelude::*;
use schemadock_schema::status::{WaitKind, WaitingOn};
use schemadock_schema::target::Role;

use super::*;

/// A lossless cluster, led by the first.
fn lossless(members: u8) -> World {
    let mut world = World::new();
    for n in 1..=members {
        world.register(n);
        world.apply(n, if n == 1 { target(Role::Master, None) } else { target(Role::Minion, Some(1)) });
    }
    world.settle().unwrap();
    let voters = (2..=members).map(|n| Voter {
        name: name(n),
        server_uuid: world.server(n).expect("a server").server_uuid.clone(),
    });
    let voters = voters.collect();
    let record = world.leadership.as_mut().expect("somebody leads");
    record.voters = voters;
    (record.acks, record.durability) = (1, Durability::Lossless);
    world.settle().unwrap();
    world.judge().unwrap();
    world
}

impl World {
    fn hand_over(&mut self, to: u8) {
        let record = self.leadership.as_mut().expect("somebody leads");
        record.term += 1;
        (record.phase, record.to) = (LeadershipPhase::Handover, Some(name(to)));
    }

    /// Documents as the controller writes them for who leads.
    fn rewrite(&mut self) {
        let leader = self.leader().expect("somebody leads");
        for (n, document) in &mut self.targets {
            document.target = match *n == leader {
                true => target(Role::Master, None),
                false => target(Role::Minion, Some(leader)),
            };
        }
    }

    /// The handover ends with this one as master, and all is well behind it.
    fn goes_on_under(&mut self, to: u8) {
        self.settle().unwrap();
        assert_eq!(self.leader(), Some(to));
        self.rewrite();
        self.settle().unwrap();
        self.write();
        self.judge().unwrap();
    }

    /// At most one takes writes, and nobody asks to be taken out of the voters (V5).
    fn one_writer(&self) {
        for host in self.hosts.values() {
            let Some(status) = &host.status else { continue };
            let asks = |waiting: &WaitingOn| {
                waiting.kind == WaitKind::Voters && waiting.name == status.name.as_str()
            };
            assert!(!status.waiting_on.as_ref().is_some_and(asks), "{status:?}");
        }
        let open = self.hosts.values().filter(|h| h.seen.server.present().is_some_and(|s| s.writable()));
        assert!(open.count() <= 1, "{}", self.describe());
    }
}

#[test]
fn the_leadership_is_handed_there_and_back() {
    let mut world = lossless(3);
    for to in [2, 1, 3] {
        world.write();
        world.hand_over(to);
        world.goes_on_under(to);
    }
}

/// The old master receives from the new one before it is frozen.
#[test]
fn two_hand_it_to_each_other() {
    let mut world = lossless(2);
    for to in [2, 1, 2] {
        world.write();
        world.hand_over(to);
        let mut early = false;
        while world.leadership.as_ref().is_some_and(|record| record.phase == LeadershipPhase::Handover) {
            let passed = [1, 2].map(|n| world.pass(n));
            assert!(passed.contains(&true), "{}", world.describe());
            world.one_writer();
            let old = world.server(3 - to).expect("a server");
            early |= old.writable() && old.channel.is_some() && old.acknowledging;
        }
        assert!(early);
        world.goes_on_under(to);
    }
}

/// From the old master's server itself, before its vote is in etcd.
#[test]
fn a_final_set_that_was_heard_will_do() {
    let mut world = lossless(3);
    world.write();
    world.hand_over(2);
    while world.server(1).expect("a server").writable() {
        let passed = [3, 2, 1].map(|n| world.pass(n));
        assert!(passed.contains(&true), "{}", world.describe());
    }
    let vote = world.votes.remove(&name(1)).expect("the final set");
    let early = Vote { term: vote.term - 1, ..vote.clone() };
    let other = Vote { server_uuid: "another".to_owned(), ..vote.clone() };
    let elsewhere = Vote { cluster: "elsewhere".parse().expect("a name"), ..vote.clone() };
    for (heard, takes_over) in [(early, false), (other, false), (elsewhere, false), (vote, true)] {
        world.hosts.get_mut(&2).expect("a host").seen.handover.heard = Some(heard);
        world.pass(2);
        assert_eq!(world.leader() == Some(2), takes_over);
    }
    world.goes_on_under(2);
}

/// What may happen in between.
#[derive(Debug, Clone, Copy)]
enum Event {
    Pass,
    Write,
    AgentRestarts,
    ServerEnds,
    Late,
}

fn stories() -> impl Strategy<Value = Vec<(u8, Event)>> {
    let event = prop_oneof![
        8 => Just(Event::Pass),
        4 => Just(Event::Write),
        1 => Just(Event::AgentRestarts),
        1 => Just(Event::ServerEnds),
        1 => Just(Event::Late),
    ];
    proptest::collection::vec((1u8..=3, event), 0..30)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_in_between_one_of_both_leads_with_all_that_was_acknowledged(
        members in 2u8..=3,
        story in stories(),
    ) {
        let mut world = lossless(members);
        world.write();
        world.hand_over(2);
        for (n, event) in story.iter().filter(|(n, _)| *n <= members) {
            match event {
                Event::Pass => drop(world.pass(*n)),
                Event::Write => world.write(),
                Event::AgentRestarts => world.restart_agent(*n),
                Event::ServerEnds => world.end(*n),
                Event::Late => world.hosts.get_mut(n).unwrap().seen.handover.late = true,
            }
            world.one_writer();
        }
        world.settle().map_err(|failure| TestCaseError::fail(format!("{story:?}: {failure}")))?;
        let leader = world.leader().expect("somebody leads");
        prop_assert!(leader == 1 || leader == 2);
        prop_assert_eq!(world.leadership.as_ref().unwrap().phase, LeadershipPhase::Steady);
        world.rewrite();
        world.settle().map_err(|failure| TestCaseError::fail(format!("{story:?}: {failure}")))?;
        world.write();
        world.judge().map_err(|failure| TestCaseError::fail(format!("{story:?}: {failure}")))?;
    }
}
