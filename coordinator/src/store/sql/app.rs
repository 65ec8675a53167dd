//! Apps in SQL.

use async_trait::async_trait;
use domain::name::Name;

use super::super::app::{AppReads, AppRow, AppWrites};
use super::super::error::Result;
use super::{Columns, FromRow, SqlTx, Value, next_version, values};

impl FromRow for AppRow {
    const TABLE: &'static str = "apps";
    const KEY: &'static [&'static str] = &["project", "name"];

    fn from_row(row: &Columns<'_>) -> Result<Self> {
        Ok(Self {
            project: row.text("project")?,
            principal: row.parse("principal")?,
            app: row.json("definition")?,
            manifest: row.text("manifest")?,
            repository: row.text("repository")?,
            applied_at: row.at("applied_at")?,
            version: row.number("version")?,
        })
    }
}

#[async_trait]
impl AppReads for SqlTx {
    async fn app_get(&mut self, project: &str, name: &Name) -> Result<Option<AppRow>> {
        self.one("SELECT * FROM apps WHERE project = $1 AND name = $2", values![project, name]).await
    }

    async fn app_list(&mut self, project: &str) -> Result<Vec<AppRow>> {
        self.list("SELECT * FROM apps WHERE project = $1 ORDER BY name", values![project]).await
    }
}

#[async_trait]
impl AppWrites for SqlTx {
    async fn app_put(&mut self, row: &AppRow) -> Result<u64> {
        let version = next_version(row.version);
        let mut values = values![
            &row.project,
            &row.app.name,
            row.principal,
            Value::json(&row.app),
            &row.manifest,
            &row.repository,
            row.applied_at,
            version,
        ];
        if row.version == 0 {
            self.insert(
                "apps",
                &row.app.name,
                "INSERT INTO apps (project, name, principal, definition, manifest, repository, applied_at, version) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING",
                values,
            )
            .await?;
        } else {
            values.extend(values![row.version]);
            self.update(
                "apps",
                &row.app.name,
                "UPDATE apps SET principal = $3, definition = $4, manifest = $5, repository = $6, applied_at = $7, \
                 version = $8 WHERE project = $1 AND name = $2 AND version = $9",
                values,
            )
            .await?;
        }
        Ok(version)
    }
}
