//! `fleet`: the fleet's identity, and what to do with a store that is not the one the agents know.

mod accept;
pub(super) mod ask;
mod merge;
mod rebuild;

use std::collections::BTreeMap;

use schemadock_schema::HostName;
use schemadock_schema::fleet::Fleet;
use schemadock_schema::host::Host;
use schemadock_schema::keys::Keys;
use schemadock_schema::proposal::{Guard, Proposal, Write};
use schemadock_schema::status::{StoreReport, StoreState};
use schemadock_store::{Committed, Entry, Selector, Snapshot, Store};
use serde_json::{Value, json};

use super::context::OutputArg;
use super::view::plain;
use super::{Context, Failure, seen};

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What can be done with the fleet's identity.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Show the fleet's id, and which hosts believe this etcd.
    Status {
        /// For people or for scripts.
        #[command(flatten)]
        output: OutputArg,
    },
    /// Declare that this etcd, restored or replaced, is the one that the agents are to follow.
    Accept(accept::Args),
    /// Put together what the agents remember, in an etcd that has lost it.
    Rebuild(rebuild::Args),
}

impl Args {
    /// Whether scripts read the output.
    pub(super) fn json(&self) -> bool {
        match &self.command {
            Command::Status { output } => output.json(),
            Command::Accept(args) => args.output.json(),
            Command::Rebuild(args) => args.output.json(),
        }
    }
}

/// Runs the command.
///
/// # Errors
/// When etcd cannot be asked, or the store is not what the command is for.
pub async fn run(ctx: &Context, args: Args) -> Result<(), Failure> {
    match args.command {
        Command::Status { output } => status(ctx, output.json()).await,
        Command::Accept(args) => accept::run(ctx, args).await,
        Command::Rebuild(args) => rebuild::run(ctx, args).await,
    }
}

/// What etcd says of the fleet, and the agents of etcd.
pub(super) struct Seen {
    /// All keys that were read.
    pub(super) snapshot: Snapshot,
    /// `P/fleet`, if it can be read.
    pub(super) fleet: Option<Fleet>,
    /// The hosts, with what they think of this store.
    pub(super) hosts: BTreeMap<HostName, Host>,
}

impl Seen {
    pub(super) async fn read(store: &dyn Store, keys: &Keys) -> Result<Seen, Failure> {
        let (snapshot, hosts) = Self::read_hosts(store, keys).await?;
        let fleet = snapshot.get(&keys.fleet()).map(|entry| read_fleet(keys, entry)).transpose()?;
        Ok(Seen { snapshot, fleet, hosts })
    }

    /// The same where garbage at `P/fleet` is to be replaced.
    pub(super) async fn read_leniently(store: &dyn Store, keys: &Keys) -> Result<Seen, Failure> {
        let (snapshot, hosts) = Self::read_hosts(store, keys).await?;
        let fleet = snapshot.get(&keys.fleet()).and_then(|entry| read_fleet(keys, entry).ok());
        Ok(Seen { snapshot, fleet, hosts })
    }

    async fn read_hosts(
        store: &dyn Store,
        keys: &Keys,
    ) -> Result<(Snapshot, BTreeMap<HostName, Host>), Failure> {
        let parts = [
            Selector::Key(keys.fleet()),
            Selector::Prefix(keys.hosts()),
            Selector::Prefix(keys.alive_all()),
            Selector::Key(keys.controller_leader()),
            Selector::Prefix(keys.controllers()),
        ];
        let snapshot = store.read(&parts).await?;
        let prefix = keys.hosts();
        let hosts =
            snapshot.below(&prefix).filter_map(|entry| serde_json::from_slice::<Host>(&entry.value).ok());
        let hosts = hosts.map(|host| (host.name.clone(), host)).collect();
        Ok((snapshot, hosts))
    }

    pub(super) fn alive(&self, keys: &Keys, host: &HostName) -> bool {
        self.snapshot.get(&keys.alive(host)).is_some()
    }

    /// Copies of the controller, as `get controllers` has them.
    fn controllers(&self, keys: &Keys) -> Vec<Value> {
        let seen = seen::read(keys, self.snapshot.revision, self.snapshot.entries.values());
        plain::controllers(keys, &seen)
    }

    /// The ids that hosts remember and this store does not answer to.
    pub(super) fn remembered_elsewhere(&self) -> BTreeMap<String, Vec<HostName>> {
        let mut found: BTreeMap<String, Vec<HostName>> = BTreeMap::new();
        for host in self.hosts.values().filter(|host| host.store.state != StoreState::Ok) {
            if let Some(id) = &host.store.expected {
                found.entry(id.clone()).or_default().push(host.name.clone());
            }
        }
        found
    }
}

fn read_fleet(keys: &Keys, entry: &Entry) -> Result<Fleet, Failure> {
    serde_json::from_slice(&entry.value).map_err(|why| {
        Failure::failed(format!("{} holds garbage: {why}", keys.fleet()))
            .hint("`schemadock fleet rebuild` restores it from what the agents remember.")
    })
}

