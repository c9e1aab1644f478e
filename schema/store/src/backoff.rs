//! How long to wait before trying again: exponential, capped, with jitter from a seeded generator, so that one seed
//! always gives the same delays.
//!
//! The project's only use of the crate `backoff`. Its own jitter is switched off (it draws from a generator that
//! cannot be seeded), and so is its limit of time: there is no last attempt.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff as _;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

/// The delays of one loop.
#[derive(Debug)]
pub struct Delays {
    growing: ExponentialBackoff,
    jitter: StdRng,
}

impl Delays {
    /// Delays that grow from `initial` by half each time up to `cap`; each is drawn from its upper half.
    pub fn new(seed: u64, initial: Duration, cap: Duration) -> Self {
        let growing = ExponentialBackoff {
            current_interval: initial,
            initial_interval: initial,
            randomization_factor: 0.0,
            multiplier: 1.5,
            max_interval: cap,
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        };
        Self { growing, jitter: StdRng::seed_from_u64(seed) }
    }

    /// How long to wait this time. Never zero, never above the cap.
    pub fn next_delay(&mut self) -> Duration {
        // The crate adds up to a nanosecond at random to what it returns; the interval itself is exact.
        let interval = self.growing.current_interval.min(self.growing.max_interval);
        let _ = self.growing.next_backoff();
        interval.mul_f64(self.jitter.random_range(0.5..1.0))
    }

    /// Starts over: what was tried has worked.
    pub fn reset(&mut self) {
        self.growing.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INITIAL: Duration = Duration::from_millis(50);
    const CAP: Duration = Duration::from_secs(3);

    #[test]
    fn one_seed_gives_the_same_delays() {
        let draw = |seed| {
            let mut delays = Delays::new(seed, INITIAL, CAP);
            (0..20).map(|_| delays.next_delay()).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn delays_grow_up_to_the_cap_and_start_over() {
        let mut delays = Delays::new(1, INITIAL, CAP);
        let first = delays.next_delay();
        assert!(first >= INITIAL / 2 && first <= INITIAL, "{first:?}");
        let late = (0..30).map(|_| delays.next_delay()).last().unwrap();
        assert!(late >= CAP / 2 && late <= CAP, "{late:?}");
        delays.reset();
        assert!(delays.next_delay() <= INITIAL);
    }
}
