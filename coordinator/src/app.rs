//! Every write, and the reads that need a decision. Handlers call these, check nothing themselves, and convert.

pub mod api_tokens;
pub mod apps;
pub mod archive;
pub mod artifacts;
pub mod bootstrap;
pub mod builds;
pub mod chunks;
pub mod config;
pub mod environment_data;
pub mod environment_end;
pub mod environment_life;
pub mod environments;
pub mod events;
pub mod hosts;
pub mod idempotency;
pub mod join;
pub mod join_tokens;
pub mod ledger;
pub mod logs;
pub mod overrides;
mod placing;
pub mod quotas;
pub mod releases;
pub mod reports;
pub mod resolve;
pub mod rollout_turn;
pub mod rollout_view;
pub mod rollouts;
pub mod run_seeds;
pub mod runs;
pub mod seed_copies;
pub mod seed_copy_reports;
pub mod seed_import;
pub mod seed_reports;
pub mod seeds;
pub mod text;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use domain::host::{Liveness, SessionSeen};
use domain::ids::{EnvironmentId, HostId};
use domain::time::Timestamp;

use crate::artifacts::Artifacts;
use crate::ca::Ca;
use crate::clock::{Clock, Ids};
use crate::store::Store;
use crate::store::host::HostRow;
use crate::vault::Vault;

/// Slots of one stack and seed in a host's warm pool.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct WarmStack {
    /// Name of the app or stack.
    pub stack: String,
    /// The seed that its data begins with.
    pub seed: String,
    /// Slots that wait for somebody.
    pub ready: u32,
    /// Slots that are on their way.
    pub making: u32,
    /// So many are kept.
    pub wanted: u32,
}

/// What the coordinator holds in memory about sessions, as decisions see it.
pub trait Seen: Send + Sync + fmt::Debug {
    /// The host's open session.
    fn session(&self, host: HostId) -> Option<SessionSeen>;
    /// When this coordinator began to listen.
    fn started_at(&self) -> Timestamp;
    /// Slots of the host's warm pool that are made from this, as its session told last. They may be gone.
    fn slots(&self, _host: HostId, _key: &str) -> Vec<EnvironmentId> {
        Vec::new()
    }
    /// The host's warm pool, as its session told last.
    fn warm(&self, _host: HostId) -> Vec<WarmStack> {
        Vec::new()
    }
}

/// Loops that look at the whole state when somebody wakes them.
pub trait Wake: Send + Sync + fmt::Debug {
    /// Something that this host should have was changed.
    fn host(&self, host: HostId);
    /// Rollouts may have to move.
    fn rollouts(&self);
    /// Runs may have to move.
    fn runs(&self);
}

/// What every function here needs. The simulator makes one over its own clock, ids and store.
#[derive(Clone, Debug)]
pub struct Ctx {
    /// Where everything is kept.
    pub store: Store,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Where ids come from.
    pub ids: Arc<dyn Ids>,
    /// Sessions as decisions see them.
    pub seen: Arc<dyn Seen>,
    /// Who is woken by changes.
    pub wake: Arc<dyn Wake>,
    /// The state directory, for failpoints.
    pub state_dir: Option<PathBuf>,
}

impl Ctx {
    /// Now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Whether a host is heard from, now.
    #[must_use]
    pub fn liveness(&self, row: &HostRow) -> Liveness {
        let session = self.seen.session(row.host.id);
        domain::host::liveness(row.host.liveness, session, row.host.seen_at, self.seen.started_at(), self.now())
    }
}

/// What the coordinator as a whole has beside [`Ctx`].
#[derive(Clone, Debug)]
pub struct App {
    /// Store, clock, ids, sessions.
    pub ctx: Ctx,
    /// The internal CA.
    pub ca: Arc<Ca>,
    /// Seals secrets.
    pub vault: Arc<Vault>,
    /// Bulk bytes.
    pub artifacts: Artifacts,
    /// The largest archive of a build, in bytes.
    pub max_archive_bytes: u64,
    /// The largest log of a run, in bytes.
    pub max_log_bytes: u64,
    /// What each developer may hold.
    pub quotas: domain::quota::Limits,
    /// The coordinator is about to stop: streams end.
    pub stopping: tokio_util::sync::CancellationToken,
}

impl std::ops::Deref for App {
    type Target = Ctx;

    fn deref(&self) -> &Ctx {
        &self.ctx
    }
}
