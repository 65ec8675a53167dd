//! Rows of secrets: sealed by the vault before they come here, and opened only by it.

use std::fmt;

use async_trait::async_trait;
use domain::time::Timestamp;

use super::error::Result;

/// A sealed secret, by kind (`ca`, `environment`, …) and id.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretRow {
    /// The project.
    pub project: String,
    /// The kind.
    pub kind: String,
    /// The id within its kind.
    pub id: String,
    /// The sealed bytes.
    pub sealed: Vec<u8>,
    /// When it was sealed.
    pub created_at: Timestamp,
}

impl fmt::Debug for SecretRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretRow({}/{}, {} sealed bytes)", self.kind, self.id, self.sealed.len())
    }
}

/// Reading secrets.
#[async_trait]
pub trait SecretReads: Send {
    /// One sealed secret.
    async fn secret_get(&mut self, kind: &str, id: &str) -> Result<Option<SecretRow>>;
}

/// Changing secrets.
#[async_trait]
pub trait SecretWrites: Send {
    /// Stores a sealed secret, in place of the last.
    async fn secret_put(&mut self, row: &SecretRow) -> Result<()>;
    /// Removes one; false if there is none.
    async fn secret_delete(&mut self, kind: &str, id: &str) -> Result<bool>;
}
