//! From what is known of the store to what is asked of each instance of this host. Pure.

use std::collections::{BTreeMap, BTreeSet};

use schemadock_agent_plan::desired::{Desired, HostDefaults};
use schemadock_agent_plan::voting;
use schemadock_agent_plan::wish::{Grant, Member, SourceWish, Wanted, Wish};
use schemadock_schema::host::Host;
use schemadock_schema::known::{Known, WhyUnknown};
use schemadock_schema::leadership::{Handover, Leadership, LeadershipPhase, Vote};
use schemadock_schema::names::read_name;
use schemadock_schema::policy::ClusterPolicy;
use schemadock_schema::secrets::Secrets;
use schemadock_schema::status::Status;
use schemadock_schema::target::Target;
use schemadock_schema::{ClusterName, HostName, InstanceName};
use schemadock_store::Selector;

use crate::facts::{Doc, Facts};

/// A target of the fleet, read.
#[derive(Debug, Clone)]
struct ReadTarget {
    revision: Option<i64>,
    host: HostName,
    cluster: Option<ClusterName>,
    target: Result<Target, String>,
}

/// All targets of the fleet; read again only where they changed.
#[derive(Debug, Default)]
pub struct TargetIndex {
    targets: BTreeMap<InstanceName, ReadTarget>,
    /// The last readable target of each of this host's instances.
    last: BTreeMap<InstanceName, Target>,
    /// The last readable policies.
    policies: BTreeMap<ClusterName, ClusterPolicy>,
}

/// What the agent knows of an instance beside the store: the cluster of its record.
pub type Remembered = BTreeMap<InstanceName, Option<ClusterName>>;

impl TargetIndex {
    /// Reads what changed.
    pub fn refresh(&mut self, facts: &Facts<'_>, own: &HostName) {
        let hosts = host_names(facts);
        let prefix = facts.keys.targets();
        let mut old = std::mem::take(&mut self.targets);
        for (key, bytes, revision) in facts.below(&prefix) {
            let Some((host, instance)) = facts.keys.host_and_instance(key) else { continue };
            if let Some(known) = old.remove(&instance)
                && known.revision == revision
                && revision.is_some()
                && known.host == host
            {
                self.targets.insert(instance, known);
                continue;
            }
            let target = Target::read_leniently(bytes);
            let stored = target.as_ref().ok().and_then(|target| target.cluster.clone());
            let cluster = stored.or_else(|| read_name(&instance, &hosts).ok().map(|parts| parts.cluster));
            if let (Ok(target), true) = (&target, host == *own) {
                self.last.insert(instance.clone(), target.clone());
            }
            self.targets.insert(instance, ReadTarget { revision, host, cluster, target });
        }
        let prefix = facts.keys.clusters();
        for cluster in self.targets.values().filter_map(|read| read.cluster.clone()).collect::<BTreeSet<_>>()
        {
            match facts.document::<ClusterPolicy>(&format!("{prefix}{cluster}")) {
                Known::Present(doc) => drop(self.policies.insert(cluster, doc.value)),
                Known::Absent => drop(self.policies.remove(&cluster)),
                // One that cannot be read changes nothing: the last one holds.
                Known::Unknown(_) => {}
            }
        }
    }

    fn at(&self, host: &HostName, port: u16) -> Option<&InstanceName> {
        self.targets.iter().find_map(|(name, read)| {
            let here = read.host == *host && read.target.as_ref().is_ok_and(|target| target.port == port);
            here.then_some(name)
        })
    }
}

fn host_names(facts: &Facts<'_>) -> BTreeSet<HostName> {
    let prefix = facts.keys.hosts();
    facts.below(&prefix).iter().filter_map(|(key, ..)| key.rsplit('/').next()?.parse().ok()).collect()
}

