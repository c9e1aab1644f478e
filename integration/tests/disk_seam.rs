//! One suite for both sides of the disk's seam: the real one, and the simulated one that is held against it.

mod disk_seam {
    pub(crate) mod cases;
    pub(crate) mod world;
}

use disk_seam::{cases, world};

/// Runs each case on both.
macro_rules! on_both {
    ($($case:ident),* $(,)?) => {
        mod real {
            $(#[tokio::test]
            async fn $case() {
                crate::cases::$case(&mut crate::world::Real::start()).await;
            })*
        }

        mod simulated {
            $(#[tokio::test(start_paused = true)]
            async fn $case() {
                crate::cases::$case(&mut crate::world::Simulated::start()).await;
            })*
        }
    };
}

on_both!(
    what_was_never_written_is_not_there,
    records_and_files_outlive_the_agent,
    an_agent_keeps_its_identity_and_its_memory,
    a_template_is_ready_or_not_there,
    a_copy_is_new_data_and_is_made_once,
    data_are_told_apart,
    data_are_set_aside_whole_and_taken_up_again,
    what_is_set_aside_twice_has_two_names,
    new_data_are_no_reason_to_lose_the_old,
    only_what_holds_no_data_is_forgotten,
    only_what_was_set_aside_is_purged,
);
