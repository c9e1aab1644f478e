//! Reads, commits and guards.

use schemadock_schema::proposal::{Guard, Proposal};
use schemadock_store::{Committed, Selector, StoreError};

use crate::world::{World, delete, guarded, leased, put, write};

pub(crate) async fn a_commit_has_one_revision_and_keys_remember_theirs(world: &mut dyn World) {
    let store = world.store();
    let begin = store.read(&[]).await.unwrap().revision;
    let first = write(&*store, vec![put("/p/a", "1"), put("/p/b", "1")]).await;
    assert_eq!(first, begin + 1);
    let second = write(&*store, vec![put("/p/a", "2")]).await;
    assert_eq!(second, first + 1);
    let third = write(&*store, vec![delete("/p/b"), put("/p/c", "3")]).await;
    assert_eq!(third, second + 1);
    let fourth = write(&*store, vec![put("/p/b", "4")]).await;

    let keys = ["/p/a", "/p/b", "/p/c", "/p/none"].map(str::to_owned);
    let snapshot = store.read_linearizable(&keys).await.unwrap();
    assert_eq!(snapshot.revision, fourth);
    let revisions = |key: &str| snapshot.get(key).map(|entry| (entry.create_revision, entry.mod_revision));
    assert_eq!(revisions("/p/a"), Some((first, second)));
    assert_eq!(revisions("/p/b"), Some((fourth, fourth)), "created anew after its deletion");
    assert_eq!(revisions("/p/c"), Some((third, third)));
    assert_eq!(revisions("/p/none"), None);
    assert_eq!(snapshot.get("/p/a").unwrap().lease, 0);
}

pub(crate) async fn what_changes_nothing_has_no_revision(world: &mut dyn World) {
    let store = world.store();
    let begin = write(&*store, vec![put("/p/a", "1")]).await;
    assert_eq!(write(&*store, vec![delete("/p/none")]).await, begin);
    assert_eq!(write(&*store, vec![put("/p/a", "1")]).await, begin + 1, "the same value is a write");
    assert_eq!(store.read(&[]).await.unwrap().revision, begin + 1);
}

pub(crate) async fn each_guard_holds_or_not(world: &mut dyn World) {
    let store = world.store();
    let created = write(&*store, vec![put("/p/a", "1")]).await;
    let changed = write(&*store, vec![put("/p/a", "2")]).await;
    write(&*store, vec![put("/q/other", "1"), put("/p0", "beyond the prefix")]).await;
    let key = |key: &str| key.to_owned();
    let prefix = |prefix: &str, revision| Guard::PrefixUnchanged { prefix: key(prefix), revision };
    let cases = [
        (true, Guard::Absent { key: key("/p/none") }),
        (false, Guard::Absent { key: key("/p/a") }),
        (true, Guard::At { key: key("/p/a"), mod_revision: changed }),
        (false, Guard::At { key: key("/p/a"), mod_revision: created }),
        (false, Guard::At { key: key("/p/none"), mod_revision: changed }),
        (true, Guard::Created { key: key("/p/a"), create_revision: created }),
        (false, Guard::Created { key: key("/p/a"), create_revision: changed }),
        (false, Guard::Created { key: key("/p/none"), create_revision: created }),
        (true, prefix("/p/", changed)),
        (false, prefix("/p/", changed - 1)),
        (true, prefix("/none/", 1)),
    ];
    for (holds, guard) in cases {
        assert_eq!(guarded(&*store, vec![guard.clone()]).await, holds, "{guard:?}");
    }
    let both = vec![Guard::Absent { key: key("/p/none") }, Guard::Absent { key: key("/p/a") }];
    assert!(!guarded(&*store, both).await, "one guard of two does not hold");

    write(&*store, vec![delete("/p/a")]).await;
    assert!(guarded(&*store, vec![prefix("/p/", changed)]).await, "deletions are not seen");
    write(&*store, vec![put("/p/b", "1")]).await;
    assert!(!guarded(&*store, vec![prefix("/p/", changed)]).await, "a new key is");
}

