//! Steps of rollouts: orders to agents, and their reports.

use std::time::Duration;

use domain::health::{HealthCheck, Probe};
use domain::ids::{Generation, ReleaseId};
use domain::name::{Name, TargetRef};
use domain::release::Release;
use domain::step::evidence::{ANSWERS, Answer, Cause, Failure, LINE_CHARS, bounded_log};
use domain::step::journal::{Settled, StepPhase, Verdict};
use domain::step::order::{Go, Order, OrderKind, Pace, ProcessWork, Purpose, Work};
use domain::step::report::{
    Durations, HealthNow, Report, StageCheck, StageOutcome, StageRefusal, StageReport, Stamp, StepReport,
};

use super::{Error, duration, id, micros, optional};
use crate::v1;

/// An order as an agent gets it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ordered {
    /// The order.
    pub order: Order,
    /// Of `Stage` and `Go`: what to run.
    pub work: Option<OrderedRelease>,
    /// Artifacts of so many releases stay on the host.
    pub retain_releases: u32,
}

/// What an order asks to run on its member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OrderedRelease {
    /// The release.
    pub release: Release,
    /// Those of its processes that run on this member.
    pub processes: Vec<Name>,
}

impl OrderedRelease {
    /// As the step machine sees it.
    #[must_use]
    pub fn work(&self) -> Work {
        let release = &self.release;
        let one = |name: &Name| {
            let process = release.processes.get(name)?;
            Some(ProcessWork {
                name: name.clone(),
                overlap: process.overlap,
                exposed: release.expose.iter().any(|expose| expose.process == *name),
                health: process.health.clone().unwrap_or_else(|| HealthCheck::new(Probe::Container)),
            })
        };
        Work { release: release.id, number: release.number, processes: self.processes.iter().filter_map(one).collect() }
    }
}

impl From<&Ordered> for v1::StepOrder {
    fn from(ordered: &Ordered) -> Self {
        let order = &ordered.order;
        let mut message = Self {
            rollout: order.rollout.to_string(),
            target: order.target.to_string(),
            member: order.member.to_string(),
            executor: order.executor.to_string(),
            generation: order.generation.0,
            retain_releases: ordered.retain_releases,
            ..Self::default()
        };
        if let Some(work) = &ordered.work {
            message.release = Some((&work.release).into());
            message.processes = work.processes.iter().map(ToString::to_string).collect();
        }
        let kind = match &order.kind {
            OrderKind::Stage { .. } => v1::StepOrderKind::Stage,
            OrderKind::Confirm => v1::StepOrderKind::Confirm,
            OrderKind::Remove => v1::StepOrderKind::Remove,
            OrderKind::Go(go) => {
                let purpose = match go.purpose {
                    Purpose::Forward => v1::StepPurpose::Forward,
                    Purpose::Revert => v1::StepPurpose::Revert,
                    Purpose::Converge => v1::StepPurpose::Converge,
                };
                message.purpose = purpose.into();
                message.undo = go.undo;
                message.min_healthy_micros = micros(go.pace.min_healthy_time);
                message.healthy_deadline_micros = micros(go.pace.healthy_deadline);
                message.confirm_deadline_micros = micros(go.pace.confirm_deadline);
                message.drain_timeout_micros = micros(go.pace.drain_timeout);
                message.kill_timeout_micros = micros(go.pace.kill_timeout);
                v1::StepOrderKind::Go
            }
        };
        message.kind = kind.into();
        message
    }
}

impl TryFrom<v1::StepOrder> for Ordered {
    type Error = Error;

    fn try_from(message: v1::StepOrder) -> Result<Self, Error> {
        let (code, purpose) = (message.kind(), message.purpose());
        let work = match message.release {
            None => None,
            Some(spec) => {
                let release: Release = spec.try_into()?;
                let processes = message
                    .processes
                    .iter()
                    .map(|name| {
                        let name = Name::new("process", name).map_err(|why| Error::invalid("step.processes", why))?;
                        if release.processes.contains_key(&name) {
                            Ok(name)
                        } else {
                            Err(Error::invalid("step.processes", format!("the release has no process {name}")))
                        }
                    })
                    .collect::<Result<_, _>>()?;
                Some(OrderedRelease { release, processes })
            }
        };
        let release = work.as_ref().map(|work| work.release.id).ok_or(Error::Missing("step.release"));
        let kind = match code {
            v1::StepOrderKind::Unspecified => return Err(Error::Missing("step.kind")),
            v1::StepOrderKind::Confirm => OrderKind::Confirm,
            v1::StepOrderKind::Remove => OrderKind::Remove,
            v1::StepOrderKind::Stage => OrderKind::Stage { release: release? },
            v1::StepOrderKind::Go => OrderKind::Go(Go {
                release: release?,
                purpose: match purpose {
                    v1::StepPurpose::Unspecified => return Err(Error::Missing("step.purpose")),
                    v1::StepPurpose::Forward => Purpose::Forward,
                    v1::StepPurpose::Revert => Purpose::Revert,
                    v1::StepPurpose::Converge => Purpose::Converge,
                },
                undo: message.undo,
                pace: Pace {
                    min_healthy_time: duration(message.min_healthy_micros),
                    healthy_deadline: duration(message.healthy_deadline_micros),
                    confirm_deadline: duration(message.confirm_deadline_micros),
                    drain_timeout: duration(message.drain_timeout_micros),
                    kill_timeout: duration(message.kill_timeout_micros),
                },
            }),
        };
        let order = Order {
            rollout: id("step.rollout", &message.rollout)?,
            target: TargetRef::parse(&message.target).map_err(|why| Error::invalid("step.target", why))?,
            member: id("step.member", &message.member)?,
            executor: id("step.executor", &message.executor)?,
            generation: Generation(message.generation),
            kind,
        };
        Ok(Self { order, work, retain_releases: message.retain_releases })
    }
}

