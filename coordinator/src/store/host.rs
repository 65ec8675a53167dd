//! Rows of hosts.

use async_trait::async_trait;
use domain::host::Host;
use domain::ids::{HostId, PrincipalId, RolloutId};
use domain::name::Name;
use domain::release::Digest;
use domain::time::Timestamp;

use super::error::Result;

/// A host with what only the coordinator knows of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostRow {
    /// The project it belongs to.
    pub project: String,
    /// Who made the join-token it joined with.
    pub principal: Option<PrincipalId>,
    /// The host.
    pub host: Host,
    /// Since when its liveness holds.
    pub since: Timestamp,
    /// The certificate it was given last.
    pub certificate: Option<Certificate>,
    /// 0: not stored yet. See [`HostWrites::host_put`].
    pub version: u64,
}

/// The certificate that a host was given last.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Certificate {
    /// Serial number, hexadecimal.
    pub serial: String,
    /// SHA-256 of the whole certificate (DER).
    pub fingerprint: Digest,
    /// When it ends.
    pub not_after: Timestamp,
    /// It may not be used any more.
    pub revoked: bool,
}

/// Reading hosts.
#[async_trait]
pub trait HostReads: Send {
    /// The host of this id.
    async fn host_get(&mut self, id: HostId) -> Result<Option<HostRow>>;
    /// The project's host of this name.
    async fn host_by_name(&mut self, project: &str, name: &Name) -> Result<Option<HostRow>>;
    /// The project's hosts, by name.
    async fn host_list(&mut self, project: &str) -> Result<Vec<HostRow>>;
    /// The executors of a rollout that are not removed, by id.
    async fn host_list_of_rollout(&mut self, rollout: RolloutId) -> Result<Vec<HostRow>>;
    /// The hosts of all projects, by id; for the coordinator's own tasks.
    async fn host_list_all(&mut self) -> Result<Vec<HostRow>>;
}

/// Changing hosts.
#[async_trait]
pub trait HostWrites: Send {
    /// Stores a new host (`version` 0) or changes one, if its stored version is still `row.version`. Id, project and
    /// name never change. Answers the new version; `Exists` and `Conflict` otherwise.
    async fn host_put(&mut self, row: &HostRow) -> Result<u64>;
    /// Removes a host and what its agent reported of targets; false if there is none.
    async fn host_delete(&mut self, id: HostId) -> Result<bool>;
}
