//! Copies of seeds in SQL.

use async_trait::async_trait;
use domain::ids::{HostId, SeedId};
use domain::seed::{Place, SeedCopy};

use super::super::error::Result;
use super::super::seed_copy::{SeedCopyReads, SeedCopyRow, SeedCopyWrites};
use super::{Columns, FromRow, SqlTx, Value, next_version, values};

impl FromRow for SeedCopyRow {
    const TABLE: &'static str = "seed_copies";
    const KEY: &'static [&'static str] = &["seed", "place"];

    fn from_row(row: &Columns<'_>) -> Result<Self> {
        let place = row.text("place")?;
        Ok(Self {
            project: row.text("project")?,
            copy: SeedCopy {
                seed: row.parse("seed")?,
                place: Place::parse(&place).ok_or_else(|| row.corrupt("place", format!("{place:?} is none")))?,
                host: row.parse("host")?,
                digest: row.digest("digest")?,
                state: row.word("state")?,
                reason: row.reason()?,
                detail: row.text("detail")?,
                index: row.digest_or_null("seed_index")?,
                moved: row.number("moved")?,
                took: row.time_or_null("took")?,
                created_at: row.at("created_at")?,
            },
            version: row.number("row_version")?,
        })
    }
}

#[async_trait]
impl SeedCopyReads for SqlTx {
    async fn seed_copy_get(&mut self, seed: SeedId, place: Place) -> Result<Option<SeedCopyRow>> {
        self.one("SELECT * FROM seed_copies WHERE seed = $1 AND place = $2", values![seed, place.to_string()]).await
    }

    async fn seed_copy_list(&mut self, seed: SeedId) -> Result<Vec<SeedCopyRow>> {
        self.list("SELECT * FROM seed_copies WHERE seed = $1 ORDER BY place", values![seed]).await
    }

    async fn seed_copy_list_pending(&mut self, host: HostId) -> Result<Vec<SeedCopyRow>> {
        let sql = "SELECT * FROM seed_copies WHERE host = $1 AND pending = 1 ORDER BY seed, place";
        self.list(sql, values![host]).await
    }

    async fn seed_copy_list_of_host(&mut self, host: HostId) -> Result<Vec<SeedCopyRow>> {
        self.list("SELECT * FROM seed_copies WHERE host = $1 ORDER BY seed, place", values![host]).await
    }
}

#[async_trait]
impl SeedCopyWrites for SqlTx {
    async fn seed_copy_put(&mut self, row: &SeedCopyRow) -> Result<u64> {
        let (copy, version) = (&row.copy, next_version(row.version));
        let mut values = values![
            copy.seed,
            copy.place.to_string(),
            copy.host,
            Value::word(copy.state),
            copy.state.pending(),
            copy.reason.as_ref().map(|(code, _)| code.clone()),
            copy.reason.as_ref().map(|(_, text)| text.clone()),
            &copy.detail,
            copy.index.as_ref(),
            copy.moved,
            copy.took,
            copy.created_at,
            version,
        ];
        if row.version == 0 {
            values.extend(values![&row.project, &copy.digest]);
            let sql = "INSERT INTO seed_copies (seed, place, host, state, pending, reason_code, reason_text, detail, \
                       seed_index, moved, took, created_at, row_version, project, digest) \
                       VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) ON CONFLICT DO NOTHING";
            self.insert("seed_copies", copy.seed, sql, values).await?;
        } else {
            values.extend(values![row.version]);
            let sql = "UPDATE seed_copies SET host = $3, state = $4, pending = $5, reason_code = $6, reason_text = $7, \
                       detail = $8, seed_index = $9, moved = $10, took = $11, created_at = $12, row_version = $13 \
                       WHERE seed = $1 AND place = $2 AND row_version = $14";
            self.update("seed_copies", copy.seed, sql, values).await?;
        }
        Ok(version)
    }

    async fn seed_copy_delete(&mut self, seed: SeedId, place: Place) -> Result<bool> {
        let sql = "DELETE FROM seed_copies WHERE seed = $1 AND place = $2";
        Ok(self.execute("seed_copies", sql, values![seed, place.to_string()]).await? > 0)
    }
}
