//! What the agent remembers over restarts: a small SQLite file. If it is lost, the agent goes on with what it finds
//! on the engine and in manifests, and says so.

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqliteLockingMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, Row as _};

use crate::files;

pub mod environments;
pub mod grants;
pub mod results;
pub mod targets;

/// Each version only adds, so that the binary before it runs on the new file too.
const MIGRATIONS: [&str; 1] = ["
    CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
    CREATE TABLE environments (
        id TEXT PRIMARY KEY, generation INTEGER NOT NULL, message BLOB NOT NULL,
        folder TEXT, device INTEGER, inode INTEGER, images TEXT NOT NULL, gone INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE TABLE targets (target TEXT PRIMARY KEY, slot BLOB NOT NULL, retain INTEGER NOT NULL) STRICT;
    CREATE TABLE releases (id TEXT PRIMARY KEY, target TEXT NOT NULL, number INTEGER NOT NULL, message BLOB NOT NULL) STRICT;
    CREATE TABLE results (number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, message BLOB NOT NULL) STRICT;
    CREATE TABLE grants (
        hash TEXT PRIMARY KEY, path TEXT NOT NULL, device INTEGER NOT NULL, inode INTEGER NOT NULL,
        uid INTEGER NOT NULL, expires_at INTEGER NOT NULL, environment TEXT
    ) STRICT;
"];

/// Why the state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// SQLite says no.
    #[error("E_STATE: {0}")]
    Sql(sqlx::Error),
    /// A file operation failed.
    #[error("E_STATE: {0}")]
    Io(std::io::Error),
    /// Something stored cannot be read.
    #[error("E_STATE: {0} cannot be read")]
    Content(&'static str),
    /// The disk is full; nothing was changed.
    #[error("E_STATE_FULL: the disk of the agent's state_dir is full; make room there, then it goes on by itself")]
    Full,
}

/// SQLite's code for a full disk.
const FULL: &str = "13";

impl Error {
    /// The stable reason code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        if matches!(self, Self::Full) { "E_STATE_FULL" } else { "E_STATE" }
    }
}

impl From<sqlx::Error> for Error {
    fn from(why: sqlx::Error) -> Self {
        match &why {
            sqlx::Error::Database(database) if database.code().as_deref() == Some(FULL) => Self::Full,
            _ => Self::Sql(why),
        }
    }
}

impl From<std::io::Error> for Error {
    fn from(why: std::io::Error) -> Self {
        if why.kind() == std::io::ErrorKind::StorageFull { Self::Full } else { Self::Io(why) }
    }
}

/// Result of a call of the state.
pub type Result<T> = std::result::Result<T, Error>;

/// The agent's memory. Clones share it; every write is durable when it returns.
#[derive(Clone, Debug)]
pub struct State {
    pool: SqlitePool,
    lost: bool,
}

impl State {
    /// Opens the state in `folder`, or makes it. A file that cannot be read is moved aside and begun anew;
    /// `expected` says that there should be one.
    ///
    /// # Errors
    /// The disk refuses, or another agent has it open.
    pub async fn open(folder: &Path, expected: bool) -> Result<Self> {
        files::private_dir(folder)?;
        let path = folder.join("state.db");
        let existed = path.exists();
        match open(&path).await {
            Ok(pool) => Ok(Self { pool, lost: expected && !existed }),
            Err(why) if is_damage(&why) => {
                let aside = aside(&path)?;
                tracing::error!(%why, aside = %aside.display(), "the state file is damaged and was moved aside");
                Ok(Self { pool: open(&path).await?, lost: true })
            }
            Err(why) => Err(why.into()),
        }
    }

    /// Closes the file. Calls after it fail.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// The state was lost and begun anew.
    #[must_use]
    pub fn lost(&self) -> bool {
        self.lost
    }

    /// A remembered text.
    ///
    /// # Errors
    /// SQLite says no.
    pub async fn meta(&self, name: &str) -> Result<Option<String>> {
        let row = sqlx::query("SELECT value FROM meta WHERE name = $1").bind(name).fetch_optional(&self.pool).await?;
        Ok(row.map(|row| row.get(0)))
    }

    /// Remembers a text.
    ///
    /// # Errors
    /// SQLite says no.
    pub async fn set_meta(&self, name: &str, value: &str) -> Result<()> {
        sqlx::query(
            "INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        )
        .bind(name)
        .bind(value)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Forgets a remembered text.
    ///
    /// # Errors
    /// SQLite says no.
    pub async fn forget_meta(&self, name: &str) -> Result<()> {
        sqlx::query("DELETE FROM meta WHERE name = $1").bind(name).execute(&self.pool).await?;
        Ok(())
    }

    /// Adds one to a remembered number and answers it. The first is 1, or the wall clock's seconds when the state was
    /// lost, so that the count never falls behind what others have seen.
    ///
    /// # Errors
    /// SQLite says no.
    pub async fn count(&self, name: &str) -> Result<u64> {
        let lost = if self.lost { crate::clock::now().0 / 1_000_000 } else { 0 };
        let begin = || u64::try_from(lost).unwrap_or(0);
        let before = self.meta(name).await?.and_then(|text| text.parse().ok()).unwrap_or_else(begin);
        self.set_meta(name, &(before + 1).to_string()).await?;
        Ok(before + 1)
    }
}

async fn open(path: &Path) -> std::result::Result<SqlitePool, sqlx::Error> {
    // It holds settings of environments: nobody else reads it, wherever it lies. SQLite's other files follow it.
    std::fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    let url = format!("sqlite://{}", path.display());
    let options = SqliteConnectOptions::from_str(&url)?
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        // One process only; without the shared index that others would need.
        .locking_mode(SqliteLockingMode::Exclusive)
        .busy_timeout(Duration::from_secs(2))
        .log_statements(tracing::log::LevelFilter::Trace)
        .statement_cache_capacity(32);
    let pool = SqlitePoolOptions::new()
        .max_connections(1)
        .min_connections(1)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        .connect_with(options)
        .await?;
    migrate(&pool).await?;
    Ok(pool)
}

async fn migrate(pool: &SqlitePool) -> std::result::Result<(), sqlx::Error> {
    let check: String = sqlx::query("PRAGMA quick_check(1)").fetch_one(pool).await?.get(0);
    if check != "ok" {
        return Err(sqlx::Error::Protocol(format!("malformed: {check}")));
    }
    let version: i64 = sqlx::query("PRAGMA user_version").fetch_one(pool).await?.get(0);
    let done = usize::try_from(version).unwrap_or(0);
    for (index, migration) in MIGRATIONS.iter().enumerate().skip(done) {
        let mut transaction = pool.begin().await?;
        sqlx::raw_sql(*migration).execute(&mut *transaction).await?;
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!("PRAGMA user_version = {}", index + 1)))
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
    }
    Ok(())
}

fn is_damage(why: &sqlx::Error) -> bool {
    let text = why.to_string();
    ["malformed", "not a database", "corrupt"].iter().any(|word| text.contains(word))
}

fn aside(path: &Path) -> std::io::Result<PathBuf> {
    let to = path.with_extension(format!("db.damaged-{}", crate::clock::now().0));
    std::fs::rename(path, &to)?;
    for tail in ["-wal", "-shm"] {
        let mut beside = path.as_os_str().to_owned();
        beside.push(tail);
        let _ = std::fs::remove_file(PathBuf::from(beside));
    }
    Ok(to)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// A state in a folder that goes away with the returned guard.
    pub(crate) async fn fresh() -> (State, tempfile::TempDir) {
        let folder = tempfile::tempdir().expect("a folder");
        let state = State::open(folder.path(), false).await.expect("opened");
        (state, folder)
    }

    #[tokio::test]
    async fn what_is_remembered_survives_reopening() {
        let (state, folder) = fresh().await;
        state.set_meta("fence", "1").await.expect("stored");
        assert_eq!(state.count("run").await.expect("counted"), 1);
        state.close().await;
        let state = State::open(folder.path(), true).await.expect("opened");
        assert!(!state.lost());
        assert_eq!(state.meta("fence").await.expect("read").as_deref(), Some("1"));
        assert_eq!(state.count("run").await.expect("counted"), 2);
    }

    #[tokio::test]
    async fn a_damaged_or_missing_file_is_told_as_lost_and_begun_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("state.db"), vec![b'x'; 8192]).expect("written");
        let state = State::open(folder.path(), true).await.expect("begun anew");
        assert!(state.lost());
        state.set_meta("a", "b").await.expect("usable");
        for file in ["state.db", "state.db-wal"] {
            let mode = std::fs::metadata(folder.path().join(file)).expect("there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
        let aside = std::fs::read_dir(folder.path()).expect("listed").flatten();
        assert!(aside.into_iter().any(|file| file.file_name().to_string_lossy().contains("damaged")));
        let empty = tempfile::tempdir().expect("a folder");
        assert!(State::open(empty.path(), true).await.expect("made").lost());
        assert!(!State::open(&empty.path().join("first"), false).await.expect("made").lost());
    }
}
