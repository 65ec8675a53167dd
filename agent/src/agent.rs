//! The agent as a whole: what it is made of, and how it starts.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use domain::host::Facts;
use proto::v1;
use tokio::sync::{Semaphore, watch};
use tokio::task::AbortHandle;
use tonic::transport::Channel;

use crate::config::Config;
use crate::engine::Engine;
use crate::engine::docker::Docker;
use crate::engine::watch::Watch;
use crate::environments::Environments;
use crate::environments::sizes::Sizes;
use crate::environments::warm::Warm;
use crate::failpoints::Failpoints;
use crate::firewall::Firewall;
use crate::firewall::tables::Iptables;
use crate::freezer::Cgroups;
use crate::host::{self, Host};
use crate::identity::{self, Identity};
use crate::isolation::{self, Proofs};
use crate::job::Launcher;
use crate::logs::{self, Logs};
use crate::owners::{self, Owners};
use crate::parents::Parents;
use crate::policy::Policy;
use crate::pool::{self, Pool};
use crate::probe::Prober;
use crate::relay::protocol::PortRange;
use crate::relay::spawn::{self, SpawnConfig};
use crate::routes::Relay;
use crate::runs::Runs;
use crate::seeds::Seeds;
use crate::session::fence::Gate;
use crate::session::outbox::Outbox;
use crate::state::State;
use crate::steps::Steps;
use crate::{clock, facts, files, reconcile, runs, session, socket, tunnel};

