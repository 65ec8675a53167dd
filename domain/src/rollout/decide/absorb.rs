//! What hosts report, taken into the steps: only under the generation that stands, only from hosts that are `Ready`.

use super::Turn;
use crate::rollout::progress::{Ordered, RolloutState, StepState};
use crate::rollout::reports::Presence;
use crate::step::evidence::{Cause, Failure};
use crate::step::journal::{Settled, StepPhase, Verdict};
use crate::step::report::{HealthNow, Report, StageOutcome, StepReport};

impl Turn<'_> {
    pub(super) fn absorb(&mut self) {
        if self.next.state == RolloutState::Queued {
            return;
        }
        for index in self.indices() {
            self.presence(index);
            if !self.ready(index) {
                continue;
            }
            let Some(report) = self.view(index).and_then(|view| view.report.as_ref()) else { continue };
            match self.next.steps[index].ordered {
                Ordered::Nothing => {}
                Ordered::Stage => self.staged(index, report),
                Ordered::Forward | Ordered::Confirm => self.forward(index, report),
                Ordered::Revert(_) | Ordered::Converge(_) => self.back(index, report),
                Ordered::Remove => self.removed(index, report),
            }
        }
    }

    fn presence(&mut self, index: usize) {
        let presence = self.view(index).map_or(Presence::default(), |view| view.presence);
        let step = &mut self.next.steps[index];
        step.unknown_since = match presence {
            Presence::Ready => None,
            Presence::Syncing => step.unknown_since.or(Some(self.now)),
            Presence::Away { since } => step.unknown_since.or(Some(since)),
        };
    }

    fn staged(&mut self, index: usize, report: &Report) {
        let step = &mut self.next.steps[index];
        let stage = report.stage.as_ref().filter(|stage| stage.generation == step.generation);
        if let Some(stage) = stage.filter(|stage| stage.outcome == Some(StageOutcome::Ready))
            && step.state == StepState::Pending
        {
            step.durations.staged = stage.took;
            self.set(index, StepState::Staged);
        }
    }

    fn forward(&mut self, index: usize, report: &Report) {
        let step = &self.next.steps[index];
        let Some(told) = report.step.as_ref().filter(|told| told.generation == step.generation) else { return };
        if step.state == StepState::Healthy {
            return self.watch(index, report);
        }
        if !step.state.in_flight() {
            return;
        }
        self.next.steps[index].durations = told.durations;
        match (told.settled, &told.verdict) {
            (Some(Settled::Confirmed), _) => self.confirmed(index, report),
            (None | Some(Settled::Undone), Some(Verdict::Failed(failure))) => self.fail(index, (**failure).clone()),
            (Some(Settled::Undone), _) => self.undone(index, report),
            (None, Some(Verdict::Healthy)) => self.verdict_healthy(index, report),
            (None, None) => self.under_way(index, told),
        }
    }

    fn confirmed(&mut self, index: usize, report: &Report) {
        self.next.steps[index].healthy_since = None;
        self.next.steps[index].converging = false;
        self.set(index, StepState::Healthy);
        if matches!(self.next.base(), RolloutState::Running | RolloutState::Baking) {
            self.arm_if_running();
        }
        self.watch(index, report);
    }

    fn arm_if_running(&mut self) {
        if self.next.base() == RolloutState::Running {
            self.arm();
        }
    }

    /// Healthy steps are watched for the rest of the rollout.
    fn watch(&mut self, index: usize, report: &Report) {
        let going = matches!(self.next.base(), RolloutState::Running | RolloutState::Baking);
        if let HealthNow::Failing(failure) = &report.health
            && going
        {
            let later = Failure { cause: Cause::FailedLater, ..(**failure).clone() };
            self.fail(index, later);
        }
    }

    fn verdict_healthy(&mut self, index: usize, report: &Report) {
        if let HealthNow::Failing(failure) = &report.health {
            // It went bad between its verdict and ours; nothing is confirmed that is known to fail.
            return self.fail(index, (**failure).clone());
        }
        self.next.steps[index].ordered = Ordered::Confirm;
        self.set(index, StepState::Confirming);
    }

    fn under_way(&mut self, index: usize, told: &StepReport) {
        let state = match told.phase {
            StepPhase::Starting => StepState::Starting,
            StepPhase::Switching => StepState::Warm,
            StepPhase::Checking | StepPhase::Decided | StepPhase::Settled if told.healthy_for.is_some() => {
                StepState::Checking
            }
            StepPhase::Checking | StepPhase::Decided | StepPhase::Settled => StepState::Switched,
        };
        let now = self.now;
        let step = &mut self.next.steps[index];
        // A reboot withdraws a verdict: what was to be confirmed is decided anew.
        step.ordered = Ordered::Forward;
        match told.healthy_for {
            Some(healthy) if step.healthy_since.is_none() => {
                let micros = i64::try_from(healthy.as_micros()).unwrap_or(i64::MAX);
                step.healthy_since = Some(crate::time::Timestamp(now.0.saturating_sub(micros)));
            }
            Some(_) => {}
            None => step.healthy_since = None,
        }
        self.set(index, state);
    }

    /// The host went back by itself: no confirmation came. Once is bad luck.
    fn undone(&mut self, index: usize, report: &Report) {
        if !report.serving {
            return;
        }
        let step = &mut self.next.steps[index];
        step.undone += 1;
        step.ordered = Ordered::Nothing;
        if step.undone >= 2 {
            let text = "the host undid its step twice because no confirmation came within confirm_deadline";
            self.fail(index, Failure::bare(Cause::ConfirmTimeout, text));
        } else {
            self.set(index, StepState::Pending);
        }
    }

    fn back(&mut self, index: usize, report: &Report) {
        let step = &self.next.steps[index];
        let told = report.step.as_ref().filter(|told| told.generation == step.generation);
        let open = step.state == StepState::Reverting || step.converging;
        let Some(told) = told.filter(|_| open) else { return };
        if told.settled == Some(Settled::Confirmed) {
            return self.arrived(index);
        }
        if let Some(Verdict::Failed(failure)) = &told.verdict {
            self.stuck(index, failure);
        }
    }

    fn arrived(&mut self, index: usize) {
        let now = self.now;
        let forward = self.next.steps[index].ordered == Ordered::Converge(self.plan.release);
        let step = &mut self.next.steps[index];
        step.converging = false;
        if forward {
            return self.set(index, StepState::Healthy);
        }
        step.reverted_in = Some(now.since(step.since));
        self.set(index, StepState::Reverted);
        if self.next.base() == RolloutState::Reverting {
            self.arm();
        }
    }

    /// Neither the new nor the old: it stays as it is and says so. The first failure is kept; it is why all began.
    fn stuck(&mut self, index: usize, failure: &Failure) {
        let step = &mut self.next.steps[index];
        step.converging = false;
        if step.failure.is_none() {
            step.failure = Some(Box::new(failure.clone()));
        }
        let why = Failure { cause: Cause::RevertFailed, ..failure.clone() };
        self.set_because(index, StepState::Failed, Some(Box::new(why)));
    }

    fn removed(&mut self, index: usize, report: &Report) {
        let step = &self.next.steps[index];
        let done = report.generation == step.generation && report.current.is_none() && report.quiet;
        if done && step.state == StepState::Reverting {
            self.arrived(index);
        }
    }
}
