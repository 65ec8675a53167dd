//! Rows of environments.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use domain::environment::Environment;
use domain::ids::{EnvironmentId, HostId, PrincipalId};
use domain::name::Name;
use domain::seed::Data;
use domain::time::Timestamp;

use super::error::Result;

/// An environment. Its principal is its owner.
///
/// The connection variables of its services are never in this row: they hold credentials, and lie sealed in a secret
/// of kind `environment` (see [`super::secret`]). [`EnvironmentWrites::environment_put`] drops them. A database holds the
/// stack file, its variables and its files sealed, too: see [`super::Store::seal_with`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EnvironmentRow {
    /// The project.
    pub project: String,
    /// The environment.
    pub environment: Environment,
    /// The stack file's name, for messages.
    pub file: String,
    /// Files that the stack names with `env_file`, by their name there.
    pub env_files: BTreeMap<String, String>,
    /// What its data began with.
    pub data: Data,
    /// When its host told that nothing of it is left (or its host was removed).
    pub gone_at: Option<Timestamp>,
    /// When it ends, and what is to be done again in it.
    pub life: Life,
    /// 0: not stored yet. See [`EnvironmentWrites::environment_put`].
    pub version: u64,
}

/// When an environment ends, and what is to be done again in it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Life {
    /// It is removed so long after its last use; none: it does not end by itself.
    pub ttl: Option<Duration>,
    /// Kept until then, whatever its use.
    pub keep_until: Option<Timestamp>,
    /// The end that was warned of, and when.
    pub warned: Option<(Timestamp, Timestamp)>,
    /// Services to restart, each with the generation that asked for it.
    pub restarts: BTreeMap<String, u64>,
    /// Services to build again, likewise.
    pub rebuilds: BTreeMap<String, u64>,
}

/// Reading environments.
#[async_trait]
pub trait EnvironmentReads: Send {
    /// The environment of this id.
    async fn environment_get(&mut self, id: EnvironmentId) -> Result<Option<EnvironmentRow>>;
    /// The owner's environment of this name that is not gone.
    async fn environment_by_name(
        &mut self,
        project: &str,
        owner: PrincipalId,
        name: &Name,
    ) -> Result<Option<EnvironmentRow>>;
    /// The project's environments that are not gone, by name, of one owner or of all.
    async fn environment_list(&mut self, project: &str, owner: Option<PrincipalId>) -> Result<Vec<EnvironmentRow>>;
    /// The host's environments that are not gone, by id.
    async fn environment_list_of_host(&mut self, host: HostId) -> Result<Vec<EnvironmentRow>>;
}

/// Changing environments.
#[async_trait]
pub trait EnvironmentWrites: Send {
    /// Stores a new environment (`version` 0) or changes one, if its stored version is still `row.version`. Answers
    /// the new version; `Exists` when its owner has one of its name that is not gone; `Conflict` otherwise.
    async fn environment_put(&mut self, row: &EnvironmentRow) -> Result<u64>;
}

impl EnvironmentRow {
    /// The row as it is stored.
    pub(crate) fn without_credentials(&self) -> Self {
        let mut row = self.clone();
        for service in &mut row.environment.observed.services {
            service.variables.clear();
        }
        row
    }
}
