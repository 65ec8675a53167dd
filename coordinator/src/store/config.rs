//! Rows of config revisions.

use std::collections::BTreeMap;

use async_trait::async_trait;
use domain::ids::PrincipalId;
use domain::name::TargetRef;
use domain::time::Timestamp;

use super::error::Result;

/// A revision of a target's settings. Never changed, never removed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigRow {
    /// The project.
    pub project: String,
    /// Who made it.
    pub principal: PrincipalId,
    /// The target.
    pub target: TargetRef,
    /// 1, 2, 3 … within the target.
    pub revision: u64,
    /// All settings of the revision.
    pub values: BTreeMap<String, String>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// Reading config revisions.
#[async_trait]
pub trait ConfigReads: Send {
    /// One revision.
    async fn config_get(&mut self, project: &str, target: &TargetRef, revision: u64) -> Result<Option<ConfigRow>>;
    /// The highest revision.
    async fn config_newest(&mut self, project: &str, target: &TargetRef) -> Result<Option<ConfigRow>>;
    /// The last `limit` revisions, newest first.
    async fn config_list(&mut self, project: &str, target: &TargetRef, limit: u32) -> Result<Vec<ConfigRow>>;
}

/// Making config revisions.
#[async_trait]
pub trait ConfigWrites: Send {
    /// Stores a revision; `Exists` when its number is taken.
    async fn config_insert(&mut self, row: &ConfigRow) -> Result<()>;
}
