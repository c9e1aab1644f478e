//! The controller's service, and the `schemadock` command line.
//!
//! | module | holds |
//! |---|---|
//! | [`cli`] | the command line: arguments, commands, output |
//! | [`office`] | the service: election, the loop over the plan |

pub mod cli;
pub mod office;
