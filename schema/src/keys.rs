//! Where each document stands in etcd. Nothing else in the project spells a key.

use crate::{ClusterName, HostName, InstanceName};

/// The keys under one prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    prefix: String,
}

impl Keys {
    /// Keys below `prefix` (no slash at its end).
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.trim_end_matches('/').to_owned() }
    }

    /// The prefix itself, without a slash at its end.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    fn at(&self, tail: &str) -> String {
        format!("{}/{tail}", self.prefix)
    }

    /// The fleet's identity.
    pub fn fleet(&self) -> String {
        self.at("fleet")
    }

    /// All targets; ends with a slash, as every prefix here.
    pub fn targets(&self) -> String {
        self.at("targets/")
    }

    /// The targets of one host.
    pub fn targets_of(&self, host: &HostName) -> String {
        self.at(&format!("targets/{host}/"))
    }

    /// One instance's target.
    pub fn target(&self, host: &HostName, instance: &InstanceName) -> String {
        self.at(&format!("targets/{host}/{instance}"))
    }

    /// All statuses.
    pub fn statuses(&self) -> String {
        self.at("status/")
    }

    /// The statuses of one host.
    pub fn statuses_of(&self, host: &HostName) -> String {
        self.at(&format!("status/{host}/"))
    }

    /// One instance's status.
    pub fn status(&self, host: &HostName, instance: &InstanceName) -> String {
        self.at(&format!("status/{host}/{instance}"))
    }

    /// All hosts.
    pub fn hosts(&self) -> String {
        self.at("hosts/")
    }

    /// One host.
    pub fn host(&self, host: &HostName) -> String {
        self.at(&format!("hosts/{host}"))
    }

    /// Which hosts' agents live.
    pub fn alive_all(&self) -> String {
        self.at("alive/")
    }

    /// Present while a host's agent lives.
    pub fn alive(&self, host: &HostName) -> String {
        self.at(&format!("alive/{host}"))
    }

    /// All member lists.
    pub fn members_all(&self) -> String {
        self.at("members/")
    }

    /// The names of a cluster's members: a guard only.
    pub fn members(&self, cluster: &ClusterName) -> String {
        self.at(&format!("members/{cluster}"))
    }

    /// All requests.
    pub fn requests(&self) -> String {
        self.at("requests/")
    }

    /// What is kept below a host's name, its targets aside: prefixes, with a slash at their ends.
    pub fn kept_of(&self, host: &HostName) -> Vec<String> {
        let kinds = ["status", "requests", "caches", "logs", "votes", "evidence"];
        kinds.iter().map(|kind| self.at(&format!("{kind}/{host}/"))).collect()
    }

    /// The requests to one host's agent.
    pub fn requests_of(&self, host: &HostName) -> String {
        self.at(&format!("requests/{host}/"))
    }

    /// One request.
    pub fn request(&self, host: &HostName, id: &str) -> String {
        self.at(&format!("requests/{host}/{id}"))
    }

    /// All caches that agents have published on request.
    pub fn caches(&self) -> String {
        self.at("caches/")
    }

    /// What one host's agent remembers of a cluster, published on request.
    pub fn cache(&self, host: &HostName, cluster: &ClusterName) -> String {
        self.at(&format!("caches/{host}/{cluster}"))
    }

    /// The last lines of an instance's error log, written when its server ended unasked.
    pub fn log(&self, host: &HostName, instance: &InstanceName) -> String {
        self.at(&format!("logs/{host}/{instance}"))
    }

    /// All cluster policies.
    pub fn clusters(&self) -> String {
        self.at("clusters/")
    }

    /// One cluster's policy.
    pub fn cluster(&self, cluster: &ClusterName) -> String {
        self.at(&format!("clusters/{cluster}"))
    }

    /// All leadership records.
    pub fn leaderships(&self) -> String {
        self.at("leadership/")
    }

    /// One cluster's leadership record.
    pub fn leadership(&self, cluster: &ClusterName) -> String {
        self.at(&format!("leadership/{cluster}"))
    }

    /// How all handovers ended.
    pub fn handovers(&self) -> String {
        self.at("handover/")
    }

    /// How the handovers of a cluster ended.
    pub fn handovers_of(&self, cluster: &ClusterName) -> String {
        self.at(&format!("handover/{cluster}/"))
    }

    /// How the handover of one term ended.
    pub fn handover(&self, cluster: &ClusterName, term: u64) -> String {
        self.at(&format!("handover/{cluster}/{term}"))
    }

    /// All cordons.
    pub fn cordons(&self) -> String {
        self.at("cordons/")
    }

    /// One host's cordon.
    pub fn cordon(&self, host: &HostName) -> String {
        self.at(&format!("cordons/{host}"))
    }

    /// All votes.
    pub fn votes(&self) -> String {
        self.at("votes/")
    }

    /// One instance's vote.
    pub fn vote(&self, host: &HostName, instance: &InstanceName) -> String {
        self.at(&format!("votes/{host}/{instance}"))
    }

    /// What an instance's agent sees of its server and its master.
    pub fn evidence(&self, host: &HostName, instance: &InstanceName) -> String {
        self.at(&format!("evidence/{host}/{instance}"))
    }

    /// All credentials.
    pub fn secrets_all(&self) -> String {
        self.at("secrets/")
    }

    /// One cluster's credentials.
    pub fn secrets(&self, cluster: &ClusterName) -> String {
        self.at(&format!("secrets/{cluster}"))
    }

    /// All server ids.
    pub fn ids(&self) -> String {
        self.at("ids/")
    }

    /// Who has a server id.
    pub fn id(&self, server_id: u32) -> String {
        self.at(&format!("ids/{server_id}"))
    }

    /// All operations.
    pub fn operations(&self) -> String {
        self.at("operations/")
    }

    /// One operation.
    pub fn operation(&self, id: &str) -> String {
        self.at(&format!("operations/{id}"))
    }

    /// The operation that holds a cluster.
    pub fn lock(&self, cluster: &ClusterName) -> String {
        self.at(&format!("locks/{cluster}"))
    }

    /// All locks.
    pub fn locks(&self) -> String {
        self.at("locks/")
    }

    /// All routes.
    pub fn routes(&self) -> String {
        self.at("routes/")
    }

    /// Where clients find master and replicas of a cluster.
    pub fn route(&self, cluster: &ClusterName) -> String {
        self.at(&format!("routes/{cluster}"))
    }

    /// All events.
    pub fn events(&self) -> String {
        self.at("events/")
    }

    /// The events of a cluster (`-` for a host's own).
    pub fn events_of(&self, cluster: &str) -> String {
        self.at(&format!("events/{cluster}/"))
    }

    /// One event.
    pub fn event(&self, cluster: &str, id: &str) -> String {
        self.at(&format!("events/{cluster}/{id}"))
    }

    /// Who holds the controller's office.
    pub fn controller_leader(&self) -> String {
        self.at("controller/leader")
    }

    /// All copies of the controller.
    pub fn controllers(&self) -> String {
        self.at("controllers/")
    }

    /// One copy of the controller.
    pub fn controller(&self, id: &str) -> String {
        self.at(&format!("controllers/{id}"))
    }

    /// The last part of a key: the instance, cluster or host it is about.
    pub fn last_part(key: &str) -> &str {
        key.rsplit('/').next().unwrap_or(key)
    }

    /// The parts of a key below its kind: host and instance of a target, cluster and term of a handover.
    pub fn parts<'a>(&self, key: &'a str) -> Option<(&'a str, &'a str)> {
        let tail = key.strip_prefix(&self.prefix)?.strip_prefix('/')?;
        let (_kind, rest) = tail.split_once('/')?;
        rest.split_once('/')
    }

    /// The host and instance of a target's, status' or vote's key.
    pub fn host_and_instance(&self, key: &str) -> Option<(HostName, InstanceName)> {
        let tail = key.strip_prefix(&self.prefix)?.strip_prefix('/')?;
        let mut parts = tail.split('/');
        let _kind = parts.next()?;
        let found = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        parts.next().is_none().then_some(found)
    }
}
