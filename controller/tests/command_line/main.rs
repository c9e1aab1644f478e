//! The command line against a real etcd, with statuses written by hand.

mod changing;
mod fleet;
mod following;
mod operations;
mod reading;
mod refusing;
mod requests;
