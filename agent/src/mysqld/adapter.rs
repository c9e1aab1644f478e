//! The real servers, by mysql_async: one connection a session, no pool.
//!
//! | module | holds |
//! |---|---|
//! | `wire` | a connection on which every statement has a deadline |
//! | `observing` | what the plans look at, in one round trip |
//! | `session` | the verbs |
//! | `accounts` | accounts, made and locked |
//! | `closing` | `super_read_only`, and its way back |
//! | `replication` | the channel |
//! | `seeding` | CLONE |
//! | `sessions` | ending other sessions |
//! | `binlog` | reading the server's own binary log for what a GTID did |
//! | `literal` | values that people write, as SQL |
//!
//! # Which closed server takes which statement (the agent's account, MySQL 9.7)
//!
//! | statement | `super_read_only` | `read_only` | `offline_mode` |
//! |---|---|---|---|
//! | the marker, account statements (also with `sql_log_bin=0`), ANALYZE, OPTIMIZE | 1290 | yes | yes |
//! | an empty transaction under a given GTID, `FLUSH` (it takes a GTID), SET GLOBAL, the channel, KILL | yes | yes | yes |
//! | CLONE as recipient with a user schema | 1290 | yes | yes |
//!
//! `read_only=OFF` turns `super_read_only` off, `super_read_only=ON` turns `read_only` on; the marker takes its GTID,
//! with a note (1051), also where no schema `schemadock` is.

mod accounts;
mod binlog;
mod closing;
mod events;
mod literal;
mod locks;
mod observing;
mod replication;
mod schemas;
mod seeding;
mod session;
mod sessions;
mod wire;

use std::time::Duration;

use async_trait::async_trait;

use super::{Endpoint, Login, MysqlError, Mysqld, Session};
use session::Connected;
use wire::Wire;

/// See the module.
#[derive(Debug, Clone, Copy, Default)]
pub struct Adapter;

impl Adapter {
    /// The real servers.
    pub fn new() -> Self {
        Self
    }
}

#[async_trait]
impl Mysqld for Adapter {
    async fn connect(
        &self,
        endpoint: &Endpoint,
        login: &Login,
        deadline: Duration,
    ) -> Result<Box<dyn Session>, MysqlError> {
        let wire = Wire::connect(endpoint, login, deadline).await?;
        Ok(Box::new(Connected::new(wire)))
    }
}
