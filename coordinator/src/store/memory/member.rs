//! Members in memory.

use async_trait::async_trait;
use domain::ids::{Generation, HostId};
use domain::name::TargetRef;
use domain::step::report::Report;
use domain::time::Timestamp;

use super::super::error::{Error, Result};
use super::super::member::{MemberReads, MemberRow, MemberWrites};
use super::{MemoryTx, in_order};

#[async_trait]
impl MemberReads for MemoryTx {
    async fn member_get(&mut self, project: &str, target: &TargetRef, host: HostId) -> Result<Option<MemberRow>> {
        Ok(self.state.members.get(&(project.to_owned(), target.clone(), host)).cloned())
    }

    async fn member_list(&mut self, project: &str, target: &TargetRef) -> Result<Vec<MemberRow>> {
        let wanted = |row: &&MemberRow| row.project == project && row.target == *target;
        Ok(self.state.members.rows().filter(wanted).cloned().collect())
    }

    async fn member_list_of_host(&mut self, host: HostId) -> Result<Vec<MemberRow>> {
        let rows = self.state.members.rows().filter(|row| row.host == host).cloned();
        Ok(in_order(rows, |row| (row.project.clone(), row.target.clone())))
    }
}

#[async_trait]
impl MemberWrites for MemoryTx {
    async fn member_generation_put(
        &mut self,
        project: &str,
        target: &TargetRef,
        host: HostId,
        generation: Generation,
    ) -> Result<()> {
        let mut row = self.member_or_new(project, target, host);
        if row.generation >= generation {
            return Err(Error::conflict("members", format!("{target} {host}")));
        }
        row.generation = generation;
        self.member_put(row);
        Ok(())
    }

    async fn member_report_put(
        &mut self,
        project: &str,
        target: &TargetRef,
        host: HostId,
        report: Option<&Report>,
        at: Timestamp,
    ) -> Result<()> {
        let mut row = self.member_or_new(project, target, host);
        row.report = report.cloned();
        row.reported_at = Some(at);
        self.member_put(row);
        Ok(())
    }
}

impl MemoryTx {
    fn member_or_new(&self, project: &str, target: &TargetRef, host: HostId) -> MemberRow {
        let key = (project.to_owned(), target.clone(), host);
        self.state.members.get(&key).cloned().unwrap_or_else(|| MemberRow {
            project: key.0,
            target: key.1,
            host,
            generation: Generation::default(),
            report: None,
            reported_at: None,
        })
    }

    fn member_put(&mut self, row: MemberRow) {
        self.state.members.put((row.project.clone(), row.target.clone(), row.host), row);
    }
}
