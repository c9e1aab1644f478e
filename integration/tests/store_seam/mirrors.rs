//! The mirror, on both stores.

use std::collections::BTreeSet;
use std::sync::Arc;

use schemadock_schema::keys::Keys;
use schemadock_schema::status::StoreState;
use schemadock_store::mirror::{Gate, Mirror, View};
use schemadock_store::{Selector, Store};

use crate::world::{PATIENCE, World, delete, put, write};

const FLEET: &str = "/p/fleet";
const OURS: &str = r#"{"id": "ours"}"#;

async fn until(mirror: &mut Mirror, what: &str, holds: impl Fn(&View) -> bool) -> Arc<View> {
    let held = async {
        loop {
            let view = mirror.view();
            if holds(&view) {
                return view;
            }
            mirror.changed().await;
        }
    };
    match tokio::time::timeout(PATIENCE, held).await {
        Ok(view) => view,
        Err(_) => panic!("not seen: {what}; the view is {:?}", mirror.view()),
    }
}

fn value(view: &View, key: &str) -> Option<String> {
    view.get(key).present().map(|entry| String::from_utf8(entry.value.clone()).unwrap())
}

fn state(view: &View) -> Option<StoreState> {
    view.store.as_ref().map(|report| report.state)
}

fn prefixes(starts: &[&str]) -> BTreeSet<Selector> {
    starts.iter().map(|start| Selector::Prefix((*start).to_owned())).collect()
}

fn start(store: &Arc<dyn Store>, gate: Gate) -> Mirror {
    Mirror::start(store.clone(), Keys::new("/p"), gate, 7)
}

/// A mirror of `/p/targets/`, which holds `a` with the value 1.
async fn following(world: &dyn World) -> Mirror {
    let store = world.store();
    write(&*store, vec![put(FLEET, OURS), put("/p/targets/a", "1")]).await;
    let mut mirror = start(&store, Gate::default());
    mirror.want(prefixes(&["/p/targets/"]));
    until(&mut mirror, "the target", |view| value(view, "/p/targets/a").is_some()).await;
    mirror
}

pub(crate) async fn a_mirror_follows_what_is_wanted(world: &mut dyn World) {
    let store = world.store();
    let mut mirror = start(&store, Gate::default());
    assert!(mirror.view().get(FLEET).is_unknown());
    mirror.want(prefixes(&["/p/targets/"]));
    let view = until(&mut mirror, "blank", |view| state(view) == Some(StoreState::Blank)).await;
    assert!(view.get("/p/targets/a").is_unknown(), "a blank store is not believed");
    assert_eq!(view.fleet, None);

    let created =
        write(&*store, vec![put(FLEET, OURS), put("/p/targets/a", "1"), put("/p/status/a", "1")]).await;
    let view = until(&mut mirror, "the target", |view| value(view, "/p/targets/a").is_some()).await;
    assert_eq!(state(&view), Some(StoreState::Ok));
    assert_eq!(view.fleet.as_deref(), Some("ours"));
    assert_eq!(view.fleet_created, Some(created));
    assert_eq!(view.reached("/p/targets/"), Some(created));
    assert!(view.get("/p/targets/b").is_absent());
    assert!(view.get("/p/status/a").is_unknown());
    assert_eq!(view.reached("/p/status/"), None);

    let changed = write(&*store, vec![put("/p/targets/a", "2"), put("/p/targets/b", "1")]).await;
    let view = until(&mut mirror, "the change", |view| value(view, "/p/targets/b").is_some()).await;
    assert_eq!(value(&view, "/p/targets/a").as_deref(), Some("2"));
    assert_eq!((view.reached("/p/targets/"), view.revision), (Some(changed), changed));
    assert_eq!(view.below("/p/targets/").count(), 2);
    write(&*store, vec![delete("/p/targets/a")]).await;
    until(&mut mirror, "the deletion", |view| view.get("/p/targets/a").is_absent()).await;

    mirror.want(prefixes(&["/p/targets/", "/p/status/"]));
    until(&mut mirror, "the status", |view| value(view, "/p/status/a").is_some()).await;
    mirror.want(prefixes(&["/p/status/"]));
    let view = until(&mut mirror, "unwanted", |view| view.get("/p/targets/b").is_unknown()).await;
    assert_eq!(view.below("/p/targets/").count(), 0);
    write(&*store, vec![put("/p/targets/b", "2"), put("/p/status/a", "2")]).await;
    let view = until(&mut mirror, "wanted", |view| value(view, "/p/status/a").as_deref() == Some("2")).await;
    assert!(view.get("/p/targets/b").is_unknown());
}

