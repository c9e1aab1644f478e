//! One suite for both sides of the store's seam: the real etcd, and the simulated one that is held against it.

// Both suites use the fixture, neither all of it.
#[allow(dead_code)]
#[path = "../../schema/store/tests/fixture/mod.rs"]
mod fixture;
mod store_seam {
    pub(crate) mod basics;
    pub(crate) mod leases;
    pub(crate) mod mirrors;
    pub(crate) mod watches;
    pub(crate) mod world;
}

use store_seam::{basics, leases, mirrors, watches, world};

/// Runs each case on both.
macro_rules! on_both {
    ($($suite:ident::$case:ident),* $(,)?) => {
        mod real {
            $(#[tokio::test]
            async fn $case() {
                crate::$suite::$case(&mut crate::world::Real::start().await).await;
            })*
        }

        mod simulated {
            $(#[tokio::test(start_paused = true)]
            async fn $case() {
                crate::$suite::$case(&mut crate::world::Simulated::start()).await;
            })*
        }
    };
}

on_both!(
    basics::a_commit_has_one_revision_and_keys_remember_theirs,
    basics::what_changes_nothing_has_no_revision,
    basics::each_guard_holds_or_not,
    basics::guards_alone_can_be_asked,
    basics::what_etcd_refuses_is_refused,
    basics::parts_are_read_as_they_are_named,
    watches::a_watch_tells_what_came_after,
    watches::a_watch_tells_only_its_part,
    watches::what_is_compacted_cannot_be_watched,
    watches::a_restart_ends_watches,
    leases::keys_end_with_their_lease,
    leases::a_lease_lives_as_long_as_it_is_kept,
    leases::a_key_can_leave_its_lease,
    leases::unknown_leases_are_told,
    leases::a_kept_lease_is_replaced,
    leases::a_kept_lease_outlives_a_restart,
    leases::events_share_a_lease,
    mirrors::a_mirror_follows_what_is_wanted,
    mirrors::a_burst_is_seen_whole,
    mirrors::parts_may_overlap,
    mirrors::changes_made_while_away_are_seen,
    mirrors::compaction_while_away_does_no_harm,
    mirrors::a_blank_store_takes_nothing_away,
    mirrors::a_foreign_store_takes_nothing_away,
    mirrors::an_older_store_takes_nothing_away,
    mirrors::a_person_can_accept_a_store,
    mirrors::a_store_wiped_in_place_takes_nothing_away,
    mirrors::many_parts_are_followed,
    mirrors::a_mirror_ends_with_its_last_clone,
);
