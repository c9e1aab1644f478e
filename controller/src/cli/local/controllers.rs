//! The copies of the controller of a local fleet.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::StreamExt;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use schemadock_schema::keys::Keys;
use schemadock_schema::operation::ControllerCopy;
use schemadock_store::{Selector, Store};

use super::directory::{Directory, Remembered, private_dir, write_private};
use super::hosts::program;
use super::process::{self, Process, Start};
use crate::cli::Failure;

/// The most copies on one machine.
pub(super) const MAX_CONTROLLERS: u8 = 9;
/// How many there are where nobody has said so.
pub(super) const DEFAULT_CONTROLLERS: u8 = 1;
/// How long a copy may take to end; it gives its office back.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it may take until one is in office, an old lease's end included.
const ELECTED: Duration = Duration::from_secs(6);

const PROGRAM: &str = "schemadock-controller";
const TIME_SCALE: &str = "SCHEMADOCK_TIME_SCALE";

/// A copy that runs.
pub(super) struct Copy {
    /// Its number, from 1 on.
    pub(super) number: u8,
    /// Whether it ran already, as it is to run.
    pub(super) kept: bool,
    /// Its process.
    pub(super) process: Process,
}

impl Remembered {
    /// How many copies there are to be.
    pub(super) fn controllers(&self) -> u8 {
        self.controllers.unwrap_or(DEFAULT_CONTROLLERS)
    }
}

/// The controllers' program.
pub(super) fn controller_program() -> Result<PathBuf, Failure> {
    program(PROGRAM, "schemadock-controller")
}

fn dir(directory: &Path, number: u8) -> PathBuf {
    directory.join("controllers").join(number.to_string())
}

fn log_file(directory: &Path, number: u8) -> PathBuf {
    directory.join("log").join(format!("controller{number}.log"))
}

/// One copy, if it runs.
pub(super) fn running(directory: &Path, number: u8) -> Option<Process> {
    let dir = dir(directory, number);
    process::find(&dir.join("controller.pid"), PROGRAM, &dir.display().to_string())
}

/// Sees to it that as many copies run as there are to be, with the arguments that are right now.
pub(super) async fn provide(directory: &Directory) -> Result<Vec<Copy>, Failure> {
    let wished = directory.remembered.controllers();
    let surplus = (wished + 1..=MAX_CONTROLLERS).map(|number| end(&directory.path, number));
    let stuck: Vec<String> = join_all(surplus).await.into_iter().flatten().collect();
    if !stuck.is_empty() {
        return Err(Failure::failed(format!("these controllers do not end: {}", stuck.join(", "))));
    }
    if wished == 0 {
        return Ok(Vec::new());
    }
    let program = controller_program()?;
    let all = (1..=wished).map(|number| provide_one(directory, number, &program));
    join_all(all).await.into_iter().collect()
}

async fn provide_one(directory: &Directory, number: u8, program: &Path) -> Result<Copy, Failure> {
    let dir = dir(&directory.path, number);
    private_dir(&dir)?;
    let remembered = &directory.remembered;
    let etcd = remembered.etcd_url().ok_or_else(|| Failure::failed("etcd has no port yet"))?;
    let arguments = ["--etcd", &etcd, "--prefix", &remembered.prefix, "--state-dir"].map(str::to_owned);
    let arguments: Vec<String> = arguments.into_iter().chain([dir.display().to_string()]).collect();
    let scale = std::env::var(TIME_SCALE).ok();
    let environment: Vec<(&str, String)> = scale.map(|scale| (TIME_SCALE, scale)).into_iter().collect();
    // What it was started with says whether it must be started anew.
    let started = dir.join("started");
    let text = format!("{}\n{environment:?}\n", arguments.join("\n"));
    let same = fs::read_to_string(&started).is_ok_and(|old| old == text);
    if let Some(process) = running(&directory.path, number) {
        if same && !process.is_outdated(program) {
            return Ok(Copy { number, kept: true, process });
        }
        if !process.stop(PATIENCE).await {
            return Err(Failure::failed(format!("controller {number} (pid {}) does not end", process.pid)));
        }
    }
    write_private(&started, text.as_bytes())?;
    let what = Start {
        program,
        arguments,
        log: &log_file(&directory.path, number),
        pid_file: &dir.join("controller.pid"),
        without_environment: "SCHEMADOCK_",
        environment,
        network: None,
    };
    let process = process::start(&what)
        .map_err(|why| Failure::failed(format!("{} cannot be started: {why}", program.display())))?;
    Ok(Copy { number, kept: false, process })
}

