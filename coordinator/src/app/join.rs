//! A host becomes one of ours, and stays it: join by token, renewal of its certificate.

use std::time::Duration;

use domain::event::Actor;
use domain::host::{Facts, Host, Liveness};
use domain::ids::{HostId, JoinTokenId};
use domain::name::Name;
use domain::time::Timestamp;
use transport::join::JoinSecret;
use transport::{Peer, PeerCertificate, Presented};
use uuid::Uuid;

use super::App;
use super::ledger::{self, Event};
use crate::auth::{self, token};
use crate::ca::{self, Issued};
use crate::error::{Code, Error, Result};
use crate::store::host::{Certificate, HostRow};
use crate::store::token::JoinTokenRow;
use crate::store::{PROJECT, Tx};

/// A certificate and whom it names.
#[derive(Clone, Debug)]
pub struct Joined {
    /// The host's id.
    pub id: HostId,
    /// The host's name.
    pub name: Name,
    /// Its certificate.
    pub issued: Issued,
}

fn invalid() -> Error {
    let text =
        "the join-token is wrong, was used, or has expired; ask an admin for another: `muster join-token create`";
    Error::new(Code::JOIN_TOKEN_INVALID, text)
}

/// Makes a host of whoever shows an unused join-token and proves a key. A second call with the same token and the same
/// key within the token's lifetime gets a certificate for the same host: the first answer may have been lost.
///
/// # Errors
/// `E_JOIN_TOKEN_INVALID` for every kind of bad token, with the exact cause in the ledger; `E_CSR`.
pub async fn join(app: &App, text: &str, csr: &[u8], facts: Facts, from: &str) -> Result<Joined> {
    app.store
        .write(|tx| {
            Box::pin(async move {
                match admit(app, tx, text, csr, facts).await {
                    Ok(joined) => Ok::<_, Error>(Ok(joined)),
                    Err(Refused::Token { cause, project }) => {
                        Event::new(Actor::Coordinator, "join-token.refused", "")
                            .reason(Code::JOIN_TOKEN_INVALID.code)
                            .text(format!("{cause} (from {from})"))
                            .append(app, tx, project.as_deref().unwrap_or(PROJECT))
                            .await?;
                        Ok(Err(invalid()))
                    }
                    Err(Refused::Other(error)) => Err(error),
                }
            })
        })
        .await?
}

