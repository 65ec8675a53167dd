use std::time::Duration;

use uuid::Uuid;

use super::*;
use crate::health::{HealthCheck, Probe};
use crate::ids::{Generation, HostId, RolloutId};
use crate::name::TargetRef;
use crate::step::event::Outcome;
use crate::step::journal::BootId;
use crate::step::order::{Go, Order, OrderKind, Pace, ProcessWork, Purpose};
use crate::step::report::HealthNow;

fn release(number: u128) -> ReleaseId {
    ReleaseId::new(Uuid::from_u128(number))
}

fn name(text: &str) -> Name {
    Name::new("process", text).expect("a name")
}

fn work(number: u64, processes: &[(&str, bool)]) -> Work {
    let process = |(text, overlap): &(&str, bool)| ProcessWork {
        name: name(text),
        overlap: *overlap,
        exposed: *text == "web",
        health: HealthCheck::new(Probe::Tcp { port: None }),
    };
    Work { release: release(u128::from(number)), number, processes: processes.iter().map(process).collect() }
}

fn web(number: u64) -> Work {
    work(number, &[("web", true)])
}

const PACE: Pace = Pace {
    min_healthy_time: Duration::from_secs(10),
    healthy_deadline: Duration::from_secs(60),
    confirm_deadline: Duration::from_secs(20),
    drain_timeout: Duration::from_secs(5),
    kill_timeout: Duration::from_secs(2),
};

/// A host whose engine does at once what it is asked, unless a test wants otherwise.
struct Rig {
    machine: Machine,
    boot: u128,
    at: Duration,
    slot: Slot,
    log: Vec<String>,
    reports: Vec<Report>,
    running: BTreeMap<(ReleaseId, Name), u64>,
    routed: Option<ReleaseId>,
    instances: u64,
    healthy: BTreeMap<ReleaseId, Outcome>,
    ends: bool,
}

impl Rig {
    /// Release 1 runs and is settled.
    fn new(first: Option<Work>) -> Self {
        let slot = Slot { current: first.clone(), ..Slot::default() };
        let clock = BootTime { boot: BootId(Uuid::from_u128(1)), at: Duration::from_secs(100) };
        let (machine, actions) = Machine::restore(slot.clone(), 1, clock);
        let mut rig = Self {
            machine,
            boot: 1,
            at: clock.at,
            slot,
            log: Vec::new(),
            reports: Vec::new(),
            running: BTreeMap::new(),
            routed: None,
            instances: 0,
            healthy: BTreeMap::new(),
            ends: false,
        };
        rig.perform(actions);
        rig.probe();
        rig.log.clear();
        rig
    }

    fn clock(&self) -> BootTime {
        BootTime { boot: BootId(Uuid::from_u128(self.boot)), at: self.at }
    }

    fn tell(&mut self, event: Event) {
        let actions = self.machine.handle(event, self.clock());
        self.perform(actions);
    }

    /// All actions of one event, then the answers to them.
    fn perform(&mut self, actions: Vec<Action>) {
        let answers: Vec<Event> = actions.into_iter().filter_map(|action| self.perform_one(action)).collect();
        for answer in answers {
            self.tell(answer);
        }
    }