impl From<&Failure> for v1::Evidence {
    fn from(failure: &Failure) -> Self {
        let process = failure.process.as_ref().map(ToString::to_string).unwrap_or_default();
        let gate = if process.is_empty() { "health".to_owned() } else { format!("health of {process}") };
        Self {
            code: failure.cause.code().to_owned(),
            gate,
            process,
            text: failure.text.clone(),
            answers: failure.answers.iter().map(Into::into).collect(),
            exited: failure.exit_code.is_some(),
            exit_code: failure.exit_code.unwrap_or(0),
            restarts: failure.restarts,
            log: failure.log.clone(),
        }
    }
}

impl From<&Answer> for v1::ProbeAnswer {
    fn from(answer: &Answer) -> Self {
        Self { healthy: answer.ok, text: answer.text.clone(), before_micros: micros(answer.before) }
    }
}

impl TryFrom<v1::Evidence> for Failure {
    type Error = Error;

    fn try_from(evidence: v1::Evidence) -> Result<Self, Error> {
        let process = optional(&evidence.process)
            .map(|name| Name::new("process", &name).map_err(|why| Error::invalid("evidence.process", why)))
            .transpose()?;
        let cut = |text: String| -> String { text.chars().take(LINE_CHARS).collect() };
        let surplus = evidence.answers.len().saturating_sub(ANSWERS);
        let answers = evidence.answers.into_iter().skip(surplus).map(|answer| Answer {
            before: duration(answer.before_micros),
            ok: answer.healthy,
            text: cut(answer.text),
        });
        Ok(Self {
            cause: Cause::from_code(&evidence.code)
                .ok_or_else(|| Error::invalid("evidence.code", "an unknown cause"))?,
            process,
            text: cut(evidence.text),
            answers: answers.collect(),
            exit_code: evidence.exited.then_some(evidence.exit_code),
            restarts: evidence.restarts,
            log: bounded_log(&evidence.log),
        })
    }
}

/// A report as it travels.
#[must_use]
pub fn report(target: &TargetRef, report: &Report, result: &str) -> v1::StepReport {
    let (health, failing) = match &report.health {
        HealthNow::Unknown => (v1::HealthNow::Unknown, None),
        HealthNow::Passing => (v1::HealthNow::Passing, None),
        HealthNow::Failing(failure) => (v1::HealthNow::Failing, Some((&**failure).into())),
    };
    v1::StepReport {
        target: target.to_string(),
        generation: report.generation.0,
        stamp_run: report.stamp.run,
        stamp_number: report.stamp.number,
        current: release_text(report.current),
        routed: release_text(report.routed),
        stage: report.stage.as_ref().map(Into::into),
        step: report.step.as_ref().map(Into::into),
        health: health.into(),
        failing,
        serving: report.serving,
        quiet: report.quiet,
        result: result.to_owned(),
    }
}

fn release_text(release: Option<ReleaseId>) -> String {
    release.map(|id| id.to_string()).unwrap_or_default()
}

impl From<&StageReport> for v1::StageProgress {
    fn from(stage: &StageReport) -> Self {
        let (refused, text) = match &stage.outcome {
            Some(StageOutcome::Refused(refusal)) => (refusal.check.code().to_owned(), refusal.text.clone()),
            Some(StageOutcome::Ready) | None => (String::new(), String::new()),
        };
        Self {
            generation: stage.generation.0,
            release: stage.release.to_string(),
            ended: stage.outcome.is_some(),
            refused,
            text,
            took_micros: stage.took.map_or(0, micros),
        }
    }
}

impl TryFrom<v1::StageProgress> for StageReport {
    type Error = Error;

    fn try_from(stage: v1::StageProgress) -> Result<Self, Error> {
        let outcome = match (stage.ended, optional(&stage.refused)) {
            (false, _) => None,
            (true, None) => Some(StageOutcome::Ready),
            (true, Some(code)) => Some(StageOutcome::Refused(StageRefusal {
                check: StageCheck::from_code(&code)
                    .ok_or_else(|| Error::invalid("stage.refused", "an unknown check"))?,
                text: stage.text.chars().take(LINE_CHARS).collect(),
            })),
        };
        Ok(Self {
            generation: Generation(stage.generation),
            release: id("stage.release", &stage.release)?,
            outcome,
            took: (stage.took_micros > 0).then(|| duration(stage.took_micros)),
        })
    }
}

