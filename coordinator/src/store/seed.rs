//! Rows of seeds and snapshots.

use async_trait::async_trait;
use domain::ids::{HostId, SeedId};
use domain::seed::Seed;

use super::environment::EnvironmentRow;
use super::error::Result;

/// A seed or a snapshot. Its principal is its owner.
///
/// The stack that it belongs to, with its variables and files, is never in this row: it can hold passwords, and lies
/// sealed in a secret of kind `seed` (see [`super::secret`]).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SeedRow {
    /// The project.
    pub project: String,
    /// The seed.
    pub seed: Seed,
    /// 0: not stored yet. See [`SeedWrites::seed_put`].
    pub version: u64,
}

/// Reading seeds.
#[async_trait]
pub trait SeedReads: Send {
    /// The seed of this id.
    async fn seed_get(&mut self, id: SeedId) -> Result<Option<SeedRow>>;
    /// The project's seeds and snapshots that are not removed, by name, then oldest first.
    async fn seed_list(&mut self, project: &str) -> Result<Vec<SeedRow>>;
    /// Those for which the host has something to do, by id.
    async fn seed_list_pending(&mut self, host: HostId) -> Result<Vec<SeedRow>>;
    /// Environments that began with the seed and are not gone, by id.
    async fn seed_environments(&mut self, id: SeedId) -> Result<Vec<EnvironmentRow>>;
}

/// Changing seeds.
#[async_trait]
pub trait SeedWrites: Send {
    /// Stores a new seed (`version` 0) or changes one, if its stored version is still `row.version`. Answers the new
    /// version; `Exists` when there is one of its name and version that has not ended; `Conflict` otherwise.
    async fn seed_put(&mut self, row: &SeedRow) -> Result<u64>;
}

impl SeedRow {
    /// Within what its name is unique.
    pub(crate) fn namespace(&self) -> String {
        if self.seed.snapshot { self.seed.owner.to_string() } else { String::new() }
    }

    /// Whether two cannot be there at once.
    pub(crate) fn same_name(&self, other: &Self) -> bool {
        self.project == other.project
            && self.seed.snapshot == other.seed.snapshot
            && self.namespace() == other.namespace()
            && self.seed.name == other.seed.name
            && self.seed.version == other.seed.version
    }
}