    fn perform_one(&mut self, action: Action) -> Option<Event> {
        let number = |release: ReleaseId| release.uuid().as_u128();
        match action {
            Action::Persist(slot) => {
                let phase = slot.step.as_ref().map(|step| (step.phase, step.settled));
                self.log.push(format!("persist {phase:?}"));
                self.slot = *slot;
                None
            }
            Action::Inspect => {
                let containers = self.running.iter().map(|((release, process), instance)| Found {
                    release: *release,
                    process: process.clone(),
                    running: Some(*instance),
                });
                Some(Event::Inspected { containers: containers.collect(), routed: self.routed })
            }
            Action::Start { release, process } => {
                self.log.push(format!("start {process} {}", number(release)));
                if self.ends {
                    let text = "no such image".to_owned();
                    return Some(Event::StartFailed { release, process, text });
                }
                self.instances += 1;
                self.running.insert((release, process.clone()), self.instances);
                let instance = self.instances;
                Some(Event::Started { release, process, instance })
            }
            Action::Stop { release, process, .. } => {
                self.log.push(format!("stop {process} {}", number(release)));
                self.running.remove(&(release, process.clone()));
                Some(Event::Stopped { release, process })
            }
            Action::Route { release, .. } => {
                self.log.push(format!("route {:?}", release.map(number)));
                self.routed = release;
                Some(Event::Routed { release })
            }
            Action::Report(report) => {
                self.reports.push(*report);
                None
            }
            Action::Logs { release, process } => {
                Some(Event::Logs { release, process, lines: vec!["no such table".to_owned()] })
            }
            Action::Stage { .. }
            | Action::Watch { .. }
            | Action::ProbeNow { .. }
            | Action::Refused(_)
            | Action::WakeAt(_) => None,
        }
    }

    /// Every running process is asked once, now.
    fn probe(&mut self) {
        let running: Vec<_> =
            self.running.iter().map(|((release, process), instance)| (*release, process.clone(), *instance)).collect();
        for (release, process, instance) in running {
            let outcome = self.healthy.get(&release).copied().unwrap_or(Outcome::Pass);
            let text = format!("{outcome:?}");
            self.tell(Event::Sample(Sample { release, process, instance, taken: self.clock(), outcome, text }));
        }
    }

    /// So many seconds pass; everything is asked each second.
    fn seconds(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.at += Duration::from_secs(1);
            self.tell(Event::Tick);
            self.probe();
        }
    }

    fn order(&mut self, generation: u64, kind: OrderKind, work: Option<Work>) {
        let order = Order {
            rollout: RolloutId::new(Uuid::from_u128(9)),
            target: TargetRef::parse("bot/production").expect("a target"),
            member: HostId::new(Uuid::from_u128(8)),
            executor: HostId::new(Uuid::from_u128(8)),
            generation: Generation(generation),
            kind,
        };
        self.tell(Event::Order { order, work });
    }

    fn go(&mut self, generation: u64, work: Work, undo: bool) {
        let purpose = if undo { Purpose::Forward } else { Purpose::Revert };
        let pace = if undo { PACE } else { Pace { min_healthy_time: Duration::ZERO, ..PACE } };
        self.order(generation, OrderKind::Go(Go { release: work.release, purpose, undo, pace }), Some(work));
    }

    fn restart(&mut self) {
        let (machine, actions) = Machine::restore(self.slot.clone(), 2, self.clock());
        self.machine = machine;
        self.perform(actions);
    }

    fn reboot(&mut self) {
        self.boot += 1;
        self.at = Duration::from_secs(20);
        self.running.clear();
        self.routed = None;
        self.restart();
    }

    fn step(&self) -> &StepRecord {
        self.slot.step.as_ref().expect("a step")
    }

    fn last(&self) -> &Report {
        self.reports.last().expect("a report")
    }
}

#[test]
fn a_step_starts_beside_becomes_warm_switches_checks_and_is_confirmed() {
    let mut rig = Rig::new(Some(web(1)));
    rig.go(1, web(2), true);
    assert_eq!(rig.log, ["persist Some((Starting, None))", "start web 2"]);
    rig.log.clear();
    rig.probe();
    assert_eq!(rig.log, ["persist Some((Switching, None))", "route Some(2)", "persist Some((Checking, None))"]);
    assert_eq!(rig.running.len(), 2, "the old one runs on");
    rig.seconds(10);
    assert_eq!(rig.step().verdict, None, "the first answer counts from the switch on");
    rig.seconds(1);
    assert_eq!(rig.step().verdict, Some(Verdict::Healthy));
    rig.log.clear();
    rig.order(1, OrderKind::Confirm, None);
    assert_eq!(rig.step().settled, Some(Settled::Confirmed));
    assert!(rig.log.contains(&"stop web 1".to_owned()), "{:?}", rig.log);
    assert_eq!(rig.last().current, Some(release(2)));
    assert!(rig.last().quiet && rig.slot.leftovers.is_empty());
    let durations = rig.last().step.as_ref().expect("a step").durations;
    assert_eq!(durations.checked, Some(Duration::from_secs(11)));
}

