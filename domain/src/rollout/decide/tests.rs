mod fleet;

use std::collections::BTreeMap;
use std::time::Duration;

use uuid::Uuid;

use super::*;
use crate::ids::{HostId, RolloutId};
use crate::policy::{Amount, Policy};
use crate::rollout::ask;
use crate::step::evidence::Cause;
use crate::step::journal::{Settled, StepPhase};
use crate::step::report::{Durations, HealthNow, StageOutcome, StageReport, StepReport};

use RolloutState as R;
use StepState as S;
use fleet::{Fleet, NEW, OLD, quick, release};

#[test]
fn members_change_one_after_the_other_wave_by_wave_until_all_are_healthy() {
    let mut fleet = Fleet::new(&[0, 1, 2, 2], quick());
    fleet.steps(40);
    assert_eq!((fleet.progress.state, fleet.states()), (R::Succeeded, vec![S::Healthy; 4]));
    let order: Vec<usize> = fleet.orders.iter().map(|(index, _)| *index).collect();
    assert_eq!(order, [0, 0, 1, 1, 2, 2, 3, 3], "go and confirm, nobody twice at once");
    let passed = |wave| fleet.notes.contains(&Note::WavePassed { wave });
    assert!(passed(0) && passed(1) && passed(2));
    assert_eq!(fleet.waiting, "succeeded");
}

#[test]
fn nobody_is_touched_before_everybody_has_staged() {
    let mut fleet = Fleet::new(&[0, 1], quick());
    fleet.slow = vec![1];
    fleet.steps(5);
    assert_eq!((fleet.states(), fleet.progress.state), (vec![S::Staged, S::Pending], R::Preflight));
    assert_eq!(fleet.waiting, "waiting for: web-2 to stage the release (1 of 2 ready; nothing is touched before)");
    fleet.pass(601);
    fleet.step();
    assert_eq!((fleet.progress.state, fleet.touched()), (R::Cancelled, vec![]));
}

#[test]
fn a_host_that_cannot_stage_ends_it_with_its_reason_and_nothing_touched() {
    let mut fleet = Fleet::new(&[0, 1], quick());
    fleet.slow = vec![1];
    fleet.step();
    let generation = fleet.progress.steps[1].generation;
    let refusal = crate::step::report::StageRefusal {
        check: crate::step::report::StageCheck::Disk,
        text: "12 MB free, 400 MB needed".to_owned(),
    };
    fleet.report(1).stage = Some(StageReport {
        generation,
        release: release(NEW),
        outcome: Some(StageOutcome::Refused(refusal)),
        took: None,
    });
    fleet.step();
    assert_eq!(fleet.progress.state, R::Cancelled);
    assert_eq!(fleet.waiting, "cancelled: E_PREFLIGHT_DISK: web-2: 12 MB free, 400 MB needed; nothing was touched");
}

#[test]
fn a_failed_canary_goes_back_alone_and_the_target_is_locked() {
    let mut fleet = Fleet::new(&[0, 1, 1], quick());
    fleet.failing = vec![0];
    fleet.steps(10);
    assert_eq!((fleet.progress.state, fleet.states()), (R::Reverted, vec![S::Reverted, S::Staged, S::Staged]));
    assert_eq!(fleet.runs(0), Some(release(OLD)));
    let generations: Vec<u64> = fleet.orders.iter().map(|(_, order)| order.generation.0).collect();
    assert_eq!(generations, [5, 6], "the way back has a higher generation");
    assert_eq!(fleet.lock.as_ref().map(|lock| lock.until), Some(fleet.now.plus(LOCK_AFTER_REVERT)));
    let failure = fleet.progress.steps[0].failure.as_ref().expect("evidence");
    assert_eq!((failure.cause, failure.text.as_str()), (Cause::HealthFailing, "HTTP 500"));
    assert_eq!(fleet.waiting, "reverted: E_HEALTH_FAILING: HTTP 500 on web-1; 1 of 3 members failed and max_fail is 0");
}

#[test]
fn within_max_fail_the_failed_member_alone_goes_back_and_the_rest_goes_on() {
    let mut fleet = Fleet::new(&[0, 1, 1], Policy { max_fail: Amount::Count(1), ..quick() });
    fleet.failing = vec![1];
    fleet.steps(20);
    assert_eq!((fleet.progress.state, fleet.states()), (R::Succeeded, vec![S::Healthy, S::Reverted, S::Healthy]));
    assert_eq!(fleet.runs(1), Some(release(OLD)));
}

