//! Runs in memory.

use async_trait::async_trait;
use domain::ids::{HostId, RunId};
use domain::name::Name;
use domain::run::RunState;

use super::super::error::Result;
use super::super::run::{RunReads, RunRow, RunWrites};
use super::{MemoryTx, in_order, last_first, next_version};

#[async_trait]
impl RunReads for MemoryTx {
    async fn run_get(&mut self, id: RunId) -> Result<Option<RunRow>> {
        Ok(self.state.runs.get(&id).cloned())
    }

    async fn run_list(&mut self, project: &str, app: Option<&Name>, limit: u32) -> Result<Vec<RunRow>> {
        let wanted = |row: &&RunRow| row.project == project && app.is_none_or(|app| row.run.app == *app);
        let rows = last_first(self.state.runs.rows().filter(wanted), |row| (row.run.created_at, row.run.id), limit);
        Ok(rows.into_iter().cloned().collect())
    }

    async fn run_list_open(&mut self) -> Result<Vec<RunRow>> {
        let rows = self.state.runs.rows().filter(|row| row.run.state != RunState::Finished).cloned();
        Ok(in_order(rows, |row| (row.run.created_at, row.run.id)))
    }

    async fn run_list_of_host(&mut self, host: HostId) -> Result<Vec<RunRow>> {
        let mut rows = self.run_list_open().await?;
        rows.retain(|row| row.run.host == Some(host));
        Ok(rows)
    }
}

#[async_trait]
impl RunWrites for MemoryTx {
    async fn run_put(&mut self, row: &RunRow) -> Result<u64> {
        let stored = self.state.runs.get(&row.run.id).map(|stored| stored.version);
        let version = next_version("runs", row.run.id, stored, row.version)?;
        self.state.runs.put(row.run.id, RunRow { version, ..row.clone() });
        Ok(version)
    }
}
