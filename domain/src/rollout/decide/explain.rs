//! What the rollout waits for, found from the same state the decision was made of.

use std::time::Duration;

use super::Turn;
use crate::name::Name;
use crate::rollout::progress::{Deadline, Holder, RolloutState, StepState};
use crate::rollout::waiting::{Then, Waiting};

impl Turn<'_> {
    pub(super) fn explain(&self) -> Waiting {
        match self.next.state {
            RolloutState::Queued => match self.reports.target.before {
                Some(before) => Waiting::Turn { before },
                None => Waiting::Syncing { members: Vec::new() },
            },
            RolloutState::Paused => self.explain_pause(),
            RolloutState::Preflight => self.explain_preflight(),
            RolloutState::Running if self.next.supersede_asked => self.explain_supersede(),
            RolloutState::Baking if self.next.supersede_asked => self.explain_supersede(),
            RolloutState::Running => self.explain_running(),
            RolloutState::Baking => self.explain_bake(),
            RolloutState::Reverting => self.explain_revert(),
            _ => self.explain_end(),
        }
    }

    fn why(&self) -> String {
        self.next.reason.as_ref().map_or(String::new(), ToString::to_string)
    }

    fn deadline(&self) -> Duration {
        match self.next.progress_by {
            Deadline::Off => Duration::ZERO,
            Deadline::At(at) => at.since(self.now),
            Deadline::Left(left) => left,
        }
    }

    fn in_state(&self, wanted: impl Fn(StepState) -> bool) -> Vec<Name> {
        self.names(|index| wanted(self.next.steps[index].state))
    }

    fn explain_pause(&self) -> Waiting {
        let holders: Vec<Holder> = self.next.holders.iter().copied().collect();
        let todo = match holders.last() {
            Some(Holder::Canary) => "`muster rollout resume` promotes it",
            Some(Holder::Unreachable) => "goes on by itself when they are back",
            Some(Holder::NoPrevious) => "`muster rollout resume` tries again, `muster rollout cancel` removes it there",
            Some(Holder::Failed) => "`muster rollout resume` tries the failed again, `muster rollout cancel` goes back",
            Some(Holder::User) | None => "`muster rollout resume` goes on, `muster rollout cancel` goes back",
        };
        let why = self.next.reason.as_ref().map_or(String::new(), |reason| reason.text.clone());
        Waiting::Paused { holders, why, todo: todo.to_owned() }
    }

    fn explain_preflight(&self) -> Waiting {
        let ready = self.count(|turn, index| turn.next.steps[index].state == StepState::Staged);
        let open = self.in_state(|state| state == StepState::Pending);
        let syncing = self.names(|index| self.next.steps[index].state == StepState::Pending && !self.ready(index));
        if !syncing.is_empty() && syncing.len() == open.len() {
            return Waiting::Syncing { members: syncing };
        }
        Waiting::Staging { members: open, ready, of: self.plan.size() }
    }

    fn explain_supersede(&self) -> Waiting {
        Waiting::Supersede { members: self.in_state(|state| state.in_flight() || state == StepState::Reverting) }
    }

    fn explain_running(&self) -> Waiting {
        let deadline = self.deadline();
        let unknown = self.unknown();
        let flying: Vec<usize> = self.indices().filter(|index| self.next.steps[*index].state.in_flight()).collect();
        let known = flying.iter().copied().find(|index| self.ready(*index));
        let Some(index) = known else { return self.explain_standstill(unknown, deadline) };
        let step = &self.next.steps[index];
        let member = self.plan.members[index].name.clone();
        let then = self.then();
        let others = u32::try_from(flying.len()).unwrap_or(u32::MAX).saturating_sub(1);
        match (step.state, step.healthy_since) {
            (StepState::Confirming, _) => Waiting::Confirmation { member, deadline },
            (StepState::Checking, Some(since)) => {
                let left = self.plan.policy.min_healthy_time.saturating_sub(self.now.since(since));
                Waiting::MinHealthy { member, left, deadline, then }
            }
            (state, _) => Waiting::Step { member, state, others, deadline, then },
        }
    }

    /// Nothing known is in flight: why does nothing start?
    fn explain_standstill(&self, unknown: Vec<Name>, deadline: Duration) -> Waiting {
        if !unknown.is_empty() {
            return Waiting::Unknown { members: unknown, deadline };
        }
        let back = self.in_state(|state| state == StepState::Reverting);
        if !back.is_empty() {
            let of = u32::try_from(back.len()).unwrap_or(u32::MAX);
            return Waiting::Revert { members: back, back: 0, of, away: Vec::new() };
        }
        let blocked = self.indices().any(|index| self.may_start(index) && self.room() && !self.spares(index));
        if blocked && let Some((available, minimum)) = self.minimum() {
            return Waiting::MinimumHealthy { available, minimum };
        }
        let syncing = self.names(|index| {
            let open = matches!(self.next.steps[index].state, StepState::Pending | StepState::Staged);
            open && self.plan.members[index].wave <= self.next.wave && !self.ready(index)
        });
        if !syncing.is_empty() {
            return Waiting::Syncing { members: syncing };
        }
        Waiting::Unhealthy { members: self.in_state(|state| matches!(state, StepState::Healthy | StepState::Failed)) }
    }

    fn unknown(&self) -> Vec<Name> {
        self.names(|index| self.next.steps[index].touched() && !self.ready(index))
    }

    fn explain_bake(&self) -> Waiting {
        let left = self.next.bake_until.map_or(Duration::ZERO, |until| until.since(self.now));
        if left > Duration::ZERO {
            return Waiting::Bake { wave: self.next.wave, left, then: self.then() };
        }
        let unknown = self.unknown();
        if !unknown.is_empty() {
            return Waiting::Unknown { members: unknown, deadline: self.deadline() };
        }
        Waiting::Unhealthy { members: self.in_state(|state| state == StepState::Healthy) }
    }

    fn then(&self) -> Then {
        let rest = self.names(|index| {
            let open = matches!(self.next.steps[index].state, StepState::Pending | StepState::Staged);
            open && self.plan.members[index].wave <= self.next.wave
        });
        if !rest.is_empty() {
            return Then::Members(rest);
        }
        let wave = self.next.wave + 1;
        if wave < self.plan.waves() {
            return Then::Wave { wave, members: self.names(|index| self.plan.members[index].wave == wave) };
        }
        let baking = self.next.state == RolloutState::Baking || self.plan.policy.final_bake_time.is_zero();
        if baking { Then::End } else { Then::FinalBake }
    }

    fn explain_revert(&self) -> Waiting {
        let members = self.names(|index| self.must_go_back(index));
        let away = self.names(|index| self.must_go_back(index) && !self.ready(index));
        let under_way =
            self.count(|turn, index| turn.next.steps[index].state == StepState::Reverting && turn.ready(index));
        if under_way == 0
            && away.len() < members.len()
            && let Some((available, minimum)) = self.minimum()
        {
            return Waiting::MinimumHealthy { available, minimum };
        }
        let back = self.count(|turn, index| turn.next.steps[index].state == StepState::Reverted);
        let of = self.count(|turn, index| turn.next.steps[index].touched());
        Waiting::Revert { members, back, of, away }
    }

    fn explain_end(&self) -> Waiting {
        let state = self.next.state;
        let parked = self.names(|index| {
            let step = &self.next.steps[index];
            step.state == StepState::Parked || step.converging
        });
        if parked.is_empty() || state == RolloutState::Superseded || self.reports.target.newer_started {
            return Waiting::Ended { state, why: self.why() };
        }
        Waiting::Parked { state, why: self.why(), members: parked }
    }
}
