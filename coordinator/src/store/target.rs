//! Rows of targets: the release each is on, and its lock. What a target is stands in its app.

use async_trait::async_trait;
use domain::ids::{PrincipalId, ReleaseId};
use domain::name::TargetRef;
use domain::rollout::reports::Lock;
use domain::time::Timestamp;

use super::error::Result;

/// A target's release: the one its last rollout ended on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TargetRow {
    /// The project.
    pub project: String,
    /// The target.
    pub target: TargetRef,
    /// The release it is on.
    pub release: Option<ReleaseId>,
    /// Since when.
    pub since: Timestamp,
}

/// A target that takes no rollouts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LockRow {
    /// The project.
    pub project: String,
    /// The target.
    pub target: TargetRef,
    /// Who locked it; none: the coordinator, after a revert.
    pub principal: Option<PrincipalId>,
    /// Holder, reason and end.
    pub lock: Lock,
    /// When it was locked.
    pub created_at: Timestamp,
}

/// Reading targets.
#[async_trait]
pub trait TargetReads: Send {
    /// The release a target is on; none before its first rollout.
    async fn target_get(&mut self, project: &str, target: &TargetRef) -> Result<Option<TargetRow>>;
    /// The targets of a project that had a rollout, by name.
    async fn target_list(&mut self, project: &str) -> Result<Vec<TargetRow>>;
    /// The target's lock, also one that has ended by itself: the caller compares `until`.
    async fn lock_get(&mut self, project: &str, target: &TargetRef) -> Result<Option<LockRow>>;
}

/// Changing targets.
#[async_trait]
pub trait TargetWrites: Send {
    /// Stores the release a target is on.
    async fn target_put(&mut self, row: &TargetRow) -> Result<()>;
    /// Locks a target, in place of a lock that stands.
    async fn lock_put(&mut self, row: &LockRow) -> Result<()>;
    /// Takes a lock away; false if there is none.
    async fn lock_delete(&mut self, project: &str, target: &TargetRef) -> Result<bool>;
}
