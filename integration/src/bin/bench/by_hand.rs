//! A planned change of master as a person would do it who has prepared everything: sessions are open, the third server is
//! attached to the new master before the freeze, and nothing is written down anywhere.

use std::time::Duration;

use futures::future::join_all;
use schemadock_integration::fleet::{Fleet, Sql};
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

/// The times without acknowledgements, in milliseconds.
pub(crate) async fn gaps(servers: &[Server], changes: u32) -> Vec<f64> {
    let mut all = join_all(servers.iter().map(Server::answers)).await;
    let roamer = Server::roamer(servers).await;
    roamer.more(200).await;
    let mut gaps = Vec::new();
    for number in 0..changes as usize {
        let (old, new) = (number % 2, 1 - number % 2);
        all[2].run("STOP REPLICA").await;
        servers[2].attach(&mut all[2], &servers[new]).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        roamer.look();
        roamer.more(20).await;
        hand_over(&mut all, old, new).await;
        let open = Timestamp::now();
        roamer.more(50).await;
        let (before, after) = roamer.look().around(open).expect("rows before and after");
        gaps.push(milliseconds(before, after));
        all[old].run("SET GLOBAL rpl_semi_sync_source_enabled = OFF").await;
        all[new].run("STOP REPLICA").await;
        all[new].run("RESET REPLICA ALL").await;
        all[old].run("SET GLOBAL rpl_semi_sync_replica_enabled = ON").await;
        servers[old].attach(&mut all[old], &servers[new]).await;
    }
    drop(roamer.stop().await);
    gaps
}

async fn hand_over(all: &mut [Sql], old: usize, new: usize) {
    all[old].run("SET GLOBAL super_read_only = ON").await;
    let executed = all[old].global("gtid_executed").await;
    all[new].run(&format!("DO WAIT_FOR_EXECUTED_GTID_SET('{executed}', 1)")).await;
    all[new].run("STOP REPLICA IO_THREAD").await;
    all[new].run("SET GLOBAL rpl_semi_sync_replica_enabled = OFF").await;
    all[new].run("SET GLOBAL rpl_semi_sync_source_enabled = ON").await;
    all[new].run("SET GLOBAL read_only = OFF").await;
}
