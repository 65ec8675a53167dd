//! The container engine as the agent uses it. `docker` is the real one, `fake` lives in memory for tests.
//!
//! An engine that does not answer says nothing about its containers: [`Error::Away`] makes states unknown, never
//! "gone". The rules of adopt-or-create stand in [`adopt`] and are the same for every engine.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

pub mod adopt;
pub mod docker;
pub mod fake;
pub mod spec;
pub mod watch;

pub use spec::{ContainerSpec, FoundVolume, Labels, MountSpec, NetworkSpec, Rights, VolumeSpec};

/// Why the engine did not do something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It does not answer, or its answer was lost: whatever was asked may have happened.
    #[error("the container engine does not answer: {0}; see whether it runs (`systemctl status docker`)")]
    Away(String),
    /// A container of that name exists.
    #[error("the name {0} is in use")]
    NameInUse(String),
    /// An object of that name exists that this agent did not make; it is never touched.
    #[error("{kind} {name} exists and was not made by this agent; remove or rename it")]
    NameTaken {
        /// `container`, `network` or `volume`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// No such object.
    #[error("{0} does not exist")]
    NotFound(String),
    /// It said no.
    #[error("{0}")]
    Refused(String),
}

impl Error {
    /// The stable reason code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Away(_) => "E_ENGINE_AWAY",
            Self::NameInUse(_) | Self::NameTaken { .. } => "E_NAME_TAKEN",
            Self::NotFound(_) => "E_NOT_FOUND",
            Self::Refused(_) => "E_ENGINE",
        }
    }
}

/// Result of a call of the engine.
pub type Result<T> = std::result::Result<T, Error>;

/// The engine itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// For example `20.10.24`.
    pub version: String,
    /// The protocol version that was agreed on.
    pub api: String,
}

/// How the engine keeps resources of containers apart.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cgroups {
    /// `cgroupfs`, `systemd`, or `none`.
    pub driver: String,
    /// `1` or `2`.
    pub version: String,
}

/// An image on this host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Image {
    /// The engine's own id: the configuration's digest, or on newer stores a manifest's.
    pub id: String,
    /// `repository@sha256:…` under which it was pulled.
    pub repo_digests: Vec<String>,
    /// Digests of the uncompressed layers, lowest first.
    pub diff_ids: Vec<String>,
    /// Folders that the image declares as volumes.
    pub volumes: Vec<String>,
    /// Whom its containers begin as, as it says; empty: root.
    pub user: String,
    /// Bytes on disk.
    pub bytes: u64,
}

/// What a container does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Run {
    /// Never started.
    Created,
    /// Running (or frozen).
    Running,
    /// Ended with this status.
    Exited(i32),
}

/// A container of this agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// The engine's id.
    pub id: String,
    /// Its name, without a slash.
    pub name: String,
    /// Whose it is; none for a container without our labels.
    pub labels: Option<Labels>,
    /// What it does.
    pub run: Run,
    /// Its first process while it runs.
    pub pid: Option<u32>,
    /// Addresses by network name.
    pub addresses: BTreeMap<String, IpAddr>,
    /// When it was started last, as the engine writes it; empty: never.
    pub started_at: String,
    /// It was ended for using too much memory.
    pub out_of_memory: bool,
    /// A folder of the host is mounted into it.
    pub bound: bool,
    /// The id of the image that it was made from.
    pub image: String,
}

/// A container in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The engine's id.
    pub id: String,
    /// Its name, without a slash.
    pub name: String,
    /// Whose it is.
    pub labels: Labels,
    /// Whether it runs.
    pub running: bool,
}

/// Which lines of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogQuery {
    /// So many last lines; none: all.
    pub tail: Option<u32>,
    /// Go on with what is written later, until the container ends.
    pub follow: bool,
    /// Not what was written before this second since 1970.
    pub since: u64,
}

/// A line of a log with its end, or a piece of a long one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPiece {
    /// When the engine took the line, in nanoseconds since 1970; the same for all its pieces. 0: the engine does not say.
    pub at: u64,
    /// Of standard error.
    pub error: bool,
    /// Without what the engine puts before it.
    pub data: Bytes,
}

/// How a command in a container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Executed {
    /// Its status.
    pub status: i32,
    /// The beginning of what it wrote, at most 4 KiB.
    pub output: String,
}

/// A command for a running container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExecSpec {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// With a terminal: one stream of output, and its size can be changed.
    pub terminal: bool,
    /// Variables beside the container's own.
    pub environment: BTreeMap<String, String>,
}

/// A command that runs, with its streams.
pub struct Attached {
    /// The engine's id of it.
    pub exec: String,
    /// Its standard input; shutting it down is its end.
    pub input: std::pin::Pin<Box<dyn tokio::io::AsyncWrite + Send>>,
    /// What it writes; true: to its standard error.
    pub output: BoxStream<'static, Result<(bool, Bytes)>>,
}

impl fmt::Debug for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attached").field("exec", &self.exec).finish_non_exhaustive()
    }
}

/// How a command stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExecState {
    /// Its status; none: it runs.
    pub status: Option<i32>,
    /// Its process.
    pub pid: Option<u32>,
}

