//! Where an instance is, and whom it belongs to: found by its name alone.

use schemadock_schema::host::Host;
use schemadock_schema::keys::Keys;
use schemadock_schema::secrets::Secrets;
use schemadock_schema::status::Status;
use schemadock_schema::target::Target;
use schemadock_schema::{ClusterName, HostName, InstanceName};
use schemadock_store::{Selector, Snapshot, Store};

use crate::cli::Failure;

/// An instance as etcd knows it.
#[derive(Debug)]
pub(in crate::cli) struct Located {
    /// Its name.
    pub(in crate::cli) name: InstanceName,
    /// Its host.
    pub(in crate::cli) host: HostName,
    /// Its target, if it has one that can be read.
    pub(in crate::cli) target: Option<Target>,
    /// Its status, if its agent has reported.
    pub(in crate::cli) status: Option<Status>,
    /// Where its server listens, if that is known.
    pub(in crate::cli) address: Option<(String, u16)>,
}

impl Located {
    /// The cluster it belongs to.
    pub(in crate::cli) fn cluster(&self) -> Option<&ClusterName> {
        let of_target = self.target.as_ref().and_then(|target| target.cluster.as_ref());
        of_target.or_else(|| self.status.as_ref().and_then(|status| status.cluster.as_ref()))
    }
}

/// Finds an instance.
///
/// # Errors
/// When there is none of that name (the nearest one is suggested), or etcd cannot be asked.
pub(in crate::cli) async fn locate(store: &dyn Store, keys: &Keys, name: &str) -> Result<Located, Failure> {
    let name: InstanceName =
        name.parse().map_err(|why| Failure::failed(format!("{name:?} cannot be an instance: {why}")))?;
    // Its host usually begins the name; only where it does not, the whole fleet has to be read.
    let guesses = hosts_in(&name);
    let selectors: Vec<Selector> = guesses.iter().flat_map(|host| keys_of(keys, host, &name)).collect();
    let near = store.read(&selectors).await?;
    if let Some(host) = guesses.into_iter().find(|host| is_at(&near, keys, host, &name)) {
        return Ok(put_together(&near, keys, host, name));
    }
    let all = store
        .read(&[
            Selector::Prefix(keys.targets()),
            Selector::Prefix(keys.statuses()),
            Selector::Prefix(keys.hosts()),
        ])
        .await?;
    let known: Vec<(HostName, InstanceName)> =
        all.entries.keys().filter_map(|key| keys.host_and_instance(key)).collect();
    match known.iter().find(|(_, own)| *own == name) {
        Some((host, _)) => Ok(put_together(&all, keys, host.clone(), name)),
        None => Err(unknown(&name, known.iter().map(|(_, own)| own.as_str()))),
    }
}

/// The members of a cluster, in a snapshot that holds all targets, statuses and hosts.
pub(in crate::cli) fn locate_in(seen: &Snapshot, keys: &Keys, cluster: &ClusterName) -> Vec<Located> {
    let prefix = keys.targets();
    let all = seen.below(&prefix).filter_map(|entry| keys.host_and_instance(&entry.key));
    let all = all.map(|(host, name)| put_together(seen, keys, host, name));
    all.filter(|member| member.cluster() == Some(cluster)).collect()
}

