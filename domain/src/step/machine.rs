//! The step machine: events in, actions out, everything durable in [`Slot`].
//!
//! Level-triggered. After each event it compares what the journal wants with what the engine was last seen to run,
//! and asks for what is missing; an action under way is not asked for twice. After a restart the journal is read, an
//! inspection says what exists, and the same comparison goes on.

mod drive;
mod keep;
mod orders;
mod reporting;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use super::event::{Action, Event, Found, Sample};
use super::evidence::Cause;
use super::journal::{BootTime, Settled, Slot, StepPhase, StepRecord, Verdict};
use super::order::Work;
use super::process::{Process, State};
use super::report::{Refusal, Report};
use crate::ids::ReleaseId;
use crate::name::Name;

/// A failed switch of the relay is tried again after so long.
const ROUTE_RETRY: Duration = Duration::from_millis(500);
/// A failed stop is tried again after so long.
const STOP_RETRY: Duration = Duration::from_secs(1);

/// The step machine of one target on one host.
#[derive(Clone, Debug)]
pub struct Machine {
    slot: Slot,
    run: u64,
    reports: u64,
    inspected: bool,
    processes: BTreeMap<(ReleaseId, Name), Process>,
    routed: Option<ReleaseId>,
    routing: Option<Option<ReleaseId>>,
    route_not_before: Option<BootTime>,
    reported: Option<Report>,
    report_anyway: bool,
    asked_at: Option<BootTime>,
    out: Vec<Action>,
}

impl Machine {
    /// Goes on from the journal: settles what is overdue, then asks for an inspection. The actions come before the
    /// agent dials its coordinator. `run` counts the agent's starts.
    #[must_use]
    pub fn restore(slot: Slot, run: u64, now: BootTime) -> (Self, Vec<Action>) {
        let mut machine = Self {
            slot,
            run,
            reports: 0,
            inspected: false,
            processes: BTreeMap::new(),
            routed: None,
            routing: None,
            route_not_before: None,
            reported: None,
            report_anyway: false,
            asked_at: None,
            out: Vec::new(),
        };
        machine.notice_reboot(now);
        machine.expire(now);
        machine.out.push(Action::Inspect);
        if let Some(stage) = &machine.slot.stage
            && stage.outcome.is_none()
        {
            machine.out.push(Action::Stage { generation: stage.generation, work: stage.work.clone() });
        }
        machine.tell(now);
        machine.wake(now);
        let actions = std::mem::take(&mut machine.out);
        (machine, actions)
    }

    /// The durable state.
    #[must_use]
    pub const fn slot(&self) -> &Slot {
        &self.slot
    }

    /// Takes one event at one instant of the boot clock; the actions are to be performed in order.
    #[must_use]
    pub fn handle(&mut self, event: Event, now: BootTime) -> Vec<Action> {
        // First write wins: a confirmation that comes after the deadline finds the undo already written.
        self.expire(now);
        self.take(event, now);
        self.advance(now);
        self.tell(now);
        self.wake(now);
        std::mem::take(&mut self.out)
    }

    fn take(&mut self, event: Event, now: BootTime) {
        match event {
            Event::Order { order, work } => self.order(order, work, now),
            Event::Inspected { containers, routed } => self.inspected(containers, routed, now),
            Event::Staged { generation, outcome, took } => {
                if let Some(stage) = self.slot.stage.as_mut().filter(|stage| stage.generation == generation) {
                    stage.outcome = Some(outcome);
                    stage.took = Some(took);
                    self.persist();
                }
            }
            Event::Started { release, process, instance } => {
                let state = self.process(release, &process);
                if state.state == State::Starting {
                    state.started(instance, now);
                }
            }
            Event::StartFailed { release, process, text } => {
                let state = self.process(release, &process);
                if state.state == State::Starting {
                    state.ended(&process, None, &[], Some(&text), now);
                }
            }
            Event::Exited { release, process, instance, code, log } => {
                let state = self.process(release, &process);
                if state.running() == Some(instance) {
                    state.ended(&process, code, &log, None, now);
                }
            }
            Event::Stopped { release, process } => {
                *self.process(release, &process) = Process::default();
            }
            Event::StopFailed { release, process } => {
                let state = self.process(release, &process);
                if state.state == State::Stopping {
                    // Whether it runs is not known; as running it is stopped again.
                    state.started(0, now);
                    state.not_before = Some(BootTime { boot: now.boot, at: now.at + STOP_RETRY });
                }
            }
            Event::Routed { release } => {
                self.routed = release;
                self.routing = None;
            }
            Event::RouteFailed { .. } => {
                self.routing = None;
                self.route_not_before = Some(BootTime { boot: now.boot, at: now.at + ROUTE_RETRY });
            }
            Event::Sample(sample) => self.sample(&sample, now),
            Event::Logs { release, process, lines } => self.logs(release, &process, &lines),
            Event::Tick => {}
        }
    }

