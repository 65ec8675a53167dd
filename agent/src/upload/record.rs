//! What was uploaded: nothing else in the folder is ours to remove, and what is as it was need not come again.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::entry::Entry;
use crate::files;

/// Largest record in bytes.
const MAX_FILE: u64 = 64 << 20;
const NAME: &str = "upload.json";

/// An entry as it was written.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Written {
    /// As it was listed.
    pub entry: Entry,
    /// Size, and seconds and nanoseconds of the last change, of the file on this host; none: it is not written yet.
    pub seen: Option<(u64, i64, u64)>,
}

/// Everything that was uploaded, by path.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(super) struct Record {
    /// All of the owner's folder was there once.
    pub whole: bool,
    /// The entries.
    pub entries: BTreeMap<String, Written>,
}

impl Record {
    /// Reads the record of an environment; empty: there is none.
    ///
    /// # Errors
    /// It is there and cannot be read.
    pub fn read(home: &Path) -> io::Result<Self> {
        match files::read_limited(&home.join(NAME), MAX_FILE) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::other),
            Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(why) => Err(why),
        }
    }

    /// Writes it, and beside it a mark once everything was there.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn write(&self, home: &Path) -> io::Result<()> {
        files::write_atomic(&home.join(NAME), &serde_json::to_vec(self)?)?;
        if self.whole && !Self::is_whole(home) {
            files::write_atomic(&home.join("uploaded"), b"")?;
        }
        Ok(())
    }

    /// Whether everything was there once.
    pub fn is_whole(home: &Path) -> bool {
        home.join("uploaded").is_file()
    }
}
