//! What a controller does: a pure function of what etcd holds and the time.
//!
//! | module | holds |
//! |---|---|
//! | [`placement`] | which hosts new members go to |
//! | [`view`] | what etcd holds, read into documents |

#![cfg_attr(not(test), warn(clippy::disallowed_methods, clippy::disallowed_types))]

pub mod placement;
pub mod view;
