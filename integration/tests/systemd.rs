//! `deploy/schemadock-agent.service` under a real systemd, which is the init of a container.
//!
//! The container is on the host's network and has the host's Docker socket; the fleet's directory is mounted at its
//! own path, so that the mounts which the agent asks of Docker mean the same on the host. Its image is made of Debian
//! packages, once per machine. Where any of that cannot be had, this fails and says what is missing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use schemadock_integration::fleet::{Fleet, IMAGE, Options, docker, documents, member};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

const UNIT: &str = "schemadock-agent.service";
/// One `systemctl` may take this long.
const DEADLINE: Duration = Duration::from_secs(45);

/// Debian's release of this machine: what was built here runs there.
fn release() -> String {
    let text = fs::read_to_string("/etc/os-release").expect("/etc/os-release can be read");
    let name = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let debian = text.lines().any(|line| line == "ID=debian");
    name.filter(|_| debian).unwrap_or("trixie").trim_matches('"').to_owned()
}

/// The image with systemd in it, made where it is not there yet.
async fn image() -> String {
    let release = release();
    let tag = format!("schemadock-systemd:{release}");
    if docker(&["image", "inspect", "--format", "{{.Id}}", &tag]).1 {
        return tag;
    }
    let script = format!(
        "set -o pipefail; mmdebstrap --variant=minbase --include=systemd,systemd-sysv \
         --aptopt='Acquire::Check-Valid-Until \"false\"' --dpkgopt='path-exclude=/usr/share/doc/*' \
         --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
         {release} - | docker import --change 'CMD [\"/sbin/init\"]' - {tag}"
    );
    let mut building = Command::new("bash");
    building.args(["-c", &script]).stdin(Stdio::null()).kill_on_drop(true);
    let built = tokio::time::timeout(Duration::from_secs(300), building.output()).await;
    let built = built.expect("mmdebstrap ends within 300 s").expect("bash is installed");
    assert!(
        built.status.success(),
        "{tag} cannot be made; that takes mmdebstrap (apt-get install mmdebstrap), root and a Debian mirror:\n{}",
        String::from_utf8_lossy(&built.stderr)
    );
    tag
}

/// A program of this build.
fn program(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("this program has a path");
    let build = own.ancestors().find(|dir| dir.join(name).is_file());
    build.unwrap_or_else(|| panic!("{name} is not built: cargo build --workspace")).join(name)
}

/// A machine with systemd, which is a container; gone with its fleet, whose label it has.
struct Machine {
    name: String,
}

impl Machine {
    async fn boot(fleet: &Fleet, settings: &Path, drop_in: &Path) -> Machine {
        let image = image().await;
        let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(UNIT);
        let agent = program("schemadock-agent");
        let dir = fleet.dir().display();
        let mounts = [
            format!("{dir}:{dir}"),
            format!("{}:/etc/schemadock/agent.toml:ro", settings.display()),
            format!("{}:/etc/systemd/system/{UNIT}.d/test.conf:ro", drop_in.display()),
            format!("{}:/usr/lib/systemd/system/{UNIT}:ro", unit.display()),
            format!("{}:/usr/bin/schemadock-agent:ro", agent.display()),
            "/var/run/docker.sock:/run/docker.sock".to_owned(),
        ];
        let name = format!("{}-systemd", fleet.name);
        let label = format!("schemadock.fleet={}", fleet.name);
        let mut arguments = vec!["run", "-d", "--name", &name, "--label", &label, "--network", "host"];
        // Its own cgroups, which systemd has to write; and the capabilities that the unit keeps.
        arguments.extend(["--cgroupns=private", "--cap-add", "SYS_ADMIN", "--cap-add", "SYS_PTRACE"]);
        arguments.extend(["--cap-add", "DAC_READ_SEARCH", "--security-opt", "seccomp=unconfined"]);
        arguments.extend([
            "--security-opt",
            "apparmor=unconfined",
            "--tmpfs",
            "/run",
            "--tmpfs",
            "/run/lock",
        ]);
        arguments.extend(["-e", "container=docker"]);
        for mount in &mounts {
            arguments.extend(["-v", mount]);
        }
        // The fleet is below /tmp, which Debian empties at boot, or covers.
        let init = "cd /etc/systemd/system && for unit in tmp.mount systemd-tmpfiles-setup.service \
                    systemd-tmpfiles-setup-dev.service systemd-tmpfiles-clean.timer; do ln -s /dev/null $unit; done; \
                    at=/sys/fs/cgroup; [ ! -d $at/systemd ] || at=$at/systemd; \
                    mount -o remount,bind,rw $at && exec /sbin/init";
        arguments.extend([image.as_str(), "sh", "-c", init]);
        let (said, started) = docker(&arguments);
        assert!(started, "the container with systemd does not start: {said}");
        let machine = Machine { name };
        let state = machine.until_booted().await;
        assert!(
            ["running", "degraded"].contains(&state.as_str()),
            "systemd does not come up in a container here ({state}): {}",
            docker(&["logs", &machine.name]).0
        );
        machine
    }

