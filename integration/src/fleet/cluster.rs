//! Whole clusters of a fleet under test, as a controller makes them.

use schemadock_schema::operation::Operation;

use super::{Fleet, Ledger, Options};

/// The number of the host that a member is on.
pub fn number_of(member: &str) -> u8 {
    let host = member.split('-').next().unwrap_or(member);
    host.trim_start_matches("schemadock").parse().expect("members here are named by their hosts")
}

impl Fleet {
    /// A fleet with a controller in office and a cluster of three; `small`, so that each host has room for more.
    pub async fn with_cluster(hosts: u8, cluster: &str) -> Fleet {
        let mut fleet = Fleet::bare(Options::hosts(hosts)).await;
        for agent in &mut fleet.agents {
            agent.set("memory", "\"3GiB\"");
        }
        fleet.start_agents().await;
        fleet.start_controller(&[]);
        fleet.until_office().await;
        fleet.done(&["cluster", "create", cluster, "--replicas", "2", "--size", "small"]).await;
        fleet
    }

    /// Waits for a controller in office.
    pub async fn until_office(&self) {
        let key = self.keys.controller_leader();
        self.until("a controller in office", |world| world.entry(&key).map(|_| ())).await;
    }

    /// Who leads a cluster.
    pub fn leads(&self, cluster: &str) -> String {
        self.world().leadership(cluster).and_then(|record| record.master).expect("somebody leads").to_string()
    }

    /// The other members.
    pub fn minions(&self, cluster: &str) -> Vec<String> {
        let leads = self.leads(cluster);
        self.world()
            .members(cluster)
            .into_iter()
            .map(|(name, ..)| name)
            .filter(|name| *name != leads)
            .collect()
    }

    /// Where its members listen.
    pub fn places(&self, cluster: &str) -> Vec<(String, u16)> {
        self.world().members(cluster).into_iter().map(|(_, address, port)| (address, port)).collect()
    }

    /// Waits until every member of a cluster is as it is to be, and all minions vote.
    pub async fn until_converged_cluster(&self, cluster: &str) {
        self.until("the cluster is whole", |world| {
            let members = world.members(cluster);
            let voters = world.leadership(cluster)?.voters.len();
            let all = members.iter().all(|(name, ..)| world.converged(name));
            (all && voters + 1 == members.len()).then_some(())
        })
        .await;
    }

    /// Waits until the operation asked for last is over.
    pub async fn until_over(&self) -> Operation {
        let below = self.keys.operations();
        self.until("the operation is over", |world| {
            let last = world.below(&below).last()?;
            let operation: Operation = serde_json::from_slice(&last.value).ok()?;
            operation.state.is_over().then_some(operation)
        })
        .await
    }
}

impl Ledger {
    /// Says what the application saw of an operation: nothing else tells people how it went.
    pub fn tell(&self, what: &str) {
        println!(
            "{what}: longest without an acknowledgement {:.1} ms, longest statement {:.1} ms",
            self.gap.as_secs_f64() * 1e3,
            self.longest.as_secs_f64() * 1e3
        );
    }
}
