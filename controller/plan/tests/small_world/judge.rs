//! What must hold of every write of a controller, stated once more and apart from the plan.

use std::collections::{BTreeMap, BTreeSet};

use schemadock_schema::leadership::{Handover, Leadership, LeadershipPhase};
use schemadock_schema::proposal::Proposal;
use serde_json::Value;

use crate::world::{Entry, World};

pub(crate) fn commit(world: &World, before: &BTreeMap<String, Entry>, proposal: &Proposal) {
    for write in &proposal.writes {
        let key = write.key();
        if let Some(cluster) = key.strip_prefix("/p/leadership/") {
            leadership(world, before, cluster);
        }
        if key.starts_with("/p/targets/") {
            target(world, before, key);
        }
    }
}

fn read<T: serde::de::DeserializeOwned>(store: &BTreeMap<String, Entry>, key: &str) -> Option<T> {
    store.get(key).map(|entry| serde_json::from_slice(&entry.value).unwrap())
}

/// The record as it was meant, and what became of it.
fn leadership(world: &World, before: &BTreeMap<String, Entry>, cluster: &str) {
    let key = format!("/p/leadership/{cluster}");
    let Some(stored) = read::<Leadership>(before, &key) else { panic!("a controller founds nothing") };
    let after: Leadership = read(&world.store, &key).expect("a record is never deleted");
    let ended: Option<Handover> = read(before, &format!("/p/handover/{cluster}/{}", stored.term));
    if stored.phase == LeadershipPhase::Handover {
        let ended = ended.expect("a handover that is not decided is not touched");
        assert_eq!(after, stored.with_handover(Some(&ended)), "only its end is folded in");
        return;
    }
    let master = stored.master.as_ref().expect("a released record is not touched");
    if after.phase == LeadershipPhase::Handover {
        assert_eq!(after.term, stored.term + 1);
        assert_eq!((&after.voters, after.acks), (&stored.voters, stored.acks));
        assert!(stored.leaving.is_empty() && stored.acks_next.is_none(), "a change of voters is under way");
        assert!(after.voters.iter().any(|voter| Some(&voter.name) == after.to.as_ref()));
        return;
    }
    assert_eq!((after.term, &after.master), (stored.term, &stored.master), "who leads changes by a handover");
    let status = world.agents_status(master.as_str());
    let in_force = status.as_ref().and_then(|status| status["leadership_revision"].as_i64())
        == before.get(&key).map(|entry| entry.written);
    let names = |record: &Leadership| -> BTreeSet<String> {
        record.voters.iter().map(|voter| format!("{} {}", voter.name, voter.server_uuid)).collect()
    };
    assert!(!names(&after).iter().any(|voter| voter.starts_with(&format!("{master} "))), "the master votes");
    // V3: raising the count, and whoever is removed where acknowledgements count, is in force on the master first.
    if after.acks > stored.acks {
        assert!(in_force && stored.acks_next == Some(after.acks), "{stored:?} became {after:?}");
    }
    let removed: Vec<_> = stored.voters.iter().filter(|voter| !after.voters.contains(voter)).collect();
    if stored.acks > 0 && after.acks > 0 {
        for voter in removed {
            assert!(in_force && stored.leaving.contains(&voter.name), "{stored:?} became {after:?}");
        }
    }
    // Lossless says what it means: enough voters for its count, and one more for each that is to be lost.
    if after.acks > 0 {
        assert!(after.voters.len() > after.leaving.len() || after.leaving.is_empty());
        assert!(after.voters.len() - after.leaving.len() >= after.acks as usize, "{after:?}");
    }
}

/// A voter is out before it is stopped, moved or taken away; only all members together stop as voters.
fn target(world: &World, before: &BTreeMap<String, Entry>, key: &str) {
    let name = key.rsplit('/').next().unwrap();
    let was: Option<Value> = read(before, key);
    let is: Option<Value> = read(&world.store, key);
    let Some(cluster) = was.as_ref().or(is.as_ref()).and_then(|value| value["data"]["cluster"].as_str())
    else {
        return;
    };
    let stops = |value: &Option<Value>| value.as_ref().is_none_or(|value| value["data"]["disabled"] == true);
    let Some(record) = read::<Leadership>(before, &format!("/p/leadership/{cluster}")) else { return };
    let counted = record.acks > 0
        && (record.voters.iter().any(|voter| voter.name.as_str() == name)
            || record.master.as_ref().is_some_and(|master| master.as_str() == name));
    if counted && !stops(&was) && stops(&is) {
        let all = world.targets_of(cluster).iter().all(|(_, target)| target.disabled);
        assert!(all, "{name} is stopped while it counts");
    }
}

impl World {
    fn agents_status(&self, name: &str) -> Option<Value> {
        let tail = format!("/{name}");
        let key = self.store.keys().find(|key| key.starts_with("/p/status/") && key.ends_with(&tail))?;
        serde_json::from_slice(&self.store[key].value).ok()
    }
}
