//! Small facts about the cluster as a whole, by key.

use async_trait::async_trait;

use super::error::Result;

/// Reading facts.
#[async_trait]
pub trait MetaReads: Send {
    /// The value of a key.
    async fn meta_get(&mut self, key: &str) -> Result<Option<String>>;
}

/// Changing facts.
#[async_trait]
pub trait MetaWrites: Send {
    /// Stores a value, in place of the last.
    async fn meta_put(&mut self, key: &str, value: &str) -> Result<()>;
}
