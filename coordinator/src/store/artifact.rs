//! Rows of artifacts: what lies in the artifact store, and who still needs it.

use async_trait::async_trait;
use domain::ids::PrincipalId;
use domain::release::Digest;
use domain::time::Timestamp;

use super::error::Result;

/// Bytes in the artifact store, by content.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ArtifactRow {
    /// The project that stored it first.
    pub project: String,
    /// Who stored it first.
    pub principal: Option<PrincipalId>,
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// How many bytes.
    pub bytes: u64,
    /// When it was stored.
    pub created_at: Timestamp,
}

/// Reading artifacts.
#[async_trait]
pub trait ArtifactReads: Send {
    /// The artifact with this content.
    async fn artifact_get(&mut self, digest: &Digest) -> Result<Option<ArtifactRow>>;
    /// Who needs it, as noun and id, in this order.
    async fn artifact_refs(&mut self, digest: &Digest) -> Result<Vec<(String, String)>>;
    /// At most `limit` artifacts stored before `before` that nobody needs, oldest first.
    async fn artifact_list_unused(&mut self, before: Timestamp, limit: u32) -> Result<Vec<ArtifactRow>>;
}

/// Changing artifacts.
#[async_trait]
pub trait ArtifactWrites: Send {
    /// Notes an artifact; false if it was noted before.
    async fn artifact_insert(&mut self, row: &ArtifactRow) -> Result<bool>;
    /// Notes that `noun` `id` (for example `build` and its id) needs it; again is the same.
    async fn artifact_ref_put(&mut self, digest: &Digest, noun: &'static str, id: &str) -> Result<()>;
    /// `noun` `id` needs no artifact any more.
    async fn artifact_ref_delete(&mut self, noun: &'static str, id: &str) -> Result<()>;
    /// Forgets an artifact, unless somebody needs it; false if so, or if there is none.
    async fn artifact_delete(&mut self, digest: &Digest) -> Result<bool>;
}
