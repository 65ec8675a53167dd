//! Artifacts in SQL.

use async_trait::async_trait;
use domain::release::Digest;
use domain::time::Timestamp;

use super::super::artifact::{ArtifactReads, ArtifactRow, ArtifactWrites};
use super::super::error::Result;
use super::{Columns, FromRow, SqlTx, values};

impl FromRow for ArtifactRow {
    const TABLE: &'static str = "artifacts";
    const KEY: &'static [&'static str] = &["digest"];

    fn from_row(row: &Columns<'_>) -> Result<Self> {
        Ok(Self {
            project: row.text("project")?,
            principal: row.parse_or_null("principal")?,
            digest: row.digest("digest")?,
            bytes: row.number("bytes")?,
            created_at: row.at("created_at")?,
        })
    }
}

/// Noun and id of what needs an artifact.
struct Reference(String, String);

impl FromRow for Reference {
    const TABLE: &'static str = "artifact_refs";
    const KEY: &'static [&'static str] = &["noun", "id"];

    fn from_row(row: &Columns<'_>) -> Result<Self> {
        Ok(Self(row.text("noun")?, row.text("id")?))
    }
}

#[async_trait]
impl ArtifactReads for SqlTx {
    async fn artifact_get(&mut self, digest: &Digest) -> Result<Option<ArtifactRow>> {
        self.one("SELECT * FROM artifacts WHERE digest = $1", values![digest]).await
    }

    async fn artifact_refs(&mut self, digest: &Digest) -> Result<Vec<(String, String)>> {
        let sql = "SELECT noun, id FROM artifact_refs WHERE digest = $1 ORDER BY noun, id";
        let refs: Vec<Reference> = self.list(sql, values![digest]).await?;
        Ok(refs.into_iter().map(|Reference(noun, id)| (noun, id)).collect())
    }

    async fn artifact_list_unused(&mut self, before: Timestamp, limit: u32) -> Result<Vec<ArtifactRow>> {
        let sql = "SELECT * FROM artifacts WHERE created_at < $1 \
                   AND NOT EXISTS (SELECT 1 FROM artifact_refs WHERE artifact_refs.digest = artifacts.digest) \
                   ORDER BY created_at, digest LIMIT $2";
        self.list(sql, values![before, limit]).await
    }
}

#[async_trait]
impl ArtifactWrites for SqlTx {
    async fn artifact_insert(&mut self, row: &ArtifactRow) -> Result<bool> {
        let sql = "INSERT INTO artifacts (digest, project, principal, bytes, created_at) VALUES ($1, $2, $3, $4, $5) \
                   ON CONFLICT DO NOTHING";
        let values = values![&row.digest, &row.project, row.principal, row.bytes, row.created_at];
        Ok(self.execute("artifacts", sql, values).await? > 0)
    }

    async fn artifact_ref_put(&mut self, digest: &Digest, noun: &'static str, id: &str) -> Result<()> {
        let sql = "INSERT INTO artifact_refs (noun, id, digest) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
        self.execute("artifact_refs", sql, values![noun, id, digest]).await?;
        Ok(())
    }

    async fn artifact_ref_delete(&mut self, noun: &'static str, id: &str) -> Result<()> {
        let sql = "DELETE FROM artifact_refs WHERE noun = $1 AND id = $2";
        self.execute("artifact_refs", sql, values![noun, id]).await?;
        Ok(())
    }

    async fn artifact_delete(&mut self, digest: &Digest) -> Result<bool> {
        let sql = "DELETE FROM artifacts WHERE digest = $1 \
                   AND NOT EXISTS (SELECT 1 FROM artifact_refs WHERE artifact_refs.digest = artifacts.digest)";
        Ok(self.execute("artifacts", sql, values![digest]).await? > 0)
    }
}
