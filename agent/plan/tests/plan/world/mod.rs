//! Three hosts and one cluster, played by the plans themselves: what one agent does, the others see.

mod story;
mod switchover;

use std::collections::{BTreeMap, BTreeSet};

use schemadock_agent_plan::foresee::{Step, foresee};
use schemadock_agent_plan::handover::receives_early;
use schemadock_agent_plan::observed::{
    ChannelSeen, ContainerState, Seen, ServerSeen, SourceSeen, Stopping, ThreadState,
};
use schemadock_agent_plan::record::DataOrigin;
use schemadock_agent_plan::report::{Outcome, status};
use schemadock_agent_plan::step::{ConvergeStep as C, Plan, StandingStep as S};
use schemadock_agent_plan::voting::source_by_record;
use schemadock_agent_plan::wish::{Grant, Member, SourceWish, Wanted, Wish};
use schemadock_agent_plan::{converge, standing};
use schemadock_schema::gtid::GtidSet;
use schemadock_schema::known::Known;
use schemadock_schema::leadership::{Durability, Leadership, LeadershipPhase, Vote, Voter};
use schemadock_schema::secrets::{Secrets, replication_user};
use schemadock_schema::status::{Phase, Status, StoreReport, StoreState};
use schemadock_schema::target::Target;
use schemadock_schema::{InstanceName, Timestamp};

use crate::fixture::*;
use crate::rules::broken;

/// What survives the end of a server.
#[derive(Debug, Clone, Default)]
struct Disk {
    executed: GtidSet,
    purged: GtidSet,
    channel: Option<ChannelSeen>,
}

/// One host with its agent and its instance.
#[derive(Debug, Clone)]
struct Host {
    seen: Seen,
    disk: Disk,
    /// Data set aside, by name.
    shelf: BTreeMap<String, Disk>,
    /// What its agent has published.
    status: Option<Status>,
    /// etcd as its agent last read it, while it does not answer.
    cut_off: Option<(Known<Leadership>, Known<Secrets>)>,
    docker: bool,
    restart: bool,
    reseed: bool,
}

/// A target, or what somebody wrote in its place.
#[derive(Debug, Clone)]
struct Document {
    target: Target,
    garbage: bool,
}

#[derive(Debug, Clone)]
struct World {
    hosts: BTreeMap<u8, Host>,
    targets: BTreeMap<u8, Document>,
    leadership: Option<Leadership>,
    secrets: Option<Secrets>,
    votes: BTreeMap<InstanceName, Vote>,
    /// Commits that a client was told of.
    acknowledged: GtidSet,
    identities: u32,
}

impl World {
    fn new() -> World {
        World {
            hosts: BTreeMap::new(),
            targets: BTreeMap::new(),
            leadership: None,
            secrets: None,
            votes: BTreeMap::new(),
            acknowledged: GtidSet::new(),
            identities: 0,
        }
    }

    fn register(&mut self, n: u8) {
        let host = Host {
            seen: nothing(),
            disk: Disk::default(),
            shelf: BTreeMap::new(),
            status: None,
            cut_off: None,
            docker: true,
            restart: false,
            reseed: false,
        };
        self.hosts.entry(n).or_insert(host);
    }

    fn apply(&mut self, n: u8, target: Target) {
        self.targets.insert(n, Document { target, garbage: false });
    }

    fn leader(&self) -> Option<u8> {
        self.leadership.as_ref()?.master.as_ref().map(number)
    }

    fn server(&mut self, n: u8) -> Option<&mut ServerSeen> {
        match &mut self.hosts.get_mut(&n)?.seen.server {
            Known::Present(server) => Some(server),
            _ => None,
        }
    }

    fn channel(&mut self, n: u8) -> Option<&mut ChannelSeen> {
        self.server(n)?.channel.as_mut()
    }

    /// Ends the server of a host, whatever the reason.
    fn end(&mut self, n: u8) {
        self.keep(n);
        let Some(host) = self.hosts.get_mut(&n) else { return };
        if let Known::Present(container) = &mut host.seen.container
            && matches!(container.state, ContainerState::Running | ContainerState::Paused)
        {
            container.state = ContainerState::Exited { code: 137, out_of_memory: false };
        }
        (host.seen.process, host.seen.server) = (Known::Absent, Known::Absent);
        (host.seen.accounts, host.seen.differing) = (unknown(), unknown());
    }

