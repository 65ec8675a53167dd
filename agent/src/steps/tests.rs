use std::path::Path;
use std::time::Duration;

use domain::health::{HealthCheck, Probe};

use super::*;
use crate::engine::fake::{Behaviour, Fake};
use crate::host::tests::at;
use crate::routes::Table;
use crate::waiting::until;

const HOST: &str = "0189abcd-0000-7000-8000-0000000000aa";
const PREFIX: &str = "muster-0000000000aa-bot-production";

struct Bench {
    fake: Arc<Fake>,
    routes: Arc<Table>,
    folder: tempfile::TempDir,
    steps: Steps,
    host: Arc<Host>,
    runs: u64,
}

impl Bench {
    async fn new() -> Self {
        let fake = Arc::new(Fake::new());
        let routes = Arc::new(Table::default());
        let folder = tempfile::tempdir().expect("a folder");
        let host = at(Arc::clone(&fake), routes.clone(), folder.path(), Path::new("/nowhere"), HOST).await;
        let steps = Steps::new(Arc::clone(&host), 1, watch::channel(None).1);
        Self { fake, routes, folder, steps, host, runs: 1 }
    }

    /// The agent is killed and started again.
    async fn restart(&mut self) {
        self.steps.abort();
        self.host.state.close().await;
        self.runs += 1;
        self.host =
            at(Arc::clone(&self.fake), self.routes.clone(), self.folder.path(), Path::new("/nowhere"), HOST).await;
        self.steps = Steps::new(Arc::clone(&self.host), self.runs, watch::channel(None).1);
        self.steps.load().await.expect("loaded");
    }

    async fn until(&self, what: &str, reached: impl Fn(&v1::StepReport) -> bool) -> v1::StepReport {
        let mut told = self.steps.targets()["bot/production"].told.clone();
        let done = |report: &Option<v1::StepReport>| report.as_ref().is_some_and(&reached);
        let seen = told.clone();
        match tokio::time::timeout(Duration::from_secs(20), told.wait_for(done)).await {
            Ok(report) => report.expect("told").clone().expect("there"),
            Err(_) => panic!("{what} was not reached: {:#?}\n{:?}", seen.borrow(), self.fake.calls()),
        }
    }
}

fn check() -> HealthCheck {
    let mut check = HealthCheck::new(Probe::Http { path: "/health".to_owned(), port: None });
    check.interval = Duration::from_millis(50);
    check
}

fn release(number: u64) -> v1::ReleaseSpec {
    let id = |kind: u64| format!("0189abcd-0000-7000-8000-{:012}", kind * 100 + number);
    v1::ReleaseSpec {
        id: id(1),
        target: "bot/production".to_owned(),
        number,
        build: id(2),
        commit: "a".repeat(40),
        image: Some(v1::BuildImage {
            reference: format!("bot@sha256:{number}"),
            platform: "linux/amd64".to_owned(),
            ..Default::default()
        }),
        processes: [(
            "web".to_owned(),
            v1::Process { ports: vec![8000], health: Some((&check()).into()), overlap: true, ..Default::default() },
        )]
        .into(),
        expose: vec![v1::Expose {
            process: "web".to_owned(),
            port: 18_931,
            mode: v1::Mode::Http.into(),
            address: String::new(),
        }],
        digest: "b".repeat(64),
        ..Default::default()
    }
}

fn order(kind: v1::StepOrderKind, generation: u64, number: u64) -> v1::StepOrder {
    v1::StepOrder {
        rollout: "0189abcd-0000-7000-8000-000000000009".to_owned(),
        target: "bot/production".to_owned(),
        member: HOST.to_owned(),
        executor: HOST.to_owned(),
        generation,
        kind: kind.into(),
        release: (number > 0).then(|| release(number)),
        processes: vec!["web".to_owned()],
        purpose: v1::StepPurpose::Forward.into(),
        undo: true,
        min_healthy_micros: 100_000,
        healthy_deadline_micros: 10_000_000,
        confirm_deadline_micros: 10_000_000,
        drain_timeout_micros: 1_000,
        kill_timeout_micros: 1_000,
        retain_releases: 1,
    }
}

fn serving(fake: &Fake, number: u64, status: u16) {
    let behaviour =
        Behaviour { http: Some((8000, status)), says: vec![format!("release {number}")], ..Behaviour::default() };
    fake.behave(&format!("bot@sha256:{number}"), behaviour);
}

fn verdict(report: &v1::StepReport) -> Option<v1::StepVerdict> {
    report.step.as_ref().map(v1::GoProgress::verdict)
}

fn settled(report: &v1::StepReport) -> Option<v1::Settled> {
    report.step.as_ref().map(v1::GoProgress::settled)
}

