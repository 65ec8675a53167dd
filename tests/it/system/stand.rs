//! One host of asha's and a folder with a stack file: what tests of stores begin with.

use std::path::PathBuf;

use serde_json::Value;
use tests::harness::call::{Call, Output};
use tests::harness::cluster::Cluster;
use tests::harness::condition::{SOON, eventually};
use tests::harness::effects::Effects;
use tests::harness::host::{Host, HostBuilder};
use tests::harness::sql::query;

/// A database with a volume.
pub const POSTGRES: &str = r#"services:
  postgres:
    image: postgres:15
    environment: { POSTGRES_PASSWORD: "${PG:-x}", STAND_IN_COPIES: 1 }
    ports: ["5432:5432"]
    volumes: ["data:/var/lib/postgresql/data"]
volumes: { data: }
"#;
/// The same, and a service that waits for it.
pub const POSTGRES_AND_REDIS: &str = r#"services:
  postgres:
    image: postgres:15
    environment: { POSTGRES_PASSWORD: "${PG:-x}", STAND_IN_COPIES: 1 }
    ports: ["5432:5432"]
    volumes: ["data:/var/lib/postgresql/data"]
  redis:
    image: redis:7
    ports: ["6379:6379"]
    depends_on: { postgres: { condition: service_healthy } }
volumes: { data: }
"#;

/// A table with one row, however often it is asked for: what falls asleep within a second may be found stopped by a
/// client that is slow to come in, which asks again.
pub const KEPT: &str =
    "create table if not exists kept (n int primary key); insert into kept values (7) on conflict do nothing";

pub struct Stand {
    pub cluster: Cluster,
    pub host: Host,
    pub folder: PathBuf,
}

impl Stand {
    pub fn open(stack: &str) -> Self {
        Self::within(Cluster::start(), stack)
    }

    /// The same in a cluster that began otherwise.
    pub fn within(cluster: Cluster, stack: &str) -> Self {
        Self::with(stack, cluster, |host| host)
    }

    /// With this coordinator, and a host as `made` says.
    pub fn with(stack: &str, cluster: Cluster, made: impl FnOnce(HostBuilder<'_>) -> HostBuilder<'_>) -> Self {
        let host = made(cluster.host("box-asha").label("owner", "asha").label("env", "dev")).join();
        Self::of(stack, cluster, host)
    }

    /// Of a host that has joined.
    pub fn of(stack: &str, cluster: Cluster, host: Host) -> Self {
        let folder = cluster.folder().join("stand");
        std::fs::create_dir(&folder).expect("a folder");
        let stand = Self { cluster, host, folder };
        stand.file("compose.yaml", stack);
        stand
    }

    /// Writes a file beside the stack file.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.folder.join(name);
        std::fs::write(&path, content).expect("written");
        path
    }

    pub fn muster(&self, words: &[&str]) -> Call {
        self.cluster.muster(words).by("asha").within(&self.folder).env("MUSTER_AGENT_SOCKET", self.host.socket())
    }

    pub fn show(&self, name: &str) -> Value {
        self.muster(&["env", "show", name]).json()
    }

    /// A connection variable of a service.
    pub fn variable(&self, name: &str, service: &str, variable: &str) -> String {
        let shown = self.show(name);
        let services = shown["services"].as_array().expect("services");
        let service = services.iter().find(|one| one["name"] == service).expect("that service");
        service["variables"][variable].as_str().expect("that variable").to_owned()
    }

    /// Asks the environment's service `postgres`.
    pub fn query(&self, name: &str, sql: &str) -> Result<String, String> {
        query(&self.variable(name, "postgres", "POSTGRES_URL"), sql)
    }

    /// Waits until the environment is in this state (`READY`, `ASLEEP`).
    pub fn reaches(&self, name: &str, state: &str) {
        let wanted = format!("ENVIRONMENT_STATE_{state}");
        eventually(SOON, &format!("{name} is {state}"), || {
            let shown = self.show(name);
            if shown["state"] == wanted { Ok(()) } else { Err(shown.to_string()) }
        });
    }

    /// What the host's agent changes for a command that ends well.
    pub fn changed_by(&self, words: &[&str]) -> Vec<String> {
        let effects = self.effects().during(|| {
            self.muster(words).ok();
        });
        println!("{words:?} changes {effects:?}");
        assert!(!effects.is_empty());
        effects
    }

    /// What the host's agent changes.
    pub fn effects(&self) -> Effects {
        Effects::of(&self.host)
    }

    /// Everything goes, and nothing is left.
    pub fn ends(&self) {
        for environment in self.muster(&["env", "list"]).json()["environments"].as_array().into_iter().flatten() {
            self.muster(&["env", "down", environment["name"].as_str().unwrap_or_default()]).ok();
        }
        for seed in self.muster(&["seed", "list", "--snapshots"]).json()["seeds"].as_array().into_iter().flatten() {
            self.muster(&["seed", "rm", seed["id"].as_str().unwrap_or_default()]).ok();
        }
        // Slots of the warm pool go after their seed.
        eventually(SOON, "nothing in the engine", || {
            let left = self.host.objects();
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        });
        let pool = self.host.folder().join("state/pool");
        eventually(SOON, "an empty pool", || {
            let left: Vec<_> = ["environments", "seeds", "snapshots", "trash"]
                .iter()
                .flat_map(|folder| std::fs::read_dir(pool.join(folder)).into_iter().flatten().flatten())
                .map(|entry| entry.path())
                .collect();
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        });
        let reached: Vec<String> =
            self.host.agent.printed().lines().filter(|line| line.contains("E_ISOLATION")).map(str::to_owned).collect();
        assert!(reached.is_empty(), "whatever happened, nobody got through a wall: {reached:#?}");
    }

    /// Runs a command in a service's container.
    pub fn exec(&self, name: &str, service: &str, command: &[&str]) -> Output {
        let words = [&["env", "exec", "-e", name, service, "--"], command].concat();
        self.muster(&words).run()
    }

    /// The container of a service.
    pub fn container(&self, name: &str, service: &str) -> String {
        let id: String = self.show(name)["id"].as_str().unwrap_or_default().chars().filter(|c| *c != '-').collect();
        format!("muster-{}-{service}", id.get(id.len() - 12..).unwrap_or_default())
    }
}
