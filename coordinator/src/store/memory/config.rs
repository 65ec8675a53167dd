//! Config revisions in memory.

use async_trait::async_trait;
use domain::name::TargetRef;

use super::super::config::{ConfigReads, ConfigRow, ConfigWrites};
use super::super::error::{Error, Result};
use super::{MemoryTx, last_first};

#[async_trait]
impl ConfigReads for MemoryTx {
    async fn config_get(&mut self, project: &str, target: &TargetRef, revision: u64) -> Result<Option<ConfigRow>> {
        Ok(self.state.configs.get(&(project.to_owned(), target.clone(), revision)).cloned())
    }

    async fn config_newest(&mut self, project: &str, target: &TargetRef) -> Result<Option<ConfigRow>> {
        Ok(self.config_list(project, target, 1).await?.pop())
    }

    async fn config_list(&mut self, project: &str, target: &TargetRef, limit: u32) -> Result<Vec<ConfigRow>> {
        let key = |revision| (project.to_owned(), target.clone(), revision);
        let rows = self.state.configs.range(key(0)..=key(u64::MAX)).map(|(_, row)| row.clone());
        Ok(last_first(rows, |row| row.revision, limit))
    }
}

#[async_trait]
impl ConfigWrites for MemoryTx {
    async fn config_insert(&mut self, row: &ConfigRow) -> Result<()> {
        let key = (row.project.clone(), row.target.clone(), row.revision);
        if self.state.configs.get(&key).is_some() {
            return Err(Error::exists("configs", format!("{} {}", row.target, row.revision)));
        }
        self.state.configs.put(key, row.clone());
        Ok(())
    }
}
