//! Rows of idempotency keys: a call that is made twice creates once.

use async_trait::async_trait;
use domain::ids::PrincipalId;
use domain::release::Digest;
use domain::time::Timestamp;

use super::error::Result;

/// A key that was used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IdempotencyRow {
    /// The project.
    pub project: String,
    /// Who used it.
    pub principal: PrincipalId,
    /// For which method.
    pub method: String,
    /// The key.
    pub key: String,
    /// SHA-256 of the request; another request under the same key is an error.
    pub body: Digest,
    /// What the call created.
    pub created: String,
    /// When.
    pub at: Timestamp,
}

/// Reading idempotency keys.
#[async_trait]
pub trait IdempotencyReads: Send {
    /// What a key was used for.
    async fn idempotency_get(
        &mut self,
        principal: PrincipalId,
        method: &str,
        key: &str,
    ) -> Result<Option<IdempotencyRow>>;
}

/// Storing idempotency keys.
#[async_trait]
pub trait IdempotencyWrites: Send {
    /// Stores a used key; `Exists` when it was used before.
    async fn idempotency_insert(&mut self, row: &IdempotencyRow) -> Result<()>;
}
