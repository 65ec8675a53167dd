//! Where a case runs: an empty store that can be opened again.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::super::testing::PostgresServer;
use super::super::{Leadership, Memory, NoFaults, Store};
use crate::vault::Vault;

/// An empty store.
pub(super) enum Bed {
    Memory(Memory),
    Sqlite(tempfile::TempDir),
    /// A schema of its own in the server's one database: much quicker to make than a database.
    Postgres {
        url: String,
        server: Arc<PostgresServer>,
        schema: String,
    },
}

static SCHEMAS: AtomicU32 = AtomicU32::new(1);

impl Bed {
    pub(super) fn memory() -> Self {
        Self::Memory(Memory::new(Arc::new(NoFaults)))
    }

    pub(super) fn sqlite() -> Self {
        Self::Sqlite(tempfile::tempdir().unwrap())
    }

    pub(super) fn postgres(server: &Arc<PostgresServer>) -> Self {
        let schema = format!("bed{}", SCHEMAS.fetch_add(1, Ordering::Relaxed));
        server.sql("postgres", &format!("CREATE SCHEMA {schema}")).unwrap();
        let url = format!("{}&options[search_path]={schema}", server.url("postgres"));
        Self::Postgres { url, server: Arc::clone(server), schema }
    }

    /// Opens it, as a coordinator that starts does.
    pub(super) async fn open(&self) -> Store {
        self.open_with(&[7; 32]).await
    }

    /// The same with this key.
    pub(super) async fn open_with(&self, key: &[u8; 32]) -> Store {
        let store = match self {
            Self::Memory(memory) => memory.open().await,
            Self::Sqlite(_) => Store::sqlite(&self.file()).await.unwrap(),
            Self::Postgres { url, .. } => Store::postgres(url, &leadership("one")).await.unwrap(),
        };
        store.seal_with(Arc::new(Vault::new(key)));
        store
    }

    /// The database file of an SQLite bed.
    pub(super) fn file(&self) -> PathBuf {
        match self {
            Self::Sqlite(folder) => folder.path().join("state/muster.db"),
            _ => panic!("not an SQLite bed"),
        }
    }

    /// Runs a statement beside the store, as somebody who edits the database does.
    pub(super) async fn sql(&self, statement: &str) {
        match self {
            Self::Memory(_) => panic!("memory has no SQL"),
            Self::Sqlite(_) => {
                use sqlx::{AssertSqlSafe, Connection as _};
                let url = format!("sqlite://{}", self.file().display());
                let mut connection = sqlx::AnyConnection::connect(&url).await.unwrap();
                sqlx::query(AssertSqlSafe(statement)).execute(&mut connection).await.unwrap();
                connection.close().await.unwrap();
            }
            Self::Postgres { server, schema, .. } => {
                server.sql("postgres", &format!("SET search_path TO {schema}; {statement}")).unwrap();
            }
        }
    }
}

/// Long enough that no renewal falls into a test, short enough to end one that hangs.
pub(super) fn leadership(address: &str) -> Leadership {
    Leadership { address: address.to_owned(), lease: Duration::from_secs(60), wait: Some(Duration::from_secs(20)) }
}
