//! Releases in memory.

use async_trait::async_trait;
use domain::ids::ReleaseId;
use domain::name::TargetRef;
use domain::release::Digest;

use super::super::error::{Error, Result};
use super::super::release::{ReleaseReads, ReleaseRow, ReleaseWrites};
use super::{MemoryTx, last_first};

impl MemoryTx {
    fn releases_of(&self, project: &str, target: &TargetRef) -> impl Iterator<Item = &ReleaseRow> {
        self.state.releases.rows().filter(move |row| row.project == project && row.release.target == *target)
    }
}

#[async_trait]
impl ReleaseReads for MemoryTx {
    async fn release_get(&mut self, id: ReleaseId) -> Result<Option<ReleaseRow>> {
        Ok(self.state.releases.get(&id).cloned())
    }

    async fn release_by_number(
        &mut self,
        project: &str,
        target: &TargetRef,
        number: u64,
    ) -> Result<Option<ReleaseRow>> {
        Ok(self.releases_of(project, target).find(|row| row.release.number == number).cloned())
    }

    async fn release_by_digest(
        &mut self,
        project: &str,
        target: &TargetRef,
        digest: &Digest,
    ) -> Result<Option<ReleaseRow>> {
        Ok(self.releases_of(project, target).find(|row| row.release.digest == *digest).cloned())
    }

    async fn release_newest(&mut self, project: &str, target: &TargetRef) -> Result<Option<ReleaseRow>> {
        Ok(self.releases_of(project, target).max_by_key(|row| row.release.number).cloned())
    }

    async fn release_list(&mut self, project: &str, target: &TargetRef, limit: u32) -> Result<Vec<ReleaseRow>> {
        let rows = last_first(self.releases_of(project, target), |row| row.release.number, limit);
        Ok(rows.into_iter().cloned().collect())
    }
}

#[async_trait]
impl ReleaseWrites for MemoryTx {
    async fn release_insert(&mut self, row: &ReleaseRow) -> Result<()> {
        let new = &row.release;
        let same = |row: &ReleaseRow| row.release.number == new.number || row.release.digest == new.digest;
        let taken = self.state.releases.get(&new.id).is_some();
        if taken || self.releases_of(&row.project, &new.target).any(same) {
            return Err(Error::exists("releases", format!("{} {}", new.target, new.number)));
        }
        self.state.releases.put(new.id, row.clone());
        Ok(())
    }
}
