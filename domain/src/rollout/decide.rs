//! The only place where a rollout moves. Pure and level-triggered: every turn looks at the whole state.
//!
//! A turn first takes in what hosts report under the generation that stands (anything else is not about this step),
//! then moves as far as it can. Rules that are easy to break and hard to see:
//!
//! - A verdict comes from an observation. Time alone makes a host *unknown*, or ends the whole rollout; it never makes a
//!   member healthy or failed.
//! - Unknown counts as unavailable, in `max_parallel`, `minimum_healthy_hosts` and `max_fail` alike.
//! - Orders exist only for hosts that are `Ready`: their session is open under the current fence and everything they
//!   knew is stored. A new order has a generation above every one known for that (target, host).
//! - `previous` is what the host's own journal says is settled, recorded with the first mutating order and never read again.
//! - A failure acts through a pause: pausing stops what is new, not the way back. Under `auto_revert: false` nothing
//!   goes back by itself, except that a member within `max_fail` does, alone.
//! - A rollout asked to make room for a newer one (`supersede`) takes its failed members back one by one, whatever
//!   `max_fail` says, and does not lock the target: the newer one may be the repair.
//! - Where members cannot go back before `progress_deadline` they are parked: going back ends, too.

mod absorb;
mod capacity;
mod converge;
mod explain;
mod forward;
mod revert;
#[cfg(test)]
mod tests;

use super::ask::{self, hold};
use super::decision::{Decision, Note};
use super::plan::{Kind, Plan};
use super::progress::{Deadline, Holder, Ordered, Previous, Progress, RolloutState, StepState};
use super::reason::{Reason, ReasonCode};
use super::reports::{HostView, Lock, Presence, Reports};
use crate::ids::Generation;
use crate::step::evidence::Failure;
use crate::step::order::{Go, Order, OrderKind, Pace, Purpose};
use crate::time::Timestamp;

/// The automatic lock after a revert lasts so long.
pub const LOCK_AFTER_REVERT: std::time::Duration = std::time::Duration::from_secs(3600);

/// One turn. Store `next`, `notes` and `lock` in one transaction, then send `commands`.
#[must_use]
pub fn decide(plan: &Plan, progress: &Progress, reports: &Reports, now: Timestamp) -> Decision {
    let mut turn = Turn { plan, reports, now, next: progress.clone(), notes: Vec::new(), lock: None };
    turn.absorb();
    // Every pass but the last moves the rollout at least one state on; there is no cycle within one instant.
    for _ in 0..16 {
        if !turn.advance() {
            break;
        }
    }
    let commands = turn.commands();
    let waiting = turn.explain();
    let wake_at = turn.wake_at();
    Decision { next: turn.next, commands, waiting, wake_at, notes: turn.notes, lock: turn.lock }
}

struct Turn<'a> {
    plan: &'a Plan,
    reports: &'a Reports,
    now: Timestamp,
    next: Progress,
    notes: Vec<Note>,
    lock: Option<Lock>,
}

impl<'a> Turn<'a> {
    /// Moves one state on; false: nothing more to do now.
    fn advance(&mut self) -> bool {
        match self.next.base() {
            RolloutState::Queued => self.queued(),
            RolloutState::Preflight => self.preflight(),
            RolloutState::Running | RolloutState::Baking => self.going(),
            RolloutState::Reverting | RolloutState::Paused => self.reverting(),
            RolloutState::Succeeded
            | RolloutState::Reverted
            | RolloutState::RevertIncomplete
            | RolloutState::Cancelled
            | RolloutState::Superseded => self.converge(),
        }
    }

    fn queued(&mut self) -> bool {
        if self.next.cancel_asked {
            return self.end(RolloutState::Cancelled, Some(ask::cancelled(&self.next.asked_by)));
        }
        if self.next.supersede_asked {
            return self.end(RolloutState::Superseded, Some(self.superseded()));
        }
        if let Some(lock) = &self.reports.target.locked {
            let text = format!("the target was locked by {} while this waited: {}", lock.holder, lock.reason);
            return self.end(RolloutState::Cancelled, Some(Reason::new(ReasonCode::TargetLocked, text)));
        }
        if self.reports.target.before.is_some() {
            return false;
        }
        self.arm();
        self.enter(RolloutState::Preflight, None)
    }

    fn superseded(&self) -> Reason {
        Reason::new(ReasonCode::Superseded, format!("{} took over", self.next.asked_by))
    }