/// How an image is built.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BuildSpec {
    /// `name:tag` that the image gets.
    pub tag: String,
    /// Path of the Dockerfile within the context.
    pub dockerfile: String,
    /// Stage.
    pub target: Option<String>,
    /// Build arguments.
    pub args: BTreeMap<String, String>,
}

/// Bytes that are sent to the engine.
pub type ByteStream = BoxStream<'static, std::io::Result<Bytes>>;

/// A container that ended (or began), or `None`: events may have been missed, look at everything.
pub type Ended = Option<String>;

/// What a container of this agent did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It was started.
    Started(String),
    /// It ended, or was removed.
    Ended(String),
}

/// A container engine on this machine.
#[async_trait]
pub trait Engine: Send + Sync + fmt::Debug {
    /// Its version; also tells whether it answers.
    async fn about(&self) -> Result<About>;
    /// Its control groups.
    async fn cgroups(&self) -> Result<Cgroups>;

    /// The image under a name, digest or id; none if it is not on this host.
    async fn image(&self, reference: &str) -> Result<Option<Image>>;
    /// All images on this host.
    async fn images(&self) -> Result<Vec<Image>>;
    /// Fetches an image from its registry.
    async fn pull(&self, reference: &str) -> Result<()>;
    /// Loads an image archive as `docker save` writes it.
    async fn load(&self, archive: ByteStream) -> Result<()>;
    /// Builds an image from a tar of its context.
    async fn build(&self, spec: &BuildSpec, context: ByteStream) -> Result<()>;
    /// Removes a name of an image; the image goes with its last name unless a container needs it.
    async fn untag(&self, reference: &str) -> Result<()>;

    /// Makes a network. [`Error::NameInUse`] when one of that name exists.
    async fn create_network(&self, spec: &NetworkSpec) -> Result<()>;
    /// Labels of the network of that name: none if there is no network, `Some(None)` for a foreign one.
    async fn network(&self, name: &str) -> Result<Option<Option<Labels>>>;
    /// Subnets of all networks, also foreign ones.
    async fn subnets(&self) -> Result<Vec<String>>;
    /// Names and labels of all networks of a host id.
    async fn networks(&self, host: &str) -> Result<Vec<(String, Labels)>>;
    /// Removes a network; a missing one is success.
    async fn remove_network(&self, name: &str) -> Result<()>;

    /// Makes a volume bound to a folder. The engine answers success for an existing one.
    async fn create_volume(&self, spec: &VolumeSpec) -> Result<()>;
    /// The volume of that name; none if there is none.
    async fn volume(&self, name: &str) -> Result<Option<FoundVolume>>;
    /// Names and labels of all volumes of a host id.
    async fn volumes(&self, host: &str) -> Result<Vec<(String, Labels)>>;
    /// Removes a volume; a missing one is success. Its folder stays.
    async fn remove_volume(&self, name: &str) -> Result<()>;

    /// Makes a container and answers its id. [`Error::NameInUse`] when one of that name exists.
    async fn create(&self, spec: &ContainerSpec) -> Result<String>;
    /// Puts a container on one more network, which may be a foreign one; being on it already is success.
    async fn connect(&self, id: &str, network: &str) -> Result<()>;
    /// Starts a container; a running one is success.
    async fn start(&self, id: &str) -> Result<()>;
    /// Its stop signal, `grace`, KILL; answers when it has ended. A stopped or missing one is success.
    async fn stop(&self, id: &str, grace: Duration) -> Result<()>;
    /// Removes a container with its nameless volumes, killing it if it runs; a missing one is success.
    async fn remove(&self, id: &str) -> Result<()>;
    /// One container by name or id.
    async fn inspect(&self, name: &str) -> Result<Option<Container>>;
    /// All containers of a host id.
    async fn containers(&self, host: &str) -> Result<Vec<Listed>>;
    /// A container's log, oldest first; both output streams.
    async fn logs(&self, id: &str, query: LogQuery) -> Result<BoxStream<'static, Result<LogPiece>>>;
    /// Runs a command in a running container.
    async fn exec(&self, id: &str, argv: &[String], timeout: Duration) -> Result<Executed>;
    /// Starts a command in a running container.
    async fn attach(&self, id: &str, spec: &ExecSpec) -> Result<Attached>;
    /// Changes the size of a command's terminal.
    async fn resize(&self, exec: &str, columns: u16, rows: u16) -> Result<()>;
    /// How a command stands.
    async fn executed(&self, exec: &str) -> Result<ExecState>;
    /// Containers of a host id, as they begin and end. The stream ends when the engine goes away.
    async fn events(&self, host: &str) -> Result<BoxStream<'static, Event>>;
}

/// A container's last log lines, each cut to 500 characters; empty when they cannot be read.
pub async fn last_lines(engine: &dyn Engine, id: &str, lines: u32) -> Vec<String> {
    use futures::StreamExt as _;
    let Ok(mut log) = engine.logs(id, LogQuery { tail: Some(lines), ..LogQuery::default() }).await else {
        return Vec::new();
    };
    let mut bytes = Vec::new();
    while let Some(Ok(piece)) = log.next().await {
        bytes.extend_from_slice(&piece.data);
        if bytes.len() > 1 << 20 {
            break;
        }
    }
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    let from = all.len().saturating_sub(lines as usize);
    all[from..].iter().map(|line| line.chars().filter(|c| !c.is_control() || *c == '\t').take(500).collect()).collect()
}
