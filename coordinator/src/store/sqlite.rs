//! Opening SQLite: the default, with nothing to install.

use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::{AnyConnection, AnyPool, ConnectOptions, Connection};
use tokio::sync::watch;

use super::database::{Database, Hold, last_seq, random_id, take_over, unusable};
use super::dialect::Dialect;
use super::error::{Error, Result};
use super::sql::{Columns, execute, failed, rows, values};
use super::{Store, schema};

/// Older libraries can lose committed pages in WAL mode.
const OLDEST: [u32; 3] = [3, 51, 3];
const READERS: u32 = 4;
const ACQUIRE: Duration = Duration::from_secs(30);

const WRITER: [&str; 7] = [
    "PRAGMA busy_timeout = 5000",
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA wal_autocheckpoint = 1000",
    "PRAGMA mmap_size = 0",
    // Nothing of a row that was changed or removed stays in the file: it may have held a secret.
    "PRAGMA secure_delete = ON",
];
const READER: [&str; 4] =
    ["PRAGMA busy_timeout = 5000", "PRAGMA wal_autocheckpoint = 0", "PRAGMA mmap_size = 0", "PRAGMA query_only = ON"];

impl Store {
    /// Opens or makes the database file `path`, with the lock file `lock` beside it. The epoch rises.
    ///
    /// # Errors
    /// Another coordinator has the lock, the folder is not writable, the SQLite library is too old, the schema too
    /// new, or the file is damaged (looked for after an unclean stop only).
    pub async fn sqlite(path: &Path) -> Result<Self> {
        sqlx::any::install_default_drivers();
        let path = std::path::absolute(path).map_err(|error| unusable(path, "cannot use", error))?;
        let lock = lock(&path).await?;
        library_is_new_enough().await?;
        let writer = pool(&path, 1, &WRITER).await?;
        schema::migrate(&writer, Dialect::Sqlite).await?;
        let mut connection = writer.acquire().await.map_err(|error| failed("open", error))?;
        check_after_unclean_stop(&mut connection, &path).await?;
        let holder = random_id()?;
        let mut transaction =
            connection.begin_with(Dialect::Sqlite.begin()).await.map_err(|error| failed("open", error))?;
        let fence = take_over(&mut transaction, holder, "").await?;
        set_clean_stop(&mut transaction, "0").await?;
        let seq = last_seq(&mut transaction).await?;
        transaction.commit().await.map_err(|error| failed("open", error))?;
        drop(connection);
        let readers = pool(&path, READERS, &READER).await?;
        Ok(Self {
            backend: Arc::new(Database {
                dialect: Dialect::Sqlite,
                writer,
                readers,
                turn: Arc::default(),
                fence,
                seq: watch::Sender::new(seq),
                leading: watch::Sender::new(true),
                hold: Hold::File(Mutex::new(Some(lock))),
                sealer: Arc::default(),
            }),
        })
    }
}

/// How often the lock is asked for. A program that its owner was starting when that was killed has it until it runs.
const TRIES: u32 = 50;
/// Between two of them.
const PAUSE: Duration = Duration::from_millis(20);

/// Takes the lock file beside the database.
async fn lock(path: &Path) -> Result<File> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(folder).map_err(|error| unusable(folder, "cannot make the folder", error))?;
    let lock = folder.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&lock);
    let file = file.map_err(|error| unusable(&lock, "cannot open the lock", error))?;
    for _ in 0..TRIES {
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) => tokio::time::sleep(PAUSE).await,
            Err(error) => return Err(unusable(&lock, "cannot lock", error)),
        }
    }
    Err(Error::Locked { lock })
}

async fn pool(path: &Path, size: u32, pragmas: &'static [&'static str]) -> Result<AnyPool> {
    let options: AnyConnectOptions = url(path).parse().map_err(|error| unusable(path, "cannot use", error))?;
    let options = options.disable_statement_logging();
    AnyPoolOptions::new()
        .max_connections(size)
        .acquire_timeout(ACQUIRE)
        .idle_timeout(None)
        .max_lifetime(None)
        .after_connect(move |connection, _| {
            Box::pin(async move {
                for pragma in pragmas {
                    sqlx::query(*pragma).execute(&mut *connection).await?;
                }
                Ok(())
            })
        })
        .connect_with(options)
        .await
        .map_err(|error| unusable(path, "cannot open the database", error))
}

/// The path as a URL: everything that has a meaning there is escaped.
fn url(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt as _;
    let mut url = String::from("sqlite://");
    for byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/-_.~".contains(byte) {
            url.push(char::from(*byte));
        } else {
            url.push_str(&format!("%{byte:02X}"));
        }
    }
    url + "?mode=rwc"
}

async fn library_is_new_enough() -> Result<()> {
    let connection = AnyConnection::connect("sqlite::memory:").await;
    let mut connection = connection.map_err(|error| failed("open", error))?;
    let rows = rows(&mut connection, "sqlite", "SELECT sqlite_version() AS version", values![]).await?;
    let version = rows.first().map(|row| Columns::new("sqlite", &[], row).text("version"));
    check_version(&version.transpose()?.unwrap_or_default())
}

/// Refuses a library older than [`OLDEST`].
fn check_version(version: &str) -> Result<()> {
    let parts: Option<Vec<u32>> = version.split('.').map(|part| part.parse().ok()).collect();
    match parts {
        Some(parts) if parts.as_slice() >= OLDEST.as_slice() => Ok(()),
        _ => Err(Error::SqliteTooOld { found: version.to_owned() }),
    }
}

/// A full check costs a read of the whole file: only after a stop that was not clean.
async fn check_after_unclean_stop(connection: &mut AnyConnection, path: &Path) -> Result<()> {
    let sql = "SELECT value FROM meta WHERE key = 'clean_stop' AND value = '0'";
    if rows(connection, "meta", sql, values![]).await?.is_empty() {
        return Ok(());
    }
    let rows = rows(connection, "quick_check", "PRAGMA quick_check(1)", values![]).await?;
    let first = rows.first().map(|row| Columns::new("quick_check", &[], row).text("quick_check")).transpose()?;
    match first.as_deref() {
        Some("ok") => Ok(()),
        other => Err(Error::Damaged { path: path.to_owned(), what: other.unwrap_or("no answer").to_owned() }),
    }
}

async fn set_clean_stop(connection: &mut AnyConnection, value: &str) -> Result<()> {
    let sql = "INSERT INTO meta (key, value) VALUES ('clean_stop', $1) \
               ON CONFLICT (key) DO UPDATE SET value = excluded.value";
    execute(connection, "meta", sql, values![value]).await?;
    Ok(())
}

/// Notes that the next start need not check the file.
pub(super) async fn stopped_cleanly(writer: &AnyPool) -> Result<()> {
    let mut connection = writer.acquire().await.map_err(|error| failed("close", error))?;
    set_clean_stop(&mut connection, "1").await?;
    rows(&mut connection, "close", "PRAGMA wal_checkpoint(TRUNCATE)", values![]).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_libraries_are_refused() {
        for old in ["3.51.2", "3.45.1", "3.9.99", "", "x"] {
            assert_eq!(check_version(old).map_err(|error| error.code()), Err("E_SQLITE_TOO_OLD"), "{old:?}");
        }
        for new in ["3.51.3", "3.52.0", "4.0.0"] {
            assert!(check_version(new).is_ok(), "{new:?}");
        }
    }

    #[test]
    fn paths_are_escaped() {
        assert_eq!(url(Path::new("/a b/x?#%.db")), "sqlite:///a%20b/x%3F%23%25.db?mode=rwc");
    }
}
