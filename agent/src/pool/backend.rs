//! What every way to keep the pool's data does the same.

use std::fmt;
use std::path::Path;

use super::error::Result;

/// A way to keep data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Files share their extents until one is written (XFS, btrfs).
    Reflink,
    /// Every folder is a btrfs subvolume; a clone is a snapshot of it.
    Btrfs,
    /// Every clone is a full copy.
    Copy,
}

impl Kind {
    /// The word of settings and figures.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Reflink => "reflink",
            Self::Btrfs => "btrfs",
            Self::Copy => "copy",
        }
    }

    /// The kind with this word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Reflink, Self::Btrfs, Self::Copy].into_iter().find(|kind| kind.word() == word)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What a clone holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cloned {
    /// Files, links included. Zero where the file system did not have to look at them (a snapshot).
    pub files: u64,
    /// Folders; zero as above.
    pub folders: u64,
    /// Sockets, pipes and devices, which were left out: they mean nothing in another place.
    pub skipped: u64,
}

/// Bytes of a folder's files. Names, owners and other such small things are not counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// What removing the folder would free.
    pub own_bytes: u64,
    /// What others hold too: the seed, or other clones of it.
    pub shared_bytes: u64,
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.own_bytes = self.own_bytes.saturating_add(other.own_bytes);
        self.shared_bytes = self.shared_bytes.saturating_add(other.shared_bytes);
    }
}

/// A way to keep data. All calls block: [`super::Pool`] has the same for tasks.
///
/// Paths are absolute. What is made, cloned or removed must lie in the pool; what is cloned from may lie elsewhere
/// where the backend can take it from there.
pub trait Backend: fmt::Debug + Send + Sync {
    /// Which.
    fn kind(&self) -> Kind;

    /// Finds out by trying whether it works here.
    ///
    /// # Errors
    /// It does not.
    fn probe(&self) -> Result<()>;

    /// Makes an empty folder that can be cloned, and private ones above it.
    ///
    /// # Errors
    /// `E_POOL_EXISTS`, or the disk refuses.
    fn create(&self, folder: &Path) -> Result<()>;

    /// Makes `to` a clone of the folder `from`: content, holes, modes, owners, times, extended attributes, symbolic
    /// and hard links. It is there whole and durable, or not at all, also after a crash or a full disk. What runs
    /// in `from` must be stopped or frozen: except with snapshots, files are taken one after the other.
    ///
    /// # Errors
    /// `E_POOL_EXISTS`, `E_POOL_FULL`, or the disk refuses; nothing is left then.
    fn clone_tree(&self, from: &Path, to: &Path) -> Result<Cloned>;

    /// Removes a folder; one that is not there is no error. It is gone at once, and after a crash the rest of it is
    /// swept at the next start. Its bytes are free soon after, but for files that somebody holds open.
    ///
    /// # Errors
    /// The disk refuses.
    fn remove(&self, folder: &Path) -> Result<()>;

    /// Removes what calls that never ended have left, and answers how many there were. Only while nothing else is
    /// made or removed in the pool.
    ///
    /// # Errors
    /// The disk refuses.
    fn sweep(&self) -> Result<u64>;

    /// Bytes of a folder. What was written in the last seconds may be missing; see [`Backend::sync`].
    ///
    /// # Errors
    /// It cannot be read.
    fn usage(&self, folder: &Path) -> Result<Usage>;

    /// Makes everything written to the folder durable.
    ///
    /// # Errors
    /// The disk refuses.
    fn sync(&self, folder: &Path) -> Result<()>;
}
