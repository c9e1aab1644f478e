//! The shared language of Schemadock: documents, names, GTID sets, key layout and validation.
//!
//! Pure: serde, no I/O, no clock, no randomness.
//!
//! | module | holds |
//! |---|---|
//! | [`names`] | names of hosts, clusters and instances, and how an instance's name is read |
//! | [`target`] | the document people edit, one per instance |
//! | [`size`] | `size` and the limits it stands for |
//! | [`policy`] | what people wish of a whole cluster |
//! | [`status`], [`host`] | what an agent reports of an instance, of its host |
//! | [`leadership`] | who may write: the record, the end of a handover, votes |
//! | [`operation`] | changes of whole clusters, the locks they hold, copies of the controller, routes |
//! | [`secrets`] | credentials of a cluster |
//! | [`request`], [`event`], [`fleet`] | single requests to an agent, what happened, the fleet's identity |
//! | [`gtid`] | sets of transactions |
//! | [`keys`] | where each document stands in etcd |
//! | [`proposal`] | writes with what they were judged by |
//! | [`known`] | what is known of the world: absent, present, or unknown and why |
//! | [`refusal`] | why an input is refused, for people and scripts |
//! | [`strict`], [`validate`] | reading what people write; rules over several documents |
//! | [`variables`] | server variables that Schemadock owns or needs |

#![cfg_attr(not(test), warn(clippy::disallowed_methods, clippy::disallowed_types))]

pub mod event;
pub mod fleet;
pub mod gtid;
pub mod host;
pub mod keys;
pub mod known;
pub mod leadership;
pub mod names;
pub mod operation;
pub mod policy;
pub mod proposal;
pub mod refusal;
pub mod request;
pub mod secrets;
pub mod size;
pub mod status;
pub mod strict;
pub mod target;
pub mod validate;
pub mod variables;

pub use jiff::Timestamp;
pub use known::{Known, WhyUnknown};
pub use names::{ClusterName, HostName, InstanceName};
