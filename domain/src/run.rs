//! One execution of named tests for one subject.

use std::time::Duration;

use crate::ids::{BuildId, EnvironmentId, HostId, PrincipalId, RunId, SeedId};
use crate::name::Name;
use crate::release::{Commit, Digest};
use crate::time::Timestamp;

/// What is tested.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Subject {
    /// A build: only such a run satisfies a gate that asks for that build.
    Build(BuildId),
    /// A tree at a commit.
    Tree,
}

/// State of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub enum RunState {
    /// Waits for a host.
    Queued,
    /// Given to a host.
    Assigned,
    /// The host checks out and brings the environment up.
    Preparing,
    /// The command runs.
    Running,
    /// Ended with a verdict.
    Finished,
}

/// The end of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub enum Verdict {
    /// Exit status 0, and the report (if one is declared) has no failure.
    Passed,
    /// The tests ran and some failed.
    Failed,
    /// Something around the tests failed: checkout, environment, report unreadable.
    Errored,
    /// The run's time or its no-output time was over.
    TimedOut,
    /// Somebody cancelled it.
    Cancelled,
    /// Its parent or the boot is gone, and with it the true outcome.
    Interrupted,
}

/// A failing or passing test case.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TestCase {
    /// `class::name` as the report has it.
    pub name: String,
    /// Outcome.
    pub outcome: CaseOutcome,
    /// How long it took, microseconds.
    pub micros: u64,
    /// First line of the failure.
    pub message: String,
}

/// Outcome of a test case.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub enum CaseOutcome {
    /// Passed.
    Passed,
    /// An assertion failed.
    Failed,
    /// It broke otherwise.
    Errored,
    /// It was not run.
    Skipped,
}

/// Counts and failures read from JUnit files.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// Number of cases.
    pub total: u64,
    /// Failed assertions.
    pub failed: u64,
    /// Broken otherwise.
    pub errored: u64,
    /// Not run.
    pub skipped: u64,
    /// Failing cases, at most 200.
    pub failures: Vec<TestCase>,
    /// What was strange about the files.
    pub warnings: Vec<String>,
}

/// How the test command ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ended {
    /// It ended by itself.
    Exited(i32),
    /// A signal from outside ended it.
    Signalled(i32),
    /// The run's limit was over.
    TimedOut,
    /// No byte of output for too long.
    NoOutput,
    /// Cancelled.
    Cancelled,
    /// It never began: reason code and text.
    NotStarted(String, String),
    /// Its parent or the boot is gone.
    Lost,
}

/// Whether a report was declared, and what came of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReportOutcome {
    /// None declared.
    NotDeclared,
    /// Read.
    Read(Report),
    /// Declared and missing, or unreadable: why.
    Unreadable(String),
}

/// The verdict, and its reason code where it is not simply passed or failed.
///
/// A lost outcome is never guessed; a declared report that is missing or contradicts a good exit status is never a pass.
#[must_use]
pub fn verdict(ended: &Ended, report: &ReportOutcome) -> (Verdict, Option<&'static str>) {
    match ended {
        Ended::Lost => (Verdict::Interrupted, Some("E_RUN_INTERRUPTED")),
        Ended::Cancelled => (Verdict::Cancelled, Some("E_RUN_CANCELLED")),
        Ended::TimedOut => (Verdict::TimedOut, Some("E_RUN_TIMEOUT")),
        Ended::NoOutput => (Verdict::TimedOut, Some("E_RUN_NO_OUTPUT")),
        Ended::NotStarted(..) => (Verdict::Errored, Some("E_RUN_NOT_STARTED")),
        Ended::Signalled(_) => (Verdict::Failed, Some("E_RUN_SIGNALLED")),
        Ended::Exited(0) => match report {
            ReportOutcome::NotDeclared => (Verdict::Passed, None),
            ReportOutcome::Unreadable(_) => (Verdict::Errored, Some("E_RUN_REPORT_UNREADABLE")),
            ReportOutcome::Read(read) if read.total == 0 => (Verdict::Errored, Some("E_RUN_NO_TESTS")),
            ReportOutcome::Read(read) if read.failed + read.errored > 0 => {
                (Verdict::Failed, Some("E_RUN_REPORT_CONTRADICTS"))
            }
            ReportOutcome::Read(_) => (Verdict::Passed, None),
        },
        Ended::Exited(_) => (Verdict::Failed, None),
    }
}

/// The seed that a run's environment begins with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RunSeed {
    /// The seed.
    pub id: SeedId,
    /// Its address, for people: `NAME@VERSION`.
    pub address: String,
    /// Its digest.
    pub digest: Digest,
}

/// One execution of named tests.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// The app.
    pub app: Name,
    /// The name of its tests.
    pub tests: Name,
    /// What is tested.
    pub subject: Subject,
    /// The commit checked out.
    pub commit: Commit,
    /// Where the agent fetches the commit from.
    pub repository: String,
    /// `muster.yaml` at that commit, as the caller sent it; the agent checks it against the checkout.
    pub manifest: String,
    /// Who started it.
    pub owner: PrincipalId,
    /// Where it runs.
    pub host: Option<HostId>,
    /// The fresh environment made for it.
    pub environment: Option<EnvironmentId>,
    /// What its environment begins with; none: empty data, or that is not known yet.
    pub seed: Option<RunSeed>,
    /// State.
    pub state: RunState,
    /// Cancel was asked for.
    pub cancel: bool,
    /// The verdict once finished.
    pub verdict: Option<Verdict>,
    /// Reason code and text where it is not simply passed or failed.
    pub reason: Option<(String, String)>,
    /// Exit status of the command.
    pub exit_code: Option<i32>,
    /// Counts and failures.
    pub report: Option<Report>,
    /// When it was started by its owner.
    pub created_at: Timestamp,
    /// When it was given to the host.
    pub assigned_at: Option<Timestamp>,
    /// When the first line of log came.
    pub first_line_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// How long the command ran.
    pub took: Option<Duration>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(total: u64, failed: u64) -> ReportOutcome {
        ReportOutcome::Read(Report { total, failed, ..Report::default() })
    }

    #[test]
    fn only_a_good_exit_with_a_good_report_passes() {
        assert_eq!(verdict(&Ended::Exited(0), &report(3, 0)).0, Verdict::Passed);
        assert_eq!(verdict(&Ended::Exited(0), &report(3, 1)).0, Verdict::Failed);
        assert_eq!(verdict(&Ended::Exited(0), &report(0, 0)).0, Verdict::Errored);
        assert_eq!(verdict(&Ended::Exited(1), &report(3, 0)).0, Verdict::Failed);
        assert_eq!(verdict(&Ended::Exited(0), &ReportOutcome::Unreadable(String::new())).0, Verdict::Errored);
    }

    #[test]
    fn a_lost_outcome_is_never_guessed() {
        assert_eq!(verdict(&Ended::Lost, &report(3, 0)).0, Verdict::Interrupted);
    }
}
