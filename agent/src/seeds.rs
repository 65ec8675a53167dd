//! Seeds and snapshots of this host: made as ordered, kept in the pool, removed.
//!
//! A seed is made in an environment of its own, of the stack's stores only: the inputs are fed, masked, and everything
//! is stopped cleanly; then its volumes are read once (hash and canaries together) and cloned into the pool. An
//! import that is interrupted begins again from its order: nothing of it was visible.

mod asleep;
mod cutter;
mod doublewrite;
pub mod elastic;
mod feed;
mod import;
mod index;
mod inputs;
mod lines;
mod made;
mod moving;
pub mod mysql;
pub mod postgres;
mod pull;
mod push;
mod rebuild;
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
use made::Made;

/// What the `run` of an environment begins with in which a seed is made.
const MARK: &str = "seed:";
/// Where a seed's inputs are in its containers.
const INPUTS: &str = "/run/muster-seed";
/// Why an order about a seed is begun again, and after which pause.
const AWAY: &str = "E_ENGINE_AWAY";
/// See [`AWAY`].
const PAUSE: std::time::Duration = std::time::Duration::from_secs(1);
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

/// The id of the result of an order.
fn result_id(key: &str) -> String {
    format!("seed:{key}")
}

/// Which order it is.
fn work(order: &v1::SeedOrder) -> v1::SeedWork {
    match &order.work {
        Some(Work::Push(_)) => v1::SeedWork::Push,
        Some(Work::Pull(_)) => v1::SeedWork::Pull,
        _ => v1::SeedWork::Unspecified,
    }
}

/// What an order came to.
#[derive(Debug)]
enum Done {
    Made(Box<Made>),
    Removed,
    /// So many bytes went over the network.
    Moved(u64),
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
        self.tell_of(v1::SeedWork::Unspecified, id, detail);
    }

    fn tell_of(&self, work: v1::SeedWork, id: &str, detail: &str) {
        let report = v1::SeedReport {
            work: work.into(),
            id: id.to_owned(),
            state: v1::SeedState::Making.into(),
            detail: detail.to_owned(),
            ..Default::default()
        };
        self.host.outbox.tell(&format!("seed {}", work.key(id)), Message::Seed(report));
    }
}

/// All seeds of this host.
#[derive(Debug)]
pub struct Seeds {
    setup: Setup,
    active: Mutex<BTreeMap<String, AbortHandle>>,
    places: Arc<tokio::sync::Semaphore>,
    /// Of those that are moved.
    ways: Arc<tokio::sync::Semaphore>,
}

impl Seeds {
    /// None under way.
    #[must_use]
    pub fn new(host: Arc<Host>, environments: Arc<Environments>, channel: watch::Receiver<Option<Channel>>) -> Self {
        let setup = Setup { host, environments, channel };
        let places = || Arc::new(tokio::sync::Semaphore::new(AT_A_TIME));
        Self { setup, active: Mutex::default(), places: places(), ways: places() }
    }

