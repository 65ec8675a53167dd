//! Stored shape of a run's report.

use domain::run::{CaseOutcome, Report, TestCase};

use super::document;

document!(Report => ReportShape {
    total: u64,
    failed: u64,
    errored: u64,
    skipped: u64,
    failures: Vec<TestCase>,
    warnings: Vec<String>,
});

document!(TestCase => TestCaseShape {
    name: String,
    outcome: CaseOutcome,
    micros: u64,
    message: String,
});