    /// Answers with the whole state even if nothing changed.
    pub fn report_again(&mut self) {
        self.report_anyway = true;
    }

    fn process(&mut self, release: ReleaseId, process: &Name) -> &mut Process {
        // `entry` wants an owned key; most calls find the process.
        self.processes.entry((release, process.clone())).or_default()
    }

    fn seen(&self, release: ReleaseId, process: &Name) -> Option<&Process> {
        self.processes.get(&(release, process.clone()))
    }

    fn persist(&mut self) {
        self.out.push(Action::Persist(Box::new(self.slot.clone())));
    }

    /// The step that is not settled.
    fn open_step(&self) -> Option<&StepRecord> {
        self.slot.step.as_ref().filter(|step| step.settled.is_none())
    }

    fn inspected(&mut self, containers: Vec<Found>, routed: Option<ReleaseId>, now: BootTime) {
        let starting = |process: &Process| matches!(process.state, State::Starting | State::Stopping);
        if self.inspected && self.processes.values().any(starting) {
            return;
        }
        self.inspected = true;
        self.routed = routed;
        for process in self.processes.values_mut() {
            process.state = State::Absent;
        }
        for found in containers {
            let state = self.process(found.release, &found.process);
            if let Some(instance) = found.running {
                state.started(instance, now);
                self.out.push(Action::Watch { release: found.release, process: found.process, instance });
            } else {
                state.state = State::Ended;
            }
        }
    }

    fn sample(&mut self, sample: &Sample, now: BootTime) {
        if sample.taken.boot != now.boot {
            return;
        }
        let Some(work) = self.work(sample.release) else { return };
        let Some(check) = work.process(&sample.process).map(|process| process.health.clone()) else { return };
        if !self.counts(sample) {
            return;
        }
        let state = self.process(sample.release, &sample.process);
        if state.running() != Some(sample.instance) {
            return;
        }
        if state.sample(&sample.process, &check, sample, now) {
            self.out.push(Action::Logs { release: sample.release, process: sample.process.clone() });
        }
    }

    /// Once the switch is complete, an answer to a question of before it says nothing about the release under traffic.
    fn counts(&self, sample: &Sample) -> bool {
        let Some(step) = self.open_step().filter(|step| step.to.release == sample.release) else { return true };
        step.switched.is_none_or(|switched| sample.taken.since(switched).is_some() && sample.taken.at >= switched.at)
    }

    fn logs(&mut self, release: ReleaseId, process: &Name, lines: &[String]) {
        self.process(release, process).logs(lines);
        let Some(step) = self.slot.step.as_mut().filter(|step| step.to.release == release) else { return };
        let Some(Verdict::Failed(failure)) = &mut step.verdict else { return };
        if failure.process.as_ref() == Some(process) && failure.log.is_empty() && !lines.is_empty() {
            failure.log = super::evidence::bounded_log(lines);
            self.persist();
        }
    }

    /// The known work of a release.
    fn work(&self, release: ReleaseId) -> Option<&Work> {
        self.works().find(|work| work.release == release)
    }

    fn works(&self) -> impl Iterator<Item = &Work> {
        let step = self.slot.step.as_ref().map(|step| &step.to);
        self.slot.current.iter().chain(step).chain(&self.slot.leftovers)
    }

