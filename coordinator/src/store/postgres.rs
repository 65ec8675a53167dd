//! Opening PostgreSQL: many coordinators, one leader by a lease and an epoch.
//!
//! Two tables on purpose: `leader_epoch` changes only at a take-over, and every write holds it `FOR SHARE`, so that a
//! take-over waits for writes that are under way and no later write of the old leader passes. `leader_renewal` is
//! touched at each renewal, which must not wait behind writes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use domain::ids::Fence;
use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::{AnyPool, ConnectOptions};
use tokio::sync::watch;

use super::database::{Database, Hold, Lease, last_seq, leader, random_id, take_over};
use super::dialect::Dialect;
use super::error::{Error, Result};
use super::sql::{Columns, execute, failed, rows, values};
use super::{Store, schema};

const READERS: u32 = 8;
const ACQUIRE: Duration = Duration::from_secs(5);
/// How long a standby sleeps between looks, at most.
const LOOK: Duration = Duration::from_secs(1);

/// How a coordinator leads on PostgreSQL.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Leadership {
    /// Where this coordinator listens: others tell it to callers once it leads.
    pub address: String,
    /// A leader that is not heard from for so long is replaced.
    pub lease: Duration,
    /// How long to wait for the lease; none: for ever, as a standby.
    pub wait: Option<Duration>,
}

impl Leadership {
    /// A lease of 10 s, waited for without end.
    #[must_use]
    pub fn at(address: &str) -> Self {
        Self { address: address.to_owned(), lease: Duration::from_secs(10), wait: None }
    }
}

impl Store {
    /// Opens or makes the schema in the database at `url` (`postgres://…`), waits until this coordinator leads, and
    /// raises the epoch.
    ///
    /// # Errors
    /// The database does not answer, the schema is too new, or somebody else leads for longer than is waited.
    pub async fn postgres(url: &str, leadership: &Leadership) -> Result<Self> {
        sqlx::any::install_default_drivers();
        let writer = pool(url, 2).await?;
        schema::migrate(&writer, Dialect::Postgres).await?;
        warn_about_collation(&writer).await?;
        let lease_pool = pool(url, 1).await?;
        let (fence, seq, renewed) = lead(&lease_pool, leadership).await?;
        let readers = pool(url, READERS).await?;
        let leading = watch::Sender::new(true);
        let renewed = Arc::new(Mutex::new(renewed));
        let task = tokio::spawn(renew(
            lease_pool.clone(),
            fence.epoch,
            leadership.lease,
            Arc::clone(&renewed),
            leading.clone(),
        ));
        let lease = Lease { pool: lease_pool, trust: leadership.lease.mul_f64(0.7), renewed, task };
        Ok(Self {
            backend: Arc::new(Database {
                dialect: Dialect::Postgres,
                writer,
                readers,
                turn: Arc::default(),
                fence,
                seq: watch::Sender::new(seq),
                leading,
                hold: Hold::Lease(lease),
                sealer: Arc::default(),
            }),
        })
    }
}

async fn pool(url: &str, size: u32) -> Result<AnyPool> {
    // Neither the address (it may hold a password) nor the driver's words about it are repeated.
    let options: AnyConnectOptions = url.parse().map_err(|_| Error::Unusable {
        what: "database_url is not an address; write postgres://USER@HOST/DATABASE".to_owned(),
    })?;
    AnyPoolOptions::new()
        .max_connections(size)
        .acquire_timeout(ACQUIRE)
        .connect_with(options.disable_statement_logging())
        .await
        .map_err(|error| failed("connect", error))
}

async fn warn_about_collation(pool: &AnyPool) -> Result<()> {
    let mut connection = pool.acquire().await.map_err(|error| failed("connect", error))?;
    let sql = "SELECT datcollate::TEXT AS found FROM pg_database WHERE datname = current_database()";
    let found = rows(&mut connection, "pg_database", sql, values![]).await?;
    let collation = found.first().map(|row| Columns::new("pg_database", &[], row).text("found")).transpose()?;
    if !matches!(collation.as_deref(), Some("C" | "POSIX" | "C.UTF-8" | "C.utf8")) {
        tracing::warn!(
            collation = collation.unwrap_or_default(),
            "lists will not be in byte order; make the database with TEMPLATE template0 LC_COLLATE 'C'"
        );
    }
    Ok(())
}

