//! The manifest of sealed data: what lies in it, who wrote it, and how its databases are entered once.

use std::io;
use std::path::{Path, PathBuf};

use proto::v1;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::environments::failure::Failure;
use crate::files;
use crate::pool::Pool;

/// Largest manifest in bytes.
const MAX_FILE: u64 = 4 << 20;
const FORMAT: u32 = 1;

/// How a database is entered before its credentials are changed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    /// Its administrator.
    pub user: String,
    /// Works until the first environment has its own.
    pub password: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

/// The data of one volume.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Part {
    /// The stack's name of the volume; `SERVICE.N` and `SERVICE.image-PATH` for anonymous ones.
    pub volume: String,
    /// The service that writes it.
    pub service: String,
    /// `postgres`, `mysql`, `redis`, `elasticsearch`, or empty.
    pub kind: String,
    /// Config digest of the image that wrote it.
    pub image: String,
    /// Of the database engine; empty where it does not say.
    pub version: String,
    /// Of the C library's collations; empty where nobody asked.
    pub collation: String,
    /// Bytes of its files.
    pub bytes: u64,
    /// Its files.
    pub files: u64,
    /// SHA-256 over all names, modes and contents.
    pub tree: String,
}

impl Part {
    /// A volume of which only the name is known.
    #[must_use]
    pub fn unknown(volume: String) -> Self {
        Self {
            volume,
            service: String::new(),
            kind: String::new(),
            image: String::new(),
            version: String::new(),
            collation: String::new(),
            bytes: 0,
            files: 0,
            tree: String::new(),
        }
    }
}

/// What a seed or snapshot holds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Sealed {
    /// Of this file.
    pub format: u32,
    /// SHA-256 over the parts; names the folder.
    pub digest: String,
    /// The parts, by volume.
    pub parts: Vec<Part>,
    /// How databases are entered, by service.
    pub logins: std::collections::BTreeMap<String, Login>,
    /// Masking was run on it.
    pub masked: bool,
}

/// The digest of parts: what they hold and what wrote it, whatever they are called.
fn digest(parts: &[Part]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        for text in [&part.volume, &part.service, &part.kind, &part.image, &part.version, &part.collation, &part.tree] {
            hash.update(text.as_bytes());
            hash.update([0]);
        }
    }
    hex::encode(hash.finalize())
}

impl Sealed {
    /// Of these parts.
    #[must_use]
    pub fn new(mut parts: Vec<Part>, logins: std::collections::BTreeMap<String, Login>, masked: bool) -> Self {
        parts.sort_by(|a, b| a.volume.cmp(&b.volume));
        Self { format: FORMAT, digest: digest(&parts), parts, logins, masked }
    }

    /// Reads the manifest of the folder; none: there is none, so the folder was never finished.
    ///
    /// # Errors
    /// It is there and cannot be read.
    pub fn read(folder: &Path) -> io::Result<Option<Self>> {
        let bytes = match files::read_limited(&folder.join("seed.json"), MAX_FILE) {
            Ok(bytes) => bytes,
            Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(why) => return Err(why),
        };
        Self::parse(&bytes).map(Some)
    }

    /// Reads a manifest.
    ///
    /// # Errors
    /// It is none, or its digest is not that of its parts.
    pub fn parse(bytes: &[u8]) -> io::Result<Self> {
        let sealed: Self = serde_json::from_slice(bytes).map_err(io::Error::other)?;
        if sealed.format != FORMAT || sealed.digest != digest(&sealed.parts) {
            return Err(io::Error::other("its digest or format does not fit"));
        }
        let named =
            |part: &Part| !part.volume.is_empty() && !part.volume.contains('/') && !part.volume.starts_with('.');
        if !sealed.parts.iter().all(named) {
            return Err(io::Error::other("a volume has a name that none can have"));
        }
        Ok(sealed)
    }

    /// Writes it into the folder: from then on the folder is a seed.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        files::write_atomic(&folder.join("seed.json"), &serde_json::to_vec_pretty(self)?)
    }

    /// Bytes of all parts.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes).sum()
    }

    /// As they travel.
    #[must_use]
    pub fn messages(&self) -> Vec<v1::SeedPart> {
        let message = |part: &Part| v1::SeedPart {
            volume: part.volume.clone(),
            service: part.service.clone(),
            kind: part.kind.clone(),
            image: part.image.clone(),
            version: part.version.clone(),
            collation: part.collation.clone(),
            bytes: part.bytes,
            files: part.files,
        };
        self.parts.iter().map(message).collect()
    }
}

/// The folder of a volume's data within a seed, a snapshot or an environment.
#[must_use]
pub fn volume(folder: &Path, name: &str) -> PathBuf {
    folder.join("volumes").join(name)
}

