//! The store in memory, for the simulator: deterministic, never waits for anything but its own lock, and fails on
//! demand.
//!
//! A transaction changes the tables in place and notes what was there before; an aborted one puts that back. So a
//! write costs what it changes, whatever lies in the store.

mod app;
mod artifact;
mod build;
mod chunk;
mod config;
mod environment;
mod event;
mod host;
mod idempotency;
mod log;
mod member;
mod release;
mod retention;
mod rollout;
mod run;
mod secret;
mod seed;
mod seed_copy;
mod table;
mod target;
mod token;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use domain::ids::{
    ApiTokenId, BuildId, EnvironmentId, Fence, HostId, JoinTokenId, PrincipalId, ReleaseId, RolloutId, RunId, SeedId,
};
use domain::name::{Name, TargetRef};
use domain::release::Digest;
use tokio::sync::{Mutex, OwnedMutexGuard, watch};
use uuid::Uuid;

use super::app::AppRow;
use super::artifact::ArtifactRow;
use super::build::BuildRow;
use super::chunk::{ChunkRow, SegmentRow};
use super::config::ConfigRow;
use super::environment::EnvironmentRow;
use super::error::{Error, Result};
use super::event::EventRow;
use super::host::HostRow;
use super::idempotency::IdempotencyRow;
use super::log::LogSegmentRow;
use super::member::MemberRow;
use super::release::ReleaseRow;
use super::rollout::RolloutRow;
use super::run::RunRow;
use super::secret::SecretRow;
use super::seed::SeedRow;
use super::seed_copy::SeedCopyRow;
use super::target::{LockRow, TargetRow};
use super::token::{ApiTokenRow, JoinTokenRow, PrincipalRow};
use super::tx::Transaction;
use super::{Backend, Store};
use table::Table;

/// What happens to a commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Fault {
    /// It is made.
    #[default]
    None,
    /// It is not made: `Unavailable`.
    Abort,
    /// It is made, and its answer is lost: `Unavailable`.
    LoseAnswer,
    /// It is made, then the coordinator dies: [`Faults::crashed`] is called, and this handle never answers well again.
    CrashAfterCommit,
}

/// Decides about commits; must be deterministic for a simulation to be.
pub trait Faults: Send + Sync {
    /// Asked once before each commit that changes something.
    fn at_commit(&self) -> Fault;
    /// The coordinator of this handle is to die now.
    fn crashed(&self) {}
}

/// No faults.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoFaults;

impl Faults for NoFaults {
    fn at_commit(&self) -> Fault {
        Fault::None
    }
}

/// What survives the coordinators of a simulation, like a disk.
#[derive(Clone)]
pub struct Memory {
    state: Arc<Mutex<State>>,
    faults: Arc<dyn Faults>,
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Memory")
    }
}

impl Memory {
    /// An empty store.
    #[must_use]
    pub fn new(faults: Arc<dyn Faults>) -> Self {
        Self { state: Arc::default(), faults }
    }

    /// Takes over, like the start of a coordinator: the epoch rises, and handles opened before are fenced off.
    pub async fn open(&self) -> Store {
        let mut state = lock(&self.state).await;
        state.epoch += 1;
        let fence = Fence { incarnation: 1, incarnation_id: Uuid::from_u128(1), epoch: state.epoch };
        let seq = watch::Sender::new(state.seq());
        let handle = Handle {
            memory: self.clone(),
            fence,
            seq,
            leading: watch::Sender::new(true),
            dead: Arc::new(AtomicBool::new(false)),
        };
        Store { backend: Arc::new(handle) }
    }
}

impl Store {
    /// A new store in memory; see [`Memory`] for one that outlives its coordinator.
    pub async fn memory(faults: Arc<dyn Faults>) -> Self {
        Memory::new(faults).open().await
    }
}

async fn lock(state: &Arc<Mutex<State>>) -> OwnedMutexGuard<State> {
    // The first way does not touch tokio's budget: without another writer this never waits.
    match Arc::clone(state).try_lock_owned() {
        Ok(guard) => guard,
        Err(_) => Arc::clone(state).lock_owned().await,
    }
}

type TargetKey = (String, TargetRef);

macro_rules! tables {
    ($($name:ident: $key:ty => $row:ty,)*) => {
        #[derive(Default)]
        pub(crate) struct State {
            epoch: u64,
            $(pub(crate) $name: Table<$key, $row>,)*
        }

        impl State {
            fn keep(&mut self) { $(self.$name.keep();)* }
            fn undo(&mut self) { $(self.$name.undo();)* }
            fn changed(&self) -> bool { false $(|| self.$name.changed())* }
        }
    };
}

