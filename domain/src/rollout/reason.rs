//! Why a rollout is where it is: a stable code, with data for the text.

use std::fmt;

/// Why a rollout is where it is, or ended so.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub enum ReasonCode {
    /// More members failed than `max_fail`.
    MaxFail,
    /// No member turned healthy within `progress_deadline`.
    ProgressDeadline,
    /// More members are away than `max_unreachable`.
    HostUnreachable,
    /// A touched member has no release to go back to.
    NoPrevious,
    /// Staging was refused by a member.
    Preflight,
    /// The target was locked while it waited in the queue.
    TargetLocked,
    /// A person paused it.
    PausedByUser,
    /// A person cancelled it.
    CancelledByUser,
    /// A newer rollout took over.
    Superseded,
    /// The canary waits for a person.
    CanaryWaits,
    /// Some touched members could not go back.
    RevertIncomplete,
}

impl ReasonCode {
    /// Every code, for tables and tests.
    pub const ALL: [Self; 11] = [
        Self::MaxFail,
        Self::ProgressDeadline,
        Self::HostUnreachable,
        Self::NoPrevious,
        Self::Preflight,
        Self::TargetLocked,
        Self::PausedByUser,
        Self::CancelledByUser,
        Self::Superseded,
        Self::CanaryWaits,
        Self::RevertIncomplete,
    ];

    /// The stable code.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::MaxFail => "E_MAX_FAIL",
            Self::ProgressDeadline => "E_PROGRESS_DEADLINE",
            Self::HostUnreachable => "E_HOST_UNREACHABLE",
            Self::NoPrevious => "E_NO_PREVIOUS",
            Self::Preflight => "E_PREFLIGHT",
            Self::TargetLocked => "E_TARGET_LOCKED",
            Self::PausedByUser => "PAUSED_BY_USER",
            Self::CancelledByUser => "CANCELLED_BY_USER",
            Self::Superseded => "SUPERSEDED",
            Self::CanaryWaits => "CANARY_WAITS",
            Self::RevertIncomplete => "E_REVERT_INCOMPLETE",
        }
    }

    /// The reason with that code.
    #[must_use]
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.code() == code)
    }
}

/// A code with its text for people, frozen when it was given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reason {
    /// The code.
    pub code: ReasonCode,
    /// A finer stable code, for example `E_PREFLIGHT_DISK` or the cause of the first failure; empty if none.
    pub detail: String,
    /// One line.
    pub text: String,
}

impl Reason {
    /// A reason without a finer code.
    #[must_use]
    pub fn new(code: ReasonCode, text: impl Into<String>) -> Self {
        Self { code, detail: String::new(), text: text.into() }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = if self.detail.is_empty() { self.code.code() } else { &self.detail };
        write!(f, "{code}: {}", self.text)
    }
}
