//! Rows of rollouts: the frozen plan, and how far it is.

use std::sync::Arc;

use async_trait::async_trait;
use domain::ids::{PrincipalId, ReleaseId, RolloutId};
use domain::name::TargetRef;
use domain::rollout::plan::Plan;
use domain::rollout::progress::Progress;
use domain::time::Timestamp;

use super::error::{Error, Result};

/// A rollout.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RolloutRow {
    /// The project.
    pub project: String,
    /// Who started it.
    pub principal: PrincipalId,
    /// Frozen at its start; shared, because each turn reads it.
    pub plan: Arc<Plan>,
    /// The release its target was on when it was started.
    pub from: Option<ReleaseId>,
    /// Why it was started, as the caller said.
    pub message: String,
    /// It was started although the target was locked; a lock older than it does not hold it up.
    pub unlocked: bool,
    /// When it was started.
    pub created_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// How far it is.
    pub progress: Progress,
    /// Counts changes. See [`RolloutWrites::rollout_put`].
    pub version: u64,
}

/// Reading rollouts.
#[async_trait]
pub trait RolloutReads: Send {
    /// The rollout of this id.
    async fn rollout_get(&mut self, id: RolloutId) -> Result<Option<RolloutRow>>;
    /// The rollout that holds the target: at most one is in such a state.
    async fn rollout_active(&mut self, project: &str, target: &TargetRef) -> Result<Option<RolloutRow>>;
    /// The target's queue, oldest first.
    async fn rollout_list_queued(&mut self, project: &str, target: &TargetRef) -> Result<Vec<RolloutRow>>;
    /// The last `limit` rollouts, newest first, of one target or of all.
    async fn rollout_list(&mut self, project: &str, target: Option<&TargetRef>, limit: u32) -> Result<Vec<RolloutRow>>;
    /// Ids of the rollouts of all projects for which [`Progress::needs_turns`] holds, oldest first.
    async fn rollout_list_turning(&mut self) -> Result<Vec<RolloutId>>;
}

/// Changing rollouts.
#[async_trait]
pub trait RolloutWrites: Send {
    /// Stores a new rollout with version 1; `row.version` is not looked at. `Exists` when its id is taken, or its
    /// state is active and another of the target's is, too.
    async fn rollout_insert(&mut self, row: &RolloutRow) -> Result<()>;
    /// Stores how far a rollout is: its own state and the steps that differ from `before`, if its stored version is
    /// still `before.version`. Answers the new version. `Exists` when it would become the second active one of its
    /// target (the transaction can then only fail); `Conflict` when somebody else changed it.
    async fn rollout_put(
        &mut self,
        before: &RolloutRow,
        next: &Progress,
        finished_at: Option<Timestamp>,
    ) -> Result<u64>;
}

impl RolloutRow {
    /// Every member of the plan has its step.
    pub(crate) fn whole(&self, progress: &Progress) -> Result<()> {
        if self.plan.members.len() == progress.steps.len() {
            return Ok(());
        }
        let what = format!("{} members and {} steps", self.plan.members.len(), progress.steps.len());
        Err(Error::Unstorable { table: "rollouts", key: self.plan.rollout.to_string(), what })
    }
}
