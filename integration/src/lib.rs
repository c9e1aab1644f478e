//! The fleet under test: simulated seams, fixtures, live tests on real parts, benchmarks.

pub mod fleet;
pub mod sim;