/// Brings a release up, from staging to the end of the one before.
async fn bring_up(bench: &Bench, generation: u64, number: u64) {
    bench.steps.order(order(v1::StepOrderKind::Stage, generation, number)).await;
    bench
        .until("staged", |report| {
            report.stage.as_ref().is_some_and(|stage| stage.generation == generation && stage.ended)
        })
        .await;
    bench.steps.order(order(v1::StepOrderKind::Go, generation + 1, number)).await;
    bench
        .until("a verdict", |report| {
            report.generation == generation + 1 && verdict(report) == Some(v1::StepVerdict::Healthy)
        })
        .await;
    bench.steps.order(order(v1::StepOrderKind::Confirm, generation + 1, 0)).await;
    let id = release(number).id;
    bench.until("quiet", |report| report.current == id && report.quiet).await;
}

#[tokio::test]
async fn a_release_replaces_another_behind_its_gate() {
    let bench = Bench::new().await;
    serving(&bench.fake, 1, 200);
    serving(&bench.fake, 2, 200);
    bring_up(&bench, 1, 1).await;
    assert_eq!(bench.fake.running(), [format!("{PREFIX}-web-r1")]);
    bring_up(&bench, 3, 2).await;
    assert_eq!(bench.fake.names(), [format!("{PREFIX}-web-r2")]);
    let route = bench.routes.route(18_931).expect("published");
    assert_eq!(route.release, release(2).id);
    assert_eq!(route.endpoint.port(), 8000);
    // The new one had the traffic before the old one was drained and stopped.
    let log = bench.routes.log();
    let at = |text: &str| log.iter().position(|line| line == text).expect("logged");
    assert!(at(&format!("route 18931 {}", release(2).id)) < at(&format!("drain 18931 {}", release(1).id)));
    let spec = bench.fake.spec(&format!("{PREFIX}-web-r2")).expect("made");
    assert_eq!(spec.environment["MUSTER_RELEASE"], "2");
    assert_eq!(spec.environment["MUSTER_HOST"], "box");
}

#[tokio::test]
async fn a_broken_release_is_told_with_its_last_answers_and_lines_and_undone() {
    let bench = Bench::new().await;
    serving(&bench.fake, 1, 200);
    serving(&bench.fake, 2, 500);
    bring_up(&bench, 1, 1).await;
    let mut go = order(v1::StepOrderKind::Go, 3, 2);
    go.confirm_deadline_micros = 200_000;
    bench.steps.order(go).await;
    let failed = |report: &v1::StepReport| {
        let failure = report.step.as_ref().and_then(|step| step.failure.as_ref());
        failure.is_some_and(|failure| !failure.log.is_empty())
    };
    let report = bench.until("a failure", failed).await;
    let failure = report.step.expect("a step").failure.expect("a failure");
    assert_eq!(failure.code, "E_HEALTH_FAILING");
    assert!(failure.answers.iter().any(|answer| answer.text.contains("500")), "{failure:?}");
    assert_eq!(failure.log, ["release 2"]);
    bench.until("undone", |report| settled(report) == Some(v1::Settled::Undone) && report.quiet).await;
    assert_eq!(bench.fake.running(), [format!("{PREFIX}-web-r1")]);
    assert_eq!(bench.routes.route(18_931).expect("published").release, release(1).id);
}