fn unknown<'a>(name: &InstanceName, known: impl Iterator<Item = &'a str>) -> Failure {
    let best = known
        .map(|own| (strsim::jaro_winkler(own, name.as_str()), own))
        .filter(|(likeness, _)| *likeness > 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    let failure = Failure::failed(format!("there is no instance {name}"));
    match best {
        Some((_, own)) => failure.hint(format!("Did you mean {own}?")),
        None => failure.hint("`schemadock get instances` lists all."),
    }
}

/// All that may be the host in `<host>-<cluster>-<member>`, the longest first.
fn hosts_in(name: &InstanceName) -> Vec<HostName> {
    let ends = name.as_str().match_indices('-').map(|(end, _)| end);
    let mut hosts: Vec<HostName> = ends.filter_map(|end| name.as_str()[..end].parse().ok()).collect();
    hosts.reverse();
    hosts
}

fn keys_of(keys: &Keys, host: &HostName, name: &InstanceName) -> [Selector; 3] {
    [keys.target(host, name), keys.status(host, name), keys.host(host)].map(Selector::Key)
}

fn is_at(seen: &Snapshot, keys: &Keys, host: &HostName, name: &InstanceName) -> bool {
    seen.get(&keys.target(host, name)).is_some() || seen.get(&keys.status(host, name)).is_some()
}

fn put_together(seen: &Snapshot, keys: &Keys, host: HostName, name: InstanceName) -> Located {
    let target =
        seen.get(&keys.target(&host, &name)).and_then(|entry| Target::read_leniently(&entry.value).ok());
    let status = seen.get(&keys.status(&host, &name));
    let status = status.and_then(|entry| serde_json::from_slice::<Status>(&entry.value).ok());
    let registered =
        seen.get(&keys.host(&host)).and_then(|entry| serde_json::from_slice::<Host>(&entry.value).ok());
    let of_status = status.as_ref().and_then(|status| Some((status.address.clone()?, status.port?)));
    let address = of_status.or_else(|| Some((registered?.address, target.as_ref()?.port)));
    Located { name, host, target, status, address }
}

/// The credentials that the instance's server holds: those of its cluster, or of the one that it follows.
///
/// # Errors
/// When there are none (yet), or they cannot be read.
pub(in crate::cli) async fn secrets_of(
    store: &dyn Store,
    keys: &Keys,
    instance: &Located,
) -> Result<Vec<Secrets>, Failure> {
    let mut clusters: Vec<ClusterName> = Vec::new();
    if let Some(followed) = followed(store, keys, instance).await? {
        clusters.push(followed);
    }
    clusters.extend(instance.cluster().cloned());
    let selectors: Vec<Selector> =
        clusters.iter().map(|cluster| Selector::Key(keys.secrets(cluster))).collect();
    let seen = store.read(&selectors).await?;
    let mut found = Vec::new();
    for entry in clusters.iter().filter_map(|cluster| seen.get(&keys.secrets(cluster))) {
        found.push(serde_json::from_slice(&entry.value).map_err(|why| {
            Failure::failed(format!("the credentials at {} cannot be read: {why}", entry.key))
        })?);
    }
    if found.is_empty() {
        let cluster = instance.cluster().map_or("?", |cluster| cluster.as_str());
        return Err(Failure::failed(format!("cluster {cluster} has no credentials yet"))
            .hint("They are made when its first server is; `schemadock wait` shows how far that is."));
    }
    Ok(found)
}

/// The other cluster whose server this one follows until it is cut off.
async fn followed(
    store: &dyn Store,
    keys: &Keys,
    instance: &Located,
) -> Result<Option<ClusterName>, Failure> {
    let Some(target) = &instance.target else { return Ok(None) };
    let Some((host, port)) = target.source() else { return Ok(None) };
    let seen = store.read(&[Selector::Prefix(keys.targets_of(host))]).await?;
    let source = seen.entries.values().filter_map(|entry| Target::read_leniently(&entry.value).ok());
    let source = source.into_iter().find(|source| source.port == port);
    Ok(source.and_then(|source| source.cluster).filter(|cluster| Some(cluster) != instance.cluster()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_before_a_hyphen_may_be_the_host() {
        let hosts = hosts_in(&"rack-1-a-db2".parse().unwrap());
        let hosts: Vec<&str> = hosts.iter().map(HostName::as_str).collect();
        assert_eq!(hosts, ["rack-1-a", "rack-1", "rack"]);
    }

    #[test]
    fn a_likely_name_is_suggested() {
        let failure = unknown(&"h1-a-db3".parse().unwrap(), ["h1-a-db1", "zzz"].into_iter());
        assert!(failure.to_string().contains("Did you mean h1-a-db1?"));
    }
}