    fn keep(&mut self, n: u8) {
        let Some(host) = self.hosts.get_mut(&n) else { return };
        if let Known::Present(server) = &host.seen.server {
            host.disk = Disk {
                executed: server.gtid_executed.clone(),
                purged: server.gtid_purged.clone(),
                channel: server.channel.clone(),
            };
        }
    }

    fn member(&self, n: u8, target: &Target) -> Member {
        let status = self.hosts.get(&n).and_then(|host| host.status.as_ref());
        Member {
            name: name(n),
            host: host(n),
            role: target.role,
            disabled: target.disabled,
            registered: self.hosts.contains_key(&n),
            address: self.hosts.contains_key(&n).then(|| address(n)),
            port: target.port,
            data: status.map(|status| status.data.state),
            phase: status.map(|status| status.phase),
            version: status.and_then(|status| status.mysql_version.clone()),
            server_id: status.and_then(|status| status.server_id),
            server_uuid: status.and_then(|status| status.server_uuid.clone()),
            acknowledges: status.and_then(|status| status.acknowledges).into(),
            receives_from: status
                .and_then(|status| status.source.as_ref())
                .filter(|source| source.io == "ON")
                .map(|source| (source.address.clone(), source.port)),
            lag_seconds: status.and_then(|s| s.source.as_ref()).and_then(|source| source.lag_seconds),
            writable: status.and_then(|status| status.writable).unwrap_or(false),
        }
    }

    fn wish(&self, n: u8) -> Wish {
        let host_n = &self.hosts[&n];
        let wanted = match self.targets.get(&n) {
            None => Wanted::Deleted,
            Some(document) => match (desired(n, &document.target, None), document.garbage) {
                (Wanted::Run(last), true) => {
                    Wanted::Unreadable { reason: "garbage".to_owned(), last: Some(last) }
                }
                (wanted, _) => wanted,
            },
        };
        let (leadership, secrets) = match &host_n.cut_off {
            Some((leadership, secrets)) => (leadership.clone(), secrets.clone()),
            None => (self.leadership.clone().into(), self.secrets.clone().into()),
        };
        let others = self.targets.iter().filter(|(other, _)| **other != n);
        let members: Vec<Member> = others.map(|(other, doc)| self.member(*other, &doc.target)).collect();
        let master = leadership.present().and_then(|record| record.master.as_ref().map(number));
        let leader = members.iter().find(|member| Some(number(&member.name)) == master);
        let named = wanted.desired().and_then(|desired| desired.source.clone());
        let meant = named.as_ref().and_then(|(host, port)| {
            members.iter().find(|member| member.host == *host && member.port == *port)
        });
        let meant = meant.map(|member| &member.name);
        let by_record =
            leadership.present().and_then(|record| source_by_record(record, &name(n), meant)).map(|source| {
                members.iter().find(|member| member.name == *source).map(|m| (m.host.clone(), m.port))
            });
        let decided = by_record.is_some();
        let named = match by_record {
            Some(place) => place,
            None => named.or_else(|| leader.map(|leader| (leader.host.clone(), leader.port))),
        };
        let follows = decided || master != Some(n);
        let source = named.filter(|_| follows).map(|(host, port)| {
            let there = members.iter().find(|member| member.host == host && member.port == port);
            SourceWish {
                address: there.and_then(|member| member.address.clone()).into(),
                instance: there.map(|member| member.name.clone()),
                own_cluster: true,
                phase: there.and_then(|member| member.phase),
                server_uuid: None,
                secrets: secrets.clone(),
                host,
                port,
            }
        });
        Wish {
            instance: name(n),
            wanted,
            target_revision: Some(1),
            policy_revision: Some(0),
            leader: leader.and_then(|leader| Some((leader.address.clone()?, leader.port))),
            grant: Grant { cluster: Some(cluster()), leadership, revision: Some(1), secrets },
            source,
            followers: members.iter().filter_map(|member| member.server_id).collect::<BTreeSet<u32>>(),
            members,
            votes: self.votes.clone(),
            recorded_uuid: host_n.status.as_ref().and_then(|status| status.server_uuid.clone()).into(),
            store: Some(StoreReport { state: StoreState::Ok, expected: None, found: None }),
            controller: false,
            restart_asked: host_n.restart,
            reseed_asked: host_n.reseed,
        }
    }

