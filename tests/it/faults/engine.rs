//! The container engine is restarted or killed, with and without `live-restore`.

use std::path::PathBuf;

use serde_json::Value;
use tests::harness::cluster::{Cluster, Options};
use tests::harness::condition::{SOON, eventually};
use tests::harness::host::Host;
use tests::harness::namespace::Namespace;
use tests::harness::real;

const STACK: &str = r#"services:
  postgres:
    image: postgres:15
    environment: { POSTGRES_PASSWORD: "${PG:-x}" }
    ports: ["5432:5432"]
    volumes: ["data:/var/lib/postgresql/data"]
  redis:
    image: redis:7
    ports: ["6379:6379"]
    depends_on: { postgres: { condition: service_healthy } }
volumes: { data: }
x-muster: { idle: { freeze: never, stop: never } }
"#;

struct Edge {
    namespace: Namespace,
    cluster: Cluster,
    host: Host,
    folder: PathBuf,
}

impl Edge {
    fn on(namespace: Namespace, port: u16) -> Self {
        namespace.load(&["postgres:15", "redis:7"]);
        let cluster = Cluster::with(&Options { everywhere: Some(port), ..Options::default() });
        let host = cluster.host("box-asha").label("owner", "asha").label("env", "dev").inside(&namespace).join();
        let folder = cluster.folder().join("edge");
        std::fs::create_dir(&folder).expect("a folder");
        std::fs::write(folder.join("compose.yaml"), STACK).expect("a file");
        Self { namespace, cluster, host, folder }
    }

    fn muster(&self, words: &[&str]) -> tests::harness::call::Call {
        self.cluster.muster(words).by("asha").within(&self.folder).env("MUSTER_AGENT_SOCKET", self.host.socket())
    }

    fn show(&self) -> Value {
        self.muster(&["env", "show"]).json()
    }

    fn url(&self) -> String {
        let shown = self.show();
        let services = shown["services"].as_array().expect("services");
        let postgres = services.iter().find(|service| service["name"] == "postgres").expect("postgres");
        postgres["variables"]["POSTGRES_URL"].as_str().expect("a URL").to_owned()
    }

    /// Asked in the host's own network namespace.
    fn query(&self, url: &str, sql: &str) -> Result<String, String> {
        self.host.command(&["psql", url, "-XAtqc", sql])
    }

    /// Waits until the coordinator knows of its engine again: nothing is placed on a host without one.
    fn has_an_engine(&self) {
        eventually(SOON, "the coordinator knows its engine", || {
            let shown = self.cluster.muster(&["host", "show", &self.host.name]).json();
            let version = shown["facts"]["engine_version"].as_str().unwrap_or_default();
            if version.is_empty() { Err(shown.to_string()) } else { Ok(()) }
        });
    }

    fn comes_back(&self, url: &str, rows: &str) {
        eventually(SOON, "the environment is ready and has its data", || {
            let shown = self.show();
            if shown["state"] != "ENVIRONMENT_STATE_READY" {
                return Err(shown.to_string());
            }
            let count = self.query(url, "select count(*) from kept")?;
            if count == rows { Ok(()) } else { Err(count) }
        });
        assert_eq!(self.url(), url, "port and credentials stay");
        assert_eq!(self.host.running().len(), 2, "{:?}", self.host.running());
    }
}

fn port(offset: u32) -> u16 {
    u16::try_from(19_000 + offset * 1000 + std::process::id() % 1000).expect("a port")
}

#[test]
fn environments_come_back_after_their_engine_was_killed_or_restarted() {
    let Some(_turn) = real::turn() else { return };
    let edge = Edge::on(Namespace::up("muster-it-engine", 232), port(0));
    edge.muster(&["env", "up"]).ok();
    let url = edge.url();
    edge.query(&url, "create table kept (n int); insert into kept values (7)").expect("written");
    edge.namespace.crash_engine();
    edge.comes_back(&url, "1");
    edge.query(&url, "insert into kept values (8)").expect("written");
    edge.namespace.restart_engine();
    edge.comes_back(&url, "2");

    // In the middle of bringing one up and of taking it down: both end well once there is an engine again.
    edge.muster(&["env", "down"]).ok();
    for number in [2, 6, 10] {
        let state = edge.host.folder().join("state");
        std::fs::write(state.join("effects.log"), "").expect("written");
        edge.has_an_engine();
        let call = edge.muster(&["env", "up"]).begin();
        eventually(SOON, "it has begun", || {
            let log = std::fs::read_to_string(state.join("effects.log")).map_err(|why| why.to_string())?;
            if log.lines().count() >= number { Ok(()) } else { Err(log) }
        });
        edge.namespace.crash_engine();
        call.finish().with_code(0);
        let url = edge.url();
        assert_eq!(edge.query(&url, "select 1"), Ok("1".to_owned()));
        let call = edge.muster(&["env", "down"]).begin();
        edge.namespace.crash_engine();
        call.finish().with_code(0);
        assert_eq!(edge.host.objects(), Vec::<String>::new());
    }
}

#[test]
fn with_live_restore_the_containers_run_on_and_nothing_is_started_again() {
    let Some(_turn) = real::turn() else { return };
    let edge = Edge::on(Namespace::restoring("muster-it-restore", 233), port(1));
    edge.muster(&["env", "up"]).ok();
    let url = edge.url();
    edge.query(&url, "create table kept (n int); insert into kept values (7)").expect("written");
    let started = edge.query(&url, "select pg_postmaster_start_time()").expect("asked");
    edge.namespace.crash_engine();
    edge.comes_back(&url, "1");
    edge.namespace.restart_engine();
    edge.comes_back(&url, "1");
    assert_eq!(edge.query(&url, "select pg_postmaster_start_time()"), Ok(started));
    edge.muster(&["env", "down"]).ok();
    assert_eq!(edge.host.objects(), Vec::<String>::new());
}
