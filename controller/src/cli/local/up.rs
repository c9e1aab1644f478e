//! `local up`: starts a fleet on this machine, or mends what is missing of one.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use schemadock_schema::keys::Keys;
use schemadock_schema::{ClusterName, HostName};
use schemadock_store::{Change, Selector, Snapshot, Store};

use super::controllers::{self, MAX_CONTROLLERS};
use super::directory::{self, Directory, MAX_HOSTS, host_name, private_dir};
use super::hosts::{self, Agent, Running};
use super::{DirArg, containers, goodbye, isolation, namespaces, network, process, store};
use crate::cli::context::OutputArg;
use crate::cli::{Context, Failure, apply, fleet, topology, wait};

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many hosts; 3 for a new fleet, as many as there are for one that exists.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=i64::from(MAX_HOSTS)))]
    pub hosts: Option<u8>,
    /// How many copies of the controller; 1 for a new fleet, as many as there are for one that exists.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=i64::from(MAX_CONTROLLERS)))]
    pub controllers: Option<u8>,
    /// Where the fleet lives.
    #[command(flatten)]
    pub dir: DirArg,
    /// Give each host a network namespace with an address of its own, out of 198.18.0.0/15, so that `local isolate` can
    /// cut it off; needs root, iproute2 and iptables. Decided when the fleet is made.
    #[arg(long)]
    pub netns: bool,
    /// The image of instances for which nothing names one; any with mysqld 8.0.26 or newer.
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<String>,
    /// Target states to apply once it runs; `-` is stdin.
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    pub files: Vec<String>,
    /// How long to wait for the instances of the files.
    #[arg(long, default_value = "120s", value_name = "TIME", value_parser = crate::cli::context::parse_time)]
    pub timeout: Duration,
}

const DEFAULT_HOSTS: u8 = 3;
/// How long they may take to speak of all their instances, in a new life.
const SPOKEN: Duration = Duration::from_secs(15);
/// How long agents may take to report for the first time.
const REGISTERED: Duration = Duration::from_secs(60);

pub(super) async fn run(ctx: &Context, args: Args) -> Result<(), Failure> {
    let began = Instant::now();
    // What can be known to fail is asked first, while nothing is started.
    hosts::agent_program()?;
    if args.controllers != Some(0) {
        controllers::controller_program()?;
    }
    let socket = containers::docker_socket()?;
    let docker = containers::connect(&socket).await?;
    let path = args.dir.path()?;
    if args.netns || directory::look(&path)?.is_some_and(|(_, remembered)| remembered.netns) {
        network::check()?;
    }
    let mut directory = Directory::make(&path, ctx.keys.prefix())?;
    settle(&mut directory, &args, ctx.keys.prefix())?;
    warn_of_image(&docker, &directory).await;
    let network = match directory.remembered.netns {
        true => Some(network::provide(&mut directory)?),
        false => None,
    };

    let fresh = store::provide(&mut directory).await?;
    let url = directory.remembered.etcd_url().ok_or_else(|| Failure::failed("etcd has no port"))?;
    let word = if fresh { "started" } else { "runs" };
    anstream::eprintln!("etcd     {word} at {url}");
    let local = Context::new(vec![url], &directory.remembered.prefix);
    let connection = local.store().await?;
    let known = remember_fleet(&local, connection.as_ref(), &mut directory).await;

    let before = connection
        .read(&[Selector::Prefix(local.keys.targets()), Selector::Prefix(local.keys.statuses())])
        .await?;
    if let Some(network) = &network {
        // Their containers carry the fleet's id; without one, what it lacks is said here.
        if directory.remembered.fleet.is_empty() {
            return known;
        }
        namespaces::provide(&directory, &docker, network).await?;
    }
    let cut_off = cut_off(&directory, &args.dir.flag())?;
    let mut agents = hosts::provide(&directory, &socket).await?;
    report_agents(&agents);
    agents.retain(|agent| !cut_off.contains(&agent.host));
    registered(connection.as_ref(), &local.keys, &directory, &agents).await?;
    // In an etcd that has lost the fleet the agents do nothing, but can be asked what was there.
    known?;
    spoken(connection.as_ref(), &local.keys, &before, &agents).await?;
    let copies = controllers::provide(&directory).await?;
    controllers::elected(&directory.path, &copies, connection.as_ref(), &local.keys).await?;
    let farewell = goodbye::Facts::of(&directory, &args.dir);
    // From here on the fleet runs by itself; `local down` from elsewhere need not wait for us.
    drop(directory);

    let mut outcome = Ok(());
    let clusters = if args.files.is_empty() {
        BTreeSet::new()
    } else {
        let given = apply::Args {
            files: args.files.clone(),
            dry_run: false,
            yes: true,
            prune: false,
            move_master: false,
            output: OutputArg::default(),
        };
        apply::run(&local, given).await?;
        let clusters = clusters_of(&args.files, connection.as_ref(), &local.keys).await?;
        outcome = wait_for(&local, &clusters, args.timeout).await;
        let shown = topology::Args { cluster: only(&clusters), output: OutputArg::default() };
        topology::run(&local, shown).await?;
        clusters
    };
    goodbye::print(&farewell, connection.as_ref(), &local.keys, &clusters).await?;
    anstream::eprintln!("{:.1} s in all", began.elapsed().as_secs_f64());
    outcome
}