    /// The server at an address, as asked over TCP by a member.
    fn look(&self, at: Option<(&String, u16)>, asking: &Seen) -> Known<SourceSeen> {
        let Some((at, port)) = at else { return Known::Absent };
        let found = self.hosts.iter().find(|(n, _)| {
            address(**n) == *at && self.targets.get(n).is_some_and(|document| document.target.port == port)
        });
        let Some((_, found)) = found else { return Known::Absent };
        let ready = found.status.as_ref().is_some_and(|s| matches!(s.phase, Phase::Running | Phase::Fenced));
        let Some(server) = found.seen.server.present().filter(|_| ready) else { return Known::Absent };
        let user = asking.record.server_id.map(replication_user).unwrap_or_default();
        let accounts = found.seen.accounts.present();
        Known::Present(SourceSeen {
            server_uuid: server.server_uuid.clone(),
            version: server.version.clone(),
            gtid_executed: server.gtid_executed.clone(),
            gtid_purged: server.gtid_purged.clone(),
            writable: server.writable(),
            account: accounts.is_some_and(|all| all.iter().any(|account| account.user == user)),
        })
    }

    fn view(&self, n: u8, wish: &Wish) -> Seen {
        let host = &self.hosts[&n];
        let mut seen = host.seen.clone();
        if !host.docker {
            (seen.container, seen.image) = (unknown(), unknown());
        }
        let source = wish.source.as_ref().filter(|_| !wish.leads() || receives_early(wish));
        // Nobody here has to wait for what is on its way.
        seen.handover.settled = true;
        seen.source = self.look(source.and_then(|s| Some((s.address.present()?, s.port))), &seen);
        seen.leader = match source {
            Some(_) if wish.leads() => Known::Absent,
            Some(_) => self.look(wish.leader.as_ref().map(|(host, port)| (host, *port)), &seen),
            None => Known::Absent,
        };
        seen
    }

    /// One step of each lane of a host; `false` where neither had one that could be done.
    fn pass(&mut self, n: u8) -> bool {
        let wish = self.wish(n);
        let seen = self.view(n, &wish);
        let mut moved = false;
        if let Plan::Do(step) = standing::plan(&wish, &seen) {
            moved |= self.act(n, &Step::Standing(step));
        }
        let wish = self.wish(n);
        let seen = self.view(n, &wish);
        if let Plan::Do(step) = converge::plan(&wish, &seen) {
            moved |= self.act(n, &Step::Converge(step));
        }
        self.replicate();
        self.publish(n);
        moved
    }

    fn publish(&mut self, n: u8) {
        let wish = self.wish(n);
        let seen = self.view(n, &wish);
        let outcome = Outcome {
            standing: standing::plan(&wish, &seen),
            converge: converge::plan(&wish, &seen),
            error: None,
            seed: None,
        };
        let before = self.hosts[&n].status.clone();
        let now = status(&wish, &seen, &outcome, &host(n), before.as_ref(), Timestamp::UNIX_EPOCH);
        let gone = !self.targets.contains_key(&n) && seen.record.server_id.is_none();
        let host = self.hosts.get_mut(&n).expect("a host");
        if host.cut_off.is_none() {
            host.status = (!gone).then_some(now);
        }
    }

    fn act(&mut self, n: u8, step: &Step) -> bool {
        let wish = self.wish(n);
        let seen = self.view(n, &wish);
        if let Some(rule) = broken(&seen, &wish, step) {
            panic!("db{n}: {rule}: {step:?}");
        }
        let in_etcd = matches!(
            step,
            Step::Converge(C::TakeServerId | C::MakeSecrets | C::Release | C::Forget)
                | Step::Standing(
                    S::AcceptTerm { .. }
                        | S::Claim
                        | S::Open { .. }
                        | S::MoveBehind { .. }
                        | S::PublishFinal { .. }
                        | S::TakeBack { .. }
                        | S::TakeOver { .. }
                        | S::LowerAcks { .. }
                )
        );
        if in_etcd && self.hosts[&n].cut_off.is_some() {
            return false;
        }
        if let Step::Standing(S::Open { .. } | S::TakeBack { .. } | S::TakeOver { .. }) = step {
            self.before_opening(n);
        }
        if let Step::Converge(C::Seed { donor, .. }) = step
            && self.hosts[&number(donor)].seen.server.present().is_none()
        {
            return false;
        }
        self.keep(n);
        let judged = seen.judged.clone();
        let (after, wished) = foresee(&seen, &wish, step);
        let host = self.hosts.get_mut(&n).expect("a host");
        let (container, image) = (host.seen.container.clone(), host.seen.image.clone());
        host.seen = after;
        if !host.docker {
            (host.seen.container, host.seen.image) = (container, image);
            // Its process ends whether Docker answers or not.
            if let (Known::Present(container), true) =
                (&mut host.seen.container, host.seen.process.is_absent())
                && matches!(container.state, ContainerState::Running | ContainerState::Paused)
            {
                container.state = ContainerState::Exited { code: 137, out_of_memory: false };
            }
        }
        (host.restart, host.reseed) = (wished.restart_asked, wished.reseed_asked);
        self.consequences(n, step, wished);
        if let (Step::Standing(S::SettleForeign), Some(judged), Some(leader)) = (step, judged, self.leader())
            && let Some(server) = self.server(leader)
        {
            server.gtid_executed = server.gtid_executed.union(&judged.gtids);
        }
        // One that is forgotten has nothing more to do.
        *step != Step::Converge(C::Forget)
    }