#[test]
fn lower_generations_are_refused_equal_ones_answered_and_a_second_meaning_is_a_conflict() {
    let mut rig = Rig::new(Some(web(1)));
    rig.go(5, web(2), true);
    let before = rig.slot.clone();
    let reports = rig.reports.len();
    rig.go(5, web(2), true);
    assert_eq!(rig.reports.len(), reports + 1, "an equal order is answered");
    for (generation, work) in [(4, web(3)), (5, web(3))] {
        rig.go(generation, work, true);
        assert_eq!(rig.slot, before);
    }
    rig.order(6, OrderKind::Confirm, None);
    assert_eq!(rig.slot, before, "a confirmation of something never taken");
}

#[test]
fn answers_to_questions_from_before_the_switch_do_not_count() {
    let mut rig = Rig::new(Some(web(1)));
    rig.go(1, web(2), true);
    let early = rig.clock();
    rig.probe();
    rig.at += Duration::from_secs(11);
    let stale = Sample {
        release: release(2),
        process: name("web"),
        instance: rig.instances,
        taken: BootTime { at: early.at.checked_sub(Duration::from_millis(1)).expect("later than a boot"), ..early },
        outcome: Outcome::Pass,
        text: String::new(),
    };
    rig.tell(Event::Sample(stale));
    assert_eq!(rig.step().verdict, None);
    rig.probe();
    assert_eq!(rig.step().verdict, None, "one answer is no time");
    rig.seconds(10);
    assert_eq!(rig.step().verdict, Some(Verdict::Healthy));
}

#[test]
fn a_pass_that_was_asked_for_before_a_failure_does_not_mend_it() {
    let mut rig = Rig::new(Some(web(1)));
    rig.go(1, web(2), true);
    rig.probe();
    rig.seconds(5);
    rig.healthy.insert(release(2), Outcome::Fail);
    let asked = rig.clock();
    rig.seconds(1);
    let late = Sample {
        release: release(2),
        process: name("web"),
        instance: rig.instances,
        taken: asked,
        outcome: Outcome::Pass,
        text: String::new(),
    };
    rig.tell(Event::Sample(late));
    rig.healthy.remove(&release(2));
    rig.seconds(10);
    assert_eq!(rig.step().verdict, None, "the failing answer began the time anew");
    rig.seconds(1);
    assert_eq!(rig.step().verdict, Some(Verdict::Healthy));
}

#[test]
fn failing_answers_in_a_row_are_a_failed_verdict_with_its_evidence() {
    let mut rig = Rig::new(Some(web(1)));
    rig.go(1, web(2), true);
    rig.probe();
    rig.healthy.insert(release(2), Outcome::Fail);
    rig.seconds(3);
    let Some(Verdict::Failed(failure)) = rig.step().verdict.clone() else { panic!("{:?}", rig.step()) };
    assert_eq!((failure.cause, failure.process), (Cause::HealthFailing, Some(name("web"))));
    assert_eq!(failure.log, ["no such table"]);
    assert!(failure.answers.len() > 2 && !failure.answers.last().expect("answers").ok);
    assert_eq!(rig.routed, Some(release(2)), "the host holds until it is told, or its time is over");
}

