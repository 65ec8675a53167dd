//! Rows of runs.

use async_trait::async_trait;
use domain::ids::{HostId, RunId};
use domain::name::Name;
use domain::run::Run;

use super::error::Result;

/// A run. Its principal is its owner.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RunRow {
    /// The project.
    pub project: String,
    /// The run.
    pub run: Run,
    /// One line for people: what it does.
    pub detail: String,
    /// 0: not stored yet. See [`RunWrites::run_put`].
    pub version: u64,
}

/// Reading runs.
#[async_trait]
pub trait RunReads: Send {
    /// The run of this id.
    async fn run_get(&mut self, id: RunId) -> Result<Option<RunRow>>;
    /// The last `limit` runs, newest first, of one app or of all.
    async fn run_list(&mut self, project: &str, app: Option<&Name>, limit: u32) -> Result<Vec<RunRow>>;
    /// The runs of all projects that have not ended, oldest first; for the coordinator's own tasks.
    async fn run_list_open(&mut self) -> Result<Vec<RunRow>>;
    /// The runs given to a host that have not ended, oldest first.
    async fn run_list_of_host(&mut self, host: HostId) -> Result<Vec<RunRow>>;
}

/// Changing runs.
#[async_trait]
pub trait RunWrites: Send {
    /// Stores a new run (`version` 0) or changes one, if its stored version is still `row.version`. Answers the new
    /// version; `Exists` and `Conflict` otherwise.
    async fn run_put(&mut self, row: &RunRow) -> Result<u64>;
}
