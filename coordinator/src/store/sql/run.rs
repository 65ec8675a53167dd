//! Runs in SQL.

use async_trait::async_trait;
use domain::ids::{BuildId, HostId, RunId};
use domain::name::Name;
use domain::run::{Run, RunSeed, RunState, Subject};

use super::super::error::Result;
use super::super::run::{RunReads, RunRow, RunWrites};
use super::{Columns, FromRow, SqlTx, Value, next_version, values};

impl FromRow for RunRow {
    const TABLE: &'static str = "runs";
    const KEY: &'static [&'static str] = &["id"];

    fn from_row(row: &Columns<'_>) -> Result<Self> {
        let build = row.parse_or_null::<BuildId>("build")?;
        Ok(Self {
            project: row.text("project")?,
            run: Run {
                id: row.parse("id")?,
                app: row.name("app")?,
                tests: row.name("tests")?,
                subject: build.map_or(Subject::Tree, Subject::Build),
                commit: row.commit("commit_id")?,
                repository: row.text("repository")?,
                manifest: row.text("manifest")?,
                owner: row.parse("principal")?,
                host: row.parse_or_null("host")?,
                environment: row.parse_or_null("environment")?,
                seed: seed(row)?,
                state: row.word("state")?,
                cancel: row.flag("cancel")?,
                verdict: row.word_or_null("verdict")?,
                reason: row.reason()?,
                exit_code: row.number_or_null("exit_code")?,
                report: row.json_or_null("report")?,
                created_at: row.at("created_at")?,
                assigned_at: row.at_or_null("assigned_at")?,
                first_line_at: row.at_or_null("first_line_at")?,
                finished_at: row.at_or_null("finished_at")?,
                took: row.time_or_null("took")?,
            },
            detail: row.text("detail")?,
            version: row.number("version")?,
        })
    }
}

#[async_trait]
impl RunReads for SqlTx {
    async fn run_get(&mut self, id: RunId) -> Result<Option<RunRow>> {
        self.one("SELECT * FROM runs WHERE id = $1", values![id]).await
    }

    async fn run_list(&mut self, project: &str, app: Option<&Name>, limit: u32) -> Result<Vec<RunRow>> {
        let sql = "SELECT * FROM runs WHERE project = $1 AND ($2 IS NULL OR app = $2) \
                   ORDER BY created_at DESC, id DESC LIMIT $3";
        self.list(sql, values![project, app, limit]).await
    }

    async fn run_list_open(&mut self) -> Result<Vec<RunRow>> {
        self.list("SELECT * FROM runs WHERE finished = 0 ORDER BY created_at, id", values![]).await
    }

    async fn run_list_of_host(&mut self, host: HostId) -> Result<Vec<RunRow>> {
        let sql = "SELECT * FROM runs WHERE finished = 0 AND host = $1 ORDER BY created_at, id";
        self.list(sql, values![host]).await
    }
}

#[async_trait]
impl RunWrites for SqlTx {
    async fn run_put(&mut self, row: &RunRow) -> Result<u64> {
        let run = &row.run;
        let version = next_version(row.version);
        let mut values = changing(row, version);
        if row.version == 0 {
            let build = match run.subject {
                Subject::Build(build) => Some(build),
                Subject::Tree => None,
            };
            values.extend(values![
                &row.project,
                run.owner,
                &run.app,
                &run.tests,
                build,
                &run.commit,
                &run.repository,
                &run.manifest,
                run.created_at,
            ]);
            self.insert(
                "runs",
                run.id,
                "INSERT INTO runs (id, host, environment, state, finished, cancel, verdict, reason_code, reason_text, \
                 exit_code, report, detail, assigned_at, first_line_at, finished_at, took, version, seed, seed_address, \
                 seed_digest, project, principal, app, tests, build, commit_id, repository, manifest, created_at) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, \
                 $21, $22, $23, $24, $25, $26, $27, $28, $29) ON CONFLICT DO NOTHING",
                values,
            )
            .await?;
        } else {
            values.extend(values![row.version]);
            self.update(
                "runs",
                run.id,
                "UPDATE runs SET host = $2, environment = $3, state = $4, finished = $5, cancel = $6, verdict = $7, \
                 reason_code = $8, reason_text = $9, exit_code = $10, report = $11, detail = $12, assigned_at = $13, \
                 first_line_at = $14, finished_at = $15, took = $16, version = $17, seed = $18, \
                 seed_address = $19, seed_digest = $20 WHERE id = $1 AND version = $21",
                values,
            )
            .await?;
        }
        Ok(version)
    }
}

fn seed(row: &Columns<'_>) -> Result<Option<RunSeed>> {
    let (Some(id), Some(digest)) = (row.parse_or_null("seed")?, row.digest_or_null("seed_digest")?) else {
        return Ok(None);
    };
    Ok(Some(RunSeed { id, address: row.text("seed_address")?, digest }))
}

/// `$1` is the id; `$2` to `$20` are what may change.
fn changing(row: &RunRow, version: u64) -> Vec<Value> {
    let run = &row.run;
    values![
        run.id,
        run.host,
        run.environment,
        Value::word(run.state),
        run.state == RunState::Finished,
        run.cancel,
        Value::word_or_null(run.verdict),
        run.reason.as_ref().map(|(code, _)| code.clone()),
        run.reason.as_ref().map(|(_, text)| text.clone()),
        run.exit_code,
        Value::json_or_null(run.report.as_ref()),
        &row.detail,
        run.assigned_at,
        run.first_line_at,
        run.finished_at,
        run.took,
        version,
        run.seed.as_ref().map(|seed| seed.id),
        run.seed.as_ref().map(|seed| seed.address.clone()).unwrap_or_default(),
        run.seed.as_ref().map(|seed| &seed.digest),
    ]
}
