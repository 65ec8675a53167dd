//! A Compose file, read: what an environment is made of.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::health::HealthCheck;

mod given;
mod muster;
pub mod watch;

pub use given::{Content, GivenFile};
pub use muster::{Credentials, Durability, Idle, Quota, SeedRef, Settings, Ttl};
pub use watch::{Watch, WatchAction};

/// A stack file after interpolation, with everything that Muster refuses already refused.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Stack {
    /// Services by their Compose name.
    pub services: BTreeMap<String, Service>,
    /// Named volumes.
    pub volumes: Vec<String>,
    /// `x-muster` of the file.
    pub settings: Settings,
}

/// What a database service is recognised as, by its image.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub enum StoreKind {
    /// `postgres`, `postgis`, …
    Postgres,
    /// `mysql`, `mariadb`.
    Mysql,
    /// `redis`, `valkey`.
    Redis,
    /// `elasticsearch`, `opensearch`.
    Elasticsearch,
}

/// When a dependency lets its dependents start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub enum Condition {
    /// It was started.
    Started,
    /// It is healthy.
    Healthy,
    /// It ended with status 0.
    Completed,
}

/// Where a mount's files come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MountSource {
    /// A named volume of the stack.
    Volume(String),
    /// A volume without a name.
    Anonymous,
    /// A folder or file relative to the stack file.
    Folder(String),
    /// Memory.
    Tmpfs,
}

/// Files of a service that outlive its container or come from outside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mount {
    /// Where the files come from.
    pub source: MountSource,
    /// Absolute path in the container.
    pub target: String,
    /// Not writable by the service.
    pub read_only: bool,
}

/// A limit on what a process may use, as `setrlimit` knows it; -1 means no limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ulimit {
    /// What a process has at first.
    pub soft: i64,
    /// What it may raise that to.
    pub hard: i64,
}

/// One service of a stack.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Service {
    /// Image reference; for a service with `build:` only, none.
    pub image: Option<String>,
    /// Build context relative to the stack file.
    pub build: Option<Build>,
    /// Replaces the image's command.
    pub command: Option<Vec<String>>,
    /// Replaces the image's entrypoint.
    pub entrypoint: Option<Vec<String>>,
    /// Environment variables.
    pub environment: BTreeMap<String, String>,
    /// Published container ports.
    pub ports: Vec<u16>,
    /// Container ports that only the stack reaches.
    pub expose: Vec<u16>,
    /// Files.
    pub mounts: Vec<Mount>,
    /// Dependencies by service name.
    pub depends_on: BTreeMap<String, Condition>,
    /// The declared health check.
    pub healthcheck: Option<HealthCheck>,
    /// Working directory in the container.
    pub working_dir: Option<String>,
    /// User in the container.
    pub user: Option<String>,
    /// The database kind, if it is one.
    pub store: Option<StoreKind>,
    /// Restarted when it ends (Compose `restart` other than `no`).
    pub restart: bool,
    /// A signal other than the image's to stop it with.
    pub stop_signal: Option<String>,
    /// Between that signal and KILL.
    pub stop_grace_period: Option<Duration>,
    /// Bytes of memory it may use.
    pub memory: Option<u64>,
    /// Thousandths of a CPU it may use.
    pub milli_cpus: Option<u64>,
    /// An init process reaps its orphans.
    pub init: bool,
    /// The root filesystem is not writable.
    pub read_only: bool,
    /// Bytes of shared memory.
    pub shm_bytes: Option<u64>,
    /// Further names by which other services find it.
    pub aliases: Vec<String>,
    /// Secrets and configs.
    pub files: Vec<GivenFile>,
    /// Capabilities given back to it after `cap_drop`, of those that a container has anyway.
    pub cap_add: Vec<String>,
    /// Capabilities taken from it, as `NET_RAW` or `ALL`.
    pub cap_drop: Vec<String>,
    /// Limits of its processes, as `nofile`.
    pub ulimits: BTreeMap<String, Ulimit>,
    /// Most processes and threads.
    pub pids_limit: Option<u32>,
    /// Further lines of its `/etc/hosts`: a name and an IP address.
    pub extra_hosts: Vec<(String, String)>,
    /// Kernel settings of its own, as `net.core.somaxconn`.
    pub sysctls: BTreeMap<String, String>,
    /// Further groups of its user, as names or numbers.
    pub group_add: Vec<String>,
    /// Its processes cannot gain rights, by set-uid programs for example.
    pub no_new_privileges: bool,
    /// It has a way out of the environment's network.
    pub egress: bool,
    /// What is done when sources change, for who watches.
    pub watch: Vec<Watch>,
}

/// How a service's image is made from source.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Build {
    /// Folder relative to the stack file.
    pub context: String,
    /// Dockerfile relative to the context.
    pub dockerfile: Option<String>,
    /// Stage.
    pub target: Option<String>,
    /// Build arguments.
    pub args: BTreeMap<String, String>,
}