/// Takes up what this call asks for.
fn settle(directory: &mut Directory, args: &Args, prefix: &str) -> Result<(), Failure> {
    let remembered = &mut directory.remembered;
    let path = directory.path.display();
    if remembered.prefix != prefix {
        let found = format!("the fleet in {path} has the prefix {}, not {prefix}", remembered.prefix);
        return Err(Failure::usage(found).hint("Another prefix needs another directory (--dir)."));
    }
    let hosts = args.hosts.unwrap_or(if remembered.hosts == 0 { DEFAULT_HOSTS } else { remembered.hosts });
    if hosts < remembered.hosts {
        let found = format!(
            "the fleet in {path} has {} hosts; --hosts {hosts} would take some away",
            remembered.hosts
        );
        return Err(Failure::usage(found)
            .hint("Hosts can only be added. A smaller fleet needs another directory (--dir)."));
    }
    if args.netns && !remembered.netns && remembered.hosts > 0 {
        return Err(Failure::usage(format!("the hosts of the fleet in {path} share this machine's network"))
            .hint("That is decided when a fleet is made: --netns needs another directory (--dir)."));
    }
    remembered.netns |= args.netns;
    remembered.hosts = hosts;
    remembered.controllers = Some(args.controllers.unwrap_or(remembered.controllers()));
    if args.image.is_some() {
        remembered.image.clone_from(&args.image);
    }
    private_dir(&directory.path.join("log"))?;
    directory.remember()
}

/// The agents say the same later, and wait; said here it explains the wait.
async fn warn_of_image(docker: &bollard::Docker, directory: &Directory) {
    let Some(image) = &directory.remembered.image else { return };
    if let Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. }) =
        docker.inspect_image(image).await
    {
        anstream::eprintln!("image    {image} is not here yet; the agents pull it");
    }
}

/// Sees to the fleet's identity, and remembers it: servers are found by it.
async fn remember_fleet(ctx: &Context, store: &dyn Store, directory: &mut Directory) -> Result<(), Failure> {
    let known = fleet::look(store, &ctx.keys).await?;
    let found = match (known, directory.remembered.fleet.last()) {
        (Some(found), _) => found,
        (None, None) => fleet::ensure(ctx).await?,
        (None, Some(lost)) => {
            return Err(Failure::failed(format!("etcd holds no fleet, but this directory's fleet is {lost}"))
                .hint(format!(
                    "Was {}/etcd removed? `schemadock fleet rebuild` (with SCHEMADOCK_ETCD={}) puts together what the \
                     agents remember; `schemadock local down --purge` gives everything up.",
                    directory.path.display(),
                    ctx.endpoints.join(",")
                )));
        }
    };
    directory.remember_ids(found)
}

fn report_agents(agents: &[Running]) {
    let of = |what: Agent| {
        let names: Vec<&str> =
            agents.iter().filter(|one| one.what == what).map(|one| one.host.as_str()).collect();
        (!names.is_empty()).then(|| names.join(", "))
    };
    for (what, word) in [
        (Agent::Kept, "run"),
        (Agent::Started, "started"),
        (Agent::Replaced, "started anew, with new settings or a new program"),
    ] {
        if let Some(names) = of(what) {
            anstream::eprintln!("agents   {names}: {word}");
        }
    }
}

/// The hosts that do not reach etcd, since somebody has cut them off; nobody waits for them.
fn cut_off(directory: &Directory, flag: &str) -> Result<BTreeSet<HostName>, Failure> {
    let mut found = BTreeSet::new();
    for number in 1..=directory.remembered.hosts {
        let isolated = isolation::of(&directory.path, &directory.remembered, number)?;
        let name = host_name(number);
        if let Some(words) = isolated.words() {
            anstream::eprintln!(
                "hosts    {name} is {words}: `schemadock local heal {name}{flag}` takes that back"
            );
        }
        if isolated.hides_etcd() {
            found.insert(name);
        }
    }
    Ok(found)
}

