//! Idempotency keys in memory.

use async_trait::async_trait;
use domain::ids::PrincipalId;

use super::super::error::{Error, Result};
use super::super::idempotency::{IdempotencyReads, IdempotencyRow, IdempotencyWrites};
use super::MemoryTx;

#[async_trait]
impl IdempotencyReads for MemoryTx {
    async fn idempotency_get(
        &mut self,
        principal: PrincipalId,
        method: &str,
        key: &str,
    ) -> Result<Option<IdempotencyRow>> {
        Ok(self.state.idempotency.get(&(principal, method.to_owned(), key.to_owned())).cloned())
    }
}

#[async_trait]
impl IdempotencyWrites for MemoryTx {
    async fn idempotency_insert(&mut self, row: &IdempotencyRow) -> Result<()> {
        let key = (row.principal, row.method.clone(), row.key.clone());
        if self.state.idempotency.get(&key).is_some() {
            return Err(Error::exists("idempotency", &row.key));
        }
        self.state.idempotency.put(key, row.clone());
        Ok(())
    }
}
