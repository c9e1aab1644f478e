//! What people ask of whole clusters, drawn from the seed, and how it ends.

use std::collections::BTreeMap;
use std::time::Duration;

use schemadock_controller_plan::cluster::Cluster;
use schemadock_controller_plan::view::{FleetView, Raw};
use schemadock_schema::leadership::{Leadership, LeadershipPhase};
use schemadock_schema::operation::{Create, Operation, Request};
use schemadock_schema::policy::{ClusterPolicy, WishedDurability};
use schemadock_schema::proposal::{Guard, Proposal, Write};
use schemadock_schema::size::{ExactSize, GIB, Size};
use schemadock_schema::target::VariableValue;
use schemadock_schema::{ClusterName, HostName, InstanceName};
use schemadock_store::Committed;
use serde_json::json;
use tokio::time::Instant;

use super::fleet::{CLUSTER, Fleet};

/// How long everything that is asked for may take once nothing disturbs it.
const OVER: Duration = Duration::from_secs(1800);

fn cluster() -> ClusterName {
    CLUSTER.parse().expect("it is one")
}

/// A cluster of three.
pub fn create() -> Request {
    Request::Create(Create { replicas: 2, ..Create::default() })
}

impl Fleet {
    /// Asks for an operation, as the command line does with `--queue`.
    pub async fn ask(&self, request: Request) {
        let id = format!("{:013}-person-{:06}", self.now().as_millisecond(), self.world.draw(0..1_000_000));
        self.world.note(format!("a person asks for {request:?} as {id}"));
        let mut writes = Vec::new();
        let mut clusters = vec![cluster()];
        if let Request::Drain { host, .. } = &request {
            let cordon = json!({"by": "person", "at": self.now(), "reason": format!("operation {id}")});
            writes.push(Write::document(self.keys.cordon(host), &cordon));
            clusters.clear();
        }
        let operation = Operation::queued(id.clone(), request, clusters, "person", self.now());
        writes.push(Write::document(self.keys.operation(&id), &operation));
        self.write(writes).await;
    }

    /// Changes a document as people do: by compare-and-swap.
    async fn swap<T: serde::Serialize>(&self, key: String, change: impl Fn(Option<&[u8]>) -> Option<T>) {
        loop {
            let entry = self.world.etcd().peek(&key);
            let Some(after) = change(entry.as_ref().map(|entry| entry.value.as_slice())) else { return };
            let guard = Guard::unchanged(key.clone(), entry.map(|entry| entry.mod_revision));
            let writes = vec![Write::document(key.clone(), &after)];
            let proposal = Proposal { writes, guards: vec![guard], report: Vec::new() };
            if let Some(Committed::Written { .. }) = self.commit(&proposal).await {
                return;
            }
        }
    }

    async fn wish_policy(&self, what: &str, change: impl Fn(&mut ClusterPolicy)) {
        self.world.note(format!("a person wishes {what}"));
        self.swap(self.keys.cluster(&cluster()), |stored| {
            let mut policy: ClusterPolicy = serde_json::from_slice(stored?).ok()?;
            change(&mut policy);
            Some(policy)
        })
        .await;
    }

    async fn cancel(&self, id: &str) {
        self.world.note(format!("a person cancels {id}"));
        self.swap(self.keys.operation(id), |stored| {
            let mut operation: Operation = serde_json::from_slice(stored?).ok()?;
            operation.cancel = true;
            (!operation.state.is_over()).then_some(operation)
        })
        .await;
    }

    fn operations(&self) -> Vec<Operation> {
        let entries = self.world.etcd().peek_below(&self.keys.operations());
        entries.iter().filter_map(|entry| serde_json::from_slice(&entry.value).ok()).collect()
    }

    /// Waits until a handover is under way, and for a moment of it; at most so long.
    pub async fn in_a_handover(&self, within: Duration) {
        let mut stirs = self.world.etcd().stirs();
        let under_way = || {
            let entry = self.world.etcd().peek(&self.keys.leadership(&cluster()));
            let record = entry.and_then(|entry| serde_json::from_slice::<Leadership>(&entry.value).ok());
            record.is_some_and(|record| record.phase == LeadershipPhase::Handover)
        };
        let begun = async { while !under_way() && stirs.changed().await.is_ok() {} };
        tokio::select! {
            biased;
            () = begun => {}
            () = self.rest(within) => {}
        }
        self.rest(Duration::from_micros(self.world.draw(0..1_000_000))).await;
    }

    /// What the controller makes of all that the store holds.
    fn view(&self) -> FleetView {
        let entries = self.world.etcd().peek_below(self.keys.prefix());
        let raw = entries.iter().map(|entry| Raw {
            key: &entry.key,
            value: &entry.value,
            mod_revision: entry.mod_revision,
            create_revision: entry.create_revision,
        });
        FleetView::read(&self.keys, self.world.etcd().revision(), raw)
    }

