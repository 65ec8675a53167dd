//! From the job's end and the reports to the verdict.

use std::fs::File;
use std::time::Duration;

use domain::run::{Ended, ReportOutcome, Verdict, verdict};
use proto::v1;

use super::record::{Folder, Record};
use crate::environments::failure::Failure;
use crate::job::{How, State, Status};
use crate::junit::{self, Limits, Pattern, Reading};

/// What came of a run.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) ended: Ended,
    pub(super) report: ReportOutcome,
    pub(super) took: Duration,
    /// Remarks of the job.
    pub(super) notes: Vec<String>,
    pub(super) out_of_memory: bool,
}

impl Outcome {
    /// It ended before the command began.
    pub(super) fn early(ended: Ended) -> Self {
        let report = ReportOutcome::NotDeclared;
        Self { ended, report, took: Duration::ZERO, notes: Vec::new(), out_of_memory: false }
    }

    pub(super) fn failed(why: Failure) -> Self {
        Self::early(Ended::NotStarted(why.code, why.text))
    }

    /// What the job tells, and the reports it kept.
    pub(super) fn of(state: State, record: &Record, folder: &Folder) -> Self {
        let State::Ended(status) = state else { return Self::early(Ended::Lost) };
        let ended = ended(&status, record.cancel);
        let report = report(&ended, &status, record, folder);
        let took = Duration::from_micros(status.took_micros());
        Self { ended, report, took, notes: status.notes, out_of_memory: status.out_of_memory }
    }

    /// As it is told.
    pub(super) fn message(&self, record: &Record) -> v1::RunReport {
        let (verdict, code) = verdict(&self.ended, &self.report);
        let report = match &self.report {
            ReportOutcome::Read(report) => Some(v1::TestReport::from(report)),
            ReportOutcome::NotDeclared | ReportOutcome::Unreadable(_) => None,
        };
        let exit = match self.ended {
            Ended::Exited(code) => Some(code),
            _ => None,
        };
        v1::RunReport {
            id: record.order.id.clone(),
            state: v1::RunState::Finished.into(),
            verdict: v1::Verdict::from(verdict).into(),
            reason: self.reason(verdict, code, record),
            exit_code: exit.unwrap_or_default(),
            exited: exit.is_some(),
            report,
            took_micros: proto::convert::micros(self.took),
            detail: String::new(),
            result: super::result_id(&record.order.id),
            seed: String::new(),
            first_line: false,
        }
    }

    fn reason(&self, verdict: Verdict, code: Option<&'static str>, record: &Record) -> Option<v1::Reason> {
        let limit = |duration: Duration| manifest::duration::human(duration);
        let mut text = match (&self.ended, &self.report) {
            (Ended::NotStarted(code, text), _) => {
                return Some(v1::Reason { code: code.clone(), text: text.clone() });
            }
            (Ended::Lost, _) => "the job or the boot is gone, and with it the true outcome; run it again".to_owned(),
            (Ended::Cancelled, _) => "cancelled".to_owned(),
            (Ended::TimedOut, _) => {
                format!("the command ran for longer than its timeout of {}", limit(record.limits.0))
            }
            (Ended::NoOutput, _) => format!("the command printed nothing for {}", limit(record.limits.1)),
            (Ended::Signalled(signal), _) => format!("the command was ended by signal {signal}"),
            (Ended::Exited(_), ReportOutcome::Unreadable(why)) if verdict == Verdict::Errored => {
                format!("the command succeeded, but its report cannot be trusted: {why}")
            }
            (Ended::Exited(_), ReportOutcome::Read(report)) if verdict == Verdict::Errored => {
                format!("the command succeeded, but its report names {} tests", report.total)
            }
            (Ended::Exited(_), ReportOutcome::Read(report)) if code.is_some() => {
                let bad = report.failed + report.errored;
                format!("the command succeeded, but its report has {bad} failing tests")
            }
            (Ended::Exited(status), _) if self.out_of_memory => {
                format!("the command exited with {status} after the kernel had killed for want of memory")
            }
            (Ended::Exited(_), _) => String::new(),
        };
        let code = match code {
            Some(code) => code,
            None if self.out_of_memory => "E_RUN_OUT_OF_MEMORY",
            None => return None,
        };
        for note in &self.notes {
            text.push_str("; ");
            text.push_str(note);
        }
        Some(v1::Reason { code: code.to_owned(), text })
    }
}

fn ended(status: &Status, cancelled: bool) -> Ended {
    match &status.how {
        How::Exited(code) => Ended::Exited(*code),
        How::Signalled(signal) => Ended::Signalled(*signal),
        How::TimedOut => Ended::TimedOut,
        How::NoOutput => Ended::NoOutput,
        How::Cancelled => Ended::Cancelled,
        How::Stopped if cancelled => Ended::Cancelled,
        // A shutdown ended it: what the tests would have said is not known.
        How::Stopped | How::Lost { .. } => Ended::Lost,
        How::NotStarted { code, text } => Ended::NotStarted(code.clone(), text.clone()),
    }
}

fn report(ended: &Ended, status: &Status, record: &Record, folder: &Folder) -> ReportOutcome {
    let Some(text) = &record.junit else { return ReportOutcome::NotDeclared };
    let pattern = match Pattern::parse(text) {
        Ok(pattern) => pattern,
        Err(why) => return ReportOutcome::Unreadable(why.to_string()),
    };
    if let Some(why) = &status.collect_failed {
        return ReportOutcome::Unreadable(format!("it could not be taken out of the container: {why}"));
    }
    let (reading, files) = match File::open(folder.job().join("collected.tar")) {
        Ok(tar) => junit::read_archive(tar, &pattern, status.started_unix, Limits::default()),
        Err(_) => (Reading::default(), 0),
    };
    if files == 0 {
        return ReportOutcome::Unreadable(format!("no file matches {text}"));
    }
    match reading.broken {
        // A good exit is not enough where the report is broken; a bad one is bad with what could be read.
        Some(why) if *ended == Ended::Exited(0) => ReportOutcome::Unreadable(why),
        _ => ReportOutcome::Read(reading.report),
    }
}

/// A run that never began.
pub(super) fn refused(id: &str, verdict: v1::Verdict, code: &str, text: &str) -> v1::RunReport {
    v1::RunReport {
        id: id.to_owned(),
        state: v1::RunState::Finished.into(),
        verdict: verdict.into(),
        reason: Some(v1::Reason { code: code.to_owned(), text: text.to_owned() }),
        result: super::result_id(id),
        ..Default::default()
    }
}