#[tokio::test]
async fn an_agent_killed_at_any_point_of_a_step_goes_on_with_it() {
    for stop_after in ["create", "start", "route", "verdict"] {
        let mut bench = Bench::new().await;
        serving(&bench.fake, 1, 200);
        serving(&bench.fake, 2, 200);
        bring_up(&bench, 1, 1).await;
        bench.steps.order(order(v1::StepOrderKind::Go, 3, 2)).await;
        let seen = async {
            loop {
                let calls = bench.fake.calls();
                let made = |what: &str| calls.contains(&format!("{what} {PREFIX}-web-r2"));
                let routed = bench.routes.route(18_931).is_some_and(|route| route.release == release(2).id);
                let decided = bench
                    .steps
                    .reports()
                    .iter()
                    .any(|report| report.generation == 3 && verdict(report) == Some(v1::StepVerdict::Healthy));
                let reached = match stop_after {
                    "create" => made("create"),
                    "start" => made("start"),
                    "route" => routed,
                    _ => decided,
                };
                if reached {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), seen).await.expect("reached");
        bench.restart().await;
        bench
            .until("a verdict", |report| report.generation == 3 && verdict(report) == Some(v1::StepVerdict::Healthy))
            .await;
        bench.steps.order(order(v1::StepOrderKind::Confirm, 3, 0)).await;
        bench.until("quiet", |report| report.current == release(2).id && report.quiet).await;
        assert_eq!(bench.fake.names(), [format!("{PREFIX}-web-r2")], "{stop_after}");
        assert_eq!(bench.fake.starts(&format!("{PREFIX}-web-r2")), 1, "{stop_after}");
    }
}

#[tokio::test]
async fn orders_for_other_hosts_and_stale_ones_change_nothing() {
    let bench = Bench::new().await;
    serving(&bench.fake, 1, 200);
    let mut other = order(v1::StepOrderKind::Go, 1, 1);
    other.executor = "0189abcd-0000-7000-8000-0000000000bb".to_owned();
    bench.steps.order(other).await;
    assert!(bench.steps.names().is_empty());
    bring_up(&bench, 5, 1).await;
    let calls = bench.fake.calls();
    bench.steps.order(order(v1::StepOrderKind::Remove, 4, 0)).await;
    let report = bench.until("an answer", |report| report.stamp_number > 0 && report.generation == 6).await;
    assert_eq!(report.current, release(1).id);
    assert_eq!(bench.fake.calls(), calls);
}

#[tokio::test]
async fn a_process_that_dies_is_restarted_and_keeps_its_traffic() {
    let bench = Bench::new().await;
    serving(&bench.fake, 1, 200);
    bring_up(&bench, 1, 1).await;
    bench.fake.subscribed(HOST).await;
    let name = format!("{PREFIX}-web-r1");
    bench.fake.exit(&name, 137);
    until("its second start", async || bench.fake.starts(&name) >= 2).await;
    bench.until("quiet", |report| report.quiet && report.serving).await;
    assert_eq!(bench.routes.route(18_931).expect("published").release, release(1).id);
}

#[tokio::test]
async fn a_relay_that_leads_to_where_a_process_was_before_its_restart_is_not_believed() {
    let leads = async |bench: &Bench| {
        until("traffic reaches the process", async || {
            let running = bench.host.engine.inspect(&format!("{PREFIX}-web-r1")).await.ok().flatten();
            let address = running.and_then(|found| found.addresses.into_values().next());
            let route = bench.routes.route(18_931).filter(|route| route.release == release(1).id);
            address.is_some() && route.map(|route| route.endpoint.ip()) == address
        })
        .await;
    };
    // The relay is silent when the process comes back with another address.
    let mut bench = Bench::new().await;
    serving(&bench.fake, 1, 200);
    bring_up(&bench, 1, 1).await;
    bench.fake.subscribed(HOST).await;
    let name = format!("{PREFIX}-web-r1");
    bench.routes.silence(1);
    bench.fake.exit(&name, 137);
    until("its second start", async || bench.fake.starts(&name) >= 2).await;
    bench.steps.wake();
    leads(&bench).await;
    // It came back while no agent ran.
    bench.steps.abort();
    bench.fake.exit(&name, 137);
    bench.host.engine.start(&name).await.expect("started");
    bench.restart().await;
    leads(&bench).await;
    // Something else told the relay so.
    let route = bench.routes.route(18_931).expect("published");
    let stale = crate::routes::Route { endpoint: "127.0.0.1:1".parse().expect("an address"), ..route };
    bench.host.routes.set(stale).await.expect("set");
    bench.steps.wake();
    leads(&bench).await;
}

#[tokio::test]
async fn a_relay_that_lost_its_table_is_told_again() {
    let bench = Bench::new().await;
    serving(&bench.fake, 1, 200);
    bring_up(&bench, 1, 1).await;
    bench.host.routes.remove(18_931, "target:bot/production:web").await.expect("removed");
    bench.steps.wake();
    until("the route", async || bench.routes.route(18_931).is_some()).await;
}

#[tokio::test]
async fn a_port_of_somebody_else_is_refused_before_anything_is_touched() {
    let bench = Bench::new().await;
    let route = crate::routes::Route {
        port: 18_931,
        bind: bench.host.listen_address,
        mode: domain::app::Mode::Tcp,
        key: "env:x:y:1".to_owned(),
        release: "x".to_owned(),
        endpoint: "127.0.0.1:1".parse().expect("an address"),
    };
    bench.host.routes.set(route).await.expect("set");
    bench.steps.order(order(v1::StepOrderKind::Stage, 1, 1)).await;
    let report = bench.until("staged", |report| report.stage.as_ref().is_some_and(|stage| stage.ended)).await;
    assert_eq!(report.stage.expect("a stage").refused, "E_PREFLIGHT_PORT");
    assert!(bench.fake.names().is_empty());
}

#[tokio::test]
async fn preflight_waits_for_an_engine_that_is_being_restarted() {
    let bench = Bench::new().await;
    serving(&bench.fake, 1, 200);
    bench.fake.away(true);
    bench.steps.order(order(v1::StepOrderKind::Stage, 1, 1)).await;
    bench.until("begun", |report| report.stage.as_ref().is_some_and(|stage| !stage.ended)).await;
    bench.fake.away(false);
    let report = bench.until("staged", |report| report.stage.as_ref().is_some_and(|stage| stage.ended)).await;
    assert_eq!(report.stage.expect("a stage").refused, "");
}
