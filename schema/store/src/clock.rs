//! Wall time: what it was at the start, plus what has elapsed since by tokio's clock.

use std::time::Duration;

use schemadock_schema::Timestamp;
use tokio::time::Instant;

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    wall: Timestamp,
    started: Instant,
}

impl Clock {
    /// A clock that shows `wall` now.
    pub fn start(wall: Timestamp) -> Self {
        Self { wall, started: Instant::now() }
    }

    /// Wall time now.
    pub fn now(&self) -> Timestamp {
        self.wall.saturating_add(self.started.elapsed()).unwrap_or(self.wall)
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}
