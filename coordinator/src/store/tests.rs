//! One suite for all backends, and what is true of one of them only.

mod bed;
mod ledger;
mod memory;
mod moving;
mod nouns;
mod postgres;
mod retention;
mod rollouts;
mod samples;
mod sealing;
mod seeds;
mod sqlite;
mod transactions;

use bed::Bed;

/// Runs every case on a bed of its own; the name of the one that fails stands last in the output.
macro_rules! suite {
    ($bed:expr; $($module:ident: $($case:ident),* $(,)?;)*) => {
        $($(
            eprintln!(concat!("  ", stringify!($module), "::", stringify!($case)));
            $module::$case(&$bed).await;
        )*)*
    };
}

async fn all(bed: impl Fn() -> Bed) {
    suite! { bed();
        transactions:
            a_failed_closure_leaves_nothing,
            a_dropped_write_leaves_nothing,
            a_refused_row_does_not_break_the_transaction,
            writes_run_one_at_a_time_and_see_earlier_ones,
            a_snapshot_does_not_change_under_its_reader,
            closures_may_borrow,
            reopening_raises_the_epoch_and_keeps_the_incarnation;
        ledger:
            numbers_are_in_the_order_of_commits,
            readers_never_see_a_gap,
            a_failed_write_takes_no_number,
            filters_select_and_resume,
            watchers_are_woken;
        nouns:
            hosts,
            principals_and_tokens,
            one_of_two_uses_of_a_join_token_wins,
            apps,
            targets_and_locks,
            members,
            configs,
            builds,
            releases,
            environments,
            environments_never_hold_credentials,
            runs,
            artifacts,
            logs,
            idempotency_keys,
            secrets_and_facts,
            text_with_a_nul_is_stored;
        moving:
            copies_of_a_seed_are_found_by_seed_and_by_who_has_work,
            chunks_are_found_until_their_segment_goes,
            a_segment_is_unused_once_no_seed_needs_it;
        seeds:
            a_seed_comes_back_whole_and_changes_by_its_version,
            a_name_is_free_again_once_its_seed_has_ended,
            only_what_a_host_has_to_do_is_pending,
            environments_of_a_seed_are_found_until_they_are_gone,
            what_needs_an_artifact_is_told;
        rollouts:
            everything_of_a_rollout_comes_back,
            what_a_host_can_be_ordered_is_due,
            of_two_started_at_once_one_is_active,
            a_second_active_one_is_refused,
            a_stale_turn_is_refused,
            the_queue_is_in_order,
            turning_ones_are_listed_until_they_are_done;
        retention:
            what_is_old_goes_and_what_is_not_stays,
            the_newest_rollouts_keep_their_evidence,
            a_batch_is_not_exceeded;
    }
}

#[tokio::test]
async fn the_suite_passes_in_memory() {
    all(Bed::memory).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_suite_passes_on_sqlite() {
    all(Bed::sqlite).await;
}

#[test]
fn the_suite_passes_on_postgresql() {
    postgres::with_server(|server| async move {
        all(|| Bed::postgres(&server)).await;
    });
}
