//! Placement: each filter and strategy by a table, refusals as people read them, and all of it against brute force.

#[path = "placement/fleet.rs"]
mod fleet;
#[path = "placement/oracle.rs"]
mod oracle;

use std::collections::BTreeSet;

use proptest::prelude::*;
use schemadock_controller_plan::placement::{Ask, FIRST_PORT, NoRoom, Rooms, Strategy, place};
use schemadock_controller_plan::view::FleetView;
use schemadock_schema::HostName;
use schemadock_schema::size::{GIB, MIB, Size};

use fleet::{Fleet, Machine, Member, any_ask, any_fleet, any_strategy, ask, exact, fleet, hosts, name};

/// The hosts chosen, or the filters that refuse, host by host.
fn chosen(fleet: &Fleet, ask: &Ask, strategy: Strategy) -> String {
    match place(&mut Rooms::of(&fleet.view()), ask, strategy) {
        Ok(places) => {
            let places = places.iter().map(|place| format!("{}:{}", place.host, place.port));
            places.collect::<Vec<_>>().join(" ")
        }
        Err(why) => {
            let refused = why.refused.iter().map(|one| format!("{} {}", one.host, one.filter));
            format!("refused: {}", refused.collect::<Vec<_>>().join(", "))
        }
    }
}

#[test]
fn each_filter_refuses_what_it_is_for() {
    type Change = fn(&mut Machine, &mut Ask);
    let cases: &[(&str, Change)] = &[
        ("", |_, _| {}),
        ("alive", |host, _| host.alive = false),
        ("cordon", |host, _| host.cordoned = true),
        ("hosts", |_, ask| ask.hosts = hosts(&["h2"])),
        ("", |_, ask| ask.hosts = hosts(&["h2", "h1"])),
        ("without", |_, ask| ask.without = hosts(&["h1"]).into_iter().collect()),
        ("zones", |_, ask| ask.zones = vec!["b".to_owned(), "c".to_owned()]),
        ("zones", |host, ask| (host.zone, ask.zones) = (None, vec!["a".to_owned()])),
        ("", |_, ask| ask.zones = vec!["b".to_owned(), "a".to_owned()]),
        ("labels", |_, ask| drop(ask.labels.insert("disk".to_owned(), "ssd".to_owned()))),
        ("", |host, ask| {
            host.label = Some("ssd");
            ask.labels.insert("disk".to_owned(), "ssd".to_owned());
        }),
        ("members", |host, _| host.members.push(Member::of("shop", 7000))),
        ("members", |host, _| host.members.push(Member { disabled: true, ..Member::of("shop", 7000) })),
        ("port", |host, ask| {
            host.members.push(Member::of("blog", 7000));
            ask.port = Some(7000);
        }),
        ("memory", |_, ask| ask.size = exact(4 * GIB + 1, Some(1.0), None)),
        ("", |_, ask| ask.size = Size::All),
        ("memory", |host, ask| {
            host.members.push(Member { disabled: true, ..Member::of("blog", 7000) });
            ask.size = Size::All;
        }),
        ("memory", |host, _| host.members.push(Member { size: None, ..Member::of("blog", 7000) })),
        ("memory", |host, ask| (host.memory, ask.size) = (4 * GIB - 8, Size::Eighth)),
        ("cpus", |_, ask| ask.size = exact(GIB, Some(2.5), None)),
        ("", |_, ask| ask.size = exact(GIB, Some(2.0), None)),
        ("", |host, _| host.members = vec![Member { cpus: 2.5, ..Member::of("blog", 7000) }; 3]),
        ("cpus", |host, _| host.members = vec![Member { cpus: 2.6, ..Member::of("blog", 7000) }; 3]),
        ("disk", |host, ask| (host.free_disk, ask.size) = (Some(9), exact(GIB, None, Some(10)))),
        ("", |host, ask| (host.free_disk, ask.size) = (Some(10), exact(GIB, None, Some(10)))),
        ("", |host, ask| (host.free_disk, ask.size) = (None, exact(GIB, None, Some(10)))),
    ];
    for (number, (filter, change)) in cases.iter().enumerate() {
        let mut machine = Machine::of("h1", Some("a"), 4);
        let mut ask = ask("shop", exact(GIB, Some(0.5), None), 1);
        change(&mut machine, &mut ask);
        let said = chosen(&fleet(vec![machine]), &ask, Strategy::Spread);
        let refused = said.strip_prefix("refused: h1 ").and_then(|said| said.split(',').next());
        assert_eq!(refused.unwrap_or(""), *filter, "case {number}: {said}");
    }
}

