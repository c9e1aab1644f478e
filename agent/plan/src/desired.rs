//! Target, policy and host's defaults, resolved to what the server is to be.

use std::collections::{BTreeMap, BTreeSet};

use schemadock_schema::policy::{ClusterPolicy, WishedDurability};
use schemadock_schema::size::{Resources, buffer_pool};
use schemadock_schema::target::{Role, Target};
use schemadock_schema::variables::{lossless_value, normalise, owned_reason};
use schemadock_schema::{ClusterName, HostName, InstanceName};

/// What the host gives to every instance.
#[derive(Debug, Clone, PartialEq)]
pub struct HostDefaults {
    /// The host.
    pub host: HostName,
    /// Where servers listen.
    pub address: String,
    /// The image of instances for which nothing names one.
    pub image: String,
    /// What the agent offers.
    pub offered: Resources,
}

/// What one server is to be.
#[derive(Debug, Clone, PartialEq)]
pub struct Desired {
    /// The instance.
    pub instance: InstanceName,
    /// Its cluster.
    pub cluster: ClusterName,
    /// Its host.
    pub host: HostName,
    /// Where it listens.
    pub address: String,
    /// On which port.
    pub port: u16,
    /// The role that the target names.
    pub role: Role,
    /// The server that the target tells it to follow.
    pub source: Option<(HostName, u16)>,
    /// Stopped, with everything kept.
    pub disabled: bool,
    /// Hands off.
    pub maintenance: bool,
    /// Hands off the whole cluster.
    pub paused: bool,
    /// The image, as written.
    pub image: String,
    /// Whether the instance's own document names the image.
    pub own_image: bool,
    /// The limits.
    pub limits: Resources,
    /// Schemas whose copies in the cluster take no writes.
    pub frozen: BTreeSet<String>,
    /// Variables by normalised name: policy, then the instance's own.
    pub mysql: BTreeMap<String, String>,
    /// Variables that were asked for and are not set, each with the reason: a document that was written by hand has
    /// passed nobody's checks, and one of these could open a server (L1).
    pub refused: BTreeMap<String, String>,
    /// Names of the variables that the instance's own document sets.
    pub own_mysql: Vec<String>,
    /// `innodb_buffer_pool_size` that follows from the limits, unless `mysql` gives one.
    pub buffer_pool: u64,
}

impl Desired {
    /// Resolves a target.
    pub fn resolve(
        instance: &InstanceName,
        cluster: &ClusterName,
        target: &Target,
        policy: Option<&ClusterPolicy>,
        defaults: &HostDefaults,
    ) -> Desired {
        let limits = target.size.limits(&defaults.offered);
        let (mut mysql, mut refused) = (BTreeMap::new(), BTreeMap::new());
        let lossless = policy.is_none_or(|p| p.wished_durability() == WishedDurability::Lossless);
        let of_policy = policy.map(|p| &p.mysql).into_iter().flatten();
        for (name, value) in of_policy.chain(&target.mysql) {
            let (name, value) = (normalise(name), value.to_string());
            let needed =
                lossless_value(&name).filter(|needed| lossless && !needed.eq_ignore_ascii_case(&value));
            let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            let reason = match (owned_reason(&name), needed) {
                (Some(reason), _) => Some(reason.to_owned()),
                (_, Some(needed)) => Some(format!("it is {needed} unless the cluster is wished async")),
                _ => (!plain).then(|| "that is no name of a variable".to_owned()),
            };
            match reason {
                Some(reason) => refused.insert(name, reason),
                None => mysql.insert(name, value),
            };
        }
        let policy_image = policy.and_then(|p| p.image.clone());
        Desired {
            instance: instance.clone(),
            cluster: cluster.clone(),
            host: defaults.host.clone(),
            address: defaults.address.clone(),
            port: target.port,
            role: target.role,
            source: target.source().map(|(host, port)| (host.clone(), port)),
            disabled: target.disabled,
            maintenance: target.maintenance,
            paused: policy.is_some_and(|p| p.paused),
            frozen: policy.iter().flat_map(|p| &p.frozen).map(|frozen| frozen.schema.clone()).collect(),
            own_image: target.image.is_some(),
            image: target.image.clone().or(policy_image).unwrap_or_else(|| defaults.image.clone()),
            buffer_pool: buffer_pool(limits.memory),
            limits,
            own_mysql: target.mysql.keys().map(|name| normalise(name)).collect(),
            mysql,
            refused,
        }
    }
}
