//! Members that were away when their rollout ended get what it ended on, through the same gate, when they are back.

use super::Turn;
use crate::ids::ReleaseId;
use crate::rollout::progress::{Ordered, Previous, RolloutState, StepState};
use crate::step::evidence::{Cause, Failure};

impl Turn<'_> {
    pub(super) fn converge(&mut self) -> bool {
        if self.next.state == RolloutState::Superseded || self.reports.target.newer_started {
            // The members are another rollout's now.
            for step in &mut self.next.steps {
                step.converging = false;
            }
            return false;
        }
        let mut moved = false;
        for index in self.indices() {
            if self.next.steps[index].state == StepState::Parked && self.ready(index) {
                moved |= self.converge_one(index);
            }
        }
        moved
    }

    fn converge_one(&mut self, index: usize) -> bool {
        let goal: Option<ReleaseId> = match (self.next.state, self.next.steps[index].previous) {
            (RolloutState::Succeeded, _) => Some(self.plan.release),
            (_, Previous::Release(release)) => Some(release),
            (_, Previous::Untouched) => {
                // It still runs what it ran.
                self.set(index, StepState::Pending);
                return true;
            }
            (_, Previous::Nothing) => None,
        };
        let Some(goal) = goal else {
            let failure = Failure::bare(Cause::NoPrevious, "nothing ran here before the rollout; it keeps what it has");
            self.next.steps[index].failure.get_or_insert(Box::new(failure.clone()));
            self.set_because(index, StepState::Failed, Some(Box::new(failure)));
            return true;
        };
        let parallel = self.plan.policy.max_parallel.of(self.plan.size()).max(1);
        // One that went away again must not keep the others from coming back.
        let busy = self.count(|turn, other| turn.next.steps[other].converging && turn.ready(other));
        if busy >= parallel || !self.spares(index) {
            return false;
        }
        let current = self.view(index).and_then(|view| view.report.as_ref()).and_then(|report| report.current);
        self.order(index, Ordered::Converge(goal));
        let now = self.now;
        let step = &mut self.next.steps[index];
        step.converging = true;
        if step.previous == Previous::Untouched {
            step.previous = current.map_or(Previous::Nothing, Previous::Release);
            step.touched_at = Some(now);
        }
        let forward = goal == self.plan.release;
        self.set(index, if forward { StepState::Starting } else { StepState::Reverting });
        true
    }
}