#[test]
fn without_auto_revert_a_failure_pauses_and_resume_tries_again() {
    let mut fleet = Fleet::new(&[0, 1], Policy { auto_revert: false, ..quick() });
    fleet.failing = vec![0];
    fleet.steps(6);
    assert_eq!((fleet.progress.state, fleet.states()), (R::Paused, vec![S::Failed, S::Staged]));
    assert!(fleet.progress.holders.contains(&Holder::Failed), "{:?}", fleet.progress);
    fleet.failing.clear();
    ask::resume(&fleet.plan, &mut fleet.progress, "asha", fleet.now).expect("it is paused");
    fleet.steps(10);
    assert_eq!((fleet.progress.state, fleet.states()), (R::Succeeded, vec![S::Healthy; 2]));
}

#[test]
fn previous_is_what_ran_when_the_member_was_touched_whatever_it_says_later() {
    let mut fleet = Fleet::new(&[0, 1], quick());
    fleet.slow = vec![1];
    fleet.obey_stage(1);
    fleet.steps(8);
    assert_eq!(fleet.states(), [S::Healthy, S::Starting]);
    ask::cancel(&fleet.plan, &mut fleet.progress, "asha", fleet.now).expect("it runs");
    fleet.slow.clear();
    fleet.steps(4);
    assert_eq!((fleet.progress.state, fleet.states()), (R::Cancelled, vec![S::Reverted; 2]));
    assert_eq!((fleet.runs(0), fleet.runs(1)), (Some(release(OLD)), Some(release(OLD))));
}

#[test]
fn a_host_that_is_unknown_counts_as_unavailable_and_is_no_verdict() {
    let policy = Policy { max_parallel: Amount::Count(2), max_fail: Amount::Count(1), ..quick() };
    let mut fleet = Fleet::new(&[0, 1, 1, 1], policy);
    fleet.until(1, S::Confirming);
    assert_eq!(fleet.states(), [S::Healthy, S::Confirming, S::Confirming, S::Staged]);
    fleet.slow = vec![3];
    fleet.away(0);
    fleet.steps(1);
    assert_eq!(fleet.states()[3], S::Starting, "one unknown, one in flight");
    fleet.away(1);
    fleet.pass(30);
    fleet.steps(3);
    assert_eq!(fleet.progress.steps[1].state, S::Healthy, "silence changes nothing");
    assert!(fleet.waiting.starts_with("waiting for: web-4 (starting"), "{}", fleet.waiting);
    fleet.pass(600);
    fleet.step();
    assert_eq!(fleet.progress.state, R::Reverting);
    assert!(fleet.waiting.ends_with("web-1 web-2 not heard from"), "{}", fleet.waiting);
}

#[test]
fn a_step_the_host_undid_is_tried_once_more_and_fails_the_second_time() {
    let mut fleet = Fleet::new(&[0], quick());
    fleet.deaf = true;
    for generation in [5, 6] {
        fleet.until(0, S::Confirming);
        assert_eq!(fleet.progress.steps[0].generation, Generation(generation));
        fleet.settle(0, Settled::Undone);
        fleet.turn();
    }
    assert_eq!(fleet.progress.steps[0].failure.as_ref().map(|failure| failure.cause), Some(Cause::ConfirmTimeout));
    fleet.steps(3);
    assert_eq!(fleet.progress.state, R::Reverted);
}

#[test]
fn a_verdict_withdrawn_by_a_reboot_is_not_confirmed() {
    let mut fleet = Fleet::new(&[0], quick());
    fleet.steps(2);
    fleet.slow = vec![0];
    fleet.step();
    assert_eq!(fleet.states(), [S::Confirming]);
    let step = fleet.report(0).step.as_mut().expect("a step");
    (step.verdict, step.phase) = (None, StepPhase::Checking);
    let orders = fleet.turn();
    assert_eq!(fleet.states(), [S::Switched]);
    assert!(matches!(orders[0].kind, OrderKind::Go(_)), "{orders:?}");
}