/// What the agent must follow in the store.
pub fn interest(
    facts: &Facts<'_>,
    index: &TargetIndex,
    own: &HostName,
    remembered: &Remembered,
) -> BTreeSet<Selector> {
    let keys = facts.keys;
    let mut parts = BTreeSet::from([
        Selector::Prefix(keys.targets()),
        Selector::Prefix(keys.hosts()),
        Selector::Prefix(keys.requests_of(own)),
        Selector::Prefix(keys.statuses_of(own)),
        Selector::Key(keys.controller_leader()),
    ]);
    let mut clusters: BTreeSet<ClusterName> = remembered.values().flatten().cloned().collect();
    let here = |read: &ReadTarget| read.host == *own;
    clusters.extend(index.targets.values().filter(|read| here(read)).filter_map(|read| read.cluster.clone()));
    let mut hosts = BTreeSet::new();
    for read in index.targets.values() {
        let member = read.cluster.as_ref().is_some_and(|cluster| clusters.contains(cluster));
        let source = read.target.as_ref().ok().and_then(Target::source);
        if here(read)
            && let Some((host, port)) = source
        {
            hosts.insert(host.clone());
            let other = index.at(host, port).and_then(|name| index.targets.get(name)?.cluster.clone());
            clusters.extend(other);
        }
        if member || source.is_some_and(|(host, _)| host == own) {
            hosts.insert(read.host.clone());
        }
    }
    for (name, read) in &index.targets {
        if read.cluster.as_ref().is_some_and(|cluster| clusters.contains(cluster)) {
            parts.insert(Selector::Key(keys.vote(&read.host, name)));
        }
    }
    parts.extend(hosts.iter().map(|host| Selector::Prefix(keys.statuses_of(host))));
    for cluster in &clusters {
        parts.insert(Selector::Key(keys.cluster(cluster)));
        parts.insert(Selector::Key(keys.leadership(cluster)));
        parts.insert(Selector::Prefix(keys.handovers_of(cluster)));
        parts.insert(Selector::Key(keys.secrets(cluster)));
    }
    parts
}

/// What is asked of each instance: those with a target here, and those that are only remembered.
pub fn wishes(
    facts: &Facts<'_>,
    index: &TargetIndex,
    defaults: &HostDefaults,
    remembered: &Remembered,
) -> BTreeMap<InstanceName, Wish> {
    let own = &defaults.host;
    let here = index.targets.iter().filter(|(_, read)| read.host == *own).map(|(name, _)| name);
    let names: BTreeSet<&InstanceName> = here.chain(remembered.keys()).collect();
    let targets_known = facts.listed(&facts.keys.targets_of(own));
    names
        .into_iter()
        .filter_map(|name| {
            let read = index.targets.get(name).filter(|read| read.host == *own);
            // A target that is not there is believed gone only on the word of a believed store.
            if read.is_none() && !targets_known {
                return None;
            }
            Some((name.clone(), wish(facts, index, defaults, remembered, name, read)))
        })
        .collect()
}