pub(crate) async fn a_burst_is_seen_whole(world: &mut dyn World) {
    let mut mirror = following(world).await;
    let store = world.store();
    for round in 0..30 {
        let writes = (0..100).map(|n| put(&format!("/p/targets/{n}"), &round.to_string())).collect();
        write(&*store, writes).await;
    }
    let view =
        until(&mut mirror, "the last round", |view| value(view, "/p/targets/99").as_deref() == Some("29"))
            .await;
    assert!((0..100).all(|n| value(&view, &format!("/p/targets/{n}")).as_deref() == Some("29")));
}

pub(crate) async fn parts_may_overlap(world: &mut dyn World) {
    let mut mirror = following(world).await;
    let store = world.store();
    let mut parts = prefixes(&["/p/targets/", "/p/"]);
    parts.insert(Selector::Key("/p/targets/a".to_owned()));
    mirror.want(parts);
    until(&mut mirror, "all parts", |view| view.listed.len() == 4).await;
    for round in 2..20 {
        write(&*store, vec![put("/p/targets/a", &round.to_string())]).await;
        write(&*store, vec![delete("/p/targets/a")]).await;
    }
    write(&*store, vec![put("/p/end", "1")]).await;
    let view = until(&mut mirror, "the end", |view| value(view, "/p/end").is_some()).await;
    assert!(view.get("/p/targets/a").is_absent());
    mirror.want(prefixes(&["/p/targets/"]));
    let view = until(&mut mirror, "fewer parts", |view| view.listed.len() == 2).await;
    assert_eq!(view.entries.keys().collect::<Vec<_>>(), [FLEET]);
}

pub(crate) async fn changes_made_while_away_are_seen(world: &mut dyn World) {
    let mut mirror = following(world).await;
    let store = world.store();
    write(&*store, vec![put("/p/targets/b", "1")]).await;
    until(&mut mirror, "both", |view| value(view, "/p/targets/b").is_some()).await;
    world.down().await;
    world.up().await;
    write(&*store, vec![put("/p/targets/a", "2"), delete("/p/targets/b")]).await;
    let view =
        until(&mut mirror, "the change", |view| value(view, "/p/targets/a").as_deref() == Some("2")).await;
    assert!(view.get("/p/targets/b").is_absent());
    assert_eq!(state(&view), Some(StoreState::Ok));
    write(&*store, vec![put("/p/targets/c", "1")]).await;
    until(&mut mirror, "a further one", |view| value(view, "/p/targets/c").is_some()).await;
}

pub(crate) async fn compaction_while_away_does_no_harm(world: &mut dyn World) {
    let mut mirror = following(world).await;
    let store = world.store();
    world.down().await;
    world.up().await;
    write(&*store, vec![put("/p/targets/a", "2")]).await;
    let revision = write(&*store, vec![put("/p/targets/b", "1")]).await;
    world.compact(revision).await;
    let view = until(&mut mirror, "both", |view| value(view, "/p/targets/b").is_some()).await;
    assert_eq!(value(&view, "/p/targets/a").as_deref(), Some("2"));
}

pub(crate) async fn a_blank_store_takes_nothing_away(world: &mut dyn World) {
    let mut mirror = following(world).await;
    world.down().await;
    world.wipe().await;
    world.up().await;
    let view = until(&mut mirror, "blank", |view| state(view) == Some(StoreState::Blank)).await;
    let report = view.store.clone().unwrap();
    assert_eq!((report.expected.as_deref(), report.found), (Some("ours"), None));
    assert_eq!(value(&view, "/p/targets/a").as_deref(), Some("1"));
    assert_eq!(view.fleet.as_deref(), Some("ours"));
}

