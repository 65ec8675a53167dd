//! A seed taken from an environment that runs: everything stands still for one instant, over all of its stores.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::environment::EnvironmentState;
use domain::stack::{Durability, StoreKind};
use futures::future::{join_all, try_join_all};
use proto::v1;
use tokio::process::{Child, Command};

use super::feed::{self, Finished};
use super::scan::Canaries;
use super::sealed::{Login, volume};
use super::stack::Store;
use super::{Made, Setup, elastic, postgres, seal, stack};
use crate::environments::failure::Failure;
use crate::environments::{View, credentials};
use crate::freezer::{Boxed, Cgroups, Freezer as _};
use crate::host::Host;

/// Nothing stands still for longer, whatever happens to the agent.
pub const LIMIT: Duration = Duration::from_secs(2);

/// How long an environment that begins to run may take to be ready.
const SETTLES: Duration = Duration::from_secs(60);

/// How often it is tried to make everything stand still, and how long it runs in between.
const ATTEMPTS: usize = 3;
const PAUSE: Duration = Duration::from_millis(500);

/// Takes a snapshot of an environment of this host.
pub(super) async fn run(setup: &Setup, order: &v1::SeedOrder, environment: &str) -> Result<Made, Failure> {
    let host = &setup.host;
    let state = |text: &str| Failure::lasting("E_SNAPSHOT_STATE", format!("{text}; bring the environment up first"));
    let mut views =
        setup.environments.watch(environment).ok_or_else(|| state("the environment is not on this host"))?;
    // An agent that has just begun finds out first what runs.
    let settled = |view: &View| !matches!(view.observed.state, EnvironmentState::Pending | EnvironmentState::Starting);
    let view = match tokio::time::timeout(SETTLES, views.wait_for(settled)).await {
        Ok(Ok(view)) => view.clone(),
        Ok(Err(_)) => return Err(state("the environment is not on this host any more")),
        Err(_) => return Err(state("the environment is not ready")),
    };
    if view.observed.state != EnvironmentState::Ready {
        return Err(state("the environment is not ready"));
    }
    let stack = setup.environments.stack(environment)?;
    let durability = stack.settings.durability;
    let stores = stack::of(stack);
    setup.tell(&order.id, "writing down what is in memory");
    let boxes = containers(host, &view, &stores).await?;
    settle(&boxes).await;
    let from = host.pool.environment(environment);
    host.pool.sync(from.clone()).await?;
    let aside = host.pool.snapshot(&format!("import-{}", order.id));
    host.pool.remove(aside.clone()).await?;
    setup.tell(&order.id, "taking the data");
    let names = seal::volumes(&from);
    let take = || async {
        let clones = names.iter().map(|name| host.pool.clone_tree(volume(&from, name), volume(&aside, name)));
        try_join_all(clones).await.map(|_| ()).map_err(Failure::from)
    };
    let mut taken = still(host, &boxes, take()).await;
    for _ in 1..ATTEMPTS {
        // Who waits for a busy disk does not stop before it has answered: nothing was taken yet.
        if !taken.as_ref().is_err_and(|why| why.code == "E_FREEZE") {
            break;
        }
        tokio::time::sleep(PAUSE).await;
        taken = still(host, &boxes, take()).await;
    }
    unsettle(&boxes, durability).await;
    let made = match taken {
        Ok(freeze) => seal_aside(setup, order, &view, &stores, (&aside, freeze)).await,
        Err(why) => Err(why),
    };
    host.pool.remove(aside).await?;
    host.sizes.ask(environment);
    made
}

