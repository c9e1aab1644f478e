//! The shell of the agent: observers and adapters around the pure plan.
//!
//! | module | holds |
//! |---|---|
//! | [`settings`] | file, environment and flags |
//! | [`host`] | the loop over the host's instances, and what the host reports of itself |
//! | [`instance`] | one instance and its two lanes |
//! | [`facts`], [`wishes`] | from what is known of the store to what is asked of each instance |
//! | [`requests`] | what is asked once |
//! | [`events`] | what happened |
//! | [`template`] | data directories made once per image |
//! | [`containers`] | the seam to Docker |
//! | [`mysqld`] | the seam to the servers |
//! | [`disk`] | the seam to the host's disk: data, templates, retired data, records |
//! | [`context`] | what all parts share |

#![cfg_attr(not(test), warn(clippy::disallowed_methods, clippy::disallowed_types))]

// The adapter to Docker: sockets, processes and the daemon's wall time are its business.
#[allow(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod containers;
pub mod context;
// The adapter to the disk.
#[allow(clippy::disallowed_methods)]
pub mod disk;
pub mod events;
pub mod facts;
pub mod host;
pub mod instance;
// The adapter to the servers: sockets are its business.
#[allow(clippy::disallowed_methods)]
pub mod mysqld;
pub mod requests;
pub mod settings;
pub mod template;
pub mod wishes;

pub use schemadock_store::{clock, failpoints};
