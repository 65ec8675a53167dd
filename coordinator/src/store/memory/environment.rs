//! Environments in memory.

use async_trait::async_trait;
use domain::ids::{EnvironmentId, HostId, PrincipalId};
use domain::name::Name;

use super::super::environment::{EnvironmentReads, EnvironmentRow, EnvironmentWrites};
use super::super::error::{Error, Result};
use super::{MemoryTx, in_order, next_version};

impl MemoryTx {
    fn environments_there(&self) -> impl Iterator<Item = &EnvironmentRow> {
        self.state.environments.rows().filter(|row| row.gone_at.is_none())
    }
}

#[async_trait]
impl EnvironmentReads for MemoryTx {
    async fn environment_get(&mut self, id: EnvironmentId) -> Result<Option<EnvironmentRow>> {
        Ok(self.state.environments.get(&id).cloned())
    }

    async fn environment_by_name(
        &mut self,
        project: &str,
        owner: PrincipalId,
        name: &Name,
    ) -> Result<Option<EnvironmentRow>> {
        let wanted = |row: &&EnvironmentRow| {
            row.project == project && row.environment.owner == owner && row.environment.name == *name
        };
        Ok(self.environments_there().find(wanted).cloned())
    }

    async fn environment_list(&mut self, project: &str, owner: Option<PrincipalId>) -> Result<Vec<EnvironmentRow>> {
        let wanted =
            |row: &&EnvironmentRow| row.project == project && owner.is_none_or(|owner| row.environment.owner == owner);
        let rows = self.environments_there().filter(wanted).cloned();
        Ok(in_order(rows, |row| (row.environment.name.clone(), row.environment.id)))
    }

    async fn environment_list_of_host(&mut self, host: HostId) -> Result<Vec<EnvironmentRow>> {
        Ok(self.environments_there().filter(|row| row.environment.host == host).cloned().collect())
    }
}

#[async_trait]
impl EnvironmentWrites for MemoryTx {
    async fn environment_put(&mut self, row: &EnvironmentRow) -> Result<u64> {
        let new = &row.environment;
        let stored = self.state.environments.get(&new.id).map(|stored| stored.version);
        let same = self.environment_by_name(&row.project, new.owner, &new.name).await?;
        if row.gone_at.is_none() && same.is_some_and(|same| same.environment.id != new.id) {
            return Err(Error::exists("environments", &new.name));
        }
        let version = next_version("environments", new.id, stored, row.version)?;
        let row = EnvironmentRow { version, ..row.without_credentials() };
        self.state.environments.put(new.id, row);
        Ok(version)
    }
}
