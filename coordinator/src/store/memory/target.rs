//! Targets and their locks in memory.

use async_trait::async_trait;
use domain::name::TargetRef;

use super::super::error::Result;
use super::super::target::{LockRow, TargetReads, TargetRow, TargetWrites};
use super::MemoryTx;

#[async_trait]
impl TargetReads for MemoryTx {
    async fn target_get(&mut self, project: &str, target: &TargetRef) -> Result<Option<TargetRow>> {
        Ok(self.state.targets.get(&(project.to_owned(), target.clone())).cloned())
    }

    async fn target_list(&mut self, project: &str) -> Result<Vec<TargetRow>> {
        Ok(self.state.targets.rows().filter(|row| row.project == project).cloned().collect())
    }

    async fn lock_get(&mut self, project: &str, target: &TargetRef) -> Result<Option<LockRow>> {
        Ok(self.state.locks.get(&(project.to_owned(), target.clone())).cloned())
    }
}

#[async_trait]
impl TargetWrites for MemoryTx {
    async fn target_put(&mut self, row: &TargetRow) -> Result<()> {
        self.state.targets.put((row.project.clone(), row.target.clone()), row.clone());
        Ok(())
    }

    async fn lock_put(&mut self, row: &LockRow) -> Result<()> {
        self.state.locks.put((row.project.clone(), row.target.clone()), row.clone());
        Ok(())
    }

    async fn lock_delete(&mut self, project: &str, target: &TargetRef) -> Result<bool> {
        Ok(self.state.locks.delete(&(project.to_owned(), target.clone())))
    }
}
