//! Rollouts in memory.

use async_trait::async_trait;
use domain::ids::RolloutId;
use domain::name::TargetRef;
use domain::rollout::progress::{Progress, RolloutState};
use domain::time::Timestamp;

use super::super::error::{Error, Result};
use super::super::rollout::{RolloutReads, RolloutRow, RolloutWrites};
use super::{MemoryTx, in_order, last_first, next_version};

impl MemoryTx {
    fn rollouts_of(&self, project: &str, target: &TargetRef) -> impl Iterator<Item = &RolloutRow> {
        self.state.rollouts.rows().filter(move |row| row.project == project && row.plan.target == *target)
    }

    fn only_active(&self, row: &RolloutRow, next: &Progress) -> Result<()> {
        let id = row.plan.rollout;
        let other = |row: &RolloutRow| row.plan.rollout != id && row.progress.state.is_active();
        if next.state.is_active() && self.rollouts_of(&row.project, &row.plan.target).any(other) {
            return Err(Error::exists("rollouts", &row.plan.target));
        }
        Ok(())
    }
}

#[async_trait]
impl RolloutReads for MemoryTx {
    async fn rollout_get(&mut self, id: RolloutId) -> Result<Option<RolloutRow>> {
        Ok(self.state.rollouts.get(&id).cloned())
    }

    async fn rollout_active(&mut self, project: &str, target: &TargetRef) -> Result<Option<RolloutRow>> {
        Ok(self.rollouts_of(project, target).find(|row| row.progress.state.is_active()).cloned())
    }

    async fn rollout_list_queued(&mut self, project: &str, target: &TargetRef) -> Result<Vec<RolloutRow>> {
        let queued = self.rollouts_of(project, target).filter(|row| row.progress.state == RolloutState::Queued);
        Ok(in_order(queued.cloned(), |row| (row.created_at, row.plan.rollout)))
    }

    async fn rollout_list(&mut self, project: &str, target: Option<&TargetRef>, limit: u32) -> Result<Vec<RolloutRow>> {
        let wanted =
            |row: &&RolloutRow| row.project == project && target.is_none_or(|target| row.plan.target == *target);
        let rows = self.state.rollouts.rows().filter(wanted);
        let rows = last_first(rows, |row| (row.created_at, row.plan.rollout), limit);
        Ok(rows.into_iter().cloned().collect())
    }

    async fn rollout_list_turning(&mut self) -> Result<Vec<RolloutId>> {
        let turning = self.state.rollouts.rows().filter(|row| row.progress.needs_turns());
        let rows = in_order(turning.map(|row| (row.created_at, row.plan.rollout)), |key| *key);
        Ok(rows.into_iter().map(|(_, id)| id).collect())
    }
}

#[async_trait]
impl RolloutWrites for MemoryTx {
    async fn rollout_insert(&mut self, row: &RolloutRow) -> Result<()> {
        let id = row.plan.rollout;
        if self.state.rollouts.get(&id).is_some() {
            return Err(Error::exists("rollouts", id));
        }
        row.whole(&row.progress)?;
        self.only_active(row, &row.progress)?;
        self.state.rollouts.put(id, RolloutRow { version: 1, ..row.clone() });
        Ok(())
    }

    async fn rollout_put(
        &mut self,
        before: &RolloutRow,
        next: &Progress,
        finished_at: Option<Timestamp>,
    ) -> Result<u64> {
        let id = before.plan.rollout;
        let stored = self.state.rollouts.get(&id);
        let version = match stored.map(|row| row.version) {
            Some(version) => next_version("rollouts", id, Some(version), before.version.max(1))?,
            None => return Err(Error::conflict("rollouts", id)),
        };
        before.whole(next)?;
        self.only_active(before, next)?;
        let row = RolloutRow { version, progress: next.clone(), finished_at, ..before.clone() };
        self.state.rollouts.put(id, row);
        Ok(version)
    }
}