pub(crate) async fn a_foreign_store_takes_nothing_away(world: &mut dyn World) {
    let mut mirror = following(world).await;
    let store = world.store();
    world.down().await;
    world.wipe().await;
    world.up().await;
    write(&*store, vec![put(FLEET, r#"{"id": "theirs"}"#), put("/p/targets/x", "1")]).await;
    for _ in 0..10 {
        write(&*store, vec![put("/p/targets/x", "1")]).await;
    }
    let view = until(&mut mirror, "foreign", |view| state(view) == Some(StoreState::Foreign)).await;
    assert_eq!(view.store.clone().unwrap().found.as_deref(), Some("theirs"));
    assert_eq!(value(&view, "/p/targets/a").as_deref(), Some("1"));
    assert!(view.get("/p/targets/x").is_absent());
    assert_eq!(view.fleet.as_deref(), Some("ours"));
}

pub(crate) async fn an_older_store_takes_nothing_away(world: &mut dyn World) {
    let mut mirror = following(world).await;
    let store = world.store();
    world.down().await;
    world.back_up().await;
    world.up().await;
    write(&*store, vec![put("/p/targets/b", "1")]).await;
    until(&mut mirror, "both", |view| value(view, "/p/targets/b").is_some()).await;
    world.down().await;
    world.restore().await;
    world.up().await;
    let view = until(&mut mirror, "older", |view| state(view) == Some(StoreState::Older)).await;
    assert_eq!(view.store.clone().unwrap().found.as_deref(), Some("ours"));
    assert!(value(&view, "/p/targets/b").is_some());

    // A mirror that starts with what was remembered judges alike.
    let remembered = Gate { expected: view.fleet.clone(), revision: view.revision, ..Gate::default() };
    let mut later = start(&store, remembered.clone());
    until(&mut later, "older", |view| state(view) == Some(StoreState::Older)).await;
    // Its growth past the revision remembered makes it no better.
    while write(&*store, vec![put("/p/targets/c", "1")]).await <= view.revision {}
    let mut later = start(&store, Gate { went_back: true, ..remembered });
    until(&mut later, "older still", |view| state(view) == Some(StoreState::Older)).await;
    later.set_gate(Gate::default());
    until(&mut later, "whatever is there", |view| state(view) == Some(StoreState::Ok)).await;
}

pub(crate) async fn a_person_can_accept_a_store(world: &mut dyn World) {
    let mut mirror = following(world).await;
    let store = world.store();
    for _ in 0..10 {
        write(&*store, vec![put("/p/targets/a", "1")]).await;
    }
    let seen = write(&*store, vec![put("/p/targets/a", "last")]).await;
    until(&mut mirror, "the last", |view| value(view, "/p/targets/a").as_deref() == Some("last")).await;
    world.down().await;
    world.wipe().await;
    world.up().await;
    write(&*store, vec![put(FLEET, r#"{"id": "new"}"#), put("/p/targets/n", "1")]).await;
    until(&mut mirror, "foreign", |view| state(view) == Some(StoreState::Foreign)).await;
    let accept = |revision| {
        format!(
            r#"{{"id": "new", "accepted": [{{"id": "ours", "revision": {revision}, "by": "me", "at": "2026-01-01T00:00:00Z"}}]}}"#
        )
    };
    write(&*store, vec![put(FLEET, &accept(seen))]).await;
    let view = until(&mut mirror, "accepted", |view| state(view) == Some(StoreState::Ok)).await;
    assert_eq!(view.fleet.as_deref(), Some("new"));
    assert!(view.get("/p/targets/a").is_absent());
    assert_eq!(value(&view, "/p/targets/n").as_deref(), Some("1"));
    assert!(view.revision < seen, "it counts on from the new store's revision");
    write(&*store, vec![put("/p/targets/n", "2")]).await;
    until(&mut mirror, "the change", |view| value(view, "/p/targets/n").as_deref() == Some("2")).await;
}

pub(crate) async fn a_store_wiped_in_place_takes_nothing_away(world: &mut dyn World) {
    let mut mirror = following(world).await;
    let store = world.store();
    write(&*store, vec![delete("/p/targets/a"), delete(FLEET)]).await;
    let view = until(&mut mirror, "blank", |view| state(view) == Some(StoreState::Blank)).await;
    assert_eq!(value(&view, "/p/targets/a").as_deref(), Some("1"));
    assert_eq!(value(&view, FLEET).as_deref(), Some(OURS));
}

pub(crate) async fn a_mirror_ends_with_its_last_clone(world: &mut dyn World) {
    let mirror = following(world).await;
    let store = Arc::downgrade(mirror.store());
    let mut clone = mirror.clone();
    drop(mirror);
    write(&*world.store(), vec![put("/p/targets/a", "2")]).await;
    until(&mut clone, "the change", |view| value(view, "/p/targets/a").as_deref() == Some("2")).await;
    drop(clone);
    let gone = async {
        while store.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("the task lives on");
}

pub(crate) async fn many_parts_are_followed(world: &mut dyn World) {
    let mut mirror = following(world).await;
    let store = world.store();
    let key = |n: i32| format!("/p/targets/{n}");
    mirror.want((0..200).map(|n| Selector::Key(key(n))).collect());
    until(&mut mirror, "all parts", |view| view.listed.len() == 201).await;
    for n in 0..200 {
        write(&*store, vec![put(&key(n), "1")]).await;
    }
    until(&mut mirror, "all keys", |view| (0..200).all(|n| value(view, &key(n)).is_some())).await;
}
