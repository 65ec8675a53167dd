use std::path::Path;

use super::tests::{ID, behave, is, name, order, starts, until};
use super::*;
use crate::engine::fake::{Behaviour, Fake, Fault, Op};
use crate::freezer::Memory;
use crate::host::tests::at;
use crate::routes::Table;

/// An environment on a host whose freezer and routes are seen.
struct Rig {
    fake: Arc<Fake>,
    routes: Arc<Table>,
    freezer: Arc<Memory>,
    folder: tempfile::TempDir,
    host: Arc<Host>,
    environments: Arc<Environments>,
    wakes: tokio::task::JoinHandle<()>,
}

fn sleepy(generation: u64, idle: &str) -> v1::EnvironmentOrder {
    let mut order = order(generation);
    order.stack_file = format!("{}x-muster: {{ idle: {idle} }}\n", order.stack_file);
    order
}

async fn begin(
    fake: &Arc<Fake>,
    routes: &Arc<Table>,
    freezer: &Arc<Memory>,
    folder: &Path,
    rebooted: bool,
) -> (Arc<Host>, Arc<Environments>, tokio::task::JoinHandle<()>) {
    let host = at(Arc::clone(fake), routes.clone(), folder, Path::new("/nowhere"), "h1").await;
    let mut host = Arc::try_unwrap(host).expect("nobody else has it");
    host.freezer = freezer.clone();
    host.rebooted = rebooted;
    let host = Arc::new(host);
    let environments = Arc::new(Environments::new(Arc::clone(&host)));
    let waking = Arc::clone(&environments);
    let wakes = tokio::spawn(async move { waking.watch_wakes().await });
    (host, environments, wakes)
}

impl Rig {
    async fn new() -> Self {
        let fake = Arc::new(Fake::new());
        behave(&fake);
        fake.behave("web:1", Behaviour { http: Some((8000, 200)), ..Behaviour::default() });
        let (routes, freezer) = (Arc::new(Table::default()), Arc::new(Memory::default()));
        let folder = tempfile::tempdir().expect("a folder");
        let (host, environments, wakes) = begin(&fake, &routes, &freezer, folder.path(), false).await;
        Self { fake, routes, freezer, folder, host, environments, wakes }
    }

    /// Another start of the agent.
    async fn again(self, rebooted: bool) -> Self {
        let Self { fake, routes, freezer, folder, host, environments, wakes } = self;
        wakes.abort();
        drop(environments);
        host.state.close().await;
        let (host, environments, wakes) = begin(&fake, &routes, &freezer, folder.path(), rebooted).await;
        environments.load().await.expect("loaded");
        Self { fake, routes, freezer, folder, host, environments, wakes }
    }

    fn port(&self) -> u16 {
        data::Manifest::read(&self.host.pool, ID).expect("readable").expect("written").ports["postgres:5432"]
    }

    fn knock(&self) {
        self.routes.knock(self.port(), crate::clock::now());
    }
}

#[tokio::test]
async fn what_is_not_used_is_frozen_and_thawed_by_a_connection_without_a_start() {
    let rig = Rig::new().await;
    rig.environments.order(sleepy(1, "{ freeze: 200ms, stop: never }")).await;
    let asleep = until(&rig.environments, is(EnvironmentState::Frozen)).await;
    assert_eq!(rig.freezer.all().len(), 2, "postgres and web; migrate has ended");
    assert_eq!(rig.routes.held().len(), 2);
    assert_eq!(asleep.observed.services[1].variables.len(), 6, "its credentials are told");
    let activity = asleep.observed.activity.expect("told");
    assert_eq!((activity.why.as_str(), activity.memory_bytes), ("not used for 200ms (idle.freeze)", 2 << 20));
    rig.knock();
    until(&rig.environments, is(EnvironmentState::Ready)).await;
    assert!(rig.freezer.all().is_empty() && rig.routes.held().is_empty());
    assert_eq!(starts(&rig.fake), [name("postgres"), name("migrate"), name("web")]);
}

#[tokio::test]
async fn what_is_not_used_for_long_is_thawed_and_stopped_in_order_and_started_once_in_order() {
    let rig = Rig::new().await;
    rig.environments.order(sleepy(1, "{ freeze: 200ms, stop: 600ms }")).await;
    until(&rig.environments, is(EnvironmentState::Frozen)).await;
    until(&rig.environments, is(EnvironmentState::Asleep)).await;
    assert!(rig.freezer.all().is_empty() && rig.fake.running().is_empty());
    let calls = rig.fake.calls();
    let stops: Vec<_> = calls.iter().filter_map(|call| call.strip_prefix("stop ")).collect();
    assert_eq!(stops, [name("web"), name("postgres")]);
    for _ in 0..50 {
        rig.knock();
    }
    until(&rig.environments, is(EnvironmentState::Ready)).await;
    assert!(rig.routes.held().is_empty());
    // What was done once stays done.
    assert_eq!(starts(&rig.fake)[3..], [name("postgres"), name("web")]);
}

