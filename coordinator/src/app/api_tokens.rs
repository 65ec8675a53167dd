//! Secrets with which principals call.

use std::time::Duration;

use domain::authorize::{Action, Grant, Principal, Resource, Role, Scope, authorize};
use domain::event::Actor;
use domain::ids::{ApiTokenId, PrincipalId};
use domain::name::{Name, TargetRef};

use super::idempotency::{self, Key};
use super::ledger::{self, Event};
use super::{App, Ctx, text};
use crate::auth::token::ApiToken;
use crate::error::{Code, Error, Result};
use crate::store::Tx;
use crate::store::token::{ApiTokenRow, PrincipalRow};

/// A token lives so long unless asked otherwise.
pub const DEFAULT_TTL: Duration = Duration::from_secs(30 * 86_400);
/// And never longer.
pub const MAX_TTL: Duration = Duration::from_secs(90 * 86_400);

/// A token with its principal's name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Named {
    /// The token.
    pub token: ApiTokenRow,
    /// Its principal's name.
    pub principal: Name,
}

/// What `api-token create` asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Create<'a> {
    /// The principal's name; made if it does not exist.
    pub principal: &'a str,
    /// Name of the role.
    pub role: &'a str,
    /// Empty, APP or APP/TARGET.
    pub scope: &'a str,
    /// Microseconds; 0: the default.
    pub ttl: u64,
}

/// Reads `""`, `APP`, `APP/TARGET`.
///
/// # Errors
/// It is neither.
pub fn scope(given: &str) -> Result<Scope> {
    let bad =
        |why: &dyn std::fmt::Display| Error::new(Code::SCOPE, format!("a scope is empty, APP or APP/TARGET: {why}"));
    if given.is_empty() {
        return Ok(Scope::Project);
    }
    if given.contains('/') {
        return TargetRef::parse(given).map(Scope::Target).map_err(|why| bad(&why));
    }
    Name::new("app", given).map(Scope::App).map_err(|why| bad(&why))
}

/// Makes a token, and its principal if that is new. The token's text is answered here and never again, except to the
/// same call under the same key.
///
/// # Errors
/// The request is malformed, or the caller is no admin.
pub async fn create(
    app: &App,
    principal: &Principal,
    ask: &Create<'_>,
    key: Option<&Key>,
) -> Result<(Named, ApiToken)> {
    let name = Name::new("principal", ask.principal)?;
    let role = Role::parse(ask.role).ok_or_else(|| {
        let text = format!("{:?} is not a role; write viewer, developer, deployer or admin", text::line(ask.role, 40));
        Error::new(Code::ROLE, text)
    })?;
    let grant = Grant { role, scope: scope(ask.scope)? };
    if grant.role == Role::Admin && grant.scope != Scope::Project {
        return Err(Error::new(Code::SCOPE, "the role admin holds for the whole project; leave the scope out"));
    }
    let ttl = text::ttl(ask.ttl, DEFAULT_TTL, MAX_TTL)?;
    let row = app
        .store
        .write(|tx| {
            Box::pin(async move {
                authorize(principal, Action::Administer, &Resource::project(&principal.project))?;
                if let Some(made) = idempotency::created(tx, principal, key).await? {
                    return get(tx, principal, &made).await;
                }
                let owner = principal_named(app, tx, &principal.project, &name, Some(principal.id)).await?;
                let token = insert(app, tx, &owner, &grant, Some(principal.id), ttl).await?;
                idempotency::note(app, tx, principal, key, token.id).await?;
                Event::new(ledger::by(principal), "api-token.created", token.id)
                    .text(format!("{} of {} until its end in {} h", role.as_str(), owner.name, ttl.as_secs() / 3600))
                    .append(app, tx, &principal.project)
                    .await?;
                Ok::<_, Error>(Named { token, principal: owner.name })
            })
        })
        .await?;
    let token = ApiToken::of(&app.vault, row.token.id);
    Ok((row, token))
}

