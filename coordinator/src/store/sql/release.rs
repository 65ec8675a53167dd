//! Releases in SQL.

use async_trait::async_trait;
use domain::ids::{HostId, ReleaseId};
use domain::name::TargetRef;
use domain::release::{Digest, Release};

use super::super::error::Result;
use super::super::release::{ReleaseReads, ReleaseRow, ReleaseWrites};
use super::build::image_values;
use super::{Columns, FromRow, SqlTx, Value, values};

impl FromRow for ReleaseRow {
    const TABLE: &'static str = "releases";
    const KEY: &'static [&'static str] = &["id"];

    fn from_row(row: &Columns<'_>) -> Result<Self> {
        Ok(Self {
            project: row.text("project")?,
            principal: row.parse("principal")?,
            release: Release {
                id: row.parse("id")?,
                target: row.target()?,
                number: row.number("number")?,
                build: row.parse("build")?,
                commit: row.commit("commit_id")?,
                image: row.image()?,
                processes: row.json("processes")?,
                expose: row.json("expose")?,
                config_revision: row.number("config_revision")?,
                config: row.json("settings")?,
                digest: row.digest("digest")?,
                created_at: row.at("created_at")?,
            },
        })
    }
}

#[async_trait]
impl ReleaseReads for SqlTx {
    async fn release_get(&mut self, id: ReleaseId) -> Result<Option<ReleaseRow>> {
        self.one("SELECT * FROM releases WHERE id = $1", values![id]).await
    }

    async fn release_by_number(
        &mut self,
        project: &str,
        target: &TargetRef,
        number: u64,
    ) -> Result<Option<ReleaseRow>> {
        let sql = "SELECT * FROM releases WHERE project = $1 AND app = $2 AND target = $3 AND number = $4";
        self.one(sql, values![project, &target.app, &target.target, number]).await
    }

    async fn release_by_digest(
        &mut self,
        project: &str,
        target: &TargetRef,
        digest: &Digest,
    ) -> Result<Option<ReleaseRow>> {
        let sql = "SELECT * FROM releases WHERE project = $1 AND app = $2 AND target = $3 AND digest = $4";
        self.one(sql, values![project, &target.app, &target.target, digest]).await
    }

    async fn release_newest(&mut self, project: &str, target: &TargetRef) -> Result<Option<ReleaseRow>> {
        Ok(self.release_list(project, target, 1).await?.pop())
    }

    async fn release_list(&mut self, project: &str, target: &TargetRef, limit: u32) -> Result<Vec<ReleaseRow>> {
        let sql = "SELECT * FROM releases WHERE project = $1 AND app = $2 AND target = $3 \
                   ORDER BY number DESC LIMIT $4";
        self.list(sql, values![project, &target.app, &target.target, limit]).await
    }

    async fn release_list_due(&mut self, host: HostId) -> Result<Vec<ReleaseRow>> {
        let sql = "WITH due AS (SELECT rollouts.project AS of_project, rollouts.app AS of_app, rollouts.target AS of_target, \
                   release_id, previous_release, ordered_release FROM rollouts JOIN rollout_steps ON rollout = rollouts.id \
                   WHERE turning = 1 AND (member = $1 OR executor = $1)), \
                   ids AS (SELECT of_project, of_app, of_target, release_id AS due_id FROM due UNION \
                   SELECT of_project, of_app, of_target, previous_release FROM due UNION \
                   SELECT of_project, of_app, of_target, ordered_release FROM due) \
                   SELECT releases.* FROM releases JOIN ids ON id = due_id \
                   AND project = of_project AND app = of_app AND target = of_target ORDER BY id";
        self.list(sql, values![host]).await
    }
}

#[async_trait]
impl ReleaseWrites for SqlTx {
    async fn release_insert(&mut self, row: &ReleaseRow) -> Result<()> {
        let release = &row.release;
        let mut values = values![
            release.id,
            &row.project,
            row.principal,
            &release.target.app,
            &release.target.target,
            release.number,
            release.build,
            &release.commit,
            Value::json(&release.processes),
            Value::json(&release.expose),
            release.config_revision,
            Value::json(&release.config),
            &release.digest,
            release.created_at,
        ];
        values.extend(image_values(&release.image));
        self.insert(
            "releases",
            format!("{} {}", release.target, release.number),
            "INSERT INTO releases (id, project, principal, app, target, number, build, commit_id, processes, expose, \
             config_revision, settings, digest, created_at, image_reference, image_archive, image_archive_bytes, \
             image_config_digest, image_platform) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, \
             $15, $16, $17, $18, $19) ON CONFLICT DO NOTHING",
            values,
        )
        .await
    }
}
