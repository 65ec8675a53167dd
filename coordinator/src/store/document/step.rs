//! Stored shapes of an agent's report about a target, and of a failure.

use std::time::Duration;

use domain::ids::{Generation, ReleaseId};
use domain::name::Name;
use domain::step::evidence::{Answer, Cause, Failure};
use domain::step::journal::{Settled, StepPhase, Verdict};
use domain::step::report::{
    Durations, HealthNow, Report, StageCheck, StageOutcome, StageRefusal, StageReport, Stamp, StepReport,
};
use serde::{Deserialize, Serialize};

use super::{Document, document};

document!(Failure => FailureShape {
    cause: Cause,
    process: Option<Name>,
    text: String,
    answers: Vec<Answer>,
    exit_code: Option<i32>,
    restarts: u32,
    log: Vec<String>,
});

document!(Answer => AnswerShape {
    before: Duration,
    ok: bool,
    text: String,
});

document!(Report => ReportShape {
    stamp: Stamp,
    generation: Generation,
    current: Option<ReleaseId>,
    routed: Option<ReleaseId>,
    stage: Option<StageReport>,
    step: Option<StepReport>,
    health: HealthNow,
    serving: bool,
    quiet: bool,
});

document!(Stamp => StampShape {
    run: u64,
    number: u64,
});

document!(StageReport => StageReportShape {
    generation: Generation,
    release: ReleaseId,
    outcome: Option<StageOutcome>,
    took: Option<Duration>,
});

document!(StageRefusal => StageRefusalShape {
    check: StageCheck,
    text: String,
});

document!(StepReport => StepReportShape {
    generation: Generation,
    to: ReleaseId,
    phase: StepPhase,
    warm: bool,
    verdict: Option<Verdict>,
    settled: Option<Settled>,
    healthy_for: Option<Duration>,
    durations: Durations,
});

document!(Durations => DurationsShape {
    staged: Option<Duration>,
    warm: Option<Duration>,
    switched: Option<Duration>,
    checked: Option<Duration>,
    confirmed: Option<Duration>,
});

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OutcomeShape {
    Ready,
    Refused(StageRefusalShape),
}

impl Document for StageOutcome {
    type Stored = OutcomeShape;

    fn to_stored(&self) -> OutcomeShape {
        match self {
            Self::Ready => OutcomeShape::Ready,
            Self::Refused(refusal) => OutcomeShape::Refused(refusal.to_stored()),
        }
    }

    fn from_stored(stored: OutcomeShape) -> Result<Self, String> {
        Ok(match stored {
            OutcomeShape::Ready => Self::Ready,
            OutcomeShape::Refused(refusal) => Self::Refused(StageRefusal::from_stored(refusal)?),
        })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum VerdictShape {
    Healthy,
    Failed(FailureShape),
}

impl Document for Verdict {
    type Stored = VerdictShape;

    fn to_stored(&self) -> VerdictShape {
        match self {
            Self::Healthy => VerdictShape::Healthy,
            Self::Failed(failure) => VerdictShape::Failed(failure.to_stored()),
        }
    }

    fn from_stored(stored: VerdictShape) -> Result<Self, String> {
        Ok(match stored {
            VerdictShape::Healthy => Self::Healthy,
            VerdictShape::Failed(failure) => Self::Failed(Box::from_stored(failure)?),
        })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum HealthShape {
    Unknown,
    Passing,
    Failing(FailureShape),
}

impl Document for HealthNow {
    type Stored = HealthShape;

    fn to_stored(&self) -> HealthShape {
        match self {
            Self::Unknown => HealthShape::Unknown,
            Self::Passing => HealthShape::Passing,
            Self::Failing(failure) => HealthShape::Failing(failure.to_stored()),
        }
    }

    fn from_stored(stored: HealthShape) -> Result<Self, String> {
        Ok(match stored {
            HealthShape::Unknown => Self::Unknown,
            HealthShape::Passing => Self::Passing,
            HealthShape::Failing(failure) => Self::Failing(Box::from_stored(failure)?),
        })
    }
}
