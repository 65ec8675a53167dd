//! Hosts in memory.

use std::collections::BTreeSet;

use async_trait::async_trait;
use domain::ids::{HostId, RolloutId};
use domain::name::Name;

use super::super::error::{Error, Result};
use super::super::host::{HostReads, HostRow, HostWrites};
use super::{MemoryTx, in_order, next_version};

#[async_trait]
impl HostReads for MemoryTx {
    async fn host_get(&mut self, id: HostId) -> Result<Option<HostRow>> {
        Ok(self.state.hosts.get(&id).cloned())
    }

    async fn host_by_name(&mut self, project: &str, name: &Name) -> Result<Option<HostRow>> {
        let wanted = |row: &&HostRow| row.project == project && row.host.name == *name;
        Ok(self.state.hosts.rows().find(wanted).cloned())
    }

    async fn host_list(&mut self, project: &str) -> Result<Vec<HostRow>> {
        let rows = self.state.hosts.rows().filter(|row| row.project == project).cloned();
        Ok(in_order(rows, |row| row.host.name.clone()))
    }

    async fn host_list_of_rollout(&mut self, rollout: RolloutId) -> Result<Vec<HostRow>> {
        let Some(row) = self.state.rollouts.get(&rollout) else { return Ok(Vec::new()) };
        let executors: BTreeSet<HostId> = row.plan.members.iter().map(|member| member.executor).collect();
        Ok(executors.iter().filter_map(|id| self.state.hosts.get(id).cloned()).collect())
    }

    async fn host_list_all(&mut self) -> Result<Vec<HostRow>> {
        Ok(self.state.hosts.rows().cloned().collect())
    }
}

#[async_trait]
impl HostWrites for MemoryTx {
    async fn host_put(&mut self, row: &HostRow) -> Result<u64> {
        let id = row.host.id;
        let stored = self.state.hosts.get(&id).map(|stored| stored.version);
        if stored.is_none() && self.host_by_name(&row.project, &row.host.name).await?.is_some() {
            return Err(Error::exists("hosts", &row.host.name));
        }
        let version = next_version("hosts", id, stored, row.version)?;
        self.state.hosts.put(id, HostRow { version, ..row.clone() });
        Ok(version)
    }

    async fn host_delete(&mut self, id: HostId) -> Result<bool> {
        let members = self.state.members.iter().filter(|(key, _)| key.2 == id);
        let keys: Vec<_> = members.map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.state.members.delete(&key);
        }
        Ok(self.state.hosts.delete(&id))
    }
}
