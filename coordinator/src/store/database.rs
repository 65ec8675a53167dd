//! The store over a database: one writer at a time, snapshots beside it, and the fence.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use domain::ids::Fence;
use sqlx::{AnyConnection, AnyPool};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::Backend;
use super::dialect::Dialect;
use super::error::{Error, Result};
use super::sql::{Columns, Sealer, SqlTx, execute, failed, rows, values};
use super::tx::Transaction;
use crate::vault::Vault;

/// An open database that this coordinator leads.
pub(crate) struct Database {
    pub(super) dialect: Dialect,
    pub(super) writer: AnyPool,
    pub(super) readers: AnyPool,
    pub(super) turn: Arc<tokio::sync::Mutex<()>>,
    pub(super) fence: Fence,
    pub(super) seq: watch::Sender<u64>,
    pub(super) leading: watch::Sender<bool>,
    pub(super) hold: Hold,
    pub(super) sealer: Sealer,
}

/// What makes this coordinator the only one that writes.
pub(crate) enum Hold {
    /// The state directory's lock; released when the file is closed.
    File(Mutex<Option<std::fs::File>>),
    /// A lease in the database, renewed by a task.
    Lease(Lease),
}

/// A lease in the database.
pub(crate) struct Lease {
    pub(super) pool: AnyPool,
    /// Beyond so long since the last good renewal nothing is written.
    pub(super) trust: Duration,
    /// When the last good renewal was sent.
    pub(super) renewed: Arc<Mutex<Instant>>,
    pub(super) task: JoinHandle<()>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Lease {
    fn trusted(&self) -> bool {
        let renewed = self.renewed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        renewed.elapsed() < self.trust
    }
}

impl Database {
    /// Refuses when this coordinator leads no longer.
    async fn check(&self, connection: &mut AnyConnection) -> Result<()> {
        let Some(sql) = self.dialect.fence() else { return Ok(()) };
        if !rows(connection, "leader_epoch", sql, values![self.fence.epoch]).await?.is_empty() {
            return Ok(());
        }
        let leader = leader(connection).await.unwrap_or_default();
        Err(self.lost(leader))
    }

