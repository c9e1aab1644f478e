//! The `schemadock` command line; the controller's service joins it here.
//!
//! | module | holds |
//! |---|---|
//! | [`cli`] | the command line: arguments, commands, output |
//! | [`office`] | holding the controller's office |

pub mod cli;
pub mod office;
