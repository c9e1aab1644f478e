//! What a newcomer reads when the fleet is up: how to connect, edit, watch and stop.

use std::collections::BTreeSet;
use std::path::Path;

use schemadock_schema::ClusterName;
use schemadock_schema::keys::Keys;
use schemadock_schema::leadership::{Handover, Leadership};
use schemadock_store::{Selector, Store};

use super::DirArg;
use super::directory::Directory;
use crate::cli::Failure;

/// What the last lines are about.
pub(super) struct Facts {
    etcd: String,
    prefix: String,
    /// ` --dir DIR`, where it is not the usual one.
    dir_flag: String,
    /// Whether hosts can be cut off.
    netns: bool,
}

impl Facts {
    pub(super) fn of(directory: &Directory, dir: &DirArg) -> Facts {
        Facts {
            etcd: directory.remembered.etcd_url().unwrap_or_default(),
            prefix: directory.remembered.prefix.clone(),
            dir_flag: dir.flag(),
            netns: directory.remembered.netns,
        }
    }

    /// `NAME=value …`, as a shell takes it.
    fn environment(&self) -> String {
        let prefix = if self.prefix == "/schemadock" {
            String::new()
        } else {
            format!(" SCHEMADOCK_PREFIX={}", self.prefix)
        };
        format!("SCHEMADOCK_ETCD={}{prefix}", self.etcd)
    }
}

pub(super) async fn print(
    facts: &Facts,
    store: &dyn Store,
    keys: &Keys,
    clusters: &BTreeSet<ClusterName>,
) -> Result<(), Failure> {
    let masters = masters(store, keys, clusters).await?;
    let (command, path) = how_called();
    let environment = facts.environment();
    anstream::println!();
    if let Some((master, _)) = masters.first() {
        anstream::println!("connect  {environment} {command} mysql {master}");
        anstream::println!();
    }
    anstream::println!("In your shell:  export {environment}{path}");
    match masters.first() {
        Some((master, cluster)) => {
            anstream::println!("edit     schemadock edit {master}");
            anstream::println!("watch    schemadock get instances -w    or: topology, get events -w");
            anstream::println!("apps     schemadock credentials {cluster}");
            anstream::println!(
                "cluster  schemadock cluster switchover {cluster}    or: scale, upgrade, resize, stop"
            );
        }
        None => {
            anstream::println!("begin    schemadock apply -f FILE       (examples/ has some)");
            anstream::println!("     or  schemadock cluster create NAME --replicas 2");
            anstream::println!("watch    schemadock get instances -w");
        }
    }
    if facts.netns {
        anstream::println!(
            "break    schemadock local isolate schemadock01{}    (local heal takes it back)",
            facts.dir_flag
        );
    }
    anstream::println!(
        "stop     schemadock local down{}    (data stay; with --purge they go, too)",
        facts.dir_flag
    );
    Ok(())
}

/// Who leads the clusters, as far as somebody does.
async fn masters(
    store: &dyn Store,
    keys: &Keys,
    clusters: &BTreeSet<ClusterName>,
) -> Result<Vec<(String, ClusterName)>, Failure> {
    let mut found = Vec::new();
    for cluster in clusters {
        let parts = [Selector::Key(keys.leadership(cluster)), Selector::Prefix(keys.handovers_of(cluster))];
        let seen = store.read(&parts).await?;
        let Some(record) = seen.get(&keys.leadership(cluster)) else { continue };
        let Ok(record) = serde_json::from_slice::<Leadership>(&record.value) else { continue };
        let ended = seen.get(&keys.handover(cluster, record.term));
        let ended = ended.and_then(|entry| serde_json::from_slice::<Handover>(&entry.value).ok());
        if let Some(master) = record.with_handover(ended.as_ref()).master {
            found.push((master.to_string(), cluster.clone()));
        }
    }
    Ok(found)
}

/// How this program was called, and what to add to an `export` so that its bare name is enough.
fn how_called() -> (String, String) {
    let called = std::env::args().next().unwrap_or_default();
    if !called.contains('/') {
        return ("schemadock".to_owned(), String::new());
    }
    let here = std::env::current_exe().ok();
    let dir = here.as_deref().and_then(Path::parent).map(|dir| dir.display().to_string());
    (called, dir.map(|dir| format!(" PATH=\"{dir}:$PATH\"")).unwrap_or_default())
}