#[test]
fn a_pause_lets_what_is_in_flight_finish_and_starts_nothing_and_its_deadline_stands_still() {
    let mut fleet = Fleet::new(&[0, 1], quick());
    fleet.slow = vec![0];
    fleet.obey_stage(0);
    fleet.steps(2);
    assert_eq!(fleet.states(), [S::Starting, S::Staged]);
    ask::pause(&mut fleet.progress, "asha", fleet.now).expect("it runs");
    fleet.slow.clear();
    fleet.steps(5);
    fleet.pass(100_000);
    fleet.steps(5);
    assert_eq!((fleet.progress.state, fleet.states()), (R::Paused, vec![S::Healthy, S::Staged]));
    assert_eq!(
        fleet.waiting,
        "waiting for: somebody: paused by asha; `muster rollout resume` goes on, `muster rollout cancel` goes back"
    );
    ask::resume(&fleet.plan, &mut fleet.progress, "asha", fleet.now).expect("it is paused");
    fleet.steps(10);
    assert_eq!(fleet.progress.state, R::Succeeded);
}

#[test]
fn an_untouched_member_that_is_away_pauses_it_until_it_is_back() {
    let mut fleet = Fleet::new(&[0, 1], quick());
    fleet.steps(2);
    fleet.away(1);
    fleet.steps(5);
    assert_eq!((fleet.progress.state, fleet.states()), (R::Paused, vec![S::Healthy, S::Staged]));
    let why = "1 of 2 members unreachable (web-2), max_unreachable is 0";
    assert_eq!(fleet.waiting, format!("waiting for: somebody: {why}; goes on by itself when they are back"));
    let refused = ask::resume(&fleet.plan, &mut fleet.progress, "asha", fleet.now);
    assert_eq!(refused, Err(ask::AskError::WaitsForHosts));
    fleet.back(1);
    fleet.steps(10);
    assert_eq!(fleet.progress.state, R::Succeeded);
}

#[test]
fn a_parked_member_gets_what_its_rollout_ended_on_when_it_is_back() {
    let mut fleet = Fleet::new(&[0, 1], Policy { max_unreachable: Amount::Count(1), ..quick() });
    fleet.away(1);
    fleet.steps(10);
    assert_eq!((fleet.progress.state, fleet.states()), (R::Succeeded, vec![S::Healthy, S::Parked]));
    assert!(fleet.progress.needs_turns());
    fleet.back(1);
    fleet.steps(3);
    assert_eq!((fleet.progress.state, fleet.states()), (R::Succeeded, vec![S::Healthy; 2]));
    assert_eq!(fleet.runs(1), Some(release(NEW)));
    assert!(!fleet.progress.needs_turns());
}

#[test]
fn a_parked_member_belongs_to_the_newer_rollout_once_that_has_begun() {
    let mut fleet = Fleet::new(&[0, 1], Policy { max_unreachable: Amount::Count(1), ..quick() });
    fleet.away(1);
    fleet.steps(10);
    fleet.reports.target.newer_started = true;
    fleet.back(1);
    assert_eq!(fleet.turn(), []);
    assert_eq!(fleet.states(), [S::Healthy, S::Parked]);
}

#[test]
fn a_member_that_goes_away_while_it_converges_does_not_keep_the_others_parked() {
    let mut fleet = Fleet::new(&[0, 1, 1], Policy { max_unreachable: Amount::Count(2), ..quick() });
    fleet.away(1);
    fleet.away(2);
    fleet.steps(10);
    fleet.slow = vec![1];
    fleet.back(1);
    fleet.step();
    fleet.away(1);
    fleet.back(2);
    fleet.steps(3);
    assert_eq!(fleet.states(), [S::Healthy, S::Starting, S::Healthy]);
}

#[test]
fn touched_members_that_stay_away_end_it_as_incomplete_and_go_back_later() {
    let mut fleet = Fleet::new(&[0, 1], quick());
    fleet.until(1, S::Confirming);
    assert_eq!(fleet.states(), [S::Healthy, S::Confirming]);
    fleet.away(0);
    ask::cancel(&fleet.plan, &mut fleet.progress, "asha", fleet.now).expect("it runs");
    fleet.steps(4);
    assert_eq!((fleet.progress.state, fleet.states()), (R::RevertIncomplete, vec![S::Parked, S::Reverted]));
    fleet.back(0);
    fleet.steps(3);
    assert_eq!((fleet.progress.state, fleet.states()), (R::RevertIncomplete, vec![S::Reverted; 2]));
    assert_eq!(fleet.runs(0), Some(release(OLD)));
}

