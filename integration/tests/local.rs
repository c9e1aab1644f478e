//! A whole fleet on one machine, by the command line alone: it comes up, is mended, keeps its data, and goes without
//! a trace; another one beside it is not disturbed.

use std::path::Path;

use schemadock_integration::fleet::{Local, documents, member};
use serde_json::Value;

fn kill(pid: &Value) {
    let pid = nix::unistd::Pid::from_raw(pid.as_i64().unwrap().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
}

/// One that has ended and was not collected yet has no command line any more.
fn runs(pid: &Value) -> bool {
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
}

#[test]
fn a_local_fleet_comes_up_is_mended_and_goes_without_a_trace() {
    let fleet = Local::new("local");
    let file = fleet.written("two.json", &documents(2));
    let first = fleet.up(&["--hosts", "2", "-f", &file]);
    assert!(first.stdout.contains(&format!("mysql {}", member(1))), "{first:#?}");
    fleet.sql(
        1,
        "CREATE DATABASE shop; CREATE TABLE shop.t (a INT PRIMARY KEY); INSERT INTO shop.t VALUES (1), (2)",
    );

    // Another fleet comes and goes beside it.
    let other = Local::new("other");
    // Its first start ends in the middle; the next one minds the etcd that runs already.
    other.up_until_etcd_is_started(&["--hosts", "1"]);
    other.up(&["--hosts", "1"]);
    let (here, there) = (fleet.status(), other.status());
    assert_ne!(here["etcd"], there["etcd"]);
    assert_ne!(here["hosts"][0]["address"], there["hosts"][0]["address"]);
    assert_eq!(other.local(&["down", "--purge"]).code, 0);
    assert!(!other.fleet_dir().exists());
    drop(other);

    // What died is brought back, what lives is left alone.
    let controller = |status: &Value| {
        let all = status["controllers"].as_array().unwrap().clone();
        assert!(all.len() == 1 && all[0]["leader"].is_boolean(), "{status}");
        all[0]["pid"].clone()
    };
    assert!(runs(&controller(&here)));
    kill(&controller(&here));
    kill(&here["etcd_pid"]);
    kill(&here["hosts"][1]["agent_pid"]);
    fleet.up(&["-f", &file]);
    let mended = fleet.status();
    assert_eq!(mended["hosts"][0]["agent_pid"], here["hosts"][0]["agent_pid"]);
    assert_ne!(mended["hosts"][1]["agent_pid"], here["hosts"][1]["agent_pid"]);
    assert_ne!(controller(&mended), controller(&here));
    assert_eq!(fleet.sql(2, "SELECT COUNT(*) FROM shop.t"), "2");

    // Somebody changed roles in the file: who leads is not a file's business any more.
    let mut swapped = documents(2);
    swapped[member(1)] = documents(2)[member(2)].clone();
    swapped[member(1)]["data"]["master_host"] = "schemadock02".into();
    swapped[member(2)] = documents(2)[member(1)].clone();
    let file = fleet.written("swapped.json", &swapped);
    fleet.up(&["-f", &file]);
    fleet.sql(1, "INSERT INTO shop.t VALUES (3)");

    // Down: nothing runs, everything is kept.
    assert_eq!(fleet.local(&["down"]).code, 0);
    let agents = mended["hosts"].as_array().unwrap().iter().map(|host| &host["agent_pid"]);
    for pid in agents.chain([&mended["etcd_pid"], &controller(&mended)]) {
        assert!(!runs(pid), "{pid} runs");
    }
    assert_eq!(fleet.containers(), "");
    fleet.up(&["-f", &file]);
    assert_eq!(fleet.sql(1, "SELECT COUNT(*) FROM shop.t"), "3");

    let remembered = fleet.remembered();
    let ended = fleet.local(&["down", "--purge"]);
    assert_eq!(ended.code, 0, "{ended:#?}");
    assert!(!fleet.fleet_dir().exists());
    assert!(!Path::new(remembered["run_dir"].as_str().unwrap()).exists());
}
