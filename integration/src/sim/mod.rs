//! The world, simulated: what stands behind the seams when a run must be fast, seeded and breakable.
//!
//! Each part is held against the real one by a suite that runs on both.

pub mod store;
