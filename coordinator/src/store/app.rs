//! Rows of apps.

use async_trait::async_trait;
use domain::app::App;
use domain::ids::PrincipalId;
use domain::name::Name;
use domain::time::Timestamp;

use super::error::Result;

/// An app as it was applied last.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AppRow {
    /// The project it belongs to.
    pub project: String,
    /// Who applied it last.
    pub principal: PrincipalId,
    /// What `muster.yaml` says.
    pub app: App,
    /// `muster.yaml` as applied.
    pub manifest: String,
    /// Where runs fetch commits from; empty: none.
    pub repository: String,
    /// When it was applied last.
    pub applied_at: Timestamp,
    /// 0: not stored yet. See [`AppWrites::app_put`].
    pub version: u64,
}

/// Reading apps.
#[async_trait]
pub trait AppReads: Send {
    /// The project's app of this name.
    async fn app_get(&mut self, project: &str, name: &Name) -> Result<Option<AppRow>>;
    /// The project's apps, by name.
    async fn app_list(&mut self, project: &str) -> Result<Vec<AppRow>>;
}

/// Changing apps.
#[async_trait]
pub trait AppWrites: Send {
    /// Stores a new app (`version` 0) or changes one, if its stored version is still `row.version`. Answers the new
    /// version; `Exists` and `Conflict` otherwise.
    async fn app_put(&mut self, row: &AppRow) -> Result<u64>;
}