    fn view(&self, index: usize) -> Option<&'a HostView> {
        self.plan.members.get(index).and_then(|member| self.reports.hosts.get(&member.member))
    }

    fn ready(&self, index: usize) -> bool {
        self.view(index).is_some_and(|view| view.presence == Presence::Ready)
    }

    fn away(&self, index: usize) -> bool {
        self.view(index).is_some_and(|view| matches!(view.presence, Presence::Away { .. }))
    }

    fn indices(&self) -> std::ops::Range<usize> {
        0..self.plan.members.len().min(self.next.steps.len())
    }

    fn paused(&self) -> bool {
        self.next.state == RolloutState::Paused
    }

    /// Nobody held it and its deadline passed.
    fn overdue(&self) -> bool {
        matches!(self.next.progress_by, Deadline::At(at) if self.now >= at)
    }

    /// The progress deadline starts anew; while paused it will, once the pause ends.
    fn arm(&mut self) {
        let whole = self.plan.policy.progress_deadline;
        self.next.progress_by = if self.paused() { Deadline::Left(whole) } else { Deadline::At(self.now.plus(whole)) };
    }

    fn enter(&mut self, state: RolloutState, reason: Option<Reason>) -> bool {
        let from = self.next.state;
        self.next.state = state;
        self.next.reason.clone_from(&reason);
        self.notes.push(Note::State { from, to: state, reason });
        true
    }

    fn end(&mut self, state: RolloutState, reason: Option<Reason>) -> bool {
        self.next.holders.clear();
        self.next.interrupted = None;
        self.next.progress_by = Deadline::Off;
        self.next.bake_until = None;
        self.next.cancel_asked = false;
        self.enter(state, reason)
    }

    fn hold(&mut self, holder: Holder, reason: Reason) -> bool {
        let from = self.next.state;
        if !hold(&mut self.next, holder, reason.clone(), self.now) {
            return false;
        }
        self.notes.push(Note::State { from, to: RolloutState::Paused, reason: Some(reason) });
        true
    }

    fn release(&mut self, holder: Holder) -> bool {
        if !ask::release(&mut self.next, holder, self.now) {
            return false;
        }
        if !self.paused() {
            self.notes.push(Note::State { from: RolloutState::Paused, to: self.next.state, reason: None });
        }
        true
    }

    fn set(&mut self, index: usize, state: StepState) {
        self.set_because(index, state, None);
    }

    fn set_because(&mut self, index: usize, state: StepState, failure: Option<Box<Failure>>) {
        let from = self.next.steps[index].state;
        if from == state {
            return;
        }
        self.next.steps[index].state = state;
        self.next.steps[index].since = self.now;
        self.notes.push(Note::Step { member: self.plan.members[index].member, from, to: state, failure });
    }

    fn fail(&mut self, index: usize, failure: Failure) {
        let failure = Box::new(failure);
        let step = &mut self.next.steps[index];
        step.failed = true;
        step.failure = Some(failure.clone());
        self.set_because(index, StepState::Failed, Some(failure));
    }

    /// Makes an order stand under a generation above every one known.
    fn order(&mut self, index: usize, ordered: Ordered) {
        let known = self.view(index).map(|view| {
            view.generation.max(view.report.as_ref().map_or(Generation::default(), |report| report.generation))
        });
        let step = &mut self.next.steps[index];
        step.generation = step.generation.max(known.unwrap_or_default()).next();
        step.ordered = ordered;
        step.healthy_since = None;
    }

    /// What each reachable member's order is now.
    fn commands(&self) -> Vec<Order> {
        let ended = self.next.state.is_terminal();
        if ended && self.reports.target.newer_started {
            return Vec::new();
        }
        self.indices().filter(|index| self.ready(*index)).filter_map(|index| self.command(index, ended)).collect()
    }

    fn command(&self, index: usize, ended: bool) -> Option<Order> {
        let step = &self.next.steps[index];
        let open = match step.ordered {
            Ordered::Nothing => false,
            Ordered::Stage => !ended && step.state == StepState::Pending,
            Ordered::Forward | Ordered::Confirm => !ended && step.state.in_flight(),
            Ordered::Revert(_) | Ordered::Remove => !ended && step.state == StepState::Reverting,
            Ordered::Converge(_) => step.converging,
        };
        if !open {
            return None;
        }
        let back = |release| self.go(release, Purpose::Revert, false);
        let kind = match step.ordered {
            Ordered::Nothing => return None,
            Ordered::Stage => OrderKind::Stage { release: self.plan.release },
            Ordered::Forward => {
                let undo = self.plan.policy.auto_revert && matches!(step.previous, Previous::Release(_));
                self.go(self.plan.release, Purpose::Forward, undo)
            }
            Ordered::Confirm => OrderKind::Confirm,
            Ordered::Revert(release) => back(release),
            Ordered::Converge(release) => self.go(release, Purpose::Converge, false),
            Ordered::Remove => OrderKind::Remove,
        };
        let member = &self.plan.members[index];
        Some(Order {
            rollout: self.plan.rollout,
            target: self.plan.target.clone(),
            member: member.member,
            executor: member.executor,
            generation: step.generation,
            kind,
        })
    }

    fn go(&self, release: crate::ids::ReleaseId, purpose: Purpose, undo: bool) -> OrderKind {
        let policy = &self.plan.policy;
        // Going back takes one passing answer per process under traffic; everything else takes the whole gate.
        let short = purpose == Purpose::Revert || matches!(self.plan.kind, Kind::Revert { .. });
        OrderKind::Go(Go {
            release,
            purpose,
            undo,
            pace: Pace {
                min_healthy_time: if short { std::time::Duration::ZERO } else { policy.min_healthy_time },
                healthy_deadline: policy.healthy_deadline,
                confirm_deadline: policy.confirm_deadline,
                drain_timeout: policy.drain_timeout,
                kill_timeout: policy.kill_timeout,
            },
        })
    }

    fn wake_at(&self) -> Option<Timestamp> {
        let progress = if let Deadline::At(at) = self.next.progress_by { Some(at) } else { None };
        let bake = self.next.bake_until.filter(|at| *at > self.now);
        [progress, bake].into_iter().flatten().min()
    }
}
