//! Rows of releases.

use async_trait::async_trait;
use domain::ids::{HostId, PrincipalId, ReleaseId};
use domain::name::TargetRef;
use domain::release::{Digest, Release};

use super::error::Result;

/// A release. Never changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReleaseRow {
    /// The project.
    pub project: String,
    /// Who made it.
    pub principal: PrincipalId,
    /// The release.
    pub release: Release,
}

/// Reading releases.
#[async_trait]
pub trait ReleaseReads: Send {
    /// The release of this id.
    async fn release_get(&mut self, id: ReleaseId) -> Result<Option<ReleaseRow>>;
    /// The target's release of this number.
    async fn release_by_number(&mut self, project: &str, target: &TargetRef, number: u64)
    -> Result<Option<ReleaseRow>>;
    /// The target's release of this digest: an equal digest is the same release.
    async fn release_by_digest(
        &mut self,
        project: &str,
        target: &TargetRef,
        digest: &Digest,
    ) -> Result<Option<ReleaseRow>>;
    /// The target's release with the highest number.
    async fn release_newest(&mut self, project: &str, target: &TargetRef) -> Result<Option<ReleaseRow>>;
    /// The last `limit` releases, newest first.
    async fn release_list(&mut self, project: &str, target: &TargetRef, limit: u32) -> Result<Vec<ReleaseRow>>;
    /// The releases that rollouts which have something to do can order of a host, by id: what they go to, what it had before,
    /// and what is ordered now. A host may have named others than its target's; those are left out.
    async fn release_list_due(&mut self, host: HostId) -> Result<Vec<ReleaseRow>>;
}

/// Making releases.
#[async_trait]
pub trait ReleaseWrites: Send {
    /// Stores a release; `Exists` when its id, or its number or digest within the target, is taken.
    async fn release_insert(&mut self, row: &ReleaseRow) -> Result<()>;
}
