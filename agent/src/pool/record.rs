//! The record of the pool in the agent's state folder, and its counterpart in the pool. Together they tell a pool that
//! is not mounted from one that is empty.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::backend::Kind;
use super::error::{Error, Result};
use crate::files;

/// Largest record in bytes.
const MAX_FILE: u64 = 64 << 10;

/// Which pool the agent has made or taken.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Random; the same stands in the pool.
    pub id: String,
    /// The backend's word.
    pub backend: String,
    /// Where it lies.
    pub root: PathBuf,
    /// It is a file system in the loop file beside this record.
    pub image: bool,
    /// Why it became this.
    pub why: String,
}

#[derive(Serialize, Deserialize)]
struct Mark {
    id: String,
}

impl Record {
    /// Where it is written.
    #[must_use]
    pub fn path(state_dir: &Path) -> PathBuf {
        state_dir.join("pool.json")
    }

    /// Reads it; none: there was no pool yet.
    ///
    /// # Errors
    /// It is there and cannot be read.
    pub fn read(state_dir: &Path) -> Result<Option<Self>> {
        let path = Self::path(state_dir);
        let record: Option<Self> = read(&path).map_err(Error::at("read", &path))?;
        let known = |record: &Self| Kind::from_word(&record.backend).is_some();
        if record.as_ref().is_some_and(|record| !known(record)) {
            return Err(Error::at("read", &path)(io::Error::other("it names a backend that this version has not")));
        }
        Ok(record)
    }

    /// Writes it; durable when this returns.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn write(&self, state_dir: &Path) -> Result<()> {
        let path = Self::path(state_dir);
        let text = serde_json::to_vec_pretty(self).map_err(io::Error::other);
        text.and_then(|text| files::write_atomic(&path, &text)).map_err(Error::at("write", &path))
    }

    /// The backend.
    #[must_use]
    pub fn kind(&self) -> Kind {
        Kind::from_word(&self.backend).unwrap_or(Kind::Copy)
    }

    /// Takes hold of the pool that the record is about, until the answer is dropped.
    ///
    /// # Errors
    /// `E_POOL_MISSING` if another is there, or none; `E_POOL_LOCKED`.
    pub fn hold(&self, state_dir: &Path) -> Result<Hold> {
        let missing = |why: String| Error::Missing { root: self.root.clone(), why, record: Record::path(state_dir) };
        match mark(&self.root).map_err(|why| missing(format!("its mark cannot be read: {why}")))? {
            None => Err(missing("it is not mounted: the pool's mark is not in it".to_owned())),
            Some(id) if id != self.id => Err(missing("it is another pool".to_owned())),
            Some(_) => Hold::take(&self.root),
        }
    }
}

/// A pool that is this agent's while this is held.
#[derive(Debug)]
pub struct Hold {
    _file: File,
}

impl Hold {
    fn take(root: &Path) -> Result<Self> {
        let path = mark_path(root);
        let file = File::open(&path).map_err(Error::at("open", &path))?;
        match files::lock(&file) {
            Ok(true) => Ok(Self { _file: file }),
            Ok(false) => Err(Error::Locked { root: root.to_owned() }),
            Err(why) => Err(Error::at("lock", &path)(why)),
        }
    }
}

pub(super) fn mark_path(root: &Path) -> PathBuf {
    root.join(".muster-pool")
}

/// The id that stands in a pool; none: there is no pool here.
///
/// # Errors
/// It cannot be read.
pub fn mark(root: &Path) -> io::Result<Option<String>> {
    Ok(read::<Mark>(&mark_path(root))?.map(|mark| mark.id))
}

/// Makes a folder a pool, or answers the id of the pool that is there.
///
/// # Errors
/// The disk refuses.
pub fn set_mark(root: &Path) -> Result<String> {
    let path = mark_path(root);
    let told = |why| Error::at("write", &path)(why);
    if let Some(id) = mark(root).map_err(told)? {
        return Ok(id);
    }
    let id = hex::encode(crate::clock::random::<16>().map_err(told)?);
    let text = serde_json::to_vec(&Mark { id: id.clone() }).map_err(io::Error::other);
    text.and_then(|text| files::write_atomic(&path, &text)).map_err(told)?;
    Ok(id)
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match files::read_limited(path, MAX_FILE) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes).map_err(io::Error::other)?)),
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(why) => Err(why),
    }
}
