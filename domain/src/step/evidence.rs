//! Why a step failed, as it is stored with the step and shown a month later.

use std::fmt;
use std::time::Duration;

use crate::name::Name;

/// Lines of an app's log that are kept with a failure.
pub const LOG_LINES: usize = 50;
/// Probe answers that are kept with a failure.
pub const ANSWERS: usize = 5;
/// Characters of one kept line or answer.
pub const LINE_CHARS: usize = 500;

/// Why a member failed. The code is stable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub enum Cause {
    /// `failures` failing answers in a row before the switch or while checking.
    HealthFailing,
    /// A process ended three times.
    CrashLoop,
    /// The engine would not start a process three times.
    StartFailed,
    /// No healthy verdict within `healthy_deadline`.
    HealthyDeadline,
    /// Healthy once, and failing while the rollout went on or baked.
    FailedLater,
    /// The host undid twice because no confirmation came.
    ConfirmTimeout,
    /// The release gone back to does not become healthy either.
    RevertFailed,
    /// There is no release to go back to.
    NoPrevious,
    /// The agent could not switch the relay or reach its engine.
    Engine,
}

impl Cause {
    /// Every cause, for tables and tests.
    pub const ALL: [Self; 9] = [
        Self::HealthFailing,
        Self::CrashLoop,
        Self::StartFailed,
        Self::HealthyDeadline,
        Self::FailedLater,
        Self::ConfirmTimeout,
        Self::RevertFailed,
        Self::NoPrevious,
        Self::Engine,
    ];

    /// The stable reason code.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::HealthFailing => "E_HEALTH_FAILING",
            Self::CrashLoop => "E_CRASH_LOOP",
            Self::StartFailed => "E_START_FAILED",
            Self::HealthyDeadline => "E_HEALTHY_DEADLINE",
            Self::FailedLater => "E_FAILED_LATER",
            Self::ConfirmTimeout => "E_CONFIRM_TIMEOUT",
            Self::RevertFailed => "E_REVERT_FAILED",
            Self::NoPrevious => "E_NO_PREVIOUS",
            Self::Engine => "E_ENGINE",
        }
    }

    /// The cause with that code.
    #[must_use]
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.code() == code)
    }
}

/// One answer of a probe.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// Before the failure by so much.
    pub before: Duration,
    /// Whether it counted as healthy.
    pub ok: bool,
    /// What was answered, for example `HTTP 500 {"error":…}` or `connection refused`; at most [`LINE_CHARS`].
    pub text: String,
}

/// Why a step failed, with what was seen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// Why.
    pub cause: Cause,
    /// The process that failed, if it was one.
    pub process: Option<Name>,
    /// One line: which gate, what was asked, what came.
    pub text: String,
    /// The last answers, oldest first, at most [`ANSWERS`].
    pub answers: Vec<Answer>,
    /// Of the last exit, if the process ended.
    pub exit_code: Option<i32>,
    /// Times the process ended within the step.
    pub restarts: u32,
    /// The process's last log lines, oldest first, at most [`LOG_LINES`] of [`LINE_CHARS`].
    pub log: Vec<String>,
}

impl Failure {
    /// A failure of which nothing more is known than its cause.
    #[must_use]
    pub fn bare(cause: Cause, text: impl Into<String>) -> Self {
        Self {
            cause,
            process: None,
            text: text.into(),
            answers: Vec::new(),
            exit_code: None,
            restarts: 0,
            log: Vec::new(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(process) = &self.process {
            write!(f, "{process}: ")?;
        }
        f.write_str(&self.text)?;
        if let Some(code) = self.exit_code {
            write!(f, " (exit code {code})")?;
        }
        Ok(())
    }
}

/// Keeps the last lines within the limits.
#[must_use]
pub fn bounded_log(lines: &[String]) -> Vec<String> {
    let from = lines.len().saturating_sub(LOG_LINES);
    lines[from..].iter().map(|line| line.chars().take(LINE_CHARS).collect()).collect()
}