/// Says what became of them, and waits a moment for one to be in office.
///
/// # Errors
/// When one has ended, with the end of its log.
pub(super) async fn elected(
    directory: &Path,
    copies: &[Copy],
    store: &dyn Store,
    keys: &Keys,
) -> Result<(), Failure> {
    if copies.is_empty() {
        anstream::eprintln!("controllers none: operations need one, or --here");
        return Ok(());
    }
    let numbers: Vec<String> = copies.iter().map(|copy| copy.number.to_string()).collect();
    let word = if copies.iter().all(|copy| copy.kept) { "run" } else { "started" };
    let pids: Vec<i32> = copies.iter().map(|copy| copy.process.pid).collect();
    let mut ends: FuturesUnordered<_> = copies
        .iter()
        .map(|copy| async move {
            copy.process.ended().await;
            copy.number
        })
        .collect();
    let office = tokio::select! {
        biased;
        Some(number) = ends.next() => {
            let log = log_file(directory, number);
            let text = format!("controller {number} ended. The end of {}:", log.display());
            return Err(Failure::failed(text).hint(process::last_lines(&log, 8)));
        }
        office = tokio::time::timeout(ELECTED, one_of(store, keys, &pids)) => office,
    };
    let office = match office {
        Ok(pid) => format!("pid {} is in office", pid?),
        Err(_) => format!("none is in office yet; see {}/log", directory.display()),
    };
    anstream::eprintln!("controllers {}: {word}, {office}", numbers.join(", "));
    Ok(())
}

/// Returns when one of these processes is in office.
async fn one_of(store: &dyn Store, keys: &Keys, pids: &[i32]) -> Result<i32, Failure> {
    loop {
        let parts = parts(keys);
        let seen = store.read(&parts).await?;
        if let Some(pid) = leader(keys, &seen).filter(|pid| pids.contains(pid)) {
            return Ok(pid);
        }
        // A copy makes itself known before it stands for office.
        let mut changes = store.watch(&parts[0], seen.revision).await?;
        changes.next().await.ok_or_else(|| Failure::failed("etcd ended a watch"))??;
    }
}

fn parts(keys: &Keys) -> [Selector; 2] {
    [Selector::Key(keys.controller_leader()), Selector::Prefix(keys.controllers())]
}

/// The process of the copy in office, by what a read of [`parts`] has found.
fn leader(keys: &Keys, seen: &schemadock_store::Snapshot) -> Option<i32> {
    let id = &seen.get(&keys.controller_leader())?.value;
    let id = String::from_utf8_lossy(id);
    let copy = seen.get(&keys.controller(id.trim_matches('"')))?;
    let copy: ControllerCopy = serde_json::from_slice(&copy.value).ok()?;
    i32::try_from(copy.pid).ok()
}

/// The process in office; an error where etcd does not say.
pub(super) async fn in_office(store: &dyn Store, keys: &Keys) -> Result<Option<i32>, Failure> {
    Ok(leader(keys, &store.read(&parts(keys)).await?))
}

/// Ends one copy; its name, where it does not end.
async fn end(directory: &Path, number: u8) -> Option<String> {
    match running(directory, number) {
        Some(process) if !process.stop(PATIENCE).await => Some(format!("{number} (pid {})", process.pid)),
        _ => None,
    }
}

/// Ends all copies, also those that are no longer wished for. How many ran, and those that do not end.
pub(super) async fn stop(directory: &Directory) -> (usize, Vec<String>) {
    let all = 1..=MAX_CONTROLLERS;
    let ran = all.clone().filter(|number| running(&directory.path, *number).is_some()).count();
    let stuck = join_all(all.map(|number| end(&directory.path, number))).await;
    (ran, stuck.into_iter().flatten().collect())
}
