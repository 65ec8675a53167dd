//! What the step machine is told, and what it asks its driver to do.

use std::time::Duration;

use super::journal::{BootTime, Slot};
use super::order::{Order, Work};
use super::report::{Refusal, Report, StageOutcome};
use crate::ids::{Generation, ReleaseId};
use crate::name::Name;

/// One run of a process, given by the driver: another number after every start of the container.
pub type Instance = u64;

/// What the machine is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// An order whose fence was admitted.
    Order {
        /// The order.
        order: Order,
        /// What to run; needed for `Stage` and `Go`.
        work: Option<Work>,
    },
    /// The answer to [`Action::Inspect`]: everything of this target that exists.
    Inspected {
        /// Containers, running or not.
        containers: Vec<Found>,
        /// The release that the relay's confirmed entries of this boot lead to.
        routed: Option<ReleaseId>,
    },
    /// The answer to [`Action::Stage`].
    Staged {
        /// Of the order.
        generation: Generation,
        /// How it ended.
        outcome: StageOutcome,
        /// How long it took.
        took: Duration,
    },
    /// The answer to [`Action::Start`]: it runs.
    Started {
        /// The release.
        release: ReleaseId,
        /// The process.
        process: Name,
        /// This run of it.
        instance: Instance,
    },
    /// The answer to [`Action::Start`]: the engine would not.
    StartFailed {
        /// The release.
        release: ReleaseId,
        /// The process.
        process: Name,
        /// The engine's words.
        text: String,
    },
    /// A process ended without being asked.
    Exited {
        /// The release.
        release: ReleaseId,
        /// The process.
        process: Name,
        /// Which run of it.
        instance: Instance,
        /// Its exit code, if known.
        code: Option<i32>,
        /// Its last log lines.
        log: Vec<String>,
    },
    /// The answer to [`Action::Stop`]: it has ended and is removed.
    Stopped {
        /// The release.
        release: ReleaseId,
        /// The process.
        process: Name,
    },
    /// The answer to [`Action::Stop`]: it may still run.
    StopFailed {
        /// The release.
        release: ReleaseId,
        /// The process.
        process: Name,
    },
    /// The answer to [`Action::Route`]: fsynced and switched.
    Routed {
        /// Where traffic goes.
        release: Option<ReleaseId>,
    },
    /// The answer to [`Action::Route`]: traffic is where it was, or unknown.
    RouteFailed {
        /// The relay's words.
        text: String,
    },
    /// A probe's answer.
    Sample(Sample),
    /// The answer to [`Action::Logs`].
    Logs {
        /// The release.
        release: ReleaseId,
        /// The process.
        process: Name,
        /// Its last lines.
        lines: Vec<String>,
    },
    /// The time of [`Action::WakeAt`] has come, or somebody wants a look.
    Tick,
}

/// A container that an inspection found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// The release.
    pub release: ReleaseId,
    /// The process.
    pub process: Name,
    /// This run of it; none: it does not run.
    pub running: Option<Instance>,
}

/// One answer of a probe.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sample {
    /// The release.
    pub release: ReleaseId,
    /// The process.
    pub process: Name,
    /// Which run of it was asked.
    pub instance: Instance,
    /// When the question was sent.
    pub taken: BootTime,
    /// What came.
    pub outcome: Outcome,
    /// In words, at most [`super::evidence::LINE_CHARS`].
    pub text: String,
}

/// What came of a probe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Healthy.
    Pass,
    /// An answer that is not healthy, or none in time.
    Fail,
    /// Nobody listens. Before the first answer of a run it only means "not yet".
    Refused,
}

/// What the driver does, in this order. Everything but `Persist` may run on; its answer is an [`Event`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Write the slot and fsync before any later action.
    Persist(Box<Slot>),
    /// List containers and the relay's entry of the target; nothing else happens before the answer.
    Inspect,
    /// Load the artifact, check digest, disk, memory, ports, policy.
    Stage {
        /// Of the order.
        generation: Generation,
        /// What.
        work: Work,
    },
    /// Adopt or create the container, start it, and probe it from now on until it ends.
    Start {
        /// The release.
        release: ReleaseId,
        /// The process.
        process: Name,
    },
    /// Probe a running container that was found from now on until it ends.
    Watch {
        /// The release.
        release: ReleaseId,
        /// The process.
        process: Name,
        /// This run of it.
        instance: Instance,
    },
    /// Ask now, whatever the cadence.
    ProbeNow {
        /// The release.
        release: ReleaseId,
        /// The process.
        process: Name,
    },
    /// Let connections drain, stop, wait for the exit, remove.
    Stop {
        /// The release.
        release: ReleaseId,
        /// The process.
        process: Name,
        /// Wait so long for open connections; zero: at once.
        drain: Duration,
        /// Between TERM and KILL.
        kill: Duration,
    },
    /// Lead the target's published ports to this release; none: nowhere.
    Route {
        /// The release.
        release: Option<ReleaseId>,
        /// Of the order that stands; the relay refuses a lower one.
        generation: Generation,
    },
    /// Read the last log lines of a process.
    Logs {
        /// The release.
        release: ReleaseId,
        /// The process.
        process: Name,
    },
    /// Tell the coordinator, now or with the next Hello.
    Report(Box<Report>),
    /// An order was not taken.
    Refused(Refusal),
    /// Send [`Event::Tick`] at this instant of the current boot; replaces the last one.
    WakeAt(Duration),
}
