//! The etcd of a local fleet.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use schemadock_store::etcd::Etcd;
use schemadock_store::{Selector, Store as _};

use super::directory::{Directory, Remembered, private_dir};
use super::process::{self, Process, Start};
use crate::cli::Failure;

/// The port that clients look at first.
const USUAL_PORT: u16 = 2379;
/// On the last address of a fleet's block: while etcd listens there, the block is taken.
const PEER_PORT: u16 = 2380;
/// How long etcd may take to answer; replaying a long log takes its time.
const READY: Duration = Duration::from_secs(30);
/// How long it may take to stop.
const PATIENCE: Duration = Duration::from_secs(10);
/// Ports and blocks are looked for and then taken, so somebody else may be faster.
const ATTEMPTS: u32 = 5;

/// The etcd of the directory, if it runs.
pub(super) fn running(directory: &std::path::Path) -> Option<Process> {
    let data = directory.join("etcd");
    process::find(&directory.join("etcd.pid"), "etcd", &format!("--data-dir={}", data.display()))
}

/// Sees to it that etcd runs and answers. True: it was started just now.
pub(super) async fn provide(directory: &mut Directory) -> Result<bool, Failure> {
    if let Some(process) = running(&directory.path) {
        if let (Some(url), Some(port)) = (directory.remembered.etcd_url(), directory.remembered.etcd_port) {
            let listens = process.has_argument(&listen(&directory.remembered, port));
            if listens && answers(&url, &process, READY).await {
                return Ok(false);
            }
        }
        // Alive and mute for so long, or where hosts do not find it, or started by a `local up` that
        // was ended before it wrote down where: it is replaced, its data stay.
        process.stop(PATIENCE).await;
    }
    let program = on_path("etcd").ok_or_else(|| {
        Failure::failed("the program `etcd` is not on the PATH")
            .hint("On Debian: apt-get install etcd-server. `./scripts/setup` does it, too.")
    })?;
    let data = directory.path.join("etcd");
    private_dir(&data)?;
    let log = directory.path.join("log/etcd.log");
    let pid_file = directory.path.join("etcd.pid");
    for _ in 0..ATTEMPTS {
        let port = free_port(directory.remembered.etcd_port)?;
        let block = free_block(directory.remembered.block)?;
        let client = format!("http://127.0.0.1:{port}");
        let peer = format!("http://127.0.{block}.254:{PEER_PORT}");
        let arguments = vec![
            "--name=local".to_owned(),
            format!("--data-dir={}", data.display()),
            listen(&directory.remembered, port),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=local={peer}"),
            // What was overwritten more than an hour ago is of no use; without this the file only grows.
            "--auto-compaction-mode=periodic".to_owned(),
            "--auto-compaction-retention=1h".to_owned(),
            "--quota-backend-bytes=2147483648".to_owned(),
            "--logger=zap".to_owned(),
        ];
        let what = Start {
            program: &program,
            arguments,
            log: &log,
            pid_file: &pid_file,
            without_environment: "ETCD_",
            environment: Vec::new(),
            network: None,
        };
        let process = process::start(&what)
            .map_err(|why| Failure::failed(format!("{} cannot be started: {why}", program.display())))?;
        if answers(&client, &process, READY).await {
            directory.remembered.etcd_port = Some(port);
            directory.remembered.block = Some(block);
            directory.remember()?;
            return Ok(true);
        }
        process.stop(PATIENCE).await;
        if is_free(Ipv4Addr::LOCALHOST, port) && is_free(peer_address(block), PEER_PORT) {
            break;
        }
    }
    Err(Failure::failed(format!("etcd does not come up. The end of {}:", log.display()))
        .hint(process::last_lines(&log, 8)))
}

/// Where it listens: here, and where the hosts have a network of their own there, too.
fn listen(remembered: &Remembered, port: u16) -> String {
    let hosts = remembered.network().map(|network| format!(",http://{}:{port}", network.own_address()));
    format!("--listen-client-urls=http://127.0.0.1:{port}{}", hosts.unwrap_or_default())
}

