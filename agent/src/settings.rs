//! The agent's settings: file, environment and flags, the later winning.

use std::path::{Path, PathBuf};

use clap::Parser;
use schemadock_schema::HostName;
use serde::Deserialize;

/// The agent of one Docker host: converges the local MySQL instances to their targets in etcd.
///
/// Every setting is a key of the file, an environment variable and a flag; the later wins.
#[derive(Debug, Clone, Parser, Deserialize, Default)]
#[command(name = "schemadock-agent", version)]
#[serde(deny_unknown_fields)]
pub struct Given {
    /// The file with the settings.
    #[arg(long, env = "SCHEMADOCK_CONFIG", default_value = "/etc/schemadock/agent.toml")]
    #[serde(skip)]
    pub config: PathBuf,
    /// Name of this host in the fleet; the machine's own name by default.
    #[arg(long, env = "SCHEMADOCK_HOST")]
    pub host: Option<String>,
    /// Address that the servers listen on and that others reach them by.
    #[arg(long, env = "SCHEMADOCK_ADDRESS")]
    pub address: Option<String>,
    /// etcd, as URLs with commas between them.
    #[arg(long, env = "SCHEMADOCK_ETCD")]
    pub etcd: Option<String>,
    /// Prefix of all keys.
    #[arg(long, env = "SCHEMADOCK_PREFIX")]
    pub prefix: Option<String>,
    /// Where data, templates and records are kept.
    #[arg(long, env = "SCHEMADOCK_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    /// Where the sockets are; short, since a socket's path has at most 107 bytes.
    #[arg(long, env = "SCHEMADOCK_RUN_DIR")]
    pub run_dir: Option<PathBuf>,
    /// Docker's socket.
    #[arg(long, env = "SCHEMADOCK_DOCKER")]
    pub docker: Option<String>,
    /// The image of instances for which nothing names one.
    #[arg(long, env = "SCHEMADOCK_IMAGE")]
    pub image: Option<String>,
    /// Memory that the agent offers to instances, for example `6GiB`.
    #[arg(long, env = "SCHEMADOCK_MEMORY")]
    pub memory: Option<String>,
    /// Cores that the agent offers.
    #[arg(long, env = "SCHEMADOCK_CPUS")]
    pub cpus: Option<f64>,
    /// What fails together.
    #[arg(long, env = "SCHEMADOCK_ZONE")]
    pub zone: Option<String>,
    /// Labels for placement, as `key=value` with commas between them.
    #[arg(long, env = "SCHEMADOCK_LABELS")]
    pub labels: Option<String>,
    /// Put before the names of containers, so that fleets on one machine do not disturb each other.
    #[arg(long, env = "SCHEMADOCK_CONTAINER_PREFIX")]
    pub container_prefix: Option<String>,
    /// Network of the containers: `host`, or `container:NAME`.
    #[arg(long, env = "SCHEMADOCK_NETWORK")]
    pub network: Option<String>,
    /// `uid:gid` of mysqld where the agent runs as root.
    #[arg(long, env = "SCHEMADOCK_MYSQLD_USER")]
    pub mysqld_user: Option<String>,
    /// Factor on all waits and bounds; 1 in earnest, less in tests.
    #[arg(long, env = "SCHEMADOCK_TIME_SCALE", hide = true)]
    pub time_scale: Option<f64>,
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("settings file {path} cannot be read: {why}")]
    File {
        /// Which.
        path: String,
        /// Why.
        why: String,
    },
    /// A value that cannot be used.
    #[error("setting {name}: found {found:?}, expected {expected}")]
    Value {
        /// Which.
        name: &'static str,
        /// What was found.
        found: String,
        /// What was expected.
        expected: &'static str,
    },
}

/// The settings, resolved.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Name of this host.
    pub host: HostName,
    /// Address of its servers.
    pub address: String,
    /// etcd's URLs.
    pub etcd: String,
    /// Prefix of all keys.
    pub prefix: String,
    /// Data, templates, records.
    pub state_dir: PathBuf,
    /// Sockets.
    pub run_dir: PathBuf,
    /// Docker's socket.
    pub docker: String,
    /// Default image.
    pub image: String,
    /// Bytes offered; the machine's by default.
    pub memory: Option<u64>,
    /// Cores offered; the machine's by default.
    pub cpus: Option<f64>,
    /// What fails together.
    pub zone: Option<String>,
    /// Labels for placement.
    pub labels: std::collections::BTreeMap<String, String>,
    /// Before the names of containers.
    pub container_prefix: String,
    /// Network of the containers.
    pub network: String,
    /// User and group id of mysqld.
    pub mysqld_user: (u32, u32),
    /// Factor on waits and bounds.
    pub time_scale: f64,
}