    fn lost(&self, leader: Option<String>) -> Error {
        self.leading.send_replace(false);
        Error::NotLeader { leader }
    }
}

/// Where the leader listens, if it said so.
pub(super) async fn leader(connection: &mut AnyConnection) -> Result<Option<String>> {
    let rows = rows(connection, "leader_epoch", "SELECT address FROM leader_epoch WHERE id = 1", values![]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let address = Columns::new("leader_epoch", &[], row).text("address")?;
    Ok(Some(address).filter(|address| !address.is_empty()))
}

#[async_trait]
impl Backend for Database {
    fn name(&self) -> &'static str {
        self.dialect.name()
    }

    async fn begin(&self) -> Result<Box<dyn Transaction>> {
        if !*self.leading.borrow() {
            return Err(Error::NotLeader { leader: None });
        }
        let turn = Arc::clone(&self.turn).lock_owned().await;
        if let Hold::Lease(lease) = &self.hold
            && !lease.trusted()
        {
            return Err(self.lost(None));
        }
        let mut began = self.writer.begin_with(self.dialect.begin()).await;
        if matches!(began, Err(sqlx::Error::InvalidSavePointStatement)) {
            // SQLite ends a transaction by itself when its disk is full, and the driver goes on as if it were in it.
            let stuck = self.writer.acquire().await.map_err(|error| failed("begin", error))?;
            if let Err(error) = stuck.close().await {
                tracing::debug!(%error, "the writer's connection is dropped");
            }
            began = self.writer.begin_with(self.dialect.begin()).await;
        }
        let mut transaction = began.map_err(|error| failed("begin", error))?;
        self.check(&mut transaction).await?;
        Ok(Box::new(SqlTx::new(transaction, Some(turn), Arc::clone(&self.sealer))))
    }

    async fn snapshot(&self) -> Result<Box<dyn Transaction>> {
        let began = self.readers.begin_with(self.dialect.snapshot()).await;
        let transaction = began.map_err(|error| failed("begin", error))?;
        Ok(Box::new(SqlTx::new(transaction, None, Arc::clone(&self.sealer))))
    }

    fn fence(&self) -> Fence {
        self.fence
    }

    fn seq(&self) -> &watch::Sender<u64> {
        &self.seq
    }

    fn leading(&self) -> watch::Receiver<bool> {
        self.leading.subscribe()
    }

    fn seal_with(&self, vault: Arc<Vault>) {
        // A store has one key file for as long as it is open.
        let _ = self.sealer.set(vault);
    }

    async fn close(&self) {
        let _turn = self.turn.lock().await;
        let led = self.leading.send_replace(false);
        match &self.hold {
            Hold::File(file) => {
                self.readers.close().await;
                if let Err(error) = super::sqlite::stopped_cleanly(&self.writer).await {
                    tracing::warn!(%error, "the database could not be marked as cleanly stopped; the next start checks it");
                }
                self.writer.close().await;
                file.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
            }
            Hold::Lease(lease) => {
                lease.task.abort();
                if led && let Err(error) = super::postgres::give_back(&lease.pool, self.fence.epoch).await {
                    tracing::warn!(%error, "the lease could not be given back; the next leader waits until it ends");
                }
                self.readers.close().await;
                self.writer.close().await;
                lease.pool.close().await;
            }
        }
    }
}

/// Raises the epoch and answers the fence, within the connection's transaction.
pub(super) async fn take_over(connection: &mut AnyConnection, holder: Uuid, address: &str) -> Result<Fence> {
    let sql = "UPDATE leader_epoch SET holder = $1, address = $2, epoch = epoch + 1 WHERE id = 1 RETURNING epoch";
    let found = rows(connection, "leader_epoch", sql, values![holder.to_string(), address]).await?;
    let row = found.first().ok_or_else(|| gone("leader_epoch", "1"))?;
    let epoch = Columns::new("leader_epoch", &[], row).number("epoch")?;
    // The first start makes the cluster: whoever comes second finds it.
    for (key, value) in [("incarnation", "1".to_owned()), ("incarnation_id", holder.to_string())] {
        let sql = "INSERT INTO meta (key, value) VALUES ($1, $2) ON CONFLICT DO NOTHING";
        execute(connection, "meta", sql, values![key, value]).await?;
    }
    Ok(Fence {
        incarnation: fact(connection, "incarnation").await?,
        incarnation_id: fact(connection, "incarnation_id").await?,
        epoch,
    })
}

async fn fact<T>(connection: &mut AnyConnection, key: &'static str) -> Result<T>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    let sql = "SELECT key, value FROM meta WHERE key = $1";
    let rows = rows(connection, "meta", sql, values![key]).await?;
    let row = rows.first().ok_or_else(|| gone("meta", key))?;
    Columns::new("meta", &["key"], row).parse("value")
}

/// Place of the last event.
pub(super) async fn last_seq(connection: &mut AnyConnection) -> Result<u64> {
    let rows = rows(connection, "ledger", "SELECT seq FROM ledger WHERE id = 1", values![]).await?;
    let row = rows.first().ok_or_else(|| gone("ledger", "1"))?;
    Columns::new("ledger", &[], row).number("seq")
}

fn gone(table: &'static str, key: &str) -> Error {
    Error::Corrupt { table, key: key.to_owned(), what: "the row is gone".to_owned() }
}

/// A random id for this start of a coordinator.
pub(super) fn random_id() -> Result<Uuid> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| Error::Unusable { what: format!("the system has no random numbers: {error}") })?;
    Ok(uuid::Builder::from_random_bytes(bytes).into_uuid())
}

/// The error about a file or folder.
pub(super) fn unusable(path: &std::path::Path, what: &str, error: impl std::fmt::Display) -> Error {
    Error::Unusable { what: format!("{what} {}: {error}", PathBuf::from(path).display()) }
}
