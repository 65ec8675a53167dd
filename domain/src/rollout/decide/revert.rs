//! The way back: touched members only, to the release recorded when each was touched.

use super::{LOCK_AFTER_REVERT, Turn};
use crate::rollout::plan::Kind;
use crate::rollout::progress::{Deadline, Holder, Ordered, Previous, RolloutState, StepState};
use crate::rollout::reason::{Reason, ReasonCode};
use crate::rollout::reports::Lock;

impl Turn<'_> {
    pub(super) fn begin_revert(&mut self, reason: Reason) -> bool {
        self.next.holders.clear();
        self.next.interrupted = None;
        self.next.bake_until = None;
        // Taken: from here on it means "also remove what has no release to go back to".
        self.next.cancel_asked = false;
        self.next.progress_by = Deadline::At(self.now.plus(self.plan.policy.progress_deadline));
        self.enter(RolloutState::Reverting, Some(reason))
    }

    pub(super) fn reverting(&mut self) -> bool {
        if self.paused() {
            return false;
        }
        let mut moved = false;
        for index in self.indices() {
            moved |= self.take_back(index);
        }
        let waits: Vec<usize> = self.indices().filter(|index| self.must_go_back(*index)).collect();
        let overdue = self.overdue();
        if overdue || (!waits.is_empty() && waits.iter().all(|index| self.away(*index))) {
            for index in waits {
                self.set(index, StepState::Parked);
            }
            return self.end_revert();
        }
        if waits.is_empty() { self.end_revert() } else { moved }
    }

    /// Touched, not back yet, and there is something to go back to.
    pub(super) fn must_go_back(&self, index: usize) -> bool {
        let step = &self.next.steps[index];
        let has = match step.previous {
            Previous::Untouched => false,
            Previous::Nothing => self.next.cancel_asked,
            Previous::Release(_) => true,
        };
        let tried = step.state == StepState::Failed && matches!(step.ordered, Ordered::Revert(_) | Ordered::Remove);
        has && !tried && !matches!(step.state, StepState::Reverted | StepState::Parked)
    }

    fn take_back(&mut self, index: usize) -> bool {
        let under_way = self.next.steps[index].state == StepState::Reverting;
        if under_way || !self.must_go_back(index) || !self.ready(index) || !self.spares(index) {
            return false;
        }
        let ordered = match self.next.steps[index].previous {
            Previous::Release(release) => Ordered::Revert(release),
            Previous::Nothing => Ordered::Remove,
            Previous::Untouched => return false,
        };
        self.order(index, ordered);
        self.set(index, StepState::Reverting);
        true
    }

    fn end_revert(&mut self) -> bool {
        let stranded = self.names(|index| {
            let step = &self.next.steps[index];
            step.previous == Previous::Nothing && !matches!(step.state, StepState::Reverted | StepState::Parked)
        });
        if !stranded.is_empty() && !self.next.cancel_asked {
            let list: Vec<&str> = stranded.iter().map(crate::name::Name::as_str).collect();
            let why = self.next.reason.as_ref().map_or(String::new(), |reason| format!(" ({})", reason.text));
            let text = format!("{}: nothing ran there before this rollout{why}", list.join(" "));
            return self.hold(Holder::NoPrevious, Reason::new(ReasonCode::NoPrevious, text));
        }
        let left = self.names(|index| {
            let step = &self.next.steps[index];
            step.touched() && matches!(step.state, StepState::Parked | StepState::Failed)
        });
        let reason = self.next.reason.clone();
        let by_user = reason.as_ref().is_some_and(|reason| reason.code == ReasonCode::CancelledByUser);
        if !by_user && self.plan.kind == Kind::Forward {
            self.lock_target(reason.as_ref());
        }
        let state = match (left.is_empty(), by_user) {
            (false, _) => RolloutState::RevertIncomplete,
            (true, true) => RolloutState::Cancelled,
            (true, false) => RolloutState::Reverted,
        };
        self.end(state, reason)
    }

    fn lock_target(&mut self, reason: Option<&Reason>) {
        let why = reason.map_or(String::new(), |reason| format!(": {}", reason.text));
        self.lock = Some(Lock {
            holder: format!("rollout {}", self.plan.rollout),
            reason: format!("release {} was reverted{why}", self.plan.number),
            until: self.now.plus(LOCK_AFTER_REVERT),
        });
    }
}
