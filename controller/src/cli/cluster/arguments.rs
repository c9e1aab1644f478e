//! What is asked of a cluster, read from arguments.

use std::collections::BTreeMap;

use schemadock_schema::operation::{self, Request};
use schemadock_schema::policy::WishedDurability;
use schemadock_schema::refusal::Refusal;
use schemadock_schema::size::Size;
use schemadock_schema::strict::{Setting, read_setting};
use schemadock_schema::{ClusterName, HostName};

use crate::cli::Failure;
use crate::cli::operation::ask::How;

/// Arguments of `cluster create`.
#[derive(Debug, clap::Args)]
pub struct Create {
    /// Its name.
    pub cluster: String,
    /// How many replicas it is to have beside its master.
    #[arg(long, value_name = "N")]
    pub replicas: u32,
    /// Of each member: all, half, quarter, eighth, small (by default), or an amount of memory such as 4GiB.
    #[arg(long)]
    pub size: Option<String>,
    /// Of each member; the agents' own by default.
    #[arg(long)]
    pub image: Option<String>,
    /// Zones to place members in.
    #[arg(long, value_delimiter = ',', value_name = "ZONE,…")]
    pub zones: Vec<String>,
    /// Where members may be placed.
    #[command(flatten)]
    pub places: Places,
    /// A label that hosts must have; may be repeated.
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub labels: Vec<String>,
    /// When a commit counts: on a replica too (lossless, by default), or on the master alone (async).
    #[arg(long, value_name = "lossless|async")]
    pub durability: Option<String>,
    /// The port of each member; the first free one of each host by default.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// How it is asked for.
    #[command(flatten)]
    pub how: How,
}

/// Arguments of `cluster scale`.
#[derive(Debug, clap::Args)]
pub struct Scale {
    /// The cluster.
    pub cluster: String,
    /// How many replicas it is to have beside its master.
    #[arg(long, value_name = "N")]
    pub replicas: u32,
    /// Where new members may be placed.
    #[command(flatten)]
    pub places: Places,
    /// How it is asked for.
    #[command(flatten)]
    pub how: How,
}

/// Hosts that new members may be placed on.
#[derive(Debug, clap::Args)]
pub struct Places {
    /// Hosts to place new members on; any with room by default.
    #[arg(long, value_delimiter = ',', value_name = "HOST,…")]
    pub hosts: Vec<String>,
    /// A host to place new members on; may be repeated.
    #[arg(long = "host", value_name = "HOST")]
    pub host: Vec<String>,
}

impl Create {
    /// The request.
    ///
    /// # Errors
    /// With everything that is wrong, at once (exit code 2).
    pub fn read(&self) -> Result<operation::Create, Failure> {
        let mut wrong = Wrong::default();
        let mut labels = BTreeMap::new();
        for text in &self.labels {
            match text.split_once('=') {
                Some((key, value)) if !key.is_empty() => {
                    labels.insert(key.to_owned(), value.to_owned());
                }
                _ => wrong.is("--label", format!("{text:?}"), "KEY=VALUE, for example disk=nvme"),
            }
        }
        let create = operation::Create {
            replicas: self.replicas,
            size: self.size.as_deref().and_then(|text| wrong.take(read_size(text))),
            image: self.image.as_deref().and_then(|text| wrong.take(read_image(text))),
            zones: self.zones.clone(),
            hosts: self.places.read(&mut wrong),
            labels,
            durability: self.durability.as_deref().and_then(|text| wrong.take(read_durability(text))),
            port: self.port,
        };
        wrong.none()?;
        Ok(create)
    }
}

impl Scale {
    /// The request.
    ///
    /// # Errors
    /// With everything that is wrong, at once (exit code 2).
    pub fn read(&self) -> Result<Request, Failure> {
        let mut wrong = Wrong::default();
        let hosts = self.places.read(&mut wrong);
        wrong.none()?;
        Ok(Request::Scale { replicas: self.replicas, hosts })
    }
}

impl Places {
    fn read(&self, wrong: &mut Wrong) -> Vec<HostName> {
        let mut hosts: Vec<HostName> = Vec::new();
        for text in self.hosts.iter().chain(&self.host) {
            match text.parse::<HostName>() {
                Ok(host) if hosts.contains(&host) => {}
                Ok(host) => hosts.push(host),
                Err(_) => wrong.is("--host", format!("{text:?}"), NAME),
            }
        }
        hosts
    }
}

const NAME: &str = "a name: lower-case letters, digits and inner hyphens";

/// What is wrong with the arguments.
#[derive(Debug, Default)]
struct Wrong(Vec<Refusal>);

impl Wrong {
    fn is(&mut self, argument: &str, found: String, expected: &str) {
        self.0.push(Refusal {
            path: Some(argument.to_owned()),
            found,
            expected: expected.to_owned(),
            ..Refusal::default()
        });
    }

    fn take<T>(&mut self, read: Result<T, Refusal>) -> Option<T> {
        read.map_err(|refusal| self.0.push(refusal)).ok()
    }

    fn none(self) -> Result<(), Failure> {
        if self.0.is_empty() { Ok(()) } else { Err(Failure::Files(self.0)) }
    }
}

/// A value as `cluster set` takes it, named after its flag.
fn setting(key: &str, text: &str) -> Result<Setting, Refusal> {
    let flag = || Some(format!("--{key}"));
    match text.trim() {
        "" => Err(Refusal {
            path: flag(),
            found: "nothing".to_owned(),
            expected: "a value".to_owned(),
            ..Refusal::default()
        }),
        text => read_setting(&format!("{key}={text}")).map_err(|refusal| Refusal { path: flag(), ..refusal }),
    }
}

fn other(key: &str, found: &Setting) -> Refusal {
    Refusal {
        path: Some(format!("--{key}")),
        found: format!("{found:?}"),
        expected: format!("a value of {key}"),
        ..Refusal::default()
    }
}

fn read_size(text: &str) -> Result<Size, Refusal> {
    match setting("size", text)? {
        Setting::Size(Some(size)) => Ok(size),
        found => Err(other("size", &found)),
    }
}

fn read_image(text: &str) -> Result<String, Refusal> {
    match setting("image", text)? {
        Setting::Image(Some(image)) => Ok(image),
        found => Err(other("image", &found)),
    }
}

fn read_durability(text: &str) -> Result<WishedDurability, Refusal> {
    match setting("durability", text)? {
        Setting::Durability(Some(durability)) => Ok(durability),
        found => Err(other("durability", &found)),
    }
}

/// A size.
///
/// # Errors
/// When it is none (exit code 2).
pub(super) fn size(text: &str) -> Result<Size, Failure> {
    read_size(text).map_err(|refusal| Failure::Files(vec![refusal]))
}

/// An image's name.
///
/// # Errors
/// When it is none (exit code 2).
pub(super) fn image(text: &str) -> Result<String, Failure> {
    read_image(text).map_err(|refusal| Failure::Files(vec![refusal]))
}

/// A cluster's name.
///
/// # Errors
/// When it is none (exit code 2).
pub(super) fn cluster(text: &str) -> Result<ClusterName, Failure> {
    text.parse().map_err(|why| Failure::usage(format!("{why}")))
}

/// A host's name.
///
/// # Errors
/// When it is none (exit code 2).
pub(super) fn host(text: &str) -> Result<HostName, Failure> {
    text.parse().map_err(|why| Failure::usage(format!("{why}")))
}