#[test]
fn with_nothing_to_go_back_to_it_pauses_and_only_a_second_cancel_removes() {
    let mut fleet = Fleet::new(&[0, 1], quick());
    for index in 0..2 {
        fleet.report(index).current = None;
        fleet.report(index).health = HealthNow::Unknown;
    }
    fleet.failing = vec![0];
    fleet.steps(5);
    assert_eq!((fleet.progress.state, fleet.states()), (R::Paused, vec![S::Failed, S::Staged]));
    assert!(fleet.progress.holders.contains(&Holder::NoPrevious));
    let removed = |fleet: &Fleet| fleet.orders.iter().any(|(_, order)| order.kind == OrderKind::Remove);
    assert!(!removed(&fleet));
    ask::cancel(&fleet.plan, &mut fleet.progress, "asha", fleet.now).expect("it is paused");
    fleet.steps(3);
    assert!(removed(&fleet));
    assert_eq!(fleet.progress.state, R::Cancelled);
}

#[test]
fn a_healthy_member_that_turns_bad_in_the_bake_takes_the_wave_back() {
    let mut fleet = Fleet::new(&[0, 1], Policy { bake_time: Duration::from_secs(60), ..quick() });
    fleet.steps(4);
    assert_eq!(fleet.progress.state, R::Baking);
    assert_eq!(fleet.waiting, "waiting for: another 1 m 0 s of bake after wave 1; then wave 2: web-2");
    fleet.pass(30);
    fleet.report(0).health = HealthNow::Failing(Box::new(Failure::bare(Cause::HealthFailing, "HTTP 503")));
    fleet.steps(3);
    assert_eq!((fleet.progress.state, fleet.states()), (R::Reverted, vec![S::Reverted, S::Staged]));
    assert_eq!(fleet.progress.steps[0].failure.as_ref().map(|failure| failure.cause), Some(Cause::FailedLater));
}

#[test]
fn a_gate_does_not_pass_on_the_word_of_a_host_that_is_not_heard() {
    let mut fleet = Fleet::new(&[0, 1], Policy { bake_time: Duration::from_secs(60), ..quick() });
    fleet.steps(4);
    fleet.away(0);
    fleet.pass(61);
    fleet.steps(3);
    assert_eq!((fleet.progress.state, fleet.touched()), (R::Baking, vec![0]));
    assert!(fleet.waiting.starts_with("waiting for: web-1, changed and not heard from"), "{}", fleet.waiting);
    fleet.back(0);
    fleet.steps(6);
    assert_eq!(fleet.progress.state, R::Succeeded);
}

#[test]
fn resuming_after_a_deadline_in_a_bake_does_not_skip_its_gate() {
    let policy = Policy { bake_time: Duration::from_secs(60), auto_revert: false, ..quick() };
    let mut fleet = Fleet::new(&[0, 1], policy);
    fleet.steps(4);
    fleet.away(0);
    fleet.pass(61 + 600);
    fleet.steps(2);
    assert_eq!((fleet.progress.state, fleet.progress.wave), (R::Paused, 0));
    ask::resume(&fleet.plan, &mut fleet.progress, "asha", fleet.now).expect("it is paused");
    fleet.steps(3);
    assert_eq!(fleet.touched(), [0], "wave 1 has not passed");
}

#[test]
fn a_canary_that_is_not_promoted_by_itself_waits_for_somebody() {
    let mut fleet = Fleet::new(&[0, 1], Policy { auto_promote: false, ..quick() });
    fleet.steps(8);
    assert_eq!((fleet.progress.state, fleet.touched()), (R::Paused, vec![0]));
    ask::resume(&fleet.plan, &mut fleet.progress, "asha", fleet.now).expect("it is paused");
    fleet.steps(8);
    assert_eq!(fleet.progress.state, R::Succeeded);
}

#[test]
fn minimum_healthy_hosts_is_kept_on_the_way_back_too() {
    let policy = Policy { max_parallel: Amount::Count(4), minimum_healthy_hosts: Some(Amount::Count(2)), ..quick() };
    let mut fleet = Fleet::new(&[0, 0, 0, 0], policy);
    fleet.steps(20);
    assert_eq!(fleet.progress.state, R::Succeeded);
    let parallel = fleet.orders.iter().take(2).map(|(index, _)| *index).collect::<Vec<_>>();
    assert_eq!(parallel, [0, 0], "one at a time: three of four must stay");
}

