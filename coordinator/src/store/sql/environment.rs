//! Environments in SQL.

use async_trait::async_trait;
use domain::environment::{Activity, Environment, Observed, Source};
use domain::ids::{EnvironmentId, HostId, PrincipalId};
use domain::name::Name;

use super::super::environment::{EnvironmentReads, EnvironmentRow, EnvironmentWrites, Life};
use super::super::error::{Error, Result};
use super::{Columns, FromRow, SqlTx, Value, next_version, sealed, values};

/// An environment as it lies in its row, and what is sealed of it.
struct Stored {
    row: EnvironmentRow,
    sealed: Option<Vec<u8>>,
}

impl FromRow for Stored {
    const TABLE: &'static str = "environments";
    const KEY: &'static [&'static str] = &["id"];

    fn from_row(row: &Columns<'_>) -> Result<Self> {
        let sealed = row.bytes_or_null("sealed")?;
        let row = EnvironmentRow {
            project: row.text("project")?,
            environment: Environment {
                id: row.parse("id")?,
                name: row.name("name")?,
                owner: row.parse("principal")?,
                app: row.name_or_null("app")?,
                host: row.parse("host")?,
                run: row.parse_or_null("run")?,
                stack_file: row.text("stack_file")?,
                variables: row.json("variables")?,
                source: source(row)?,
                generation: row.generation("generation")?,
                wanted: row.word("wanted")?,
                observed: Observed {
                    generation: row.generation("observed_generation")?,
                    state: row.word("observed_state")?,
                    reason: row.reason()?,
                    services: row.json("services")?,
                    notices: row.json("notices")?,
                    activity: activity(row)?,
                },
                created_at: row.at("created_at")?,
            },
            file: row.text("file")?,
            env_files: row.json("env_files")?,
            data: super::seed::data(row)?,
            gone_at: row.at_or_null("gone_at")?,
            life: life(row)?,
            version: row.number("version")?,
        };
        Ok(Self { row, sealed })
    }
}

fn activity(row: &Columns<'_>) -> Result<Option<Activity>> {
    let Some(last_used) = row.at_or_null("last_used_at")? else { return Ok(None) };
    Ok(Some(Activity { last_used, why: row.text("why")?, memory_bytes: row.number("memory_bytes")? }))
}

fn life(row: &Columns<'_>) -> Result<Life> {
    Ok(Life {
        ttl: row.time_or_null("ttl")?,
        keep_until: row.at_or_null("keep_until")?,
        warned: row.at_or_null("warned_of")?.zip(row.at_or_null("warned_at")?),
        restarts: row.json("restarts")?,
        rebuilds: row.json("rebuilds")?,
    })
}

fn source(row: &Columns<'_>) -> Result<Source> {
    match (row.text("source")?.as_str(), row.text_or_null("source_grant")?) {
        ("none", _) => Ok(Source::None),
        ("checkout", _) => Ok(Source::Checkout),
        ("upload", _) => Ok(Source::Upload),
        ("grant", Some(grant)) => Ok(Source::Grant { grant }),
        (other, _) => Err(row.corrupt("source", format!("{other:?} is not known"))),
    }
}

fn source_values(source: &Source) -> Vec<Value> {
    match source {
        Source::None => values!["none", None::<String>],
        Source::Checkout => values!["checkout", None::<String>],
        Source::Upload => values!["upload", None::<String>],
        Source::Grant { grant } => values!["grant", grant],
    }
}

#[async_trait]
impl EnvironmentReads for SqlTx {
    async fn environment_get(&mut self, id: EnvironmentId) -> Result<Option<EnvironmentRow>> {
        let sql = "SELECT * FROM environments LEFT JOIN environment_data ON environment = id WHERE id = $1";
        Ok(self.environments(sql, values![id]).await?.pop())
    }

    async fn environment_by_name(
        &mut self,
        project: &str,
        owner: PrincipalId,
        name: &Name,
    ) -> Result<Option<EnvironmentRow>> {
        let sql = "SELECT * FROM environments LEFT JOIN environment_data ON environment = id \
                   WHERE project = $1 AND principal = $2 AND name = $3 AND gone_at IS NULL";
        Ok(self.environments(sql, values![project, owner, name]).await?.pop())
    }

    async fn environment_list(&mut self, project: &str, owner: Option<PrincipalId>) -> Result<Vec<EnvironmentRow>> {
        let sql = "SELECT * FROM environments LEFT JOIN environment_data ON environment = id \
                   WHERE project = $1 AND ($2 IS NULL OR principal = $2) AND gone_at IS NULL ORDER BY name, id";
        self.environments(sql, values![project, owner]).await
    }

