//! Why the pool cannot do something.

use std::io;
use std::path::{Path, PathBuf};

/// Why the pool cannot do something. The text has no code in it; see [`Error::code`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system says no.
    #[error("{what}: {why}")]
    Io {
        /// What was tried, with its path.
        what: String,
        /// The operating system's answer.
        why: io::Error,
    },
    /// Too little room for anything new.
    #[error(
        "the pool {root} has {available} MiB left, and {floor} MiB are kept free; take environments down \
         (`muster env list`), or give it more room on its disk",
        root = root.display(), available = available >> 20, floor = floor >> 20
    )]
    Full {
        /// The pool.
        root: PathBuf,
        /// Bytes that are left.
        available: u64,
        /// Bytes that are kept free.
        floor: u64,
    },
    /// The disk became full half-way; nothing of it was kept.
    #[error("the disk became full: {what}; nothing of it was kept; take environments down, or give the pool more room")]
    Ended {
        /// What was tried, with its path.
        what: String,
    },
    /// The pool that was made is not there.
    #[error(
        "{root} is not this agent's pool ({why}); mount its disk again, nothing is made or started until then; if the \
         data is lost for good, remove {record}",
        root = root.display(), record = record.display()
    )]
    Missing {
        /// Where the pool should be.
        root: PathBuf,
        /// What was found instead.
        why: String,
        /// The file that says that there is a pool.
        record: PathBuf,
    },
    /// The setting names another pool than the one that holds data.
    #[error(
        "`pool` says {wanted}, and this agent's data lies in {held}; set it back, or take its environments, seeds and \
         snapshots down first"
    )]
    Changed {
        /// What the setting says.
        wanted: String,
        /// What holds data.
        held: String,
    },
    /// What the setting asks for cannot be had there.
    #[error("{kind} cannot be used at {root}: {why}; use another `pool`, or `auto`", root = root.display())]
    Unsuitable {
        /// The backend.
        kind: &'static str,
        /// Where.
        root: PathBuf,
        /// What was found.
        why: String,
    },
    /// Another agent uses the pool.
    #[error("another agent uses the pool {root}; give each agent its own", root = root.display())]
    Locked {
        /// The pool.
        root: PathBuf,
    },
    /// There is something at this path already.
    #[error("{path} is there already", path = path.display())]
    Exists {
        /// The path.
        path: PathBuf,
    },
    /// A path that is not in the pool.
    #[error("{path} is not in the pool {root}", path = path.display(), root = root.display())]
    Outside {
        /// The path.
        path: PathBuf,
        /// The pool.
        root: PathBuf,
    },
    /// More files than the pool takes in one tree.
    #[error("{path} has more than {limit} files and folders", path = path.display())]
    TooMany {
        /// The tree.
        path: PathBuf,
        /// Most entries of one tree.
        limit: u64,
    },
    /// A program that the pool needs failed.
    #[error("{program} failed: {why}")]
    Tool {
        /// Its name.
        program: String,
        /// Its own words.
        why: String,
    },
    /// The pool is in use.
    #[error("{root} is in use ({why}); stop the agent and its containers first", root = root.display())]
    Busy {
        /// The pool.
        root: PathBuf,
        /// By whom.
        why: String,
    },
}

/// What the pool answers.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The stable reason code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "E_POOL",
            Self::Full { .. } | Self::Ended { .. } => "E_POOL_FULL",
            Self::Missing { .. } => "E_POOL_MISSING",
            Self::Changed { .. } => "E_POOL_CHANGED",
            Self::Unsuitable { .. } => "E_POOL_UNSUITABLE",
            Self::Locked { .. } => "E_POOL_LOCKED",
            Self::Exists { .. } => "E_POOL_EXISTS",
            Self::Outside { .. } => "E_POOL_OUTSIDE",
            Self::TooMany { .. } => "E_POOL_TOO_MANY",
            Self::Tool { .. } => "E_POOL_TOOL",
            Self::Busy { .. } => "E_POOL_BUSY",
        }
    }

    /// Trying again may help without anybody changing settings.
    #[must_use]
    pub fn passes(&self) -> bool {
        matches!(self, Self::Io { .. } | Self::Full { .. } | Self::Ended { .. } | Self::Tool { .. } | Self::Busy { .. })
    }

    /// What `what` ran into at `path`; a full disk is told as such.
    pub fn at(what: &str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let what = format!("{what} {}", path.display());
        move |why| {
            let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
            if full.contains(&why.kind()) { Self::Ended { what } } else { Self::Io { what, why } }
        }
    }

    /// The same for what rustix answers.
    pub(super) fn errno(what: &str, path: &Path) -> impl FnOnce(rustix::io::Errno) -> Self {
        let told = Self::at(what, path);
        move |why| told(why.into())
    }
}