/// The fleet's identity, if etcd holds one.
///
/// # Errors
/// When etcd cannot be asked, or holds garbage at that place.
pub async fn look(store: &dyn Store, keys: &Keys) -> Result<Option<Fleet>, Failure> {
    let seen = store.read(&[Selector::Key(keys.fleet())]).await?;
    seen.get(&keys.fleet()).map(|entry| read_fleet(keys, entry)).transpose()
}

/// The fleet's identity, made where there is none yet; by the first command that writes.
///
/// # Errors
/// When etcd is blank although agents remember a fleet: then a person decides.
pub async fn ensure(ctx: &Context) -> Result<Fleet, Failure> {
    let store = ctx.store().await?;
    loop {
        let seen = Seen::read(store.as_ref(), &ctx.keys).await?;
        if let Some(fleet) = seen.fleet {
            return Ok(fleet);
        }
        if let Some((id, hosts)) = seen.remembered_elsewhere().into_iter().next() {
            let names = join(&hosts);
            return Err(Failure::failed(format!(
                "etcd holds no fleet, but {names} remembers the fleet {id}"
            ))
            .hint("Is this the right etcd? If it was lost: `schemadock fleet rebuild`."));
        }
        let fleet = Fleet { id: uuid::Uuid::new_v4().to_string(), accepted: Vec::new() };
        let proposal = Proposal {
            writes: vec![Write::document(ctx.keys.fleet(), &fleet)],
            guards: vec![Guard::Absent { key: ctx.keys.fleet() }],
            report: Vec::new(),
        };
        if let Committed::Written { .. } = store.commit(&proposal).await? {
            return Ok(fleet);
        }
    }
}

pub(super) fn join(hosts: &[HostName]) -> String {
    hosts.iter().map(HostName::as_str).collect::<Vec<_>>().join(", ")
}

async fn status(ctx: &Context, json: bool) -> Result<(), Failure> {
    let store = ctx.store().await?;
    let seen = Seen::read(store.as_ref(), &ctx.keys).await?;
    if json {
        let hosts = seen.hosts.values();
        let hosts: Vec<_> = hosts
            .map(|host| json!({"name": host.name, "alive": seen.alive(&ctx.keys, &host.name), "store": host.store}))
            .collect();
        let shown = json!({
            "id": seen.fleet.as_ref().map(|fleet| &fleet.id),
            "accepted": seen.fleet.as_ref().map(|fleet| &fleet.accepted),
            "revision": seen.snapshot.revision,
            "hosts": hosts,
            "controllers": seen.controllers(&ctx.keys),
        });
        anstream::println!("{shown:#}");
        return Ok(());
    }
    match &seen.fleet {
        None => {
            anstream::println!("fleet     none: this etcd is blank (revision {})", seen.snapshot.revision)
        }
        Some(fleet) => {
            anstream::println!("fleet     {} (revision {})", fleet.id, seen.snapshot.revision);
            for one in &fleet.accepted {
                anstream::println!(
                    "accepted  {} up to revision {}, by {} at {}",
                    one.id,
                    one.revision,
                    one.by,
                    one.at
                );
            }
        }
    }
    for host in seen.hosts.values() {
        let alive = if seen.alive(&ctx.keys, &host.name) { "" } else { "  (agent not alive)" };
        anstream::println!("{:<8}  {}{alive}", host.name, opinion(&host.store));
    }
    for copy in seen.controllers(&ctx.keys) {
        let text = |field: &str| copy[field].as_str().unwrap_or("?").to_owned();
        let office = if copy["leader"] == true { ", in office" } else { "" };
        let (id, host, version) = (text("id"), text("host"), text("version"));
        anstream::println!("controller  {id} on {host}, version {version}{office}");
    }
    if seen.snapshot.get(&ctx.keys.controller_leader()).is_none() {
        anstream::println!("controller  none is in office: operations need one, or --here");
    }
    let elsewhere = seen.remembered_elsewhere();
    if !elsewhere.is_empty() {
        anstream::eprintln!(
            "\nSome agents do not believe this etcd: nothing is stopped, opened or deleted on its word."
        );
        anstream::eprintln!(
            "Wrong etcd? Correct the agents' settings. Restored from a backup? `fleet accept`."
        );
        anstream::eprintln!(
            "Lost, and this is a new one? `fleet rebuild` puts together what the agents remember."
        );
    }
    Ok(())
}

/// What an agent thinks of the store, for people.
pub(super) fn opinion(store: &StoreReport) -> String {
    let expected = store.expected.as_deref().unwrap_or("none");
    let found = store.found.as_deref().unwrap_or("none");
    match store.state {
        StoreState::Ok => "believes it".to_owned(),
        StoreState::Blank => format!("remembers fleet {expected}, found none"),
        StoreState::Foreign => format!("remembers fleet {expected}, found {found}"),
        StoreState::Older => format!("has seen a later state of fleet {expected} than this one"),
    }
}
