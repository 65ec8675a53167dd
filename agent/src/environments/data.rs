//! The manifest beside an environment's data: whose it is, its credentials and ports. Data without a readable one is
//! kept and reported, never removed.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::credentials::Credentials;
use crate::files;
use crate::pool::Pool;
use crate::state::environments::Folder;

/// Largest manifest in bytes.
const MAX_FILE: u64 = 1 << 20;

/// What must not be lost as long as the data is there.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Manifest {
    /// The environment's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Whose it is.
    pub owner: String,
    /// The app, if it belongs to one.
    #[serde(default)]
    pub app: String,
    /// The run it was made for, if any.
    #[serde(default)]
    pub run: String,
    /// The slot of the warm pool that it was: what that was made from.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub slot: String,
    /// Passwords of its databases.
    pub credentials: Credentials,
    /// Stable published ports, by `SERVICE:CONTAINER-PORT`.
    pub ports: BTreeMap<String, u16>,
    /// The granted folder with its sources: the grant itself can be spent only once.
    #[serde(default)]
    pub folder: Option<Folder>,
    /// Which epoch of its data lies there; none: nothing was laid yet.
    #[serde(default)]
    pub data_epoch: Option<u64>,
    /// How its data came, for people.
    #[serde(default)]
    pub data: String,
    /// Config digests of the images that wrote its data, by service.
    #[serde(default)]
    pub images: BTreeMap<String, String>,
}

impl std::fmt::Debug for Manifest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Manifest").field("id", &self.id).field("ports", &self.ports).finish_non_exhaustive()
    }
}

/// The folder with an environment's data.
#[must_use]
pub fn folder(pool: &Pool, id: &str) -> PathBuf {
    pool.environment(id)
}

impl Manifest {
    /// Reads the manifest of an environment; none: there is none.
    ///
    /// # Errors
    /// It is there and cannot be read.
    pub fn read(pool: &Pool, id: &str) -> io::Result<Option<Self>> {
        match files::read_limited(&folder(pool, id).join("manifest.json"), MAX_FILE) {
            Ok(bytes) => {
                let manifest: Self = serde_json::from_slice(&bytes).map_err(io::Error::other)?;
                if manifest.id == id {
                    Ok(Some(manifest))
                } else {
                    Err(io::Error::other("it names another environment"))
                }
            }
            Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(why) => Err(why),
        }
    }

    /// Writes it, durable when this returns.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn write(&self, pool: &Pool) -> io::Result<()> {
        let folder = folder(pool, &self.id);
        files::private_dir(&folder)?;
        match files::write_atomic(&folder.join("manifest.json"), &serde_json::to_vec_pretty(self)?) {
            // What is there already needs no room: in a full pool it goes on.
            Err(why) if why.kind() == io::ErrorKind::StorageFull && self.is_written(pool) => {}
            other => other?,
        }
        files::sync_folder(&pool.layout().environments())
    }

    fn is_written(&self, pool: &Pool) -> bool {
        matches!(Self::read(pool, &self.id), Ok(Some(there)) if there == *self)
    }
}

/// Removes an environment's data and its manifest, both at once.
///
/// # Errors
/// The disk refuses; calling again goes on.
pub fn remove(pool: &Pool, id: &str) -> crate::pool::Result<()> {
    super::lay::forget_all(pool, id)?;
    pool.remove_now(&folder(pool, id))
}

/// Environments whose data lies in the pool, and whether their manifest can be read.
#[must_use]
pub fn all(pool: &Pool) -> Vec<(String, Option<Manifest>)> {
    let entries = std::fs::read_dir(pool.layout().environments()).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let id = entry.file_name().into_string().ok()?;
            let manifest = Manifest::read(pool, &id).ok().flatten();
            Some((id, manifest))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_is_read_back_and_goes_with_its_data() {
        let folder = tempfile::tempdir().expect("a folder");
        let pool = Pool::plain(folder.path()).expect("a pool");
        let manifest = Manifest {
            id: "e1".to_owned(),
            credentials: [("variable X".to_owned(), "secret".to_owned())].into(),
            ports: [("web:8000".to_owned(), 20_000)].into(),
            ..Manifest::default()
        };
        manifest.write(&pool).expect("written");
        assert_eq!(Manifest::read(&pool, "e1").expect("read"), Some(manifest.clone()));
        assert!(!format!("{manifest:?}").contains("secret"));
        std::fs::create_dir_all(pool.environment("e1").join("volume/deep")).expect("made");
        assert_eq!(all(&pool), [("e1".to_owned(), Some(manifest))]);
        remove(&pool, "e1").expect("removed");
        remove(&pool, "e1").expect("nothing to do");
        assert!(all(&pool).is_empty());
    }

    #[test]
    fn data_without_a_readable_manifest_is_listed_as_such() {
        let folder = tempfile::tempdir().expect("a folder");
        let pool = Pool::plain(folder.path()).expect("a pool");
        std::fs::create_dir(pool.environment("e2")).expect("made");
        std::fs::write(pool.environment("e2").join("manifest.json"), "{").expect("written");
        assert!(Manifest::read(&pool, "e2").is_err());
        assert_eq!(all(&pool), [("e2".to_owned(), None)]);
    }
}