enum Refused {
    Token { cause: String, project: Option<String> },
    Other(Error),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl From<crate::store::Error> for Refused {
    fn from(error: crate::store::Error) -> Self {
        Self::Other(error.into())
    }
}

async fn admit(app: &App, tx: &mut dyn Tx, text: &str, csr: &[u8], facts: Facts) -> Result<Joined, Refused> {
    let anonymous = |cause: &str| Refused::Token { cause: cause.to_owned(), project: None };
    let secret = JoinSecret::parse(text).ok_or_else(|| anonymous("malformed join-token"))?;
    let id = Uuid::try_parse(&secret.id).map_err(|_| anonymous("malformed join-token"))?;
    let id = JoinTokenId::new(id);
    let row = tx.join_token_get(id).await?.ok_or_else(|| anonymous("unknown join-token"))?;
    if !token::same(&token::hash(&secret.secret), &row.secret) {
        return Err(anonymous("wrong secret of a join-token"));
    }
    let refuse = |cause: &str| Refused::Token {
        cause: format!("{cause}: join-token {id} for host {}", row.host),
        project: Some(row.project.clone()),
    };
    if row.revoked_at.is_some() {
        return Err(refuse("revoked"));
    }
    if row.expires_at <= app.now() {
        return Err(refuse("expired"));
    }
    let key = key_hash(csr)?;
    if let Some((host, _)) = row.used {
        let same = tx.meta_get(&joined_key(id)).await?.is_some_and(|held| held == key);
        let host = tx.host_get(host).await?.filter(|_| same).ok_or_else(|| refuse("used before"))?;
        return Ok(reissue(app, tx, host, csr).await?);
    }
    if tx.host_by_name(&row.project, &row.host).await?.is_some() {
        return Err(refuse("a host has this name by now"));
    }
    Ok(make(app, tx, &row, csr, &key, facts).await?)
}

async fn make(app: &App, tx: &mut dyn Tx, token: &JoinTokenRow, csr: &[u8], key: &str, facts: Facts) -> Result<Joined> {
    let (id, now) = (HostId::new(app.ids.uuid()), app.now());
    let issued = issue(app, csr, id, now)?;
    let host = Host {
        id,
        name: token.host.clone(),
        labels: token.labels.clone(),
        draining: false,
        facts,
        joined_at: now,
        seen_at: None,
        liveness: Liveness::Joined,
    };
    let row = HostRow {
        project: token.project.clone(),
        principal: Some(token.principal),
        host,
        since: now,
        certificate: Some(held(&issued)),
        version: 0,
    };
    tx.host_put(&row).await?;
    if !tx.join_token_use(token.id, id, now).await? {
        return Err(invalid());
    }
    tx.meta_put(&joined_key(token.id), key).await?;
    Event::new(ledger::host(&token.host), "host.joined", id)
        .text(format!("{} with join-token {}", token.host, token.id))
        .append(app, tx, &token.project)
        .await?;
    Ok(Joined { id, name: token.host.clone(), issued })
}

async fn reissue(app: &App, tx: &mut dyn Tx, mut row: HostRow, csr: &[u8]) -> Result<Joined> {
    let issued = issue(app, csr, row.host.id, app.now())?;
    row.certificate = Some(held(&issued));
    tx.host_put(&row).await?;
    Ok(Joined { id: row.host.id, name: row.host.name, issued })
}

/// A new certificate for a host that shows its last one, good or expired for at most 90 days.
///
/// # Errors
/// `E_CERTIFICATE`, with the exact cause in the ledger; `E_CSR`.
pub async fn renew(app: &App, peer: Option<&Peer>, csr: &[u8]) -> Result<Joined> {
    let presented = match peer.map(|peer| &peer.certificate) {
        Some(PeerCertificate::Valid(presented) | PeerCertificate::Expired(presented)) => presented.clone(),
        None | Some(PeerCertificate::None) => return Err(refused()),
    };
    app.store
        .write(|tx| {
            Box::pin(async move {
                match renewed(app, tx, &presented, csr).await {
                    Err(error) if error.code == Code::CERTIFICATE => {
                        Event::new(Actor::Coordinator, "host.renew_refused", &presented.host)
                            .reason(Code::CERTIFICATE.code)
                            .text(&error.text)
                            .append(app, tx, PROJECT)
                            .await?;
                        Ok(Err(refused()))
                    }
                    other => other.map(Ok),
                }
            })
        })
        .await?
}

fn refused() -> Error {
    let text = "the certificate cannot be renewed; join again with a new join-token (`muster join-token create`)";
    Error::new(Code::CERTIFICATE, text)
}

async fn renewed(app: &App, tx: &mut dyn Tx, presented: &Presented, csr: &[u8]) -> Result<Joined> {
    let agent = auth::holder(tx, presented).await?;
    let ended = Timestamp(presented.not_after.saturating_mul(1_000_000));
    let away = app.now().since(ended);
    if away > ca::RENEW_WINDOW {
        let text = format!("{} was away for {} days, more than 90", agent.name, away.as_secs() / 86_400);
        return Err(Error::new(Code::CERTIFICATE, text));
    }
    let mut row = tx.host_get(agent.id).await?.ok_or_else(refused)?;
    let issued = issue(app, csr, agent.id, app.now())?;
    // Until the new one is used the old one stays good: this answer may be lost on its way.
    tx.meta_put(&auth::previous_key(agent.id), agent.fingerprint.hex()).await?;
    row.certificate = Some(held(&issued));
    tx.host_put(&row).await?;
    let event = Event::new(ledger::host(&agent.name), "host.renewed", agent.id);
    let event = if away > Duration::ZERO { event.text(format!("expired for {} s", away.as_secs())) } else { event };
    event.append(app, tx, &agent.project).await?;
    Ok(Joined { id: agent.id, name: agent.name, issued })
}

fn issue(app: &App, csr: &[u8], host: HostId, now: Timestamp) -> Result<Issued> {
    let incarnation = app.store.fence().incarnation_id;
    app.ca.agent(csr, incarnation, host, now, ca::AGENT_LIFETIME).map_err(csr_error)
}

fn csr_error(error: ca::Error) -> Error {
    match error {
        ca::Error::Request(_) => Error::new(Code::CSR, error.to_string()),
        ca::Error::Certificate(_) => Error::internal(error),
    }
}

fn held(issued: &Issued) -> Certificate {
    Certificate {
        serial: issued.serial.clone(),
        fingerprint: issued.fingerprint.clone(),
        not_after: issued.not_after,
        revoked: false,
    }
}

fn key_hash(csr: &[u8]) -> Result<String> {
    ca::requested_key_hash(csr).map_err(csr_error)
}

fn joined_key(id: JoinTokenId) -> String {
    format!("join/{id}/key")
}
