//! What etcd holds, as the command line asks for it.

use schemadock_controller_plan::view::Raw;
pub use schemadock_controller_plan::view::{FleetView as Seen, Stored, StoredTarget};
use schemadock_schema::keys::Keys;
use schemadock_store::{Entry, Selector};

use super::{Context, Failure};

/// The parts that say what is wished and what is.
pub fn parts(keys: &Keys) -> Vec<Selector> {
    let prefixes = [
        keys.targets(),
        keys.statuses(),
        keys.hosts(),
        keys.alive_all(),
        keys.cordons(),
        keys.clusters(),
        keys.leaderships(),
        keys.handovers(),
        keys.members_all(),
        keys.locks(),
    ];
    let single = [keys.fleet(), keys.controller_leader()];
    prefixes.into_iter().map(Selector::Prefix).chain(single.map(Selector::Key)).collect()
}

/// Reads the [`parts`], and further ones, at one revision.
///
/// # Errors
/// When etcd does not answer.
pub async fn look(ctx: &Context, further: Vec<Selector>) -> Result<Seen, Failure> {
    let mut wanted = parts(&ctx.keys);
    wanted.extend(further);
    let snapshot = ctx.store().await?.read(&wanted).await?;
    Ok(read(&ctx.keys, snapshot.revision, snapshot.entries.values()))
}

/// Reads entries of any of the [`parts`], and of controllers, operations and events.
pub fn read<'a>(keys: &Keys, revision: i64, entries: impl Iterator<Item = &'a Entry> + Clone) -> Seen {
    Seen::read(keys, revision, entries.map(raw))
}

/// An entry as the plan takes it.
pub fn raw(entry: &Entry) -> Raw<'_> {
    Raw {
        key: &entry.key,
        value: &entry.value,
        mod_revision: entry.mod_revision,
        create_revision: entry.create_revision,
    }
}
