//! What a transaction offers: one trait per noun, put together.

use async_trait::async_trait;

use super::app::{AppReads, AppWrites};
use super::artifact::{ArtifactReads, ArtifactWrites};
use super::build::{BuildReads, BuildWrites};
use super::chunk::{ChunkReads, ChunkWrites};
use super::config::{ConfigReads, ConfigWrites};
use super::environment::{EnvironmentReads, EnvironmentWrites};
use super::error::Result;
use super::event::{EventReads, EventWrites};
use super::host::{HostReads, HostWrites};
use super::idempotency::{IdempotencyReads, IdempotencyWrites};
use super::log::{LogReads, LogWrites};
use super::member::{MemberReads, MemberWrites};
use super::meta::{MetaReads, MetaWrites};
use super::release::{ReleaseReads, ReleaseWrites};
use super::retention::RetentionWrites;
use super::rollout::{RolloutReads, RolloutWrites};
use super::run::{RunReads, RunWrites};
use super::secret::{SecretReads, SecretWrites};
use super::seed::{SeedReads, SeedWrites};
use super::seed_copy::{SeedCopyReads, SeedCopyWrites};
use super::target::{TargetReads, TargetWrites};
use super::token::{TokenReads, TokenWrites};

/// Everything that can be read, as of one instant.
pub trait View:
    HostReads
    + TokenReads
    + AppReads
    + TargetReads
    + MemberReads
    + ConfigReads
    + BuildReads
    + ReleaseReads
    + EnvironmentReads
    + RunReads
    + RolloutReads
    + EventReads
    + ArtifactReads
    + LogReads
    + IdempotencyReads
    + SecretReads
    + SeedReads
    + SeedCopyReads
    + ChunkReads
    + MetaReads
    + Send
{
}

impl<T> View for T where
    T: HostReads
        + TokenReads
        + AppReads
        + TargetReads
        + MemberReads
        + ConfigReads
        + BuildReads
        + ReleaseReads
        + EnvironmentReads
        + RunReads
        + RolloutReads
        + EventReads
        + ArtifactReads
        + LogReads
        + IdempotencyReads
        + SecretReads
        + SeedReads
        + SeedCopyReads
        + ChunkReads
        + MetaReads
        + Send
{
}

/// Everything that can be read and changed, all or nothing.
///
/// After `Conflict` and `Exists` a transaction may go on; after any other error it can only fail.
pub trait Tx:
    View
    + HostWrites
    + TokenWrites
    + AppWrites
    + TargetWrites
    + MemberWrites
    + ConfigWrites
    + BuildWrites
    + ReleaseWrites
    + EnvironmentWrites
    + RunWrites
    + RolloutWrites
    + EventWrites
    + ArtifactWrites
    + LogWrites
    + IdempotencyWrites
    + SecretWrites
    + SeedWrites
    + SeedCopyWrites
    + ChunkWrites
    + MetaWrites
    + RetentionWrites
{
}

impl<T> Tx for T where
    T: View
        + HostWrites
        + TokenWrites
        + AppWrites
        + TargetWrites
        + MemberWrites
        + ConfigWrites
        + BuildWrites
        + ReleaseWrites
        + EnvironmentWrites
        + RunWrites
        + RolloutWrites
        + EventWrites
        + ArtifactWrites
        + LogWrites
        + IdempotencyWrites
        + SecretWrites
        + SeedWrites
        + SeedCopyWrites
        + ChunkWrites
        + MetaWrites
        + RetentionWrites
{
}

/// A transaction as its backend ends it.
#[async_trait]
pub(crate) trait Transaction: Tx {
    /// Makes the changes; answers the highest `ledger.seq` it gave out.
    async fn commit(self: Box<Self>) -> Result<Option<u64>>;
    /// Forgets the changes.
    async fn rollback(self: Box<Self>);
}
