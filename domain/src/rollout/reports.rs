//! What `decide` is told about the world: presence and last report of every member, and the target's other rollouts.

use std::collections::BTreeMap;

use crate::ids::{Generation, HostId, RolloutId};
use crate::step::report::Report;
use crate::time::Timestamp;

/// Everything `decide` may look at besides plan, progress and time.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Reports {
    /// By member. A member that is missing counts as never seen.
    pub hosts: BTreeMap<HostId, HostView>,
    /// The target.
    pub target: TargetView,
}

/// One member as the coordinator sees it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HostView {
    /// Whether orders may be given and reports believed.
    pub presence: Presence,
    /// The highest generation ever stored for (target, host), by any rollout.
    pub generation: Generation,
    /// The agent's last stored report about the target; none: the host says it knows nothing of the target, or was never heard.
    pub report: Option<Report>,
}

/// Whether a member's word counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Presence {
    /// Session open under the current fence, everything from before is stored: its report is current.
    Ready,
    /// Session open or expected, results still coming in: no orders, no verdicts, not away.
    #[default]
    Syncing,
    /// Not heard from for longer than the limit.
    Away {
        /// Since when.
        since: Timestamp,
    },
}

/// The target's other rollouts and its lock.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TargetView {
    /// Another rollout of the target is active, or stands before this one in the queue.
    pub before: Option<RolloutId>,
    /// A lock that stands against this rollout (not one it was started over with `--unlock`).
    pub locked: Option<Lock>,
    /// A newer rollout of the target left the queue: the members are no longer this one's.
    pub newer_started: bool,
}

/// A target that takes no rollouts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lock {
    /// Who locked it: a principal, or the rollout that was reverted.
    pub holder: String,
    /// Why.
    pub reason: String,
    /// When it ends by itself.
    pub until: Timestamp,
}
