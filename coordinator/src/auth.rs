//! Who calls, and whether the method is theirs: decided before any handler runs. What is not allowed by a rule is denied.

pub mod denials;
pub mod layer;
pub mod rules;
pub mod token;

use domain::authorize::{Principal, Role};
use domain::host::Liveness;
use domain::ids::HostId;
use domain::name::Name;
use domain::release::Digest;
use domain::time::Timestamp;
use transport::{Peer, PeerCertificate, Presented};

use crate::app::{App, Ctx};
use crate::error::{Code, Error, Result};
use crate::store::View;
use crate::store::host::HostRow;
use rules::{Access, Rules};

/// Who calls; handlers find it in the request's extensions.
#[derive(Clone, Debug)]
pub enum Caller {
    /// A person or a service, with its api-token.
    Principal(Principal),
    /// A host, with a good certificate.
    Host(Agent),
    /// Anybody: the handler checks the proof.
    Anybody,
}

/// A host that calls.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Agent {
    /// Its id.
    pub id: HostId,
    /// Its name.
    pub name: Name,
    /// The project it belongs to.
    pub project: String,
    /// SHA-256 of the certificate it called with.
    pub fingerprint: Digest,
}

/// Why a call is denied: what the caller is told, and what the ledger is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Denial {
    /// For the caller.
    pub error: Error,
    /// For the ledger.
    pub cause: String,
    /// Who it was, as far as known.
    pub who: Option<Box<Principal>>,
}

impl Denial {
    fn unauthenticated(cause: impl Into<String>) -> Self {
        let text =
            "no valid api-token; give one with `muster login`, MUSTER_TOKEN or --token-file, or ask an admin for one";
        Self { error: Error::new(Code::UNAUTHENTICATED, text), cause: cause.into(), who: None }
    }

    fn certificate(cause: impl Into<String>) -> Self {
        let text = "this call needs a host's certificate: a good one, and the one it was given last";
        Self { error: Error::new(Code::UNAUTHENTICATED, text), cause: cause.into(), who: None }
    }
}

impl From<Error> for Denial {
    fn from(error: Error) -> Self {
        Self { cause: error.text.clone(), error, who: None }
    }
}

impl From<crate::store::Error> for Denial {
    fn from(error: crate::store::Error) -> Self {
        Error::from(error).into()
    }
}

/// Decides on one call. `bearer` is what stands after `Bearer ` in the authorization header.
///
/// # Errors
/// Says why it is denied.
pub async fn authenticate(
    app: &App,
    rules: &Rules,
    method: &str,
    bearer: Option<&str>,
    peer: Option<&Peer>,
) -> Result<Caller, Denial> {
    let Some(access) = rules.of(method) else {
        // Nothing says who may call it, so nobody may; a caller without a token learns nothing more than that.
        let principal = principal(app, bearer).await?;
        let error =
            Error::new(Code::PERMISSION_DENIED, format!("{} has no access rule", crate::app::text::line(method, 100)));
        return Err(Denial { error, cause: "no access rule".to_owned(), who: Some(Box::new(principal)) });
    };
    match access {
        Access::Open | Access::Proof => Ok(Caller::Anybody),
        Access::Agent => agent(app, peer).await.map(Caller::Host),
        Access::Role(needs) => {
            let principal = principal(app, bearer).await?;
            allow(&principal, needs)?;
            Ok(Caller::Principal(principal))
        }
    }
}

fn allow(principal: &Principal, needs: Role) -> Result<(), Denial> {
    let role = principal.grant.role;
    if role >= needs {
        return Ok(());
    }
    let text = format!("this needs the role {}, {}'s token has {}", needs.as_str(), principal.name, role.as_str());
    let error = Error::new(Code::PERMISSION_DENIED, text.clone());
    Err(Denial { error, cause: text, who: Some(Box::new(principal.clone())) })
}

