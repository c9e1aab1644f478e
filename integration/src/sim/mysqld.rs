//! Simulated servers.
//!
//! Of the facts that were measured on real ones they keep to these:
//! * what was executed and received survives every end (`sync_binlog`, `sync_relay_log`, `relay_log_recovery=OFF`);
//!   everything that `SET GLOBAL` sets does not;
//! * a server starts as its file says; both replication threads are off after a start; an init file that is named and
//!   not there ends it; the port is bound when it listens;
//! * `super_read_only=ON` turns `read_only` on, `read_only=OFF` turns `super_read_only` off; markers and account
//!   statements are refused with 1290 under `super_read_only`, empty transactions and the channel's statements are not;
//! * a new channel and RESET throw relay logs away; a change of the address alone does not while the applier runs; a
//!   receiver that is connecting takes up to 2 s to stop; `SOURCE_CONNECT_RETRY` is 1 s;
//! * a source that has purged what a replica lacks refuses (13114, with 1236 in its text); nobody looks for foreign
//!   transactions;
//! * CLONE drops the rows first, keeps `auto.cnf`, brings accounts, purged GTIDs and the channel's settings, and ends
//!   with an exit with code 0; one whose session is gone goes on, one whose session is killed ends;
//! * a frozen server answers nothing; its connections stay open;
//! * a commit that waits for acknowledgements is in the binary log and at replicas, not yet in `gtid_executed`; a start
//!   commits it; what `super_read_only=ON` waits for, and who is told what, stands in [`semisync`].
//!
//! *Caveats*: transactions have no content, but those of a FLUSH are known as such; appliers never fail; `LOCK TABLES`
//! has no effect; TLS is not looked at.

pub(super) mod data;
mod replication;
mod seeding;
mod semisync;
pub(super) mod server;
mod session;
mod statement;

use std::time::Duration;

use async_trait::async_trait;
use schemadock_agent::mysqld::{Endpoint, Login, MysqlError, Mysqld, Session};

use super::disk::instance_at_run;
use super::life::Life;
use statement::{SimSession, refused};

/// The servers, as one life of an agent reaches them.
#[derive(Clone)]
pub struct SimMysqld {
    life: Life,
}

impl SimMysqld {
    /// For this life.
    pub fn new(life: Life) -> SimMysqld {
        SimMysqld { life }
    }
}

#[async_trait]
impl Mysqld for SimMysqld {
    async fn connect(
        &self,
        endpoint: &Endpoint,
        login: &Login,
        deadline: Duration,
    ) -> Result<Box<dyn Session>, MysqlError> {
        const WHAT: &str = "the login";
        const LOGIN: std::ops::Range<u64> = 500..5_000;
        let told = endpoint.to_string();
        let host = self.life.host().clone();
        let life = self.life.number();
        let who = |part: &str| (login.user.clone(), part.to_owned());
        let connected = self
            .life
            .call(LOGIN, |state| {
                let found = match endpoint {
                    Endpoint::Socket(path) => {
                        let instance = instance_at_run(path);
                        let own = |server: &&server::Server| {
                            server.up && server.host == host && Some(&server.instance) == instance.as_ref()
                        };
                        state.servers.values().find(own)
                    }
                    Endpoint::Tcp { host, port } => state.listener(host, *port),
                };
                let Some(server) = found else {
                    let why = "connection refused".to_owned();
                    return Err(MysqlError::Connection { endpoint: told.clone(), why });
                };
                if server.paused || state.apart(&host, &server.host) {
                    return Ok(None);
                }
                let accounts = &state.data[&server.data].accounts;
                let local = matches!(endpoint, Endpoint::Socket(_)).then(|| accounts.get(&who("localhost")));
                let account = local.flatten().or_else(|| accounts.get(&who("%")));
                if account.is_none_or(|kept| kept.locked || kept.password != login.password.expose()) {
                    return refused(WHAT, 1045, "access denied");
                }
                let (pid, id) = (server.pid, state.next_id());
                if let Some(server) = state.servers.get_mut(&pid) {
                    let session = server::Login { user: login.user.clone(), life: Some(life) };
                    server.sessions.insert(id, session);
                }
                Ok(Some((pid, id)))
            })
            .await?;
        match connected {
            Some((pid, id)) => {
                Ok(Box::new(SimSession { life: self.life.clone(), pid, id, endpoint: endpoint.to_string() }))
            }
            None => {
                tokio::time::sleep(deadline).await;
                self.life.moment().await;
                let seconds = deadline.as_secs_f64();
                Err(MysqlError::Deadline { endpoint: endpoint.to_string(), what: WHAT, seconds })
            }
        }
    }
}
