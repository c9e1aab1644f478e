//! The `schemadock` command line; the controller's service joins it here.
//!
//! | module | holds |
//! |---|---|
//! | [`cli`] | the command line: arguments, commands, output |

pub mod cli;
