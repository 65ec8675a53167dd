//! Seals what must not be readable in the store: AES-256-GCM under one key file.

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;

const VERSION: u8 = 1;

/// Why the vault cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The key file cannot be read or made.
    #[error("the key file {}: {why}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's words.
        why: io::Error,
    },
    /// The key file is not one.
    #[error("the key file {} does not hold 32 bytes; put the right one back from its copy", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// Others can read the key file.
    #[error("the key file {} can be read by others (mode {mode:o}); set its mode to 600", .path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A sealed secret was made under another key, or was changed.
    #[error("the sealed {kind} {id:?} cannot be opened: it was sealed under another key file, or was changed")]
    Sealed {
        /// The secret's kind.
        kind: String,
        /// Its id within the kind.
        id: String,
    },
    /// The system gives no random bytes.
    #[error("the system gives no random bytes: {0}")]
    Random(String),
}

/// Seals and opens secrets.
pub struct Vault {
    key: LessSafeKey,
    derive: hmac::Key,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Vault")
    }
}

impl Vault {
    /// Opens the key file, or makes it when `create` and it is not there.
    ///
    /// # Errors
    /// It is not readable, readable by others, malformed, or missing.
    pub fn open(path: &Path, create: bool) -> Result<Self, Error> {
        let file = |why| Error::File { path: path.to_owned(), why };
        match fs::read(path) {
            Ok(bytes) => {
                let mode = fs::metadata(path).map_err(file)?.permissions().mode() & 0o777;
                if mode & 0o077 != 0 {
                    return Err(Error::Open { path: path.to_owned(), mode });
                }
                let key: [u8; 32] = bytes.try_into().map_err(|_| Error::Malformed { path: path.to_owned() })?;
                Ok(Self::new(&key))
            }
            Err(why) if why.kind() == io::ErrorKind::NotFound && create => {
                let mut key = [0; 32];
                random(&mut key)?;
                write_private(path, &key).map_err(file)?;
                Ok(Self::new(&key))
            }
            Err(why) => Err(file(why)),
        }
    }

    /// A vault under this key.
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Self {
        // Each use has a key of its own, so that nothing of one tells about the other.
        let root = hmac::Key::new(hmac::HMAC_SHA256, key);
        let seal = hmac::sign(&root, b"muster seal 1");
        let derive = hmac::sign(&root, b"muster derive 1");
        let unbound = UnboundKey::new(&AES_256_GCM, seal.as_ref());
        // 32 bytes are what AES-256 takes; ring has no infallible constructor.
        #[expect(clippy::expect_used, reason = "the length is the algorithm's")]
        let key = LessSafeKey::new(unbound.expect("a 32 byte key"));
        Self { key, derive: hmac::Key::new(hmac::HMAC_SHA256, derive.as_ref()) }
    }

    /// Seals `plain` so that it opens as this kind and id only.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn seal(&self, kind: &str, id: &str, plain: &[u8]) -> Result<Vec<u8>, Error> {
        let mut nonce = [0; NONCE_LEN];
        random(&mut nonce)?;
        let mut sealed = plain.to_vec();
        self.key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad(kind, id)), &mut sealed)
            .map_err(|_| Error::Random("too long to be sealed".to_owned()))?;
        let mut out = Vec::with_capacity(1 + NONCE_LEN + sealed.len());
        out.push(VERSION);
        out.extend_from_slice(&nonce);
        out.append(&mut sealed);
        Ok(out)
    }

    /// Opens what was sealed as this kind and id.
    ///
    /// # Errors
    /// It was sealed under another key, as something else, or was changed.
    pub fn open_sealed(&self, kind: &str, id: &str, sealed: &[u8]) -> Result<Vec<u8>, Error> {
        let bad = || Error::Sealed { kind: kind.to_owned(), id: id.to_owned() };
        let (&version, rest) = sealed.split_first().ok_or_else(bad)?;
        if version != VERSION || rest.len() < NONCE_LEN {
            return Err(bad());
        }
        let (nonce, rest) = rest.split_at(NONCE_LEN);
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| bad())?;
        let mut bytes = rest.to_vec();
        let plain = self.key.open_in_place(nonce, Aad::from(aad(kind, id)), &mut bytes).map_err(|_| bad())?.len();
        bytes.truncate(plain);
        Ok(bytes)
    }

    /// 32 bytes that only the holder of the key file can make again: the random part of a token, so that the answer
    /// to a repeated call is the same without the token being stored.
    #[must_use]
    pub fn derive(&self, kind: &str, id: &str) -> [u8; 32] {
        let tag = hmac::sign(&self.derive, &aad(kind, id));
        let mut out = [0; 32];
        out.copy_from_slice(&tag.as_ref()[..32]);
        out
    }
}

fn aad(kind: &str, id: &str) -> Vec<u8> {
    // The kind's length keeps (`a`, `bc`) and (`ab`, `c`) apart.
    let mut out = u32::try_from(kind.len()).unwrap_or(u32::MAX).to_be_bytes().to_vec();
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(id.as_bytes());
    out
}

fn random(bytes: &mut [u8]) -> Result<(), Error> {
    getrandom::fill(bytes).map_err(|why| Error::Random(why.to_string()))
}

/// Writes a file that only its owner reads, whole or not at all.
///
/// # Errors
/// What the system says.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let beside = path.with_file_name(name);
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    match path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        Some(folder) => fs::File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_opens_only_as_what_it_was_sealed_as() {
        let vault = Vault::new(&[1; 32]);
        let sealed = vault.seal("environment", "a", b"postgres://secret").unwrap();
        assert_eq!(vault.open_sealed("environment", "a", &sealed).unwrap(), b"postgres://secret");
        assert!(vault.open_sealed("environment", "b", &sealed).is_err());
        assert!(vault.open_sealed("ca", "a", &sealed).is_err());
        assert!(Vault::new(&[2; 32]).open_sealed("environment", "a", &sealed).is_err());
        assert!(!sealed.windows(6).any(|window| window == b"secret"));
    }

    #[test]
    fn a_changed_or_cut_secret_does_not_open() {
        let vault = Vault::new(&[1; 32]);
        let sealed = vault.seal("ca", "key", b"plain").unwrap();
        for n in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[n] ^= 1;
            assert!(vault.open_sealed("ca", "key", &changed).is_err(), "byte {n}");
            assert!(vault.open_sealed("ca", "key", &sealed[..n]).is_err(), "cut at {n}");
        }
    }

    #[test]
    fn the_key_file_is_made_once_private_and_refused_when_others_can_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        assert!(Vault::open(&path, false).is_err());
        let sealed = Vault::open(&path, true).unwrap().seal("k", "i", b"x").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Vault::open(&path, true).unwrap().open_sealed("k", "i", &sealed).unwrap(), b"x");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(Vault::open(&path, true), Err(Error::Open { .. })));
    }
}