#[test]
fn ports_are_the_first_free_ones() {
    let mut machine = Machine::of("h1", None, 8);
    machine.members = vec![Member::of("a", FIRST_PORT), Member::of("b", FIRST_PORT + 2)];
    let mut rooms = Rooms::of(&fleet(vec![machine]).view());
    let mut port =
        |cluster| place(&mut rooms, &ask(cluster, Size::Small, 1), Strategy::Spread).unwrap()[0].port;
    assert_eq!((port("c"), port("d")), (3307, 3309));
}

#[test]
fn strategies_in_their_order() {
    let taken = |mut machine: Machine, members: u16| {
        machine.members = (0..members).map(|n| Member::of("blog", 7000 + n)).collect();
        machine
    };
    let (a, b) = (Some("a"), Some("b"));
    let all = fleet(vec![
        taken(Machine::of("h1", a, 8), 2),
        taken(Machine::of("h2", a, 4), 2),
        taken(Machine::of("h3", a, 8), 0),
        taken(Machine::of("h4", b, 4), 2),
        taken(Machine::of("h5", None, 4), 3),
        taken(Machine::of("h6", None, 4), 3),
    ]);
    let ask = |count| ask("shop", Size::Small, count);
    // One of each zone first, and hosts without a zone are zones of their own; then the emptiest, then the name.
    assert_eq!(chosen(&all, &ask(5), Strategy::Spread), "h3:3306 h4:3306 h5:3306 h6:3306 h1:3306");
    assert_eq!(chosen(&all, &ask(5), Strategy::Pack), "h5:3306 h6:3306 h2:3306 h4:3306 h1:3306");
    // Relative to what the host offers: 2 of 4 GiB is fuller than 2 of 8.
    assert_eq!(
        chosen(&all, &Ask { zones: vec!["a".to_owned()], ..ask(2) }, Strategy::Pack),
        "h2:3306 h1:3306"
    );
    // The members that are there count; the one that leaves does not.
    let mut some = all.clone();
    some.machines[2].members.push(Member::of("shop", 7000));
    let zoned = Ask { zones: vec!["a".to_owned(), "b".to_owned()], ..ask(1) };
    assert_eq!(chosen(&some, &zoned, Strategy::Spread), "h4:3306");
    let moved = Ask { without: hosts(&["h3"]).into_iter().collect(), ..zoned.clone() };
    assert_eq!(chosen(&some, &moved, Strategy::Spread), "h1:3306");
    // Two on one host, by hand, are two.
    some.machines[2].members.push(Member::of("shop", 7001));
    some.machines[3].members.push(Member::of("shop", 7002));
    some.machines[5].zone = b;
    assert_eq!(chosen(&some, &zoned, Strategy::Spread), "h6:3306");
}

#[test]
fn a_target_takes_its_size_else_its_clusters_and_an_unreadable_one_what_its_agent_reports() {
    let mut machine = Machine::of("h1", None, 4);
    machine.members = vec![Member { size: None, ..Member::of("blog", 7000) }];
    let mut fleet = fleet(vec![machine]);
    let size = |memory| ask("shop", exact(memory, Some(1.0), None), 1);
    assert_eq!(chosen(&fleet, &size(GIB), Strategy::Spread), "refused: h1 memory");
    fleet.policies.push(("blog", exact(3 * GIB, None, None)));
    assert_eq!(chosen(&fleet, &size(GIB), Strategy::Spread), "h1:3306");
    assert_eq!(chosen(&fleet, &size(GIB + 1), Strategy::Spread), "refused: h1 memory");
    fleet.machines[0].members[0].size = Some(exact(2 * GIB, None, None));
    assert_eq!(chosen(&fleet, &size(2 * GIB), Strategy::Spread), "h1:3306");
    fleet.machines[0].members[0].garbled = true;
    let asked = Ask { port: Some(7000), ..size(2 * GIB) };
    assert_eq!(chosen(&fleet, &asked, Strategy::Spread), "refused: h1 port");
    assert_eq!(chosen(&fleet, &size(2 * GIB + 1), Strategy::Spread), "refused: h1 memory");
    assert_eq!(chosen(&fleet, &size(2 * GIB), Strategy::Spread), "h1:3306");
}

