//! What can go wrong in the store.

use std::path::PathBuf;

/// Why the store did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The database did not answer, or its answer to a commit was lost: the change may or may not have been made.
    #[error("the store did not answer: {what}; whether the change was made is unknown, look before trying again")]
    Unavailable {
        /// What the database or the driver said.
        what: String,
    },
    /// The disk is full; nothing was changed.
    #[error(
        "the store has no room left: {what}; nothing was changed; make room on the disk of the coordinator's state_dir, or of its PostgreSQL"
    )]
    Full {
        /// What the database or the driver said.
        what: String,
    },
    /// Another change came first: read again and decide again.
    #[error("{table} {key:?} was changed by somebody else in between; read it again and retry")]
    Conflict {
        /// The table.
        table: &'static str,
        /// The row's key.
        key: String,
    },
    /// A row with this key, name or number is there already.
    #[error("{table} {key:?} exists already")]
    Exists {
        /// The table.
        table: &'static str,
        /// The key, name or number.
        key: String,
    },
    /// A stored row cannot be read: a newer binary wrote it, or somebody edited the database.
    #[error("{table} {key:?} cannot be read: {what}; restore a backup, or run the newer binary that wrote it")]
    Corrupt {
        /// The table.
        table: &'static str,
        /// The row's key.
        key: String,
        /// What is wrong.
        what: String,
    },
    /// A value cannot be stored, for example a number above 2^63.
    #[error("{table} {key:?} cannot be stored: {what}")]
    Unstorable {
        /// The table.
        table: &'static str,
        /// The row's key.
        key: String,
        /// What is wrong.
        what: String,
    },
    /// This coordinator does not lead, or leads no longer.
    #[error("this coordinator does not lead{}; call the one that does", .leader.as_deref().map(|address| format!(" ({address} does)")).unwrap_or_default())]
    NotLeader {
        /// Where the leader listens, if known.
        leader: Option<String>,
    },
    /// Another process holds the state directory.
    #[error("{} is held by another coordinator; stop that one, or use another state directory", .lock.display())]
    Locked {
        /// The lock file.
        lock: PathBuf,
    },
    /// The SQLite library can lose committed pages in WAL mode.
    #[error(
        "the SQLite library is {found}, and before 3.51.3 it can lose committed data; install a build with its own library"
    )]
    SqliteTooOld {
        /// The library's version.
        found: String,
    },
    /// A newer binary has changed the schema in a way this one cannot read.
    #[error(
        "the store's schema needs a binary that knows schema {min_reader}, this one knows {ours}; install that version or a newer one"
    )]
    SchemaTooNew {
        /// The oldest schema a reader must know.
        min_reader: u32,
        /// The newest this binary knows.
        ours: u32,
    },
    /// The schema could not be brought up to date.
    #[error("the store's schema could not be brought up to date: {what}")]
    Migration {
        /// What failed.
        what: String,
    },
    /// The database file is damaged.
    #[error("the database {} is damaged: {what}; restore a backup", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the check found.
        what: String,
    },
    /// The state directory or the address of the database is not usable.
    #[error("{what}")]
    Unusable {
        /// What, where, and what to do.
        what: String,
    },
}

impl Error {
    /// The stable reason code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unavailable { .. } => "E_STORE_UNAVAILABLE",
            Self::Full { .. } => "E_STORE_FULL",
            Self::Conflict { .. } => "E_STORE_CONFLICT",
            Self::Exists { .. } => "E_STORE_EXISTS",
            Self::Corrupt { .. } => "E_STORE_CORRUPT",
            Self::Unstorable { .. } => "E_STORE_VALUE",
            Self::NotLeader { .. } => "E_NOT_LEADER",
            Self::Locked { .. } => "E_STATE_LOCKED",
            Self::SqliteTooOld { .. } => "E_SQLITE_TOO_OLD",
            Self::SchemaTooNew { .. } => "E_SCHEMA_TOO_NEW",
            Self::Migration { .. } => "E_STORE_MIGRATION",
            Self::Damaged { .. } => "E_STORE_DAMAGED",
            Self::Unusable { .. } => "E_STORE_UNUSABLE",
        }
    }

    pub(crate) fn conflict(table: &'static str, key: impl ToString) -> Self {
        Self::Conflict { table, key: key.to_string() }
    }

    pub(crate) fn exists(table: &'static str, key: impl ToString) -> Self {
        Self::Exists { table, key: key.to_string() }
    }
}

/// What a store's method returns.
pub type Result<T> = std::result::Result<T, Error>;