async fn seal_aside(
    setup: &Setup,
    order: &v1::SeedOrder,
    view: &View,
    stores: &BTreeMap<String, Store>,
    (aside, freeze): (&Path, Duration),
) -> Result<Made, Failure> {
    setup.tell(&order.id, "reading the data");
    let kinds = stores.iter().map(|(name, store)| (name.clone(), store.kind)).collect();
    let finished = stores.iter().map(|(name, store)| {
        let user = store.service.environment.get("POSTGRES_USER").map_or("postgres", String::as_str).to_owned();
        let password = credentials::password(&store.service).map(str::to_owned);
        let login = password.filter(|_| store.kind == StoreKind::Postgres).map(|password| Login { user, password });
        (name.clone(), Finished { login, ..Finished::default() })
    });
    let described =
        seal::Described { view, kinds, finished: finished.collect(), masked: false, order: &order.id, freeze };
    let none = Canaries::new(&[]).map_err(|why| Failure::lasting("E_SEED_CANARY", why))?;
    seal::run(&setup.host, aside, &described, &none).await
}

/// A container that runs, and the way into its store.
struct One<'a> {
    name: &'a str,
    boxed: Boxed,
    store: Option<(&'a Store, IpAddr, u16)>,
}

impl One<'_> {
    fn is(&self, kind: StoreKind) -> bool {
        self.store.is_some_and(|(store, _, _)| store.kind == kind)
    }

    async fn postgres(&self, sql: &str) -> Result<(), String> {
        let Some((store, address, port)) = self.store.filter(|_| self.is(StoreKind::Postgres)) else { return Ok(()) };
        let user = store.service.environment.get("POSTGRES_USER").map_or("postgres", String::as_str);
        let password = credentials::password(&store.service).unwrap_or_default();
        postgres::run(address, port, user, password, sql).await
    }

    async fn flush(&self) -> Result<(), String> {
        match self.store.filter(|_| self.is(StoreKind::Elasticsearch)) {
            Some((store, address, _)) => elastic::Node::of(&store.service, address).flush().await,
            None => Ok(()),
        }
    }

    async fn redis_save(&self) -> Result<(), Failure> {
        let Some((store, address, port)) = self.store.filter(|_| self.is(StoreKind::Redis)) else { return Ok(()) };
        let saved = feed::redis_save(address, port, credentials::password(&store.service)).await;
        saved.map_err(|why| Failure::passing("E_SNAPSHOT_SAVE", format!("{}: SAVE: {why}", self.name)))
    }
}

/// The environment's containers that run.
async fn containers<'a>(
    host: &Host,
    view: &'a View,
    stores: &'a BTreeMap<String, Store>,
) -> Result<Vec<One<'a>>, Failure> {
    let found = try_join_all(view.specs.iter().map(|(name, spec)| async move {
        let found = host.engine.inspect(&spec.name).await?;
        let one = found.and_then(|found| {
            let address = found.addresses.get(&spec.network).copied();
            let store = stores.get(name).zip(address).map(|(store, address)| {
                let first = store.service.ports.first().or(store.service.expose.first()).copied();
                (store, address, first.unwrap_or(default_port(store.kind)))
            });
            Some(One { name: name.as_str(), boxed: Boxed { id: found.id, pid: found.pid? }, store })
        });
        Ok::<_, Failure>(one)
    }))
    .await?;
    Ok(found.into_iter().flatten().collect())
}

fn default_port(kind: StoreKind) -> u16 {
    match kind {
        StoreKind::Postgres => 5432,
        StoreKind::Mysql => 3306,
        StoreKind::Redis => 6379,
        StoreKind::Elasticsearch => 9200,
    }
}

