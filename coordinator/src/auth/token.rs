//! The texts of api-tokens and the comparison of secrets.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use domain::ids::{ApiTokenId, JoinTokenId};
use domain::release::Digest;
use transport::join::JoinSecret;
use uuid::Uuid;

use crate::vault::Vault;

/// `mt_<id, 32 hexadecimal digits>_<secret, base64url>`.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiToken {
    /// The token's id.
    pub id: ApiTokenId,
    secret: String,
}

impl fmt::Debug for ApiToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiToken({})", self.id)
    }
}

impl ApiToken {
    /// The token of this id under the vault's key.
    #[must_use]
    pub fn of(vault: &Vault, id: ApiTokenId) -> Self {
        Self { id, secret: URL_SAFE_NO_PAD.encode(vault.derive("api-token", &id.to_string())) }
    }

    /// Reads a token's text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (id, secret) = text.trim().strip_prefix("mt_")?.split_once('_')?;
        let good = secret.len() == 43 && secret.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        (good && id.len() == 32).then_some(())?;
        Some(Self { id: ApiTokenId::new(Uuid::try_parse(id).ok()?), secret: secret.to_owned() })
    }

    /// The text that people copy.
    #[must_use]
    pub fn reveal(&self) -> String {
        format!("mt_{}_{}", self.id.uuid().simple(), self.secret)
    }

    /// What is stored.
    #[must_use]
    pub fn hash(&self) -> Digest {
        hash(&self.secret)
    }

    /// Whether this is the token whose hash is stored.
    #[must_use]
    pub fn matches(&self, stored: &Digest) -> bool {
        same(&self.hash(), stored)
    }
}

/// The join secret of this id under the vault's key.
#[must_use]
pub fn join_secret(vault: &Vault, id: JoinTokenId, pin: [u8; 32]) -> JoinSecret {
    let secret = URL_SAFE_NO_PAD.encode(vault.derive("join-token", &id.to_string()));
    JoinSecret { id: id.uuid().simple().to_string(), secret, pin }
}

/// SHA-256 of a secret's random part.
#[must_use]
pub fn hash(secret: &str) -> Digest {
    crate::ca::digest(&transport::pin::sha256(secret.as_bytes()))
}

/// Compares in the same time whatever differs.
#[must_use]
pub fn same(a: &Digest, b: &Digest) -> bool {
    let (a, b) = (a.hex().as_bytes(), b.hex().as_bytes());
    a.len() == b.len() && a.iter().zip(b).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_as_it_is_shown_and_matches_its_hash_only() {
        let vault = Vault::new(&[3; 32]);
        let token = ApiToken::of(&vault, ApiTokenId::new(Uuid::from_u128(5)));
        let read = ApiToken::parse(&token.reveal()).unwrap();
        assert_eq!(read, token);
        assert!(read.matches(&token.hash()));
        let other = ApiToken::of(&vault, ApiTokenId::new(Uuid::from_u128(6)));
        assert!(!other.matches(&token.hash()));
        assert!(!format!("{token:?}").contains(&token.secret));
    }

    #[test]
    fn malformed_tokens_are_refused() {
        let id = "0".repeat(32);
        for text in [
            "",
            "mt_",
            "mt_x_y",
            &format!("mt_{id}_short"),
            &format!("jt_{id}_{}", "a".repeat(43)),
            &format!("mt_{id}_{}", "é".repeat(43)),
        ] {
            assert_eq!(ApiToken::parse(text), None, "{text}");
        }
    }
}
