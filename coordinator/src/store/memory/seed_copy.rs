//! Copies of seeds in memory.

use async_trait::async_trait;
use domain::ids::{HostId, SeedId};
use domain::seed::Place;

use super::super::error::Result;
use super::super::seed_copy::{SeedCopyReads, SeedCopyRow, SeedCopyWrites};
use super::{MemoryTx, next_version};

#[async_trait]
impl SeedCopyReads for MemoryTx {
    async fn seed_copy_get(&mut self, seed: SeedId, place: Place) -> Result<Option<SeedCopyRow>> {
        Ok(self.state.seed_copies.get(&(seed, place.to_string())).cloned())
    }

    async fn seed_copy_list(&mut self, seed: SeedId) -> Result<Vec<SeedCopyRow>> {
        Ok(self.state.seed_copies.rows().filter(|row| row.copy.seed == seed).cloned().collect())
    }

    async fn seed_copy_list_pending(&mut self, host: HostId) -> Result<Vec<SeedCopyRow>> {
        let pending = |row: &&SeedCopyRow| row.copy.host == host && row.copy.state.pending();
        Ok(self.state.seed_copies.rows().filter(pending).cloned().collect())
    }

    async fn seed_copy_list_of_host(&mut self, host: HostId) -> Result<Vec<SeedCopyRow>> {
        Ok(self.state.seed_copies.rows().filter(|row| row.copy.host == host).cloned().collect())
    }
}

#[async_trait]
impl SeedCopyWrites for MemoryTx {
    async fn seed_copy_put(&mut self, row: &SeedCopyRow) -> Result<u64> {
        let key = (row.copy.seed, row.copy.place.to_string());
        let stored = self.state.seed_copies.get(&key).map(|stored| stored.version);
        let version = next_version("seed_copies", row.copy.seed, stored, row.version)?;
        self.state.seed_copies.put(key, SeedCopyRow { version, ..row.clone() });
        Ok(version)
    }

    async fn seed_copy_delete(&mut self, seed: SeedId, place: Place) -> Result<bool> {
        Ok(self.state.seed_copies.delete(&(seed, place.to_string())))
    }
}