/// From here on commits are on disk before they are answered, and little is left to be written down.
async fn settle(boxes: &[One<'_>]) {
    join_all(boxes.iter().map(|one| async move {
        let sql = "ALTER SYSTEM SET synchronous_commit = on; SELECT pg_reload_conf(); CHECKPOINT";
        if let Err(why) = one.flush().await.and(one.postgres(sql).await) {
            tracing::info!(service = one.name, %why, "its memory is not on disk; its last commits may miss in the snapshot");
        }
    }))
    .await;
}

async fn unsettle(boxes: &[One<'_>], durability: Durability) {
    if durability == Durability::Strict {
        return;
    }
    join_all(boxes.iter().map(|one| async move {
        let sql = "ALTER SYSTEM SET synchronous_commit = off; SELECT pg_reload_conf()";
        if let Err(why) = one.postgres(sql).await {
            tracing::warn!(service = one.name, %why, "its commits stay slower than they were");
        }
    }))
    .await;
}

/// Does the work while all containers stand still; answers for how long they did.
async fn still(
    host: &Arc<Host>,
    boxes: &[One<'_>],
    work: impl Future<Output = Result<(), Failure>>,
) -> Result<Duration, Failure> {
    let mut guard = guard(boxes)?;
    let began = Instant::now();
    let freeze = |redis: bool| {
        let some = boxes.iter().filter(move |one| one.is(StoreKind::Redis) == redis);
        try_join_all(some.map(|one| host.freezer.freeze(&one.boxed)))
    };
    let worked = tokio::time::timeout(LIMIT, async {
        let failed = |why: crate::freezer::Error| Failure::passing("E_FREEZE", why.to_string());
        freeze(false).await.map_err(failed)?;
        // What Redis holds is in memory only: it is written down when nobody whom it could have heard of goes on.
        try_join_all(boxes.iter().map(One::redis_save)).await?;
        freeze(true).await.map_err(failed)?;
        work.await
    });
    let worked = worked.await.unwrap_or_else(|_| Err(too_slow()));
    let thawed = try_join_all(boxes.iter().map(|one| host.freezer.thaw(&one.boxed))).await;
    let took = began.elapsed();
    drop(guard.stdin.take());
    let _ = guard.wait().await;
    thawed.map_err(|why| Failure::passing("E_FREEZE", why.to_string()))?;
    worked?;
    // The guard may have let them go before the last file was taken.
    if took < LIMIT { Ok(took) } else { Err(too_slow()) }
}

fn too_slow() -> Failure {
    Failure::lasting(
        "E_SNAPSHOT_SLOW",
        format!(
            "the data could not be taken within {LIMIT:?}; nothing was kept. A pool that copies is too slow for this: `muster host show` says which it is and why"
        ),
    )
}

/// A process that thaws everything when this agent dies or takes too long.
fn guard(boxes: &[One<'_>]) -> Result<Child, Failure> {
    let failed = |why: std::io::Error| Failure::passing("E_FREEZE", format!("the guard does not start: {why}"));
    let binary = std::env::current_exe().map_err(failed)?;
    let mut command = Command::new(binary);
    command.arg("thaw").args(boxes.iter().map(|one| format!("{}:{}", one.boxed.id, one.boxed.pid)));
    command.stdin(Stdio::piped()).stdout(Stdio::null()).process_group(0);
    command.spawn().map_err(failed)
}

/// The guard itself, a process of its own: waits until its standard input ends, at most [`LIMIT`], and thaws.
#[must_use]
pub fn guard_main(containers: &[String]) -> ExitCode {
    let boxed = |text: &String| {
        let (id, pid) = text.split_once(':')?;
        Some(Boxed { id: id.to_owned(), pid: pid.parse().ok()? })
    };
    let boxes: Vec<Boxed> = containers.iter().filter_map(boxed).collect();
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return ExitCode::FAILURE;
    };
    runtime.block_on(async {
        let (mut input, mut nothing) = (tokio::io::stdin(), tokio::io::sink());
        let _ = tokio::time::timeout(LIMIT, tokio::io::copy(&mut input, &mut nothing)).await;
        let freezer = Cgroups::default();
        for one in &boxes {
            if let Err(why) = freezer.thaw(one).await {
                eprintln!("{}: {why}", one.id);
            }
        }
    });
    // Whoever waits on standard input in another thread is not waited for.
    runtime.shutdown_background();
    ExitCode::SUCCESS
}