impl From<&StepReport> for v1::GoProgress {
    fn from(step: &StepReport) -> Self {
        let phase = match step.phase {
            StepPhase::Starting => v1::StepPhase::Starting,
            StepPhase::Switching => v1::StepPhase::Switching,
            StepPhase::Checking => v1::StepPhase::Checking,
            StepPhase::Decided => v1::StepPhase::Decided,
            StepPhase::Settled => v1::StepPhase::Settled,
        };
        let (verdict, failure) = match &step.verdict {
            None => (v1::StepVerdict::Unspecified, None),
            Some(Verdict::Healthy) => (v1::StepVerdict::Healthy, None),
            Some(Verdict::Failed(failure)) => (v1::StepVerdict::Failed, Some((&**failure).into())),
        };
        let settled = match step.settled {
            None => v1::Settled::Unspecified,
            Some(Settled::Confirmed) => v1::Settled::Confirmed,
            Some(Settled::Undone) => v1::Settled::Undone,
        };
        Self {
            generation: step.generation.0,
            to: step.to.to_string(),
            phase: phase.into(),
            warm: step.warm,
            verdict: verdict.into(),
            failure,
            settled: settled.into(),
            healthy_for_micros: step.healthy_for.map(micros),
            staged_micros: step.durations.staged.map(micros),
            warm_micros: step.durations.warm.map(micros),
            switched_micros: step.durations.switched.map(micros),
            checked_micros: step.durations.checked.map(micros),
            confirmed_micros: step.durations.confirmed.map(micros),
        }
    }
}

impl TryFrom<v1::GoProgress> for StepReport {
    type Error = Error;

    fn try_from(step: v1::GoProgress) -> Result<Self, Error> {
        let phase = match step.phase() {
            v1::StepPhase::Unspecified => return Err(Error::Missing("step.phase")),
            v1::StepPhase::Starting => StepPhase::Starting,
            v1::StepPhase::Switching => StepPhase::Switching,
            v1::StepPhase::Checking => StepPhase::Checking,
            v1::StepPhase::Decided => StepPhase::Decided,
            v1::StepPhase::Settled => StepPhase::Settled,
        };
        let settled = match step.settled() {
            v1::Settled::Unspecified => None,
            v1::Settled::Confirmed => Some(Settled::Confirmed),
            v1::Settled::Undone => Some(Settled::Undone),
        };
        let verdict = match step.verdict() {
            v1::StepVerdict::Unspecified => None,
            v1::StepVerdict::Healthy => Some(Verdict::Healthy),
            v1::StepVerdict::Failed => {
                let failure = step.failure.ok_or(Error::Missing("step.failure"))?;
                Some(Verdict::Failed(Box::new(failure.try_into()?)))
            }
        };
        let time = |micros: Option<u64>| -> Option<Duration> { micros.map(duration) };
        Ok(Self {
            generation: Generation(step.generation),
            to: id("step.to", &step.to)?,
            phase,
            warm: step.warm,
            verdict,
            settled,
            healthy_for: time(step.healthy_for_micros),
            durations: Durations {
                staged: time(step.staged_micros),
                warm: time(step.warm_micros),
                switched: time(step.switched_micros),
                checked: time(step.checked_micros),
                confirmed: time(step.confirmed_micros),
            },
        })
    }
}

/// A report and what it is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reported {
    /// Where the app goes.
    pub target: TargetRef,
    /// The report.
    pub report: Report,
    /// Set when an acknowledgement is wanted.
    pub result: Option<String>,
}

impl TryFrom<v1::StepReport> for Reported {
    type Error = Error;

    fn try_from(message: v1::StepReport) -> Result<Self, Error> {
        let release = |field, text: &str| -> Result<Option<ReleaseId>, Error> {
            optional(text).map(|text| id(field, &text)).transpose()
        };
        let health = match message.health() {
            v1::HealthNow::Unspecified => return Err(Error::Missing("report.health")),
            v1::HealthNow::Unknown => HealthNow::Unknown,
            v1::HealthNow::Passing => HealthNow::Passing,
            v1::HealthNow::Failing => {
                let failing = message.failing.ok_or(Error::Missing("report.failing"))?;
                HealthNow::Failing(Box::new(failing.try_into()?))
            }
        };
        Ok(Self {
            target: TargetRef::parse(&message.target).map_err(|why| Error::invalid("report.target", why))?,
            report: Report {
                stamp: Stamp { run: message.stamp_run, number: message.stamp_number },
                generation: Generation(message.generation),
                current: release("report.current", &message.current)?,
                routed: release("report.routed", &message.routed)?,
                stage: message.stage.map(TryInto::try_into).transpose()?,
                step: message.step.map(TryInto::try_into).transpose()?,
                health,
                serving: message.serving,
                quiet: message.quiet,
            },
            result: optional(&message.result),
        })
    }
}
