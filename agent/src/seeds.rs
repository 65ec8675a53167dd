//! Seeds and snapshots of this host: made as ordered, kept in the pool, removed.
//!
//! A seed is made in an environment of its own, of the stack's stores only: the inputs are fed, masked, and everything
//! is stopped cleanly; then its volumes are read once (hash and canaries together) and cloned into the pool. An
//! import that is interrupted begins again from its order: nothing of it was visible.

pub mod elastic;
mod feed;
mod import;
mod inputs;
mod lines;
pub mod mysql;
pub mod postgres;
mod scan;
mod seal;
pub mod sealed;
pub mod snapshot;
mod stack;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::ids::EnvironmentId;
use domain::stack::StoreKind;
use proto::v1;
use proto::v1::agent_message::Message;
use proto::v1::seed_order::Work;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tonic::transport::Channel;

use crate::engine::MountSpec;
use crate::environments::Environments;
use crate::environments::failure::Failure;
use crate::host::Host;
use crate::pool::Pool;
use sealed::Sealed;

/// What the `run` of an environment begins with in which a seed is made.
const MARK: &str = "seed:";
/// Where a seed's inputs are in its containers.
const INPUTS: &str = "/run/muster-seed";
/// Seeds that are made at a time; the others wait.
const AT_A_TIME: usize = 2;

/// Whether an environment's `run` names a seed that is made in it.
#[must_use]
pub fn is_one(run: &str) -> bool {
    run.starts_with(MARK)
}

/// The inputs' folder, mounted into the containers in which a seed is made.
#[must_use]
pub fn inputs(pool: &Pool, run: &str) -> Option<MountSpec> {
    let id = run.strip_prefix(MARK)?;
    Some(MountSpec::Bind { source: folder(pool, id), target: INPUTS.to_owned(), read_only: true })
}

/// Where the inputs of a seed lie while it is made.
fn folder(pool: &Pool, id: &str) -> PathBuf {
    pool.snapshot(&format!("import-{id}"))
}

/// The word of a store kind in manifests.
#[must_use]
pub fn kind_name(kind: StoreKind) -> &'static str {
    match kind {
        StoreKind::Postgres => "postgres",
        StoreKind::Mysql => "mysql",
        StoreKind::Redis => "redis",
        StoreKind::Elasticsearch => "elasticsearch",
    }
}

/// The id of a seed's result.
fn result_id(id: &str) -> String {
    format!("seed:{id}")
}

/// What making a seed came to.
#[derive(Debug)]
struct Made {
    sealed: Sealed,
    canaries: usize,
    freeze: std::time::Duration,
}

/// What making seeds works with.
#[derive(Debug, Clone)]
struct Setup {
    host: Arc<Host>,
    environments: Arc<Environments>,
    channel: watch::Receiver<Option<Channel>>,
}

impl Setup {
    fn tell(&self, id: &str, detail: &str) {
        let report = v1::SeedReport {
            id: id.to_owned(),
            state: v1::SeedState::Making.into(),
            detail: detail.to_owned(),
            ..Default::default()
        };
        self.host.outbox.tell(&format!("seed {id}"), Message::Seed(report));
    }
}

/// All seeds of this host.
#[derive(Debug)]
pub struct Seeds {
    setup: Setup,
    active: Mutex<BTreeMap<String, AbortHandle>>,
    places: Arc<tokio::sync::Semaphore>,
}

impl Seeds {
    /// None under way.
    #[must_use]
    pub fn new(host: Arc<Host>, environments: Arc<Environments>, channel: watch::Receiver<Option<Channel>>) -> Self {
        let setup = Setup { host, environments, channel };
        Self { setup, active: Mutex::default(), places: Arc::new(tokio::sync::Semaphore::new(AT_A_TIME)) }
    }

