//! What stands against a request, all reasons at once; and the steps that would be taken.

use schemadock_schema::keys::Keys;
use schemadock_schema::operation::Request;
use schemadock_schema::refusal::Refusal;
use schemadock_schema::target::Promotion;
use schemadock_schema::{ClusterName, HostName, InstanceName};

use super::step::{best, unfit};
use super::{create, movement, scale};
use crate::cluster::Cluster;
use crate::placement::NoRoom;
use crate::view::FleetView;

/// Why the request cannot be carried out, all reasons at once.
pub fn preflight(
    view: &FleetView,
    _keys: &Keys,
    request: &Request,
    clusters: &[ClusterName],
) -> Vec<Refusal> {
    let mut against = Against { view, refusals: Vec::new() };
    match request {
        Request::Drain { host, evict } => against.drain(host, *evict),
        Request::Create(asked) => {
            for name in clusters {
                against.create(name, asked);
            }
        }
        _ => {
            for name in clusters {
                against.existing(name, request);
            }
        }
    }
    against.refusals
}

struct Against<'a> {
    view: &'a FleetView,
    refusals: Vec<Refusal>,
}

impl Against<'_> {
    fn add(&mut self, path: &str, found: impl Into<String>, expected: &str, hint: Option<String>) {
        let (path, expected) = (Some(path.to_owned()), expected.to_owned());
        self.refusals.push(Refusal { file: None, path, found: found.into(), expected, hint });
    }

    fn no_room(&mut self, path: &str, no_room: &NoRoom) {
        for refused in &no_room.refused {
            let found = format!("{}: {}: {}", refused.host, refused.filter, refused.message);
            self.add(path, found, "a host with room", None);
        }
        let fitting: Vec<&str> = no_room.fitting.iter().map(HostName::as_str).collect();
        if !fitting.is_empty() {
            let found = format!("only {} would do, of {} that are needed", fitting.join(", "), no_room.asked);
            self.add(path, found, "more hosts with room", None);
        }
    }

    fn host(&mut self, host: &HostName) -> bool {
        let known = self.view.hosts.contains_key(host);
        if !known {
            let hint = "`schemadock get hosts` lists those that are".to_owned();
            self.add(host.as_str(), "no such host is registered", "a registered host", Some(hint));
        }
        known
    }

    fn create(&mut self, name: &ClusterName, asked: &schemadock_schema::operation::Create) {
        let members: Vec<&str> = self.view.targets_of(name).map(|(name, _)| name.as_str()).collect();
        if !members.is_empty() {
            let found = format!("it exists, with {}", members.join(", "));
            self.add(name.as_str(), found, "a name that is free", None);
            return;
        }
        if let Some(record) = self.view.leaderships.get(name).filter(|record| record.value.master.is_some()) {
            let found = format!("its leadership is still in etcd, in term {}", record.value.term);
            let hint = "its last master's agent gives it back; see `schemadock topology`".to_owned();
            self.add(name.as_str(), found, "a name that is free", Some(hint));
        }
        let unknown: Vec<&HostName> =
            asked.hosts.iter().filter(|host| !self.view.hosts.contains_key(*host)).collect();
        for host in &unknown {
            self.host(host);
        }
        if unknown.is_empty()
            && let Err(no_room) = create::placed(self.view, name, asked)
        {
            self.no_room(name.as_str(), &no_room);
        }
    }

    fn existing(&mut self, name: &ClusterName, request: &Request) {
        let view = self.view;
        let cluster = Cluster::of(view, name);
        if cluster.members.is_empty() {
            let known: Vec<String> = view.clusters().iter().map(ToString::to_string).collect();
            let hint = format!("there are: {}", known.join(", "));
            self.add(name.as_str(), "no such cluster", "one that has targets", Some(hint));
            return;
        }
        if let Some(key) = &cluster.unreadable {
            let hint = "mend it with `schemadock edit`, or put it right by hand".to_owned();
            self.add(
                name.as_str(),
                format!("{key} cannot be read"),
                "documents that can be read",
                Some(hint),
            );
        }
        if cluster.policy.paused {
            let hint = format!("`schemadock cluster resume {name}` first");
            self.add(name.as_str(), "it is paused", "a cluster that is not", Some(hint));
        }
        if !matches!(request, Request::Start | Request::Delete | Request::Stop) {
            self.led(&cluster);
        }
        match request {
            Request::Switchover { to } => self.switchover(&cluster, to.as_ref()),
            Request::Scale { replicas, hosts } => self.scale(&cluster, *replicas, hosts),
            Request::Move { instance, to } => self.movement(&cluster, instance, to),
            Request::Upgrade { image, .. } => self.upgrade(&cluster, image),
            Request::Resize { size } => {
                for member in cluster.members.values() {
                    if member.target.size != *size
                        && !movement::room_for(view, member, size)
                        && let Err(no_room) = movement::placed(view, &cluster, None, size)
                    {
                        let found = format!("no room for it on {}, nor elsewhere", member.host);
                        self.add(member.name.as_str(), found, "a host with room", None);
                        self.no_room(member.name.as_str(), &no_room);
                    }
                }
            }
            _ => {}
        }
    }

    fn led(&mut self, cluster: &Cluster<'_>) {
        let name = cluster.name.as_str();
        match (cluster.meant, cluster.master()) {
            // Their servers may still be on the way there.
            (Some(_), Some(_)) if cluster.stopped() => {
                let hint = format!("schemadock cluster start {name}");
                self.add(name, "all its members are told to stop", "members that run", Some(hint));
            }
            (None, _) => self.add(name, "nobody leads it yet", "a master", None),
            (Some(_), None) => self.add(name, "nobody leads it", "a master that is a member", None),
            (Some(_), Some(master)) if !master.alive => {
                let found = format!("the agent of {}, whose server leads, is not alive", master.host);
                let hint = format!("start schemadock-agent on {}", master.host);
                self.add(name, found, "a living agent", Some(hint));
            }
            (Some(_), Some(master)) if master.status.is_none_or(|s| s.writable != Some(true)) => {
                let said = master.status.map(|status| status.message.clone()).unwrap_or_default();
                self.add(
                    name,
                    format!("its master {} takes no writes: {said}", master.name),
                    "an open master",
                    None,
                );
            }
            _ => {}
        }
    }

    fn member(&mut self, cluster: &Cluster<'_>, name: &InstanceName) -> bool {
        let known = cluster.members.contains_key(name);
        if !known {
            let members: Vec<&str> = cluster.members.keys().map(|name| name.as_str()).collect();
            let found = format!("it is no member of {}", cluster.name);
            let hint = format!("its members are {}", members.join(", "));
            self.add(name.as_str(), found, "a member", Some(hint));
        }
        known
    }

    fn switchover(&mut self, cluster: &Cluster<'_>, to: Option<&InstanceName>) {
        let Some(to) = to else {
            if best(cluster, |member| !self.view.cordons.contains(member.host)).is_none() {
                let why: Vec<String> = cluster
                    .minions()
                    .map(|member| match unfit(cluster, member) {
                        Some(why) => why,
                        None if member.target.promotion == Promotion::Never => {
                            format!("{} has promotion never", member.name)
                        }
                        None => format!("{} is on a cordoned host", member.name),
                    })
                    .collect();
                let found = if why.is_empty() { "it has no minion".to_owned() } else { why.join("; ") };
                self.add(cluster.name.as_str(), found, "a member that can lead", None);
            }
            return;
        };
        if !self.member(cluster, to) {
            return;
        }
        if cluster.leads(to) {
            self.add(to.as_str(), "it leads already", "another member", None);
        } else if let Some(why) = cluster.members.get(to).and_then(|member| unfit(cluster, member)) {
            self.add(to.as_str(), why, "a member that can lead", None);
        }
    }

    fn scale(&mut self, cluster: &Cluster<'_>, replicas: u32, hosts: &[HostName]) {
        let known = hosts.iter().filter(|host| self.host(host)).count() == hosts.len();
        let lacking = (replicas as usize).saturating_sub(cluster.minions().count());
        if known
            && lacking > 0
            && let Err(no_room) = scale::placed(self.view, cluster, lacking, hosts)
        {
            self.no_room(cluster.name.as_str(), &no_room);
        }
    }

    fn movement(&mut self, cluster: &Cluster<'_>, instance: &InstanceName, to: &HostName) {
        if self.member(cluster, instance) & self.host(to) {
            let size = cluster.members.get(instance).map(|member| member.target.size.clone());
            if let Err(no_room) = movement::placed(self.view, cluster, Some(to), &size.unwrap_or_default()) {
                self.no_room(instance.as_str(), &no_room);
            }
        }
    }

    /// Newer data are not read by an older server.
    fn upgrade(&mut self, cluster: &Cluster<'_>, image: &str) {
        for member in cluster.members.values().filter(|member| member.target.maintenance) {
            self.add(member.name.as_str(), "it is under maintenance", "a member that may be touched", None);
        }
        let Some(asked) = version(image.rsplit(':').next().unwrap_or_default()) else { return };
        for member in cluster.members.values() {
            let found = member.status.and_then(|status| status.mysql_version.as_deref()).unwrap_or_default();
            // `8.4` is any 8.4: only what both name is compared.
            let runs = version(found).map(|runs| runs[..asked.len().min(runs.len())].to_vec());
            if runs.is_some_and(|runs| asked < runs) {
                let expected = "the same version or a newer one";
                self.add(
                    member.name.as_str(),
                    format!("it runs {found}, newer than {image}"),
                    expected,
                    None,
                );
            }
        }
    }

    fn drain(&mut self, host: &HostName, evict: bool) {
        if !self.host(host) {
            return;
        }
        let view = self.view;
        for (name, stored) in view.all_targets().filter(|(_, stored)| stored.host == *host) {
            let Some(cluster) = stored.cluster.as_ref().map(|name| Cluster::of(view, name)) else { continue };
            if cluster.stopped() {
                if evict {
                    let hint = format!("`schemadock cluster start {}` first", cluster.name);
                    self.add(name.as_str(), "its cluster is stopped", "one that runs", Some(hint));
                }
                continue;
            }
            let leads = cluster.leads(name);
            if leads && cluster.members.len() > 1 {
                let elsewhere = |member: &crate::cluster::Member<'_>| {
                    member.host != host && !view.cordons.contains(member.host)
                };
                if best(&cluster, elsewhere).is_none() {
                    let found = format!("no other member of {} can lead now", cluster.name);
                    self.add(name.as_str(), found, "a member elsewhere that can lead", None);
                }
            } else if leads && !evict {
                let found = format!("{} has no other member", cluster.name);
                let hint = format!("`schemadock cluster scale {} --replicas 1`, or --evict", cluster.name);
                self.add(name.as_str(), found, "a member that can lead", Some(hint));
            }
            if evict
                && let Some(member) = cluster.members.get(name)
                && let Err(no_room) = movement::placed(view, &cluster, None, &member.target.size)
            {
                self.no_room(name.as_str(), &no_room);
            }
        }
    }
}

