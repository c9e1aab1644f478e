//! Instances in states that plans lead to.

use std::collections::{BTreeMap, BTreeSet};

use schemadock_agent_plan::desired::{Desired, HostDefaults};
use schemadock_agent_plan::foresee::{Course, steps};
use schemadock_agent_plan::observed::{
    HandoverSeen, ImageSeen, Resident, RetiredSeen, Seen, ServerSeen, SourceSeen, Stopping, TemplateSeen,
    VotingSeen, Work,
};
use schemadock_agent_plan::record::Record;
use schemadock_agent_plan::wish::{Grant, Member, SourceWish, Wanted, Wish};
use schemadock_schema::gtid::GtidSet;
use schemadock_schema::known::{Known, WhyUnknown};
use schemadock_schema::leadership::{Durability, Leadership, LeadershipPhase, LineageEntry};
use schemadock_schema::policy::ClusterPolicy;
use schemadock_schema::secrets::Secrets;
use schemadock_schema::size::{GIB, Resources};
use schemadock_schema::status::{DataState, Phase, StoreReport, StoreState};
use schemadock_schema::target::{Role, Target};
use schemadock_schema::{ClusterName, HostName, InstanceName};

/// `server_uuid` of the master that minions of these fixtures follow.
pub(crate) const MASTER_UUID: &str = "aaaaaaaa-0000-0000-0000-000000000001";
/// A `server_uuid` of nobody.
pub(crate) const STRANGER: &str = "ffffffff-0000-0000-0000-00000000000f";
pub(crate) const PORT: u16 = 7335;

pub(crate) fn host(n: u8) -> HostName {
    format!("host0{n}").parse().unwrap()
}

pub(crate) fn name(n: u8) -> InstanceName {
    format!("host0{n}-shop-db{n}").parse().unwrap()
}

pub(crate) fn cluster() -> ClusterName {
    "shop".parse().unwrap()
}

pub(crate) fn address(n: u8) -> String {
    format!("127.0.1.{n}")
}

/// The data directory that another member reports.
pub(crate) fn uuid_of(n: u8) -> String {
    format!("bbbbbbbb-0000-0000-0000-00000000000{n}")
}

pub(crate) fn gtids(uuid: &str, to: u64) -> GtidSet {
    format!("{uuid}:1-{to}").parse().unwrap()
}

pub(crate) fn unknown<T>() -> Known<T> {
    Known::Unknown(WhyUnknown::Deadline("it".to_owned()))
}

pub(crate) fn target(role: Role, follows: Option<u8>) -> Target {
    let mut target: Target =
        serde_json::from_value(serde_json::json!({"role": "master", "port": PORT, "size": "quarter"}))
            .unwrap();
    target.role = role;
    target.master_host = follows.map(host);
    target.master_port = follows.map(|_| PORT);
    target
}

pub(crate) fn defaults(n: u8) -> HostDefaults {
    HostDefaults {
        host: host(n),
        address: address(n),
        image: "mysql:8.4".to_owned(),
        offered: Resources { memory: 8 * GIB, cpus: 4.0, disk: None },
    }
}

pub(crate) fn desired(n: u8, target: &Target, policy: Option<&ClusterPolicy>) -> Wanted {
    Wanted::Run(Box::new(Desired::resolve(&name(n), &cluster(), target, policy, &defaults(n))))
}

pub(crate) fn nothing() -> Seen {
    Seen {
        record: Record::default(),
        data: Known::Absent,
        retired: Vec::new(),
        config: None,
        good_config: None,
        init: false,
        container: Known::Absent,
        shape: "shape".to_owned(),
        process: Known::Absent,
        unheld: false,
        resident: Known::Present(Resident { bytes: 0, lasting: false }),
        image: Known::Present(ImageSeen { id: "sha256:1".to_owned() }),
        pull: Work::Idle,
        template: TemplateSeen::Ready { version: "8.4.0".to_owned() },
        port_taken: None,
        start_slot: true,
        server: Known::Absent,
        start_error: None,
        differing: unknown(),
        unsettable: BTreeMap::new(),
        accounts: unknown(),
        accounts_version: None,
        schemas: Known::Unknown(WhyUnknown::NotYet),
        source: Known::Absent,
        leader: Known::Absent,
        clone: unknown(),
        seed: Work::Idle,
        stopping: Stopping::No,
        judged: None,
        voting: VotingSeen::default(),
        handover: HandoverSeen::default(),
    }
}

pub(crate) fn secrets() -> Secrets {
    Secrets::from_random(|| "secret".to_owned(), "00000000")
}

pub(crate) fn leadership(term: u64, master: Option<u8>, uuid: &str, base: GtidSet) -> Leadership {
    Leadership {
        term,
        master: master.map(name),
        phase: LeadershipPhase::Steady,
        to: None,
        deadline: None,
        voters: Vec::new(),
        acks: 0,
        acks_next: None,
        leaving: Vec::new(),
        durability: Durability::Async,
        founder: uuid.to_owned(),
        settled: GtidSet::new(),
        lineage: vec![LineageEntry {
            term,
            name: name(master.unwrap_or(1)),
            server_uuid: uuid.to_owned(),
            base,
        }],
        by: "test".to_owned(),
        reason: String::new(),
    }
}

/// Another member that holds nothing yet.
pub(crate) fn member(n: u8, role: Role) -> Member {
    Member {
        name: name(n),
        host: host(n),
        role,
        disabled: false,
        registered: true,
        address: Some(address(n)),
        port: PORT,
        data: Some(DataState::None),
        phase: Some(Phase::Pending),
        version: None,
        server_id: None,
        server_uuid: None,
        acknowledges: Known::Absent,
        receives_from: None,
        lag_seconds: None,
        writable: false,
    }
}

