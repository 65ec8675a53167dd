use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use prost::Message as _;

use super::*;
use crate::engine::Engine as _;
use crate::engine::fake::{Behaviour, Fake};
use crate::host::tests::at;
use crate::job::{Handle, State};
use crate::logs::Error as LogError;
use crate::routes::Table;
use crate::spool::Line;
use crate::waiting::{until, wait_for};

/// The variable that makes the test below a job instead.
const ENTRY: &str = "MUSTER_TEST_RUN_JOB";
const RUN: &str = "019a0000-0000-7000-8000-000000000c41";
const HOST: &str = "0189abcd-0000-7000-8000-0000000000aa";
const APP: &str = "
app: bot
processes: { web: { command: [serve], ports: [8000] } }
stack: compose.yaml
tests:
  unit: { command: [sh, -c, unused], service: web, timeout: 10s, no_output: 5s }
  quick: { command: [sh, -c, unused], service: web, timeout: 1s }
  reported: { command: [sh, -c, unused], service: web, reports: { junit: reports/*.xml } }
";
const STACK: &str = "
services:
  postgres:
    image: postgres:15
    environment: { POSTGRES_PASSWORD: \"${PG:-x}\" }
    ports: [\"5432:5432\"]
  web:
    image: web:1
    env_file: [web.env]
    volumes: [\"./src:/app/src\"]
    depends_on: { postgres: { condition: service_healthy } }
";

/// Not a test by itself: the jobs of the others are this test binary with this name.
#[test]
fn run_job_entry() {
    if let Some(directory) = std::env::var_os(ENTRY) {
        assert_eq!(
            format!("{:?}", crate::job::main(Path::new(&directory))),
            format!("{:?}", std::process::ExitCode::SUCCESS)
        );
    }
}

/// Takes every log.
#[derive(Debug, Clone, Default)]
struct Sink {
    logs: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
}

impl Sink {
    fn text(&self, key: &str) -> String {
        String::from_utf8_lossy(self.logs.lock().unwrap().get(key).map_or(&[], Vec::as_slice)).into_owned()
    }
}

#[derive(Debug)]
struct SinkLine(Sink, String);

#[async_trait]
impl Outlet for Sink {
    async fn connected(&self) {}

    async fn open(&self, key: &str, _: &str, _: u64) -> Result<Box<dyn Line>, LogError> {
        Ok(Box::new(SinkLine(self.clone(), key.to_owned())))
    }
}

#[async_trait]
impl Line for SinkLine {
    fn stored(&self) -> u64 {
        self.0.logs.lock().unwrap().get(&self.1).map_or(0, |log| log.len() as u64)
    }

    async fn send(&mut self, _: &str, offset: u64, bytes: Bytes) -> Result<(), LogError> {
        assert_eq!(offset, self.stored());
        self.0.logs.lock().unwrap().entry(self.1.clone()).or_default().extend_from_slice(&bytes);
        Ok(())
    }

    async fn end(&mut self, _: &str, _: u64) -> Result<(), LogError> {
        Ok(())
    }
}

/// One host, a repository, and an agent that can be started again.
struct Rig {
    folder: tempfile::TempDir,
    fake: Arc<Fake>,
    commit: String,
    sink: Sink,
    _connected: watch::Sender<Option<Channel>>,
    channel: watch::Receiver<Option<Channel>>,
}

struct Agent {
    host: Arc<Host>,
    environments: Arc<Environments>,
    runs: Runs,
}

impl Rig {
    fn new() -> Self {
        Self::with(APP)
    }

    fn with(app: &str) -> Self {
        Self::of(app, STACK)
    }

    fn of(app: &str, stack: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let origin = folder.path().join("origin");
        std::fs::create_dir_all(origin.join("src")).unwrap();
        for (name, text) in
            [("muster.yaml", app), ("compose.yaml", stack), ("web.env", "FROM_FILE=yes\n"), ("src/bot.py", "x\n")]
        {
            std::fs::write(origin.join(name), text).unwrap();
        }
        git(&origin, &["init", "-q", "-b", "main"]);
        git(&origin, &["add", "-A"]);
        git(&origin, &["commit", "-q", "-m", "the first"]);
        let commit = git(&origin, &["rev-parse", "HEAD"]);
        let fake = Arc::new(Fake::new());
        fake.behave("postgres:15", Behaviour { postgres: Some(5432), ..Behaviour::default() });
        let (connected, channel) = watch::channel(None);
        Self { folder, fake, commit, sink: Sink::default(), _connected: connected, channel }
    }

    /// A start of the agent; `script` is what the test command does.
    async fn start(&self, script: &str) -> Agent {
        let routes = Arc::new(Table::default());
        let host = at(Arc::clone(&self.fake), routes, self.folder.path(), Path::new("/nowhere"), HOST).await;
        let host = Arc::new(Host { policy: self.policy(), ..Arc::into_inner(host).unwrap() });
        let environments = Arc::new(Environments::new(Arc::clone(&host)));
        environments.load().await.unwrap();
        let job = self.folder.path().join("runs").join(RUN).join("job");
        let runs = Runs::new(Setup {
            host: Arc::clone(&host),
            places: Arc::clone(&environments) as Arc<dyn Places>,
            logs: Arc::new(self.sink.clone()),
            channel: self.channel.clone(),
            state_dir: self.folder.path().to_owned(),
            engine: "/nowhere".into(),
            launcher: Launcher {
                program: "/proc/self/exe".into(),
                arguments: vec!["--exact".into(), "runs::tests::run_job_entry".into()],
                variables: vec![(ENTRY.into(), job.into())],
            },
            substitute: Some(ProcessSpec {
                argv: ["sh", "-c", script].map(str::to_owned).to_vec(),
                env: [("PATH".to_owned(), "/usr/bin:/bin".to_owned())].into(),
                cwd: "/".into(),
                user: None,
            }),
        });
        runs.load().await.unwrap();
        Agent { host, environments, runs }
    }

    fn policy(&self) -> crate::policy::Policy {
        let path = self.folder.path().join("policy.toml");
        let text = format!("repositories = [{:?}]\n", self.folder.path().display().to_string());
        std::fs::write(&path, text).unwrap();
        crate::policy::Policy::read(&path).unwrap()
    }

    fn order(&self, tests: &str) -> v1::RunOrder {
        v1::RunOrder {
            id: RUN.to_owned(),
            app: "bot".to_owned(),
            tests: tests.to_owned(),
            commit: self.commit.clone(),
            repository: self.folder.path().join("origin").display().to_string(),
            owner: "asha".to_owned(),
            ..Default::default()
        }
    }

    fn runs(&self) -> std::path::PathBuf {
        self.folder.path().join("runs")
    }

    /// Nothing of any run is left but the memory that it ended.
    fn is_clean(&self) -> bool {
        let home = self.runs().join(RUN);
        let left: Vec<_> = std::fs::read_dir(home).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left == ["run.json"] && self.fake.objects().is_empty()
    }
}

fn git(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false"])
        .args(arguments)
        .current_dir(folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

impl Agent {
    /// The result that waits to be acknowledged.
    async fn result(&self) -> v1::RunReport {
        wait_for("a result", async || {
            let results = self.host.state.results().await.unwrap();
            results.into_iter().find_map(|message| match message.message {
                Some(Message::Run(report)) => Some(report),
                _ => None,
            })
        })
        .await
    }

    /// What the session does with an acknowledgement.
    async fn acknowledge(&self, report: &v1::RunReport) {
        self.host.state.acknowledged(&report.result).await.unwrap();
        assert!(self.runs.acknowledged(&report.result).await.unwrap());
        until("the end of all runs", async || self.runs.running().is_empty()).await;
    }

    async fn logged(&self, rig: &Rig, text: &str) {
        until(text, async || rig.sink.text(&format!("run:{RUN}")).contains(text)).await;
    }
}

fn code(report: &v1::RunReport) -> &str {
    report.reason.as_ref().map_or("", |reason| reason.code.as_str())
}

#[tokio::test]
async fn a_run_passes_and_everything_is_removed() {
    let rig = Rig::new();
    let agent = rig.start("echo one; echo two >&2").await;
    agent.runs.order(rig.order("unit")).await;
    let report = agent.result().await;
    assert_eq!((report.verdict(), report.exited, report.exit_code), (v1::Verdict::Passed, true, 0), "{report:?}");
    assert_eq!(rig.sink.text(&format!("run:{RUN}")), "one\ntwo\n", "the result follows the whole log");
    assert_eq!(agent.runs.running(), [RUN], "until it is acknowledged");
    agent.acknowledge(&report).await;
    assert!(rig.is_clean(), "{:?}", rig.fake.objects());
    assert!(agent.host.state.environments().await.unwrap().is_empty());
}

#[tokio::test]
async fn the_environment_is_fresh_and_made_from_the_commits_files() {
    let rig = Rig::new();
    let agent = rig.start("echo ready; exec sleep 600").await;
    agent.runs.order(rig.order("unit")).await;
    agent.logged(&rig, "ready").await;
    let environment = agent.environments.ids().into_iter().next().unwrap();
    let id: domain::ids::EnvironmentId = environment.parse().unwrap();
    let web = rig.fake.spec(&format!("muster-{}-web", id.short())).unwrap();
    assert_eq!(web.environment["FROM_FILE"], "yes");
    let source = rig.runs().join(RUN).join("tree/src");
    assert!(format!("{:?}", web.mounts).contains(&format!("{:?}", source.display().to_string())), "{:?}", web.mounts);
    assert!(agent.environments.applied().is_empty(), "it is no business of the coordinator's");
    agent.runs.order(v1::RunOrder { cancel: true, ..rig.order("unit") }).await;
    let report = agent.result().await;
    assert_eq!((report.verdict(), code(&report)), (v1::Verdict::Cancelled, "E_RUN_CANCELLED"));
    agent.acknowledge(&report).await;
    assert!(rig.is_clean());
}

#[tokio::test]
async fn failures_and_timeouts_have_their_verdicts() {
    for (tests, script, verdict, reason) in [
        ("unit", "exit 3", v1::Verdict::Failed, ""),
        ("unit", "kill -9 $$", v1::Verdict::Failed, "E_RUN_SIGNALLED"),
        ("quick", "exec sleep 600", v1::Verdict::TimedOut, "E_RUN_TIMEOUT"),
        ("reported", "exit 0", v1::Verdict::Errored, "E_RUN_REPORT_UNREADABLE"),
    ] {
        let rig = Rig::new();
        let agent = rig.start(script).await;
        agent.runs.order(rig.order(tests)).await;
        let report = agent.result().await;
        assert_eq!((report.verdict(), code(&report)), (verdict, reason), "{tests} {script}: {report:?}");
    }
}

/// What is strange about an order.
type Change = fn(&mut v1::RunOrder);

#[tokio::test]
async fn what_cannot_begin_says_why() {
    let no_service = APP.replace("service: web, timeout: 10s", "timeout: 10s");
    let broken = APP.replace("app: bot", "app: bot\nprocesess: {}");
    let missing = APP.replace("stack: compose.yaml", "stack: nothing.yaml");
    let cases: [(&str, Change, &str); 8] = [
        (APP, |order| order.tests = "other".to_owned(), "E_RUN_TESTS"),
        (APP, |order| order.app = "shop".to_owned(), "E_RUN_APP"),
        (APP, |order| order.commit = "ab".repeat(20), "E_GIT_COMMIT_MISSING"),
        (APP, |order| order.commit = "--upload-pack=x".to_owned(), "E_GIT_COMMIT"),
        (APP, |order| order.repository = "ext::sh -c x".to_owned(), "E_GIT_URL"),
        (APP, |order| order.repository = "/etc".to_owned(), "E_POLICY"),
        (&no_service, |_| {}, "E_RUN_SERVICE"),
        (&missing, |_| {}, "E_RUN_FILE"),
    ];
    for (app, change, expected) in cases {
        let rig = Rig::with(app);
        let agent = rig.start("").await;
        let mut order = rig.order("unit");
        change(&mut order);
        agent.runs.order(order).await;
        let report = agent.result().await;
        assert_eq!((report.verdict(), code(&report)), (v1::Verdict::Errored, expected), "{report:?}");
        agent.acknowledge(&report).await;
        assert!(rig.is_clean());
    }
    let rig = Rig::with(&broken);
    let agent = rig.start("").await;
    agent.runs.order(rig.order("unit")).await;
    let report = agent.result().await;
    assert!(report.reason.unwrap().text.contains("muster.yaml:3:1"), "with its place in the file");
}

#[tokio::test]
async fn a_service_that_dies_fails_the_run_before_it_begins() {
    let rig = Rig::new();
    rig.fake.behave("web:1", Behaviour { exits: Some(1), ..Behaviour::default() });
    let agent = rig.start("echo never").await;
    agent.runs.order(rig.order("unit")).await;
    let report = agent.result().await;
    assert_eq!(report.verdict(), v1::Verdict::Errored);
    assert!(code(&report).starts_with("E_ENV"), "{report:?}");
    agent.acknowledge(&report).await;
    assert!(rig.is_clean());
}

#[tokio::test]
async fn a_stack_with_a_seed_waits_for_what_the_coordinator_says_of_it() {
    let refused = v1::Reason { code: "E_SEED_UNKNOWN".to_owned(), text: "there is no seed staging".to_owned() };
    let nowhere = v1::RunSeed {
        address: "staging@1".to_owned(),
        data_from: format!("seed:{}", "ab".repeat(32)),
        ..v1::RunSeed::default()
    };
    // What is said is acted on: the second one is not in this host's pool.
    for (said, expected) in [
        (v1::RunSeed { refused: Some(refused), ..v1::RunSeed::default() }, "E_SEED_UNKNOWN"),
        (nowhere, "E_SEED_MISSING"),
    ] {
        let rig = Rig::of(APP, &format!("x-muster: {{ seed: staging }}\n{STACK}"));
        let agent = rig.start("echo never").await;
        agent.runs.order(rig.order("unit")).await;
        until("the question for the seed", async || {
            agent
                .runs
                .shared
                .active()
                .get(RUN)
                .and_then(|run| run.told.clone())
                .is_some_and(|told| told.seed == "staging")
        })
        .await;
        assert!(agent.environments.ids().is_empty(), "nothing is made before its data is known");
        agent.runs.order(v1::RunOrder { seed: Some(said), ..rig.order("unit") }).await;
        let report = agent.result().await;
        assert_eq!((report.verdict(), code(&report)), (v1::Verdict::Errored, expected), "{report:?}");
        agent.acknowledge(&report).await;
        assert!(rig.is_clean());
    }
}

#[tokio::test]
async fn an_order_sent_again_begins_nothing_again() {
    let rig = Rig::new();
    let mark = rig.folder.path().join("mark");
    let agent = rig.start(&format!("echo x >> {}", mark.display())).await;
    for _ in 0..3 {
        agent.runs.order(rig.order("unit")).await;
    }
    let report = agent.result().await;
    agent.runs.order(rig.order("unit")).await;
    agent.acknowledge(&report).await;
    agent.runs.order(rig.order("unit")).await;
    assert!(agent.runs.running().is_empty(), "a late order does not begin what has ended");
    assert_eq!(std::fs::read_to_string(mark).unwrap(), "x\n");
}

/// The agent's tasks go away in the middle; the job does not.
#[test]
fn an_agent_that_dies_in_the_middle_still_reports_the_true_verdict() {
    let rig = Rig::new();
    let go = rig.folder.path().join("go");
    let script = format!("echo started; until test -e {}; do sleep 0.01; done; echo done; exit 4", go.display());
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let first = runtime();
    first.block_on(async {
        let agent = rig.start(&script).await;
        agent.runs.order(rig.order("unit")).await;
        agent.logged(&rig, "started").await;
        // SQLite is locked by a dead agent only for as long as its process lives.
        agent.host.state.clone().close().await;
    });
    // Every task ends where it stands.
    first.shutdown_background();
    std::fs::write(go, "").unwrap();
    runtime().block_on(async {
        let agent = rig.start(&script).await;
        assert_eq!(agent.runs.running(), [RUN]);
        let report = agent.result().await;
        assert_eq!((report.verdict(), report.exit_code), (v1::Verdict::Failed, 4));
        assert_eq!(rig.sink.text(&format!("run:{RUN}")), "started\ndone\n");
        agent.acknowledge(&report).await;
        assert!(rig.is_clean());
    });
}

#[tokio::test]
async fn a_job_that_is_killed_is_interrupted_and_never_run_again() {
    let rig = Rig::new();
    let agent = rig.start("echo ready; exec sleep 600").await;
    agent.runs.order(rig.order("unit")).await;
    agent.logged(&rig, "ready").await;
    let job = rig.runs().join(RUN).join("job");
    assert_eq!(Handle::attach(&job).state().unwrap(), State::Running);
    let pid: i32 = std::fs::read_to_string(job.join("pid")).unwrap().lines().next().unwrap().parse().unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL).unwrap();
    let report = agent.result().await;
    assert_eq!((report.verdict(), code(&report)), (v1::Verdict::Interrupted, "E_RUN_INTERRUPTED"));
    agent.acknowledge(&report).await;
    assert!(rig.is_clean());
}

#[tokio::test]
async fn a_run_cancelled_before_it_came_does_not_begin() {
    let rig = Rig::new();
    let agent = rig.start("echo never").await;
    agent.runs.order(v1::RunOrder { cancel: true, ..rig.order("unit") }).await;
    let report = agent.result().await;
    assert_eq!(report.verdict(), v1::Verdict::Cancelled);
    agent.runs.order(rig.order("unit")).await;
    assert!(agent.runs.running().is_empty());
}

#[tokio::test]
async fn a_run_that_the_coordinator_does_not_know_is_ended() {
    let rig = Rig::new();
    let agent = rig.start("echo ready; exec sleep 600").await;
    agent.runs.order(rig.order("unit")).await;
    agent.logged(&rig, "ready").await;
    agent.runs.welcomed(&[RUN.to_owned()]).await;
    assert_eq!(agent.runs.running(), [RUN]);
    agent.runs.welcomed(&[]).await;
    until("the end of all runs", async || agent.runs.running().is_empty()).await;
    assert!(rig.is_clean());
}

#[tokio::test]
async fn the_next_run_sweeps_what_others_left() {
    let rig = Rig::new();
    let left = rig.runs().join("019a0000-0000-7000-8000-00000000dead");
    std::fs::create_dir_all(left.join("tree/deep")).unwrap();
    let agent = rig.start("exit 0").await;
    let stranger = crate::engine::ContainerSpec {
        name: "muster-run-00000000dead".to_owned(),
        host: HOST.to_owned(),
        slot: "run:019a0000-0000-7000-8000-00000000dead".to_owned(),
        image: "web:1".to_owned(),
        ..Default::default()
    };
    rig.fake.create(&stranger).await.unwrap();
    rig.fake.add_foreign("somebody-elses");
    agent.runs.order(rig.order("unit")).await;
    let report = agent.result().await;
    assert!(!left.exists() && !rig.fake.names().contains(&stranger.name));
    assert!(rig.fake.names().contains(&"somebody-elses".to_owned()));
    agent.acknowledge(&report).await;
}

#[test]
fn a_record_is_read_back_as_it_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let order = v1::RunOrder { id: RUN.to_owned(), tests: "unit".to_owned(), ..Default::default() };
    let mut record = Record::new(order.clone());
    record.junit = Some("reports/*.xml".to_owned());
    record.end(&outcome::refused(RUN, v1::Verdict::Errored, "E_X", "why"));
    let home = Folder::new(folder.path().join(RUN));
    home.write(&record).unwrap();
    assert_eq!(home.read().unwrap(), Some(record.clone()));
    assert_eq!(record.order.encode_to_vec(), order.encode_to_vec());
    assert_eq!(record::all(folder.path()).unwrap(), [(RUN.to_owned(), record)]);
    home.acknowledge().unwrap();
    assert_eq!(home.read().unwrap().unwrap().stage, Stage::Acknowledged);
}
