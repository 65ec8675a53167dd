//! Members in SQL.

use async_trait::async_trait;
use domain::ids::{Generation, HostId};
use domain::name::TargetRef;
use domain::step::report::Report;
use domain::time::Timestamp;

use super::super::error::Result;
use super::super::member::{MemberReads, MemberRow, MemberWrites};
use super::{Columns, FromRow, SqlTx, Value, values};

impl FromRow for MemberRow {
    const TABLE: &'static str = "members";
    const KEY: &'static [&'static str] = &["project", "app", "target", "host"];

    fn from_row(row: &Columns<'_>) -> Result<Self> {
        Ok(Self {
            project: row.text("project")?,
            target: row.target()?,
            host: row.parse("host")?,
            generation: row.generation("generation")?,
            report: row.json_or_null("report")?,
            reported_at: row.at_or_null("reported_at")?,
        })
    }
}

#[async_trait]
impl MemberReads for SqlTx {
    async fn member_get(&mut self, project: &str, target: &TargetRef, host: HostId) -> Result<Option<MemberRow>> {
        let sql = "SELECT * FROM members WHERE project = $1 AND app = $2 AND target = $3 AND host = $4";
        self.one(sql, values![project, &target.app, &target.target, host]).await
    }

    async fn member_list(&mut self, project: &str, target: &TargetRef) -> Result<Vec<MemberRow>> {
        let sql = "SELECT * FROM members WHERE project = $1 AND app = $2 AND target = $3 ORDER BY host";
        self.list(sql, values![project, &target.app, &target.target]).await
    }

    async fn member_list_of_host(&mut self, host: HostId) -> Result<Vec<MemberRow>> {
        self.list("SELECT * FROM members WHERE host = $1 ORDER BY project, app, target", values![host]).await
    }
}

#[async_trait]
impl MemberWrites for SqlTx {
    async fn member_generation_put(
        &mut self,
        project: &str,
        target: &TargetRef,
        host: HostId,
        generation: Generation,
    ) -> Result<()> {
        let sql = "INSERT INTO members (project, app, target, host, generation) VALUES ($1, $2, $3, $4, $5) \
                   ON CONFLICT (project, app, target, host) DO UPDATE SET generation = excluded.generation \
                   WHERE members.generation < excluded.generation";
        let values = values![project, &target.app, &target.target, host, generation];
        self.update("members", format!("{target} {host}"), sql, values).await
    }

    async fn member_report_put(
        &mut self,
        project: &str,
        target: &TargetRef,
        host: HostId,
        report: Option<&Report>,
        at: Timestamp,
    ) -> Result<()> {
        let sql = "INSERT INTO members (project, app, target, host, generation, report, reported_at) \
                   VALUES ($1, $2, $3, $4, 0, $5, $6) ON CONFLICT (project, app, target, host) \
                   DO UPDATE SET report = excluded.report, reported_at = excluded.reported_at";
        let values = values![project, &target.app, &target.target, host, Value::json_or_null(report), at];
        self.execute("members", sql, values).await?;
        Ok(())
    }
}
