//! `muster serve`: puts everything together, serves, and stops without losing anything.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use transport::server::{self, ServerCertificate};

use crate::app::bootstrap::{self, Failed};
use crate::app::chunks;
use crate::app::{App, Ctx};
use crate::artifacts::Artifacts;
use crate::auth::layer::AuthLayer;
use crate::auth::rules::Rules;
use crate::clock::{Clock, SystemClock, SystemIds};
use crate::config::Config;
use crate::grpc::{self, Api};
use crate::sessions::Sessions;
use crate::store::{self, Leadership, Store};
use crate::tasks;

/// After this long what is still open is closed.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// Why the coordinator does not serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store, the key file or the CA.
    #[error("{0}")]
    Begin(#[from] Failed),
    /// An address cannot be listened on.
    #[error("E_LISTEN: {address}: {why}; is another coordinator running there?")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's words.
        why: std::io::Error,
    },
    /// The state directory cannot be made.
    #[error("E_STATE_DIR: {path}: {why}")]
    StateDir {
        /// The directory.
        path: String,
        /// The system's words.
        why: std::io::Error,
    },
    /// A broken build, or a broken listener.
    #[error("E_INTERNAL: {0}")]
    Internal(String),
    /// Another coordinator has taken over.
    #[error("E_NOT_LEADER: another coordinator has taken over; this one has stopped")]
    Replaced,
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        Self::Begin(error.into())
    }
}

/// What is listened on.
#[derive(Debug)]
pub struct Listeners {
    /// gRPC.
    pub grpc: TcpListener,
    /// `/healthz`.
    pub http: TcpListener,
}

impl Listeners {
    /// Binds the addresses of a configuration; port 0 takes any.
    ///
    /// # Errors
    /// An address is taken, or is not this machine's.
    pub async fn bind(config: &Config) -> Result<Self, Error> {
        let bind = async |address| TcpListener::bind(address).await.map_err(|why| Error::Listen { address, why });
        Ok(Self { grpc: bind(config.listen).await?, http: bind(config.http_listen).await? })
    }
}

/// A coordinator that serves.
#[derive(Debug)]
pub struct Running {
    /// Where gRPC is served.
    pub address: SocketAddr,
    /// Where `/healthz` is served.
    pub http_address: SocketAddr,
    /// The CA's certificate (PEM).
    pub ca: String,
    /// SHA-256 of it.
    pub pin: [u8; 32],
    /// `admin.token` was written by this start.
    pub first_start: bool,
    /// The coordinator.
    pub api: Api,
    tasks: JoinSet<()>,
    servers: JoinSet<Result<(), String>>,
}

/// Opens the store that the configuration names.
async fn open_store(config: &Config) -> Result<Store, store::Error> {
    match &config.database_url {
        None => Store::sqlite(&config.state_dir.join("muster.db")).await,
        Some(url) => Store::postgres(&url.0, &Leadership::at(&config.listen.to_string())).await,
    }
}

