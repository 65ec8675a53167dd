//! What a coordinator asks of an agent for one target: one desired order per (target, host) at a time.

use std::time::Duration;

use crate::health::HealthCheck;
use crate::ids::{Fence, Generation, HostId, ReleaseId, RolloutId};
use crate::name::{Name, TargetRef};

/// The desired order of one (target, host). Sent again and again until the agent's report shows it; an agent takes
/// a higher generation, answers an equal one with its report, and refuses a lower one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Order {
    /// The rollout it belongs to.
    pub rollout: RolloutId,
    /// Where the app goes.
    pub target: TargetRef,
    /// The member that changes.
    pub member: HostId,
    /// The host whose agent acts; the member itself for containers.
    pub executor: HostId,
    /// Rises with every order of this (target, host), across rollouts; [`OrderKind::Confirm`] alone repeats the
    /// generation of the `Go` it confirms.
    pub generation: Generation,
    /// What to do.
    pub kind: OrderKind,
}

/// What to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OrderKind {
    /// Load the release's artifact and check disk, memory and ports. No effect on what runs.
    Stage {
        /// The release to stage.
        release: ReleaseId,
    },
    /// Run this release, through its gate.
    Go(Go),
    /// The verdict of the `Go` of this generation is stored: keep the new release, stop the old.
    Confirm,
    /// Back to nothing: clear the route, stop every process of the target. Only by an operator's cancel.
    Remove,
}

impl OrderKind {
    /// The release the order is about.
    #[must_use]
    pub fn release(&self) -> Option<ReleaseId> {
        match self {
            Self::Stage { release } => Some(*release),
            Self::Go(go) => Some(go.release),
            Self::Confirm | Self::Remove => None,
        }
    }
}

/// Why a `Go` is given. It changes nothing in what the agent does; people read it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub enum Purpose {
    /// To the rollout's release.
    Forward,
    /// Back to the release recorded when the member was touched.
    Revert,
    /// A parked member is back and gets what its rollout ended on.
    Converge,
}

/// Run a release, through its gate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Go {
    /// The release to run.
    pub release: ReleaseId,
    /// Why.
    pub purpose: Purpose,
    /// Undo by yourself when no order comes within `pace.confirm_deadline` of your own verdict. Never set for
    /// reverts, under `auto_revert: false`, or where no release ran before.
    pub undo: bool,
    /// Its deadlines.
    pub pace: Pace,
}

/// Lengths of time of one step; the agent anchors each to its own boot clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pace {
    /// Healthy without a failed verdict or a restart for so long. Zero: one passing answer per process after the switch.
    pub min_healthy_time: Duration,
    /// From the step's first effect until its verdict.
    pub healthy_deadline: Duration,
    /// From the agent's own verdict, whichever it is, until it undoes.
    pub confirm_deadline: Duration,
    /// Old connections may end for so long.
    pub drain_timeout: Duration,
    /// Between TERM and KILL.
    pub kill_timeout: Duration,
}

/// What an order with a release asks to run on this host, taken from the release and the frozen plan.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Work {
    /// The release.
    pub release: ReleaseId,
    /// Its number within the target, for people.
    pub number: u64,
    /// The processes that run on this host.
    pub processes: Vec<ProcessWork>,
}

impl Work {
    /// The process of that name.
    #[must_use]
    pub fn process(&self, name: &Name) -> Option<&ProcessWork> {
        self.processes.iter().find(|process| process.name == *name)
    }
}

/// One process as the step machine sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProcessWork {
    /// Its name.
    pub name: Name,
    /// False: never beside its successor on one host.
    pub overlap: bool,
    /// Traffic is led to it by the relay.
    pub exposed: bool,
    /// What healthy means; [`crate::health::Probe::Container`] when the app declares nothing.
    pub health: HealthCheck,
}

/// An order as it travels: with the fence of who ordered it and the ledger's place at that time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Envelope {
    /// Who orders.
    pub fence: Fence,
    /// `ledger.seq` committed when it was sent; the agent keeps the highest.
    pub ledger_seq: u64,
    /// The order.
    pub order: Order,
    /// What to run; present for [`OrderKind::Stage`] and [`OrderKind::Go`].
    pub work: Option<Work>,
}
