//! The journal of a target as bytes: JSON around the protocol's own messages.

use std::time::Duration;

use domain::ids::{Generation, ReleaseId, RolloutId};
use domain::name::Name;
use domain::step::journal::{BootId, BootTime, Settled, Slot, StageRecord, StepPhase, StepRecord, Verdict};
use domain::step::order::{Go, OrderKind, Pace, ProcessWork, Purpose, Work};
use domain::step::report::{Durations, StageCheck, StageOutcome, StageRefusal};
use prost::Message as _;
use proto::v1;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

#[derive(Serialize, Deserialize)]
struct SlotFile {
    generation: u64,
    rollout: Option<Uuid>,
    order: Option<OrderFile>,
    current: Option<WorkFile>,
    stage: Option<StageFile>,
    step: Option<StepFile>,
    leftovers: Vec<WorkFile>,
}

#[derive(Serialize, Deserialize)]
enum OrderFile {
    Stage { release: Uuid },
    Go { release: Uuid, purpose: u8, undo: bool, pace: PaceFile },
    Confirm,
    Remove,
}

#[derive(Serialize, Deserialize)]
struct WorkFile {
    release: Uuid,
    number: u64,
    processes: Vec<ProcessFile>,
}

#[derive(Serialize, Deserialize)]
struct ProcessFile {
    name: String,
    overlap: bool,
    exposed: bool,
    /// `muster.v1.HealthCheck`, hexadecimal.
    health: String,
}

