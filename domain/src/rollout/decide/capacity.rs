//! How many members may change at once. Unknown counts as unavailable everywhere here.

use super::Turn;
use crate::rollout::progress::StepState;
use crate::step::report::HealthNow;

impl Turn<'_> {
    /// Touched members that are not available: in flight, failed, going back, or unknown.
    fn unavailable(&self) -> u32 {
        self.count(|turn, index| {
            let step = &turn.next.steps[index];
            let busy = step.state.in_flight() || matches!(step.state, StepState::Failed | StepState::Reverting);
            let unknown = step.touched() && step.unknown_since.is_some();
            busy || unknown
        })
    }

    /// Members that count against `max_fail`.
    pub(super) fn failed(&self) -> u32 {
        self.count(|turn, index| turn.next.steps[index].failed)
    }

    /// Failed, or touched and not known to be well: while there are more than `max_fail` nothing new starts.
    fn doubtful(&self) -> u32 {
        self.count(|turn, index| {
            let step = &turn.next.steps[index];
            step.failed || (step.touched() && step.unknown_since.is_some())
        })
    }

    pub(super) fn max_fail(&self) -> u32 {
        self.plan.policy.max_fail.of(self.plan.size())
    }

    /// One more member may start forward.
    pub(super) fn room(&self) -> bool {
        let parallel = self.plan.policy.max_parallel.of(self.plan.size()).max(1);
        self.unavailable() < parallel && self.doubtful() <= self.max_fail()
    }

    /// Serves and passes, as far as is known.
    pub(super) fn available(&self, index: usize) -> bool {
        let step = &self.next.steps[index];
        // Once the rollout ended, what a failed member does now counts, not how its step went.
        let failed = step.state == StepState::Failed && !self.next.state.is_terminal();
        let busy = step.state.in_flight() || step.state == StepState::Reverting || failed;
        if busy || step.converging || !self.ready(index) {
            return false;
        }
        let report = self.view(index).and_then(|view| view.report.as_ref());
        report.is_some_and(|report| report.serving && report.current.is_some() && report.health == HealthNow::Passing)
    }

    /// Members available, and the number that must be exceeded.
    pub(super) fn minimum(&self) -> Option<(u32, u32)> {
        let minimum = self.plan.policy.minimum_healthy_hosts?.of(self.plan.size());
        Some((self.count(Self::available), minimum))
    }

    /// Changing this member keeps more than `minimum_healthy_hosts` available, or takes nothing away.
    pub(super) fn spares(&self, index: usize) -> bool {
        let Some((available, minimum)) = self.minimum() else { return true };
        !self.available(index) || available.saturating_sub(1) > minimum
    }

    pub(super) fn count(&self, wanted: impl Fn(&Self, usize) -> bool) -> u32 {
        u32::try_from(self.indices().filter(|index| wanted(self, *index)).count()).unwrap_or(u32::MAX)
    }
}
