//! Who this host is: its key, made here and never sent, and the certificate that the coordinator gave for it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use domain::time::Timestamp;
use proto::v1;
use rcgen::{CertificateParams, KeyPair};
use serde::{Deserialize, Serialize};
use transport::join::JoinSecret;
use transport::{Options, Trust};

use crate::{clock, files};

/// Largest identity file in bytes.
const MAX_FILE: u64 = 64 << 10;

/// Why a host has no identity.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It never joined and has no join secret.
    #[error(
        "E_NOT_JOINED: this host has not joined; make a join-token with `muster join-token create HOST` and give it as join_token_file or MUSTER_JOIN_TOKEN"
    )]
    NoSecret,
    /// The join secret is not one.
    #[error("E_TOKEN_FORMAT: the join token is not a text that `muster join-token create` printed")]
    Secret,
    /// The identity file cannot be read or written.
    #[error("E_IDENTITY: {path}: {why}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// No key or request could be made.
    #[error("E_IDENTITY: {0}")]
    Key(String),
    /// No connection.
    #[error("E_UNREACHABLE: {0}")]
    Transport(#[from] transport::Error),
    /// The coordinator said no.
    #[error("{0}")]
    Refused(String),
}

impl Error {
    /// Trying again may help.
    #[must_use]
    pub fn passes(&self) -> bool {
        matches!(self, Self::Transport(transport::Error::Connect { refused: false, .. }))
    }
}

/// This host's identity. Its file is the only place of the key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The host's id.
    pub host_id: String,
    /// The host's name.
    pub host_name: String,
    /// PKCS#8, hexadecimal.
    key: String,
    /// DER, hexadecimal: the host's certificate, then the CA's.
    chain: Vec<String>,
    /// When the certificate was given, by the coordinator's clock.
    issued_at: i64,
    /// When it ends, by the coordinator's clock.
    not_after: i64,
    /// The coordinator's clock minus ours, in microseconds.
    offset: i64,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("host_id", &self.host_id)
            .field("host_name", &self.host_name)
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// Reads `folder/identity.json`; none: this host has not joined.
    ///
    /// # Errors
    /// It is there and cannot be read.
    pub fn load(folder: &Path) -> Result<Option<Self>, Error> {
        let path = folder.join("identity.json");
        let file = |why: String| Error::File { path: path.clone(), why };
        match files::read_limited(&path, MAX_FILE) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|why| file(why.to_string())),
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(why) => Err(file(why.to_string())),
        }
    }

    fn save(&self, folder: &Path) -> Result<(), Error> {
        let path = folder.join("identity.json");
        let bytes = serde_json::to_vec_pretty(self).map_err(|why| Error::Key(why.to_string()))?;
        files::private_dir(folder)
            .and_then(|()| files::write_atomic(&path, &bytes))
            .map_err(|why| Error::File { path, why: why.to_string() })
    }

    /// For the connection: certificate and key.
    ///
    /// # Errors
    /// The file holds something else.
    pub fn credentials(&self) -> Result<transport::Identity, Error> {
        let bytes = |text: &String| hex::decode(text).map_err(|why| Error::Key(why.to_string()));
        let chain = self.chain.iter().map(bytes).collect::<Result<Vec<_>, _>>()?;
        Ok(transport::Identity::new(chain, bytes(&self.key)?)?)
    }

    /// How the coordinator is recognised: by the CA that signed this host.
    ///
    /// # Errors
    /// The file holds no CA certificate.
    pub fn trust(&self) -> Result<Trust, Error> {
        let ca = self.chain.last().ok_or_else(|| Error::Key("the chain is empty".to_owned()))?;
        let der = hex::decode(ca).map_err(|why| Error::Key(why.to_string()))?;
        Ok(Trust::Pin(transport::pin::sha256(&der)))
    }

    /// Time until the certificate is to be renewed: half its life, less up to a tenth of it, so that not all hosts
    /// of a fleet come at once. Zero: now.
    #[must_use]
    pub fn renew_in(&self, now: Timestamp) -> Duration {
        let life = Timestamp(self.not_after).since(Timestamp(self.issued_at));
        let half = life / 2;
        let due = Timestamp(self.issued_at).plus(half - clock::jitter(half / 10));
        due.since(Timestamp(now.0.saturating_add(self.offset)))
    }

    /// The certificate has ended: the coordinator takes nothing but a renewal.
    #[must_use]
    pub fn expired(&self, now: Timestamp) -> bool {
        now.0.saturating_add(self.offset) >= self.not_after
    }

    fn from_answer(key: &KeyPair, answer: v1::JoinResponse) -> Result<Self, Error> {
        if answer.chain.len() < 2 || answer.host_id.is_empty() {
            return Err(Error::Refused("E_PROTOCOL: the coordinator's answer has no certificate".to_owned()));
        }
        Ok(Self {
            host_id: answer.host_id,
            host_name: answer.host_name,
            key: hex::encode(key.serialize_der()),
            chain: answer.chain.iter().map(hex::encode).collect(),
            issued_at: answer.now,
            not_after: answer.not_after,
            offset: answer.now.saturating_sub(clock::now().0),
        })
    }
}

