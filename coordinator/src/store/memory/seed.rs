//! Seeds in memory.

use async_trait::async_trait;
use domain::ids::{HostId, SeedId};
use domain::seed::SeedState;

use super::super::environment::EnvironmentRow;
use super::super::error::{Error, Result};
use super::super::seed::{SeedReads, SeedRow, SeedWrites};
use super::{MemoryTx, in_order, next_version};

#[async_trait]
impl SeedReads for MemoryTx {
    async fn seed_get(&mut self, id: SeedId) -> Result<Option<SeedRow>> {
        Ok(self.state.seeds.get(&id).cloned())
    }

    async fn seed_list(&mut self, project: &str) -> Result<Vec<SeedRow>> {
        let there = |row: &&SeedRow| row.project == project && row.seed.state != SeedState::Removed;
        let rows = self.state.seeds.rows().filter(there).cloned();
        Ok(in_order(rows, |row| (row.seed.name.clone(), row.seed.created_at, row.seed.id)))
    }

    async fn seed_list_pending(&mut self, host: HostId) -> Result<Vec<SeedRow>> {
        let pending = |row: &&SeedRow| row.seed.host == host && row.seed.state.pending();
        Ok(self.state.seeds.rows().filter(pending).cloned().collect())
    }

    async fn seed_environments(&mut self, id: SeedId) -> Result<Vec<EnvironmentRow>> {
        let of = |row: &&EnvironmentRow| row.gone_at.is_none() && row.data.seed == Some(id);
        Ok(self.state.environments.rows().filter(of).cloned().collect())
    }
}

#[async_trait]
impl SeedWrites for MemoryTx {
    async fn seed_put(&mut self, row: &SeedRow) -> Result<u64> {
        let stored = self.state.seeds.get(&row.seed.id).map(|stored| stored.version);
        let same = |other: &SeedRow| other.seed.ended_at.is_none() && other.same_name(row);
        if row.version == 0 && self.state.seeds.rows().any(same) {
            return Err(Error::exists("seeds", &row.seed.name));
        }
        let version = next_version("seeds", row.seed.id, stored, row.version)?;
        self.state.seeds.put(row.seed.id, SeedRow { version, ..row.clone() });
        Ok(version)
    }
}