fn wish(
    facts: &Facts<'_>,
    index: &TargetIndex,
    defaults: &HostDefaults,
    remembered: &Remembered,
    name: &InstanceName,
    read: Option<&ReadTarget>,
) -> Wish {
    let keys = facts.keys;
    let own_status: Known<Status> =
        facts.document(&keys.status(&defaults.host, name)).map(|doc: Doc<Status>| doc.value);
    let cluster = read
        .and_then(|read| read.cluster.clone())
        .or_else(|| remembered.get(name).cloned().flatten())
        .or_else(|| own_status.present().and_then(|status| status.cluster.clone()));
    let policy = cluster.as_ref().map(|cluster| facts.document::<ClusterPolicy>(&keys.cluster(cluster)));
    let last_policy = cluster.as_ref().and_then(|cluster| index.policies.get(cluster));
    let resolve = |target: &Target| {
        let policy = policy.as_ref().and_then(|known| known.present()).map(|doc| &doc.value).or(last_policy);
        cluster.as_ref().map(|cluster| Box::new(Desired::resolve(name, cluster, target, policy, defaults)))
    };
    let wanted = match read.map(|read| &read.target) {
        None => Wanted::Deleted,
        Some(Ok(target)) => match resolve(target) {
            Some(last) if matches!(&policy, Some(Known::Unknown(WhyUnknown::Error(_)))) => {
                Wanted::Unreadable {
                    reason: format!("the policy of {} cannot be read", last.cluster),
                    last: last_policy.is_some().then_some(last),
                }
            }
            Some(desired) => Wanted::Run(desired),
            None => Wanted::Unreadable {
                reason: format!("no cluster can be read from the name {name}; give it the field `cluster`"),
                last: None,
            },
        },
        Some(Err(reason)) => {
            Wanted::Unreadable { reason: reason.clone(), last: index.last.get(name).and_then(&resolve) }
        }
    };
    let leadership = match &cluster {
        None => Known::Unknown(WhyUnknown::NotYet),
        Some(cluster) => leadership(facts, cluster),
    };
    let revision = leadership.present().and_then(|doc| doc.revision);
    let leadership = leadership.map(|doc| doc.value);
    let secrets = match &cluster {
        None => Known::Unknown(WhyUnknown::NotYet),
        Some(cluster) => facts.document::<Secrets>(&keys.secrets(cluster)).map(|doc| doc.value),
    };
    let members = members(facts, index, name, cluster.as_ref());
    let master = leadership.present().and_then(|record| record.master.clone());
    let leader = members
        .iter()
        .find(|member| Some(&member.name) == master.as_ref())
        .and_then(|member| Some((member.address.clone()?, member.port)));
    let desired = wanted.desired();
    let named = desired.and_then(|desired| desired.source.clone());
    // A member whose document names nobody to follow, and that does not lead, follows who leads.
    let leads = members.iter().find(|member| Some(&member.name) == master.as_ref());
    let leads = leads.map(|master| (master.host.clone(), master.port));
    let meant = named.as_ref().and_then(|(host, port)| index.at(host, *port));
    let by_record = leadership.present().and_then(|record| voting::source_by_record(record, name, meant));
    let place = |name: &InstanceName| {
        members.iter().find(|member| member.name == *name).map(|member| (member.host.clone(), member.port))
    };
    // Where the record decides, nobody else is followed, also while it is not known where that one is: who has moved in a
    // handover must not go back to whom its document names.
    let source = match by_record {
        Some(meant) => place(meant),
        None => named.or(leads),
    };
    let source = source
        .filter(|_| by_record.is_some() || master.as_ref() != Some(name))
        .map(|(host, port)| source_wish(facts, index, host, port, cluster.as_ref()));
    let mut followers: BTreeSet<u32> = members.iter().filter_map(|member| member.server_id).collect();
    if let Some(desired) = desired {
        followers.extend(index.targets.iter().filter_map(|(other, read)| {
            let follows = read.target.as_ref().ok()?.source()? == (&defaults.host, desired.port);
            if follows { status(facts, &read.host, other)?.server_id } else { None }
        }));
    }
    Wish {
        instance: name.clone(),
        wanted,
        target_revision: read.and_then(|read| read.revision),
        policy_revision: match &policy {
            Some(Known::Present(doc)) => doc.revision,
            Some(Known::Absent) => Some(0),
            _ => None,
        },
        grant: Grant { cluster, leadership, revision, secrets },
        source,
        leader,
        votes: votes(facts, (&defaults.host, name), &members),
        members,
        followers,
        recorded_uuid: match own_status {
            Known::Present(status) => status.server_uuid.into(),
            Known::Absent => Known::Absent,
            Known::Unknown(why) => Known::Unknown(why),
        },
        store: facts.view.store.clone(),
        controller: facts.view.get(&keys.controller_leader()).present().is_some(),
        restart_asked: false,
        reseed_asked: false,
    }
}

fn status(facts: &Facts<'_>, host: &HostName, instance: &InstanceName) -> Option<Status> {
    facts.document::<Status>(&facts.keys.status(host, instance)).present().map(|doc| doc.value.clone())
}

