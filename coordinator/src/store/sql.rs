//! Transactions over SQL, the same for SQLite and PostgreSQL.

mod app;
mod artifact;
mod build;
mod chunk;
mod columns;
mod config;
mod environment;
mod event;
mod host;
mod idempotency;
mod log;
mod member;
mod release;
mod retention;
mod rollout;
mod run;
mod sealed;
mod secret;
mod seed;
mod seed_copy;
mod step;
mod target;
mod token;
mod value;

use async_trait::async_trait;
use sqlx::any::AnyRow;
use sqlx::{Any, AnyConnection};

use super::error::{Error, Result};
use super::tx::Transaction;

pub(crate) use columns::Columns;
pub(crate) use sealed::Sealer;
pub(crate) use value::{Value, values};

/// One transaction.
pub(crate) struct SqlTx {
    transaction: sqlx::Transaction<'static, Any>,
    /// Held until the end, so that writers take turns; none for a snapshot.
    turn: Option<tokio::sync::OwnedMutexGuard<()>>,
    /// A statement failed: PostgreSQL would answer a commit well and make no change.
    broken: Option<Error>,
    /// The highest `ledger.seq` given out.
    seq: Option<u64>,
    sealer: Sealer,
}

impl SqlTx {
    pub(crate) fn new(
        transaction: sqlx::Transaction<'static, Any>,
        turn: Option<tokio::sync::OwnedMutexGuard<()>>,
        sealer: Sealer,
    ) -> Self {
        Self { transaction, turn, broken: None, seq: None, sealer }
    }

    /// Runs a statement and answers how many rows it changed.
    async fn execute(&mut self, table: &'static str, sql: &'static str, values: Vec<Value>) -> Result<u64> {
        match execute(&mut self.transaction, table, sql, values).await {
            Ok(changed) => Ok(changed),
            Err(error) => Err(self.broke(error)),
        }
    }

    /// Runs an insert that does nothing on a conflict; `Exists` then.
    async fn insert(
        &mut self,
        table: &'static str,
        key: impl ToString + Send,
        sql: &'static str,
        values: Vec<Value>,
    ) -> Result<()> {
        match self.execute(table, sql, values).await? {
            0 => Err(Error::exists(table, key)),
            _ => Ok(()),
        }
    }

    /// Runs an update of a row whose version must be as expected; `Conflict` otherwise.
    async fn update(
        &mut self,
        table: &'static str,
        key: impl ToString + Send,
        sql: &'static str,
        values: Vec<Value>,
    ) -> Result<()> {
        match self.execute(table, sql, values).await? {
            0 => Err(Error::conflict(table, key)),
            _ => Ok(()),
        }
    }

    /// Runs a query.
    async fn rows(&mut self, table: &'static str, sql: &'static str, values: Vec<Value>) -> Result<Vec<AnyRow>> {
        match rows(&mut self.transaction, table, sql, values).await {
            Ok(rows) => Ok(rows),
            Err(error) => Err(self.broke(error)),
        }
    }

    /// Runs a query and reads each row.
    async fn list<T: FromRow>(&mut self, sql: &'static str, values: Vec<Value>) -> Result<Vec<T>> {
        let rows = self.rows(T::TABLE, sql, values).await?;
        rows.iter().map(|row| T::from_row(&Columns::new(T::TABLE, T::KEY, row))).collect()
    }

    /// Runs a query and reads its first row.
    async fn one<T: FromRow>(&mut self, sql: &'static str, values: Vec<Value>) -> Result<Option<T>> {
        let rows = self.rows(T::TABLE, sql, values).await?;
        rows.first().map(|row| T::from_row(&Columns::new(T::TABLE, T::KEY, row))).transpose()
    }

    fn broke(&mut self, error: Error) -> Error {
        self.broken.get_or_insert_with(|| error.clone());
        error
    }
}

/// A row with its own reader.
trait FromRow: Sized {
    /// Its table.
    const TABLE: &'static str;
    /// Columns that name it in errors.
    const KEY: &'static [&'static str];
    /// Reads it.
    fn from_row(row: &Columns<'_>) -> Result<Self>;
}

/// Runs a statement on a connection and answers how many rows it changed.
pub(crate) async fn execute(
    connection: &mut AnyConnection,
    table: &'static str,
    sql: &'static str,
    values: Vec<Value>,
) -> Result<u64> {
    let query = value::bind(table, sqlx::query(sql), values)?;
    let done = query.execute(connection).await.map_err(|error| failed(table, error))?;
    Ok(done.rows_affected())
}

/// Runs a query on a connection.
pub(crate) async fn rows(
    connection: &mut AnyConnection,
    table: &'static str,
    sql: &'static str,
    values: Vec<Value>,
) -> Result<Vec<AnyRow>> {
    let query = value::bind(table, sqlx::query(sql), values)?;
    query.fetch_all(connection).await.map_err(|error| failed(table, error))
}

/// What a driver's error means.
pub(crate) fn failed(table: &'static str, error: sqlx::Error) -> Error {
    match &error {
        sqlx::Error::Database(database) if database.is_unique_violation() => {
            Error::exists(table, database.constraint().unwrap_or("a unique key"))
        }
        sqlx::Error::Database(database) if database.code().is_some_and(|code| FULL.contains(&code.as_ref())) => {
            Error::Full { what: format!("{table}: {error}") }
        }
        _ => Error::Unavailable { what: format!("{table}: {error}") },
    }
}

/// A full disk: SQLite's own codes (the second for the index of its log), and PostgreSQL's.
const FULL: [&str; 3] = ["13", "4874", "53100"];

#[async_trait]
impl Transaction for SqlTx {
    async fn commit(self: Box<Self>) -> Result<Option<u64>> {
        let Self { transaction, turn, broken, seq, sealer: _ } = *self;
        let result = match broken {
            Some(error) => {
                // The rollback of a failed transaction has nothing to add.
                drop(transaction.rollback().await);
                Err(error)
            }
            None => transaction.commit().await.map(|()| seq).map_err(|error| failed("commit", error)),
        };
        drop(turn);
        result
    }

    async fn rollback(self: Box<Self>) {
        if let Err(error) = self.transaction.rollback().await {
            tracing::debug!(%error, "a rollback was not answered; the connection is dropped");
        }
    }
}

/// The version after an insert (0 given) or an update.
fn next_version(given: u64) -> u64 {
    given.saturating_add(1)
}