#[derive(Serialize, Deserialize)]
struct StageFile {
    generation: u64,
    work: WorkFile,
    ended: bool,
    /// Code of the check and text.
    refused: Option<(String, String)>,
    took: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct StepFile {
    generation: u64,
    purpose: u8,
    to: WorkFile,
    from: Option<Uuid>,
    undo: bool,
    pace: PaceFile,
    phase: u8,
    begun: TimeFile,
    switched: Option<TimeFile>,
    verdict: Option<VerdictFile>,
    decided: Option<TimeFile>,
    settled: Option<u8>,
    reboots: u32,
    durations: [Option<u64>; 5],
}

#[derive(Serialize, Deserialize)]
enum VerdictFile {
    Healthy,
    /// `muster.v1.Evidence`, hexadecimal.
    Failed(String),
}

#[derive(Serialize, Deserialize)]
struct PaceFile([u64; 5]);

#[derive(Serialize, Deserialize)]
struct TimeFile(Uuid, u64);

const PURPOSES: [Purpose; 3] = [Purpose::Forward, Purpose::Revert, Purpose::Converge];
const PHASES: [StepPhase; 5] =
    [StepPhase::Starting, StepPhase::Switching, StepPhase::Checking, StepPhase::Decided, StepPhase::Settled];
const SETTLED: [Settled; 2] = [Settled::Confirmed, Settled::Undone];

fn code<T: PartialEq>(all: &[T], one: &T) -> u8 {
    all.iter().position(|other| other == one).and_then(|index| u8::try_from(index).ok()).unwrap_or(0)
}

fn value<T: Copy>(all: &[T], code: u8) -> Option<T> {
    all.get(usize::from(code)).copied()
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// The journal as bytes.
#[must_use]
pub fn encode(slot: &Slot) -> Vec<u8> {
    serde_json::to_vec(&SlotFile::of(slot)).unwrap_or_default()
}

/// The journal from bytes; none if they are not one.
#[must_use]
pub fn decode(bytes: &[u8]) -> Option<Slot> {
    serde_json::from_slice::<SlotFile>(bytes).ok()?.slot()
}

impl SlotFile {
    fn of(slot: &Slot) -> Self {
        Self {
            generation: slot.generation.0,
            rollout: slot.rollout.map(RolloutId::uuid),
            order: slot.order.as_ref().map(OrderFile::of),
            current: slot.current.as_ref().map(WorkFile::of),
            stage: slot.stage.as_ref().map(StageFile::of),
            step: slot.step.as_ref().map(StepFile::of),
            leftovers: slot.leftovers.iter().map(WorkFile::of).collect(),
        }
    }

    fn slot(self) -> Option<Slot> {
        Some(Slot {
            generation: Generation(self.generation),
            rollout: self.rollout.map(RolloutId::new),
            order: transpose(self.order, OrderFile::order)?,
            current: transpose(self.current, WorkFile::work)?,
            stage: transpose(self.stage, StageFile::stage)?,
            step: transpose(self.step, StepFile::step)?,
            leftovers: self.leftovers.into_iter().map(WorkFile::work).collect::<Option<_>>()?,
        })
    }
}

/// `None` only when there is something that cannot be read.
fn transpose<A, B>(from: Option<A>, read: impl FnOnce(A) -> Option<B>) -> Option<Option<B>> {
    match from {
        None => Some(None),
        Some(from) => read(from).map(Some),
    }
}

impl OrderFile {
    fn of(order: &OrderKind) -> Self {
        match order {
            OrderKind::Stage { release } => Self::Stage { release: release.uuid() },
            OrderKind::Go(go) => Self::Go {
                release: go.release.uuid(),
                purpose: code(&PURPOSES, &go.purpose),
                undo: go.undo,
                pace: PaceFile::of(&go.pace),
            },
            OrderKind::Confirm => Self::Confirm,
            OrderKind::Remove => Self::Remove,
        }
    }

    fn order(self) -> Option<OrderKind> {
        Some(match self {
            Self::Stage { release } => OrderKind::Stage { release: ReleaseId::new(release) },
            Self::Go { release, purpose, undo, pace } => OrderKind::Go(Go {
                release: ReleaseId::new(release),
                purpose: value(&PURPOSES, purpose)?,
                undo,
                pace: pace.pace(),
            }),
            Self::Confirm => OrderKind::Confirm,
            Self::Remove => OrderKind::Remove,
        })
    }
}

impl WorkFile {
    fn of(work: &Work) -> Self {
        let process = |one: &ProcessWork| ProcessFile {
            name: one.name.to_string(),
            overlap: one.overlap,
            exposed: one.exposed,
            health: hex::encode(v1::HealthCheck::from(&one.health).encode_to_vec()),
        };
        Self {
            release: work.release.uuid(),
            number: work.number,
            processes: work.processes.iter().map(process).collect(),
        }
    }

    fn work(self) -> Option<Work> {
        let process = |one: ProcessFile| {
            let health = v1::HealthCheck::decode(hex::decode(one.health).ok()?.as_slice()).ok()?;
            Some(ProcessWork {
                name: Name::new("process", &one.name).ok()?,
                overlap: one.overlap,
                exposed: one.exposed,
                health: health.try_into().ok()?,
            })
        };
        Some(Work {
            release: ReleaseId::new(self.release),
            number: self.number,
            processes: self.processes.into_iter().map(process).collect::<Option<_>>()?,
        })
    }
}

impl StageFile {
    fn of(stage: &StageRecord) -> Self {
        let refused = match &stage.outcome {
            Some(StageOutcome::Refused(refusal)) => Some((refusal.check.code().to_owned(), refusal.text.clone())),
            _ => None,
        };
        Self {
            generation: stage.generation.0,
            work: WorkFile::of(&stage.work),
            ended: stage.outcome.is_some(),
            refused,
            took: stage.took.map(micros),
        }
    }

    fn stage(self) -> Option<StageRecord> {
        let outcome = match (self.ended, self.refused) {
            (false, _) => None,
            (true, None) => Some(StageOutcome::Ready),
            (true, Some((code, text))) => {
                Some(StageOutcome::Refused(StageRefusal { check: StageCheck::from_code(&code)?, text }))
            }
        };
        Some(StageRecord {
            generation: Generation(self.generation),
            work: self.work.work()?,
            outcome,
            took: self.took.map(Duration::from_micros),
        })
    }
}

impl StepFile {
    fn of(step: &StepRecord) -> Self {
        let parts = step.durations;
        Self {
            generation: step.generation.0,
            purpose: code(&PURPOSES, &step.purpose),
            to: WorkFile::of(&step.to),
            from: step.from.map(ReleaseId::uuid),
            undo: step.undo,
            pace: PaceFile::of(&step.pace),
            phase: code(&PHASES, &step.phase),
            begun: TimeFile::of(step.begun),
            switched: step.switched.map(TimeFile::of),
            verdict: step.verdict.as_ref().map(|verdict| match verdict {
                Verdict::Healthy => VerdictFile::Healthy,
                Verdict::Failed(failure) => {
                    VerdictFile::Failed(hex::encode(v1::Evidence::from(&**failure).encode_to_vec()))
                }
            }),
            decided: step.decided.map(TimeFile::of),
            settled: step.settled.map(|settled| code(&SETTLED, &settled)),
            reboots: step.reboots,
            durations: [parts.staged, parts.warm, parts.switched, parts.checked, parts.confirmed]
                .map(|part| part.map(micros)),
        }
    }

    fn step(self) -> Option<StepRecord> {
        let [staged, warm, switched, checked, confirmed] = self.durations.map(|part| part.map(Duration::from_micros));
        let verdict = match self.verdict {
            None => None,
            Some(VerdictFile::Healthy) => Some(Verdict::Healthy),
            Some(VerdictFile::Failed(text)) => {
                let evidence = v1::Evidence::decode(hex::decode(text).ok()?.as_slice()).ok()?;
                Some(Verdict::Failed(Box::new(evidence.try_into().ok()?)))
            }
        };
        Some(StepRecord {
            generation: Generation(self.generation),
            purpose: value(&PURPOSES, self.purpose)?,
            to: self.to.work()?,
            from: self.from.map(ReleaseId::new),
            undo: self.undo,
            pace: self.pace.pace(),
            phase: value(&PHASES, self.phase)?,
            begun: self.begun.time(),
            switched: self.switched.map(TimeFile::time),
            verdict,
            decided: self.decided.map(TimeFile::time),
            settled: transpose(self.settled, |settled| value(&SETTLED, settled))?,
            reboots: self.reboots,
            durations: Durations { staged, warm, switched, checked, confirmed },
        })
    }
}

impl PaceFile {
    fn of(pace: &Pace) -> Self {
        let all = [
            pace.min_healthy_time,
            pace.healthy_deadline,
            pace.confirm_deadline,
            pace.drain_timeout,
            pace.kill_timeout,
        ];
        Self(all.map(micros))
    }

    fn pace(self) -> Pace {
        let [min_healthy_time, healthy_deadline, confirm_deadline, drain_timeout, kill_timeout] =
            self.0.map(Duration::from_micros);
        Pace { min_healthy_time, healthy_deadline, confirm_deadline, drain_timeout, kill_timeout }
    }
}

impl TimeFile {
    fn of(time: BootTime) -> Self {
        Self(time.boot.0, micros(time.at))
    }

    fn time(self) -> BootTime {
        BootTime { boot: BootId(self.0), at: Duration::from_micros(self.1) }
    }
}

#[cfg(test)]
mod tests {
    use domain::health::{HealthCheck, Probe};
    use domain::step::evidence::{Cause, Failure};

    use super::*;

    fn work(number: u64) -> Work {
        Work {
            release: ReleaseId::new(Uuid::from_u128(u128::from(number))),
            number,
            processes: vec![ProcessWork {
                name: Name::new("process", "web").expect("a name"),
                overlap: true,
                exposed: true,
                health: HealthCheck::new(Probe::Http { path: "/health".to_owned(), port: Some(8000) }),
            }],
        }
    }

    #[test]
    fn a_full_journal_is_read_back_as_it_was_written() {
        let at = |at| BootTime { boot: BootId(Uuid::from_u128(9)), at: Duration::from_micros(at) };
        let pace = Pace {
            min_healthy_time: Duration::from_secs(1),
            healthy_deadline: Duration::from_secs(2),
            confirm_deadline: Duration::from_secs(3),
            drain_timeout: Duration::from_secs(4),
            kill_timeout: Duration::from_secs(5),
        };
        let mut failure = Failure::bare(Cause::HealthFailing, "HTTP 500");
        failure.exit_code = Some(3);
        failure.log = vec!["Traceback".to_owned()];
        let slot = Slot {
            generation: Generation(7),
            rollout: Some(RolloutId::new(Uuid::from_u128(4))),
            order: Some(OrderKind::Go(Go { release: work(2).release, purpose: Purpose::Revert, undo: true, pace })),
            current: Some(work(1)),
            stage: Some(StageRecord {
                generation: Generation(6),
                work: work(2),
                outcome: Some(StageOutcome::Refused(StageRefusal { check: StageCheck::Port, text: "8080".to_owned() })),
                took: Some(Duration::from_millis(3)),
            }),
            step: Some(StepRecord {
                generation: Generation(7),
                purpose: Purpose::Revert,
                to: work(2),
                from: Some(work(1).release),
                undo: true,
                pace,
                phase: StepPhase::Decided,
                begun: at(1),
                switched: Some(at(2)),
                verdict: Some(Verdict::Failed(Box::new(failure))),
                decided: Some(at(3)),
                settled: Some(Settled::Undone),
                reboots: 1,
                durations: Durations { warm: Some(Duration::from_micros(5)), ..Durations::default() },
            }),
            leftovers: vec![work(3)],
        };
        assert_eq!(decode(&encode(&slot)), Some(slot));
        assert_eq!(decode(&encode(&Slot::default())), Some(Slot::default()));
        assert_eq!(decode(b"{}"), None);
    }
}