    fn active(&self) -> MutexGuard<'_, BTreeMap<String, AbortHandle>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes what a killed agent left half-made. Must be called before orders are taken.
    pub async fn load(&self) {
        let pool = Arc::clone(&self.setup.host.pool);
        let swept = tokio::task::spawn_blocking(move || {
            sealed::all(&pool);
            let entries = std::fs::read_dir(pool.layout().snapshots()).into_iter().flatten().flatten();
            for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("import-")) {
                if let Err(why) = pool.remove_now(&entry.path()) {
                    tracing::warn!(folder = %entry.path().display(), %why, "inputs of an earlier import stay");
                }
            }
        });
        if let Err(why) = swept.await {
            tracing::warn!(%why, "seeds were not swept");
        }
        let environments: &Environments = &self.setup.environments;
        for id in environments.of_runs(is_one) {
            if let Err(why) = environments.drop(&id).await {
                tracing::warn!(environment = %id, %why, "the environment of an earlier import stays");
            }
        }
    }

    /// Takes an order. The same one again changes nothing while it is under way or its result is not acknowledged.
    pub async fn order(&self, order: v1::SeedOrder) {
        let id = order.id.clone();
        if id.parse::<domain::ids::EnvironmentId>().is_err() {
            tracing::warn!(seed = %id, "an order without a seed id");
            return;
        }
        let under_way = self.active().get(&id).is_some_and(|task| !task.is_finished());
        if under_way || self.has_result(&id).await {
            return;
        }
        let (setup, places) = (self.setup.clone(), Arc::clone(&self.places));
        let mut active = self.active();
        active.retain(|_, task| !task.is_finished());
        let task = tokio::spawn(async move {
            setup.tell(&order.id, "waiting for other seeds");
            let _place = places.acquire().await.ok();
            let began = std::time::Instant::now();
            let outcome = perform(&setup, &order).await;
            conclude(&setup, &order, outcome, began.elapsed()).await;
        });
        active.insert(id, task.abort_handle());
    }

    async fn has_result(&self, id: &str) -> bool {
        let wanted = result_id(id);
        let results = self.setup.host.state.results().await.unwrap_or_default();
        results.iter().any(|kept| matches!(&kept.message, Some(Message::Seed(report)) if report.result == wanted))
    }
}

/// None: it was removed.
async fn perform(setup: &Setup, order: &v1::SeedOrder) -> Result<Option<Made>, Failure> {
    match &order.work {
        Some(Work::Import(head)) => import::run(setup, order, head).await.map(Some),
        Some(Work::Snapshot(environment)) => {
            let id: EnvironmentId = environment
                .parse()
                .map_err(|why| Failure::lasting("E_ID", format!("the snapshot's environment: {why}")))?;
            snapshot::run(setup, order, &id.to_string()).await.map(Some)
        }
        Some(Work::Remove(digest)) => {
            remove(setup, digest).await?;
            Ok(None)
        }
        None => Err(Failure::lasting("E_AGENT_OLD", "this agent does not know what is ordered; update it")),
    }
}

async fn remove(setup: &Setup, digest: &str) -> Result<(), Failure> {
    if digest.len() != 64 || !digest.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(Failure::lasting("E_ID", "the seed's digest is not one"));
    }
    let (pool, digest) = (Arc::clone(&setup.host.pool), digest.to_owned());
    let removed = tokio::task::spawn_blocking(move || sealed::remove(&pool, &pool.seed(&digest))).await;
    removed.map_err(|why| Failure::passing("E_POOL", why.to_string()))?.map_err(Failure::from)
}

async fn conclude(
    setup: &Setup,
    order: &v1::SeedOrder,
    outcome: Result<Option<Made>, Failure>,
    took: std::time::Duration,
) {
    let mut report = v1::SeedReport {
        id: order.id.clone(),
        took_micros: proto::convert::micros(took),
        result: result_id(&order.id),
        ..Default::default()
    };
    match outcome {
        Ok(Some(made)) => {
            report.set_state(v1::SeedState::Ready);
            report.bytes = made.sealed.bytes();
            report.parts = made.sealed.messages();
            report.masked = made.sealed.masked;
            report.digest = made.sealed.digest;
            report.canaries = u32::try_from(made.canaries).unwrap_or(u32::MAX);
            report.freeze_micros = proto::convert::micros(made.freeze);
        }
        Ok(None) => report.set_state(v1::SeedState::Removed),
        Err(why) => {
            tracing::warn!(seed = %order.id, %why, "the seed was not made");
            report.set_state(v1::SeedState::Failed);
            report.reason = Some(v1::Reason { code: why.code, text: why.text });
        }
    }
    let host = &setup.host;
    while let Err(why) = host.outbox.result(&host.state, &result_id(&order.id), Message::Seed(report.clone())).await {
        tracing::error!(seed = %order.id, %why, "the seed's result cannot be kept");
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
}