/// Stops the directory's etcd. False: it does not go.
pub(super) async fn stop(directory: &Directory) -> bool {
    match running(&directory.path) {
        Some(process) => process.stop(PATIENCE).await,
        None => true,
    }
}

/// Whether etcd answers before it ends or time is up.
async fn answers(url: &str, process: &Process, within: Duration) -> bool {
    let ask = async {
        let store = Etcd::connect(url, Duration::from_secs(1)).await.ok()?;
        let part = [Selector::Key("/".to_owned())];
        let mut pause = Duration::from_millis(10);
        // etcd tells nobody that it listens, so it is asked again, ever more slowly.
        while store.read(&part).await.is_err() {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(200));
        }
        Some(())
    };
    tokio::select! {
        biased;
        () = process.ended() => false,
        answer = tokio::time::timeout(within, ask) => matches!(answer, Ok(Some(()))),
    }
}

/// The remembered port, so that what clients have exported stays true; else the usual one; else any.
fn free_port(remembered: Option<u16>) -> Result<u16, Failure> {
    let known = remembered.into_iter().chain([USUAL_PORT]).find(|port| is_free(Ipv4Addr::LOCALHOST, *port));
    if let Some(port) = known {
        return Ok(port);
    }
    let any = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    any.map(|address| address.port())
        .map_err(|why| Failure::failed(format!("no free port on 127.0.0.1: {why}")))
}

/// The remembered block, unless another fleet has it now; else the first on which nobody listens.
fn free_block(remembered: Option<u8>) -> Result<u8, Failure> {
    if let Some(block) = remembered.filter(|block| is_free(peer_address(*block), PEER_PORT)) {
        return Ok(block);
    }
    let taken = blocks_in_use();
    (1..=254).find(|block| !taken.contains(block) && is_free(peer_address(*block), PEER_PORT)).ok_or_else(
        || {
            Failure::failed("no block of addresses from 127.0.1.0 to 127.0.254.0 is free")
                .hint("`ss -ltn` shows who listens there; `local down` in another directory frees one.")
        },
    )
}

fn peer_address(block: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, block, 254)
}

fn is_free(address: Ipv4Addr, port: u16) -> bool {
    TcpListener::bind((address, port)).is_ok()
}

/// The third numbers of all addresses 127.0.N.x that somebody listens on.
fn blocks_in_use() -> BTreeSet<u8> {
    parse_listeners(&fs::read_to_string("/proc/net/tcp").unwrap_or_default())
}

fn parse_listeners(table: &str) -> BTreeSet<u8> {
    const LISTEN: &str = "0A";
    let lines = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let listening = lines.filter(|fields| fields.get(3) == Some(&LISTEN));
    let addresses = listening.filter_map(|fields| {
        let (address, _) = fields.get(1)?.split_once(':')?;
        // The kernel writes the number as it lies in memory.
        Some(u32::from_str_radix(address, 16).ok()?.to_ne_bytes())
    });
    addresses.filter(|bytes| bytes[..2] == [127, 0]).map(|bytes| bytes[2]).collect()
}

/// A program on the PATH.
pub(super) fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn listeners_are_read_from_the_kernels_table() {
        let table = "  sl  local_address rem_address   st\n\
                     0: 0103007F:1CA7 00000000:0000 0A 0\n\
                     1: 0105007F:1CA7 00000000:0000 01 0\n\
                     2: 0100000A:1CA7 00000000:0000 0A 0\n";
        assert_eq!(parse_listeners(table), BTreeSet::from([3]));
    }

    #[test]
    fn a_taken_port_is_not_free() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(!is_free(Ipv4Addr::LOCALHOST, port));
        assert_ne!(free_port(Some(port)).unwrap(), port);
    }
}