#[test]
fn without_a_confirmation_the_host_goes_back_by_itself_and_says_so_for_ever() {
    let mut rig = Rig::new(Some(web(1)));
    rig.go(1, web(2), true);
    rig.probe();
    rig.seconds(11);
    assert_eq!(rig.step().verdict, Some(Verdict::Healthy));
    rig.seconds(10);
    rig.go(1, web(2), true);
    rig.seconds(9);
    assert_eq!(rig.step().settled, None, "twenty seconds are not over");
    rig.seconds(1);
    assert_eq!(rig.step().settled, Some(Settled::Undone), "a resend does not extend the time");
    assert_eq!(rig.routed, Some(release(1)));
    rig.order(1, OrderKind::Confirm, None);
    assert_eq!(rig.step().settled, Some(Settled::Undone), "the first write wins");
    assert_eq!(rig.last().current, Some(release(1)));
    assert!(!rig.running.contains_key(&(release(2), name("web"))));
}

#[test]
fn a_confirmation_that_comes_with_the_deadline_finds_the_undo_written() {
    let mut rig = Rig::new(Some(web(1)));
    rig.go(1, web(2), true);
    rig.probe();
    rig.seconds(11);
    rig.at += Duration::from_secs(20);
    rig.order(1, OrderKind::Confirm, None);
    assert_eq!(rig.step().settled, Some(Settled::Undone));
}

#[test]
fn a_step_without_undo_settles_itself_when_healthy_and_holds_when_not() {
    let mut rig = Rig::new(Some(web(1)));
    rig.go(1, web(2), false);
    rig.probe();
    rig.probe();
    assert_eq!(rig.step().settled, Some(Settled::Confirmed));
    rig.healthy.insert(release(3), Outcome::Fail);
    rig.go(2, web(3), false);
    rig.seconds(200);
    assert!(matches!(rig.step().verdict, Some(Verdict::Failed(_))));
    assert_eq!((rig.step().settled, rig.routed), (None, Some(release(2))), "it was never warm: traffic stayed");
}

#[test]
fn a_process_that_does_not_start_three_times_fails_the_step() {
    let mut rig = Rig::new(Some(web(1)));
    rig.ends = true;
    rig.go(1, web(2), true);
    rig.seconds(2);
    let Some(Verdict::Failed(failure)) = rig.step().verdict.clone() else { panic!("{:?}", rig.step()) };
    assert_eq!((failure.cause, failure.restarts), (Cause::StartFailed, 3));
    assert!(failure.text.contains("no such image"));
    assert_eq!(rig.routed, Some(release(1)));
}

#[test]
fn a_crash_loop_keeps_the_exit_code_and_the_last_lines() {
    let mut rig = Rig::new(Some(web(1)));
    rig.go(1, web(2), true);
    for _ in 0..3 {
        let instance = rig.running.remove(&(release(2), name("web"))).expect("it runs");
        let log = vec!["Traceback".to_owned()];
        rig.tell(Event::Exited { release: release(2), process: name("web"), instance, code: Some(3), log });
        rig.at += Duration::from_secs(2);
        rig.tell(Event::Tick);
    }
    let Some(Verdict::Failed(failure)) = rig.step().verdict.clone() else { panic!("{:?}", rig.step()) };
    assert_eq!(
        (failure.cause, failure.exit_code, failure.log),
        (Cause::CrashLoop, Some(3), vec!["Traceback".to_owned()])
    );
}

#[test]
fn processes_without_overlap_change_over_at_the_switch_and_back_at_the_undo() {
    let both = |number| work(number, &[("web", true), ("scheduler", false)]);
    let mut rig = Rig::new(Some(both(1)));
    rig.go(1, both(2), true);
    assert_eq!(rig.log, ["persist Some((Starting, None))", "start web 2"], "the scheduler waits for the switch");
    rig.log.clear();
    rig.probe();
    assert_eq!(rig.log, ["persist Some((Switching, None))", "stop scheduler 1", "start scheduler 2"]);
    rig.probe();
    rig.seconds(11);
    rig.log.clear();
    rig.seconds(20);
    let undo: Vec<&str> = rig.log.iter().map(String::as_str).filter(|line| !line.starts_with("persist")).collect();
    // Traffic goes back at once: the old web process ran all the time.
    assert_eq!(undo, ["stop scheduler 2", "route Some(1)", "start scheduler 1", "stop web 2"]);
}

