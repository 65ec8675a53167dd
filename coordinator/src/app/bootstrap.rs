//! What must be there before anything is served: the vault's key, the CA, the first admin's token.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use domain::event::Actor;

use super::ledger::Event;
use super::{App, Ctx, api_tokens};
use crate::ca::{self, Ca};
use crate::error::Error;
use crate::store::secret::SecretRow;
use crate::store::{self, PROJECT};
use crate::vault::{self, Vault};

const CA_CERTIFICATE: &str = "ca.certificate";
const CA_KEY: (&str, &str) = ("ca", "key");

/// Why the coordinator cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// The key file.
    #[error("E_KEY_FILE: {0}")]
    Vault(#[from] vault::Error),
    /// The internal CA.
    #[error("E_CA: {0}")]
    Ca(#[from] ca::Error),
    /// The store.
    #[error("{code}: {error}", code = .error.code())]
    Store {
        /// What it says.
        #[from]
        error: store::Error,
    },
    /// A file of the state directory.
    #[error("E_STATE_DIR: {path}: {why}")]
    File {
        /// The file.
        path: String,
        /// The system's words.
        why: std::io::Error,
    },
    /// Anything else.
    #[error("{0}")]
    Other(#[from] Error),
}

/// Opens the key file, and the CA with it; makes both when the store has no CA yet.
///
/// # Errors
/// The key file is missing while the store has a CA, or cannot open it.
pub async fn open(ctx: &Ctx, key_file: &Path) -> Result<(Arc<Vault>, Arc<Ca>), Failed> {
    let (certificate, key) = ctx
        .store
        .read(|view| {
            Box::pin(async move {
                let certificate = view.meta_get(CA_CERTIFICATE).await?;
                let key = view.secret_get(CA_KEY.0, CA_KEY.1).await?;
                Ok::<_, store::Error>((certificate, key))
            })
        })
        .await?;
    // With a CA in the store a new key file could open nothing.
    let vault = Arc::new(Vault::open(key_file, certificate.is_none())?);
    ctx.store.seal_with(Arc::clone(&vault));
    let ca = match (certificate, key) {
        (Some(pem), Some(row)) => Ca::open(&pem, &vault.open_sealed(CA_KEY.0, CA_KEY.1, &row.sealed)?)?,
        _ => make_ca(ctx, &vault).await?,
    };
    Ok((vault, Arc::new(ca)))
}

async fn make_ca(ctx: &Ctx, vault: &Vault) -> Result<Ca, Failed> {
    let (ca, key) = Ca::create(ctx.store.fence().incarnation_id, ctx.now())?;
    let row = SecretRow {
        project: PROJECT.to_owned(),
        kind: CA_KEY.0.to_owned(),
        id: CA_KEY.1.to_owned(),
        sealed: vault.seal(CA_KEY.0, CA_KEY.1, &key)?,
        created_at: ctx.now(),
    };
    let pem = ca.pem().to_owned();
    let pin = transport::pin::show(&ca.pin());
    ctx.store
        .write(|tx| {
            Box::pin(async move {
                tx.secret_put(&row).await?;
                tx.meta_put(CA_CERTIFICATE, &pem).await?;
                Event::new(Actor::Coordinator, "ca.created", &pin).append(ctx, tx, PROJECT).await?;
                Ok::<_, store::Error>(())
            })
        })
        .await?;
    Ok(ca)
}

/// Writes `ca.pem`, and at the first start `admin.token`. Answers whether the latter was written.
///
/// # Errors
/// The files cannot be written.
pub async fn files(app: &App, state_dir: &Path) -> Result<bool, Failed> {
    let file = |path: &Path, why| Failed::File { path: path.display().to_string(), why };
    let ca = state_dir.join("ca.pem");
    std::fs::write(&ca, app.ca.pem()).map_err(|why| file(&ca, why))?;
    // Everybody who calls needs it, and it is no secret.
    std::fs::set_permissions(&ca, std::fs::Permissions::from_mode(0o644)).map_err(|why| file(&ca, why))?;
    let Some(token) = api_tokens::bootstrap(app, PROJECT).await? else { return Ok(false) };
    let path = state_dir.join("admin.token");
    vault::write_private(&path, format!("{}\n", token.reveal()).as_bytes()).map_err(|why| file(&path, why))?;
    Ok(true)
}
