//! A planned change of master as a person would do it who has prepared everything: sessions are open, the third server is
//! attached to the new master before the freeze, and nothing is written down anywhere.

use std::time::Duration;

use futures::future::join_all;
use schemadock_integration::fleet::{Fleet, Roamer, Sql};
use schemadock_schema::Timestamp;

use crate::floor::Server;
use crate::operations::milliseconds;

/// Three servers with the durability settings of `lossless`, the first one the master.
pub(crate) async fn prepare(fleet: &Fleet, servers: &[Server]) {
    for server in servers {
        server.prepare(fleet);
        server.start();
    }
    let mut all = join_all(servers.iter().map(Server::answers)).await;
    for sql in &mut all {
        for half in ["source", "replica"] {
            sql.run(&format!("INSTALL PLUGIN rpl_semi_sync_{half} SONAME 'semisync_{half}.so'")).await;
        }
        sql.run("SET GLOBAL sync_relay_log = 1").await;
        sql.run("SET GLOBAL rpl_semi_sync_source_timeout = 1000000000000000000").await;
    }
    for (sql, server) in all.iter_mut().zip(servers).skip(1) {
        sql.run("SET GLOBAL rpl_semi_sync_replica_enabled = ON").await;
        server.attach(sql, &servers[0]).await;
        sql.run("SET GLOBAL super_read_only = ON").await;
    }
    all[0].run("SET GLOBAL rpl_semi_sync_source_enabled = ON").await;
}

/// Three such servers, and the application that writes to them.
pub(crate) struct ByHand<'a> {
    servers: &'a [Server],
    all: Vec<Sql>,
    roamer: Roamer,
    /// Which one leads.
    pub(crate) leads: usize,
}

impl<'a> ByHand<'a> {
    pub(crate) async fn new(servers: &'a [Server]) -> Self {
        let all = join_all(servers.iter().map(Server::answers)).await;
        let roamer = Server::roamer(servers).await;
        roamer.more(200).await;
        roamer.pause(true);
        Self { servers, all, roamer, leads: 0 }
    }

    /// The time without acknowledgements of a change of master, in milliseconds.
    pub(crate) async fn gap(&mut self) -> f64 {
        let (old, new) = (self.leads, 1 - self.leads);
        let (servers, all, roamer) = (self.servers, &mut self.all, &self.roamer);
        all[2].run("STOP REPLICA").await;
        servers[2].attach(&mut all[2], &servers[new]).await;
        roamer.pause(false);
        tokio::time::sleep(Duration::from_millis(500)).await;
        roamer.look();
        roamer.more(20).await;
        let frozen = hand_over(all, old, new).await;
        roamer.more(50).await;
        let (before, after) = roamer.look().around(frozen).expect("rows before and after");
        roamer.pause(true);
        all[old].run("SET GLOBAL rpl_semi_sync_source_enabled = OFF").await;
        all[new].run("STOP REPLICA").await;
        all[new].run("RESET REPLICA ALL").await;
        all[old].run("SET GLOBAL rpl_semi_sync_replica_enabled = ON").await;
        servers[old].attach(&mut all[old], &servers[new]).await;
        self.leads = new;
        milliseconds(before, after)
    }
}

/// A moment at which nobody took writes.
async fn hand_over(all: &mut [Sql], old: usize, new: usize) -> Timestamp {
    all[old].run("SET GLOBAL super_read_only = ON").await;
    let executed = all[old].global("gtid_executed").await;
    all[new].run(&format!("DO WAIT_FOR_EXECUTED_GTID_SET('{executed}', 1)")).await;
    all[new].run("STOP REPLICA IO_THREAD").await;
    all[new].run("SET GLOBAL rpl_semi_sync_replica_enabled = OFF").await;
    all[new].run("SET GLOBAL rpl_semi_sync_source_enabled = ON").await;
    let frozen = Timestamp::now();
    all[new].run("SET GLOBAL read_only = OFF").await;
    frozen
}
