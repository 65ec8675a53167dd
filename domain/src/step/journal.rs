//! What an agent keeps of one target on disk: enough to go on from any instant with what the engine shows.

use std::time::Duration;

use uuid::Uuid;

use super::evidence::Failure;
use super::order::{OrderKind, Pace, Purpose, Work};
use super::report::{Durations, StageOutcome};
use crate::ids::{Generation, ReleaseId, RolloutId};

/// One boot of a host.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct BootId(pub Uuid);

/// An instant of a host's boot clock (`CLOCK_BOOTTIME`): comparable within one boot only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BootTime {
    /// The boot.
    pub boot: BootId,
    /// Since that boot.
    pub at: Duration,
}

impl BootTime {
    /// Time from `earlier` to this instant: zero if it lies after, none if it belongs to another boot.
    #[must_use]
    pub fn since(self, earlier: Self) -> Option<Duration> {
        (self.boot == earlier.boot).then(|| self.at.saturating_sub(earlier.at))
    }
}

/// The durable state of one target on one host. Written (fsync) whenever the machine says `Persist`, before any
/// later action is performed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Slot {
    /// Highest accepted.
    pub generation: Generation,
    /// The rollout of that order.
    pub rollout: Option<RolloutId>,
    /// The accepted order of that generation (never `Confirm`).
    pub order: Option<OrderKind>,
    /// The settled release: what runs here when nothing is being changed.
    pub current: Option<Work>,
    /// The last `Stage`.
    pub stage: Option<StageRecord>,
    /// The last `Go`; stays after it is settled, as the answer for ever.
    pub step: Option<StepRecord>,
    /// Other releases of which containers may still exist.
    pub leftovers: Vec<Work>,
}

/// One accepted `Stage`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StageRecord {
    /// Its generation.
    pub generation: Generation,
    /// What is staged.
    pub work: Work,
    /// How it ended; none: under way.
    pub outcome: Option<StageOutcome>,
    /// How long it took.
    pub took: Option<Duration>,
}

/// One accepted `Go`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StepRecord {
    /// Its generation.
    pub generation: Generation,
    /// Why it was given.
    pub purpose: Purpose,
    /// What shall run.
    pub to: Work,
    /// What ran before, by the agent's own knowledge: where an undo goes.
    pub from: Option<ReleaseId>,
    /// Undo without an order.
    pub undo: bool,
    /// Its deadlines.
    pub pace: Pace,
    /// How far it is.
    pub phase: StepPhase,
    /// First effect, in the boot that counts.
    pub begun: BootTime,
    /// When the switch was complete.
    pub switched: Option<BootTime>,
    /// The agent's own verdict.
    pub verdict: Option<Verdict>,
    /// When it was given: `confirm_deadline` counts from here.
    pub decided: Option<BootTime>,
    /// Exactly one, written once.
    pub settled: Option<Settled>,
    /// Reboots within this step; the second undoes.
    pub reboots: u32,
    /// What each part took.
    pub durations: Durations,
}

/// How far a step is, as written to the journal before the effects of that phase.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub enum StepPhase {
    /// The new processes are started beside the old and become warm; traffic is where it was.
    Starting,
    /// The undo is journaled; processes without overlap change over, then the relay.
    Switching,
    /// Under traffic, the old still beside it.
    Checking,
    /// The verdict is given; waits for a confirmation or another order.
    Decided,
    /// `settled` is written; what is not wanted any more drains and stops.
    Settled,
}

/// The agent's own verdict on a step.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Every process healthy for `min_healthy_time` after the switch.
    Healthy,
    /// It failed.
    Failed(Box<Failure>),
}

impl Verdict {
    /// Whether it is healthy.
    #[must_use]
    pub const fn is_healthy(&self) -> bool {
        matches!(self, Self::Healthy)
    }
}

/// How a step ended in the journal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub enum Settled {
    /// The new release stays.
    Confirmed,
    /// The host went back by itself.
    Undone,
}