    async fn environment_list_of_host(&mut self, host: HostId) -> Result<Vec<EnvironmentRow>> {
        let sql = "SELECT * FROM environments LEFT JOIN environment_data ON environment = id \
                   WHERE host = $1 AND gone_at IS NULL ORDER BY id";
        self.environments(sql, values![host]).await
    }
}

#[async_trait]
impl EnvironmentWrites for SqlTx {
    async fn environment_put(&mut self, row: &EnvironmentRow) -> Result<u64> {
        let mut row = row.without_credentials();
        let sealed = sealed::seal(&self.sealer, &mut row)?;
        let environment = &row.environment;
        let same = self.environment_by_name(&row.project, environment.owner, &environment.name).await?;
        if row.gone_at.is_none() && same.is_some_and(|same| same.environment.id != environment.id) {
            return Err(Error::exists("environments", &environment.name));
        }
        let version = next_version(row.version);
        if row.version == 0 {
            self.environment_insert(&row, sealed, version).await?;
        } else {
            self.environment_update(&row, sealed, version).await?;
        }
        self.data_put(&row).await?;
        Ok(version)
    }
}

impl SqlTx {
    /// Runs a query for environments, joined with their data, and opens what is sealed.
    pub(super) async fn environments(&mut self, sql: &'static str, values: Vec<Value>) -> Result<Vec<EnvironmentRow>> {
        let stored: Vec<Stored> = self.list(sql, values).await?;
        stored.into_iter().map(|one| sealed::open(&self.sealer, one.row, one.sealed)).collect()
    }

    async fn environment_insert(&mut self, row: &EnvironmentRow, sealed: Vec<u8>, version: u64) -> Result<()> {
        let environment = &row.environment;
        let mut values = changing(row, sealed, version);
        values.extend(values![
            &row.project,
            environment.owner,
            &environment.name,
            environment.app.as_ref(),
            environment.run,
            environment.created_at,
        ]);
        self.insert(
            "environments",
            &environment.name,
            "INSERT INTO environments (id, host, file, stack_file, variables, env_files, generation, wanted, \
             observed_generation, observed_state, reason_code, reason_text, services, notices, gone_at, version, source, \
             source_grant, last_used_at, why, memory_bytes, ttl, keep_until, warned_of, warned_at, restarts, rebuilds, \
             sealed, project, principal, name, app, run, created_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, \
             $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34) ON CONFLICT DO NOTHING",
            values,
        )
        .await
    }

    async fn environment_update(&mut self, row: &EnvironmentRow, sealed: Vec<u8>, version: u64) -> Result<()> {
        let mut values = changing(row, sealed, version);
        values.extend(values![row.version]);
        self.update(
            "environments",
            row.environment.id,
            "UPDATE environments SET host = $2, file = $3, stack_file = $4, variables = $5, env_files = $6, \
             generation = $7, wanted = $8, observed_generation = $9, observed_state = $10, reason_code = $11, \
             reason_text = $12, services = $13, notices = $14, gone_at = $15, version = $16, source = $17, \
             source_grant = $18, last_used_at = $19, why = $20, memory_bytes = $21, ttl = $22, keep_until = $23, \
             warned_of = $24, warned_at = $25, restarts = $26, rebuilds = $27, sealed = $28 \
             WHERE id = $1 AND version = $29",
            values,
        )
        .await
    }
}

/// `$1` is the id; `$2` to `$28` are what may change.
fn changing(row: &EnvironmentRow, sealed: Vec<u8>, version: u64) -> Vec<Value> {
    let environment = &row.environment;
    let observed = &environment.observed;
    let mut values = values![
        environment.id,
        environment.host,
        &row.file,
        &environment.stack_file,
        Value::json(&environment.variables),
        Value::json(&row.env_files),
        environment.generation,
        Value::word(environment.wanted),
        observed.generation,
        Value::word(observed.state),
        observed.reason.as_ref().map(|(code, _)| code.clone()),
        observed.reason.as_ref().map(|(_, text)| text.clone()),
        Value::json(&observed.services),
        Value::json(&observed.notices),
        row.gone_at,
        version,
    ];
    values.extend(source_values(&environment.source));
    let (activity, life) = (observed.activity.as_ref(), &row.life);
    values.extend(values![
        activity.map(|activity| activity.last_used),
        activity.map(|activity| activity.why.clone()).unwrap_or_default(),
        activity.map_or(0, |activity| activity.memory_bytes),
        life.ttl,
        life.keep_until,
        life.warned.map(|(of, _)| of),
        life.warned.map(|(_, at)| at),
        Value::json(&life.restarts),
        Value::json(&life.rebuilds),
        Value::Bytes(sealed),
    ]);
    values
}
