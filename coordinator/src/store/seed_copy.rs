//! Rows of copies of seeds.

use async_trait::async_trait;
use domain::ids::{HostId, SeedId};
use domain::seed::{Place, SeedCopy};

use super::error::Result;

/// A copy of a seed, by seed and place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SeedCopyRow {
    /// The project.
    pub project: String,
    /// The copy.
    pub copy: SeedCopy,
    /// 0: not stored yet. See [`SeedCopyWrites::seed_copy_put`].
    pub version: u64,
}

/// Reading copies of seeds.
#[async_trait]
pub trait SeedCopyReads: Send {
    /// One copy.
    async fn seed_copy_get(&mut self, seed: SeedId, place: Place) -> Result<Option<SeedCopyRow>>;
    /// All copies of a seed: those on hosts by id, then the store's.
    async fn seed_copy_list(&mut self, seed: SeedId) -> Result<Vec<SeedCopyRow>>;
    /// Those for which the host has something to do, by seed and place.
    async fn seed_copy_list_pending(&mut self, host: HostId) -> Result<Vec<SeedCopyRow>>;
    /// Those that are on this host, and what it pushes, by seed and place.
    async fn seed_copy_list_of_host(&mut self, host: HostId) -> Result<Vec<SeedCopyRow>>;
}

/// Changing copies of seeds.
#[async_trait]
pub trait SeedCopyWrites: Send {
    /// Stores a new copy (`version` 0) or changes one, if its stored version is still `row.version`. Answers the new
    /// version; `Conflict` otherwise.
    async fn seed_copy_put(&mut self, row: &SeedCopyRow) -> Result<u64>;
    /// Forgets one; false if there is none.
    async fn seed_copy_delete(&mut self, seed: SeedId, place: Place) -> Result<bool>;
}
