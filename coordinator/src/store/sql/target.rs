//! Targets and their locks in SQL.

use async_trait::async_trait;
use domain::name::TargetRef;
use domain::rollout::reports::Lock;

use super::super::error::Result;
use super::super::target::{LockRow, TargetReads, TargetRow, TargetWrites};
use super::{Columns, FromRow, SqlTx, values};

impl FromRow for TargetRow {
    const TABLE: &'static str = "targets";
    const KEY: &'static [&'static str] = &["project", "app", "target"];

    fn from_row(row: &Columns<'_>) -> Result<Self> {
        Ok(Self {
            project: row.text("project")?,
            target: row.target()?,
            release: row.parse_or_null("release_id")?,
            since: row.at("since")?,
        })
    }
}

impl FromRow for LockRow {
    const TABLE: &'static str = "locks";
    const KEY: &'static [&'static str] = &["project", "app", "target"];

    fn from_row(row: &Columns<'_>) -> Result<Self> {
        Ok(Self {
            project: row.text("project")?,
            target: row.target()?,
            principal: row.parse_or_null("principal")?,
            lock: Lock { holder: row.text("holder")?, reason: row.text("reason")?, until: row.at("ends_at")? },
            created_at: row.at("created_at")?,
        })
    }
}

#[async_trait]
impl TargetReads for SqlTx {
    async fn target_get(&mut self, project: &str, target: &TargetRef) -> Result<Option<TargetRow>> {
        let sql = "SELECT * FROM targets WHERE project = $1 AND app = $2 AND target = $3";
        self.one(sql, values![project, &target.app, &target.target]).await
    }

    async fn target_list(&mut self, project: &str) -> Result<Vec<TargetRow>> {
        self.list("SELECT * FROM targets WHERE project = $1 ORDER BY app, target", values![project]).await
    }

    async fn lock_get(&mut self, project: &str, target: &TargetRef) -> Result<Option<LockRow>> {
        let sql = "SELECT * FROM locks WHERE project = $1 AND app = $2 AND target = $3";
        self.one(sql, values![project, &target.app, &target.target]).await
    }
}

#[async_trait]
impl TargetWrites for SqlTx {
    async fn target_put(&mut self, row: &TargetRow) -> Result<()> {
        let sql = "INSERT INTO targets (project, app, target, release_id, since) VALUES ($1, $2, $3, $4, $5) \
                   ON CONFLICT (project, app, target) \
                   DO UPDATE SET release_id = excluded.release_id, since = excluded.since";
        let values = values![&row.project, &row.target.app, &row.target.target, row.release, row.since];
        self.execute("targets", sql, values).await?;
        Ok(())
    }

    async fn lock_put(&mut self, row: &LockRow) -> Result<()> {
        let sql = "INSERT INTO locks (project, app, target, principal, holder, reason, ends_at, created_at) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (project, app, target) DO UPDATE SET \
                   principal = excluded.principal, holder = excluded.holder, reason = excluded.reason, \
                   ends_at = excluded.ends_at, created_at = excluded.created_at";
        let values = values![
            &row.project,
            &row.target.app,
            &row.target.target,
            row.principal,
            &row.lock.holder,
            &row.lock.reason,
            row.lock.until,
            row.created_at,
        ];
        self.execute("locks", sql, values).await?;
        Ok(())
    }

    async fn lock_delete(&mut self, project: &str, target: &TargetRef) -> Result<bool> {
        let sql = "DELETE FROM locks WHERE project = $1 AND app = $2 AND target = $3";
        Ok(self.execute("locks", sql, values![project, &target.app, &target.target]).await? > 0)
    }
}
