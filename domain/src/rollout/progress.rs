//! How far a rollout is: the whole of what is stored beside its plan.

use std::collections::BTreeSet;
use std::time::Duration;

use super::reason::Reason;
use crate::ids::{Generation, ReleaseId};
use crate::step::evidence::Failure;
use crate::step::report::Durations;
use crate::time::Timestamp;

/// The state of a rollout.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub enum RolloutState {
    /// Behind another rollout of its target.
    Queued,
    /// Staging on every member; nothing is touched.
    Preflight,
    /// Members are being changed.
    Running,
    /// A wave is done; gates stay armed.
    Baking,
    /// Nothing new starts; `holders` say why, `interrupted` where it goes on.
    Paused,
    /// Touched members go back.
    Reverting,
    /// Every member healthy, or within `max_fail`, or parked.
    Succeeded,
    /// Every touched member is back.
    Reverted,
    /// Some touched members could not go back yet.
    RevertIncomplete,
    /// Ended by a person or by preflight; touched members are back.
    Cancelled,
    /// A newer rollout goes on from here.
    Superseded,
}

impl RolloutState {
    /// Every state, for tables and tests.
    pub const ALL: [Self; 11] = [
        Self::Queued,
        Self::Preflight,
        Self::Running,
        Self::Baking,
        Self::Paused,
        Self::Reverting,
        Self::Succeeded,
        Self::Reverted,
        Self::RevertIncomplete,
        Self::Cancelled,
        Self::Superseded,
    ];

    /// Lower-case name, as stored and shown.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Preflight => "preflight",
            Self::Running => "running",
            Self::Baking => "baking",
            Self::Paused => "paused",
            Self::Reverting => "reverting",
            Self::Succeeded => "succeeded",
            Self::Reverted => "reverted",
            Self::RevertIncomplete => "revert-incomplete",
            Self::Cancelled => "cancelled",
            Self::Superseded => "superseded",
        }
    }

    /// The state of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    /// It never changes again.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Reverted | Self::RevertIncomplete | Self::Cancelled | Self::Superseded)
    }

    /// It holds its target: at most one rollout of a target is in such a state.
    #[must_use]
    pub const fn is_active(self) -> bool {
        !self.is_terminal() && !matches!(self, Self::Queued)
    }
}

/// Who holds a paused rollout. Several can.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub enum Holder {
    /// A person paused it.
    User,
    /// More members failed than `max_fail`, and `auto_revert` is false. `resume` tries the failed again.
    Failed,
    /// A touched member has no release to go back to. `resume` tries again, `cancel` removes it.
    NoPrevious,
    /// More members are away than `max_unreachable`; goes by itself when they are back.
    Unreachable,
    /// The canary is healthy and `auto_promote` is false.
    Canary,
}

impl Holder {
    /// Every holder, for tables and tests.
    pub const ALL: [Self; 5] = [Self::User, Self::Failed, Self::NoPrevious, Self::Unreachable, Self::Canary];

    /// Name as stored and shown.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Failed => "failed",
            Self::NoPrevious => "no_previous",
            Self::Unreachable => "unreachable",
            Self::Canary => "canary",
        }
    }

    /// The holder of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|holder| holder.name() == name)
    }
}

/// A deadline that stands still while the rollout is paused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deadline {
    /// Not armed.
    Off,
    /// At this instant.
    At(Timestamp),
    /// Paused with so much left.
    Left(Duration),
}

/// The whole of what is stored of a rollout beside its plan.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Progress {
    /// The state.
    pub state: RolloutState,
    /// Why it is in it, or why it ended so.
    pub reason: Option<Reason>,
    /// Where it goes on after a pause: Preflight, Running, Baking or Reverting.
    pub interrupted: Option<RolloutState>,
    /// Who holds it; empty unless paused.
    pub holders: BTreeSet<Holder>,
    /// A person asked to cancel.
    pub cancel_asked: bool,
    /// A newer rollout asked to go on from here.
    pub supersede_asked: bool,
    /// Who or what stands behind the last pause, cancel or supersede, for people.
    pub asked_by: String,
    /// The wave being changed, or baking.
    pub wave: u32,
    /// `progress_deadline`.
    pub progress_by: Deadline,
    /// Gates stay armed until then.
    pub bake_until: Option<Timestamp>,
    /// One per member, in the plan's order.
    pub steps: Vec<Step>,
}

impl Progress {
    /// A rollout that has just been asked for.
    #[must_use]
    pub fn queued(members: usize) -> Self {
        Self {
            state: RolloutState::Queued,
            reason: None,
            interrupted: None,
            holders: BTreeSet::new(),
            cancel_asked: false,
            supersede_asked: false,
            asked_by: String::new(),
            wave: 0,
            progress_by: Deadline::Off,
            bake_until: None,
            steps: vec![Step::default(); members],
        }
    }

