//! Sealed secrets, and facts about the cluster, in SQL.

use async_trait::async_trait;

use super::super::error::Result;
use super::super::meta::{MetaReads, MetaWrites};
use super::super::secret::{SecretReads, SecretRow, SecretWrites};
use super::{Columns, FromRow, SqlTx, Value, values};

impl FromRow for SecretRow {
    const TABLE: &'static str = "secrets";
    const KEY: &'static [&'static str] = &["kind", "id"];

    fn from_row(row: &Columns<'_>) -> Result<Self> {
        Ok(Self {
            project: row.text("project")?,
            kind: row.text("kind")?,
            id: row.text("id")?,
            sealed: row.bytes("sealed")?,
            created_at: row.at("created_at")?,
        })
    }
}

/// A fact.
struct Meta(String);

impl FromRow for Meta {
    const TABLE: &'static str = "meta";
    const KEY: &'static [&'static str] = &["key"];

    fn from_row(row: &Columns<'_>) -> Result<Self> {
        row.text("value").map(Self)
    }
}

#[async_trait]
impl SecretReads for SqlTx {
    async fn secret_get(&mut self, kind: &str, id: &str) -> Result<Option<SecretRow>> {
        self.one("SELECT * FROM secrets WHERE kind = $1 AND id = $2", values![kind, id]).await
    }
}

#[async_trait]
impl SecretWrites for SqlTx {
    async fn secret_put(&mut self, row: &SecretRow) -> Result<()> {
        let sql = "INSERT INTO secrets (kind, id, project, sealed, created_at) VALUES ($1, $2, $3, $4, $5) \
                   ON CONFLICT (kind, id) DO UPDATE SET project = excluded.project, sealed = excluded.sealed, \
                   created_at = excluded.created_at";
        let mut values = values![&row.kind, &row.id, &row.project];
        values.push(Value::Bytes(row.sealed.clone()));
        values.extend(values![row.created_at]);
        self.execute("secrets", sql, values).await?;
        Ok(())
    }

    async fn secret_delete(&mut self, kind: &str, id: &str) -> Result<bool> {
        let sql = "DELETE FROM secrets WHERE kind = $1 AND id = $2";
        Ok(self.execute("secrets", sql, values![kind, id]).await? > 0)
    }
}

#[async_trait]
impl MetaReads for SqlTx {
    async fn meta_get(&mut self, key: &str) -> Result<Option<String>> {
        let value: Option<Meta> = self.one("SELECT key, value FROM meta WHERE key = $1", values![key]).await?;
        Ok(value.map(|Meta(value)| value))
    }
}

#[async_trait]
impl MetaWrites for SqlTx {
    async fn meta_put(&mut self, key: &str, value: &str) -> Result<()> {
        let sql =
            "INSERT INTO meta (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value";
        self.execute("meta", sql, values![key, value]).await?;
        Ok(())
    }
}