    /// Waits for systemd, whose socket is not there at first.
    async fn until_booted(&self) -> String {
        let begun = tokio::time::Instant::now();
        loop {
            let (state, _) = self.run(&["systemctl", "is-system-running", "--wait"]).await;
            let settled = ["running", "degraded"].contains(&state.as_str());
            if settled || begun.elapsed() > Duration::from_secs(30) {
                return state;
            }
            // An init tells nobody outside that it begins to listen.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.args(["exec", &self.name]).args(arguments).stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// Runs a command in it; what it said, and whether it worked.
    async fn run(&self, arguments: &[&str]) -> (String, bool) {
        let done = tokio::time::timeout(DEADLINE, self.command(arguments).output()).await;
        let done = match done {
            Ok(done) => done.expect("docker is installed"),
            Err(_) => panic!("{arguments:?} does not end within {DEADLINE:?}\n{}", self.journal().await),
        };
        let text = [done.stdout, done.stderr].concat();
        (String::from_utf8_lossy(&text).trim().to_owned(), done.status.success())
    }

    async fn systemctl(&self, arguments: &[&str]) {
        let (said, worked) = self.run(&[&["systemctl"], arguments, &[UNIT]].concat()).await;
        assert!(worked, "systemctl {arguments:?}: {said}\n{}", self.journal().await);
    }

    async fn property(&self, name: &str) -> String {
        self.run(&["systemctl", "show", "--value", "-p", name, UNIT]).await.0
    }

    /// Boxed, since the failure of any command asks for it.
    fn journal(&self) -> std::pin::Pin<Box<dyn Future<Output = String> + Send + '_>> {
        Box::pin(async {
            let asked = self.command(&["journalctl", "--no-pager", "-n", "60", "-u", UNIT]).output().await;
            asked.map(|done| String::from_utf8_lossy(&done.stdout).into_owned()).unwrap_or_default()
        })
    }

    /// Reads the journal from the boot on until a line is so; all lines up to it.
    async fn until_logged(&self, what: &str, mut so: impl FnMut(&Value) -> bool) -> Vec<Value> {
        let mut following = self
            .command(&["journalctl", "-f", "--no-tail", "-o", "json", "-u", UNIT])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker is installed");
        let mut lines = BufReader::new(following.stdout.take().expect("it is piped")).lines();
        let mut seen = Vec::new();
        let reading = async {
            while let Ok(Some(line)) = lines.next_line().await {
                let entry: Value = serde_json::from_str(&line).expect("the journal is JSON");
                let found = so(&entry);
                seen.push(entry);
                if found {
                    return true;
                }
            }
            false
        };
        let found = tokio::time::timeout(DEADLINE, reading).await.unwrap_or(false);
        assert!(found, "not in the journal: {what}\n{}", self.journal().await);
        seen
    }
}

fn message(entry: &Value) -> &str {
    entry["MESSAGE"].as_str().unwrap_or_default()
}

/// The agent's own lines, which are one JSON object each.
fn agents(entries: &[Value]) -> Vec<Value> {
    let own = entries.iter().filter(|entry| entry["SYSLOG_IDENTIFIER"] == "schemadock-agent");
    own.filter_map(|entry| serde_json::from_str(message(entry)).ok()).collect()
}

/// When a container was started, and as which process: both change when it is restarted.
fn life(container: &str) -> String {
    let (life, known) = docker(&["inspect", "--format", "{{.State.Pid}} {{.State.StartedAt}}", container]);
    assert!(known, "{life}");
    life
}

#[tokio::test]
async fn the_unit_under_systemd() {
    let mut fleet = Fleet::bare(Options::hosts(1)).await;
    let settings = fleet.dir().join("systemd.toml");
    let drop_in = fleet.dir().join("systemd.conf");
    // `PrivateTmp` hides the fleet's directory; 30 s of watchdog would be waited for.
    let text = format!("[Service]\nBindPaths={}\nWatchdogSec=4\n", fleet.dir().display());
    fs::write(&drop_in, text).expect("the fleet's directory can be used");
    let text = [
        ("host", fleet.agents[0].host.clone()),
        ("etcd", fleet.etcd.url()),
        ("state_dir", fleet.agents[0].state_dir().display().to_string()),
        ("run_dir", fleet.agents[0].run_dir().display().to_string()),
        ("image", IMAGE.to_owned()),
        ("memory", "1GiB".to_owned()),
        ("container_prefix", format!("{}-", fleet.name)),
    ];
    let text: String = text.iter().map(|(name, value)| format!("{name} = {value:?}\n")).collect();
    let address = format!("{:?}", fleet.address(1));

    // A key that is not known is refused, and the journal says which.
    fs::write(&settings, format!("{text}adress = {address}\n")).expect("the settings can be written");
    let machine = Machine::boot(&fleet, &settings, &drop_in).await;
    let (_, started) = machine.run(&["systemctl", "start", UNIT]).await;
    assert!(!started, "an unknown key was accepted\n{}", machine.journal().await);
    machine.until_logged("the unknown key", |entry| message(entry).contains("unknown field `adress`")).await;
    machine.systemctl(&["stop"]).await;

    // Ready when it follows its targets, not before etcd answers.
    fs::write(&settings, format!("{text}address = {address}\n")).expect("the settings can be written");
    fleet.etcd.down();
    machine.systemctl(&["start", "--no-block"]).await;
    machine.until_logged("a start", |entry| message(entry).contains("the agent starts")).await;
    assert_eq!(machine.property("ActiveState").await, "activating", "{}", machine.journal().await);
    fleet.etcd.up().await;
    machine.systemctl(&["start"]).await;
    assert_eq!(machine.property("ActiveState").await, "active");

    // It does its work inside the unit's limits.
    fleet.apply(&documents(1)).await;
    fleet.until_converged(1).await;
    let mut writer = fleet.writer(1).await;
    writer.more(5).await;
    let container = fleet.container(&member(1));
    let before = life(&container);

    // Databases run on over a restart.
    let first = machine.property("MainPID").await;
    machine.systemctl(&["restart"]).await;
    let second = machine.property("MainPID").await;
    assert_ne!(first, second);
    assert_eq!(life(&container), before, "a restart of the agent restarted a server");
    writer.more(5).await;

    // One that no longer comes round is ended and started anew.
    machine.systemctl(&["kill", "--signal=STOP", "--kill-whom=main"]).await;
    let mut ended = false;
    let lines = machine
        .until_logged("a watchdog that bites, and a new life", |entry| {
            ended |= message(entry).contains("Watchdog timeout");
            ended && message(entry).contains("follows its targets")
        })
        .await;
    // The job that starts it anew ends at its readiness.
    machine.systemctl(&["start"]).await;
    assert_ne!(machine.property("MainPID").await, second);
    assert_eq!(machine.property("NRestarts").await, "1");
    assert_eq!(life(&container), before, "the watchdog took a server with it");
    writer.more(5).await;

    // Under systemd it logs JSON: a level, a time and fields.
    let own = agents(&lines);
    assert!(own.len() >= 4, "{lines:#?}");
    for line in &own {
        assert!(
            line["level"].is_string() && line["timestamp"].is_string() && line["fields"].is_object(),
            "{line}"
        );
    }

    // Stopped, it leaves the databases running.
    machine.systemctl(&["stop"]).await;
    assert_eq!(machine.property("Result").await, "success");
    assert_eq!(life(&container), before, "the end of the agent ended a server");
    writer.more(5).await;
    let ledger = writer.stop().await;
    schemadock_integration::fleet::Writer::verify(&ledger, &mut fleet.sql(1).await).await;
}
