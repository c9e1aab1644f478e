//! `local isolate` and `local heal`: cuts a host off, wholly or from some others, and takes that back.
//!
//! Wholly: this machine's end of the host's link goes down, as if somebody had pulled the cable. From some: rules of
//! iptables in the host's namespace, where nobody else has any. What is in force is asked of the kernel alone.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use schemadock_schema::HostName;
use serde::Serialize;

use super::directory::{self, Directory, Remembered, host_name};
use super::network::{self, Network};
use super::{DirArg, namespaces};
use crate::cli::Failure;

/// Arguments of `isolate`.
#[derive(Debug, clap::Args)]
pub struct IsolateArgs {
    /// The host to cut off.
    pub host: HostName,
    /// From whom alone: hosts, `etcd`, `clients` (all but the fleet's other hosts and etcd), with commas between them;
    /// without it from everybody. Adds to what is in force.
    #[arg(long, value_name = "HOST|etcd|clients", value_delimiter = ',')]
    pub from: Vec<Peer>,
    /// Where the fleet lives.
    #[command(flatten)]
    pub dir: DirArg,
}

/// Arguments of `heal`.
#[derive(Debug, clap::Args)]
pub struct HealArgs {
    /// The host to connect again, with everybody.
    pub host: HostName,
    /// Where the fleet lives.
    #[command(flatten)]
    pub dir: DirArg,
}

/// Whom a host can be cut off from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    /// Another host of the fleet.
    Host(HostName),
    /// The fleet's etcd.
    Etcd,
    /// Everything that is neither another host of the fleet nor etcd.
    Clients,
}

impl FromStr for Peer {
    type Err = <HostName as FromStr>::Err;

    fn from_str(text: &str) -> Result<Peer, Self::Err> {
        match text {
            "etcd" => Ok(Peer::Etcd),
            "clients" => Ok(Peer::Clients),
            host => host.parse().map(Peer::Host),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Host(host) => host.fmt(f),
            Peer::Etcd => f.write_str("etcd"),
            Peer::Clients => f.write_str("clients"),
        }
    }
}

/// How far a host is cut off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(super) enum Isolated {
    /// From everybody, or not at all.
    Wholly(bool),
    /// From these.
    From(Vec<String>),
}

impl Isolated {
    /// Whether its agent does not reach etcd.
    pub(super) fn hides_etcd(&self) -> bool {
        match self {
            Isolated::Wholly(cut) => *cut,
            Isolated::From(peers) => peers.iter().any(|peer| *peer == Peer::Etcd.to_string()),
        }
    }

    /// `cut off …`; none where it is not.
    pub(super) fn words(&self) -> Option<String> {
        match self {
            Isolated::Wholly(false) => None,
            Isolated::Wholly(true) => Some("cut off from everybody".to_owned()),
            Isolated::From(peers) => Some(format!("cut off from {}", peers.join(", "))),
        }
    }
}

/// How far host `number` is cut off.
pub(super) fn of(directory: &Path, remembered: &Remembered, number: u8) -> Result<Isolated, Failure> {
    let Some(network) = remembered.network() else { return Ok(Isolated::Wholly(false)) };
    let Some(sleeper) = namespaces::running(directory, number) else { return Ok(Isolated::Wholly(false)) };
    if network.is_down(number) {
        return Ok(Isolated::Wholly(true));
    }
    let peers = peers(&saved_rules(sleeper.pid)?);
    if peers.is_empty() {
        return Ok(Isolated::Wholly(false));
    }
    Ok(Isolated::From(peers.iter().map(ToString::to_string).collect()))
}

pub(super) fn isolate(args: &IsolateArgs) -> Result<(), Failure> {
    let host = open(&args.dir, &args.host)?;
    let known = host.directory.remembered.host_names();
    let wrong = args.from.iter().find(|peer| match peer {
        Peer::Host(other) => *other == args.host || !known.contains(other),
        Peer::Etcd | Peer::Clients => false,
    });
    if let Some(wrong) = wrong {
        let others: Vec<String> =
            known.iter().filter(|name| **name != args.host).map(ToString::to_string).collect();
        let expected = [others, vec!["etcd".to_owned(), "clients".to_owned()]].concat().join(", ");
        return Err(Failure::usage(format!("--from: found {wrong}, expected of {expected}")));
    }
    if args.from.is_empty() {
        host.network.set_link(host.number, "down")?;
    } else {
        let mut all = peers(&saved_rules(host.pid)?);
        all.extend(args.from.iter().cloned());
        let port = host.directory.remembered.etcd_port.unwrap_or_default();
        restore(host.pid, &rules(&host.network, port, &all))?;
    }
    let now = of(&host.directory.path, &host.directory.remembered, host.number)?;
    let now = now.words().unwrap_or_else(|| "not cut off".to_owned());
    let (name, flag) = (&args.host, args.dir.flag());
    anstream::eprintln!("{name} is {now}; `schemadock local heal {name}{flag}` takes that back");
    Ok(())
}

