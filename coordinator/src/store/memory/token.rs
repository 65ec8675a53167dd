//! Principals and tokens in memory.

use async_trait::async_trait;
use domain::ids::{ApiTokenId, HostId, JoinTokenId, PrincipalId};
use domain::name::Name;
use domain::time::Timestamp;

use super::super::error::{Error, Result};
use super::super::token::{ApiTokenRow, JoinTokenRow, PrincipalRow, TokenReads, TokenWrites};
use super::{MemoryTx, in_order};

#[async_trait]
impl TokenReads for MemoryTx {
    async fn principal_get(&mut self, id: PrincipalId) -> Result<Option<PrincipalRow>> {
        Ok(self.state.principals.get(&id).cloned())
    }

    async fn principal_by_name(&mut self, project: &str, name: &Name) -> Result<Option<PrincipalRow>> {
        let wanted = |row: &&PrincipalRow| row.project == project && row.name == *name;
        Ok(self.state.principals.rows().find(wanted).cloned())
    }

    async fn principal_list(&mut self, project: &str) -> Result<Vec<PrincipalRow>> {
        let rows = self.state.principals.rows().filter(|row| row.project == project).cloned();
        Ok(in_order(rows, |row| row.name.clone()))
    }

    async fn api_token_get(&mut self, id: ApiTokenId) -> Result<Option<ApiTokenRow>> {
        Ok(self.state.api_tokens.get(&id).cloned())
    }

    async fn api_token_list(&mut self, project: &str) -> Result<Vec<ApiTokenRow>> {
        let rows = self.state.api_tokens.rows().filter(|row| row.project == project).cloned();
        Ok(in_order(rows, |row| (row.created_at, row.id)))
    }

    async fn join_token_get(&mut self, id: JoinTokenId) -> Result<Option<JoinTokenRow>> {
        Ok(self.state.join_tokens.get(&id).cloned())
    }

    async fn join_token_list(&mut self, project: &str) -> Result<Vec<JoinTokenRow>> {
        let rows = self.state.join_tokens.rows().filter(|row| row.project == project).cloned();
        Ok(in_order(rows, |row| (row.created_at, row.id)))
    }
}

#[async_trait]
impl TokenWrites for MemoryTx {
    async fn principal_insert(&mut self, row: &PrincipalRow) -> Result<()> {
        let taken = self.state.principals.get(&row.id).is_some();
        if taken || self.principal_by_name(&row.project, &row.name).await?.is_some() {
            return Err(Error::exists("principals", &row.name));
        }
        self.state.principals.put(row.id, row.clone());
        Ok(())
    }

    async fn api_token_insert(&mut self, row: &ApiTokenRow) -> Result<()> {
        if self.state.api_tokens.get(&row.id).is_some() {
            return Err(Error::exists("api_tokens", row.id));
        }
        self.state.api_tokens.put(row.id, row.clone());
        Ok(())
    }

    async fn api_token_revoke(&mut self, id: ApiTokenId, at: Timestamp) -> Result<bool> {
        let Some(row) = self.state.api_tokens.get(&id).filter(|row| row.revoked_at.is_none()) else {
            return Ok(false);
        };
        let row = ApiTokenRow { revoked_at: Some(at), ..row.clone() };
        self.state.api_tokens.put(id, row);
        Ok(true)
    }

    async fn join_token_insert(&mut self, row: &JoinTokenRow) -> Result<()> {
        if self.state.join_tokens.get(&row.id).is_some() {
            return Err(Error::exists("join_tokens", row.id));
        }
        self.state.join_tokens.put(row.id, row.clone());
        Ok(())
    }

    async fn join_token_use(&mut self, id: JoinTokenId, host: HostId, at: Timestamp) -> Result<bool> {
        let Some(row) = self.open_join_token(id) else { return Ok(false) };
        self.state.join_tokens.put(id, JoinTokenRow { used: Some((host, at)), ..row });
        Ok(true)
    }

    async fn join_token_revoke(&mut self, id: JoinTokenId, at: Timestamp) -> Result<bool> {
        let Some(row) = self.open_join_token(id) else { return Ok(false) };
        self.state.join_tokens.put(id, JoinTokenRow { revoked_at: Some(at), ..row });
        Ok(true)
    }
}

impl MemoryTx {
    fn open_join_token(&self, id: JoinTokenId) -> Option<JoinTokenRow> {
        let open = |row: &&JoinTokenRow| row.used.is_none() && row.revoked_at.is_none();
        self.state.join_tokens.get(&id).filter(open).cloned()
    }
}
