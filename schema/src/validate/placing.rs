//! Which host and cluster a document belongs to.

use std::collections::BTreeSet;

use crate::names::{self, NameParts};
use crate::refusal::Refusal;
use crate::target::Target;
use crate::{ClusterName, HostName, InstanceName};

/// Host and cluster of an instance: as stored where it is in etcd already, else as the file gives them, else read
/// from the name.
///
/// # Errors
/// When the file contradicts what is stored, or the name cannot be read.
pub fn place(
    file: &str,
    name: &InstanceName,
    target: &Target,
    stored: Option<(&HostName, &ClusterName)>,
    hosts: &BTreeSet<HostName>,
) -> Result<(HostName, ClusterName), Vec<Refusal>> {
    let refuse = |field: &str, found: String, expected: String, hint: &str| Refusal {
        file: Some(file.to_owned()),
        path: Some(if field.is_empty() { name.to_string() } else { format!("{name}.data.{field}") }),
        found,
        expected,
        hint: Some(hint.to_owned()),
    };
    if let Some((host, cluster)) = stored {
        let mut refusals = Vec::new();
        if let Some(given) = target.host.as_ref().filter(|given| *given != host) {
            let expected = format!("{host}, where {name} is");
            refusals.push(refuse(
                "host",
                given.to_string(),
                expected,
                "an instance does not change its host",
            ));
        }
        if let Some(given) = target.cluster.as_ref().filter(|given| *given != cluster) {
            let expected = format!("{cluster}, to which {name} belongs");
            refusals.push(refuse(
                "cluster",
                given.to_string(),
                expected,
                "only operations move it to another cluster",
            ));
        }
        return if refusals.is_empty() { Ok((host.clone(), cluster.clone())) } else { Err(refusals) };
    }
    if let (Some(host), Some(cluster)) = (&target.host, &target.cluster) {
        return Ok((host.clone(), cluster.clone()));
    }
    // A host that the file gives reads like a registered one.
    let known: BTreeSet<HostName> = match &target.host {
        Some(host) => BTreeSet::from([host.clone()]),
        None => hosts.clone(),
    };
    match names::read_name(name, &known) {
        Ok(NameParts { host, cluster, .. }) => {
            Ok((target.host.clone().unwrap_or(host), target.cluster.clone().unwrap_or(cluster)))
        }
        Err(_) => {
            let expected = "a name <host>-<cluster>-<member>".to_owned();
            Err(vec![refuse(
                "",
                format!("{name:?}"),
                expected,
                "give \"host\" and \"cluster\" in its data, or rename it",
            )])
        }
    }
}