/// Why the agent cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its identity.
    #[error("{0}")]
    Identity(#[from] identity::Error),
    /// Its memory.
    #[error("{0}")]
    State(#[from] crate::state::Error),
    /// The policy file.
    #[error("{0}")]
    Policy(#[from] crate::policy::Error),
    /// The relay.
    #[error("{0}")]
    Relay(#[from] spawn::SpawnError),
    /// The pool of data.
    #[error("{code}: {0}", code = .0.code())]
    Pool(#[from] pool::Error),
    /// A setting.
    #[error("E_CONFIG: {0}")]
    Config(String),
    /// The operating system.
    #[error("{what}: {why}")]
    System {
        /// What was tried.
        what: String,
        /// Its answer.
        why: std::io::Error,
    },
}

/// The agent as a whole.
#[derive(Debug)]
pub struct Agent {
    /// Its settings.
    pub config: Config,
    /// What is remembered.
    pub state: State,
    /// What is to be told.
    pub outbox: Arc<Outbox>,
    /// Whose orders are taken.
    pub fence: Gate,
    /// Environments.
    pub environments: Arc<Environments>,
    /// Targets.
    pub steps: Arc<Steps>,
    /// Test runs.
    pub runs: Runs,
    /// Seeds and snapshots.
    pub seeds: Seeds,
    /// The connection to the coordinator while there is a session.
    pub channel: watch::Sender<Option<Channel>>,
    /// Another one after every start.
    pub process_id: String,
    /// The state was lost, and no coordinator knows it yet.
    lost: AtomicBool,
    host: Arc<Host>,
    facts: facts::Reader,
    identity: RwLock<Identity>,
    logs: Arc<Logs>,
    log_orders: Mutex<BTreeMap<String, AbortHandle>>,
    tunnels: Arc<Semaphore>,
}

/// Commands and connections from elsewhere at once.
const MOST_TUNNELS: usize = 256;

impl Agent {
    /// This host's identity; it changes when the certificate is renewed.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.identity.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Uses a renewed certificate from now on.
    pub fn set_identity(&self, identity: Identity) {
        *self.identity.write().unwrap_or_else(PoisonError::into_inner) = identity;
    }

    /// What is told about this machine.
    pub async fn facts(&self) -> Facts {
        let about = tokio::time::timeout(Duration::from_secs(1), self.host.engine.about()).await;
        self.facts.now(about.ok().and_then(Result::ok).map(|about| about.version).unwrap_or_default())
    }

    /// Endings of containers from now on; none among them: the engine is there (again).
    #[must_use]
    pub fn endings(&self) -> tokio::sync::broadcast::Receiver<crate::engine::Ended> {
        self.host.watch.subscribe()
    }

    /// Ids of the runs that are under way.
    #[must_use]
    pub fn running(&self) -> Vec<String> {
        self.runs.running()
    }

    /// The state was lost, and no coordinator knows it yet.
    #[must_use]
    pub fn state_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// A session is open: the coordinator said what this host should have.
    pub async fn welcomed(&self, welcome: v1::Welcome) {
        self.lost.store(false, Ordering::Relaxed);
        self.environments.welcomed(&welcome.environments, &welcome.runs).await;
        self.runs.welcomed(&welcome.runs).await;
        self.steps.tell_all();
    }

    /// A result was stored by the coordinator.
    ///
    /// # Errors
    /// The state cannot be written.
    pub async fn acknowledged(&self, result: &str) -> crate::state::Result<()> {
        self.environments.acknowledged(result).await?;
        self.runs.acknowledged(result).await?;
        // Last: what failed before is told again, and acknowledged again.
        self.state.acknowledged(result).await?;
        Ok(())
    }

    /// An order about an environment.
    pub async fn environment(&self, order: v1::EnvironmentOrder) {
        self.environments.order(order).await;
    }

    /// An order about a target.
    pub async fn step(&self, order: v1::StepOrder) {
        self.steps.order(order).await;
    }

    /// An order about a run.
    pub async fn run(&self, order: v1::RunOrder) {
        self.runs.order(order).await;
    }

    /// An order about a seed.
    pub async fn seed(&self, order: v1::SeedOrder) {
        self.seeds.order(order).await;
    }

    /// An order for a tunnel; one too many is not dialled, and the client is told so.
    pub fn tunnel(&self, channel: Channel, order: v1::TunnelOrder) {
        let Ok(place) = Arc::clone(&self.tunnels).try_acquire_owned() else {
            tracing::warn!("more than {MOST_TUNNELS} tunnels at once");
            return;
        };
        let (host, environments) = (Arc::clone(&self.host), Arc::clone(&self.environments));
        tokio::spawn(async move {
            tunnel::serve(host, environments, channel, order).await;
            drop(place);
        });
    }

    /// An order for logs.
    pub fn logs(&self, order: v1::LogsOrder) {
        let mut orders = self.log_orders.lock().unwrap_or_else(PoisonError::into_inner);
        orders.retain(|_, task| !task.is_finished());
        if order.stop {
            if let Some(task) = orders.remove(&order.order) {
                task.abort();
            }
            return;
        }
        let id = order.order.clone();
        let (host, environments) = (Arc::clone(&self.host), Arc::clone(&self.environments));
        let task = tokio::spawn(logs::answer(host, environments, Arc::clone(&self.logs), order));
        if let Some(old) = orders.insert(id, task.abort_handle()) {
            old.abort();
        }
    }
}

/// Starts everything and keeps it going until `stop` is done. Containers, the relay and jobs outlive the agent.
///
/// # Errors
/// See [`Error`]. Nothing that comes later ends the agent.
pub async fn run(config: Config, stop: impl Future<Output = ()>) -> Result<(), Error> {
    let system = |what: &str| {
        let what = what.to_owned();
        move |why| Error::System { what, why }
    };
    files::private_dir(&config.state_dir).map_err(system("state_dir"))?;
    let _lock = lock(&config)?;
    // Before anything is started: a container whose data is not mounted yet would begin with none.
    let pool = open(config.pool.clone()).await?;
    let policy = Policy::read(&config.policy)?;
    let boot_id = files::boot_id();
    let facts = facts::Reader::new(
        config.state_dir.clone(),
        boot_id.clone(),
        config.advertise_address.clone(),
        Arc::clone(&pool),
        &policy,
    );
    let engine: Arc<dyn Engine> = Arc::new(Docker::new(&config.engine));
    let joined = Identity::load(&config.state_dir)?;
    let state = State::open(&config.state_dir, joined.is_some()).await?;
    let identity = match joined {
        Some(identity) => identity,
        None => join(&config, &facts, engine.as_ref()).await?,
    };
    let run = state.count("run").await?;
    let rebooted = state.meta("boot_id").await?.is_some_and(|before| before != boot_id);
    state.set_meta("boot_id", &boot_id).await?;
    let ports: PortRange = config.ports.parse().map_err(Error::Config)?;
    let mut relay =
        SpawnConfig::this_binary(config.state_dir.join("relay"), config.relay_socket()).map_err(system("relay"))?;
    relay.ports = ports;
    relay.foreign = !config.start_relay;
    let client = spawn::ensure_running(&relay).await?;
    let outbox = Arc::new(Outbox::default());
    let host = Arc::new(Host {
        id: identity.host_id.clone(),
        name: identity.host_name.clone(),
        boot_id,
        rebooted,
        listen_address: config.listen_address,
        subnets: config.subnets,
        state_dir: config.state_dir.clone(),
        pool,
        release_networks: config.release_networks.clone(),
        firewall: Firewall::new(
            host::short(&identity.host_id),
            config.subnets.block(),
            config.host_services.clone(),
            Arc::new(Iptables),
        ),
        isolation: Proofs::default(),
        sizes: Sizes::default(),
        warm: Warm::default(),
        watch: Watch::begin(Arc::clone(&engine), identity.host_id.clone()),
        engine,
        freezer: Arc::new(Cgroups::default()),
        parents: Parents::default(),
        owners: Arc::new(Owners::at(PathBuf::from(owners::ROOT).join(host::short(&identity.host_id)))),
        prober: Prober::default(),
        routes: Arc::new(Relay::new(client, ports)),
        policy,
        state: state.clone(),
        outbox: Arc::clone(&outbox),
        failpoints: Failpoints::read(&config.state_dir),
    });
    let (channel, connection) = watch::channel(None);
    let environments = Arc::new(Environments::new(Arc::clone(&host)));
    let steps = Arc::new(Steps::new(Arc::clone(&host), run, connection.clone()));
    // What is overdue is settled before anybody is dialled.
    steps.load().await?;
    environments.load().await?;
    let seeds = Seeds::new(Arc::clone(&host), Arc::clone(&environments), connection.clone());
    seeds.load().await;
    crate::changes::sweep(&environments).await;
    let logs = Logs::new(connection.clone());
    let runs = Runs::new(runs::Setup {
        host: Arc::clone(&host),
        places: Arc::clone(&environments) as Arc<dyn runs::Places>,
        logs: Arc::new(Arc::clone(&logs)),
        channel: connection,
        state_dir: config.state_dir.clone(),
        engine: config.engine.clone(),
        launcher: Launcher::own(),
        substitute: None,
    });
    runs.load().await.map_err(system("runs"))?;
    let listener = socket::listen(&config.socket).map_err(system("agent socket"))?;
    let agent = Arc::new(Agent {
        fence: Gate::read(&state).await?,
        lost: AtomicBool::new(state.lost()),
        state,
        outbox,
        environments: Arc::clone(&environments),
        steps: Arc::clone(&steps),
        channel,
        process_id: hex::encode(clock::random::<16>().map_err(system("random bytes"))?),
        facts,
        identity: RwLock::new(identity),
        logs,
        runs,
        seeds,
        log_orders: Mutex::default(),
        tunnels: Arc::new(Semaphore::new(MOST_TUNNELS)),
        host: Arc::clone(&host),
        config,
    });
    let coordinators = agent.config.coordinators.clone();
    tracing::info!(host = %host.name, id = %host.id, "the agent runs");
    tokio::select! {
        () = session::keep(Arc::clone(&agent)) => {}
        () = reconcile::keep(Arc::clone(&host), Arc::clone(&environments), steps) => {}
        () = environments.watch_wakes() => {}
        () = environments.keep_measured() => {}
        () = environments.keep_taking() => {}
        () = environments.keep_warm() => {}
        () = isolation::keep(Arc::clone(&host), Arc::clone(&environments), coordinators) => {}
        () = socket::serve(Arc::clone(&host), listener) => {}
        () = Arc::clone(&host.pool).keep() => {}
        () = spawn::supervise(relay, |seen| tell(&seen)) => {}
        () = stop => tracing::info!("the agent stops; what it started goes on"),
    }
    let _ = std::fs::remove_file(&agent.config.socket);
    Ok(())
}

/// Opens the pool, which may take programs and time.
async fn open(settings: pool::Settings) -> Result<Arc<Pool>, Error> {
    let opened = tokio::task::spawn_blocking(move || Pool::open(&settings)).await;
    let failed = |why| Error::System { what: "pool".to_owned(), why: std::io::Error::other(why) };
    Ok(opened.map_err(failed)??)
}

/// One agent per state folder.
fn lock(config: &Config) -> Result<std::fs::File, Error> {
    let path = config.state_dir.join("lock");
    let system = |why| Error::System { what: path.display().to_string(), why };
    let file = std::fs::OpenOptions::new().write(true).create(true).truncate(false).open(&path).map_err(system)?;
    if files::lock(&file).map_err(system)? {
        return Ok(file);
    }
    let text = format!("another agent uses {}", config.state_dir.display());
    Err(Error::System { what: "E_LOCKED".to_owned(), why: std::io::Error::other(text) })
}

/// Joins; tries again for as long as the coordinator cannot be reached.
async fn join(config: &Config, facts: &facts::Reader, engine: &dyn Engine) -> Result<Identity, Error> {
    let secret = config.join_token.as_ref().ok_or(identity::Error::NoSecret)?;
    let version = engine.about().await.map(|about| about.version).unwrap_or_default();
    let told: v1::Facts = (&facts.now(version)).into();
    let mut pause = Duration::from_millis(200);
    loop {
        for coordinator in &config.coordinators {
            match identity::join(&config.state_dir, coordinator, &secret.0, told.clone()).await {
                Err(why) if why.passes() => tracing::warn!(%coordinator, %why, "cannot join yet"),
                other => return Ok(other?),
            }
        }
        tokio::time::sleep(clock::jitter(pause)).await;
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}

/// A relay that runs is no news to warn of.
fn tell(seen: &spawn::Supervised) {
    match seen {
        spawn::Supervised::Running(_) => tracing::info!("the relay runs"),
        spawn::Supervised::Gone => tracing::warn!("the relay is gone; another one is waited for"),
        spawn::Supervised::Failed(why) => tracing::error!(%why, "the relay cannot be started"),
    }
}