    fn active(&self) -> MutexGuard<'_, BTreeMap<String, AbortHandle>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes what a killed agent left half-made. Must be called before orders are taken.
    pub async fn load(&self) {
        let pool = Arc::clone(&self.setup.host.pool);
        let swept = tokio::task::spawn_blocking(move || {
            sealed::all(&pool);
            pull::sweep(&pool);
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
        let work = work(&order);
        let key = work.key(&id);
        let under_way = self.active().get(&key).is_some_and(|task| !task.is_finished());
        if under_way || self.has_result(&key).await {
            return;
        }
        if matches!(order.work, Some(Work::Remove(_))) {
            self.stop_moving(&id);
        }
        let moves = work != v1::SeedWork::Unspecified;
        let (setup, places) = (self.setup.clone(), Arc::clone(if moves { &self.ways } else { &self.places }));
        let mut active = self.active();
        active.retain(|_, task| !task.is_finished());
        let task = tokio::spawn(async move {
            setup.tell_of(work, &order.id, "waiting for other seeds");
            let _place = places.acquire().await.ok();
            let began = std::time::Instant::now();
            let mut outcome = perform(&setup, &order).await;
            // Nothing of it was visible: it begins again once there is an engine.
            while outcome.as_ref().is_err_and(|why| why.code == AWAY) {
                setup.tell_of(work, &order.id, "waiting for the container engine");
                tokio::time::sleep(PAUSE).await;
                outcome = perform(&setup, &order).await;
            }
            conclude(&setup, &order, outcome, began.elapsed()).await;
        });
        active.insert(key, task.abort_handle());
    }

    /// What is removed is not moved any more.
    fn stop_moving(&self, id: &str) {
        let active = self.active();
        for work in [v1::SeedWork::Push, v1::SeedWork::Pull] {
            if let Some(task) = active.get(&work.key(id)) {
                task.abort();
            }
        }
    }

    async fn has_result(&self, key: &str) -> bool {
        let wanted = result_id(key);
        let results = self.setup.host.state.results().await.unwrap_or_default();
        results.iter().any(|kept| matches!(&kept.message, Some(Message::Seed(report)) if report.result == wanted))
    }
}

async fn perform(setup: &Setup, order: &v1::SeedOrder) -> Result<Done, Failure> {
    let made = |made| Done::Made(Box::new(made));
    if matches!(order.work, Some(Work::Import(_) | Work::Snapshot(_)))
        && let Some(before) = before(setup, &order.id).await
    {
        return Ok(made(before));
    }
    match &order.work {
        Some(Work::Import(head)) => import::run(setup, order, head).await.map(made),
        Some(Work::Snapshot(environment)) => {
            let id: EnvironmentId = environment
                .parse()
                .map_err(|why| Failure::lasting("E_ID", format!("the snapshot's environment: {why}")))?;
            snapshot::run(setup, order, &id.to_string()).await.map(made)
        }
        Some(Work::Remove(digest)) => {
            remove(setup, &order.id, checked(digest)?).await?;
            Ok(Done::Removed)
        }
        Some(Work::Push(digest)) => push::run(setup, &order.id, checked(digest)?).await.map(Done::Moved),
        Some(Work::Pull(digest)) => pull::run(setup, &order.id, checked(digest)?).await.map(Done::Moved),
        None => Err(Failure::lasting("E_AGENT_OLD", "this agent does not know what is ordered; update it")),
    }
}

/// What the order came to before this agent was started, and was not told.
async fn before(setup: &Setup, order: &str) -> Option<Made> {
    let (pool, order) = (Arc::clone(&setup.host.pool), order.to_owned());
    tokio::task::spawn_blocking(move || Made::before(&pool, &order)).await.ok().flatten()
}

fn checked(digest: &str) -> Result<&str, Failure> {
    let good = digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit());
    if good { Ok(digest) } else { Err(Failure::lasting("E_ID", "the seed's digest is not one")) }
}

async fn remove(setup: &Setup, id: &str, digest: &str) -> Result<(), Failure> {
    let (pool, id, digest) = (Arc::clone(&setup.host.pool), id.to_owned(), digest.to_owned());
    let removed = tokio::task::spawn_blocking(move || {
        pull::forget(&pool, &id)?;
        sealed::remove(&pool, &pool.seed(&digest))
    })
    .await;
    removed.map_err(|why| Failure::passing("E_POOL", why.to_string()))?.map_err(Failure::from)
}

async fn conclude(setup: &Setup, order: &v1::SeedOrder, outcome: Result<Done, Failure>, took: std::time::Duration) {
    let work = work(order);
    let result = result_id(&work.key(&order.id));
    let mut report = v1::SeedReport {
        work: work.into(),
        id: order.id.clone(),
        took_micros: proto::convert::micros(took),
        result: result.clone(),
        ..Default::default()
    };
    match outcome {
        Ok(Done::Made(made)) => {
            report.set_state(v1::SeedState::Ready);
            report.bytes = made.sealed.bytes();
            report.parts = made.sealed.messages();
            report.masked = made.sealed.masked;
            report.digest = made.sealed.digest;
            report.canaries = u32::try_from(made.canaries).unwrap_or(u32::MAX);
            report.freeze_micros = proto::convert::micros(made.freeze);
        }
        Ok(Done::Moved(bytes)) => {
            report.set_state(v1::SeedState::Ready);
            report.moved_bytes = bytes;
        }
        Ok(Done::Removed) => report.set_state(v1::SeedState::Removed),
        Err(why) => {
            tracing::warn!(seed = %order.id, %why, ?work, "an order about a seed was not carried out");
            report.set_state(v1::SeedState::Failed);
            report.reason = Some(v1::Reason { code: why.code, text: why.text });
        }
    }
    let host = &setup.host;
    while let Err(why) = host.outbox.result(&host.state, &result, Message::Seed(report.clone())).await {
        tracing::error!(seed = %order.id, %why, "the seed's result cannot be kept");
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
}
