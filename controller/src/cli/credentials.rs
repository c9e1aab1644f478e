//! `credentials`: how an application connects to a cluster.

use schemadock_schema::ClusterName;
use schemadock_schema::InstanceName;
use schemadock_schema::keys::Keys;
use schemadock_schema::leadership::{Handover, Leadership};
use schemadock_schema::secrets::Secrets;
use schemadock_store::{Selector, Snapshot};
use serde::Serialize;

use super::context::OutputArg;
use super::mysql::{Located, locate_in};
use super::{Context, Failure};

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The cluster.
    pub cluster: String,
    /// For people or for scripts.
    #[command(flatten)]
    pub output: OutputArg,
}

impl Args {
    /// Whether scripts read the output.
    pub(super) fn json(&self) -> bool {
        self.output.json()
    }
}

/// How an application connects, as scripts read it.
#[derive(Debug, Serialize)]
struct Shown {
    user: String,
    password: String,
    master: Option<Endpoint>,
    replicas: Vec<Endpoint>,
    /// None: all.
    schemas: Option<Vec<String>>,
    moved: Vec<Moved>,
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Endpoint {
    host: String,
    port: u16,
}

/// A schema that another cluster has now.
#[derive(Debug, Serialize)]
struct Moved {
    schema: String,
    cluster: ClusterName,
}

/// Runs the command.
///
/// # Errors
/// When the cluster is unknown or has no credentials yet.
pub async fn run(ctx: &Context, args: Args) -> Result<(), Failure> {
    let cluster: ClusterName = args
        .cluster
        .parse()
        .map_err(|why| Failure::failed(format!("{:?} cannot be a cluster: {why}", args.cluster)))?;
    let store = ctx.store().await?;
    let keys = &ctx.keys;
    let seen = store
        .read(&[
            Selector::Key(keys.secrets(&cluster)),
            Selector::Key(keys.leadership(&cluster)),
            Selector::Prefix(keys.handovers_of(&cluster)),
            Selector::Prefix(keys.targets()),
            Selector::Prefix(keys.statuses()),
            Selector::Prefix(keys.hosts()),
        ])
        .await?;
    let members = locate_in(&seen, keys, &cluster);
    let Some(secrets) = seen.get(&keys.secrets(&cluster)) else {
        return Err(if members.is_empty() {
            Failure::failed(format!("there is no cluster {cluster}"))
                .hint("`schemadock get clusters` lists all.")
        } else {
            Failure::failed(format!("cluster {cluster} has no credentials yet"))
                .hint("They are made when its first server is; `schemadock wait` shows how far that is.")
        });
    };
    let secrets: Secrets = serde_json::from_slice(&secrets.value).map_err(|why| {
        Failure::failed(format!("the credentials at {} cannot be read: {why}", secrets.key))
    })?;
    let leader = leader(&seen, keys, &cluster);
    let shown = put_together(&secrets, &members, leader.as_ref());
    if args.json() {
        let text = serde_json::to_string_pretty(&shown).map_err(|why| Failure::failed(why.to_string()))?;
        anstream::println!("{text}");
    } else {
        print(&cluster, &shown);
    }
    Ok(())
}

/// Who leads, if somebody does.
fn leader(seen: &Snapshot, keys: &Keys, cluster: &ClusterName) -> Option<InstanceName> {
    let record = serde_json::from_slice::<Leadership>(&seen.get(&keys.leadership(cluster))?.value).ok()?;
    let ended = seen.get(&keys.handover(cluster, record.term));
    let ended = ended.and_then(|entry| serde_json::from_slice::<Handover>(&entry.value).ok());
    record.with_handover(ended.as_ref()).master
}

fn put_together(secrets: &Secrets, members: &[Located], leader: Option<&InstanceName>) -> Shown {
    let endpoint = |member: &Located| member.address.clone().map(|(host, port)| Endpoint { host, port });
    let leads = |member: &&Located| Some(&member.name) == leader;
    let enabled = |member: &&Located| member.target.as_ref().is_some_and(|target| !target.disabled);
    Shown {
        user: secrets.application.user.clone(),
        password: secrets.application.password.expose().to_owned(),
        master: members.iter().find(leads).and_then(endpoint),
        replicas: members.iter().filter(|one| !leads(one)).filter(enabled).filter_map(endpoint).collect(),
        schemas: None,
        moved: Vec::new(),
    }
}

fn print(cluster: &ClusterName, shown: &Shown) {
    let at = |endpoint: &Endpoint| format!("{}:{}", endpoint.host, endpoint.port);
    let Shown { user, password, .. } = shown;
    anstream::println!("user      {user}");
    anstream::println!("password  {password}");
    match &shown.master {
        Some(master) => anstream::println!("master    {}", at(master)),
        None => anstream::println!("master    nobody leads {cluster} now"),
    }
    let replicas: Vec<String> = shown.replicas.iter().map(at).collect();
    anstream::println!(
        "replicas  {}",
        if replicas.is_empty() { "none".to_owned() } else { replicas.join(", ") }
    );
    if let Some(master) = &shown.master {
        let Endpoint { host, port } = master;
        anstream::println!(
            "mysql     mysql --host={host} --port={port} --user={user} --ssl-mode=REQUIRED --password"
        );
        anstream::println!("url       mysql://{user}:{password}@{host}:{port}/?ssl-mode=REQUIRED");
    }
}
