//! The simulated hosts of a local fleet: one agent each, with settings in a file.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::future::join_all;
use schemadock_schema::HostName;
use schemadock_schema::size::offered_memory;
use serde::Serialize;

use super::directory::{Directory, Remembered, host_name, private_dir, write_private};
use super::namespaces;
use super::network::namespace;
use super::process::{self, Process, Start};
use crate::cli::Failure;

/// How long an agent may take to end; it lets the step go that it is in.
const PATIENCE: Duration = Duration::from_secs(10);

/// The settings file of an agent.
#[derive(Serialize)]
struct Settings {
    host: String,
    address: String,
    etcd: String,
    prefix: String,
    state_dir: PathBuf,
    run_dir: PathBuf,
    docker: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<String>,
    memory: String,
    cpus: f64,
    zone: String,
    container_prefix: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    network: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time_scale: Option<f64>,
}

/// What this machine has for all its simulated hosts together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Machine {
    memory: u64,
    cpus: usize,
}

/// What became of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Agent {
    /// It ran already.
    Kept,
    /// It was started.
    Started,
    /// It ran with other settings or an older program, and was started anew.
    Replaced,
}

/// An agent that runs.
pub(super) struct Running {
    /// Its host's number, from 1 on.
    pub(super) number: u8,
    /// Its host.
    pub(super) host: HostName,
    /// What became of it.
    pub(super) what: Agent,
    /// Its process.
    pub(super) process: Process,
}

impl Machine {
    /// This machine.
    pub(super) fn here() -> Result<Machine, Failure> {
        let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next());
        let kib: u64 = total
            .and_then(|number| number.parse().ok())
            .ok_or_else(|| Failure::failed("/proc/meminfo does not say how much memory there is"))?;
        let cpus = std::thread::available_parallelism()
            .map_err(|why| Failure::failed(format!("the number of cores is not to be had: {why}")))?;
        Ok(Machine { memory: kib * 1024, cpus: cpus.get() })
    }
}

/// The directory of one host.
pub(super) fn host_dir(directory: &Path, number: u8) -> PathBuf {
    directory.join("hosts").join(host_name(number).as_str())
}

fn settings_file(directory: &Path, number: u8) -> PathBuf {
    host_dir(directory, number).join("agent.toml")
}

/// The agent of one host, if it runs.
pub(super) fn running(directory: &Path, number: u8) -> Option<Process> {
    let settings = format!("--config={}", settings_file(directory, number).display());
    process::find(&host_dir(directory, number).join("agent.pid"), "schemadock-agent", &settings)
}

/// The agents' program.
pub(super) fn agent_program() -> Result<PathBuf, Failure> {
    program("schemadock-agent", "schemadock-agent")
}

/// A program of this project: beside this one, else on the PATH.
pub(super) fn program(name: &str, package: &str) -> Result<PathBuf, Failure> {
    let here = std::env::current_exe().map_err(|why| Failure::failed(format!("where am I? {why}")))?;
    let beside = here.with_file_name(name);
    if beside.is_file() {
        return Ok(beside);
    }
    super::store::on_path(name).ok_or_else(|| {
        Failure::failed(format!("there is no {name} at {}, nor on the PATH", beside.display())).hint(format!(
            "Build it: cargo build -p {package} --bins (with the profile that built schemadock)."
        ))
    })
}

/// Sees to it that the agents of all hosts run with the settings that are right now.
pub(super) async fn provide(directory: &Directory, docker: &str) -> Result<Vec<Running>, Failure> {
    let program = agent_program()?;
    let machine = Machine::here()?;
    private_dir(&directory.remembered.run_dir)?;
    let all = (1..=directory.remembered.hosts).map(|number| {
        let program = &program;
        async move { provide_one(directory, number, program, machine, docker).await }
    });
    join_all(all).await.into_iter().collect()
}

