//! A local fleet whose hosts have addresses of their own: reached by them from outside, cut off and healed, mended, and
//! gone without a trace in this machine's network.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use schemadock_integration::fleet::{Local, PORT, docker, documents, host};
use serde_json::{Value, json};

/// How long what is waited for here may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long an answer from a host may take; in health it is there in a millisecond.
const ANSWER: Duration = Duration::from_secs(1);

/// Waits until this is so; no event tells of it to somebody outside.
fn until(what: &str, so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn isolated(fleet: &Local, number: usize) -> Value {
    fleet.status()["hosts"][number - 1]["isolated"].clone()
}

fn alive(fleet: &Local, number: usize) -> bool {
    let hosts = fleet.schemadock(&["get", "hosts", "-o", "json"]);
    let hosts: Value = serde_json::from_str(&hosts.stdout).unwrap();
    hosts[number - 1]["alive"] == true
}

fn address(fleet: &Local, number: usize) -> String {
    fleet.status()["hosts"][number - 1]["address"].as_str().unwrap().to_owned()
}

/// Whether the server of host `number` is reached from outside the fleet.
fn answers(fleet: &Local, number: usize) -> bool {
    let at: SocketAddr = format!("{}:{PORT}", address(fleet, number)).parse().unwrap();
    TcpStream::connect_timeout(&at, ANSWER).is_ok()
}

fn cut(fleet: &Local, number: u8, from: &[&str]) {
    let name = host(number);
    let ended = fleet.local(&[&["isolate", &name], from].concat());
    assert_eq!(ended.code, 0, "{ended:#?}");
}

fn heal(fleet: &Local, number: u8) {
    let ended = fleet.local(&["heal", &host(number)]);
    assert_eq!(ended.code, 0, "{ended:#?}");
    assert_eq!(isolated(fleet, number.into()), false);
}

fn converge(fleet: &Local) {
    let ended = fleet.schemadock(&["wait", "--all"]);
    assert_eq!(ended.code, 0, "{ended:#?}");
}

fn rows(fleet: &Local, number: u8) -> String {
    fleet.sql(number, "SELECT COUNT(*) FROM shop.t")
}

fn insert(fleet: &Local) {
    fleet.sql(1, "INSERT INTO shop.t VALUES (NULL)");
}

/// What of this machine's network names a fleet: links and rules.
fn traces(fleet: &str) -> Vec<String> {
    let links = fs::read_dir("/sys/class/net").unwrap().flatten();
    let links = links.map(|link| link.file_name().to_string_lossy().into_owned());
    let rules = Command::new("iptables-save").output().unwrap();
    let rules = String::from_utf8_lossy(&rules.stdout).into_owned();
    links.chain(rules.lines().map(str::to_owned)).filter(|line| line.contains(fleet)).collect()
}

/// Takes away what a reboot takes: links, bridge and rules.
fn forget_network(fleet: &str) {
    for trace in traces(fleet) {
        match trace.strip_prefix("-A ") {
            Some(rule) => {
                let rule: Vec<&str> = rule.split(' ').collect();
                assert!(Command::new("iptables").args(["-w", "-D"]).args(rule).status().unwrap().success());
            }
            // A link may have ended with its namespace.
            None => {
                let _ = Command::new("ip").args(["link", "del", &trace]).output();
            }
        }
    }
    assert_eq!(traces(fleet), [""; 0]);
}

#[test]
fn hosts_with_addresses_of_their_own_are_cut_off_and_healed() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("not root: hosts cannot be given network namespaces, nothing was tested");
        return;
    }
    let fleet = Local::new("netns");
    let file = fleet.written("two.json", &documents(2));
    fleet.up(&["--netns", "--hosts", "2", "-f", &file]);
    let (status, name) = (fleet.status(), fleet.remembered()["name"].as_str().unwrap().to_owned());
    assert_eq!(status["netns"], true);
    assert!(address(&fleet, 1).starts_with("198.1"), "{status}");
    assert!(answers(&fleet, 1) && answers(&fleet, 2));
    fleet.sql(1, "CREATE DATABASE shop; CREATE TABLE shop.t (a INT AUTO_INCREMENT PRIMARY KEY)");
    insert(&fleet);
    until("the first row is on the minion", || {
        fleet.sql(2, "SELECT COUNT(*) FROM information_schema.tables WHERE table_name = 't'") == "1"
            && rows(&fleet, 2) == "1"
    });

    // Wholly: nothing of the host is heard, and what is written meanwhile arrives later.
    cut(&fleet, 2, &[]);
    assert_eq!((isolated(&fleet, 1), isolated(&fleet, 2)), (json!(false), json!(true)));
    assert!(!answers(&fleet, 2) && answers(&fleet, 1));
    until("the agent of the host that is cut off is not alive", || !alive(&fleet, 2));
    assert!(alive(&fleet, 1));
    insert(&fleet);
    // Nobody waits for an agent that cannot come.
    fleet.up(&[]);
    heal(&fleet, 2);
    converge(&fleet);
    // Its status may still be the one from before: what counts is that the row comes.
    until("what was written is on the minion", || rows(&fleet, 2) == "2");
    assert!(alive(&fleet, 2));

    // From its master alone: replication stops, all else goes on.
    cut(&fleet, 2, &["--from", "schemadock01"]);
    assert_eq!(isolated(&fleet, 2), json!(["schemadock01"]));
    insert(&fleet);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!((rows(&fleet, 1).as_str(), rows(&fleet, 2).as_str()), ("3", "2"));
    // What is cut is added up.
    cut(&fleet, 2, &["--from", "etcd,clients"]);
    assert_eq!(isolated(&fleet, 2), json!(["schemadock01", "etcd", "clients"]));
    assert!(!answers(&fleet, 2));
    heal(&fleet, 2);
    converge(&fleet);
    until("what was written is on the minion", || rows(&fleet, 2) == "3");

    // From etcd alone: the agent is not alive, its server is reached and replicates.
    cut(&fleet, 2, &["--from", "etcd"]);
    assert_eq!(isolated(&fleet, 2), json!(["etcd"]));
    until("the agent cut off from etcd is not alive", || !alive(&fleet, 2));
    insert(&fleet);
    until("replication goes on", || answers(&fleet, 2) && rows(&fleet, 2) == "4");
    heal(&fleet, 2);

    // From clients alone: they do not reach the server; the fleet sees nothing of it.
    cut(&fleet, 2, &["--from", "clients"]);
    assert!(!answers(&fleet, 2));
    insert(&fleet);
    until("the agent is alive again", || alive(&fleet, 2));
    converge(&fleet);
    heal(&fleet, 2);
    until("replication went on", || rows(&fleet, 2) == "5");

    let wrong = fleet.local(&["isolate", "schemadock02", "--from", "schemadock02"]);
    assert!(
        wrong.code == 2 && wrong.stderr.contains("expected of schemadock01, etcd, clients"),
        "{wrong:#?}"
    );

    // A host that was lost, and the bridge with it, come back; the other host runs on.
    let (sleeper, bridge) = (format!("{name}_{}", host(2)), format!("sd{name}"));
    assert!(docker(&["kill", &sleeper]).1);
    assert!(Command::new("ip").args(["link", "del", &bridge]).status().unwrap().success());
    let second = fleet.up(&["-f", &file]);
    assert!(second.stderr.contains("made for schemadock02\n"), "{second:#?}");
    assert_eq!(fleet.status()["hosts"][0]["agent_pid"], status["hosts"][0]["agent_pid"]);
    assert_eq!((rows(&fleet, 2).as_str(), answers(&fleet, 2)), ("5", true));

    // So does all that a reboot takes.
    let now = fleet.status();
    let agents = now["hosts"].as_array().unwrap().iter().map(|host| &host["agent_pid"]);
    for pid in agents.chain([&now["etcd_pid"], &now["controllers"][0]["pid"]]) {
        let pid = nix::unistd::Pid::from_raw(pid.as_i64().unwrap().try_into().unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    }
    let containers = fleet.containers();
    assert!(docker(&[&["kill"], &containers.lines().collect::<Vec<_>>()[..]].concat()).1);
    forget_network(&name);
    fleet.up(&["-f", &file]);
    assert_eq!((rows(&fleet, 2).as_str(), answers(&fleet, 2)), ("5", true));

    // Another one beside it, and a third whose hosts cannot be cut off.
    let other = Local::new("netns-other");
    other.up(&["--netns", "--hosts", "1"]);
    assert_ne!(address(&other, 1), address(&fleet, 1));
    let other_name = other.remembered()["name"].as_str().unwrap().to_owned();
    assert_eq!(other.local(&["down", "--purge"]).code, 0);
    assert_eq!(traces(&other_name), [""; 0]);
    other.up(&["--hosts", "1"]);
    assert_eq!((other.status()["netns"].clone(), isolated(&other, 1)), (json!(false), json!(false)));
    assert_eq!(other.local(&["isolate", "schemadock01"]).code, 1);
    drop(other);
    assert!(answers(&fleet, 1) && alive(&fleet, 2));

    assert_eq!(traces(&name).len(), 1 + 2 + 2, "{:?}", traces(&name));
    let label = format!("label=schemadock.fleet={}", status["fleet"].as_str().unwrap());
    assert_eq!(fleet.local(&["down"]).code, 0);
    assert_eq!(traces(&name), [""; 0]);
    assert_eq!(docker(&["ps", "-aq", "--filter", &label]).0, "");
    fleet.up(&["-f", &file]);
    assert_eq!((fleet.sql(1, "SELECT COUNT(*) FROM shop.t").as_str(), rows(&fleet, 2).as_str()), ("5", "5"));
    assert_eq!(fleet.local(&["down", "--purge"]).code, 0);
    assert_eq!(traces(&name), [""; 0]);
    assert!(!fleet.fleet_dir().exists());
}
