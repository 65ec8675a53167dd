//! A seed taken from an environment that runs: everything stands still for one instant, over all of its stores.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::environment::EnvironmentState;
use domain::ids::EnvironmentId;
use domain::stack::{Durability, MountSource, Stack, StoreKind};
use futures::future::{join_all, try_join_all};
use proto::v1;
use tokio::process::{Child, Command};
use tokio::sync::watch;

use super::feed::{self, Finished};
use super::scan::Canaries;
use super::sealed::{Login, volume};
use super::stack::Store;
use super::{Made, Setup, asleep, elastic, postgres, seal, stack};
use crate::environments::failure::Failure;
use crate::environments::{Guest, View, credentials, plan};
use crate::freezer::{Boxed, Cgroups, Freezer as _};
use crate::host::Host;

/// Nothing stands still for longer, whatever happens to the agent.
pub const LIMIT: Duration = Duration::from_secs(2);

/// How long an environment that begins to run may take to be ready.
const SETTLES: Duration = Duration::from_secs(60);

/// How often it is tried to make everything stand still, and how long it runs in between.
const ATTEMPTS: usize = 3;
const PAUSE: Duration = Duration::from_millis(500);

/// Takes a snapshot of an environment of this host: of what runs, or of what lies there if it is stopped.
pub(super) async fn run(setup: &Setup, order: &v1::SeedOrder, environment: &str) -> Result<Made, Failure> {
    let from = setup.host.pool.environment(environment);
    if seal::volumes(&from).is_empty() {
        return Err(Failure::lasting("E_SNAPSHOT_EMPTY", "the environment has no data on this host"));
    }
    let missing = || state("it is not on this host");
    // It does not go to sleep meanwhile. What is taken of it is no use of it: it does not live longer for that.
    let guest = setup.environments.quiet_guest(environment).ok_or_else(missing)?;
    for _ in 0..ATTEMPTS {
        let mut views = setup.environments.watch(environment).ok_or_else(missing)?;
        let view = settled(&mut views).await?;
        match view.observed.state {
            EnvironmentState::Ready | EnvironmentState::Failed => {
                return live(setup, order, &view, &guest, environment).await;
            }
            EnvironmentState::Asleep => {
                if let Some(made) = asleep::run(setup, order, environment, &view, &views).await? {
                    return Ok(made);
                }
            }
            EnvironmentState::Frozen => {
                setup.tell(&order.id, "thawing the environment");
                setup.environments.poke(environment);
                let _ = tokio::time::timeout(SETTLES, guest.awake()).await;
            }
            _ => return Err(state("it is not up")),
        }
    }
    Err(Failure::passing("E_SNAPSHOT_STATE", "the environment woke and slept again while its data was to be taken"))
}

fn state(text: &str) -> Failure {
    Failure::lasting("E_SNAPSHOT_STATE", format!("the environment cannot be taken: {text}; bring it up first"))
}

/// How it stands, once it is not on its way up any more: an agent that has just begun finds out first what runs.
async fn settled(views: &mut watch::Receiver<View>) -> Result<View, Failure> {
    let settled = |view: &View| !matches!(view.observed.state, EnvironmentState::Pending | EnvironmentState::Starting);
    let seen = tokio::time::timeout(SETTLES, views.wait_for(settled)).await;
    match seen.map(|seen| seen.map(|view| view.clone())) {
        Ok(Ok(view)) => Ok(view),
        Ok(Err(_)) => Err(state("it is not on this host any more")),
        Err(_) => Err(state("it is not ready")),
    }
}

/// Of an environment that runs: everything stands still for one instant.
async fn live(
    setup: &Setup,
    order: &v1::SeedOrder,
    view: &View,
    guest: &Guest,
    environment: &str,
) -> Result<Made, Failure> {
    let host = &setup.host;
    let stack = setup.environments.stack(environment)?;
    let durability = stack.settings.durability;
    let writers = writers(setup, view, &stack, environment).await?;
    let stores = stack::of(stack);
    setup.tell(&order.id, "writing down what is in memory");
    let boxes = containers(host, view, &stores).await?;
    settle(&boxes).await;
    let from = host.pool.environment(environment);
    host.pool.sync(from.clone()).await?;
    let aside = aside(host, order).await?;
    setup.tell(&order.id, "taking the data");
    let names = seal::volumes(&from);
    let take = || async {
        let clones = names.iter().map(|name| host.pool.clone_tree(volume(&from, name), volume(&aside, name)));
        try_join_all(clones).await.map(|_| ()).map_err(Failure::from)
    };
    let mut taken = still(host, guest, &boxes, take()).await;
    for _ in 1..ATTEMPTS {
        // Who waits for a busy disk does not stop before it has answered: nothing was taken yet.
        if !taken.as_ref().is_err_and(|why| why.code == "E_FREEZE") {
            break;
        }
        tokio::time::sleep(PAUSE).await;
        taken = still(host, guest, &boxes, take()).await;
    }
    // Of one that failed a service may be started again at any time.
    if taken.is_ok() && view.observed.state == EnvironmentState::Failed {
        let now = containers(host, view, &stores).await?;
        if now.iter().any(|one| !boxes.iter().any(|other| other.boxed == one.boxed)) {
            taken = Err(Failure::passing("E_FREEZE", "a service was started while its data was taken"));
        }
    }
    unsettle(&boxes, durability).await;
    let made = match taken {
        Ok(freeze) => seal_aside(setup, order, writers, &stores, (&aside, freeze)).await,
        Err(why) => Err(why),
    };
    host.pool.remove(aside).await?;
    host.sizes.ask(environment);
    made
}

