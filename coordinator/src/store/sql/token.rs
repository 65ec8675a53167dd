//! Principals and tokens in SQL.

use async_trait::async_trait;
use domain::authorize::{Grant, Scope};
use domain::ids::{ApiTokenId, HostId, JoinTokenId, PrincipalId};
use domain::name::{Name, TargetRef};
use domain::time::Timestamp;

use super::super::error::Result;
use super::super::token::{ApiTokenRow, JoinTokenRow, PrincipalRow, TokenReads, TokenWrites};
use super::{Columns, FromRow, SqlTx, Value, values};

impl FromRow for PrincipalRow {
    const TABLE: &'static str = "principals";
    const KEY: &'static [&'static str] = &["id"];

    fn from_row(row: &Columns<'_>) -> Result<Self> {
        Ok(Self {
            id: row.parse("id")?,
            project: row.text("project")?,
            principal: row.parse_or_null("principal")?,
            name: row.name("name")?,
            created_at: row.at("created_at")?,
        })
    }
}

impl FromRow for ApiTokenRow {
    const TABLE: &'static str = "api_tokens";
    const KEY: &'static [&'static str] = &["id"];

    fn from_row(row: &Columns<'_>) -> Result<Self> {
        Ok(Self {
            id: row.parse("id")?,
            project: row.text("project")?,
            principal: row.parse("principal")?,
            created_by: row.parse_or_null("created_by")?,
            secret: row.digest("secret")?,
            grant: Grant { role: row.word("role")?, scope: scope(row)? },
            created_at: row.at("created_at")?,
            expires_at: row.at("expires_at")?,
            revoked_at: row.at_or_null("revoked_at")?,
        })
    }
}

impl FromRow for JoinTokenRow {
    const TABLE: &'static str = "join_tokens";
    const KEY: &'static [&'static str] = &["id"];

    fn from_row(row: &Columns<'_>) -> Result<Self> {
        let used_by = row.parse_or_null::<HostId>("used_by")?;
        Ok(Self {
            id: row.parse("id")?,
            project: row.text("project")?,
            principal: row.parse("principal")?,
            host: row.name("host_name")?,
            labels: row.json("labels")?,
            secret: row.digest("secret")?,
            created_at: row.at("created_at")?,
            expires_at: row.at("expires_at")?,
            used: used_by.zip(row.at_or_null("used_at")?),
            revoked_at: row.at_or_null("revoked_at")?,
        })
    }
}

/// Empty: the project; `app`; `app/target`.
fn scope(row: &Columns<'_>) -> Result<Scope> {
    let text = row.text("scope")?;
    if text.is_empty() {
        return Ok(Scope::Project);
    }
    let scope = if text.contains('/') {
        TargetRef::parse(&text).map(Scope::Target)
    } else {
        Name::new("app", &text).map(Scope::App)
    };
    scope.map_err(|error| row.corrupt("scope", error))
}

fn scope_text(scope: &Scope) -> String {
    match scope {
        Scope::Project => String::new(),
        Scope::App(app) => app.to_string(),
        Scope::Target(target) => target.to_string(),
    }
}

#[async_trait]
impl TokenReads for SqlTx {
    async fn principal_get(&mut self, id: PrincipalId) -> Result<Option<PrincipalRow>> {
        self.one("SELECT * FROM principals WHERE id = $1", values![id]).await
    }

    async fn principal_by_name(&mut self, project: &str, name: &Name) -> Result<Option<PrincipalRow>> {
        self.one("SELECT * FROM principals WHERE project = $1 AND name = $2", values![project, name]).await
    }

    async fn principal_list(&mut self, project: &str) -> Result<Vec<PrincipalRow>> {
        self.list("SELECT * FROM principals WHERE project = $1 ORDER BY name", values![project]).await
    }

    async fn api_token_get(&mut self, id: ApiTokenId) -> Result<Option<ApiTokenRow>> {
        self.one("SELECT * FROM api_tokens WHERE id = $1", values![id]).await
    }

    async fn api_token_list(&mut self, project: &str) -> Result<Vec<ApiTokenRow>> {
        self.list("SELECT * FROM api_tokens WHERE project = $1 ORDER BY created_at, id", values![project]).await
    }

    async fn join_token_get(&mut self, id: JoinTokenId) -> Result<Option<JoinTokenRow>> {
        self.one("SELECT * FROM join_tokens WHERE id = $1", values![id]).await
    }

    async fn join_token_list(&mut self, project: &str) -> Result<Vec<JoinTokenRow>> {
        self.list("SELECT * FROM join_tokens WHERE project = $1 ORDER BY created_at, id", values![project]).await
    }
}

#[async_trait]
impl TokenWrites for SqlTx {
    async fn principal_insert(&mut self, row: &PrincipalRow) -> Result<()> {
        self.insert(
            "principals",
            &row.name,
            "INSERT INTO principals (id, project, principal, name, created_at) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT DO NOTHING",
            values![row.id, &row.project, row.principal, &row.name, row.created_at],
        )
        .await
    }

    async fn api_token_insert(&mut self, row: &ApiTokenRow) -> Result<()> {
        self.insert(
            "api_tokens",
            row.id,
            "INSERT INTO api_tokens (id, project, principal, created_by, secret, role, scope, created_at, expires_at, \
             revoked_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING",
            values![
                row.id,
                &row.project,
                row.principal,
                row.created_by,
                &row.secret,
                Value::word(row.grant.role),
                scope_text(&row.grant.scope),
                row.created_at,
                row.expires_at,
                row.revoked_at,
            ],
        )
        .await
    }

    async fn api_token_revoke(&mut self, id: ApiTokenId, at: Timestamp) -> Result<bool> {
        let sql = "UPDATE api_tokens SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL";
        Ok(self.execute("api_tokens", sql, values![id, at]).await? > 0)
    }

    async fn join_token_insert(&mut self, row: &JoinTokenRow) -> Result<()> {
        self.insert(
            "join_tokens",
            row.id,
            "INSERT INTO join_tokens (id, project, principal, host_name, labels, secret, created_at, expires_at, \
             used_by, used_at, revoked_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) \
             ON CONFLICT DO NOTHING",
            values![
                row.id,
                &row.project,
                row.principal,
                &row.host,
                Value::json(&row.labels),
                &row.secret,
                row.created_at,
                row.expires_at,
                row.used.map(|(host, _)| host),
                row.used.map(|(_, at)| at),
                row.revoked_at,
            ],
        )
        .await
    }

    async fn join_token_use(&mut self, id: JoinTokenId, host: HostId, at: Timestamp) -> Result<bool> {
        let sql = "UPDATE join_tokens SET used_by = $2, used_at = $3 \
                   WHERE id = $1 AND used_by IS NULL AND revoked_at IS NULL";
        Ok(self.execute("join_tokens", sql, values![id, host, at]).await? > 0)
    }

    async fn join_token_revoke(&mut self, id: JoinTokenId, at: Timestamp) -> Result<bool> {
        let sql = "UPDATE join_tokens SET revoked_at = $2 WHERE id = $1 AND used_by IS NULL AND revoked_at IS NULL";
        Ok(self.execute("join_tokens", sql, values![id, at]).await? > 0)
    }
}
