//! Idempotency keys: a call that is made twice creates once.

use domain::authorize::Principal;
use domain::release::Digest;
use prost::Message;

use super::Ctx;
use crate::error::{Code, Error, Result};
use crate::store::idempotency::IdempotencyRow;
use crate::store::{Tx, View};

/// A key that a caller gave, with what it was given for.
#[derive(Clone, Debug)]
pub struct Key {
    method: &'static str,
    key: String,
    body: Digest,
}

impl Key {
    /// None when the caller gave no key. `request` is the whole message.
    ///
    /// # Errors
    /// The key is not 1–128 printable ASCII characters.
    pub fn of(method: &'static str, key: &str, request: &impl Message) -> Result<Option<Self>> {
        let body = crate::ca::digest(&transport::pin::sha256(&request.encode_to_vec()));
        Self::with_body(method, key, body)
    }

    /// As [`Key::of`], for a request that comes in pieces.
    ///
    /// # Errors
    /// The key is not 1–128 printable ASCII characters.
    pub fn with_body(method: &'static str, key: &str, body: Digest) -> Result<Option<Self>> {
        if key.is_empty() {
            return Ok(None);
        }
        if key.len() > 128 || !key.bytes().all(|b| b.is_ascii_graphic()) {
            let text = "an idempotency key is 1 to 128 printable ASCII characters without spaces";
            return Err(Error::new(Code::IDEMPOTENCY_KEY, text));
        }
        Ok(Some(Self { method, key: key.to_owned(), body }))
    }
}

/// What the key created before, if it was used.
///
/// # Errors
/// It was used for another request.
pub async fn created<V: View + ?Sized>(tx: &mut V, principal: &Principal, key: Option<&Key>) -> Result<Option<String>> {
    let Some(key) = key else { return Ok(None) };
    let Some(row) = tx.idempotency_get(principal.id, key.method, &key.key).await? else { return Ok(None) };
    if row.body != key.body {
        let text = format!("the idempotency key {:?} was used for another request; take a new one", key.key);
        return Err(Error::new(Code::IDEMPOTENCY_KEY_REUSED, text));
    }
    Ok(Some(row.created))
}

/// Notes what the key created.
///
/// # Errors
/// What the store says.
pub async fn note(
    ctx: &Ctx,
    tx: &mut dyn Tx,
    principal: &Principal,
    key: Option<&Key>,
    created: impl ToString,
) -> Result<()> {
    let Some(key) = key else { return Ok(()) };
    let row = IdempotencyRow {
        project: principal.project.clone(),
        principal: principal.id,
        method: key.method.to_owned(),
        key: key.key.clone(),
        body: key.body.clone(),
        created: created.to_string(),
        at: ctx.now(),
    };
    tx.idempotency_insert(&row).await?;
    Ok(())
}
