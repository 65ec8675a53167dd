//! What a job is told.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Error;
use super::files;

/// Largest spec that is read, in bytes.
const LARGEST: u64 = 4 << 20;

/// What to run, and its limits. Lies in a file that only the agent's user reads: it holds secrets.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Spec {
    /// The work.
    pub work: Work,
    /// The whole work's limit, milliseconds.
    pub timeout_ms: u64,
    /// Limit without a byte of output, milliseconds; 0: none.
    pub no_output_ms: u64,
    /// Between TERM and KILL, milliseconds.
    pub grace_ms: u64,
    /// Bytes of output that are kept; the rest is counted and dropped.
    pub log_bytes: u64,
    /// The boot in which the spec was written: a job of another boot is lost.
    pub boot_id: String,
}

/// A plain process, or a container.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// A process of this machine.
    Process(ProcessSpec),
    /// A container of the engine.
    Container(Box<ContainerSpec>),
}

/// A process of this machine.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessSpec {
    /// The argument vector; not empty.
    pub argv: Vec<String>,
    /// Its whole environment.
    pub env: BTreeMap<String, String>,
    /// Working directory.
    pub cwd: PathBuf,
    /// User and group to become; needs root.
    pub user: Option<(u32, u32)>,
}

/// Files of the machine inside a container.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Mount {
    /// A directory or file of the machine, or the name of a volume of the engine.
    pub source: String,
    /// Absolute path in the container.
    pub target: String,
    /// Not writable.
    pub read_only: bool,
    /// `source` is a volume's name.
    #[serde(default)]
    pub volume: bool,
}

/// A container of the engine, made and removed by the job's owner by its name.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// The engine's Unix socket.
    pub engine: PathBuf,
    /// Name of the container.
    pub name: String,
    /// Image reference or id, present on the engine.
    pub image: String,
    /// Replaces the image's command.
    pub command: Vec<String>,
    /// Replaces the image's entrypoint.
    pub entrypoint: Option<Vec<String>>,
    /// Environment variables.
    pub env: BTreeMap<String, String>,
    /// Labels: whose it is.
    pub labels: BTreeMap<String, String>,
    /// Working directory.
    pub working_dir: Option<String>,
    /// User in the container.
    pub user: Option<String>,
    /// Networks to join; none: no network at all.
    pub networks: Vec<String>,
    /// Files.
    pub mounts: Vec<Mount>,
    /// Paths held in memory.
    pub tmpfs: Vec<String>,
    /// Bytes of memory it may use.
    pub memory: Option<u64>,
    /// Thousandths of a CPU it may use.
    pub milli_cpus: Option<u64>,
    /// Bytes of shared memory.
    pub shm_bytes: Option<u64>,
    /// Processes it may have.
    pub pids: Option<u64>,
    /// The root filesystem is not writable.
    pub read_only: bool,
    /// An init process of the engine reaps its orphans.
    pub init: bool,
    /// A path in the container (relative to its working directory) that is kept as `collected.tar` after the end.
    pub collect: Option<String>,
}

// Values of variables are secrets; a Debug of a spec shows names only.
impl fmt::Debug for ProcessSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessSpec")
            .field("argv", &self.argv)
            .field("env", &self.env.keys())
            .field("cwd", &self.cwd)
            .field("user", &self.user)
            .finish()
    }
}

impl fmt::Debug for ContainerSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContainerSpec")
            .field("name", &self.name)
            .field("image", &self.image)
            .field("command", &self.command)
            .field("env", &self.env.keys())
            .field("networks", &self.networks)
            .field("mounts", &self.mounts)
            .finish_non_exhaustive()
    }
}

impl Spec {
    /// Work without limits other than a day, 10 s of grace and 64 MiB of output.
    #[must_use]
    pub fn new(work: Work) -> Self {
        Self {
            work,
            timeout_ms: 86_400_000,
            no_output_ms: 0,
            grace_ms: 10_000,
            log_bytes: 64 << 20,
            boot_id: files::boot_id(),
        }
    }

    pub(super) fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    pub(super) fn grace(&self) -> Duration {
        Duration::from_millis(self.grace_ms)
    }

    pub(super) fn no_output(&self) -> Option<Duration> {
        // Where the whole time is over as soon, that is what is told.
        let sooner = self.timeout_ms == 0 || self.no_output_ms < self.timeout_ms;
        (self.no_output_ms > 0 && sooner).then(|| Duration::from_millis(self.no_output_ms))
    }

    pub(super) fn read(directory: &Path) -> Result<Self, Error> {
        let path = directory.join("spec.json");
        let text = files::read_limited(&path, LARGEST).map_err(Error::file("read", &path))?;
        serde_json::from_slice(&text).map_err(|why| Error::Format { path, why: why.to_string() })
    }

    pub(super) fn write(&self, directory: &Path) -> Result<(), Error> {
        let path = directory.join("spec.json");
        let text =
            serde_json::to_vec(self).map_err(|why| Error::Format { path: path.clone(), why: why.to_string() })?;
        files::write_atomic(&path, &text).map_err(Error::file("write", &path))
    }
}