/// Returns when every host is registered and its agent alive, or an agent has ended.
async fn registered(
    store: &dyn Store,
    keys: &Keys,
    directory: &Directory,
    agents: &[Running],
) -> Result<(), Failure> {
    let mut ends: FuturesUnordered<_> = agents
        .iter()
        .map(|agent| async move {
            agent.process.ended().await;
            agent.number
        })
        .collect();
    let mut missing: BTreeSet<HostName> = agents.iter().map(|agent| agent.host.clone()).collect();
    let all = all_reported(store, keys, &mut missing);
    let ended = tokio::select! {
        biased;
        Some(number) = ends.next() => Some(number),
        done = tokio::time::timeout(REGISTERED, all) => match done {
            Ok(done) => return done,
            Err(_) => None,
        },
    };
    drop(ends);
    let number = ended.unwrap_or_else(|| {
        (1..=directory.remembered.hosts).find(|number| missing.contains(&host_name(*number))).unwrap_or(1)
    });
    let log = hosts::log_file(&directory.path, number);
    let what = if ended.is_some() { "ended" } else { "has not reported within 60 s" };
    Err(Failure::failed(format!("the agent of {} {what}. The end of {}:", host_name(number), log.display()))
        .hint(process::last_lines(&log, 8)))
}

/// Two keys of each host: that its agent lives, and what it says of the host.
async fn all_reported(
    store: &dyn Store,
    keys: &Keys,
    missing: &mut BTreeSet<HostName>,
) -> Result<(), Failure> {
    for (prefix, key) in [
        (keys.alive_all(), &(|host: &HostName| keys.alive(host)) as &(dyn Fn(&HostName) -> String + Sync)),
        (keys.hosts(), &|host: &HostName| keys.host(host)),
    ] {
        let part = Selector::Prefix(prefix);
        let mut awaited = missing.clone();
        let seen = store.read(std::slice::from_ref(&part)).await?;
        awaited.retain(|host| seen.get(&key(host)).is_none());
        let mut changes = store.watch(&part, seen.revision).await?;
        while !awaited.is_empty() {
            let batch = changes.next().await.ok_or_else(|| Failure::failed("etcd ended a watch"))??;
            for change in batch.1 {
                if let Change::Put(entry) = change {
                    awaited.retain(|host| key(host) != entry.key);
                }
            }
        }
    }
    missing.clear();
    Ok(())
}

/// Returns when the agents that were started have spoken of all their instances: what stands in etcd before that is
/// their earlier life's word, and may call converged what is not there any more.
async fn spoken(
    store: &dyn Store,
    keys: &Keys,
    before: &Snapshot,
    agents: &[Running],
) -> Result<(), Failure> {
    let anew = |host: &HostName| agents.iter().any(|one| one.what != Agent::Kept && one.host == *host);
    let statuses = keys.statuses();
    let old = before.below(&statuses).filter(|entry| {
        let whose = keys.host_and_instance(&entry.key);
        whose.is_some_and(|(host, name)| anew(&host) && before.get(&keys.target(&host, &name)).is_some())
    });
    let mut awaited: BTreeSet<String> = old.map(|entry| entry.key.clone()).collect();
    if awaited.is_empty() {
        return Ok(());
    }
    let mut changes = store.watch(&Selector::Prefix(statuses), before.revision).await?;
    let all = async {
        while !awaited.is_empty() {
            let Some(batch) = changes.next().await else { return Ok(()) };
            for change in batch?.1 {
                awaited.remove(match &change {
                    Change::Put(entry) => &entry.key,
                    Change::Delete { key, .. } => key,
                });
            }
        }
        Ok(())
    };
    // One that stays silent for so long is seen by the wait that follows.
    tokio::time::timeout(SPOKEN, all).await.unwrap_or(Ok(()))
}

/// The clusters that the files are about, as etcd has them after the apply; none where stdin was the file.
async fn clusters_of(
    files: &[String],
    store: &dyn Store,
    keys: &Keys,
) -> Result<BTreeSet<ClusterName>, Failure> {
    let mut names = BTreeSet::new();
    for file in files.iter().filter(|file| *file != "-").map(PathBuf::from) {
        let bytes = std::fs::read(&file).map_err(|why| super::directory::trouble("read", &file, &why))?;
        // Apply has read it strictly a moment ago.
        let read: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(&bytes).unwrap_or_default();
        names.extend(read.into_iter().map(|(name, _)| name));
    }
    let all = store.read(&[Selector::Prefix(keys.targets())]).await?;
    let of_files = all.entries.values().filter(|entry| names.contains(Keys::last_part(&entry.key)));
    let targets =
        of_files.filter_map(|entry| schemadock_schema::target::Target::read_leniently(&entry.value).ok());
    Ok(targets.filter_map(|target| target.cluster).collect())
}

fn only(clusters: &BTreeSet<ClusterName>) -> Option<String> {
    match clusters.len() {
        1 => clusters.first().map(ToString::to_string),
        _ => None,
    }
}

async fn wait_for(ctx: &Context, clusters: &BTreeSet<ClusterName>, timeout: Duration) -> Result<(), Failure> {
    let cluster = only(clusters);
    let all = cluster.is_none();
    wait::run(ctx, wait::Args { cluster, all, timeout, output: OutputArg::default() }).await
}
