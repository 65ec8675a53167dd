//! One endpoint of one release, and who uses it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Relaxed, SeqCst},
};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::Limits;
use super::pool::Pool;
use super::stats::ReleaseCounters;
use super::workers;

/// How long closed connections may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(4);

/// One endpoint of one release, from a switch to it until its last connection ends.
#[derive(Debug)]
pub(super) struct Backend {
    pub release: String,
    pub endpoint: Option<SocketAddr>,
    pub counters: Arc<ReleaseCounters>,
    /// One per worker.
    pools: [Pool; workers::MOST],
    /// Fires when what is still open has to end.
    pub close: CancellationToken,
    open: AtomicU64,
    idle: Notify,
}

impl Backend {
    pub fn new(release: &str, endpoint: Option<SocketAddr>, counters: Arc<ReleaseCounters>) -> Arc<Self> {
        Arc::new(Self {
            release: release.to_owned(),
            endpoint,
            counters,
            pools: Default::default(),
            close: CancellationToken::new(),
            open: AtomicU64::new(0),
            idle: Notify::new(),
        })
    }

    /// Idle connections that belong to the worker whose thread asks.
    pub fn pool(&self) -> &Pool {
        &self.pools[workers::here()]
    }

    /// Drops all idle connections, and those still to come.
    pub fn close_pools(&self) {
        self.pools.iter().for_each(Pool::close);
    }

    /// Drops connections that have been idle for too long to be used.
    pub fn sweep(&self) {
        self.pools.iter().for_each(Pool::sweep);
    }

    pub fn open(&self) -> u64 {
        self.open.load(SeqCst)
    }

    /// Returns when nothing is open.
    pub async fn wait_idle(&self) {
        loop {
            let idle = self.idle.notified();
            if self.open() == 0 {
                return;
            }
            idle.await;
        }
    }
}

/// What a lease counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Connection,
    Request,
    Upgrade,
}

/// A connection's or request's hold on its backend; a drain waits for it.
#[derive(Debug)]
pub(super) struct Lease {
    pub backend: Arc<Backend>,
    kind: Use,
}

impl Lease {
    pub fn new(backend: &Arc<Backend>, kind: Use) -> Self {
        backend.open.fetch_add(1, SeqCst);
        let lease = Self { backend: Arc::clone(backend), kind };
        let (total, open) = lease.gauges();
        total.fetch_add(1, Relaxed);
        open.fetch_add(1, Relaxed);
        lease
    }

    fn gauges(&self) -> (&AtomicU64, &AtomicU64) {
        let counters = &self.backend.counters;
        match self.kind {
            Use::Connection => (&counters.connections, &counters.connections_open),
            Use::Request => (&counters.requests, &counters.in_flight),
            Use::Upgrade => (&counters.upgrades, &counters.upgrades_open),
        }
    }

    /// A request that became a tunnel.
    pub fn upgrade(self) -> Self {
        Self::new(&self.backend, Use::Upgrade)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.gauges().1.fetch_sub(1, Relaxed);
        if self.backend.open.fetch_sub(1, SeqCst) == 1 {
            self.backend.idle.notify_waiters();
        }
    }
}

/// Ends what is still open on `backends`, and waits for that for as long as a goodbye may take.
pub(super) async fn close_all(backends: &[Arc<Backend>]) {
    for backend in backends {
        backend.close_pools();
        backend.close.cancel();
    }
    let gone = async {
        for backend in backends {
            backend.wait_idle().await;
        }
    };
    // Whoever does not leave in time is left to the connection's own limits.
    let _ = tokio::time::timeout(GOODBYE, gone).await;
}

/// Why an endpoint was not reached.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("the route has no endpoint")]
    NoEndpoint,
    #[error("connecting took longer than {0:?}")]
    TooSlow(Duration),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Connects to a backend within the configured time.
pub(super) async fn connect(backend: &Backend, limits: &Limits) -> Result<TcpStream, ConnectError> {
    let endpoint = backend.endpoint.ok_or(ConnectError::NoEndpoint)?;
    let connected = tokio::time::timeout(limits.connect, TcpStream::connect(endpoint)).await;
    let stream = connected.map_err(|_| ConnectError::TooSlow(limits.connect))??;
    stream.set_nodelay(true)?;
    Ok(stream)
}