fn version(text: &str) -> Option<Vec<u32>> {
    let digits = text.split(['-', '+']).next()?;
    digits.split('.').map(|part| part.parse().ok()).collect()
}

/// The steps that would be taken, a sentence each.
pub fn foresee(view: &FleetView, _keys: &Keys, request: &Request, clusters: &[ClusterName]) -> Vec<String> {
    if let Request::Drain { host, evict } = request {
        return drain_steps(view, host, *evict);
    }
    clusters.iter().flat_map(|name| steps(view, request, &Cluster::of(view, name))).collect()
}

fn steps(view: &FleetView, request: &Request, cluster: &Cluster<'_>) -> Vec<String> {
    let name = cluster.name;
    let whole = format!("wait until {name} is whole");
    let master = cluster.master().map_or("the master".to_owned(), |master| master.name.to_string());
    match request {
        Request::Create(create) => {
            let places = create::placed(view, name, create).unwrap_or_default();
            let text: Vec<String> =
                places.iter().map(|place| format!("{}:{}", place.host, place.port)).collect();
            vec![format!("write {} members, on {}", text.len(), text.join(", ")), whole]
        }
        Request::Scale { replicas, hosts } => {
            let mut steps = vec![format!("the policy of {name} asks for {replicas} minions")];
            let now = cluster.minions().count();
            let lacking = (*replicas as usize).saturating_sub(now);
            for place in scale::placed(view, cluster, lacking, hosts).unwrap_or_default() {
                steps.push(format!("add a member on {}:{}, seeded from a live one", place.host, place.port));
            }
            if now > *replicas as usize
                && let Some(first) = scale::surplus(view, cluster)
            {
                let more = now - *replicas as usize;
                steps.push(format!("take {more} away, out of the voters first, beginning with {first}"));
            }
            steps.push(whole);
            steps
        }
        Request::Switchover { to } => {
            let to = to.clone().or_else(|| best(cluster, |member| !view.cordons.contains(member.host)));
            let to = to.map_or("the best member".to_owned(), |to| to.to_string());
            vec![
                format!("{to} is to lead in term {}", cluster.meant.map_or(0, |record| record.term) + 1),
                format!("members follow {to}, {master} takes no writes for a moment, {to} opens"),
                format!("documents and routes say it, {master} follows {to}"),
            ]
        }
        Request::Stop => {
            vec![format!("all members of {name} are told to stop"), "wait until they have".to_owned()]
        }
        Request::Start => vec![format!("all members of {name} are told to start"), whole],
        Request::Delete => vec![
            format!("all members of {name} are stopped"),
            "their targets and the policy are taken away, their data are kept".to_owned(),
        ],
        Request::Upgrade { image, soak } => {
            let mut steps: Vec<String> = cluster
                .minions()
                .map(|member| {
                    format!("{} gets {image}, out of the voters meanwhile, watched {soak} s", member.name)
                })
                .collect();
            if !steps.is_empty() {
                steps.push(format!("one of them leads instead of {master}"));
            }
            steps.push(format!("{master} gets {image}"));
            steps.push(format!("the policy of {name} has the image, no document has it"));
            steps
        }
        Request::Set { mysql } => {
            let names: Vec<&str> = mysql.keys().map(String::as_str).collect();
            vec![
                format!("the policy of {name} has {}", names.join(", ")),
                "members take it live, or are restarted one by one, the master after another one leads"
                    .to_owned(),
            ]
        }
        Request::Resize { size } => {
            let mut steps = Vec::new();
            for member in cluster.members.values().filter(|member| member.target.size != *size) {
                steps.push(match movement::room_for(view, member, size) {
                    true => format!("{} gets the new size where it is", member.name),
                    false => match movement::placed(view, cluster, None, size) {
                        Ok(place) => {
                            format!("{} goes to {}: no room on {}", member.name, place.host, member.host)
                        }
                        Err(_) => format!("{} finds no room", member.name),
                    },
                });
            }
            steps.push("what waits for a restart is restarted, the minions first".to_owned());
            steps.push(whole);
            steps
        }
        Request::Move { instance, to } => {
            let mut steps =
                vec![format!("add a member on {to}, seeded from a live one, and wait until it votes")];
            if cluster.leads(instance) {
                steps.push(format!("the new member leads instead of {instance}"));
            }
            steps.push(format!("{instance} leaves the voters and is taken away, its data are kept"));
            steps.push(whole);
            steps
        }
        Request::Drain { .. } => Vec::new(),
    }
}

fn drain_steps(view: &FleetView, host: &HostName, evict: bool) -> Vec<String> {
    let mut steps = Vec::new();
    for (name, stored) in view.all_targets().filter(|(_, stored)| stored.host == *host) {
        let Some(cluster) = stored.cluster.as_ref().map(|name| Cluster::of(view, name)) else { continue };
        if cluster.leads(name) {
            let elsewhere = |member: &crate::cluster::Member<'_>| {
                member.host != host && !view.cordons.contains(member.host)
            };
            if let Some(to) = best(&cluster, elsewhere) {
                steps.push(format!("{to} leads {} instead of {name}", cluster.name));
            }
        }
        if evict {
            steps.push(format!("{name} goes to another host; {} is whole before the next", cluster.name));
        }
    }
    steps
}
