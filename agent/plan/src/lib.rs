//! The pure part of the agent: from what is wished, granted and observed to the one next step.
//!
//! No I/O, no clock, no randomness: ages are handed in. Two plans, one for each lane of an instance:
//!
//! | module | holds |
//! |---|---|
//! | [`observed`] | typed knowledge of one instance and its surroundings |
//! | [`desired`] | target, policy and host's defaults, resolved to what the server is to be |
//! | [`config`] | the server's configuration file and the first start's statements |
//! | [`accounts`] | the accounts a server must have |
//! | [`record`] | what the agent keeps of an instance on its own disk |
//! | [`wish`] | what the store asks of the instance |
//! | [`step`] | what a plan may say |
//! | [`standing`] | who writes, who follows whom: answers in milliseconds |
//! | [`handover`] | a planned change of who leads |
//! | [`voting`] | whose acknowledgements count |
//! | `foreign` | transactions that a member has and its master lacks |
//! | `claim` | who may claim a leadership that nobody has |
//! | [`frozen`] | schemas that take no writes |
//! | [`converge`] | Docker, disk, settings |
//! | [`data`] | the data directory: made, taken up, set aside, made anew, or refused |
//! | `seed` | data by CLONE |
//! | [`foresee`] | what each step is expected to bring: plans played through without a server |
//! | [`report`] | the instance's status, for people and for other agents |

#![cfg_attr(not(test), warn(clippy::disallowed_methods, clippy::disallowed_types))]

pub mod accounts;
mod claim;
pub mod config;
pub mod converge;
pub mod data;
pub mod desired;
mod foreign;
pub mod foresee;
pub mod frozen;
pub mod handover;
pub mod observed;
pub mod record;
pub mod report;
mod seed;
pub mod standing;
pub mod step;
pub mod voting;
pub mod wish;