#[test]
fn an_agent_that_dies_anywhere_goes_on_from_its_journal() {
    let mut rig = Rig::new(Some(web(1)));
    rig.go(1, web(2), true);
    rig.restart();
    rig.probe();
    assert_eq!(rig.step().phase, StepPhase::Checking);
    rig.seconds(5);
    rig.restart();
    rig.seconds(10);
    assert_eq!(rig.step().verdict, None, "nobody asked while it was away: the time begins anew");
    rig.seconds(1);
    rig.restart();
    assert_eq!(rig.step().verdict, Some(Verdict::Healthy));
    rig.order(1, OrderKind::Confirm, None);
    rig.restart();
    assert_eq!((rig.last().current, rig.running.len()), (Some(release(2)), 1));
}

#[test]
fn a_starting_agent_settles_what_is_overdue_before_anything_else() {
    let mut rig = Rig::new(Some(web(1)));
    rig.go(1, web(2), true);
    rig.probe();
    rig.seconds(11);
    rig.at += Duration::from_secs(60);
    let (_, actions) = Machine::restore(rig.slot.clone(), 2, rig.clock());
    let Some(Action::Persist(slot)) = actions.first() else { panic!("{actions:?}") };
    assert_eq!(slot.step.as_ref().and_then(|step| step.settled), Some(Settled::Undone));
}

#[test]
fn a_reboot_restarts_the_clock_once_and_a_second_one_undoes() {
    let mut rig = Rig::new(Some(web(1)));
    rig.go(1, web(2), true);
    rig.probe();
    rig.seconds(11);
    assert_eq!(rig.step().verdict, Some(Verdict::Healthy));
    rig.reboot();
    assert_eq!(rig.step().verdict, None, "decided anew, not timed out");
    rig.order(1, OrderKind::Confirm, None);
    assert_eq!(rig.step().settled, None, "nothing is confirmed that was not seen in this boot");
    rig.probe();
    assert_eq!(rig.routed, Some(release(2)));
    rig.seconds(12);
    assert_eq!(rig.step().verdict, Some(Verdict::Healthy));
    rig.reboot();
    assert_eq!((rig.step().settled, rig.routed), (Some(Settled::Undone), Some(release(1))));
}

#[test]
fn a_settled_release_runs_again_after_a_reboot_without_anybody() {
    let mut rig = Rig::new(Some(web(1)));
    rig.reboot();
    rig.probe();
    assert_eq!((rig.running.len(), rig.routed), (1, Some(release(1))));
    assert_eq!(rig.last().health, HealthNow::Passing);
}

#[test]
fn a_newer_order_replaces_a_step_and_what_it_started_is_stopped() {
    let mut rig = Rig::new(Some(web(1)));
    rig.go(1, web(2), true);
    rig.probe();
    assert_eq!(rig.routed, Some(release(2)));
    rig.go(2, web(1), false);
    rig.probe();
    assert_eq!((rig.routed, rig.last().current), (Some(release(1)), Some(release(1))));
    assert_eq!(rig.running.keys().map(|(release, _)| *release).collect::<Vec<_>>(), [release(1)]);
    assert_eq!(rig.step().settled, Some(Settled::Confirmed));
}

#[test]
fn removing_leaves_nothing() {
    let mut rig = Rig::new(None);
    rig.go(1, web(2), false);
    rig.probe();
    rig.probe();
    assert_eq!(rig.last().current, Some(release(2)));
    rig.order(2, OrderKind::Remove, None);
    assert!(rig.running.is_empty() && rig.routed.is_none());
    assert!(rig.last().current.is_none() && rig.last().quiet);
}

#[test]
fn with_a_lost_journal_nothing_that_is_found_is_touched() {
    let mut rig = Rig::new(Some(web(1)));
    rig.slot = Slot::default();
    rig.log.clear();
    rig.restart();
    rig.seconds(5);
    assert_eq!((rig.log.len(), rig.running.len(), rig.routed), (0, 1, Some(release(1))));
}
