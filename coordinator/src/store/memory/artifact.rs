//! Artifacts in memory.

use async_trait::async_trait;
use domain::release::Digest;
use domain::time::Timestamp;

use super::super::artifact::{ArtifactReads, ArtifactRow, ArtifactWrites};
use super::super::error::Result;
use super::{MemoryTx, in_order};

impl MemoryTx {
    fn artifact_used(&self, digest: &Digest) -> bool {
        self.state.artifact_refs.iter().any(|(key, ())| key.2 == *digest)
    }
}

#[async_trait]
impl ArtifactReads for MemoryTx {
    async fn artifact_get(&mut self, digest: &Digest) -> Result<Option<ArtifactRow>> {
        Ok(self.state.artifacts.get(digest).cloned())
    }

    async fn artifact_refs(&mut self, digest: &Digest) -> Result<Vec<(String, String)>> {
        let refs = self.state.artifact_refs.iter().filter(|(key, ())| key.2 == *digest);
        Ok(refs.map(|(key, ())| (key.0.clone(), key.1.clone())).collect())
    }

    async fn artifact_list_unused(&mut self, before: Timestamp, limit: u32) -> Result<Vec<ArtifactRow>> {
        let unused = |row: &&ArtifactRow| row.created_at < before && !self.artifact_used(&row.digest);
        let rows = self.state.artifacts.rows().filter(unused).cloned();
        let mut rows = in_order(rows, |row| (row.created_at, row.digest.clone()));
        rows.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        Ok(rows)
    }
}

#[async_trait]
impl ArtifactWrites for MemoryTx {
    async fn artifact_insert(&mut self, row: &ArtifactRow) -> Result<bool> {
        let new = self.state.artifacts.get(&row.digest).is_none();
        if new {
            self.state.artifacts.put(row.digest.clone(), row.clone());
        }
        Ok(new)
    }

    async fn artifact_ref_put(&mut self, digest: &Digest, noun: &'static str, id: &str) -> Result<()> {
        self.state.artifact_refs.put((noun.to_owned(), id.to_owned(), digest.clone()), ());
        Ok(())
    }

    async fn artifact_ref_delete(&mut self, noun: &'static str, id: &str) -> Result<()> {
        let refs = self.state.artifact_refs.iter().filter(|(key, ())| key.0 == noun && key.1 == id);
        let keys: Vec<_> = refs.map(|(key, ())| key.clone()).collect();
        for key in keys {
            self.state.artifact_refs.delete(&key);
        }
        Ok(())
    }

    async fn artifact_delete(&mut self, digest: &Digest) -> Result<bool> {
        Ok(!self.artifact_used(digest) && self.state.artifacts.delete(digest))
    }
}
