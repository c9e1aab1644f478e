//! Leaves nothing behind, and clears away what others have left: containers by label, directories by name.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::IMAGE;

/// Runs the `docker` command; its standard output, and whether it worked.
pub fn docker(arguments: &[&str]) -> (String, bool) {
    let done =
        Command::new("docker").args(arguments).stdin(Stdio::null()).output().expect("docker is installed");
    let mut text = String::from_utf8_lossy(&done.stdout).into_owned();
    if !done.status.success() {
        text.push_str(&String::from_utf8_lossy(&done.stderr));
    }
    (text.trim().to_owned(), done.status.success())
}

/// Containers with a fleet's label.
fn labelled() -> Vec<(String, String)> {
    let format = "{{.ID}} {{.Label \"schemadock.fleet\"}}";
    let (text, _) =
        docker(&["ps", "-a", "--no-trunc", "--filter", "label=schemadock.fleet", "--format", format]);
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs.map(|(id, fleet)| (id.to_owned(), fleet.trim().to_owned())).collect()
}

/// Ends and removes all containers of a fleet. One that was being made while its agent ended shows up late.
pub(super) fn remove_containers(fleet: &str) {
    for _ in 0..3 {
        let ids: Vec<String> =
            labelled().into_iter().filter(|(_, own)| own == fleet).map(|(id, _)| id).collect();
        if ids.is_empty() {
            return;
        }
        let all: Vec<&str> = ["rm", "-f", "-v"].into_iter().chain(ids.iter().map(String::as_str)).collect();
        docker(&all);
    }
}

/// Removes a directory of which parts may belong to the user of mysqld; then Docker's root removes it.
pub(super) fn remove_dir(path: &Path) {
    if fs::remove_dir_all(path).is_ok() || !path.exists() {
        return;
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return };
    let (mount, inner) = (format!("{}:/at", parent.display()), format!("/at/{}", name.to_string_lossy()));
    docker(&["run", "--rm", "--network", "none", "--user", "0:0", "-v", &mount, IMAGE, "rm", "-rf", &inner]);
}

/// Removes what runs whose process is gone have left.
pub(super) fn clean_up() {
    for (_, fleet) in labelled() {
        if maker(&fleet).is_some_and(is_gone) {
            remove_containers(&fleet);
        }
    }
    for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.strip_prefix("schemadock-").and_then(maker).is_some_and(is_gone) {
            remove_dir(&entry.path());
        }
    }
}

/// The process that made `it-<pid>-<n>`.
fn maker(fleet: &str) -> Option<u32> {
    let (pid, number) = fleet.strip_prefix("it-")?.split_once('-')?;
    number.parse::<u32>().ok()?;
    pid.parse().ok()
}

fn is_gone(pid: u32) -> bool {
    !Path::new(&format!("/proc/{pid}")).exists()
}