async fn principal_named(
    ctx: &Ctx,
    tx: &mut dyn Tx,
    project: &str,
    name: &Name,
    by: Option<PrincipalId>,
) -> Result<PrincipalRow> {
    if let Some(row) = tx.principal_by_name(project, name).await? {
        return Ok(row);
    }
    let row = PrincipalRow {
        id: PrincipalId::new(ctx.ids.uuid()),
        project: project.to_owned(),
        principal: by,
        name: name.clone(),
        created_at: ctx.now(),
    };
    tx.principal_insert(&row).await?;
    Ok(row)
}

async fn insert(
    app: &App,
    tx: &mut dyn Tx,
    owner: &PrincipalRow,
    grant: &Grant,
    by: Option<PrincipalId>,
    ttl: Duration,
) -> Result<ApiTokenRow> {
    let id = ApiTokenId::new(app.ids.uuid());
    let row = ApiTokenRow {
        id,
        project: owner.project.clone(),
        principal: owner.id,
        created_by: by,
        secret: ApiToken::of(&app.vault, id).hash(),
        grant: grant.clone(),
        created_at: app.now(),
        expires_at: app.now().plus(ttl),
        revoked_at: None,
    };
    tx.api_token_insert(&row).await?;
    Ok(row)
}

/// The first admin's token, made when the project has no token yet; none otherwise.
///
/// # Errors
/// What the store says.
pub async fn bootstrap(app: &App, project: &str) -> Result<Option<ApiToken>> {
    let name = Name::new("principal", "admin")?;
    let made = app
        .store
        .write(|tx| {
            Box::pin(async move {
                if !tx.api_token_list(project).await?.is_empty() {
                    return Ok::<_, Error>(None);
                }
                let owner = principal_named(app, tx, project, &name, None).await?;
                let grant = Grant { role: Role::Admin, scope: Scope::Project };
                let token = insert(app, tx, &owner, &grant, None, MAX_TTL).await?;
                Event::new(Actor::Coordinator, "api-token.created", token.id)
                    .text("the first admin's, in the file admin.token")
                    .append(app, tx, project)
                    .await?;
                Ok(Some(token.id))
            })
        })
        .await?;
    Ok(made.map(|id| ApiToken::of(&app.vault, id)))
}

async fn get(tx: &mut dyn Tx, principal: &Principal, given: &str) -> Result<Named> {
    let missing = || {
        let text = format!("there is no api-token {:?}; `muster api-token list` shows all", text::line(given, 80));
        Error::new(Code::API_TOKEN_NOT_FOUND, text)
    };
    let id: ApiTokenId = given.parse()?;
    let token = tx.api_token_get(id).await?.filter(|row| row.project == principal.project).ok_or_else(missing)?;
    let owner = tx.principal_get(token.principal).await?.ok_or_else(missing)?;
    Ok(Named { token, principal: owner.name })
}

/// All tokens of the project, oldest first.
///
/// # Errors
/// The caller is no admin.
pub async fn list(ctx: &Ctx, principal: &Principal) -> Result<Vec<Named>> {
    authorize(principal, Action::Administer, &Resource::project(&principal.project))?;
    ctx.store
        .read(|view| {
            Box::pin(async move {
                let names: std::collections::BTreeMap<_, _> =
                    view.principal_list(&principal.project).await?.into_iter().map(|row| (row.id, row.name)).collect();
                let tokens = view.api_token_list(&principal.project).await?;
                let named = |token: ApiTokenRow| {
                    names.get(&token.principal).cloned().map(|principal| Named { token, principal })
                };
                Ok(tokens.into_iter().filter_map(named).collect())
            })
        })
        .await
}

/// Makes a token worthless at once.
///
/// # Errors
/// There is none of this id, it was revoked before, or the caller is no admin.
pub async fn revoke(ctx: &Ctx, principal: &Principal, id: &str) -> Result<()> {
    ctx.store
        .write(|tx| {
            Box::pin(async move {
                authorize(principal, Action::Administer, &Resource::project(&principal.project))?;
                let row = get(tx, principal, id).await?;
                if !tx.api_token_revoke(row.token.id, ctx.now()).await? {
                    return Err(Error::new(Code::API_TOKEN_REVOKED, format!("api-token {id} was revoked before")));
                }
                Event::new(ledger::by(principal), "api-token.revoked", row.token.id)
                    .text(format!("of {}", row.principal))
                    .append(ctx, tx, &principal.project)
                    .await?;
                Ok(())
            })
        })
        .await
}
