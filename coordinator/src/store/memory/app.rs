//! Apps in memory.

use async_trait::async_trait;
use domain::name::Name;

use super::super::app::{AppReads, AppRow, AppWrites};
use super::super::error::Result;
use super::{MemoryTx, next_version};

#[async_trait]
impl AppReads for MemoryTx {
    async fn app_get(&mut self, project: &str, name: &Name) -> Result<Option<AppRow>> {
        Ok(self.state.apps.get(&(project.to_owned(), name.clone())).cloned())
    }

    async fn app_list(&mut self, project: &str) -> Result<Vec<AppRow>> {
        Ok(self.state.apps.rows().filter(|row| row.project == project).cloned().collect())
    }
}

#[async_trait]
impl AppWrites for MemoryTx {
    async fn app_put(&mut self, row: &AppRow) -> Result<u64> {
        let key = (row.project.clone(), row.app.name.clone());
        let stored = self.state.apps.get(&key).map(|stored| stored.version);
        let version = next_version("apps", &row.app.name, stored, row.version)?;
        self.state.apps.put(key, AppRow { version, ..row.clone() });
        Ok(version)
    }
}