pub(super) fn heal(args: &HealArgs) -> Result<(), Failure> {
    let host = open(&args.dir, &args.host)?;
    let before = of(&host.directory.path, &host.directory.remembered, host.number)?;
    // Both, whatever was found: rules may lie behind a link that is down.
    restore(host.pid, &rules(&host.network, 0, &BTreeSet::new()))?;
    host.network.set_link(host.number, "up")?;
    match before.words() {
        Some(words) => anstream::eprintln!("{} was {words}; it is connected again", args.host),
        None => anstream::eprintln!("{} was not cut off", args.host),
    }
    Ok(())
}

/// A host of a fleet that is held by its lock.
struct Host {
    directory: Directory,
    network: Network,
    number: u8,
    /// The process that holds its namespace.
    pid: i32,
}

fn open(dir: &DirArg, name: &HostName) -> Result<Host, Failure> {
    network::need_root("The network of a host is changed by")?;
    let path = dir.path()?;
    let directory = Directory::open(&path)?.ok_or_else(|| directory::none_in(&path))?;
    let flag = dir.flag();
    let Some(network) = directory.remembered.network() else {
        return Err(Failure::failed(
            "the hosts of this fleet share this machine's network: none can be cut off",
        )
        .hint(
            "`schemadock local up --netns`, in another directory (--dir), gives each a network of its own.",
        ));
    };
    let names = directory.remembered.host_names();
    let Some(number) = (1..=directory.remembered.hosts).find(|number| host_name(*number) == *name) else {
        let names: Vec<&str> = names.iter().map(HostName::as_str).collect();
        return Err(Failure::usage(format!("found host {name}, expected of {}", names.join(", "))));
    };
    let sleeper = namespaces::running(&directory.path, number).ok_or_else(|| {
        Failure::failed(format!("{name} does not run"))
            .hint(format!("`schemadock local up{flag}` starts what is missing of the fleet."))
    })?;
    Ok(Host { directory, network, number, pid: sleeper.pid })
}

fn saved_rules(pid: i32) -> Result<String, Failure> {
    network::run(network::in_namespace(&network::namespace(pid), "iptables-save").args(["-t", "filter"]), "")
}

fn restore(pid: i32, rules: &str) -> Result<(), Failure> {
    let mut command = network::in_namespace(&network::namespace(pid), "iptables-restore");
    network::run(command.args(["-w", "10"]), rules).map(drop)
}

/// Whom these rules cut a host off from: their comments say so.
fn peers(saved: &str) -> BTreeSet<Peer> {
    let words: Vec<&str> = saved.split_whitespace().collect();
    let comments = words.windows(2).filter(|pair| pair[0] == "--comment");
    comments.filter_map(|pair| pair[1].trim_matches('"').parse().ok()).collect()
}

/// The whole table of a host that is cut off from these, in the order of [`Peer`]: what all clients are is known last.
fn rules(network: &Network, etcd_port: u16, peers: &BTreeSet<Peer>) -> String {
    let mut text = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n".to_owned();
    let own = network.own_address();
    for peer in peers {
        let mut both = |not: &str, whom: &str, port: Option<u16>, verdict: &str| {
            for (chain, link, side, ports) in
                [("INPUT", "-i", "-s", "--sport"), ("OUTPUT", "-o", "-d", "--dport")]
            {
                let port = port.map(|port| format!(" -p tcp {ports} {port}")).unwrap_or_default();
                text.push_str(&format!(
                    "-A {chain} {link} eth0 {not}{side} {whom}{port} -m comment --comment {peer} -j {verdict}\n"
                ));
            }
        };
        match peer {
            Peer::Host(host) => {
                let number = (1..=directory::MAX_HOSTS).find(|number| host_name(*number) == *host);
                if let Some(number) = number {
                    both("", &network.address(number).to_string(), None, "DROP");
                }
            }
            Peer::Etcd => both("", &own.to_string(), Some(etcd_port), "DROP"),
            Peer::Clients => {
                both("", &own.to_string(), Some(etcd_port), "ACCEPT");
                both("", &own.to_string(), None, "DROP");
                both("! ", &network.range(), None, "DROP");
            }
        }
    }
    text.push_str("COMMIT\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_say_whom_they_cut_off() {
        let network =
            Remembered { subnet: Some(7), netns: true, ..Remembered::new(Path::new("/a"), "/schemadock") };
        let network = network.network().unwrap();
        let all: BTreeSet<Peer> =
            ["clients", "etcd", "schemadock02"].into_iter().map(|text| text.parse().unwrap()).collect();
        let text = rules(&network, 2379, &all);
        insta::assert_snapshot!(text);
        assert_eq!(peers(&text), all);
        assert_eq!(peers(&rules(&network, 2379, &BTreeSet::new())), BTreeSet::new());
    }

    #[test]
    fn scripts_read_true_false_or_a_list() {
        let json = |isolated: &Isolated| serde_json::to_string(isolated).unwrap();
        assert_eq!(json(&Isolated::Wholly(true)), "true");
        let from = Isolated::From(vec!["clients".to_owned()]);
        assert_eq!(json(&from), "[\"clients\"]");
        assert!(!from.hides_etcd() && Isolated::Wholly(true).hides_etcd());
    }
}