/// Names and addresses under which this coordinator is reached, for its certificate.
fn names(config: &Config, address: SocketAddr) -> Vec<String> {
    let mut names = config.names.clone();
    names.extend(["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()]);
    if !address.ip().is_unspecified() {
        names.push(address.ip().to_string());
    }
    names.sort();
    names.dedup();
    names
}

/// Opens everything and begins to serve.
///
/// # Errors
/// See [`Error`].
pub async fn start(config: &Config, listeners: Listeners) -> Result<Running, Error> {
    let state = |why| Error::StateDir { path: config.state_dir.display().to_string(), why };
    make_state_dir(&config.state_dir).map_err(state)?;
    let store = open_store(config).await?;
    start_over(config, listeners, store).await
}

/// As [`start`], over a store that is open already: tests give one in memory.
///
/// # Errors
/// See [`Error`].
pub async fn start_over(config: &Config, listeners: Listeners, store: Store) -> Result<Running, Error> {
    let internal = |why: &dyn std::fmt::Display| Error::Internal(why.to_string());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let sessions = Arc::new(Sessions::new(Arc::clone(&clock)));
    let ctx = Ctx {
        store,
        clock,
        ids: Arc::new(SystemIds),
        seen: Arc::clone(&sessions) as Arc<_>,
        wake: Arc::clone(&sessions) as Arc<_>,
        state_dir: Some(config.state_dir.clone()),
    };
    let (vault, ca) = bootstrap::open(&ctx, &config.state_dir.join("key")).await?;
    let state = |why| Error::StateDir { path: config.state_dir.display().to_string(), why };
    let artifacts = Artifacts::in_folder(&config.state_dir.join("artifacts")).map_err(state)?;
    artifacts.sweep().await.map_err(|why| internal(&why))?;
    let app = App {
        ctx,
        ca,
        vault,
        artifacts,
        max_archive_bytes: config.max_archive_bytes,
        max_log_bytes: config.max_log_bytes,
        quotas: config.quotas,
        stopping: CancellationToken::new(),
    };
    chunks::sweep_lost(&app).await.map_err(|why| internal(&why))?;
    let first_start = bootstrap::files(&app, &config.state_dir).await?;
    let address = listeners.grpc.local_addr().map_err(|why| internal(&why))?;
    let http_address = listeners.http.local_addr().map_err(|why| internal(&why))?;
    let names = names(config, address);
    let (issued, key) = app.ca.server(&names, app.now()).map_err(|why| internal(&why))?;
    let certificate = Arc::new(ServerCertificate::new(issued.chain, key).map_err(|why| internal(&why))?);
    let limits = server::Limits { connections: config.max_connections, ..server::Limits::default() };
    let incoming = server::accept(listeners.grpc, app.ca.der().to_vec(), Arc::clone(&certificate), limits);
    let incoming = incoming.map_err(|why| internal(&why))?;
    let api = Api { app: app.clone(), sessions, log_orders: Arc::default(), tunnels: Arc::default() };
    let mut servers = JoinSet::new();
    servers.spawn(serve_grpc(api.clone(), incoming));
    let http = crate::http::serve(api.clone(), listeners.http);
    servers.spawn(async move { http.await.map_err(|why| why.to_string()) });
    let tasks = tasks::spawn(&api, certificate, names, config.keep);
    let (ca, pin) = (app.ca.pem().to_owned(), app.ca.pin());
    Ok(Running { address, http_address, ca, pin, first_start, api, tasks, servers })
}

async fn serve_grpc(api: Api, incoming: server::Incoming) -> Result<(), String> {
    let rules = Rules::load().map_err(|why| why.to_string())?;
    let routes = grpc::routes(&api).await.map_err(|why| why.to_string())?;
    let stopping = api.app.stopping.clone();
    tonic::transport::Server::builder()
        .max_concurrent_streams(transport::MAX_STREAMS)
        .http2_max_header_list_size(transport::MAX_HEADERS)
        .http2_keepalive_interval(Some(transport::KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(transport::KEEPALIVE_TIMEOUT))
        .http2_max_pending_accept_reset_streams(Some(64))
        .layer(AuthLayer::new(api.app.clone(), rules))
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming.into_stream(), stopping.cancelled_owned())
        .await
        .map_err(|why| why.to_string())
}

impl Running {
    /// Serves until `shutdown`, then stops: streams end, calls under way are answered, the store is closed.
    ///
    /// # Errors
    /// A server broke, or another coordinator has taken over.
    pub async fn until(mut self, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
        let mut leading = self.api.app.store.leading();
        let replaced = async {
            // Once false it stays false.
            if leading.wait_for(|leads| !leads).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let result = tokio::select! {
            () = shutdown => Ok(()),
            () = replaced => Err(Error::Replaced),
            broken = self.servers.join_next() => match broken {
                Some(Ok(Err(why))) => Err(Error::Internal(why)),
                Some(Err(why)) => Err(Error::Internal(why.to_string())),
                Some(Ok(Ok(()))) | None => Err(Error::Internal("a server ended by itself".to_owned())),
            },
        };
        self.stop().await;
        result
    }

    async fn stop(mut self) {
        self.api.app.stopping.cancel();
        let ended = async {
            while self.servers.join_next().await.is_some() {}
            while self.tasks.join_next().await.is_some() {}
        };
        if tokio::time::timeout(STOP_WITHIN, ended).await.is_err() {
            tracing::warn!("some calls did not end in time and were cut off");
        }
        self.servers.abort_all();
        self.tasks.abort_all();
        self.api.app.store.close().await;
    }
}

fn make_state_dir(path: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    if path.is_dir() {
        return Ok(());
    }
    std::fs::DirBuilder::new().recursive(true).mode(0o755).create(path)?;
    // Others may pass through, whatever the umask, to read ca.pem; all else in it is the owner's alone.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
}

/// Serves with this configuration until `shutdown`, and says on standard output when it is ready.
///
/// # Errors
/// See [`Error`].
pub async fn serve(config: &Config, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
    let listeners = Listeners::bind(config).await?;
    let running = start(config, listeners).await?;
    let (address, pin) = (running.address, transport::pin::show(&running.pin));
    println!("muster serves on {address}, CA pin {pin}, state in {}", config.state_dir.display());
    if running.first_start {
        println!("the first admin's api-token is in {}", config.state_dir.join("admin.token").display());
    }
    tracing::info!(%address, http = %running.http_address, %pin, "ready");
    running.until(shutdown).await?;
    tracing::info!("stopped");
    Ok(())
}
