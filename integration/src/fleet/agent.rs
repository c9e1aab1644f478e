//! One host of the fleet: its agent as a child process.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::place::{Place, provide_templates};
use super::{IMAGE, Options, Proxy};

/// A host's agent.
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
    running: Option<Child>,
}

/// A program of this build.
pub(super) fn program(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("this program has a path");
    let build = own.ancestors().find(|dir| dir.join(name).is_file());
    build.unwrap_or_else(|| panic!("{name} is not built: cargo build --workspace")).join(name)
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
            dir,
            run_dir,
            settings: Vec::new(),
            running: None,
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

    /// Its output, of all its lives.
    pub fn log(&self) -> PathBuf {
        self.dir.join("agent.log")
    }

    /// All of its output.
    pub fn log_text(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log()).unwrap_or_default()).into_owned()
    }

    /// The end of its output.
    pub fn last_lines(&self, count: usize) -> String {
        let text = self.log_text();
        let lines: Vec<&str> = text.lines().collect();
        let last = lines[lines.len().saturating_sub(count)..].join("\n");
        format!("--- the end of {}'s log:\n{last}\n", self.host)
    }

    /// Starts it, with that in its environment.
    pub fn start(&mut self, environment: &[(&str, &str)]) {
        assert!(!self.is_running(), "the agent of {} runs", self.host);
        let file = self.dir.join("agent.toml");
        let text: String = self.settings.iter().map(|(name, value)| format!("{name} = {value}\n")).collect();
        fs::write(&file, text).expect("the fleet's directory can be used");
        let log: File = OpenOptions::new().create(true).append(true).open(self.log()).expect("a log");
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(program("schemadock-agent"));
        command.arg(format!("--config={}", file.display()));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("SCHEMADOCK_") {
                command.env_remove(name);
            }
        }
        command.env("RUST_LOG", "info,schemadock_agent=debug,schemadock_store=debug");
        command.envs(environment.iter().copied());
        let output = log.try_clone().expect("a second handle of a file");
        let child = command.stdin(Stdio::null()).stdout(output).stderr(log).spawn();
        self.running = Some(child.expect("setpriv is installed"));
    }

    /// Whether its process lives.
    pub fn is_running(&mut self) -> bool {
        self.running.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.running.as_ref().expect("the agent was started").id() as i32
    }

    /// Ends it as `kill -9` does; servers run on.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.running.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Asks it to end, and waits until it has.
    pub async fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.ended(Duration::from_secs(20)).await.unwrap_or_else(|| {
            panic!("the agent does not end when asked\n{}", self.last_lines(30));
        })
    }

    /// Waits until its process has ended by itself; none if it has not within `bound`.
    pub async fn ended(&mut self, bound: Duration) -> Option<ExitStatus> {
        let mut child = self.running.take().expect("the agent was started");
        let pid = child.id();
        let waiting = tokio::task::spawn_blocking(move || {
            // `wait` without a bound of its own would hold a thread for ever where the agent lives on.
            let deadline = std::time::Instant::now() + bound;
            loop {
                match child.try_wait() {
                    Ok(Some(status)) => return (child, Some(status)),
                    _ if std::time::Instant::now() >= deadline => return (child, None),
                    _ => std::thread::sleep(Duration::from_millis(5)),
                }
            }
        });
        let (child, status) = waiting.await.unwrap_or_else(|why| panic!("waiting for {pid}: {why}"));
        if status.is_none() {
            self.running = Some(child);
        }
        status
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).expect("the agent can be signalled");
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill();
    }
}