async fn principal(app: &App, bearer: Option<&str>) -> Result<Principal, Denial> {
    let text = bearer.ok_or_else(|| Denial::unauthenticated("no api-token"))?;
    let token = token::ApiToken::parse(text).ok_or_else(|| Denial::unauthenticated("malformed api-token"))?;
    let now = app.now();
    app.store
        .read(|view| {
            Box::pin(async move {
                let row = view.api_token_get(token.id).await?;
                // Compared also when there is none, so that the answer takes as long.
                let nothing = crate::ca::digest(&[0; 32]);
                let stored = row.as_ref().map_or(&nothing, |row| &row.secret);
                let same = token.matches(stored);
                let row = row.filter(|_| same).ok_or_else(|| Denial::unauthenticated("unknown or wrong api-token"))?;
                if row.revoked_at.is_some() {
                    return Err(Denial::unauthenticated(format!("api-token {} was revoked", row.id)));
                }
                if row.expires_at <= now {
                    return Err(Denial::unauthenticated(format!("api-token {} has expired", row.id)));
                }
                let principal = view
                    .principal_get(row.principal)
                    .await?
                    .ok_or_else(|| Denial::unauthenticated("the api-token's principal is gone"))?;
                Ok(Principal { id: principal.id, name: principal.name, project: row.project, grant: row.grant })
            })
        })
        .await
}

async fn agent(app: &App, peer: Option<&Peer>) -> Result<Agent, Denial> {
    let presented = match peer.map(|peer| &peer.certificate) {
        None | Some(PeerCertificate::None) => return Err(Denial::certificate("no certificate")),
        Some(PeerCertificate::Expired(presented)) => {
            return Err(Denial::certificate(format!("the certificate of host {} has expired", presented.host)));
        }
        Some(PeerCertificate::Valid(presented)) => presented.clone(),
    };
    // A connection can outlive its certificate.
    if presented.not_after.saturating_mul(1_000_000) < app.now().0 {
        return Err(Denial::certificate(format!("the certificate of host {} has expired", presented.host)));
    }
    let row = app
        .store
        .read(|view| Box::pin(async move { holder(view, &presented).await }))
        .await
        .map_err(|error: Error| Denial { cause: error.text, ..Denial::certificate("") })?;
    Ok(row)
}

/// The host that was given this certificate last, or before last while the last was not yet used.
///
/// # Errors
/// `E_CERTIFICATE`, with the exact cause in its text: for the ledger, not for the network.
pub async fn holder<V: View + ?Sized>(view: &mut V, presented: &Presented) -> Result<Agent> {
    let bad = |text: String| Error::new(Code::CERTIFICATE, text);
    let id: HostId = presented.host.parse().map_err(|_| bad("the certificate names no host".to_owned()))?;
    let row = view.host_get(id).await?.ok_or_else(|| bad(format!("host {id} was removed")))?;
    let held = row.certificate.as_ref().ok_or_else(|| bad(format!("{} has no certificate", row.host.name)))?;
    if held.revoked {
        return Err(bad(format!("the certificate of {} was revoked", row.host.name)));
    }
    let fingerprint = crate::ca::digest(&presented.sha256);
    if held.fingerprint != fingerprint && previous(view, id).await?.is_none_or(|before| before != fingerprint.hex()) {
        return Err(bad(format!(
            "{} was given a newer certificate than this: it is a copy, or was restored",
            row.host.name
        )));
    }
    Ok(Agent { id, name: row.host.name, project: row.project, fingerprint })
}

/// Key of the fact that holds a host's certificate before the last, until the last is used.
#[must_use]
pub fn previous_key(host: HostId) -> String {
    format!("host/{host}/previous-certificate")
}

async fn previous<V: View + ?Sized>(view: &mut V, host: HostId) -> Result<Option<String>> {
    Ok(view.meta_get(&previous_key(host)).await?.filter(|text| !text.is_empty()))
}

/// Whether a host can be given orders and its word counts.
#[must_use]
pub fn presence(ctx: &Ctx, row: &HostRow) -> domain::rollout::reports::Presence {
    use domain::rollout::reports::Presence;
    match ctx.liveness(row) {
        Liveness::Ready if ctx.seen.session(row.host.id).is_some_and(|seen| seen.synced) => Presence::Ready,
        Liveness::Unreachable => Presence::Away { since: row.host.seen_at.unwrap_or(Timestamp(0)) },
        Liveness::Ready | Liveness::Syncing | Liveness::Joined => Presence::Syncing,
    }
}
