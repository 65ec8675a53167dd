//! Rows of builds.

use async_trait::async_trait;
use domain::ids::{BuildId, PrincipalId};
use domain::name::Name;
use domain::release::{Build, Commit};

use super::error::Result;

/// A build. Never changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BuildRow {
    /// The project.
    pub project: String,
    /// Who registered it.
    pub principal: PrincipalId,
    /// The build.
    pub build: Build,
}

/// Reading builds.
#[async_trait]
pub trait BuildReads: Send {
    /// The build of this id.
    async fn build_get(&mut self, id: BuildId) -> Result<Option<BuildRow>>;
    /// The app's build that was registered last.
    async fn build_newest(&mut self, project: &str, app: &Name) -> Result<Option<BuildRow>>;
    /// The app's builds at a commit, newest first.
    async fn build_list_at(&mut self, project: &str, app: &Name, commit: &Commit) -> Result<Vec<BuildRow>>;
    /// The last `limit` builds, newest first, of one app or of all.
    async fn build_list(&mut self, project: &str, app: Option<&Name>, limit: u32) -> Result<Vec<BuildRow>>;
}

/// Making builds.
#[async_trait]
pub trait BuildWrites: Send {
    /// Stores a build; `Exists` when its id is taken.
    async fn build_insert(&mut self, row: &BuildRow) -> Result<()>;
}