/// The image that setup provides where no registry answers, and pulls under this name where one does.
pub const DEFAULT_IMAGE: &str = "schemadock-mysql:debian";

impl Given {
    /// Reads the file beneath what flags and environment say. A missing file is an error only where it was named.
    ///
    /// # Errors
    /// When the file has unknown keys or cannot be read, or a value cannot be used.
    #[allow(clippy::disallowed_methods)]
    pub fn resolve(self, machine_name: &str, uid: u32, gid: u32) -> Result<Settings, SettingsError> {
        let file = read_file(&self.config)?;
        let host = self.host.or(file.host).unwrap_or_else(|| machine_name.to_owned());
        let value =
            |name, found: &str, expected| SettingsError::Value { name, found: found.to_owned(), expected };
        let memory = self.memory.or(file.memory);
        let network = self.network.or(file.network).unwrap_or_else(|| "host".to_owned());
        if network != "host" && !network.starts_with("container:") {
            return Err(value("network", &network, "`host` or `container:NAME`"));
        }
        let mut labels = std::collections::BTreeMap::new();
        for label in self.labels.or(file.labels).iter().flat_map(|l| l.split(',')).filter(|l| !l.is_empty()) {
            let (key, text) = label.split_once('=').ok_or_else(|| value("labels", label, "key=value"))?;
            labels.insert(key.trim().to_owned(), text.trim().to_owned());
        }
        let user = self.mysqld_user.or(file.mysqld_user).unwrap_or_else(|| "999:999".to_owned());
        Ok(Settings {
            host: host
                .parse()
                .map_err(|_| value("host", &host, "lower-case letters, digits and inner hyphens"))?,
            address: self.address.or(file.address).ok_or_else(|| {
                value("address", "nothing", "the address that other hosts reach this one by")
            })?,
            etcd: self.etcd.or(file.etcd).unwrap_or_else(|| "http://127.0.0.1:2379".to_owned()),
            prefix: self.prefix.or(file.prefix).unwrap_or_else(|| "/schemadock".to_owned()),
            state_dir: self.state_dir.or(file.state_dir).unwrap_or_else(|| "/var/lib/schemadock".into()),
            run_dir: self.run_dir.or(file.run_dir).unwrap_or_else(|| "/run/schemadock".into()),
            docker: self.docker.or(file.docker).unwrap_or_else(|| "/var/run/docker.sock".to_owned()),
            image: self.image.or(file.image).unwrap_or_else(|| DEFAULT_IMAGE.to_owned()),
            memory: memory
                .map(|text| {
                    schemadock_schema::size::parse_bytes(&text)
                        .map_err(|_| value("memory", &text, "an amount of bytes such as 6GiB"))
                })
                .transpose()?,
            cpus: self.cpus.or(file.cpus),
            zone: self.zone.or(file.zone),
            labels,
            container_prefix: self.container_prefix.or(file.container_prefix).unwrap_or_default(),
            network,
            mysqld_user: match uid {
                0 => {
                    ids(&user).ok_or_else(|| value("mysqld_user", &user, "`uid:gid`, for example 999:999"))?
                }
                _ => (uid, gid),
            },
            time_scale: self.time_scale.or(file.time_scale).unwrap_or(1.0),
        })
    }
}

fn ids(text: &str) -> Option<(u32, u32)> {
    let (uid, gid) = text.split_once(':')?;
    Some((uid.parse().ok()?, gid.parse().ok()?))
}

#[allow(clippy::disallowed_methods)]
fn read_file(path: &Path) -> Result<Given, SettingsError> {
    let error = |why: String| SettingsError::File { path: path.display().to_string(), why };
    match std::fs::read_to_string(path) {
        Ok(text) => toml::from_str(&text).map_err(|e| error(e.to_string())),
        Err(e)
            if e.kind() == std::io::ErrorKind::NotFound
                && path == Path::new("/etc/schemadock/agent.toml") =>
        {
            Ok(Given::default())
        }
        Err(e) => Err(error(e.to_string())),
    }
}
