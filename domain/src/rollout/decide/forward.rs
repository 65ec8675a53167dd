//! Preflight, waves and bakes.

use super::Turn;
use crate::name::Name;
use crate::rollout::ask;
use crate::rollout::decision::Note;
use crate::rollout::plan::Kind;
use crate::rollout::progress::{Deadline, Holder, Ordered, Previous, RolloutState, StepState};
use crate::rollout::reason::{Reason, ReasonCode};
use crate::step::report::{HealthNow, StageOutcome};

impl Turn<'_> {
    /// Every member stages before the first is touched.
    pub(super) fn preflight(&mut self) -> bool {
        if self.next.cancel_asked {
            return self.end(RolloutState::Cancelled, Some(ask::cancelled(&self.next.asked_by)));
        }
        if self.next.supersede_asked {
            return self.end(RolloutState::Superseded, Some(self.superseded()));
        }
        if let Some(reason) = self.refused() {
            return self.end(RolloutState::Cancelled, Some(reason));
        }
        if self.overdue() {
            let text = "not every member staged the release within progress_deadline; nothing was touched";
            return self.end(RolloutState::Cancelled, Some(Reason::new(ReasonCode::ProgressDeadline, text)));
        }
        if self.mind_the_away() {
            return true;
        }
        for index in self.indices() {
            let step = &self.next.steps[index];
            if step.state == StepState::Pending && step.ordered == Ordered::Nothing && self.ready(index) {
                self.order(index, Ordered::Stage);
            }
        }
        let all = |wanted: &[StepState]| self.next.steps.iter().all(|step| wanted.contains(&step.state));
        if all(&[StepState::Parked]) {
            let reason = Reason::new(ReasonCode::HostUnreachable, "no member is reachable; nothing was touched");
            return self.end(RolloutState::Cancelled, Some(reason));
        }
        if self.paused() || !all(&[StepState::Staged, StepState::Parked]) {
            return false;
        }
        self.arm();
        self.enter(RolloutState::Running, None)
    }

    /// The first member, in the plan's order, that cannot run the release.
    fn refused(&self) -> Option<Reason> {
        self.indices().filter(|index| self.ready(*index)).find_map(|index| {
            let step = &self.next.steps[index];
            let stage = self.view(index)?.report.as_ref()?.stage.as_ref()?;
            let Some(StageOutcome::Refused(refusal)) = &stage.outcome else { return None };
            if step.ordered != Ordered::Stage || stage.generation != step.generation {
                return None;
            }
            let text = format!("{}: {}; nothing was touched", self.plan.members[index].name, refusal.text);
            Some(Reason { code: ReasonCode::Preflight, detail: refusal.check.code().to_owned(), text })
        })
    }

    pub(super) fn going(&mut self) -> bool {
        if self.next.cancel_asked {
            return self.begin_revert(ask::cancelled(&self.next.asked_by));
        }
        if self.next.supersede_asked {
            return self.make_room();
        }
        if let Some(reason) = self.broken() {
            if self.plan.policy.auto_revert {
                return self.begin_revert(reason);
            }
            return self.hold(Holder::Failed, reason);
        }
        if self.take_back_failed() || self.mind_the_away() {
            return true;
        }
        if self.paused() {
            return false;
        }
        if self.next.state == RolloutState::Baking {
            return self.bake();
        }
        if self.wave_done() {
            return self.begin_bake();
        }
        self.start_some()
    }

    /// More failed than may, or no progress for too long.
    fn broken(&self) -> Option<Reason> {
        let (failed, most) = (self.failed(), self.max_fail());
        if failed > most {
            let first = self.indices().find(|index| self.next.steps[*index].failed);
            let failure =
                first.and_then(|index| self.next.steps[index].failure.as_ref().map(|failure| (index, failure)));
            let what = failure.map_or(String::new(), |(index, failure)| {
                format!("{} on {}; ", failure, self.plan.members[index].name)
            });
            return Some(Reason {
                code: ReasonCode::MaxFail,
                detail: failure.map_or(String::new(), |(_, failure)| failure.cause.code().to_owned()),
                text: format!("{what}{failed} of {} members failed and max_fail is {most}", self.plan.size()),
            });
        }
        if self.overdue() {
            let text = format!(
                "no member turned healthy for {} s (progress_deadline)",
                self.plan.policy.progress_deadline.as_secs()
            );
            return Some(Reason::new(ReasonCode::ProgressDeadline, text));
        }
        None
    }

    /// Within `max_fail`: the failed member alone goes back.
    fn take_back_failed(&mut self) -> bool {
        if self.next.holders.contains(&Holder::Failed) {
            return false;
        }
        for index in self.indices() {
            let step = &self.next.steps[index];
            if step.state != StepState::Failed || matches!(step.ordered, Ordered::Revert(_)) {
                continue;
            }
            match step.previous {
                Previous::Release(release) if self.ready(index) => {
                    self.order(index, Ordered::Revert(release));
                    self.set(index, StepState::Reverting);
                    return true;
                }
                Previous::Nothing if !self.next.supersede_asked => {
                    let text = format!("{} failed and has no release to go back to", self.plan.members[index].name);
                    if self.hold(Holder::NoPrevious, Reason::new(ReasonCode::NoPrevious, text)) {
                        return true;
                    }
                }
                _ => {}
            }
        }
        false
    }

    /// Untouched members that are away are parked, as many as may be; with more of them it pauses until they are back.
    fn mind_the_away(&mut self) -> bool {
        let may = self.plan.policy.max_unreachable.of(self.plan.size());
        let waits = |turn: &Self, index: usize| {
            let step = &turn.next.steps[index];
            !step.touched() && matches!(step.state, StepState::Pending | StepState::Staged) && turn.away(index)
        };
        let away: Vec<usize> = self.indices().filter(|index| waits(self, *index)).collect();
        let parked = self.count(|turn, index| turn.next.steps[index].state == StepState::Parked);
        let total = parked + u32::try_from(away.len()).unwrap_or(u32::MAX);
        if total <= may || away.is_empty() {
            for index in &away {
                self.next.steps[*index].ordered = Ordered::Nothing;
                self.set(*index, StepState::Parked);
            }
            return self.release(Holder::Unreachable) || !away.is_empty();
        }
        let names: Vec<&str> = away.iter().map(|index| self.plan.members[*index].name.as_str()).collect();
        let text = format!(
            "{} of {} members unreachable ({}), max_unreachable is {may}",
            total,
            self.plan.size(),
            names.join(" ")
        );
        self.hold(Holder::Unreachable, Reason::new(ReasonCode::HostUnreachable, text))
    }

    /// Every member up to this wave is healthy and seen to be, is back after a failure, or is parked.
    fn wave_done(&self) -> bool {
        self.indices().filter(|index| self.plan.members[*index].wave <= self.next.wave).all(|index| {
            let step = &self.next.steps[index];
            match step.state {
                StepState::Healthy => self.seen_healthy(index),
                StepState::Parked => true,
                StepState::Reverted => step.failed,
                _ => false,
            }
        })
    }

    /// A gate that passed can be undone by a member that fails later: until it is back nothing new starts.
    fn earlier_waves_stand(&self) -> bool {
        self.indices().filter(|index| self.plan.members[*index].wave < self.next.wave).all(|index| {
            let step = &self.next.steps[index];
            let back = step.state == StepState::Reverted && step.failed;
            back || matches!(step.state, StepState::Healthy | StepState::Parked)
        })
    }

    /// Reported under this generation, by a host whose word counts, and passing now.
    fn seen_healthy(&self, index: usize) -> bool {
        let step = &self.next.steps[index];
        let report = self.view(index).filter(|_| self.ready(index)).and_then(|view| view.report.as_ref());
        report.is_some_and(|report| {
            report.health == HealthNow::Passing
                && report.current == Some(self.plan.release)
                && report.step.as_ref().is_some_and(|told| told.generation == step.generation)
        })
    }

    fn begin_bake(&mut self) -> bool {
        let last = self.next.wave + 1 >= self.plan.waves();
        let bake = if last { self.plan.policy.final_bake_time } else { self.plan.policy.bake_time };
        let until = self.now.plus(bake);
        self.next.bake_until = Some(until);
        self.next.progress_by = Deadline::At(until.plus(self.plan.policy.progress_deadline));
        self.enter(RolloutState::Baking, None)
    }

    /// The gate: at the end of the bake every member of the wave is still seen to be healthy.
    fn bake(&mut self) -> bool {
        if self.next.bake_until.is_some_and(|until| self.now < until) || !self.wave_done() {
            return false;
        }
        let wave = self.next.wave;
        self.notes.push(Note::WavePassed { wave });
        self.next.bake_until = None;
        if wave + 1 >= self.plan.waves() {
            return self.end(RolloutState::Succeeded, None);
        }
        self.next.wave = wave + 1;
        self.arm();
        self.enter(RolloutState::Running, None);
        if wave == 0 && !self.plan.policy.auto_promote && self.plan.kind == Kind::Forward {
            let text = "the canary is healthy and auto_promote is false";
            self.hold(Holder::Canary, Reason::new(ReasonCode::CanaryWaits, text));
        }
        true
    }

    fn start_some(&mut self) -> bool {
        if !self.earlier_waves_stand() {
            return false;
        }
        let mut started = false;
        for index in self.indices() {
            if self.may_start(index) && self.room() && self.spares(index) {
                self.start(index);
                started = true;
            }
        }
        started
    }

    pub(super) fn may_start(&self, index: usize) -> bool {
        let open = matches!(self.next.steps[index].state, StepState::Pending | StepState::Staged);
        self.plan.members[index].wave <= self.next.wave && open && self.ready(index)
    }

    fn start(&mut self, index: usize) {
        let current = self.view(index).and_then(|view| view.report.as_ref()).and_then(|report| report.current);
        self.order(index, Ordered::Forward);
        let now = self.now;
        let step = &mut self.next.steps[index];
        step.attempt += 1;
        if step.previous == Previous::Untouched {
            step.previous = current.map_or(Previous::Nothing, Previous::Release);
            step.touched_at = Some(now);
        }
        self.set(index, StepState::Starting);
    }

    /// A newer rollout waits: what is in flight settles, what failed goes back, nothing new starts.
    fn make_room(&mut self) -> bool {
        if self.take_back_failed() {
            return true;
        }
        let unsettled = |state: StepState| state.in_flight() || state == StepState::Reverting;
        let open: Vec<usize> = self.indices().filter(|index| unsettled(self.next.steps[*index].state)).collect();
        if !open.is_empty() && !self.overdue() {
            return false;
        }
        for index in open {
            self.set(index, StepState::Parked);
        }
        self.end(RolloutState::Superseded, Some(self.superseded()))
    }

    pub(super) fn names(&self, wanted: impl Fn(usize) -> bool) -> Vec<Name> {
        self.indices().filter(|index| wanted(*index)).map(|index| self.plan.members[index].name.clone()).collect()
    }
}
