//! Rows of principals and of the secrets with which they and hosts call.

use async_trait::async_trait;
use domain::authorize::Grant;
use domain::ids::{ApiTokenId, HostId, JoinTokenId, PrincipalId};
use domain::label::Labels;
use domain::name::Name;
use domain::release::Digest;
use domain::time::Timestamp;

use super::error::Result;

/// A person or a service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PrincipalRow {
    /// Its id.
    pub id: PrincipalId,
    /// The project it acts in.
    pub project: String,
    /// Who made it; none: the coordinator's first start.
    pub principal: Option<PrincipalId>,
    /// Unique in the project.
    pub name: Name,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A secret with which a principal calls. The secret itself is never stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ApiTokenRow {
    /// Its id.
    pub id: ApiTokenId,
    /// The project.
    pub project: String,
    /// Whose calls it authenticates.
    pub principal: PrincipalId,
    /// Who made it; none: the coordinator's first start.
    pub created_by: Option<PrincipalId>,
    /// SHA-256 of the secret, which is random and long.
    pub secret: Digest,
    /// What it may do.
    pub grant: Grant,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends by itself.
    pub expires_at: Timestamp,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

/// A one-time secret with which a host joins. The secret itself is never stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JoinTokenRow {
    /// Its id.
    pub id: JoinTokenId,
    /// The project.
    pub project: String,
    /// Who made it.
    pub principal: PrincipalId,
    /// Name that the host will have.
    pub host: Name,
    /// Labels that the host will have.
    pub labels: Labels,
    /// SHA-256 of the secret, which is random and long.
    pub secret: Digest,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends by itself.
    pub expires_at: Timestamp,
    /// The host that used it, and when.
    pub used: Option<(HostId, Timestamp)>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

/// Reading principals and tokens.
#[async_trait]
pub trait TokenReads: Send {
    /// The principal of this id.
    async fn principal_get(&mut self, id: PrincipalId) -> Result<Option<PrincipalRow>>;
    /// The project's principal of this name.
    async fn principal_by_name(&mut self, project: &str, name: &Name) -> Result<Option<PrincipalRow>>;
    /// The project's principals, by name.
    async fn principal_list(&mut self, project: &str) -> Result<Vec<PrincipalRow>>;
    /// The api-token of this id.
    async fn api_token_get(&mut self, id: ApiTokenId) -> Result<Option<ApiTokenRow>>;
    /// The project's api-tokens, oldest first.
    async fn api_token_list(&mut self, project: &str) -> Result<Vec<ApiTokenRow>>;
    /// The join-token of this id.
    async fn join_token_get(&mut self, id: JoinTokenId) -> Result<Option<JoinTokenRow>>;
    /// The project's join-tokens, oldest first.
    async fn join_token_list(&mut self, project: &str) -> Result<Vec<JoinTokenRow>>;
}

/// Changing principals and tokens.
#[async_trait]
pub trait TokenWrites: Send {
    /// Stores a new principal; `Exists` when the project has one of its name.
    async fn principal_insert(&mut self, row: &PrincipalRow) -> Result<()>;
    /// Stores a new api-token.
    async fn api_token_insert(&mut self, row: &ApiTokenRow) -> Result<()>;
    /// Revokes an api-token; false if there is none or it was revoked before.
    async fn api_token_revoke(&mut self, id: ApiTokenId, at: Timestamp) -> Result<bool>;
    /// Stores a new join-token.
    async fn join_token_insert(&mut self, row: &JoinTokenRow) -> Result<()>;
    /// Marks a join-token as used; false if there is none, or it was used or revoked before. Expiry is the caller's.
    async fn join_token_use(&mut self, id: JoinTokenId, host: HostId, at: Timestamp) -> Result<bool>;
    /// Revokes a join-token; false if there is none, or it was used or revoked before.
    async fn join_token_revoke(&mut self, id: JoinTokenId, at: Timestamp) -> Result<bool>;
}
