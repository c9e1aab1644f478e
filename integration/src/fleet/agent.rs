//! One host of the fleet: its agent as a child process.

use std::fs;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};

use super::place::{Place, provide_templates};
use super::process::Process;
use super::{IMAGE, Options, Proxy};

/// A host's agent: its settings, and its process.
#[derive(Debug)]
pub struct Agent {
    /// The host's name.
    pub host: String,
    /// Its address.
    pub address: String,
    /// Between it and etcd, where asked for.
    pub etcd_proxy: Option<Proxy>,
    /// Between it and Docker, where asked for.
    pub docker_proxy: Option<Proxy>,
    dir: PathBuf,
    run_dir: PathBuf,
    settings: Vec<(String, String)>,
    process: Process,
}

impl Agent {
    pub(super) async fn new(place: &Place, number: u8, etcd: &str, options: &Options) -> Agent {
        let dir = place.dir.join(format!("h{number}"));
        let run_dir = place.dir.join(format!("r{number}"));
        fs::create_dir_all(&dir).expect("the fleet's directory can be used");
        if options.templates {
            provide_templates(&dir.join("state"));
        }
        let etcd_proxy = match options.etcd_proxy {
            true => Some(Proxy::tcp(etcd.trim_start_matches("http://")).await),
            false => None,
        };
        let docker_proxy = match options.docker_proxy {
            true => {
                Some(Proxy::unix("/var/run/docker.sock", &place.dir.join(format!("d{number}.sock"))).await)
            }
            false => None,
        };
        let etcd = match &etcd_proxy {
            Some(proxy) => format!("http://{}", proxy.address),
            None => etcd.to_owned(),
        };
        let mut agent = Agent {
            host: super::host(number),
            address: place.address(number),
            process: Process::new(format!("the agent of {}", super::host(number)), dir.join("agent.log")),
            dir,
            run_dir,
            settings: Vec::new(),
            etcd_proxy,
            docker_proxy,
        };
        let text = [
            ("host", agent.host.clone()),
            ("address", agent.address.clone()),
            ("etcd", etcd),
            ("state_dir", agent.state_dir().display().to_string()),
            ("run_dir", agent.run_dir.display().to_string()),
            ("image", IMAGE.to_owned()),
            ("memory", "1GiB".to_owned()),
            ("container_prefix", format!("{}-", place.name)),
        ];
        for (name, value) in text {
            agent.set(name, &format!("{value:?}"));
        }
        agent.set("cpus", "2.0");
        let docker = agent.docker_proxy.as_ref().map(|proxy| proxy.address.clone());
        if let Some(socket) = docker.or_else(super::daemon::socket) {
            agent.set("docker", &format!("{socket:?}"));
        }
        if let Ok(scale) = std::env::var("SCHEMADOCK_TIME_SCALE") {
            agent.set("time_scale", &format!("{:?}", scale.parse::<f64>().expect("a factor")));
        }
        agent
    }

    /// Sets a setting, in TOML; it holds from the next start on.
    pub fn set(&mut self, name: &str, toml: &str) {
        self.settings.retain(|(own, _)| own != name);
        self.settings.push((name.to_owned(), toml.to_owned()));
    }

    /// Where data, templates and records are.
    pub fn state_dir(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// Where sockets are.
    pub fn run_dir(&self) -> &Path {
        &self.run_dir
    }

    /// Starts it, with that in its environment.
    pub fn start(&mut self, environment: &[(&str, &str)]) {
        let file = self.dir.join("agent.toml");
        let text: String = self.settings.iter().map(|(name, value)| format!("{name} = {value}\n")).collect();
        fs::write(&file, text).expect("the fleet's directory can be used");
        let arguments = [format!("--config={}", file.display())];
        self.process.start("schemadock-agent", &arguments, environment);
    }
}

impl Deref for Agent {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for Agent {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}