    fn consequences(&mut self, n: u8, step: &Step, wished: Wish) {
        match step {
            Step::Standing(
                S::AcceptTerm { .. } | S::MoveBehind { .. } | S::Freeze { .. } | S::PublishFinal { .. },
            ) => {
                let seen = &self.hosts[&n].seen;
                let (Some(server), Some(accepted)) = (seen.server.present(), &seen.record.accepted) else {
                    return;
                };
                let vote = Vote {
                    cluster: cluster(),
                    term: accepted.term,
                    server_uuid: server.server_uuid.clone(),
                    received: server.received(),
                    executed: server.gtid_executed.clone(),
                };
                self.votes.insert(name(n), vote);
            }
            Step::Standing(S::Claim | S::TakeBack { .. } | S::TakeOver { .. })
            | Step::Converge(C::Release) => {
                self.leadership = wished.grant.leadership.present().cloned();
            }
            Step::Converge(C::MakeSecrets) => self.secrets = wished.grant.secrets.present().cloned(),
            Step::Converge(C::StartContainer { .. }) => self.started(n),
            Step::Converge(C::SetAside) => {
                let host = self.hosts.get_mut(&n).expect("a host");
                if let Some(retired) = host.seen.retired.last() {
                    host.shelf.insert(retired.name.clone(), std::mem::take(&mut host.disk));
                }
            }
            Step::Converge(C::TakeUp { name }) => {
                let host = self.hosts.get_mut(&n).expect("a host");
                host.disk = host.shelf.remove(name).unwrap_or_default();
            }
            Step::Converge(C::CopyTemplate) => {
                self.hosts.get_mut(&n).expect("a host").disk = Disk::default();
            }
            Step::Converge(C::Seed { donor, .. }) => {
                let given = self.hosts[&number(donor)].seen.server.present().cloned();
                let host = self.hosts.get_mut(&n).expect("a host");
                host.disk = given.map_or_else(Disk::default, |given| Disk {
                    purged: given.gtid_executed.clone(),
                    executed: given.gtid_executed,
                    channel: given.channel,
                });
            }
            _ => {}
        }
    }

    /// The truth about a server that has come up, where only something plausible was foreseen.
    fn started(&mut self, n: u8) {
        self.identities += 1;
        let fresh = format!("{:08x}-0000-0000-0000-00000000000{n}", self.identities);
        let host = self.hosts.get_mut(&n).expect("a host");
        let Known::Present(server) = &mut host.seen.server else { return };
        let cloned = matches!(host.seen.record.data, DataOrigin::Cloning { .. });
        let uuid = host.seen.record.server_uuid.clone().filter(|_| !cloned).unwrap_or(fresh);
        server.server_uuid.clone_from(&uuid);
        if let Known::Present(data) = &mut host.seen.data {
            data.server_uuid = Some(uuid);
        }
        server.gtid_executed = host.disk.executed.clone();
        server.gtid_purged = host.disk.purged.clone();
        server.channel = host.disk.channel.clone().map(|channel| ChannelSeen {
            receiver: ThreadState::Off,
            applier: ThreadState::Off,
            ..channel
        });
    }

    /// I2, and one writer: whoever opens has every acknowledged commit, and nobody else is open.
    fn before_opening(&self, n: u8) {
        let executed = self.hosts[&n].seen.server.present().expect("a server").received();
        assert!(executed.contains(&self.acknowledged), "db{n} opens without {:?}", self.acknowledged);
    }

