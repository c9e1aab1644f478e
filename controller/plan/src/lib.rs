//! What a controller does: a pure function of what etcd holds and the time.
//!
//! | module | holds |
//! |---|---|
//! | [`operation`] | changes of whole clusters: why not, and which steps |
//! | [`view`] | what etcd holds, read into documents |

#![cfg_attr(not(test), warn(clippy::disallowed_methods, clippy::disallowed_types))]

pub mod operation;
pub mod view;
