//! What one turn of a rollout comes to.

use super::progress::{Progress, RolloutState, StepState};
use super::reason::Reason;
use super::reports::Lock;
use super::waiting::Waiting;
use crate::ids::HostId;
use crate::step::evidence::Failure;
use crate::step::order::Order;
use crate::time::Timestamp;

/// What one turn comes to. Store `next`, `notes` and `lock` in one transaction; send `commands` only after it committed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decision {
    /// What to store.
    pub next: Progress,
    /// The desired order of every reachable member that has one, again each turn with the same generation.
    pub commands: Vec<Order>,
    /// What it waits for, or why it ended.
    pub waiting: Waiting,
    /// Look again then, if nothing wakes the loop before.
    pub wake_at: Option<Timestamp>,
    /// What changed, for the ledger.
    pub notes: Vec<Note>,
    /// Lock the target.
    pub lock: Option<Lock>,
}

/// One change, for the ledger.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Note {
    /// The rollout changed its state.
    State {
        /// Before.
        from: RolloutState,
        /// After.
        to: RolloutState,
        /// Why, if there is a reason.
        reason: Option<Reason>,
    },
    /// A member changed its state.
    Step {
        /// The member.
        member: HostId,
        /// Before.
        from: StepState,
        /// After.
        to: StepState,
        /// Why it failed.
        failure: Option<Box<Failure>>,
    },
    /// A gate passed: every member up to this wave is healthy, or within what may fail.
    WavePassed {
        /// The wave, from 0.
        wave: u32,
    },
}

impl Note {
    /// The ledger's kind.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::WavePassed { .. } => "rollout.wave_passed",
            Self::State { to, .. } => match to {
                RolloutState::Queued => "rollout.queued",
                RolloutState::Preflight => "rollout.preflight",
                RolloutState::Running => "rollout.running",
                RolloutState::Baking => "rollout.baking",
                RolloutState::Paused => "rollout.paused",
                RolloutState::Reverting => "rollout.reverting",
                RolloutState::Succeeded => "rollout.succeeded",
                RolloutState::Reverted => "rollout.reverted",
                RolloutState::RevertIncomplete => "rollout.revert_incomplete",
                RolloutState::Cancelled => "rollout.cancelled",
                RolloutState::Superseded => "rollout.superseded",
            },
            Self::Step { to, .. } => match to {
                StepState::Pending => "rollout.step_pending",
                StepState::Staged => "rollout.step_staged",
                StepState::Starting => "rollout.step_started",
                StepState::Warm => "rollout.step_warm",
                StepState::Switched => "rollout.step_switched",
                StepState::Checking => "rollout.step_checking",
                StepState::Confirming => "rollout.step_confirming",
                StepState::Healthy => "rollout.step_healthy",
                StepState::Reverting => "rollout.step_reverting",
                StepState::Reverted => "rollout.step_reverted",
                StepState::Failed => "rollout.step_failed",
                StepState::Parked => "rollout.step_parked",
            },
        }
    }
}
