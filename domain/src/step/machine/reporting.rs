//! What the machine tells, and when it wants to be woken.

use std::time::Duration;

use super::Machine;
use super::drive::route_of;
use crate::step::event::Action;
use crate::step::journal::{BootTime, StepPhase, StepRecord};
use crate::step::order::Work;
use crate::step::report::{HealthNow, Report, StageReport, Stamp, StepReport};

impl Machine {
    /// Reports when something changed or somebody asked.
    pub(super) fn tell(&mut self, now: BootTime) {
        let mut report = self.report(now);
        let same = self.reported.as_ref().is_some_and(|last| alike(last, &report));
        if same && !self.report_anyway {
            return;
        }
        self.report_anyway = false;
        self.reports += 1;
        report.stamp = Stamp { run: self.run, number: self.reports };
        self.reported = Some(report.clone());
        self.out.push(Action::Report(Box::new(report)));
    }

    /// The whole state now, for a Hello; its stamp is the last one given.
    #[must_use]
    pub fn report(&self, now: BootTime) -> Report {
        let serving = self.inspected && self.serving();
        Report {
            stamp: Stamp { run: self.run, number: self.reports },
            generation: self.slot.generation,
            current: self.slot.current.as_ref().map(|work| work.release),
            routed: self.routed,
            stage: self.slot.stage.as_ref().map(|stage| StageReport {
                generation: stage.generation,
                release: stage.work.release,
                outcome: stage.outcome.clone(),
                took: stage.took,
            }),
            step: self.slot.step.as_ref().map(|step| self.step_report(step, now)),
            health: self.health(),
            serving,
            quiet: serving && self.open_step().is_none() && self.slot.leftovers.is_empty(),
        }
    }

    fn step_report(&self, step: &StepRecord, now: BootTime) -> StepReport {
        let due = if step.phase == StepPhase::Checking { self.due(step) } else { None };
        let begun = due.map(|due| due.saturating_sub(step.pace.min_healthy_time));
        StepReport {
            generation: step.generation,
            to: step.to.release,
            phase: step.phase,
            warm: step.durations.warm.is_some(),
            verdict: step.verdict.clone(),
            settled: step.settled,
            healthy_for: begun.map(|begun| now.at.saturating_sub(begun)),
            durations: step.durations,
        }
    }

    /// The release that has, or shall have, the traffic now.
    fn server(&self) -> Option<&Work> {
        let switched = self.open_step().filter(|step| step.switched.is_some()).map(|step| &step.to);
        switched.or(self.slot.current.as_ref())
    }

    fn serving(&self) -> bool {
        let Some(work) = self.server() else { return self.routed.is_none() };
        let runs = |name| self.seen(work.release, name).is_some_and(|seen| seen.running().is_some());
        self.routing.is_none()
            && self.routed == route_of(work)
            && work.processes.iter().all(|process| runs(&process.name))
    }

    fn health(&self) -> HealthNow {
        let Some(work) = self.server() else { return HealthNow::Unknown };
        let mut passing = !work.processes.is_empty();
        for process in &work.processes {
            let Some(seen) = self.seen(work.release, &process.name) else { return HealthNow::Unknown };
            if let Some(failure) = seen.failure() {
                return HealthNow::Failing(Box::new(failure.clone()));
            }
            passing &= seen.passing();
        }
        if passing { HealthNow::Passing } else { HealthNow::Unknown }
    }

    /// The next instant at which time alone changes something.
    pub(super) fn wake(&mut self, now: BootTime) {
        let mut next: Option<Duration> = None;
        let mut want = |at: Duration| {
            if at > now.at {
                next = Some(next.map_or(at, |next| next.min(at)));
            }
        };
        if let Some(step) = self.open_step() {
            match step.decided {
                Some(decided) if step.undo => want(decided.at + step.pace.confirm_deadline),
                None => want(step.begun.at + step.pace.healthy_deadline),
                Some(_) => {}
            }
            if step.phase == StepPhase::Checking
                && let Some(due) = self.due(step)
            {
                want(due);
            }
        }
        for process in self.processes.values() {
            if let Some(at) = process.not_before.filter(|at| at.boot == now.boot) {
                want(at.at);
            }
        }
        if let Some(at) = self.route_not_before.filter(|at| at.boot == now.boot) {
            want(at.at);
        }
        if let Some(at) = next {
            self.out.push(Action::WakeAt(at));
        }
    }
}

/// Differs in nothing but how long it has been healthy, which the reader counts on by itself.
fn alike(last: &Report, now: &Report) -> bool {
    let step = match (&last.step, &now.step) {
        (Some(last), Some(now)) => {
            last.generation == now.generation
                && last.phase == now.phase
                && last.warm == now.warm
                && last.settled == now.settled
                && last.healthy_for.is_some() == now.healthy_for.is_some()
                && last.verdict == now.verdict
        }
        (None, None) => true,
        _ => false,
    };
    step && last.generation == now.generation
        && last.current == now.current
        && last.routed == now.routed
        && last.stage == now.stage
        && last.serving == now.serving
        && last.quiet == now.quiet
        && last.health == now.health
}
