//! Where everything is kept: the only SQL of the coordinator.
//!
//! [`Store::write`] runs one closure at a time per coordinator: it sees all earlier commits, is all-or-nothing, and
//! awaits nothing but the store. [`Store::read`] sees one instant. Three backends pass the same tests: SQLite,
//! PostgreSQL, and one in memory for the simulator.
//!
//! ```text
//! let seq = store.write(|tx| Box::pin(async move {
//!     let mut host = tx.host_get(id).await?.ok_or(Error::NotFound)?;
//!     host.host.draining = true;
//!     tx.host_put(&host).await?;
//!     Ok::<_, Error>(tx.event_append(&host.project, &event).await?)
//! })).await?;
//! ```

pub mod app;
pub mod artifact;
pub mod build;
pub mod chunk;
pub mod config;
mod database;
mod dialect;
mod document;
pub mod environment;
pub mod error;
pub mod event;
pub mod host;
pub mod idempotency;
pub mod log;
pub mod member;
pub mod memory;
pub mod meta;
mod postgres;
pub mod release;
pub mod retention;
pub mod rollout;
pub mod run;
mod schema;
pub mod secret;
pub mod seed;
pub mod seed_copy;
mod sql;
mod sqlite;
pub mod target;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
pub mod token;
pub mod tx;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use domain::ids::Fence;
use tokio::sync::watch;

pub use error::{Error, Result};
pub use memory::{Fault, Faults, Memory, NoFaults};
pub use postgres::Leadership;
pub use tx::{Tx, View};

use crate::vault::Vault;
use tx::Transaction;

/// The project that everything belongs to until somebody needs more.
pub const PROJECT: &str = "default";

/// What a closure given to [`Store::write`] or [`Store::read`] returns.
pub type Work<'t, T, E> = Pin<Box<dyn Future<Output = std::result::Result<T, E>> + Send + 't>>;

/// Handle of the store; clones share it.
#[derive(Clone)]
pub struct Store {
    backend: Arc<dyn Backend>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({})", self.backend.name())
    }
}

/// What is behind a [`Store`].
#[async_trait]
pub(crate) trait Backend: Send + Sync {
    /// For people.
    fn name(&self) -> &'static str;
    /// Waits for its turn and begins a transaction that may write.
    async fn begin(&self) -> Result<Box<dyn Transaction>>;
    /// Begins a snapshot.
    async fn snapshot(&self) -> Result<Box<dyn Transaction>>;
    /// Who orders.
    fn fence(&self) -> Fence;
    /// The last committed `ledger.seq` that this coordinator knows of.
    fn seq(&self) -> &watch::Sender<u64>;
    /// Whether this coordinator leads.
    fn leading(&self) -> watch::Receiver<bool>;
    /// What is secret in rows is sealed with this; a backend that writes nothing down needs none.
    fn seal_with(&self, _vault: Arc<Vault>) {}
    /// Ends cleanly.
    async fn close(&self);
}

impl Store {
    /// Runs `work` in a transaction of its own, one at a time per coordinator. Its changes are all made when it
    /// returns `Ok`, and none when it returns `Err` or the returned future is dropped before the commit.
    ///
    /// # Errors
    /// What `work` returned, or what the store says (see [`Error`]). After [`Error::Unavailable`] the changes may have
    /// been made all the same.
    pub async fn write<'a, T, E, F>(&self, work: F) -> std::result::Result<T, E>
    where
        F: for<'t> FnOnce(&'t mut (dyn Tx + 'a)) -> Work<'t, T, E> + Send,
        T: Send,
        E: From<Error> + Send,
    {
        let mut transaction = self.backend.begin().await?;
        match work(&mut *transaction).await {
            Ok(value) => {
                if let Some(seq) = transaction.commit().await? {
                    self.backend.seq().send_if_modified(|last| {
                        let newer = seq > *last;
                        *last = seq.max(*last);
                        newer
                    });
                }
                Ok(value)
            }
            Err(error) => {
                transaction.rollback().await;
                Err(error)
            }
        }
    }

    /// Runs `work` on a snapshot. Any number at a time.
    ///
    /// # Errors
    /// What `work` returned, or what the store says.
    pub async fn read<'a, T, E, F>(&self, work: F) -> std::result::Result<T, E>
    where
        F: for<'t> FnOnce(&'t mut (dyn View + 'a)) -> Work<'t, T, E> + Send,
        T: Send,
        E: From<Error> + Send,
    {
        let mut snapshot = self.backend.snapshot().await?;
        let result = work(&mut *snapshot).await;
        snapshot.rollback().await;
        result
    }

    /// From now on what is secret in rows is sealed with this vault, and opened; before, rows of environments can be neither
    /// written nor read.
    pub fn seal_with(&self, vault: Arc<Vault>) {
        self.backend.seal_with(vault);
    }

    /// Who orders: goes with every order to an agent.
    #[must_use]
    pub fn fence(&self) -> Fence {
        self.backend.fence()
    }

    /// The last committed `ledger.seq`; changes after every commit that appended an event.
    #[must_use]
    pub fn seq(&self) -> watch::Receiver<u64> {
        self.backend.seq().subscribe()
    }

    /// Whether this coordinator leads. Once false it stays false: nothing may be ordered any more, stop the process.
    #[must_use]
    pub fn leading(&self) -> watch::Receiver<bool> {
        self.backend.leading()
    }

    /// Ends cleanly: gives leadership back, and marks the database as cleanly stopped.
    pub async fn close(&self) {
        self.backend.close().await;
    }
}