    /// Clocks of another boot mean nothing: a step is decided anew, not timed out. The second reboot undoes.
    fn notice_reboot(&mut self, now: BootTime) {
        let Some(step) = self.slot.step.as_mut().filter(|step| step.settled.is_none()) else { return };
        let seen = step.decided.unwrap_or(step.begun).boot;
        if seen == now.boot && step.begun.boot == now.boot {
            return;
        }
        step.reboots += 1;
        step.begun = now;
        if step.reboots >= 2 && step.undo {
            self.settle(Settled::Undone, now);
            return;
        }
        if let Some(Verdict::Failed(_)) = &step.verdict {
            step.decided = Some(now);
        } else {
            if step.phase > StepPhase::Starting {
                step.phase = StepPhase::Switching;
            }
            step.verdict = None;
            step.decided = None;
            step.switched = None;
        }
        self.persist();
    }

    /// `confirm_deadline` counts from the host's own verdict, whichever it is.
    fn expire(&mut self, now: BootTime) {
        let Some(step) = self.open_step().filter(|step| step.undo) else { return };
        let Some(decided) = step.decided else { return };
        if now.since(decided).is_some_and(|waited| waited >= step.pace.confirm_deadline) {
            self.settle(Settled::Undone, now);
        }
    }

    /// Exactly one of `confirmed` and `undone`, once.
    fn settle(&mut self, how: Settled, now: BootTime) {
        let Some(step) = self.slot.step.as_mut().filter(|step| step.settled.is_none()) else { return };
        step.settled = Some(how);
        step.phase = StepPhase::Settled;
        step.durations.confirmed = step.decided.and_then(|decided| now.since(decided));
        let to = step.to.clone();
        match how {
            Settled::Confirmed => {
                self.slot.leftovers.retain(|work| work.release != to.release);
                if let Some(old) = self.slot.current.replace(to)
                    && self.slot.current.as_ref().is_some_and(|current| current.release != old.release)
                {
                    self.leave_over(old);
                }
            }
            Settled::Undone => self.leave_over(to),
        }
        self.persist();
    }

    /// Remembers a release whose containers are to go.
    fn leave_over(&mut self, work: Work) {
        let known = |other: &Work| other.release == work.release;
        if !self.slot.leftovers.iter().any(known) && !self.slot.current.as_ref().is_some_and(known) {
            self.slot.leftovers.push(work);
        }
    }

    fn decide(&mut self, verdict: Verdict, now: BootTime) {
        let Some(step) = self.slot.step.as_mut().filter(|step| step.verdict.is_none()) else { return };
        let settles = verdict.is_healthy() && !step.undo;
        step.durations.checked = step.switched.and_then(|switched| now.since(switched));
        step.verdict = Some(verdict);
        step.decided = Some(now);
        step.phase = StepPhase::Decided;
        if settles {
            // Nothing to undo: there is nobody to wait for.
            self.settle(Settled::Confirmed, now);
        } else {
            self.persist();
        }
    }

    fn advance(&mut self, now: BootTime) {
        if !self.inspected {
            return;
        }
        // Each pass moves at least one phase; there are five.
        for _ in 0..8 {
            let before = self.place();
            if self.open_step().is_some() {
                self.drive(now);
            } else {
                self.keep(now);
            }
            if self.place() == before {
                return;
            }
        }
    }

    fn place(&self) -> Option<(StepPhase, bool)> {
        self.slot.step.as_ref().map(|step| (step.phase, step.settled.is_some()))
    }

    fn refuse(&mut self, refusal: Refusal) {
        self.out.push(Action::Refused(refusal));
        self.report_anyway = true;
    }
}

/// What a step that ran out of time lacked.
fn deadline_text(step: &StepRecord) -> (Cause, String) {
    let text = match step.phase {
        StepPhase::Starting => "it did not become healthy beside the old release in time",
        StepPhase::Switching => "the switch was not complete in time",
        _ => "it did not stay healthy for min_healthy_time in time",
    };
    (Cause::HealthyDeadline, format!("{text} (healthy_deadline {} s)", step.pace.healthy_deadline.as_secs()))
}
