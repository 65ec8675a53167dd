//! What the example's fleet uses and Muster does not run: PostgreSQL and Redis on a network of their own.

use std::time::Duration;

use super::clean::LABEL;
use super::cluster::Cluster;
use super::condition::eventually;
use super::docker::Engine;

/// The stores, and the network on which a release's containers reach them.
#[derive(Debug)]
pub struct Fleet {
    /// The network's name.
    pub network: String,
    name: String,
    engine: Engine,
}

/// Settings of the bot that name them.
pub const CONFIG: [&str; 2] =
    ["DATABASE_URL=postgresql://bot:fleet@history:5432/bot", "REDIS_URL=redis://sessions:6379/0"];

impl Fleet {
    /// Starts them, and sets the bot's configuration to them.
    #[must_use]
    pub fn start(cluster: &Cluster) -> Self {
        Self::on(cluster, Engine::default())
    }

    /// On this engine.
    ///
    /// # Panics
    /// They do not come up.
    #[must_use]
    pub fn on(cluster: &Cluster, engine: Engine) -> Self {
        let name = cluster.name();
        let fleet = Self { network: format!("{name}-stores"), name, engine };
        let label = fleet.label();
        fleet.make_network();
        let run = |alias: &str, more: &[&str]| {
            let name = format!("{}-{alias}", fleet.name);
            let common = [
                "run",
                "-d",
                // As servers of their own would, they come back with their host.
                "--restart",
                "always",
                "--name",
                &name,
                "--label",
                &label,
                "--network",
                &fleet.network,
                "--network-alias",
                alias,
            ];
            fleet.engine.run(&[&common, more].concat());
        };
        let postgres = [
            "-e",
            "POSTGRES_USER=bot",
            "-e",
            "POSTGRES_PASSWORD=fleet",
            "-e",
            "POSTGRES_DB=bot",
            "-e",
            "STAND_IN_COPIES=1",
            "postgres:15",
        ];
        run("history", &postgres);
        run("sessions", &["redis:7"]);
        let container = format!("{}-history", fleet.name);
        eventually(Duration::from_secs(30), "PostgreSQL of the fleet", || {
            fleet.engine.try_run(&["exec", &container, "pg_isready", "-q", "-h", "127.0.0.1", "-U", "bot"])
        });
        cluster.muster(&["config", "set", "bot/production", CONFIG[0], CONFIG[1]]).ok();
        fleet
    }

    /// Of all that belongs to it.
    fn label(&self) -> String {
        format!("{LABEL}={}", self.name)
    }

    fn make_network(&self) {
        let label = self.label();
        self.engine.run(&["network", "create", "--internal", "--label", &label, &self.network]);
    }

    /// Its engine lost its networks: they are made again, and what was on them is put there.
    ///
    /// # Panics
    /// It fails.
    pub fn mend(&self) {
        self.make_network();
        for alias in ["history", "sessions"] {
            let container = format!("{}-{alias}", self.name);
            // What it remembers is the network that is gone.
            self.engine.run(&["network", "disconnect", "--force", &self.network, &container]);
            self.engine.run(&["network", "connect", "--alias", alias, &self.network, &container]);
            self.engine.run(&["start", &container]);
        }
    }

    /// What a query on the fleet's database answers, unaligned.
    ///
    /// # Panics
    /// It fails.
    #[must_use]
    pub fn query(&self, sql: &str) -> String {
        let container = format!("{}-history", self.name);
        self.engine.run(&["exec", &container, "psql", "-h", "127.0.0.1", "-U", "bot", "-d", "bot", "-Atc", sql])
    }

    /// The example's own check: no two of its scheduler's intervals overlap. Returns how many there were.
    ///
    /// # Panics
    /// Two overlap.
    pub fn scheduler_never_doubled(&self) -> u64 {
        let label = self.label();
        let checked = self.engine.try_run(&[
            "run",
            "--rm",
            "--network",
            &self.network,
            "--label",
            &label,
            "-e",
            CONFIG[0],
            "bot:v2",
            "python",
            "-m",
            "bot.scheduler",
            "--check",
        ]);
        let told = checked.unwrap_or_else(|why| panic!("the scheduler's intervals overlap: {why}"));
        told.split(" runs").next().and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("{told}"))
    }
}