    /// Every channel that runs brings what its source has, as MySQL does it: without asking whether that is right.
    fn replicate(&mut self) {
        let servers: BTreeMap<(String, u16), ServerSeen> = self
            .hosts
            .iter()
            .filter_map(|(n, host)| {
                let port = self.targets.get(n)?.target.port;
                Some(((address(*n), port), host.seen.server.present()?.clone()))
            })
            .collect();
        for host in self.hosts.values_mut() {
            let Known::Present(server) = &mut host.seen.server else { continue };
            let received = server.received();
            let Some(channel) = &mut server.channel else { continue };
            if channel.receiver == ThreadState::Off {
                continue;
            }
            match servers.get(&(channel.host.clone(), channel.port)) {
                None => channel.receiver = ThreadState::Connecting,
                Some(source) if !received.contains(&source.gtid_purged) => {
                    channel.receiver = ThreadState::Off;
                    channel.receiver_error = Some((13114, "purged".to_owned()));
                }
                Some(source) => {
                    channel.receiver = ThreadState::On;
                    channel.source_uuid = Some(source.server_uuid.clone());
                    let news = source.gtid_executed.minus(&received);
                    channel.retrieved = channel.retrieved.union(&news);
                }
            }
            if channel.applier == ThreadState::On {
                server.gtid_executed = server.gtid_executed.union(&channel.retrieved);
            }
        }
    }

    /// A client commits where the leader lets it.
    fn write(&mut self) {
        let Some(leader) = self.leader() else { return };
        let Some(server) = self.server(leader).filter(|server| server.writable()) else { return };
        let uuid = server.server_uuid.clone();
        let next = server.gtid_executed.of_uuid(&uuid).count() + 1;
        let commit: GtidSet = format!("{uuid}:{next}").parse().unwrap();
        let needed = server.acks_in_force();
        server.gtid_executed = server.gtid_executed.union(&commit);
        self.replicate();
        let holds = |host: &&Host| {
            host.seen.server.present().is_some_and(|server| {
                let from = server.channel.as_ref().and_then(|channel| channel.source_uuid.as_ref());
                server.acknowledging && from == Some(&uuid) && server.received().contains(&commit)
            })
        };
        // Who waits is told of nothing; here he does not come back to ask.
        if self.hosts.values().filter(holds).count() as u32 >= needed {
            self.acknowledged = self.acknowledged.union(&commit);
        }
    }

    /// Lets all agents work until none has anything to do.
    fn settle(&mut self) -> Result<(), String> {
        let all: Vec<u8> = self.hosts.keys().copied().collect();
        for _ in 0..120 {
            let mut moved = false;
            for n in &all {
                moved |= self.pass(*n);
            }
            if !moved {
                return Ok(());
            }
        }
        Err(format!("no end: {}", self.describe()))
    }

    fn describe(&self) -> String {
        let one = |n: u8| {
            let wish = self.wish(n);
            let seen = self.view(n, &wish);
            let (standing, converge) = (standing::plan(&wish, &seen), converge::plan(&wish, &seen));
            format!("\ndb{n}: {standing:?}\n     {converge:?}")
        };
        self.hosts.keys().map(|n| one(*n)).collect()
    }

    /// All members are converged, one is open, and all have the same.
    fn judge(&self) -> Result<(), String> {
        let leader = self.leader().ok_or_else(|| format!("nobody leads: {}", self.describe()))?;
        let executed = |n: u8| self.hosts[&n].seen.server.present().map(|s| s.gtid_executed.clone());
        let all = executed(leader).ok_or("the leader does not run")?;
        if !all.contains(&self.acknowledged) {
            return Err(format!("lost: {:?}", self.acknowledged.minus(&all)));
        }
        for (n, host) in &self.hosts {
            if !host.status.as_ref().is_some_and(|status| status.converged) {
                return Err(format!("db{n} is not converged: {}", self.describe()));
            }
            let server = host.seen.server.present().ok_or("no server")?;
            if server.writable() != (*n == leader) || (*n != leader && !server.closed()) {
                return Err(format!("db{n} is open or closed as it should not be"));
            }
            if executed(*n).as_ref() != Some(&all) {
                return Err(format!("db{n} has other transactions than db{leader}"));
            }
        }
        Ok(())
    }

    /// The agent ends and starts again: what it has not on disk is looked at anew.
    fn restart_agent(&mut self, n: u8) {
        let Some(host) = self.hosts.get_mut(&n) else { return };
        host.seen.stopping = Stopping::No;
        host.seen.judged = None;
        (host.seen.voting, host.seen.handover) = Default::default();
        host.seen.accounts_version = None;
        host.seen.unsettable.clear();
    }
}
