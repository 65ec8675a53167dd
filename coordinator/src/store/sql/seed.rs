//! Seeds and the data of environments in SQL.

use async_trait::async_trait;
use domain::ids::{HostId, SeedId};
use domain::seed::{Begin, Data, DataObserved, Seed};

use super::super::environment::EnvironmentRow;
use super::super::error::Result;
use super::super::seed::{SeedReads, SeedRow, SeedWrites};
use super::{Columns, FromRow, SqlTx, Value, next_version, values};

impl FromRow for SeedRow {
    const TABLE: &'static str = "seeds";
    const KEY: &'static [&'static str] = &["id"];

    fn from_row(row: &Columns<'_>) -> Result<Self> {
        Ok(Self {
            project: row.text("project")?,
            seed: Seed {
                id: row.parse("id")?,
                name: row.name("name")?,
                version: row.text("version")?,
                snapshot: row.flag("snapshot")?,
                owner: row.parse("principal")?,
                app: row.name_or_null("app")?,
                environment: row.parse_or_null("environment")?,
                host: row.parse("host")?,
                inputs: row.json("inputs")?,
                state: row.word("state")?,
                reason: row.reason()?,
                detail: row.text("detail")?,
                digest: row.digest_or_null("digest")?,
                parts: row.json("parts")?,
                bytes: row.number("bytes")?,
                canaries: row.number("canaries")?,
                masked: row.flag("masked")?,
                created_at: row.at("created_at")?,
                ended_at: row.at_or_null("ended_at")?,
                took: row.time_or_null("took")?,
                freeze: row.time_or_null("frozen")?,
            },
            version: row.number("row_version")?,
        })
    }
}

#[async_trait]
impl SeedReads for SqlTx {
    async fn seed_get(&mut self, id: SeedId) -> Result<Option<SeedRow>> {
        self.one("SELECT * FROM seeds WHERE id = $1", values![id]).await
    }

    async fn seed_list(&mut self, project: &str) -> Result<Vec<SeedRow>> {
        let sql = "SELECT * FROM seeds WHERE project = $1 AND state <> 'removed' ORDER BY name, created_at, id";
        self.list(sql, values![project]).await
    }

    async fn seed_list_pending(&mut self, host: HostId) -> Result<Vec<SeedRow>> {
        self.list("SELECT * FROM seeds WHERE host = $1 AND pending = 1 ORDER BY id", values![host]).await
    }

    async fn seed_environments(&mut self, id: SeedId) -> Result<Vec<EnvironmentRow>> {
        let sql = "SELECT * FROM environments JOIN environment_data ON environment = id \
                   WHERE data_seed = $1 AND gone_at IS NULL ORDER BY id";
        self.environments(sql, values![id]).await
    }
}

#[async_trait]
impl SeedWrites for SqlTx {
    async fn seed_put(&mut self, row: &SeedRow) -> Result<u64> {
        let version = next_version(row.version);
        if row.version == 0 {
            self.seed_insert(row, version).await?;
        } else {
            self.seed_update(row, version).await?;
        }
        Ok(version)
    }
}

impl SqlTx {
    async fn seed_insert(&mut self, row: &SeedRow, version: u64) -> Result<()> {
        let seed = &row.seed;
        let mut values = changing(row, version);
        values.extend(values![
            &row.project,
            seed.owner,
            &seed.name,
            &seed.version,
            seed.snapshot,
            row.namespace(),
            seed.app.as_ref(),
            seed.environment,
            seed.host,
            seed.created_at,
        ]);
        self.insert(
            "seeds",
            &seed.name,
            "INSERT INTO seeds (id, inputs, state, pending, reason_code, reason_text, detail, digest, parts, bytes, \
             canaries, masked, ended_at, took, frozen, row_version, project, principal, name, version, snapshot, \
             namespace, app, environment, host, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, \
             $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26) ON CONFLICT DO NOTHING",
            values,
        )
        .await
    }

    async fn seed_update(&mut self, row: &SeedRow, version: u64) -> Result<()> {
        let mut values = changing(row, version);
        values.extend(values![row.version]);
        self.update(
            "seeds",
            row.seed.id,
            "UPDATE seeds SET inputs = $2, state = $3, pending = $4, reason_code = $5, reason_text = $6, detail = $7, \
             digest = $8, parts = $9, bytes = $10, canaries = $11, masked = $12, ended_at = $13, took = $14, \
             frozen = $15, row_version = $16 WHERE id = $1 AND row_version = $17",
            values,
        )
        .await
    }

    /// Stores what the data of an environment began with, beside its row.
    pub(super) async fn data_put(&mut self, row: &EnvironmentRow) -> Result<()> {
        let data = &row.data;
        let observed = &data.observed;
        // A new one that begins with empty volumes has nothing to tell yet.
        if row.version == 0 && *data == Data::default() {
            return Ok(());
        }
        let sql = "INSERT INTO environment_data (environment, data_seed, data_address, data_digest, data_from, \
                   data_epoch, data_line, data_own, data_shared, data_kept) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
                   ON CONFLICT (environment) DO UPDATE SET data_seed = $2, data_address = $3, data_digest = $4, \
                   data_from = $5, data_epoch = $6, data_line = $7, data_own = $8, data_shared = $9, data_kept = $10";
        let values = values![
            row.environment.id,
            data.seed,
            &data.address,
            data.digest.as_ref(),
            data.from.to_string(),
            data.epoch,
            &observed.line,
            observed.own_bytes,
            observed.shared_bytes,
            Value::json(&observed.kept),
        ];
        self.execute("environment_data", sql, values).await?;
        Ok(())
    }
}

/// The columns `data_*`; all are absent for an environment without a row of them.
pub(super) fn data(row: &Columns<'_>) -> Result<Data> {
    let Some(from) = row.text_or_null("data_from")? else { return Ok(Data::default()) };
    Ok(Data {
        seed: row.parse_or_null("data_seed")?,
        address: row.text("data_address")?,
        digest: row.digest_or_null("data_digest")?,
        from: Begin::parse(&from).ok_or_else(|| row.corrupt("data_from", format!("{from:?} is not known")))?,
        epoch: row.number("data_epoch")?,
        observed: DataObserved {
            line: row.text("data_line")?,
            own_bytes: row.number("data_own")?,
            shared_bytes: row.number("data_shared")?,
            kept: row.json("data_kept")?,
        },
    })
}

/// `$1` is the id; `$2` to `$16` are what may change.
fn changing(row: &SeedRow, version: u64) -> Vec<Value> {
    let seed = &row.seed;
    values![
        seed.id,
        Value::json(&seed.inputs),
        Value::word(seed.state),
        seed.state.pending(),
        seed.reason.as_ref().map(|(code, _)| code.clone()),
        seed.reason.as_ref().map(|(_, text)| text.clone()),
        &seed.detail,
        seed.digest.as_ref(),
        Value::json(&seed.parts),
        seed.bytes,
        seed.canaries,
        seed.masked,
        seed.ended_at,
        seed.took,
        seed.freeze,
        version,
    ]
}
