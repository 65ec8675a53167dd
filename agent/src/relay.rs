//! The relay: a process of its own that owns published ports and leads their traffic to where the agent says.
//!
//! It keeps its own table in its own file, needs neither agent nor coordinator to restore it, and outlives both. The agent
//! speaks to it over a Unix socket ([`client::Client`]), starts it when it is missing ([`spawn::ensure_running`]) and again
//! when it dies ([`spawn::supervise`]).
//!
//! A change of a route is made durable first, then takes effect at once, then is answered. Connections (`tcp`) and
//! requests (`http`) that began before a change end where they began; [`protocol::Request::Drain`] waits for them.

mod backend;
mod body;
pub mod client;
mod control;
mod file;
mod forward;
mod framing;
mod headers;
mod holder;
mod http;
mod listener;
mod pool;
mod ports;
pub mod protocol;
mod route;
pub mod spawn;
mod splice;
mod state;
pub mod stats;
mod table;
mod tcp;
#[cfg(test)]
mod tests;
mod wakes;
mod websocket;
mod workers;

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit};

use protocol::{PortRange, Refusal};
use state::Relay;
use workers::Threads;

/// Descriptors for listeners, kept connections to endpoints, control, files and pipes.
const OWN_DESCRIPTORS: u64 = 512 + 2 * splice::MOST;
/// How often kept connections are looked through.
const SWEEP: Duration = Duration::from_secs(2);

/// Limits on what clients can make the relay hold.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections per port; one more is closed at once.
    pub connections_per_port: u64,
    /// Connections on all ports; each takes two descriptors.
    pub connections: u64,
    /// Connections and requests held per port.
    pub held_per_port: u64,
    /// Connections and requests held on all ports.
    pub held: u64,
    /// How long one is held.
    pub hold: Duration,
    /// How long connecting to an endpoint may take.
    pub connect: Duration,
    /// How long what is in flight may take when the relay is stopped.
    pub stop_grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_per_port: 4096,
            connections: 8192,
            held_per_port: 256,
            held: 2048,
            hold: Duration::from_secs(30),
            connect: Duration::from_secs(2),
            stop_grace: Duration::from_secs(5),
        }
    }
}

/// What a relay needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// Its own folder, made with mode 0700 when missing: table, lock, log.
    pub state_dir: PathBuf,
    /// The control socket, at most 103 bytes long.
    pub socket: PathBuf,
    /// The kernel's id of this boot.
    pub boot_id: String,
    /// Where automatic ports come from.
    pub ports: PortRange,
    /// What clients may use.
    pub limits: Limits,
}

impl Config {
    /// A relay in this boot with default limits.
    ///
    /// # Errors
    /// When the kernel does not tell its boot id.
    pub fn new(state_dir: impl Into<PathBuf>, socket: impl Into<PathBuf>) -> Result<Self, Error> {
        Ok(Self {
            state_dir: state_dir.into(),
            socket: socket.into(),
            boot_id: boot_id()?,
            ports: PortRange::DEFAULT,
            limits: Limits::default(),
        })
    }
}

/// The kernel's id of this boot.
///
/// # Errors
/// When the kernel does not tell.
pub fn boot_id() -> Result<String, Error> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    let text = fs::read_to_string(path).map_err(|source| Error::State { path: path.to_owned(), source })?;
    Ok(text.trim().to_owned())
}

/// The arguments of `muster-agent relay`.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// The relay's own folder: table, lock and log.
    #[arg(long, value_name = "DIR")]
    pub state_dir: PathBuf,
    /// The control socket.
    #[arg(long, value_name = "PATH")]
    pub socket: PathBuf,
    /// Where automatic ports come from.
    #[arg(long, value_name = "FIRST-LAST", default_value = "20000-29999")]
    pub ports: PortRange,
    /// Leave the caller's session, so that its signals do not reach the relay.
    #[arg(long)]
    pub own_session: bool,
}

