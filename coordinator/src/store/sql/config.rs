//! Config revisions in SQL.

use async_trait::async_trait;
use domain::name::TargetRef;

use super::super::config::{ConfigReads, ConfigRow, ConfigWrites};
use super::super::error::Result;
use super::{Columns, FromRow, SqlTx, Value, values};

impl FromRow for ConfigRow {
    const TABLE: &'static str = "configs";
    const KEY: &'static [&'static str] = &["project", "app", "target", "revision"];

    fn from_row(row: &Columns<'_>) -> Result<Self> {
        Ok(Self {
            project: row.text("project")?,
            principal: row.parse("principal")?,
            target: row.target()?,
            revision: row.number("revision")?,
            values: row.json("settings")?,
            created_at: row.at("created_at")?,
        })
    }
}

#[async_trait]
impl ConfigReads for SqlTx {
    async fn config_get(&mut self, project: &str, target: &TargetRef, revision: u64) -> Result<Option<ConfigRow>> {
        let sql = "SELECT * FROM configs WHERE project = $1 AND app = $2 AND target = $3 AND revision = $4";
        self.one(sql, values![project, &target.app, &target.target, revision]).await
    }

    async fn config_newest(&mut self, project: &str, target: &TargetRef) -> Result<Option<ConfigRow>> {
        Ok(self.config_list(project, target, 1).await?.pop())
    }

    async fn config_list(&mut self, project: &str, target: &TargetRef, limit: u32) -> Result<Vec<ConfigRow>> {
        let sql = "SELECT * FROM configs WHERE project = $1 AND app = $2 AND target = $3 \
                   ORDER BY revision DESC LIMIT $4";
        self.list(sql, values![project, &target.app, &target.target, limit]).await
    }
}

#[async_trait]
impl ConfigWrites for SqlTx {
    async fn config_insert(&mut self, row: &ConfigRow) -> Result<()> {
        let target = &row.target;
        self.insert(
            "configs",
            format!("{target} {}", row.revision),
            "INSERT INTO configs (project, app, target, revision, principal, settings, created_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
            values![
                &row.project,
                &target.app,
                &target.target,
                row.revision,
                row.principal,
                Value::json(&row.values),
                row.created_at,
            ],
        )
        .await
    }
}