#[test]
fn a_rollout_waits_its_turn_and_ends_when_the_target_is_locked_meanwhile() {
    let mut fleet = Fleet::new(&[0], quick());
    let before = RolloutId::new(Uuid::from_u128(6));
    fleet.reports.target.before = Some(before);
    fleet.steps(2);
    assert_eq!(fleet.progress.state, R::Queued);
    assert_eq!(fleet.waiting, format!("waiting for: rollout {before}, which has the target"));
    fleet.reports.target.locked = Some(Lock {
        holder: "asha".to_owned(),
        reason: "release party".to_owned(),
        until: fleet.now.plus(Duration::from_secs(9)),
    });
    fleet.step();
    assert_eq!(
        fleet.waiting,
        "cancelled: E_TARGET_LOCKED: the target was locked by asha while this waited: release party"
    );
}

#[test]
fn a_newer_rollout_waits_for_what_is_in_flight_and_for_nothing_else() {
    let mut fleet = Fleet::new(&[0, 1], quick());
    fleet.slow = vec![0];
    fleet.obey_stage(0);
    fleet.steps(2);
    ask::supersede(&fleet.plan, &mut fleet.progress, "rollout 8", fleet.now).expect("it runs");
    fleet.steps(2);
    assert_eq!(fleet.waiting, "waiting for: web-1 to settle; then the newer rollout goes on");
    fleet.slow.clear();
    fleet.steps(3);
    assert_eq!((fleet.progress.state, fleet.states()), (R::Superseded, vec![S::Healthy, S::Staged]));
}

#[test]
fn orders_are_the_same_every_turn_until_the_host_has_them() {
    let mut fleet = Fleet::new(&[0, 1], quick());
    fleet.slow = vec![0, 1];
    let first = fleet.turn();
    assert_eq!(first.len(), 2);
    fleet.pass(10);
    assert_eq!(fleet.turn(), first);
}

#[test]
fn no_order_goes_to_a_host_whose_last_word_is_not_in() {
    let mut fleet = Fleet::new(&[0, 1], quick());
    let mut syncing: BTreeMap<HostId, HostView> = fleet.reports.hosts.clone();
    syncing.values_mut().for_each(|view| view.presence = Presence::Syncing);
    std::mem::swap(&mut fleet.reports.hosts, &mut syncing);
    assert_eq!(fleet.turn(), []);
    assert_eq!(fleet.waiting, "waiting for: web-1 web-2 to connect and send what it has");
}

#[test]
fn what_it_waits_for_reads_as_people_were_promised() {
    let mut fleet = Fleet::new(&[0, 1, 2, 2], Policy { min_healthy_time: Duration::from_secs(10), ..quick() });
    fleet.slow = vec![1];
    fleet.obey_stage(1);
    fleet.until(1, S::Starting);
    let orders = fleet.turn();
    fleet.report(1).step = Some(StepReport {
        generation: orders[0].generation,
        to: release(NEW),
        phase: StepPhase::Checking,
        warm: true,
        verdict: None,
        settled: None,
        healthy_for: Some(Duration::from_millis(6200)),
        durations: Durations::default(),
    });
    fleet.turn();
    assert_eq!(
        fleet.waiting,
        "waiting for: web-2 to stay healthy for another 3.8 s (deadline in 10 m 0 s); then wave 3: web-3 web-4"
    );
}

#[test]
fn a_canary_that_fails_later_and_cannot_go_back_holds_up_the_next_wave() {
    let policy = Policy { auto_promote: false, max_fail: Amount::Count(1), max_parallel: Amount::Count(2), ..quick() };
    let mut fleet = Fleet::new(&[0, 1], policy);
    fleet.steps(8);
    let failing = Failure::bare(Cause::HealthFailing, "HTTP 503");
    fleet.report(0).health = HealthNow::Failing(Box::new(failing.clone()));
    fleet.until(0, S::Reverting);
    let step = fleet.report(0).step.as_mut().expect("a step");
    (step.settled, step.phase) = (None, StepPhase::Decided);
    step.verdict = Some(crate::step::journal::Verdict::Failed(Box::new(failing)));
    fleet.slow = vec![0];
    fleet.until(0, S::Failed);
    ask::resume(&fleet.plan, &mut fleet.progress, "asha", fleet.now).expect("it is paused");
    fleet.steps(4);
    assert_eq!((fleet.progress.state, fleet.touched()), (R::Running, vec![0]));
    assert_eq!(fleet.waiting, "waiting for: web-1 to be seen healthy again");
}
