//! Builds in SQL.

use async_trait::async_trait;
use domain::ids::BuildId;
use domain::name::Name;
use domain::release::{Build, Commit, Image};

use super::super::build::{BuildReads, BuildRow, BuildWrites};
use super::super::error::Result;
use super::{Columns, FromRow, SqlTx, Value, values};

impl FromRow for BuildRow {
    const TABLE: &'static str = "builds";
    const KEY: &'static [&'static str] = &["id"];

    fn from_row(row: &Columns<'_>) -> Result<Self> {
        Ok(Self {
            project: row.text("project")?,
            principal: row.parse("principal")?,
            build: Build {
                id: row.parse("id")?,
                app: row.name("app")?,
                commit: row.commit("commit_id")?,
                processes: row.json("processes")?,
                image: row.image()?,
                manifest: row.text("manifest")?,
                created_at: row.at("created_at")?,
            },
        })
    }
}

/// The columns `image_reference`, `image_archive`, `image_archive_bytes`, `image_config_digest`, `image_platform`.
pub(super) fn image_values(image: &Image) -> Vec<Value> {
    values![
        image.reference.clone(),
        image.archive.as_ref(),
        image.archive_bytes,
        image.config_digest.as_ref(),
        &image.platform,
    ]
}

#[async_trait]
impl BuildReads for SqlTx {
    async fn build_get(&mut self, id: BuildId) -> Result<Option<BuildRow>> {
        self.one("SELECT * FROM builds WHERE id = $1", values![id]).await
    }

    async fn build_newest(&mut self, project: &str, app: &Name) -> Result<Option<BuildRow>> {
        Ok(self.build_list(project, Some(app), 1).await?.pop())
    }

    async fn build_list_at(&mut self, project: &str, app: &Name, commit: &Commit) -> Result<Vec<BuildRow>> {
        let sql = "SELECT * FROM builds WHERE project = $1 AND app = $2 AND commit_id = $3 \
                   ORDER BY created_at DESC, id DESC";
        self.list(sql, values![project, app, commit]).await
    }

    async fn build_list(&mut self, project: &str, app: Option<&Name>, limit: u32) -> Result<Vec<BuildRow>> {
        let sql = "SELECT * FROM builds WHERE project = $1 AND ($2 IS NULL OR app = $2) \
                   ORDER BY created_at DESC, id DESC LIMIT $3";
        self.list(sql, values![project, app, limit]).await
    }
}

#[async_trait]
impl BuildWrites for SqlTx {
    async fn build_insert(&mut self, row: &BuildRow) -> Result<()> {
        let build = &row.build;
        let mut values = values![
            build.id,
            &row.project,
            row.principal,
            &build.app,
            &build.commit,
            Value::json(&build.processes),
            &build.manifest,
            build.created_at,
        ];
        values.extend(image_values(&build.image));
        self.insert(
            "builds",
            build.id,
            "INSERT INTO builds (id, project, principal, app, commit_id, processes, manifest, created_at, \
             image_reference, image_archive, image_archive_bytes, image_config_digest, image_platform) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) ON CONFLICT DO NOTHING",
            values,
        )
        .await
    }
}