/// The record with its revision, and how its handover ended, if it is one.
fn leadership(facts: &Facts<'_>, cluster: &ClusterName) -> Known<Doc<Leadership>> {
    let doc = match facts.document::<Leadership>(&facts.keys.leadership(cluster)) {
        Known::Present(doc) if doc.value.phase == LeadershipPhase::Handover => doc,
        other => return other,
    };
    match facts.document::<Handover>(&facts.keys.handover(cluster, doc.value.term)) {
        // What it means is not known without that key.
        Known::Unknown(why) => Known::Unknown(why),
        ended => {
            let value = doc.value.with_handover(ended.present().map(|ended| &ended.value));
            Known::Present(Doc { value, revision: doc.revision })
        }
    }
}

/// The newest votes of a cluster's members and of this one.
fn votes(
    facts: &Facts<'_>,
    own: (&HostName, &InstanceName),
    members: &[Member],
) -> BTreeMap<InstanceName, Vote> {
    let all = members.iter().map(|member| (&member.host, &member.name)).chain([own]);
    let vote = |(host, name): (&HostName, &InstanceName)| {
        let doc = facts.document::<Vote>(&facts.keys.vote(host, name));
        Some((name.clone(), doc.present()?.value.clone()))
    };
    all.filter_map(vote).collect()
}

fn address(facts: &Facts<'_>, host: &HostName) -> Known<String> {
    facts.document::<Host>(&facts.keys.host(host)).map(|doc| doc.value.address)
}

fn members(
    facts: &Facts<'_>,
    index: &TargetIndex,
    name: &InstanceName,
    cluster: Option<&ClusterName>,
) -> Vec<Member> {
    let others = index
        .targets
        .iter()
        .filter(|(other, read)| *other != name && cluster.is_some() && read.cluster.as_ref() == cluster);
    others
        .filter_map(|(other, read)| {
            let target = read.target.as_ref().ok()?;
            let report = facts.document::<Status>(&facts.keys.status(&read.host, other));
            let acknowledges = match &report {
                Known::Present(doc) => doc.value.acknowledges.into(),
                Known::Absent => Known::Absent,
                Known::Unknown(why) => Known::Unknown(why.clone()),
            };
            let status = report.present().map(|doc| &doc.value);
            let registered = address(facts, &read.host);
            Some(Member {
                name: other.clone(),
                host: read.host.clone(),
                role: target.role,
                disabled: target.disabled,
                // Whether a host was ever seen is not known without the store: then it counts as seen.
                registered: !registered.is_absent(),
                address: registered.present().cloned(),
                port: target.port,
                data: status.map(|status| status.data.state),
                phase: status.map(|status| status.phase),
                version: status.and_then(|status| status.mysql_version.clone()),
                server_id: status.and_then(|status| status.server_id),
                server_uuid: status.and_then(|status| status.server_uuid.clone()),
                acknowledges,
                receives_from: status
                    .and_then(|status| status.source.as_ref())
                    .filter(|source| source.io == "ON")
                    .map(|source| (source.address.clone(), source.port)),
                lag_seconds: status.and_then(|status| status.source.as_ref()?.lag_seconds),
                writable: status.and_then(|status| status.writable).unwrap_or(false),
            })
        })
        .collect()
}

fn source_wish(
    facts: &Facts<'_>,
    index: &TargetIndex,
    host: HostName,
    port: u16,
    own: Option<&ClusterName>,
) -> SourceWish {
    let instance = index.at(&host, port).cloned();
    let cluster = instance.as_ref().and_then(|name| index.targets.get(name)?.cluster.clone());
    let status = instance.as_ref().and_then(|name| status(facts, &host, name));
    let whose = cluster.as_ref().or(own);
    SourceWish {
        address: address(facts, &host),
        own_cluster: cluster.is_none() || cluster.as_ref() == own,
        phase: status.as_ref().map(|status| status.phase),
        server_uuid: status.and_then(|status| status.server_uuid),
        secrets: match whose {
            Some(cluster) => facts.document::<Secrets>(&facts.keys.secrets(cluster)).map(|doc| doc.value),
            None => Known::Unknown(WhyUnknown::NotYet),
        },
        instance,
        host,
        port,
    }
}