#[test]
fn a_refusal_as_people_read_it() {
    let mut machines: Vec<Machine> =
        (1..=13).map(|n| Machine::of(&format!("host{n:02}"), Some("a"), 4)).collect();
    machines.iter_mut().for_each(|machine| machine.label = Some("ssd"));
    machines[0].alive = false;
    machines[1].cordoned = true;
    machines[2].zone = Some("c");
    machines[3].zone = None;
    machines[4].label = Some("hdd");
    machines[5].label = None;
    machines[6].members = vec![Member::of("shop", 7000)];
    machines[7].members = vec![Member::of("blog", 7335)];
    machines[8].memory = 3 * GIB + 512 * MIB;
    machines[8].members = (0..3).map(|n| Member::of("blog", 7000 + n)).collect();
    machines[9].members = (0..3).map(|n| Member { cpus: 2.6, ..Member::of("blog", 7000 + n) }).collect();
    machines[10].free_disk = Some(20 * GIB);
    let mut wanted = ask("shop", exact(GIB, Some(1.0), Some(100 * GIB)), 3);
    wanted.port = Some(7335);
    wanted.zones = vec!["a".to_owned(), "b".to_owned()];
    wanted.labels.insert("disk".to_owned(), "ssd".to_owned());
    wanted.hosts = (1..=12).chain([77]).map(|n| name(&format!("host{n:02}"))).collect();
    let mut rooms = Rooms::of(&fleet(machines).view());
    insta::assert_snapshot!(place(&mut rooms, &wanted, Strategy::Spread).unwrap_err(), @r"
    places wanted for shop: 3, hosts that fit: 1 (host12)
      host01  alive: its agent is not alive
      host02  cordon: it is cordoned
      host03  zones: a or b asked, zone c found
      host04  zones: a or b asked, no zone found
      host05  labels: disk=ssd asked, disk=hdd found
      host06  labels: disk=ssd asked, no label disk found
      host07  members: it has a member of shop
      host08  port: 7335 asked, which a member of blog has
      host09  memory: 1GiB asked, 512MiB free of 3.5GiB
      host10  cpus: 1 cores asked, 0.2 free of 4 times 2
      host11  disk: 100GiB asked, 20GiB free
      host13  hosts: it is not among the hosts asked for
      host77  hosts: no host of this name is registered
    ");
    let mut of_host12 = |size| {
        let ask = Ask { size, hosts: hosts(&["host12"]), ..ask("blog", Size::All, 2) };
        let refused = place(&mut rooms, &ask, Strategy::Spread).unwrap_err().refused;
        refused.into_iter().find(|refusal| refusal.host.as_str() == "host12").unwrap().message
    };
    assert_eq!(of_host12(exact(GIB, Some(3.0), None)), "3 cores asked, 2 offered");
    assert_eq!(of_host12(exact(400 * MIB, None, None)), "400MiB asked, 512MiB is the least");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// It finds places where there are any, and places that keep every rule, as evenly spread as can be.
    #[test]
    fn brute_force_agrees((fleet, ask, strategy) in (any_fleet(), any_ask(), any_strategy())) {
        let best = oracle::best_spread(&fleet, &ask);
        match place(&mut Rooms::of(&fleet.view()), &ask, strategy) {
            Ok(places) => {
                let after = oracle::checked(&fleet, &ask, &places).map_err(TestCaseError::fail)?;
                prop_assert_eq!(Some(oracle::spread(&after, &ask)), best);
            }
            Err(why) => {
                prop_assert_eq!(best, None, "{}", why);
                prop_assert!(why.fitting.len() < ask.count);
                let (fitting, others): (Vec<_>, Vec<_>) =
                    fleet.machines.iter().partition(|machine| oracle::fits(&fleet, machine, &ask));
                prop_assert_eq!(why.fitting, fitting.iter().map(|one| one.name.clone()).collect::<Vec<_>>());
                let known: BTreeSet<&HostName> = fleet.machines.iter().map(|machine| &machine.name).collect();
                let unknown = ask.hosts.iter().filter(|host| !known.contains(host));
                let expected: BTreeSet<&HostName> = others.iter().map(|one| &one.name).chain(unknown).collect();
                let refused: Vec<&HostName> = why.refused.iter().map(|refusal| &refusal.host).collect();
                prop_assert_eq!(refused, expected.into_iter().collect::<Vec<_>>());
            }
        }
    }

    /// The order in which anything was written changes nothing.
    #[test]
    fn the_order_of_the_input_does_not_matter(
        (fleet, ask, strategy, turn) in (any_fleet(), any_ask(), any_strategy(), 0..20usize)
    ) {
        let mut other = ask.clone();
        other.hosts.reverse();
        other.zones.reverse();
        let places = |view: FleetView, ask: &Ask| {
            let refused = |why: NoRoom| why.refused.into_iter().map(|one| (one.host, one.filter)).collect::<Vec<_>>();
            place(&mut Rooms::of(&view), ask, strategy).map_err(refused)
        };
        prop_assert_eq!(places(fleet.view(), &ask), places(fleet.turned(turn), &other));
    }

    /// Rooms that took members are the rooms of a fleet that has them; those that refused are as they were.
    #[test]
    fn taking_room_is_having_the_target(
        (fleet, one, two, strategy) in (any_fleet(), any_ask(), any_ask(), any_strategy())
    ) {
        let mut rooms = Rooms::of(&fleet.view());
        let after = fleet.with(&one, &place(&mut rooms, &one, strategy).unwrap_or_default());
        prop_assert_eq!(place(&mut rooms, &two, strategy), place(&mut Rooms::of(&after.view()), &two, strategy));
    }
}