    /// Waits until every operation is over.
    ///
    /// # Errors
    /// The one that is not, or the rule that has broken.
    pub async fn all_over(&self) -> Result<(), String> {
        let until = Instant::now() + OVER;
        loop {
            self.unbroken()?;
            let left = self.operations().into_iter().find(|operation| !operation.state.is_over());
            let Some(left) = left else { break };
            if Instant::now() >= until {
                return Err(format!(
                    "{} is {} for {OVER:?}: {:?}, waits for {:?}",
                    left.id, left.state, left.step, left.waiting_on
                ));
            }
            self.rest(Duration::from_millis(500)).await;
        }
        for operation in self.operations() {
            let outcome = operation.outcome.ok_or(format!("{} ended without a reason", operation.id))?;
            self.world.note(format!("--- {} is {}: {outcome}", operation.request.kind(), operation.state));
        }
        Ok(())
    }

    /// Brings a cluster back that people have stopped or deleted, and waits until it is whole: every member as it is to
    /// be, the durability in force as wished, and one server open.
    ///
    /// # Errors
    /// What is missing after `within`, or the rule that has broken.
    pub async fn whole(&self, within: Duration) -> Result<(), String> {
        // What can be placed nowhere waits for that.
        for host in self.hosts() {
            self.write(vec![Write::Delete { key: self.keys.cordon(host) }]).await;
        }
        self.all_over().await?;
        if self.targets().is_empty() {
            self.ask(create()).await;
        } else if self.targets().values().any(|(target, _)| target.get("disabled") == Some(&true.into())) {
            self.ask(Request::Start).await;
        }
        self.all_over().await?;
        let until = Instant::now() + within;
        loop {
            self.unbroken()?;
            let name = cluster();
            let view = self.view();
            let missing = match self.standing().values().filter(|(_, writable)| *writable).count() {
                _ if self.targets().is_empty() => Some("there is no cluster".to_owned()),
                1 => Cluster::of(&view, &name).missing(),
                open => Some(format!("{open} servers are open")),
            };
            let Some(missing) = missing else { return Ok(()) };
            if Instant::now() >= until {
                return Err(format!("not whole after {within:?}: {missing}"));
            }
            self.rest(Duration::from_millis(500)).await;
        }
    }
}

/// Asks for something.
pub async fn wish(fleet: &Fleet) {
    let draw = |end: u64| fleet.world.draw(0..end);
    let members: Vec<InstanceName> = fleet.targets().into_keys().collect();
    let host: HostName = fleet.hosts()[draw(fleet.hosts().len() as u64) as usize].clone();
    let member = match members.len() {
        0 => return fleet.ask(create()).await,
        count => members[draw(count as u64) as usize].clone(),
    };
    let request = match draw(21) {
        0..3 => Request::Switchover { to: None },
        3..6 => Request::Switchover { to: Some(member) },
        6..9 => Request::Scale { replicas: draw(4) as u32, hosts: Vec::new() },
        9 => Request::Stop,
        10 => Request::Start,
        11 => Request::Move { instance: member, to: host },
        12 => Request::Upgrade { image: format!("mysql:sim{}", draw(3)), soak: draw(20) },
        13 if draw(2) == 0 => Request::Resize { size: Size::Small },
        13 => {
            let (memory, cpus) = (GIB + GIB / 2, Some(0.5));
            Request::Resize { size: Size::Exact(ExactSize { memory, cpus, disk: None }) }
        }
        14 => {
            let value = VariableValue::Integer(50 + draw(500) as i64);
            Request::Set { mysql: BTreeMap::from([("max_connections".to_owned(), Some(value))]) }
        }
        15 => Request::Drain { host, evict: draw(2) == 0 },
        16 => {
            let wish = |policy: &mut ClusterPolicy| policy.durability = Some(WishedDurability::Async);
            return fleet.wish_policy("async", wish).await;
        }
        17 => {
            let wish = |policy: &mut ClusterPolicy| policy.durability = Some(WishedDurability::Lossless);
            return fleet.wish_policy("lossless", wish).await;
        }
        18 => Request::Delete,
        19 => {
            let acks = 1 + draw(2) as u32;
            let wish = |policy: &mut ClusterPolicy| policy.acks = Some(acks);
            return fleet.wish_policy(&format!("{acks} acknowledgements"), wish).await;
        }
        _ => {
            let running = fleet.operations().into_iter().find(|operation| !operation.state.is_over());
            if let Some(operation) = running {
                fleet.cancel(&operation.id).await;
            }
            return;
        }
    };
    fleet.ask(request).await;
}