tables! {
    hosts: HostId => HostRow,
    principals: PrincipalId => PrincipalRow,
    api_tokens: ApiTokenId => ApiTokenRow,
    join_tokens: JoinTokenId => JoinTokenRow,
    apps: (String, Name) => AppRow,
    targets: TargetKey => TargetRow,
    locks: TargetKey => LockRow,
    members: (String, TargetRef, HostId) => MemberRow,
    configs: (String, TargetRef, u64) => ConfigRow,
    builds: BuildId => BuildRow,
    releases: ReleaseId => ReleaseRow,
    environments: EnvironmentId => EnvironmentRow,
    runs: RunId => RunRow,
    rollouts: RolloutId => RolloutRow,
    events: u64 => EventRow,
    counters: &'static str => u64,
    artifacts: Digest => ArtifactRow,
    artifact_refs: (String, String, Digest) => (),
    log_segments: (String, u64) => LogSegmentRow,
    idempotency: (PrincipalId, String, String) => IdempotencyRow,
    secrets: (String, String) => SecretRow,
    seeds: SeedId => SeedRow,
    seed_copies: (SeedId, String) => SeedCopyRow,
    chunks: Digest => ChunkRow,
    chunk_segments: String => SegmentRow,
    chunk_refs: (SeedId, String) => (),
    meta: String => String,
}

/// The counter of the ledger.
const SEQ: &str = "ledger.seq";

impl State {
    fn seq(&self) -> u64 {
        self.counters.get(&SEQ).copied().unwrap_or(0)
    }
}

struct Handle {
    memory: Memory,
    fence: Fence,
    seq: watch::Sender<u64>,
    leading: watch::Sender<bool>,
    dead: Arc<AtomicBool>,
}

impl Handle {
    async fn enter(&self) -> Result<OwnedMutexGuard<State>> {
        let state = lock(&self.memory.state).await;
        if self.dead.load(Ordering::Relaxed) {
            return Err(Error::Unavailable { what: "this coordinator has died".to_owned() });
        }
        Ok(state)
    }

    fn transaction(&self, state: OwnedMutexGuard<State>) -> Box<dyn Transaction> {
        let faults = Arc::clone(&self.memory.faults);
        Box::new(MemoryTx { state, faults, dead: Arc::clone(&self.dead), seq: None })
    }
}

#[async_trait]
impl Backend for Handle {
    fn name(&self) -> &'static str {
        "memory"
    }

    async fn begin(&self) -> Result<Box<dyn Transaction>> {
        let state = self.enter().await?;
        if state.epoch != self.fence.epoch {
            self.leading.send_replace(false);
            return Err(Error::NotLeader { leader: None });
        }
        Ok(self.transaction(state))
    }

    async fn snapshot(&self) -> Result<Box<dyn Transaction>> {
        let state = self.enter().await?;
        Ok(self.transaction(state))
    }

    fn fence(&self) -> Fence {
        self.fence
    }

    fn seq(&self) -> &watch::Sender<u64> {
        &self.seq
    }

    fn leading(&self) -> watch::Receiver<bool> {
        self.leading.subscribe()
    }

    async fn close(&self) {
        self.dead.store(true, Ordering::Relaxed);
    }
}

/// One transaction; dropped without a commit, it undoes what it did.
pub(crate) struct MemoryTx {
    state: OwnedMutexGuard<State>,
    faults: Arc<dyn Faults>,
    dead: Arc<AtomicBool>,
    seq: Option<u64>,
}

impl Drop for MemoryTx {
    fn drop(&mut self) {
        self.state.undo();
    }
}

#[async_trait]
impl Transaction for MemoryTx {
    async fn commit(mut self: Box<Self>) -> Result<Option<u64>> {
        let fault = if self.state.changed() { self.faults.at_commit() } else { Fault::None };
        if fault == Fault::Abort {
            return Err(Error::Unavailable { what: "injected: aborted".to_owned() });
        }
        self.state.keep();
        match fault {
            Fault::None | Fault::Abort => Ok(self.seq),
            Fault::LoseAnswer => Err(Error::Unavailable { what: "injected: the answer was lost".to_owned() }),
            Fault::CrashAfterCommit => {
                self.dead.store(true, Ordering::Relaxed);
                self.faults.crashed();
                Err(Error::Unavailable { what: "injected: crashed after the commit".to_owned() })
            }
        }
    }

    async fn rollback(self: Box<Self>) {}
}

/// The version after this change; 0 given means that there must be none yet.
fn next_version(table: &'static str, key: impl ToString, stored: Option<u64>, given: u64) -> Result<u64> {
    match stored {
        None if given == 0 => Ok(1),
        Some(_) if given == 0 => Err(Error::exists(table, key)),
        Some(version) if version == given => Ok(version + 1),
        _ => Err(Error::conflict(table, key)),
    }
}

/// The last `limit` of the rows, in the order of `key`, last first.
fn last_first<R, K: Ord>(rows: impl Iterator<Item = R>, key: impl Fn(&R) -> K, limit: u32) -> Vec<R> {
    let mut rows: Vec<R> = rows.collect();
    rows.sort_by_key(|row| std::cmp::Reverse(key(row)));
    rows.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    rows
}

/// All rows in the order of `key`.
fn in_order<R, K: Ord>(rows: impl Iterator<Item = R>, key: impl Fn(&R) -> K) -> Vec<R> {
    let mut rows: Vec<R> = rows.collect();
    rows.sort_by_key(|row| key(row));
    rows
}
