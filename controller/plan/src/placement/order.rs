//! Which of the hosts that fit is better. The first strategy of the list that sees a difference decides.

use std::cmp::Ordering;

use super::Strategy;
use super::filters::Case;

/// What strategies compare by, beside the hosts.
struct Choice<'a> {
    strategy: Strategy,
    /// Members of the cluster in each zone, by the zone's number.
    members: &'a [usize],
}

/// The policy, in this order; the better one is `Less`.
const STRATEGIES: &[fn(&Choice, &Case, &Case) -> Ordering] = &[zones, hosts, names];

/// The better of two hosts is `Less`. Two hosts are never equal.
pub(super) fn compare(strategy: Strategy, members: &[usize], a: &Case, b: &Case) -> Ordering {
    let choice = Choice { strategy, members };
    STRATEGIES.iter().fold(Ordering::Equal, |so_far, next| so_far.then_with(|| next(&choice, a, b)))
}

/// The zone with the fewest members.
fn zones(choice: &Choice, a: &Case, b: &Case) -> Ordering {
    choice.members[a.room.zone_index].cmp(&choice.members[b.room.zone_index])
}

/// The host whose memory is taken least, or most, relative to what it offers.
fn hosts(choice: &Choice, a: &Case, b: &Case) -> Ordering {
    // Of two fractions as whole numbers, without a division that rounds.
    let cross =
        |one: &Case, other: &Case| u128::from(one.room.taken.memory) * u128::from(other.room.offered.memory);
    let emptiest = cross(a, b).cmp(&cross(b, a));
    match choice.strategy {
        Strategy::Spread => emptiest,
        Strategy::Pack => emptiest.reverse(),
    }
}

/// The name.
fn names(_: &Choice, a: &Case, b: &Case) -> Ordering {
    a.host.cmp(b.host)
}