/// Another member that serves.
pub(crate) fn serving(n: u8, role: Role) -> Member {
    Member {
        data: Some(DataState::Own),
        phase: Some(Phase::Running),
        version: Some("8.4.0".to_owned()),
        server_id: Some(100 + u32::from(n)),
        server_uuid: Some(uuid_of(n)),
        acknowledges: Known::Present(false),
        lag_seconds: (role == Role::Minion).then_some(0.0),
        writable: role == Role::Master,
        ..member(n, role)
    }
}

pub(crate) fn master_seen() -> SourceSeen {
    SourceSeen {
        server_uuid: MASTER_UUID.to_owned(),
        version: "8.4.0".to_owned(),
        gtid_executed: gtids(MASTER_UUID, 9),
        gtid_purged: GtidSet::new(),
        writable: true,
        account: true,
    }
}

/// An instance, and what is asked of it.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) seen: Seen,
    pub(crate) wish: Wish,
}

impl Case {
    /// db1, wished for as master, on a bare host.
    pub(crate) fn new_master() -> Case {
        let wish = Wish {
            instance: name(1),
            wanted: desired(1, &target(Role::Master, None), None),
            target_revision: Some(5),
            policy_revision: Some(0),
            grant: Grant {
                cluster: Some(cluster()),
                leadership: Known::Absent,
                revision: Some(7),
                secrets: Known::Absent,
            },
            source: None,
            leader: None,
            members: vec![member(2, Role::Minion), member(3, Role::Minion)],
            votes: BTreeMap::new(),
            followers: BTreeSet::new(),
            recorded_uuid: Known::Absent,
            store: Some(StoreReport { state: StoreState::Ok, expected: None, found: None }),
            controller: false,
            restart_asked: false,
            reseed_asked: false,
        };
        Case { seen: nothing(), wish }
    }

    /// db2, wished for as minion of db1, on a bare host, with the master open.
    pub(crate) fn new_minion() -> Case {
        let mut case = Case::new_master();
        case.wish.instance = name(2);
        case.wish.wanted = desired(2, &target(Role::Minion, Some(1)), None);
        case.wish.grant.secrets = Known::Present(secrets());
        case.wish.members = vec![serving(1, Role::Master), serving(3, Role::Minion)];
        case.wish.followers = BTreeSet::from([101, 103]);
        case.wish.grant.leadership = Known::Present(leadership(1, Some(1), MASTER_UUID, GtidSet::new()));
        case.wish.source = Some(SourceWish {
            host: host(1),
            port: PORT,
            address: Known::Present(address(1)),
            instance: Some(name(1)),
            own_cluster: true,
            phase: Some(Phase::Running),
            server_uuid: Some(MASTER_UUID.to_owned()),
            secrets: Known::Present(secrets()),
        });
        case.wish.leader = Some((address(1), PORT));
        case.seen.source = Known::Present(master_seen());
        case.seen.leader = Known::Present(master_seen());
        case
    }

    /// db1 that leads, with nothing left to do.
    pub(crate) fn master() -> Case {
        let mut case = Case::new_master().played();
        case.wish.members = vec![serving(2, Role::Minion), serving(3, Role::Minion)];
        case.wish.recorded_uuid = case.seen.record.server_uuid.clone().into();
        case
    }

    /// db2 that follows, with nothing left to do.
    pub(crate) fn minion() -> Case {
        let mut case = Case::new_minion().played();
        case.wish.recorded_uuid = case.seen.record.server_uuid.clone().into();
        case
    }

    /// The same after all steps.
    pub(crate) fn played(self) -> Case {
        let Course { seen, wish, .. } = self.course();
        Case { seen, wish }
    }

    pub(crate) fn course(&self) -> Course {
        steps(&self.seen, &self.wish)
    }

    /// With something changed.
    pub(crate) fn with(mut self, change: impl FnOnce(&mut Seen, &mut Wish)) -> Case {
        change(&mut self.seen, &mut self.wish);
        self
    }

    /// With the server changed.
    pub(crate) fn server(self, change: impl FnOnce(&mut ServerSeen)) -> Case {
        self.with(|seen, _| change(server(seen)))
    }

    /// With the document changed.
    pub(crate) fn document(self, change: impl FnOnce(&mut Target)) -> Case {
        self.with(|_, wish| {
            let n = number(&wish.instance);
            let mut target = if wish.leads() || wish.source.is_none() {
                target(Role::Master, None)
            } else {
                target(Role::Minion, Some(1))
            };
            change(&mut target);
            wish.wanted = desired(n, &target, None);
        })
    }
}

pub(crate) fn number(instance: &InstanceName) -> u8 {
    instance.as_str().as_bytes()[5] - b'0'
}

pub(crate) fn server(seen: &mut Seen) -> &mut ServerSeen {
    match &mut seen.server {
        Known::Present(server) => server,
        _ => panic!("no server"),
    }
}

pub(crate) fn record(wish: &mut Wish) -> &mut Leadership {
    match &mut wish.grant.leadership {
        Known::Present(record) => record,
        _ => panic!("no leadership"),
    }
}

pub(crate) fn retired(uuid: &str, deleted: bool) -> RetiredSeen {
    RetiredSeen { name: "20260101T000000.000Z".to_owned(), deleted, server_uuid: Some(uuid.to_owned()) }
}
