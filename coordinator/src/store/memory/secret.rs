//! Sealed secrets, and facts about the cluster, in memory.

use async_trait::async_trait;

use super::super::error::Result;
use super::super::meta::{MetaReads, MetaWrites};
use super::super::secret::{SecretReads, SecretRow, SecretWrites};
use super::MemoryTx;

#[async_trait]
impl SecretReads for MemoryTx {
    async fn secret_get(&mut self, kind: &str, id: &str) -> Result<Option<SecretRow>> {
        Ok(self.state.secrets.get(&(kind.to_owned(), id.to_owned())).cloned())
    }
}

#[async_trait]
impl SecretWrites for MemoryTx {
    async fn secret_put(&mut self, row: &SecretRow) -> Result<()> {
        self.state.secrets.put((row.kind.clone(), row.id.clone()), row.clone());
        Ok(())
    }

    async fn secret_delete(&mut self, kind: &str, id: &str) -> Result<bool> {
        Ok(self.state.secrets.delete(&(kind.to_owned(), id.to_owned())))
    }
}

#[async_trait]
impl MetaReads for MemoryTx {
    async fn meta_get(&mut self, key: &str) -> Result<Option<String>> {
        Ok(self.state.meta.get(&key.to_owned()).cloned())
    }
}

#[async_trait]
impl MetaWrites for MemoryTx {
    async fn meta_put(&mut self, key: &str, value: &str) -> Result<()> {
        self.state.meta.put(key.to_owned(), value.to_owned());
        Ok(())
    }
}