pub(crate) async fn guards_alone_can_be_asked(world: &mut dyn World) {
    let store = world.store();
    let revision = write(&*store, vec![put("/p/a", "1")]).await;
    let ask = |guards| Proposal { guards, ..Proposal::default() };
    let holds = ask(vec![Guard::Absent { key: "/p/none".to_owned() }]);
    assert_eq!(store.commit(&holds).await.unwrap(), Committed::Written { revision });
    let fails = ask(vec![Guard::Absent { key: "/p/a".to_owned() }]);
    assert_eq!(store.commit(&fails).await.unwrap(), Committed::Conflict);
    assert_eq!(store.commit(&Proposal::default()).await.unwrap(), Committed::Written { revision });
}

pub(crate) async fn what_etcd_refuses_is_refused(world: &mut dyn World) {
    let store = world.store();
    let begin = write(&*store, vec![put("/p/a", "1")]).await;
    let too_many = (0..121).map(|n| put(&format!("/p/{n}"), "x")).collect();
    for writes in [
        vec![put("/p/a", "2"), put("/p/a", "3")],
        vec![delete("/p/a"), put("/p/a", "3")],
        vec![put("/p/a", "3"), delete("/p/a")],
        vec![put("", "1")],
        too_many,
    ] {
        let refused = store.commit(&Proposal { writes: writes.clone(), ..Proposal::default() }).await;
        assert!(matches!(refused, Err(StoreError::Refused { .. })), "{writes:?}: {refused:?}");
    }
    let twice = write(&*store, vec![delete("/p/none"), delete("/p/none")]).await;
    assert_eq!(twice, begin, "deleting twice is no harm");
    let writes = vec![put("/p/b", "1"), leased("/p/a", "2", 4711)];
    let refused = store.commit(&Proposal { writes, ..Proposal::default() }).await;
    assert!(matches!(refused, Err(StoreError::LeaseNotFound)), "{refused:?}");
    let keys: Vec<String> = (0..121).map(|n| format!("/p/{n}")).collect();
    let refused = store.read_linearizable(&keys).await;
    assert!(matches!(refused, Err(StoreError::Refused { .. })), "{refused:?}");
    assert_eq!(store.read(&[]).await.unwrap().revision, begin, "nothing was written");
    let full = (0..120).map(|n| put(&format!("/p/{n}"), "x")).collect();
    assert_eq!(write(&*store, full).await, begin + 1);
    assert_eq!(store.read_linearizable(&keys[..120]).await.unwrap().entries.len(), 120);
}

pub(crate) async fn parts_are_read_as_they_are_named(world: &mut dyn World) {
    let store = world.store();
    let writes = ["/p", "/p/", "/p/a", "/p/a/1", "/p/ab", "/p0", "/q/1"].map(|key| put(key, key)).to_vec();
    let revision = write(&*store, writes).await;
    let found = async |parts: &[Selector]| {
        let snapshot = store.read(parts).await.unwrap();
        assert_eq!(snapshot.revision, revision);
        assert!(
            snapshot.entries.iter().all(|(key, entry)| *key == entry.key && entry.value == key.as_bytes())
        );
        snapshot.entries.into_keys().collect::<Vec<_>>()
    };
    let key = |key: &str| Selector::Key(key.to_owned());
    let prefix = |prefix: &str| Selector::Prefix(prefix.to_owned());
    assert_eq!(found(&[prefix("/p/")]).await, ["/p/", "/p/a", "/p/a/1", "/p/ab"]);
    assert_eq!(found(&[prefix("/p/a")]).await, ["/p/a", "/p/a/1", "/p/ab"]);
    assert_eq!(found(&[key("/p/a")]).await, ["/p/a"]);
    assert_eq!(found(&[key("/none"), prefix("/none/")]).await, [""; 0]);
    assert_eq!(found(&[key("/q/1"), prefix("/p/a"), key("/p/a")]).await, ["/p/a", "/p/a/1", "/p/ab", "/q/1"]);
    let many: Vec<Selector> = (0..300).map(|n| key(&format!("/none/{n}"))).chain([key("/p0")]).collect();
    assert_eq!(found(&many).await, ["/p0"]);
}
