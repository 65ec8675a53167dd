//! One running copy of a stack on one host.

pub mod diff;
pub mod life;
pub mod migration;

use std::collections::BTreeMap;

use crate::ids::{EnvironmentId, Generation, HostId, PrincipalId, RunId};
use crate::name::Name;
use crate::time::Timestamp;

/// What is wanted of an environment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub enum Wanted {
    /// All services run.
    Up,
    /// Nothing of it is left.
    Down,
}

/// Where an environment's sources (`./src:/app`) come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// The stack uses none.
    None,
    /// A folder on the host, granted by the agent's local socket.
    Grant {
        /// The one-time grant, spent at the first use.
        grant: String,
    },
    /// A checkout that the agent makes for a run.
    Checkout,
    /// A folder of the environment on its host, uploaded by its owner.
    Upload,
}

/// One running copy of a stack.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Environment {
    /// Its id.
    pub id: EnvironmentId,
    /// `owner/name` is unique among those that are not gone.
    pub name: Name,
    /// Who owns it.
    pub owner: PrincipalId,
    /// The app, if the stack belongs to one.
    pub app: Option<Name>,
    /// Where it runs.
    pub host: HostId,
    /// The run it was made for, if any.
    pub run: Option<RunId>,
    /// The stack file's text, kept for a later reading by a newer binary.
    pub stack_file: String,
    /// Interpolation variables that were set when it was made.
    pub variables: BTreeMap<String, String>,
    /// Where its sources come from.
    pub source: Source,
    /// Rises with each change of what is wanted.
    pub generation: Generation,
    /// What is wanted.
    pub wanted: Wanted,
    /// What the agent told last.
    pub observed: Observed,
    /// When it was made.
    pub created_at: Timestamp,
}

/// State of an environment as the agent sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub enum EnvironmentState {
    /// Ordered, nothing heard yet.
    Pending,
    /// Services start.
    Starting,
    /// All services are ready.
    Ready,
    /// A service cannot come up; `reason` says which and why.
    Failed,
    /// Not used for a while: its services are frozen, and thawed by the first connection.
    Frozen,
    /// Not used for long: its services are stopped, and started by the first connection.
    Asleep,
    /// Services stop.
    Stopping,
    /// Nothing is left.
    Gone,
}

/// What the agent told last about an environment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Observed {
    /// The generation it is about.
    pub generation: Generation,
    /// State of the whole.
    pub state: EnvironmentState,
    /// Why it failed: reason code and text.
    pub reason: Option<(String, String)>,
    /// One line per service.
    pub services: Vec<ServiceObserved>,
    /// Remarks: rewrites, fallbacks, losses.
    pub notices: Vec<String>,
    /// How it is used; none: not known.
    pub activity: Option<Activity>,
}

/// How an environment is used.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Activity {
    /// The last use.
    pub last_used: Timestamp,
    /// Why it is awake, or asleep.
    pub why: String,
    /// Bytes of memory that its containers have.
    pub memory_bytes: u64,
}

impl Observed {
    /// Nothing heard yet.
    #[must_use]
    pub fn nothing() -> Self {
        Self {
            generation: Generation(0),
            state: EnvironmentState::Pending,
            reason: None,
            services: Vec::new(),
            notices: Vec::new(),
            activity: None,
        }
    }
}

/// State of one service.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub enum ServiceState {
    /// Waits for a dependency.
    Waiting,
    /// Its image is being fetched or built.
    Pulling,
    /// Started, not yet ready.
    Starting,
    /// Healthy (or running, where no health is declared).
    Ready,
    /// Ended with status 0 and is not to be restarted.
    Done,
    /// Ended otherwise.
    Exited,
    /// Keeps ending and is restarted with a growing pause.
    CrashLoop,
}

/// What the agent told last about a service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServiceObserved {
    /// Compose name.
    pub name: String,
    /// Its state.
    pub state: ServiceState,
    /// One line for people: what it waits for, the probe's answer, the exit status.
    pub detail: String,
    /// Microseconds from its start until it was ready.
    pub ready_after_micros: Option<u64>,
    /// Stable published addresses: container port → `127.0.0.1:20410`.
    pub addresses: BTreeMap<u16, String>,
    /// Connection variables of this service, with credentials: shown to the owner only.
    pub variables: BTreeMap<String, String>,
    /// Its last log lines when it ended or failed.
    pub last_lines: Vec<String>,
    /// What was reached from inside it that should not be; none: not tried.
    pub isolation: Option<Isolation>,
}

/// What connections from inside a service found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Isolation {
    /// When they were tried.
    pub at: Timestamp,
    /// How many.
    pub tried: u32,
    /// What answered, at most 20.
    pub reached: Vec<String>,
    /// Why they could not be tried; empty: they were.
    pub problem: String,
}