async fn provide_one(
    directory: &Directory,
    number: u8,
    program: &Path,
    machine: Machine,
    docker: &str,
) -> Result<Running, Failure> {
    let dir = host_dir(&directory.path, number);
    private_dir(&dir)?;
    let settings = settings(directory, number, machine, docker)?;
    let text =
        toml::to_string(&settings).map_err(|why| Failure::failed(format!("the agent's settings: {why}")))?;
    let text = format!("# Written by `schemadock local up`, which writes it anew.\n{text}");
    let file = settings_file(&directory.path, number);
    let changed = fs::read_to_string(&file).map_or(true, |old| old != text);
    if changed {
        write_private(&file, text.as_bytes())?;
    }
    let network = match directory.remembered.network() {
        None => None,
        Some(_) => {
            let sleeper = namespaces::running(&directory.path, number)
                .ok_or_else(|| Failure::failed(format!("the network of {} is gone", host_name(number))))?;
            Some(namespace(sleeper.pid))
        }
    };
    let mut done = Agent::Started;
    if let Some(process) = running(&directory.path, number) {
        let in_its_network = network.is_none() || namespaces::holds(&directory.path, number, &process);
        if !changed && in_its_network && !process.is_outdated(program) {
            return Ok(Running { number, host: host_name(number), what: Agent::Kept, process });
        }
        if !process.stop(PATIENCE).await {
            let name = host_name(number);
            return Err(Failure::failed(format!("the agent of {name} (pid {}) does not end", process.pid)));
        }
        done = Agent::Replaced;
    }
    let what = Start {
        program,
        arguments: vec![format!("--config={}", file.display())],
        log: &log_file(&directory.path, number),
        pid_file: &dir.join("agent.pid"),
        without_environment: "SCHEMADOCK_",
        environment: Vec::new(),
        network,
    };
    let process = process::start(&what)
        .map_err(|why| Failure::failed(format!("{} cannot be started: {why}", program.display())))?;
    Ok(Running { number, host: host_name(number), what: done, process })
}

/// Where an agent's output goes.
pub(super) fn log_file(directory: &Path, number: u8) -> PathBuf {
    directory.join("log").join(format!("{}.log", host_name(number)))
}

fn settings(directory: &Directory, number: u8, machine: Machine, docker: &str) -> Result<Settings, Failure> {
    let remembered: &Remembered = &directory.remembered;
    let hosts = remembered.hosts.max(1);
    let memory = offered_memory(machine.memory) / u64::from(hosts);
    let etcd = remembered.etcd_url_of_hosts().ok_or_else(|| Failure::failed("etcd has no port yet"))?;
    Ok(Settings {
        host: host_name(number).to_string(),
        address: remembered.address(number),
        etcd,
        prefix: remembered.prefix.clone(),
        state_dir: host_dir(&directory.path, number).join("state"),
        // Numbers keep the paths of sockets short.
        run_dir: remembered.run_dir.join(number.to_string()),
        docker: docker.to_owned(),
        image: remembered.image.clone(),
        memory: memory.to_string(),
        // Two digits are enough, and the same on every run.
        cpus: (machine.cpus as f64 * 100.0 / f64::from(hosts)).floor().max(1.0) / 100.0,
        zone: format!("zone{number}"),
        container_prefix: format!("{}-", remembered.name),
        network: remembered.network().map(|_| format!("container:{}", remembered.sleeper(number))),
        time_scale: std::env::var("SCHEMADOCK_TIME_SCALE").ok().and_then(|text| text.parse().ok()),
    })
}

/// Stops all agents; the servers run on. The names of those that do not end.
pub(super) async fn stop(directory: &Directory) -> Vec<String> {
    let all = (1..=directory.remembered.hosts).map(|number| stop_one(&directory.path, number));
    join_all(all).await.into_iter().flatten().collect()
}

/// Stops the agent of one host. Its name, where it does not end.
pub(super) async fn stop_one(directory: &Path, number: u8) -> Option<String> {
    match running(directory, number) {
        Some(process) if !process.stop(PATIENCE).await => {
            Some(format!("{} (pid {})", host_name(number), process.pid))
        }
        _ => None,
    }
}
