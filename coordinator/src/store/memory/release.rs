//! Releases in memory.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use domain::ids::{HostId, ReleaseId};
use domain::name::TargetRef;
use domain::release::Digest;
use domain::rollout::progress::{Ordered, Previous};

use super::super::error::{Error, Result};
use super::super::release::{ReleaseReads, ReleaseRow, ReleaseWrites};
use super::{MemoryTx, last_first};

impl MemoryTx {
    fn releases_of(&self, project: &str, target: &TargetRef) -> impl Iterator<Item = &ReleaseRow> {
        self.state.releases.rows().filter(move |row| row.project == project && row.release.target == *target)
    }
}

#[async_trait]
impl ReleaseReads for MemoryTx {
    async fn release_get(&mut self, id: ReleaseId) -> Result<Option<ReleaseRow>> {
        Ok(self.state.releases.get(&id).cloned())
    }

    async fn release_by_number(
        &mut self,
        project: &str,
        target: &TargetRef,
        number: u64,
    ) -> Result<Option<ReleaseRow>> {
        Ok(self.releases_of(project, target).find(|row| row.release.number == number).cloned())
    }

    async fn release_by_digest(
        &mut self,
        project: &str,
        target: &TargetRef,
        digest: &Digest,
    ) -> Result<Option<ReleaseRow>> {
        Ok(self.releases_of(project, target).find(|row| row.release.digest == *digest).cloned())
    }

    async fn release_newest(&mut self, project: &str, target: &TargetRef) -> Result<Option<ReleaseRow>> {
        Ok(self.releases_of(project, target).max_by_key(|row| row.release.number).cloned())
    }

    async fn release_list(&mut self, project: &str, target: &TargetRef, limit: u32) -> Result<Vec<ReleaseRow>> {
        let rows = last_first(self.releases_of(project, target), |row| row.release.number, limit);
        Ok(rows.into_iter().cloned().collect())
    }

    async fn release_list_due(&mut self, host: HostId) -> Result<Vec<ReleaseRow>> {
        let mut found = BTreeMap::new();
        for row in self.state.rollouts.rows().filter(|row| row.progress.needs_turns()) {
            let mut due = BTreeSet::new();
            let steps = row.plan.members.iter().zip(&row.progress.steps);
            for (_, step) in steps.filter(|(member, _)| member.member == host || member.executor == host) {
                due.insert(row.plan.release);
                due.extend(match step.previous {
                    Previous::Release(id) => Some(id),
                    Previous::Untouched | Previous::Nothing => None,
                });
                due.extend(match step.ordered {
                    Ordered::Revert(id) | Ordered::Converge(id) => Some(id),
                    Ordered::Nothing | Ordered::Stage | Ordered::Forward | Ordered::Confirm | Ordered::Remove => None,
                });
            }
            let of_target =
                |found: &&ReleaseRow| found.project == row.project && found.release.target == row.plan.target;
            let releases = due.iter().filter_map(|id| self.state.releases.get(id)).filter(of_target);
            found.extend(releases.map(|release| (release.release.id, release.clone())));
        }
        Ok(found.into_values().collect())
    }
}

#[async_trait]
impl ReleaseWrites for MemoryTx {
    async fn release_insert(&mut self, row: &ReleaseRow) -> Result<()> {
        let new = &row.release;
        let same = |row: &ReleaseRow| row.release.number == new.number || row.release.digest == new.digest;
        let taken = self.state.releases.get(&new.id).is_some();
        if taken || self.releases_of(&row.project, &new.target).any(same) {
            return Err(Error::exists("releases", format!("{} {}", new.target, new.number)));
        }
        self.state.releases.put(new.id, row.clone());
        Ok(())
    }
}
