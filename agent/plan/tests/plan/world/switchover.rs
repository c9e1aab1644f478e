//! A planned change of who leads, in every order of what the agents do.

use proptest::prelude::*;
use schemadock_schema::target::Role;

use super::*;

/// A lossless cluster of three, led by the first.
fn lossless() -> World {
    let mut world = World::new();
    for n in [1, 2, 3] {
        world.register(n);
        world.apply(n, if n == 1 { target(Role::Master, None) } else { target(Role::Minion, Some(1)) });
    }
    world.settle().unwrap();
    let voters = [2, 3].map(|n| Voter {
        name: name(n),
        server_uuid: world.server(n).expect("a server").server_uuid.clone(),
    });
    let record = world.leadership.as_mut().expect("somebody leads");
    record.voters = voters.into();
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

    /// At most one takes writes.
    fn one_writer(&self) {
        let open = self.hosts.values().filter(|h| h.seen.server.present().is_some_and(|s| s.writable()));
        assert!(open.count() <= 1, "{}", self.describe());
    }
}

#[test]
fn the_leadership_is_handed_there_and_back() {
    let mut world = lossless();
    for to in [2, 1, 3] {
        world.write();
        world.hand_over(to);
        world.settle().unwrap();
        assert_eq!(world.leader(), Some(to));
        world.rewrite();
        world.settle().unwrap();
        world.write();
        world.judge().unwrap();
    }
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
    fn whatever_comes_in_between_one_of_both_leads_with_all_that_was_acknowledged(story in stories()) {
        let mut world = lossless();
        world.write();
        world.hand_over(2);
        for (n, event) in &story {
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