/// How deep below a volume a server's data may lie: `18/docker`, `pgdata`, `mysql`.
const DEPTH: usize = 3;

/// The folder within a volume of which this is so, the volume itself among them; none: there is none.
pub(super) fn folder_where(volume: &Path, is: &dyn Fn(&Path) -> bool) -> Option<PathBuf> {
    fn find(folder: &Path, depth: usize, is: &dyn Fn(&Path) -> bool) -> Option<PathBuf> {
        if is(folder) {
            return Some(folder.to_owned());
        }
        let entries = (depth > 0).then(|| std::fs::read_dir(folder).ok())??;
        let folders = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        folders.take(64).find_map(|entry| find(&entry.path(), depth - 1, is))
    }
    find(volume, DEPTH, is)
}

/// Digests of the finished seeds in the pool. What was never finished is removed.
pub fn all(pool: &Pool) -> Vec<String> {
    let entries = std::fs::read_dir(pool.layout().seeds()).into_iter().flatten().flatten();
    let mut found = Vec::new();
    for entry in entries {
        let Ok(name) = entry.file_name().into_string() else { continue };
        match Sealed::read(&entry.path()) {
            Ok(Some(_)) => found.push(name),
            Ok(None) => {
                if let Err(why) = remove(pool, &entry.path()) {
                    tracing::warn!(seed = %name, %why, "an unfinished seed cannot be removed");
                }
            }
            Err(why) => tracing::warn!(seed = %name, %why, "a seed's manifest cannot be read; it is kept"),
        }
    }
    found.sort();
    found
}

/// Digests of what may be seeds in the pool; nothing is removed.
#[must_use]
pub fn all_of(pool: &Pool) -> Vec<String> {
    let entries = std::fs::read_dir(pool.layout().seeds()).into_iter().flatten().flatten();
    let mut found: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    found.sort();
    found
}

/// The seed is not on this host.
#[must_use]
pub fn missing(what: &str) -> Failure {
    Failure::lasting("E_SEED_MISSING", format!("{what} is not on this host any more"))
}

/// Removes a seed or snapshot: its manifest first, so that a half of it is never taken for one.
///
/// # Errors
/// The disk refuses; calling again goes on.
pub fn remove(pool: &Pool, folder: &Path) -> crate::pool::Result<()> {
    match std::fs::remove_file(folder.join("seed.json")) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => {
            return Err(crate::pool::Error::at("remove", folder)(why));
        }
        _ => {}
    }
    pool.remove_now(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(volume: &str, tree: &str) -> Part {
        Part {
            volume: volume.to_owned(),
            service: "db".to_owned(),
            kind: "postgres".to_owned(),
            image: "abc".to_owned(),
            version: "15".to_owned(),
            collation: String::new(),
            bytes: 5,
            files: 1,
            tree: tree.to_owned(),
        }
    }

    #[test]
    fn a_seed_is_named_by_what_it_holds_and_not_by_how_it_is_entered() {
        let login = Login { user: "bot".to_owned(), password: "secret".to_owned() };
        let with = Sealed::new(vec![part("b", "1"), part("a", "2")], [("db".to_owned(), login)].into(), true);
        let without = Sealed::new(vec![part("a", "2"), part("b", "1")], [].into(), false);
        assert_eq!(with.digest, without.digest);
        assert_ne!(with.digest, Sealed::new(vec![part("a", "3"), part("b", "1")], [].into(), false).digest);
        assert!(!format!("{with:?}").contains("secret"));
        assert_eq!(with.bytes(), 10);
    }

    #[test]
    fn a_folder_without_its_manifest_is_no_seed_and_goes() {
        let folder = tempfile::tempdir().expect("a folder");
        let pool = Pool::plain(folder.path()).expect("a pool");
        let sealed = Sealed::new(vec![part("a", "1")], [].into(), false);
        for name in [sealed.digest.as_str(), "half"] {
            std::fs::create_dir_all(volume(&pool.seed(name), "a")).expect("made");
        }
        sealed.write(&pool.seed(&sealed.digest)).expect("written");
        assert_eq!(all(&pool), std::slice::from_ref(&sealed.digest));
        assert!(!pool.seed("half").exists());
        assert_eq!(Sealed::read(&pool.seed(&sealed.digest)).expect("read"), Some(sealed.clone()));
        let path = pool.seed(&sealed.digest).join("seed.json");
        let text = std::fs::read_to_string(&path).expect("read").replace("\"tree\": \"1\"", "\"tree\": \"2\"");
        std::fs::write(&path, text).expect("written");
        assert!(Sealed::read(&pool.seed(&sealed.digest)).is_err());
        assert!(all(&pool).is_empty() && path.exists(), "kept, and not used");
        remove(&pool, &pool.seed(&sealed.digest)).expect("removed");
        assert!(!path.exists());
    }
}
