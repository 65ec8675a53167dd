//! Environments on a real container engine, without a coordinator. Left out where `MUSTER_TEST_REAL` is not 1.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent::engine::docker::Docker;
use agent::engine::watch::Watch;
use agent::engine::{Engine, FoundVolume, Labels, VolumeSpec, adopt};
use agent::environments::{Environments, View, Wanted};
use agent::failpoints::Failpoints;
use agent::firewall::Firewall;
use agent::firewall::tables::Iptables;
use agent::host::Host;
use agent::policy::Policy;
use agent::pool::command::{self, Verb};
use agent::pool::{Pool, Setting, Settings};
use agent::probe::Prober;
use agent::relay::client::Client;
use agent::relay::protocol::PortRange;
use agent::routes::Relay;
use agent::state::State;
use domain::environment::EnvironmentState;
use proto::v1;

const SOCKET: &str = "/var/run/docker.sock";
const ID: &str = "0189abcd-0000-7000-8000-00000000d0c1";

fn wanted() -> bool {
    std::env::var_os("MUSTER_TEST_REAL").is_some_and(|value| value == "1")
}

/// The pool that this machine's agent would have, only smaller.
fn settings(folder: &Path) -> Settings {
    Settings { image_bytes: Some(1 << 30), ..Settings::new(folder.to_owned(), Setting::Auto) }
}

/// Takes the pool's mount away, also when the test fails.
struct Unmount(Settings);

impl Drop for Unmount {
    fn drop(&mut self) {
        match command::run(Verb::Unmount, &self.0) {
            Ok(told) => eprintln!("{told}"),
            Err(why) => eprintln!("{}: {why}", why.code()),
        }
    }
}

async fn host(folder: &Path) -> Arc<Host> {
    let engine: Arc<dyn Engine> = Arc::new(Docker::new(Path::new(SOCKET)));
    let socket = folder.join("relay.sock");
    let relay = agent::relay::Config::new(folder.join("relay"), socket.clone()).expect("a relay");
    tokio::spawn(agent::relay::run(relay, std::future::pending()));
    let client = Client::new(socket);
    client.ping(Duration::from_secs(5)).await.expect("the relay answers");
    let id = "0189abcd-0000-7000-8000-00000000d0ff".to_owned();
    Arc::new(Host {
        watch: Watch::begin(Arc::clone(&engine), id.clone()),
        id,
        name: "box".to_owned(),
        boot_id: agent::files::boot_id(),
        rebooted: false,
        listen_address: "127.0.0.1".parse().expect("an address"),
        subnets: "198.18.0.0/15".parse().expect("a block"),
        state_dir: folder.to_owned(),
        pool: Pool::open(&settings(folder)).expect("a pool"),
        release_networks: Vec::new(),
        firewall: Firewall::new(
            agent::host::short(ID),
            "198.18.0.0/15".parse().expect("a block"),
            Vec::new(),
            Arc::new(Iptables),
        ),
        isolation: Default::default(),
        sizes: Default::default(),
        warm: Default::default(),
        engine,
        freezer: Arc::new(agent::freezer::Cgroups::default()),
        parents: agent::parents::Parents::default(),
        owners: Arc::new(agent::owners::Owners::at(folder.join("folders"))),
        prober: Prober::default(),
        routes: Arc::new(Relay::new(client, PortRange { first: 27_000, last: 27_999 })),
        policy: Policy::safe(&folder.join("policy.toml")),
        state: State::open(folder, false).await.expect("a state"),
        outbox: Arc::default(),
        failpoints: Failpoints::read(folder),
    })
}

async fn until(environments: &Environments, state: EnvironmentState) -> View {
    let mut view = environments.watch(ID).expect("known");
    let done = |view: &View| view.observed.state == state || view.observed.state == EnvironmentState::Failed;
    let reached = tokio::time::timeout(Duration::from_secs(60), view.wait_for(done)).await;
    let reached = reached.expect("in time").expect("not ended").clone();
    assert_eq!(reached.observed.state, state, "{:#?}", reached.observed);
    reached
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_comes_up_on_real_docker_and_leaves_nothing() {
    if !wanted() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let unmount = Unmount(settings(folder.path()));
    let host = host(folder.path()).await;
    eprintln!("{}: {}", host.pool.kind(), host.pool.why());
    let bot = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/bot").canonicalize().expect("there");
    let order = v1::EnvironmentOrder {
        id: ID.to_owned(),
        generation: 1,
        up: true,
        name: "bot".to_owned(),
        stack_file: std::fs::read_to_string(bot.join("compose.yaml")).expect("read"),
        file: "compose.yaml".to_owned(),
        // A checkout of a run needs no policy.
        run: "0189abcd-0000-7000-8000-00000000d0c2".to_owned(),
        ..v1::EnvironmentOrder::default()
    };
    let source = agent::environments::folder::describe(&bot).expect("a folder");
    let environments = Environments::new(Arc::clone(&host));
    let began = Instant::now();
    environments
        .hold(Wanted { order, folder: Some(source), images: BTreeMap::new(), halted: false })
        .await
        .expect("held");
    let view = until(&environments, EnvironmentState::Ready).await;
    eprintln!("ready after {:?}", began.elapsed());
    for service in &view.observed.services {
        eprintln!(
            "{} {:?} {:?} {:?} {:?}",
            service.name, service.state, service.ready_after_micros, service.detail, service.addresses
        );
    }
    let began = Instant::now();
    environments.drop(ID).await.expect("dropped");
    until(&environments, EnvironmentState::Gone).await;
    eprintln!("gone after {:?}", began.elapsed());
    assert!(host.engine.containers(&host.id).await.expect("listed").is_empty());
    assert!(host.engine.networks(&host.id).await.expect("listed").is_empty());
    assert!(host.engine.volumes(&host.id).await.expect("listed").is_empty());
    assert!(host.routes.entries().await.expect("listed").is_empty());
    assert_eq!(std::fs::read_dir(host.pool.layout().environments()).expect("listed").count(), 0);
    drop((environments, host));
    drop(unmount);
}

fn docker(words: &[&str]) -> String {
    let out = std::process::Command::new("docker").args(words).output().expect("docker runs");
    assert!(out.status.success(), "docker {words:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_that_a_killed_engine_left_is_made_anew_and_one_with_data_is_kept() {
    if !wanted() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let engine = Docker::new(Path::new(SOCKET));
    let name = format!("muster-left-{}", std::process::id());
    let labels = Labels { host: ID.to_owned(), slot: ID.to_owned(), part: String::new(), spec: String::new() };
    let spec = VolumeSpec { name: name.clone(), labels, folder: folder.path().to_owned() };
    // As an engine leaves it that was killed before it remembered whose it is.
    docker(&["volume", "create", &name]);
    adopt::volume(&engine, &spec).await.expect("made anew");
    assert_eq!(engine.volume(&name).await.expect("looked"), Some(FoundVolume::Labelled(spec.labels.clone())));
    docker(&["volume", "rm", &name]);
    docker(&["volume", "create", &name]);
    let data = docker(&["volume", "inspect", "--format", "{{.Mountpoint}}", &name]);
    std::fs::write(Path::new(&data).join("file"), "somebody's").expect("written");
    let refused = adopt::volume(&engine, &spec).await.expect_err("it is somebody's");
    assert!(refused.to_string().starts_with("volume "), "{refused}");
    assert!(Path::new(&data).join("file").exists());
    docker(&["volume", "rm", &name]);
}
