//! A fleet that the command line makes, with `schemadock local`.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use super::cleaning::docker;
use super::member;

/// A directory with a local fleet; taken away whatever happens.
pub struct Local {
    dir: PathBuf,
}

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code; -1 where a signal ended it.
    pub code: i32,
    /// What it wrote for scripts.
    pub stdout: String,
    /// What it wrote for people.
    pub stderr: String,
}

impl Local {
    /// A directory of this name, without a fleet yet.
    pub fn new(name: &str) -> Local {
        // The name says who made it, so that what a killed run leaves is found.
        let dir = std::env::temp_dir().join(format!("schemadock-it-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Local { dir }
    }

    /// Where the fleet lives.
    pub fn fleet_dir(&self) -> PathBuf {
        self.dir.join("fleet")
    }

    /// Runs `schemadock local` with this verb and these arguments on it.
    pub fn local(&self, arguments: &[&str]) -> Ended {
        let dir = self.fleet_dir();
        let mut all = vec!["local", arguments[0], "--dir", dir.to_str().unwrap()];
        all.extend(&arguments[1..]);
        schemadock(None, &all)
    }

    /// Runs `local up`; panics where that fails.
    pub fn up(&self, arguments: &[&str]) -> Ended {
        let mut all = vec!["up"];
        all.extend(arguments);
        let ended = self.local(&all);
        assert_eq!(ended.code, 0, "{}\n{}", ended.stdout, ended.stderr);
        ended
    }

    /// Begins `local up`, and kills it as soon as etcd has been started.
    pub fn up_until_etcd_is_started(&self, arguments: &[&str]) {
        let dir = self.fleet_dir();
        let mut all = vec!["local", "up", "--dir", dir.to_str().unwrap()];
        all.extend(arguments);
        let mut up = command(None, &all).spawn().unwrap();
        while !dir.join("etcd.pid").exists() {
            assert_eq!(up.try_wait().unwrap(), None, "it has ended");
            std::thread::yield_now();
        }
        up.kill().unwrap();
        up.wait().unwrap();
    }

    /// What `local status` says.
    pub fn status(&self) -> Value {
        let ended = self.local(&["status", "-o", "json"]);
        serde_json::from_str(&ended.stdout).unwrap_or_else(|why| panic!("{why}: {ended:#?}"))
    }

    /// Runs a statement on the server of member `number`; panics where that fails.
    pub fn sql(&self, number: u8, sql: &str) -> String {
        let ended = self.schemadock(&["mysql", &member(number), "-o", "tsv", "-e", sql]);
        assert_eq!(ended.code, 0, "{ended:#?}");
        ended.stdout.trim().to_owned()
    }

    /// Runs `schemadock` with its etcd.
    pub fn schemadock(&self, arguments: &[&str]) -> Ended {
        let etcd = self.status()["etcd"].as_str().unwrap().to_owned();
        schemadock(Some(&etcd), arguments)
    }

    /// Writes documents into a file beside the fleet; its path.
    pub fn written(&self, name: &str, documents: &Value) -> String {
        let file = self.dir.join(name);
        std::fs::write(&file, documents.to_string()).unwrap();
        file.to_str().unwrap().to_owned()
    }

    /// What the fleet remembers of itself.
    pub fn remembered(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.fleet_dir().join("local.json")).unwrap()).unwrap()
    }

    /// The ids of its containers.
    pub fn containers(&self) -> String {
        let label = format!("label=schemadock.fleet={}", self.status()["fleet"].as_str().unwrap());
        docker(&["ps", "-aq", "--filter", &label]).0
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.local(&["down", "--purge"]);
        // Left on a failure only, and then for somebody to look at.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn command(etcd: Option<&str>, arguments: &[&str]) -> Command {
    let own = std::env::current_exe().unwrap();
    let program = own.ancestors().map(|dir| dir.join("schemadock")).find(|file| file.is_file());
    let mut command = Command::new(program.expect("schemadock is built: cargo build --workspace"));
    command.args(arguments).env_remove("SCHEMADOCK_ETCD").env_remove("SCHEMADOCK_PREFIX");
    if let Some(etcd) = etcd {
        command.env("SCHEMADOCK_ETCD", etcd);
    }
    command
}

fn schemadock(etcd: Option<&str>, arguments: &[&str]) -> Ended {
    let output = command(etcd, arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ended {
        code: output.status.code().unwrap_or(-1),
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
    }
}