#[tokio::test]
async fn who_comes_just_before_it_is_stopped_finds_it_running() {
    let rig = Rig::new().await;
    rig.routes.touch_before_hold();
    rig.environments.order(sleepy(1, "{ freeze: never, stop: 300ms }")).await;
    until(&rig.environments, is(EnvironmentState::Asleep)).await;
    let log = rig.routes.log();
    let port = rig.port();
    let of_port = log.iter().filter(|line| line.contains(&format!(" {port}"))).map(|line| line.split(' ').next());
    let words: Vec<&str> = of_port.flatten().collect();
    assert_eq!(words, ["route", "hold", "route", "hold", "hold"], "it was led to again before it slept: {log:?}");
    assert_eq!(starts(&rig.fake), [name("postgres"), name("migrate"), name("web")]);
}

#[tokio::test]
async fn one_that_is_used_while_it_is_frozen_is_thawed_instead_of_stopped() {
    let rig = Rig::new().await;
    rig.environments.order(sleepy(1, "{ freeze: 200ms, stop: 600ms }")).await;
    until(&rig.environments, is(EnvironmentState::Frozen)).await;
    // As one sees it whose question for a wake was lost.
    rig.routes.touch(rig.port(), crate::clock::now());
    until(&rig.environments, is(EnvironmentState::Ready)).await;
    assert!(rig.freezer.all().is_empty());
    assert_eq!(starts(&rig.fake), [name("postgres"), name("migrate"), name("web")]);
}

#[tokio::test]
async fn an_order_wakes_and_a_removal_thaws_first() {
    let rig = Rig::new().await;
    rig.environments.order(sleepy(1, "{ freeze: 200ms, stop: never }")).await;
    until(&rig.environments, is(EnvironmentState::Frozen)).await;
    rig.environments.order(sleepy(2, "{ freeze: 200ms, stop: never }")).await;
    until(&rig.environments, |view| view.observed.generation.0 == 2 && view.observed.state == EnvironmentState::Ready)
        .await;
    until(&rig.environments, is(EnvironmentState::Frozen)).await;
    let mut down = order(3);
    down.up = false;
    rig.environments.order(down).await;
    until(&rig.environments, is(EnvironmentState::Gone)).await;
    assert!(rig.freezer.all().is_empty() && rig.fake.names().is_empty());
    assert_eq!(rig.host.state.meta(&format!("life:{ID}")).await.expect("read"), None);
}

#[tokio::test]
async fn another_start_of_the_agent_leaves_a_sleeper_asleep_and_wakes_it_when_asked() {
    let rig = Rig::new().await;
    rig.environments.order(sleepy(1, "{ freeze: 200ms, stop: never }")).await;
    until(&rig.environments, is(EnvironmentState::Frozen)).await;
    let rig = rig.again(false).await;
    until(&rig.environments, is(EnvironmentState::Frozen)).await;
    assert_eq!(rig.freezer.all().len(), 2);
    rig.knock();
    until(&rig.environments, is(EnvironmentState::Ready)).await;
    assert!(rig.freezer.all().is_empty());
    // What was frozen when the machine went down is asleep afterwards.
    until(&rig.environments, is(EnvironmentState::Frozen)).await;
    rig.fake.reboot();
    let rig = rig.again(true).await;
    until(&rig.environments, is(EnvironmentState::Asleep)).await;
    assert!(rig.fake.running().is_empty());
    rig.knock();
    until(&rig.environments, is(EnvironmentState::Ready)).await;
    assert_eq!(rig.fake.running(), [name("postgres"), name("web")]);
}

#[tokio::test]
async fn a_wake_that_fails_sends_away_who_waits_and_is_told() {
    let rig = Rig::new().await;
    rig.environments.order(sleepy(1, "{ freeze: never, stop: 300ms }")).await;
    until(&rig.environments, is(EnvironmentState::Asleep)).await;
    rig.fake.behave("postgres:15", Behaviour { exits: Some(1), ..Behaviour::default() });
    rig.knock();
    let view = until(&rig.environments, is(EnvironmentState::Failed)).await;
    // It was ready before, so that it was tried more than once.
    assert_eq!(view.observed.reason.expect("a reason").0, "E_ENV_CRASH_LOOP");
    let refused = format!("refuse {}", rig.port());
    let told = tokio::time::timeout(std::time::Duration::from_secs(20), async {
        while !rig.routes.log().contains(&refused) {
            tokio::task::yield_now().await;
        }
    });
    told.await.expect("who waits is sent away");
}

#[tokio::test]
async fn a_wake_is_tried_again_when_the_engine_refuses_a_start_also_by_the_next_agent() {
    let rig = Rig::new().await;
    let refused = || Fault::Refused("failed to start shim: exit status 1".to_owned());
    rig.environments.order(sleepy(1, "{ freeze: never, stop: 500ms }")).await;
    until(&rig.environments, is(EnvironmentState::Asleep)).await;
    rig.fake.fail(Op::Start, refused());
    rig.knock();
    until(&rig.environments, is(EnvironmentState::Ready)).await;
    until(&rig.environments, is(EnvironmentState::Asleep)).await;
    let rig = rig.again(false).await;
    rig.fake.fail(Op::Start, refused());
    rig.knock();
    until(&rig.environments, is(EnvironmentState::Ready)).await;
    assert_eq!(rig.fake.running(), [name("postgres"), name("web")]);
}