/// Why a relay does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the relay cannot be used.
    #[error("E_RELAY_STATE: cannot use {}: {source}", .path.display())]
    State {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another relay has the folder.
    #[error("E_RELAY_RUNS: another relay uses {}; stop it first", .0.display())]
    Running(PathBuf),
    /// The table cannot be stored.
    #[error(transparent)]
    Table(Refusal),
    /// The control socket cannot be listened on.
    #[error("E_RELAY_SOCKET: cannot listen on {}: {source}", .path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The process cannot be set up.
    #[error("E_RELAY_PROCESS: {what}: {source}")]
    Process {
        /// What was tried.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// Runs the relay as this process, until SIGTERM or SIGINT; builds its own runtime.
///
/// # Errors
/// When it cannot start.
pub fn main(arguments: Arguments) -> Result<(), Error> {
    let failed = |what| move |source| Error::Process { what, source };
    if arguments.own_session {
        // Refused to the leader of a group, which has left its caller's group already.
        let _ = rustix::process::setsid();
    }
    let mut config = Config::new(arguments.state_dir, arguments.socket)?;
    config.ports = arguments.ports;
    let descriptors = raise_descriptors();
    config.limits.connections = config.limits.connections.min(descriptors.saturating_sub(OWN_DESCRIPTORS) / 2);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(2)
        .enable_all()
        .build()
        .map_err(failed("cannot start a runtime"))?;
    runtime.block_on(async {
        let mut terminate = signal(tokio::signal::unix::SignalKind::terminate())?;
        let mut interrupt = signal(tokio::signal::unix::SignalKind::interrupt())?;
        let stopped = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        run(config, stopped).await
    })
}

fn signal(kind: tokio::signal::unix::SignalKind) -> Result<tokio::signal::unix::Signal, Error> {
    tokio::signal::unix::signal(kind).map_err(|source| Error::Process { what: "cannot watch signals", source })
}

/// Raises the limit of descriptors to what the process may have, and answers it.
fn raise_descriptors() -> u64 {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = rustix::process::setrlimit(Resource::Nofile, raised) {
        tracing::debug!(%error, "the limit of descriptors stays as it is");
        return limit.current.unwrap_or(u64::MAX);
    }
    limit.maximum.unwrap_or(u64::MAX)
}

/// Runs a relay until `shutdown`: then stops accepting, lets what is in flight end, and closes the rest.
///
/// # Errors
/// When it cannot start; a relay that runs ends only by `shutdown`.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
    let dir = config.state_dir.clone();
    let socket = config.socket.clone();
    let grace = config.limits.stop_grace;
    make_private(&dir).map_err(|source| Error::State { path: dir.clone(), source })?;
    let _lock = lock_dir(&dir)?;
    let (threads, workers) =
        Threads::start().map_err(|source| Error::Process { what: "cannot start a thread", source })?;
    let relay = Relay::restore(config, workers).await?;
    let listener = listen(&socket)?;
    tracing::info!(socket = %socket.display(), "relay runs");
    let control = tokio::spawn(control::serve(Arc::clone(&relay), listener));
    tokio::pin!(shutdown);
    let mut sweep = tokio::time::interval(SWEEP);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            _ = sweep.tick() => relay.sweep(),
        }
    }
    relay.stop(grace).await;
    control.abort();
    drop(threads);
    // The lock is still held, so this cannot be a successor's socket.
    let _ = fs::remove_file(&socket);
    tracing::info!("relay ends");
    Ok(())
}

fn listen(socket: &Path) -> Result<tokio::net::UnixListener, Error> {
    let failed = |source| Error::Socket { path: socket.to_owned(), source };
    if let Some(parent) = socket.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    control::listen(socket).map_err(failed)
}

/// Makes a folder for this user alone.
fn make_private(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    fs::set_permissions(dir, Permissions::from_mode(0o700))
}

/// Two relays on one table would undo each other's changes.
fn lock_dir(dir: &Path) -> Result<File, Error> {
    let path = dir.join("relay.lock");
    let opened = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = opened.map_err(|source| Error::State { path: path.clone(), source })?;
    match crate::files::lock(&file) {
        Ok(true) => Ok(file),
        Ok(false) => Err(Error::Running(dir.to_owned())),
        Err(source) => Err(Error::State { path, source }),
    }
}
