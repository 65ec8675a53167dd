//! Builds in memory.

use async_trait::async_trait;
use domain::ids::BuildId;
use domain::name::Name;
use domain::release::Commit;

use super::super::build::{BuildReads, BuildRow, BuildWrites};
use super::super::error::{Error, Result};
use super::{MemoryTx, last_first};

#[async_trait]
impl BuildReads for MemoryTx {
    async fn build_get(&mut self, id: BuildId) -> Result<Option<BuildRow>> {
        Ok(self.state.builds.get(&id).cloned())
    }

    async fn build_newest(&mut self, project: &str, app: &Name) -> Result<Option<BuildRow>> {
        Ok(self.build_list(project, Some(app), 1).await?.pop())
    }

    async fn build_list_at(&mut self, project: &str, app: &Name, commit: &Commit) -> Result<Vec<BuildRow>> {
        let mut rows = self.build_list(project, Some(app), u32::MAX).await?;
        rows.retain(|row| row.build.commit == *commit);
        Ok(rows)
    }

    async fn build_list(&mut self, project: &str, app: Option<&Name>, limit: u32) -> Result<Vec<BuildRow>> {
        let wanted = |row: &&BuildRow| row.project == project && app.is_none_or(|app| row.build.app == *app);
        let rows =
            last_first(self.state.builds.rows().filter(wanted), |row| (row.build.created_at, row.build.id), limit);
        Ok(rows.into_iter().cloned().collect())
    }
}

#[async_trait]
impl BuildWrites for MemoryTx {
    async fn build_insert(&mut self, row: &BuildRow) -> Result<()> {
        if self.state.builds.get(&row.build.id).is_some() {
            return Err(Error::exists("builds", row.build.id));
        }
        self.state.builds.put(row.build.id, row.clone());
        Ok(())
    }
}
