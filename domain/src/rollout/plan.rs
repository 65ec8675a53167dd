//! What a rollout will do, frozen in rows at its start.

use crate::ids::{HostId, ReleaseId, RolloutId};
use crate::name::{Name, TargetRef};
use crate::policy::Policy;

/// Forward to a release, or back from a finished rollout.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub enum Kind {
    /// Canary, waves, bakes.
    Forward,
    /// `rollout revert` of a finished rollout: one wave, no canary, no bake, as parallel as
    /// `minimum_healthy_hosts` lets it, and never reverted by itself.
    Revert {
        /// The finished rollout.
        of: RolloutId,
    },
}

/// What a rollout will do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// The rollout.
    pub rollout: RolloutId,
    /// Where the app goes.
    pub target: TargetRef,
    /// Forward or back.
    pub kind: Kind,
    /// What shall run.
    pub release: ReleaseId,
    /// Its number within the target.
    pub number: u64,
    /// Pace, deadlines and budgets.
    pub policy: Policy,
    /// The members in order; `ordinal` is the index.
    pub members: Vec<Member>,
}

/// What one step changes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Place in the plan, from 0.
    pub ordinal: u32,
    /// The member.
    pub member: HostId,
    /// The host whose agent acts; the member itself for containers.
    pub executor: HostId,
    /// Its name, for people.
    pub name: Name,
    /// Members of one wave change together; from 0, the canary.
    pub wave: u32,
    /// The release's processes that run there.
    pub processes: Vec<Name>,
}

impl Plan {
    /// Members on the frozen list.
    #[must_use]
    pub fn size(&self) -> u32 {
        u32::try_from(self.members.len()).unwrap_or(u32::MAX)
    }

    /// The number of waves, at least 1.
    #[must_use]
    pub fn waves(&self) -> u32 {
        self.members.iter().map(|member| member.wave + 1).max().unwrap_or(1)
    }

    /// The member's place.
    #[must_use]
    pub fn member(&self, host: HostId) -> Option<&Member> {
        self.members.iter().find(|member| member.member == host)
    }
}
