//! Idempotency keys in SQL.

use async_trait::async_trait;
use domain::ids::PrincipalId;

use super::super::error::Result;
use super::super::idempotency::{IdempotencyReads, IdempotencyRow, IdempotencyWrites};
use super::{Columns, FromRow, SqlTx, values};

impl FromRow for IdempotencyRow {
    const TABLE: &'static str = "idempotency";
    const KEY: &'static [&'static str] = &["principal", "method", "key"];

    fn from_row(row: &Columns<'_>) -> Result<Self> {
        Ok(Self {
            project: row.text("project")?,
            principal: row.parse("principal")?,
            method: row.text("method")?,
            key: row.text("key")?,
            body: row.digest("body")?,
            created: row.text("created")?,
            at: row.at("used_at")?,
        })
    }
}

#[async_trait]
impl IdempotencyReads for SqlTx {
    async fn idempotency_get(
        &mut self,
        principal: PrincipalId,
        method: &str,
        key: &str,
    ) -> Result<Option<IdempotencyRow>> {
        let sql = "SELECT * FROM idempotency WHERE principal = $1 AND method = $2 AND key = $3";
        self.one(sql, values![principal, method, key]).await
    }
}

#[async_trait]
impl IdempotencyWrites for SqlTx {
    async fn idempotency_insert(&mut self, row: &IdempotencyRow) -> Result<()> {
        self.insert(
            "idempotency",
            &row.key,
            "INSERT INTO idempotency (principal, method, key, project, body, created, used_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
            values![row.principal, &row.method, &row.key, &row.project, &row.body, &row.created, row.at],
        )
        .await
    }
}