/// Waits for the lease and takes over.
async fn lead(pool: &AnyPool, leadership: &Leadership) -> Result<(Fence, u64, Instant)> {
    let holder = random_id()?;
    let began = Instant::now();
    loop {
        let sent = Instant::now();
        let left = match take(pool, holder, leadership).await? {
            Taken::Yes(fence, seq) => return Ok((fence, seq, sent)),
            Taken::No { left, leader } => {
                if leadership.wait.is_some_and(|wait| began.elapsed() >= wait) {
                    return Err(Error::NotLeader { leader });
                }
                left
            }
        };
        tokio::time::sleep(left.clamp(Duration::from_millis(10), LOOK)).await;
    }
}

enum Taken {
    Yes(Fence, u64),
    No { left: Duration, leader: Option<String> },
}

async fn take(pool: &AnyPool, holder: uuid::Uuid, leadership: &Leadership) -> Result<Taken> {
    let dialect = Dialect::Postgres;
    let mut transaction = pool.begin_with(dialect.begin()).await.map_err(|error| failed("lease", error))?;
    let found = rows(&mut transaction, "leader_renewal", dialect.lease_left(), values![]).await?;
    let left: i64 = match found.first() {
        Some(row) => Columns::new("leader_renewal", &[], row).number("left_micros")?,
        None => 0,
    };
    if left > 0 {
        let leader = leader(&mut transaction).await?;
        return Ok(Taken::No { left: Duration::from_micros(left.unsigned_abs()), leader });
    }
    // Waits for writes of the old leader that are under way.
    let fence = take_over(&mut transaction, holder, &leadership.address).await?;
    let values = values![fence.epoch, micros(leadership.lease)];
    execute(&mut transaction, "leader_renewal", dialect.lease_take(), values).await?;
    let seq = last_seq(&mut transaction).await?;
    transaction.commit().await.map_err(|error| failed("lease", error))?;
    Ok(Taken::Yes(fence, seq))
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Renews until the lease is somebody else's, or could not be renewed for too long.
async fn renew(pool: AnyPool, epoch: u64, lease: Duration, renewed: Arc<Mutex<Instant>>, leading: watch::Sender<bool>) {
    let every = lease.mul_f64(0.3);
    let mut tick = tokio::time::interval_at(tokio::time::Instant::now() + every, every);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let sent = Instant::now();
        match renew_once(&pool, epoch, lease).await {
            Ok(true) => *renewed.lock().unwrap_or_else(PoisonError::into_inner) = sent,
            Ok(false) => {
                tracing::error!(epoch, "another coordinator took over; this one writes nothing more");
                leading.send_replace(false);
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "the lease could not be renewed");
                let since = renewed.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
                if since >= lease.mul_f64(0.7) {
                    tracing::error!(
                        epoch,
                        "the lease could not be renewed for too long; this coordinator writes nothing more"
                    );
                    leading.send_replace(false);
                    return;
                }
            }
        }
    }
}

async fn renew_once(pool: &AnyPool, epoch: u64, lease: Duration) -> Result<bool> {
    let mut connection = pool.acquire().await.map_err(|error| failed("lease", error))?;
    let values = values![epoch, micros(lease)];
    let changed = execute(&mut connection, "leader_renewal", Dialect::Postgres.lease_renew(), values).await?;
    Ok(changed > 0)
}

/// Ends the lease, so that the next leader need not wait for it.
pub(super) async fn give_back(pool: &AnyPool, epoch: u64) -> Result<()> {
    let mut connection = pool.acquire().await.map_err(|error| failed("lease", error))?;
    let sql = "UPDATE leader_renewal SET expires_at = 0 WHERE id = 1 AND epoch = $1";
    execute(&mut connection, "leader_renewal", sql, values![epoch]).await?;
    Ok(())
}
