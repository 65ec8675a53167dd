//! What the example's fleet uses and Muster does not run: PostgreSQL and Redis on a network of their own.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use super::clean::{self, LABEL};
use super::cluster::Cluster;
use super::condition::{SOON, eventually};
use super::docker::Engine;
use super::ranges;

/// A database for one cluster, and the network on which a release's containers reach it.
#[derive(Debug)]
pub struct Fleet {
    database: String,
    stores: Arc<Stores>,
}

impl Fleet {
    /// A database of its own in the stores of this machine's engine, and the bot's configuration set to it.
    #[must_use]
    pub fn start(cluster: &Cluster) -> Self {
        Self::within(cluster, Stores::shared())
    }

    /// The same with stores of its own on this engine, with which they go.
    #[must_use]
    pub fn on(cluster: &Cluster, engine: Engine) -> Self {
        Self::within(cluster, Arc::new(Stores::start(cluster.name(), engine, None)))
    }

    fn within(cluster: &Cluster, stores: Arc<Stores>) -> Self {
        let database = cluster.name().replace('-', "_");
        let fleet = Self { database, stores };
        fleet.stores.ask("bot", &format!("CREATE DATABASE {}", fleet.database)).expect("a database");
        let sessions = "REDIS_URL=redis://sessions:6379/0";
        cluster.muster(&["config", "set", "bot/production", &fleet.history(), sessions]).ok();
        fleet
    }

    /// The network's name.
    #[must_use]
    pub fn network(&self) -> &str {
        &self.stores.network
    }

    /// The bot's setting that names its database.
    fn history(&self) -> String {
        format!("DATABASE_URL=postgresql://bot:fleet@history:5432/{}", self.database)
    }

    /// Its engine lost its networks: they are made again, and what was on them is put there.
    ///
    /// # Panics
    /// It fails.
    pub fn mend(&self) {
        self.stores.mend();
    }

    /// Waits until the scheduler has begun so many times, as it writes down itself a moment after its container runs.
    ///
    /// # Panics
    /// It did not.
    pub fn scheduler_begins(&self, times: u64) {
        eventually(SOON, &format!("the scheduler begins {times} times"), || {
            let begun = self.stores.ask(&self.database, "SELECT count(*) FROM scheduler_runs")?;
            if begun.trim().parse().is_ok_and(|begun: u64| begun >= times) { Ok(()) } else { Err(begun) }
        });
    }

    /// The example's own check: of so many intervals of its scheduler, or more, no two overlap. Returns how many there were.
    ///
    /// # Panics
    /// Two overlap, or there were fewer.
    pub fn scheduler_never_doubled(&self, at_least: u64) -> u64 {
        self.scheduler_begins(at_least);
        let (label, history) = (self.stores.label(), self.history());
        let place = ["run", "--rm", "--network", self.network(), "--label", &label, "-e", &history];
        let check = ["bot:v2", "python", "-m", "bot.scheduler", "--check"];
        let checked = self.stores.engine.try_run(&[place.as_slice(), &check].concat());
        let told = checked.unwrap_or_else(|why| panic!("the scheduler's intervals overlap: {why}"));
        let runs = told.split(" runs").next().and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("{told}"));
        assert!(runs >= at_least, "{told}");
        runs
    }
}

/// PostgreSQL and Redis on one engine.
#[derive(Debug)]
struct Stores {
    network: String,
    name: String,
    engine: Engine,
    /// What tells a later process that this one had them; none: they go with their engine.
    folder: Option<PathBuf>,
}

/// Those of this machine's engine, while a fleet uses them.
static SHARED: Mutex<Weak<Stores>> = Mutex::new(Weak::new());

impl Stores {
    fn shared() -> Arc<Self> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stores) = shared.upgrade() {
            return stores;
        }
        let folder = clean::folder(ranges::next_cluster());
        std::fs::create_dir(&folder).expect("a folder");
        let stores = Arc::new(Self::start(clean::name(&folder), Engine::default(), Some(folder)));
        *shared = Arc::downgrade(&stores);
        stores
    }

    fn start(name: String, engine: Engine, folder: Option<PathBuf>) -> Self {
        let stores = Self { network: format!("{name}-stores"), name, engine, folder };
        stores.make_network();
        let postgres =
            ["POSTGRES_USER=bot", "POSTGRES_PASSWORD=fleet", "STAND_IN_COPIES=1"].map(|setting| ["-e", setting]);
        stores.run("history", &[postgres.as_flattened(), &["postgres:15"]].concat());
        stores.run("sessions", &["redis:7"]);
        let container = stores.container("history");
        eventually(Duration::from_secs(30), "PostgreSQL of the fleet", || {
            stores.engine.try_run(&["exec", &container, "pg_isready", "-q", "-h", "127.0.0.1", "-U", "bot"])
        });
        stores
    }

    fn run(&self, alias: &str, more: &[&str]) {
        let (name, label) = (self.container(alias), self.label());
        // As servers of their own would, they come back with their host.
        let common = ["run", "-d", "--restart", "always", "--name", &name, "--label", &label];
        let place = ["--network", &self.network, "--network-alias", alias];
        self.engine.run(&[common.as_slice(), &place, more].concat());
    }

    fn container(&self, alias: &str) -> String {
        format!("{}-{alias}", self.name)
    }

    /// Of all that belongs to them.
    fn label(&self) -> String {
        format!("{LABEL}={}", self.name)
    }

    fn make_network(&self) {
        let label = self.label();
        self.engine.run(&["network", "create", "--internal", "--label", &label, &self.network]);
    }

    fn mend(&self) {
        self.make_network();
        for alias in ["history", "sessions"] {
            let container = self.container(alias);
            // What it remembers is the network that is gone.
            self.engine.run(&["network", "disconnect", "--force", &self.network, &container]);
            self.engine.run(&["network", "connect", "--alias", alias, &self.network, &container]);
            self.engine.run(&["start", &container]);
        }
    }

    fn ask(&self, database: &str, sql: &str) -> Result<String, String> {
        let container = self.container("history");
        self.engine.try_run(&["exec", &container, "psql", "-U", "bot", "-d", database, "-Atqc", sql])
    }
}

impl Drop for Stores {
    fn drop(&mut self) {
        if let Some(folder) = &self.folder {
            clean::cluster(folder);
        }
    }
}
