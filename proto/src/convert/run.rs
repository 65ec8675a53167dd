//! Runs, as agents report them.

use domain::run::{CaseOutcome, Report, RunState, TestCase, Verdict};

use super::Error;
use crate::v1;

impl From<RunState> for v1::RunState {
    fn from(state: RunState) -> Self {
        match state {
            RunState::Queued => Self::Queued,
            RunState::Assigned => Self::Assigned,
            RunState::Preparing => Self::Preparing,
            RunState::Running => Self::Running,
            RunState::Finished => Self::Finished,
        }
    }
}

impl TryFrom<v1::RunState> for RunState {
    type Error = Error;

    fn try_from(state: v1::RunState) -> Result<Self, Error> {
        Ok(match state {
            v1::RunState::Unspecified => return Err(Error::Missing("run.state")),
            v1::RunState::Queued => Self::Queued,
            v1::RunState::Assigned => Self::Assigned,
            v1::RunState::Preparing => Self::Preparing,
            v1::RunState::Running => Self::Running,
            v1::RunState::Finished => Self::Finished,
        })
    }
}

impl From<Verdict> for v1::Verdict {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Passed => Self::Passed,
            Verdict::Failed => Self::Failed,
            Verdict::Errored => Self::Errored,
            Verdict::TimedOut => Self::TimedOut,
            Verdict::Cancelled => Self::Cancelled,
            Verdict::Interrupted => Self::Interrupted,
        }
    }
}

/// The verdict, if there is one yet.
#[must_use]
pub fn verdict(verdict: v1::Verdict) -> Option<Verdict> {
    Some(match verdict {
        v1::Verdict::Unspecified => return None,
        v1::Verdict::Passed => Verdict::Passed,
        v1::Verdict::Failed => Verdict::Failed,
        v1::Verdict::Errored => Verdict::Errored,
        v1::Verdict::TimedOut => Verdict::TimedOut,
        v1::Verdict::Cancelled => Verdict::Cancelled,
        v1::Verdict::Interrupted => Verdict::Interrupted,
    })
}

impl From<&Report> for v1::TestReport {
    fn from(report: &Report) -> Self {
        Self {
            total: report.total,
            failed: report.failed,
            errored: report.errored,
            skipped: report.skipped,
            failures: report.failures.iter().map(case_message).collect(),
            warnings: report.warnings.clone(),
        }
    }
}

fn case_message(case: &TestCase) -> v1::TestCase {
    let outcome = match case.outcome {
        CaseOutcome::Passed => v1::CaseOutcome::Passed,
        CaseOutcome::Failed => v1::CaseOutcome::Failed,
        CaseOutcome::Errored => v1::CaseOutcome::Errored,
        CaseOutcome::Skipped => v1::CaseOutcome::Skipped,
    };
    v1::TestCase {
        name: case.name.clone(),
        outcome: outcome.into(),
        micros: case.micros,
        message: case.message.clone(),
    }
}

impl TryFrom<v1::TestReport> for Report {
    type Error = Error;

    fn try_from(report: v1::TestReport) -> Result<Self, Error> {
        Ok(Self {
            total: report.total,
            failed: report.failed,
            errored: report.errored,
            skipped: report.skipped,
            failures: report.failures.into_iter().map(case).collect::<Result<_, _>>()?,
            warnings: report.warnings,
        })
    }
}

fn case(case: v1::TestCase) -> Result<TestCase, Error> {
    let outcome = match case.outcome() {
        v1::CaseOutcome::Unspecified => return Err(Error::Missing("case.outcome")),
        v1::CaseOutcome::Passed => CaseOutcome::Passed,
        v1::CaseOutcome::Failed => CaseOutcome::Failed,
        v1::CaseOutcome::Errored => CaseOutcome::Errored,
        v1::CaseOutcome::Skipped => CaseOutcome::Skipped,
    };
    Ok(TestCase { name: case.name, outcome, micros: case.micros, message: case.message })
}
