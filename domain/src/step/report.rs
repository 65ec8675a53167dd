//! What an agent tells about one target: its whole state, every time, so that a lost report needs nothing special.

use std::fmt;
use std::time::Duration;

use super::evidence::Failure;
use super::journal::{Settled, StepPhase, Verdict};
use crate::ids::{Generation, ReleaseId};

/// Orders reports of one agent: a later start of the agent, then a later report, is newer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Stamp {
    /// Starts of the agent, counted in its state.
    pub run: u64,
    /// Reports since that start.
    pub number: u64,
}

/// One agent's state of one target.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// Orders reports.
    pub stamp: Stamp,
    /// Highest accepted order.
    pub generation: Generation,
    /// The settled release; none: nothing runs.
    pub current: Option<ReleaseId>,
    /// Where the relay leads traffic now.
    pub routed: Option<ReleaseId>,
    /// The last `Stage`.
    pub stage: Option<StageReport>,
    /// The last `Go`.
    pub step: Option<StepReport>,
    /// Of the processes that serve now.
    pub health: HealthNow,
    /// What shall serve does: its processes run and traffic is led to it.
    pub serving: bool,
    /// Serving, and everything that is not wanted is gone.
    pub quiet: bool,
}

impl Report {
    /// The releases that the host has something of: what runs, what traffic is led to, what was staged or gone to last.
    pub fn releases(&self) -> impl Iterator<Item = ReleaseId> {
        let staged = self.stage.as_ref().map(|stage| stage.release);
        let gone_to = self.step.as_ref().map(|step| step.to);
        [self.current, self.routed, staged, gone_to].into_iter().flatten()
    }
}

/// A `Stage` as reported.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StageReport {
    /// Its generation.
    pub generation: Generation,
    /// What was staged.
    pub release: ReleaseId,
    /// How it ended; none: under way.
    pub outcome: Option<StageOutcome>,
    /// How long it took.
    pub took: Option<Duration>,
}

/// How staging ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StageOutcome {
    /// Artifact here, its digest checked; room for both generations.
    Ready,
    /// It cannot run here.
    Refused(StageRefusal),
}

/// Why a release cannot be staged on a host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StageRefusal {
    /// Which check.
    pub check: StageCheck,
    /// What was found, for people.
    pub text: String,
}

/// The checks of preflight.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub enum StageCheck {
    /// The artifact cannot be fetched or its digest is another.
    Artifact,
    /// Too little disk.
    Disk,
    /// Too little memory for both generations.
    Memory,
    /// A published port belongs to somebody else.
    Port,
    /// The host's local policy forbids it.
    Policy,
    /// The container engine does not answer.
    Engine,
}

impl StageCheck {
    /// Every check, for tables and tests.
    pub const ALL: [Self; 6] = [Self::Artifact, Self::Disk, Self::Memory, Self::Port, Self::Policy, Self::Engine];

    /// The stable reason code.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Artifact => "E_PREFLIGHT_ARTIFACT",
            Self::Disk => "E_PREFLIGHT_DISK",
            Self::Memory => "E_PREFLIGHT_MEMORY",
            Self::Port => "E_PREFLIGHT_PORT",
            Self::Policy => "E_PREFLIGHT_POLICY",
            Self::Engine => "E_PREFLIGHT_ENGINE",
        }
    }

    /// The check with that code.
    #[must_use]
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|check| check.code() == code)
    }
}

/// A `Go` as reported.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StepReport {
    /// Its generation.
    pub generation: Generation,
    /// What it moves to.
    pub to: ReleaseId,
    /// How far it is.
    pub phase: StepPhase,
    /// Every process passed once before the switch.
    pub warm: bool,
    /// The agent's own verdict.
    pub verdict: Option<Verdict>,
    /// How it ended in the journal.
    pub settled: Option<Settled>,
    /// Healthy for so long, while checking.
    pub healthy_for: Option<Duration>,
    /// What each part took.
    pub durations: Durations,
}

/// What the parts of a step took, by the agent's clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Durations {
    /// Loading and checking the artifact.
    pub staged: Option<Duration>,
    /// From the first effect until every process passed once.
    pub warm: Option<Duration>,
    /// The switch itself.
    pub switched: Option<Duration>,
    /// From the switch to the verdict.
    pub checked: Option<Duration>,
    /// From the verdict to the confirmation.
    pub confirmed: Option<Duration>,
}

/// Health of what serves now.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum HealthNow {
    /// Nothing runs, or no answer since the agent's start.
    #[default]
    Unknown,
    /// Every process passed last time.
    Passing,
    /// `failures` failing answers in a row, or a crash loop.
    Failing(Box<Failure>),
}

/// Why an agent did not take an order. It answers with its report all the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// A higher generation was taken before.
    Stale {
        /// The generation held.
        held: Generation,
    },
    /// The same generation with another order.
    Conflict,
    /// A confirmation of a generation this host never took.
    NeverTaken,
    /// An order with a release came without its processes.
    NoWork,
}

impl Refusal {
    /// The stable reason code.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Stale { .. } => "E_ORDER_STALE",
            Self::Conflict => "E_ORDER_CONFLICT",
            Self::NeverTaken => "E_ORDER_NEVER_TAKEN",
            Self::NoWork => "E_ORDER_WITHOUT_RELEASE",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stale { held } => write!(f, "a newer order (generation {}) was taken before", held.0),
            Self::Conflict => f.write_str("another order of the same generation was taken before"),
            Self::NeverTaken => f.write_str("the confirmed order was never taken here"),
            Self::NoWork => f.write_str("the order names a release and does not say what runs"),
        }
    }
}
