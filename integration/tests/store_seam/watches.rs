//! Watches.

use futures::StreamExt as _;
use futures::stream::BoxStream;
use schemadock_store::{Change, Selector, StoreError};

use crate::world::{PATIENCE, World, delete, put, write};

type Batches = BoxStream<'static, Result<(i64, Vec<Change>), StoreError>>;

/// The changes up to a revision, as `+key=value@revision` and `-key@revision`.
async fn told(batches: &mut Batches, up_to: i64) -> Vec<String> {
    let mut all = Vec::new();
    let mut reached = 0;
    while reached < up_to {
        let batch = tokio::time::timeout(PATIENCE, batches.next()).await.expect("nothing is told");
        let (revision, changes) = batch.unwrap().unwrap();
        assert!(revision >= reached, "{revision} after {reached}");
        reached = revision;
        all.extend(changes.into_iter().map(|change| match change {
            Change::Put(entry) => {
                let value = String::from_utf8(entry.value).unwrap();
                format!("+{}={value}@{}", entry.key, entry.mod_revision)
            }
            Change::Delete { key, revision } => format!("-{key}@{revision}"),
        }));
    }
    assert_eq!(reached, up_to);
    all
}

fn prefix(start: &str) -> Selector {
    Selector::Prefix(start.to_owned())
}

pub(crate) async fn a_watch_tells_what_came_after(world: &mut dyn World) {
    let store = world.store();
    let first = write(&*store, vec![put("/p/a", "1")]).await;
    let second = write(&*store, vec![put("/p/a", "2"), put("/p/b", "2")]).await;
    let third = write(&*store, vec![delete("/p/a")]).await;
    let mut past = store.watch(&prefix("/p/"), first).await.unwrap();
    let expected = vec![format!("+/p/a=2@{second}"), format!("+/p/b=2@{second}"), format!("-/p/a@{third}")];
    assert_eq!(told(&mut past, third).await, expected);

    let mut present = store.watch(&prefix("/p/"), third).await.unwrap();
    let fourth = write(&*store, vec![put("/p/c", "4"), delete("/p/b"), delete("/p/none")]).await;
    let expected = vec![format!("+/p/c=4@{fourth}"), format!("-/p/b@{fourth}")];
    assert_eq!(told(&mut present, fourth).await, expected);
    assert_eq!(told(&mut past, fourth).await, expected);
}

pub(crate) async fn a_watch_tells_only_its_part(world: &mut dyn World) {
    let store = world.store();
    let begin = store.read(&[]).await.unwrap().revision;
    let mut one = store.watch(&Selector::Key("/p/a".to_owned()), begin).await.unwrap();
    let mut below = store.watch(&prefix("/p/a/"), begin).await.unwrap();
    write(&*store, vec![put("/p", "1"), put("/p/ab", "1"), put("/p/a0", "1")]).await;
    let at = write(&*store, vec![put("/p/a", "1"), put("/p/a/b", "1")]).await;
    assert_eq!(told(&mut one, at).await, [format!("+/p/a=1@{at}")]);
    assert_eq!(told(&mut below, at).await, [format!("+/p/a/b=1@{at}")]);
}

pub(crate) async fn what_is_compacted_cannot_be_watched(world: &mut dyn World) {
    let store = world.store();
    let first = write(&*store, vec![put("/p/a", "1")]).await;
    write(&*store, vec![put("/p/a", "2")]).await;
    let third = write(&*store, vec![put("/p/a", "3")]).await;
    let mut standing = store.watch(&prefix("/p/"), third).await.unwrap();
    world.compact(third).await;
    let mut past = store.watch(&prefix("/p/"), first).await.unwrap();
    let ended = tokio::time::timeout(PATIENCE, past.next()).await.expect("nothing is told");
    assert!(matches!(ended, Some(Err(StoreError::Compacted))), "{ended:?}");
    assert!(past.next().await.is_none());
    let fourth = write(&*store, vec![put("/p/a", "4")]).await;
    assert_eq!(told(&mut standing, fourth).await, [format!("+/p/a=4@{fourth}")], "it was not behind");
    assert_eq!(store.read(&[prefix("/p/")]).await.unwrap().revision, fourth);
}

pub(crate) async fn a_restart_ends_watches(world: &mut dyn World) {
    let store = world.store();
    let revision = write(&*store, vec![put("/p/a", "1")]).await;
    let mut watch = store.watch(&prefix("/p/"), revision).await.unwrap();
    world.down().await;
    let ended = tokio::time::timeout(PATIENCE, watch.next()).await.expect("nothing is told");
    assert!(matches!(ended, Some(Err(StoreError::Unreachable { .. }))), "{ended:?}");
    assert!(watch.next().await.is_none());
    let away = store.read(&[]).await;
    assert!(matches!(away, Err(StoreError::Unreachable { .. })), "{away:?}");
    world.up().await;
    assert_eq!(store.read(&[]).await.unwrap().revision, revision);
}