fn request() -> Result<(KeyPair, Vec<u8>), Error> {
    let key = KeyPair::generate().map_err(|why| Error::Key(why.to_string()))?;
    // What stands in the request is not believed: the coordinator takes the public key only.
    let csr = CertificateParams::default().serialize_request(&key).map_err(|why| Error::Key(why.to_string()))?;
    Ok((key, csr.der().to_vec()))
}

fn refused(status: &tonic::Status) -> Error {
    Error::Refused(status.message().to_owned())
}

/// Joins with a one-time secret: the key is made here, the coordinator is recognised by the pin in the secret.
///
/// # Errors
/// See [`Error`].
pub async fn join(folder: &Path, coordinator: &str, secret: &str, facts: v1::Facts) -> Result<Identity, Error> {
    let secret = JoinSecret::parse(secret).ok_or(Error::Secret)?;
    let channel = transport::connect(coordinator, &Trust::Pin(secret.pin), None, Options::default()).await?;
    let (key, csr) = request()?;
    let join = v1::JoinRequest { token: secret.reveal(), csr, facts: Some(facts) };
    let answer = crate::session::client(channel).join(join).await.map_err(|status| refused(&status))?;
    let identity = Identity::from_answer(&key, answer.into_inner())?;
    identity.save(folder)?;
    Ok(identity)
}

/// Gets a new certificate for a new key, with the old one on the connection; it may have expired.
///
/// # Errors
/// See [`Error`].
pub async fn renew(folder: &Path, coordinator: &str, old: &Identity) -> Result<Identity, Error> {
    let credentials = old.credentials()?;
    let channel = transport::connect(coordinator, &old.trust()?, Some(&credentials), Options::default()).await?;
    let (key, csr) = request()?;
    let answer =
        crate::session::client(channel).renew(v1::RenewRequest { csr }).await.map_err(|status| refused(&status))?;
    let identity = Identity::from_answer(&key, answer.into_inner())?;
    if identity.host_id != old.host_id {
        return Err(Error::Refused("E_PROTOCOL: the renewed certificate is another host's".to_owned()));
    }
    identity.save(folder)?;
    Ok(identity)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000_000;

    fn identity() -> Identity {
        let key = KeyPair::generate().expect("a key");
        let answer = v1::JoinResponse {
            host_id: "h".to_owned(),
            host_name: "web-1".to_owned(),
            chain: vec![vec![1], vec![2]],
            not_after: clock::now().0 + 24 * HOUR,
            now: clock::now().0,
        };
        Identity::from_answer(&key, answer).expect("complete")
    }

    #[test]
    fn an_identity_is_read_back_and_does_not_print_its_key() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(Identity::load(folder.path()).expect("none"), None);
        let identity = identity();
        identity.save(folder.path()).expect("saved");
        assert_eq!(Identity::load(folder.path()).expect("read"), Some(identity.clone()));
        assert!(!format!("{identity:?}").contains(&identity.key));
    }

    #[test]
    fn it_is_renewed_before_half_its_life_and_expires_at_its_end() {
        let (identity, now) = (identity(), clock::now());
        let due = identity.renew_in(now);
        assert!(due <= Duration::from_hours(12), "{due:?}");
        assert!(due >= Duration::from_hours(10), "{due:?}");
        assert_eq!(identity.renew_in(Timestamp(now.0 + 13 * HOUR)), Duration::ZERO);
        assert!(!identity.expired(now));
        assert!(identity.expired(Timestamp(now.0 + 25 * HOUR)));
    }
}