/// Where the data is cloned to before it is read; empty.
pub(super) async fn aside(host: &Host, order: &v1::SeedOrder) -> Result<PathBuf, Failure> {
    let aside = host.pool.snapshot(&format!("import-{}", order.id));
    host.pool.remove(aside.clone()).await?;
    Ok(aside)
}

/// Who writes which volume: as the containers that the agent made say, else as the stack says of those that are there.
pub(super) async fn writers(
    setup: &Setup,
    view: &View,
    stack: &Stack,
    environment: &str,
) -> Result<seal::Writers, Failure> {
    let mut writers = seal::writers(&view.specs);
    let id: EnvironmentId = environment.parse().map_err(|why| Failure::lasting("E_ID", format!("{why}")))?;
    let volumes = seal::volumes(&setup.host.pool.environment(environment));
    for (name, service) in stack.services.iter().filter(|(name, _)| !view.specs.contains_key(*name)) {
        let Some(found) = setup.host.engine.inspect(&plan::container(&id.short(), name)).await? else { continue };
        let mounts = service.mounts.iter().enumerate().filter(|(_, mount)| !mount.read_only);
        let declared = mounts.filter_map(|(index, mount)| match &mount.source {
            MountSource::Volume(volume) => Some(volume.clone()),
            MountSource::Anonymous => Some(format!("{name}.{index}")),
            MountSource::Folder(_) | MountSource::Tmpfs => None,
        });
        let of_image = volumes.iter().filter(|volume| volume.starts_with(&format!("{name}.image"))).cloned();
        for volume in declared.chain(of_image) {
            writers.entry(volume).or_insert_with(|| (name.clone(), found.image.clone()));
        }
    }
    Ok(writers)
}

pub(super) async fn seal_aside(
    setup: &Setup,
    order: &v1::SeedOrder,
    writers: seal::Writers,
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
        seal::Described { writers, kinds, finished: finished.collect(), masked: false, order: &order.id, freeze };
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
    guest: &Guest,
    boxes: &[One<'_>],
    work: impl Future<Output = Result<(), Failure>>,
) -> Result<Duration, Failure> {
    let nobody_enters = guest.standing_still().await;
    let mut guard = guard(boxes)?;
    let began = Instant::now();
    let until = tokio::time::Instant::from_std(began) + LIMIT;
    let freeze = |redis: bool| {
        let some = boxes.iter().filter(move |one| one.is(StoreKind::Redis) == redis);
        try_join_all(some.map(|one| host.freezer.freeze(&one.boxed)))
    };
    let stands = tokio::time::timeout_at(until, async {
        let failed = |why: crate::freezer::Error| Failure::passing("E_FREEZE", why.to_string());
        freeze(false).await.map_err(failed)?;
        // What Redis holds is in memory only: it is written down when nobody whom it could have heard of goes on.
        try_join_all(boxes.iter().map(One::redis_save)).await?;
        freeze(true).await.map(|_| ()).map_err(failed)
    });
    tokio::pin!(work);
    let worked = match stands.await.unwrap_or_else(|_| Err(too_slow())) {
        Ok(()) => tokio::time::timeout_at(until, &mut work).await,
        Err(why) => Ok(Err(why)),
    };
    let thawed = try_join_all(boxes.iter().map(|one| host.freezer.thaw(&one.boxed))).await;
    let took = began.elapsed();
    drop(guard.stdin.take());
    let _ = guard.wait().await;
    drop(nobody_enters);
    let worked = match worked {
        Ok(worked) => worked,
        Err(_) => {
            // What was begun ends before what it made is removed.
            let _ = work.await;
            Err(too_slow())
        }
    };
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
    // This very program, also after another one has its name.
    let mut command = Command::new("/proc/self/exe");
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
