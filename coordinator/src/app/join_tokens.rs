//! One-time secrets with which hosts join.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::authorize::{Action, Principal, Resource, authorize};
use domain::ids::{HostId, JoinTokenId};
use domain::label::{Labels, parse_labels};
use domain::name::Name;
use transport::join::JoinSecret;

use super::idempotency::{self, Key};
use super::ledger::{self, Event};
use super::{App, Ctx, text};
use crate::auth::token;
use crate::error::{Code, Error, Result};
use crate::store::View;
use crate::store::token::JoinTokenRow;

/// A join-token lives so long unless asked otherwise.
pub const DEFAULT_TTL: Duration = Duration::from_secs(600);
/// And never longer.
pub const MAX_TTL: Duration = Duration::from_secs(86_400);

/// A join-token with the name of the host that used it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Named {
    /// The token.
    pub token: JoinTokenRow,
    /// The host that used it; its id where the host is gone.
    pub used_by: Option<String>,
}

/// Checks labels that come as pairs.
///
/// # Errors
/// A key or value is outside the grammar, or there are more than 64.
pub fn labels(pairs: &BTreeMap<String, String>) -> Result<Labels> {
    text::map_at_most("labels", pairs, 64, 8192)?;
    for (key, value) in pairs {
        let whole = format!("{key}={value}");
        // A comma or a second `=` would make two pairs, or another one, of it.
        let read = parse_labels(&whole).map_err(|why| Error::new(Code::LABELS, why.to_string()))?;
        if read.get(key) != Some(value) || read.len() != 1 {
            return Err(Error::new(Code::LABELS, format!("{:?} is not a label", text::line(&whole, 80))));
        }
    }
    Ok(pairs.clone())
}

/// Makes a join-token for a host of this name and these labels.
///
/// # Errors
/// The request is malformed, a host has the name, or the caller is no admin.
pub async fn create(
    app: &App,
    principal: &Principal,
    host: &str,
    pairs: &BTreeMap<String, String>,
    ttl: u64,
    key: Option<&Key>,
) -> Result<(Named, JoinSecret)> {
    let host = Name::new("host", host)?;
    let labels = labels(pairs)?;
    let ttl = text::ttl(ttl, DEFAULT_TTL, MAX_TTL)?;
    let named = app
        .store
        .write(|tx| {
            Box::pin(async move {
                authorize(principal, Action::Administer, &Resource::project(&principal.project))?;
                if let Some(made) = idempotency::created(tx, principal, key).await? {
                    return get(tx, principal, &made).await;
                }
                if tx.host_by_name(&principal.project, &host).await?.is_some() {
                    let text = format!(
                        "there is a host {host} already; `muster host remove {host}` first, or take another name"
                    );
                    return Err(Error::new(Code::HOST_EXISTS, text));
                }
                let id = JoinTokenId::new(app.ids.uuid());
                let row = JoinTokenRow {
                    id,
                    project: principal.project.clone(),
                    principal: principal.id,
                    host: host.clone(),
                    labels,
                    secret: token::hash(&token::join_secret(&app.vault, id, app.ca.pin()).secret),
                    created_at: app.now(),
                    expires_at: app.now().plus(ttl),
                    used: None,
                    revoked_at: None,
                };
                tx.join_token_insert(&row).await?;
                idempotency::note(app, tx, principal, key, id).await?;
                Event::new(ledger::by(principal), "join-token.created", id)
                    .text(format!("for host {host}, good for {} s", ttl.as_secs()))
                    .append(app, tx, &principal.project)
                    .await?;
                Ok(Named { token: row, used_by: None })
            })
        })
        .await?;
    let secret = token::join_secret(&app.vault, named.token.id, app.ca.pin());
    Ok((named, secret))
}

async fn get<V: View + ?Sized>(view: &mut V, principal: &Principal, given: &str) -> Result<Named> {
    let id: JoinTokenId = given.parse()?;
    let token = view.join_token_get(id).await?.filter(|row| row.project == principal.project).ok_or_else(|| {
        Error::new(
            Code::JOIN_TOKEN_NOT_FOUND,
            format!("there is no join-token {id}; `muster join-token list` shows all"),
        )
    })?;
    named(view, token).await
}

async fn named<V: View + ?Sized>(view: &mut V, token: JoinTokenRow) -> Result<Named> {
    let used_by = match token.used {
        None => None,
        Some((host, _)) => Some(host_name(view, host).await?),
    };
    Ok(Named { token, used_by })
}

async fn host_name<V: View + ?Sized>(view: &mut V, host: HostId) -> Result<String> {
    Ok(view.host_get(host).await?.map_or_else(|| host.to_string(), |row| row.host.name.to_string()))
}

/// All join-tokens of the project, oldest first.
///
/// # Errors
/// The caller is no admin.
pub async fn list(ctx: &Ctx, principal: &Principal) -> Result<Vec<Named>> {
    authorize(principal, Action::Administer, &Resource::project(&principal.project))?;
    ctx.store
        .read(|view| {
            Box::pin(async move {
                let mut all = Vec::new();
                for token in view.join_token_list(&principal.project).await? {
                    all.push(named(view, token).await?);
                }
                Ok(all)
            })
        })
        .await
}

/// Makes a join-token worthless at once.
///
/// # Errors
/// There is none of this id, it was used or revoked before, or the caller is no admin.
pub async fn revoke(ctx: &Ctx, principal: &Principal, id: &str) -> Result<()> {
    ctx.store
        .write(|tx| {
            Box::pin(async move {
                authorize(principal, Action::Administer, &Resource::project(&principal.project))?;
                let named = get(tx, principal, id).await?;
                if !tx.join_token_revoke(named.token.id, ctx.now()).await? {
                    return Err(Error::new(
                        Code::JOIN_TOKEN_SPENT,
                        format!("join-token {id} was used or revoked before"),
                    ));
                }
                Event::new(ledger::by(principal), "join-token.revoked", named.token.id)
                    .text(format!("for host {}", named.token.host))
                    .append(ctx, tx, &principal.project)
                    .await?;
                Ok(())
            })
        })
        .await
}
