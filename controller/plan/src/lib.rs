//! What a controller does: a pure function of what etcd holds and the time.
//!
//! *Guarantees*: nothing here asks a clock or a store. What is proposed carries what it was judged by; where that has
//! changed meanwhile, nothing is written and it is planned anew. One proposal touches one cluster.
//!
//! | module | holds |
//! |---|---|
//! | [`view`] | what etcd holds, read into documents |
//! | [`cluster`] | one cluster out of it |
//! | [`since`] | since when something has been so, and bounds of time |
//! | [`changes`] | writes with what they were judged by |
//! | [`leader`] | what follows from who leads: documents, routes, the end of a handover |
//! | [`durability`] | who votes, and how many acknowledgements a commit waits for |
//! | [`placement`] | which hosts new members go to |
//! | [`operation`] | changes of whole clusters, step by step |
//! | [`upkeep`] | what nobody asks for: members lost with their hosts, operations long over |
//! | [`plan`](mod@plan) | all of it, for one fleet |

#![cfg_attr(not(test), warn(clippy::disallowed_methods, clippy::disallowed_types))]

pub mod changes;
pub mod cluster;
pub mod durability;
pub mod leader;
pub mod operation;
pub mod placement;
pub mod plan;
pub mod since;
pub mod upkeep;
pub mod view;
