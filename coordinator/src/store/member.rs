//! Rows of members: what a host has of a target, as ordered and as reported.

use async_trait::async_trait;
use domain::ids::{Generation, HostId};
use domain::name::TargetRef;
use domain::step::report::Report;
use domain::time::Timestamp;

use super::error::Result;

/// What a host has of a target.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemberRow {
    /// The project.
    pub project: String,
    /// The target.
    pub target: TargetRef,
    /// The member.
    pub host: HostId,
    /// The highest generation ever stored for it, by any rollout.
    pub generation: Generation,
    /// Its agent's last report; none: never told, or its agent says it knows nothing of the target.
    pub report: Option<Report>,
    /// When that was stored.
    pub reported_at: Option<Timestamp>,
}

/// Reading members.
#[async_trait]
pub trait MemberReads: Send {
    /// What a host has of a target.
    async fn member_get(&mut self, project: &str, target: &TargetRef, host: HostId) -> Result<Option<MemberRow>>;
    /// The hosts that have, or had, something of a target, by host id.
    async fn member_list(&mut self, project: &str, target: &TargetRef) -> Result<Vec<MemberRow>>;
    /// What a host has of all targets, by target.
    async fn member_list_of_host(&mut self, host: HostId) -> Result<Vec<MemberRow>>;
}

/// Changing members.
#[async_trait]
pub trait MemberWrites: Send {
    /// Raises the highest generation; `Conflict` when the stored one is as high or higher.
    async fn member_generation_put(
        &mut self,
        project: &str,
        target: &TargetRef,
        host: HostId,
        generation: Generation,
    ) -> Result<()>;
    /// Stores a report in place of the last; which of two is newer is the caller's to know.
    async fn member_report_put(
        &mut self,
        project: &str,
        target: &TargetRef,
        host: HostId,
        report: Option<&Report>,
        at: Timestamp,
    ) -> Result<()>;
}