    /// The state it is in, or goes on with after the pause.
    #[must_use]
    pub fn base(&self) -> RolloutState {
        match (self.state, self.interrupted) {
            (RolloutState::Paused, Some(state)) => state,
            (state, _) => state,
        }
    }

    /// Whether `decide` still has something to do: not ended, or ended with members that have yet to get what it ended on.
    #[must_use]
    pub fn needs_turns(&self) -> bool {
        if !self.state.is_terminal() {
            return true;
        }
        self.state != RolloutState::Superseded
            && self.steps.iter().any(|step| step.state == StepState::Parked || step.converging)
    }
}

/// The state of one member's part.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub enum StepState {
    /// Nothing was asked of it, or it waits for another try.
    Pending,
    /// The release lies ready on the host.
    Staged,
    /// Ordered to go; the new processes start.
    Starting,
    /// Every new process passed once; traffic is where it was.
    Warm,
    /// Traffic is on the new release.
    Switched,
    /// Under traffic, for `min_healthy_time`.
    Checking,
    /// The host's verdict is healthy and stored; the confirmation is on its way.
    Confirming,
    /// Confirmed on the new release.
    Healthy,
    /// Ordered back.
    Reverting,
    /// Back on the recorded release.
    Reverted,
    /// It failed and stays as it is.
    Failed,
    /// Away; gets what its rollout ended on when it is back. Counts in no percentage.
    Parked,
}

impl StepState {
    /// Every state, for tables and tests.
    pub const ALL: [Self; 12] = [
        Self::Pending,
        Self::Staged,
        Self::Starting,
        Self::Warm,
        Self::Switched,
        Self::Checking,
        Self::Confirming,
        Self::Healthy,
        Self::Reverting,
        Self::Reverted,
        Self::Failed,
        Self::Parked,
    ];

    /// Lower-case name, as stored and shown.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Staged => "staged",
            Self::Starting => "starting",
            Self::Warm => "warm",
            Self::Switched => "switched",
            Self::Checking => "checking",
            Self::Confirming => "confirming",
            Self::Healthy => "healthy",
            Self::Reverting => "reverting",
            Self::Reverted => "reverted",
            Self::Failed => "failed",
            Self::Parked => "parked",
        }
    }

    /// The state of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    /// A forward order is out and its end is not known.
    #[must_use]
    pub const fn in_flight(self) -> bool {
        matches!(self, Self::Starting | Self::Warm | Self::Switched | Self::Checking | Self::Confirming)
    }
}

/// What ran on a member when the first mutating order of the rollout was stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Previous {
    /// No mutating order was stored.
    #[default]
    Untouched,
    /// Nothing ran.
    Nothing,
    /// This release ran, settled.
    Release(ReleaseId),
}

/// Which order stands for a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Ordered {
    /// None.
    #[default]
    Nothing,
    /// Stage the rollout's release.
    Stage,
    /// Go to the rollout's release.
    Forward,
    /// Confirm the forward order of this generation.
    Confirm,
    /// Go back to this release.
    Revert(ReleaseId),
    /// Go to what the rollout ended on.
    Converge(ReleaseId),
    /// Back to nothing.
    Remove,
}

/// One member's part of a rollout.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// The state.
    pub state: StepState,
    /// Since when.
    pub since: Timestamp,
    /// The host has not been heard from under the current fence since then; what it runs goes on.
    pub unknown_since: Option<Timestamp>,
    /// Of the order that stands; rises with each.
    pub generation: Generation,
    /// The order that stands.
    pub ordered: Ordered,
    /// Forward orders so far, including the one that stands.
    pub attempt: u32,
    /// What ran before.
    pub previous: Previous,
    /// It counts against `max_fail`.
    pub failed: bool,
    /// Forward orders that the host undid because no confirmation came.
    pub undone: u32,
    /// An order to get what the rollout ended on stands.
    pub converging: bool,
    /// What was seen when it failed; kept for ever.
    pub failure: Option<Box<Failure>>,
    /// What each part took.
    pub durations: Durations,
    /// How long going back took, from the order stored to the report stored.
    pub reverted_in: Option<Duration>,
    /// Checking, and healthy without a break since about then, by the coordinator's clock; for people only.
    pub healthy_since: Option<Timestamp>,
    /// When the first mutating order was stored.
    pub touched_at: Option<Timestamp>,
}

impl Step {
    /// A mutating order was stored for it.
    #[must_use]
    pub fn touched(&self) -> bool {
        self.previous != Previous::Untouched
    }
}

impl Default for Step {
    fn default() -> Self {
        Self {
            state: StepState::Pending,
            since: Timestamp::default(),
            unknown_since: None,
            generation: Generation::default(),
            ordered: Ordered::Nothing,
            attempt: 0,
            previous: Previous::Untouched,
            failed: false,
            undone: 0,
            converging: false,
            failure: None,
            durations: Durations::default(),
            reverted_in: None,
            healthy_since: None,
            touched_at: None,
        }
    }
}
