use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::waiting::{until, wait_for};

/// The variable that makes the test below a job instead.
const ENTRY: &str = "MUSTER_TEST_JOB";
const PATIENCE: Duration = Duration::from_secs(20);

/// Not a test by itself: the launcher of the others starts this very test binary with this name.
#[test]
fn job_entry() {
    if let Some(directory) = std::env::var_os(ENTRY) {
        assert_eq!(format!("{:?}", main(Path::new(&directory))), format!("{:?}", std::process::ExitCode::SUCCESS));
    }
}

fn launcher(directory: &Path) -> Launcher {
    Launcher {
        program: "/proc/self/exe".into(),
        // The directory that the handle appends is for libtest one more name to run.
        arguments: vec!["--exact".into(), "job::tests::job_entry".into()],
        variables: vec![(ENTRY.into(), directory.into())],
    }
}

fn shell(script: &str) -> Spec {
    let env = BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]);
    let argv = ["sh", "-c", script].map(str::to_owned).to_vec();
    Spec::new(Work::Process(ProcessSpec { argv, env, cwd: "/".into(), user: None }))
}

struct Fixture {
    folder: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn directory(&self) -> std::path::PathBuf {
        self.folder.path().join("job")
    }

    fn spawn(&self, spec: &Spec) -> Handle {
        Handle::spawn(&self.directory(), spec, &launcher(&self.directory())).unwrap()
    }

    async fn run(&self, spec: &Spec) -> (Status, String) {
        let handle = self.spawn(spec);
        let status = end(&handle).await;
        (status, std::fs::read_to_string(handle.log()).unwrap())
    }
}

async fn end(handle: &Handle) -> Status {
    match handle.ended(PATIENCE).await.unwrap() {
        Some(State::Ended(status)) => *status,
        other => panic!("{other:?} {:?}", handle.complaint()),
    }
}

async fn printed(handle: &Handle, text: &str) -> String {
    let log = async || std::fs::read_to_string(handle.log()).ok().filter(|log| log.contains(text));
    wait_for(text, log).await
}

fn is_alive(pid: i32) -> bool {
    tree::stat(pid).is_some_and(|stat| !stat.zombie)
}

#[tokio::test]
async fn both_streams_and_the_exit_status_are_kept() {
    let (status, log) = Fixture::new().run(&shell("echo out; echo err >&2; printf 'no newline'; exit 7")).await;
    assert_eq!(status.how, How::Exited(7));
    assert_eq!(log, "out\nerr\nno newline");
    assert_eq!((status.log_bytes, status.dropped_bytes), (18, 0));
    assert!(status.ended_micros >= status.started_micros && !status.boot_id.is_empty());
}

#[tokio::test]
async fn a_signal_from_outside_is_told_as_such() {
    let (status, _) = Fixture::new().run(&shell("kill -9 $$")).await;
    assert_eq!(status.how, How::Signalled(9));
}

#[tokio::test]
async fn what_cannot_be_started_says_why() {
    let mut spec = shell("");
    if let Work::Process(process) = &mut spec.work {
        process.argv = vec!["/does/not/exist".to_owned()];
    }
    let (status, _) = Fixture::new().run(&spec).await;
    let How::NotStarted { code, text } = status.how else { panic!("{status:?}") };
    assert_eq!(code, "E_JOB_COMMAND");
    assert!(text.contains("/does/not/exist"), "{text}");
}

#[tokio::test]
async fn a_stubborn_command_is_killed_after_its_grace() {
    let mut spec = shell("trap 'echo asked' TERM; echo ready; while :; do sleep 0.01; done");
    (spec.timeout_ms, spec.grace_ms) = (500, 1_000);
    let (status, log) = Fixture::new().run(&spec).await;
    assert_eq!((status.how, status.killed), (How::TimedOut, true));
    assert!(log.contains("asked"), "TERM comes before KILL: {log}");
}

#[tokio::test]
async fn a_command_that_obeys_is_not_killed_and_its_own_status_does_not_hide_the_cause() {
    let mut spec = shell("trap 'exit 0' TERM; while :; do sleep 0.01; done");
    spec.timeout_ms = 200;
    let (status, _) = Fixture::new().run(&spec).await;
    assert_eq!((status.how, status.killed), (How::TimedOut, false));
}

#[tokio::test]
async fn silence_ends_it_and_talk_does_not() {
    let mut spec = shell("for i in 1 2 3 4; do echo $i; sleep 0.1; done; exec sleep 60");
    spec.no_output_ms = 1_500;
    let (status, log) = Fixture::new().run(&spec).await;
    assert_eq!((status.how, log.as_str()), (How::NoOutput, "1\n2\n3\n4\n"));
}

#[tokio::test]
async fn orphans_in_sessions_of_their_own_are_killed_when_the_command_ends() {
    let fixture = Fixture::new();
    let marks = fixture.folder.path().display();
    let script = format!(
        "setsid sh -c 'echo $$; touch {marks}/a; exec sleep 600' & \
         (setsid sh -c 'sleep 600 & echo $!; touch {marks}/b; wait' &) ; \
         until test -e {marks}/a -a -e {marks}/b; do sleep 0.01; done; exit 3"
    );
    let (status, log) = fixture.run(&shell(&script)).await;
    assert_eq!(status.how, How::Exited(3));
    let orphans: Vec<i32> = log.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(orphans.len(), 2, "{log}");
    assert!(orphans.iter().all(|pid| !is_alive(*pid)), "{orphans:?}");
    assert!(status.notes.iter().any(|note| note.contains("left behind")), "{:?}", status.notes);
}

#[tokio::test]
async fn output_beyond_the_limit_is_dropped_and_the_command_goes_on() {
    let mut spec = shell("head -c 300000 /dev/zero; exit 0");
    spec.log_bytes = 1000;
    let (status, log) = Fixture::new().run(&spec).await;
    assert_eq!((status.how, status.dropped_bytes), (How::Exited(0), 299_000));
    assert_eq!(log.len() as u64, status.log_bytes);
}

#[tokio::test]
async fn cancelling_ends_it() {
    let fixture = Fixture::new();
    let handle = fixture.spawn(&shell("echo ready; exec sleep 600"));
    printed(&handle, "ready").await;
    assert_eq!(handle.state().unwrap(), State::Running);
    Handle::attach(&fixture.directory()).cancel().unwrap();
    assert_eq!(end(&handle).await.how, How::Cancelled);
}

#[tokio::test]
async fn a_job_cancelled_before_it_begins_never_begins_its_work() {
    let fixture = Fixture::new();
    files::private_dir(&fixture.directory()).unwrap();
    Handle::attach(&fixture.directory()).cancel().unwrap();
    let (status, log) = fixture.run(&shell("echo never")).await;
    assert_eq!((status.how, log.as_str()), (How::Cancelled, ""));
}

#[tokio::test]
async fn spawned_twice_it_begins_once() {
    let fixture = Fixture::new();
    let spec = shell("echo x; exit 0");
    let (first, second) = (fixture.spawn(&spec), fixture.spawn(&spec));
    end(&first).await;
    let status = end(&second).await;
    fixture.spawn(&spec);
    assert_eq!((status.how, std::fs::read_to_string(second.log()).unwrap().as_str()), (How::Exited(0), "x\n"));
}

#[tokio::test]
async fn a_handle_made_anew_learns_the_outcome() {
    let fixture = Fixture::new();
    let handle = fixture.spawn(&shell("echo ready; read line < \"$0\"; exit 5"));
    drop(handle);
    let again = Handle::attach(&fixture.directory());
    assert!(matches!(again.ended(PATIENCE).await.unwrap(), Some(State::Ended(_))));
}

/// The spawner is a process of its own (this test binary again), killed while the job runs.
#[tokio::test]
async fn a_job_outlives_the_agent_that_spawned_it() {
    let fixture = Fixture::new();
    let go = fixture.folder.path().join("go");
    let mut spec = shell(&format!("echo ready; until test -e {}; do sleep 0.01; done; exit 9", go.display()));
    spec.timeout_ms = 20_000;
    files::private_dir(&fixture.directory()).unwrap();
    spec.write(&fixture.directory()).unwrap();
    let mut agent = std::process::Command::new("/proc/self/exe")
        .args(["--exact", "job::tests::spawner_entry"])
        .env("MUSTER_TEST_SPAWNER", fixture.directory())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let handle = Handle::attach(&fixture.directory());
    printed(&handle, "ready").await;
    agent.kill().unwrap();
    agent.wait().unwrap();
    assert_eq!(handle.state().unwrap(), State::Running);
    std::fs::write(go, "").unwrap();
    assert_eq!(end(&handle).await.how, How::Exited(9));
}

/// Not a test by itself: the spawner that is killed.
#[tokio::test]
async fn spawner_entry() {
    if let Some(directory) = std::env::var_os("MUSTER_TEST_SPAWNER") {
        let directory = Path::new(&directory);
        let spec = Spec::read(directory).unwrap();
        Handle::spawn(directory, &spec, &launcher(directory)).unwrap();
        std::future::pending::<()>().await;
    }
}

#[tokio::test]
async fn a_killed_job_is_lost_and_its_leftovers_are_swept() {
    let fixture = Fixture::new();
    let handle = fixture.spawn(&shell("echo $$; sleep 600 & echo $!; wait"));
    let pids = wait_for("its processes", async || {
        let log = std::fs::read_to_string(handle.log()).ok()?;
        let pids: Vec<i32> = log.lines().filter_map(|line| line.parse().ok()).collect();
        (pids.len() == 2 && log.ends_with('\n')).then_some(pids)
    })
    .await;
    let pid = std::fs::read_to_string(fixture.directory().join("pid")).unwrap();
    let pid = rustix::process::Pid::from_raw(pid.lines().next().unwrap().parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    assert_eq!(handle.ended(PATIENCE).await.unwrap(), Some(State::Lost));
    handle.sweep().unwrap();
    until("their end", async || pids.iter().all(|pid| !is_alive(*pid))).await;
}

#[tokio::test]
async fn a_stop_by_somebody_else_is_not_a_cancel() {
    let fixture = Fixture::new();
    let handle = fixture.spawn(&shell("echo ready; exec sleep 600"));
    printed(&handle, "ready").await;
    let pid = std::fs::read_to_string(fixture.directory().join("pid")).unwrap();
    let pid = rustix::process::Pid::from_raw(pid.lines().next().unwrap().parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(end(&handle).await.how, How::Stopped);
}

#[tokio::test]
async fn a_directory_without_a_job_has_none() {
    let folder = tempfile::tempdir().unwrap();
    let handle = Handle::attach(folder.path());
    assert_eq!(handle.state().unwrap(), State::NotBegun);
    assert_eq!(handle.ended(Duration::ZERO).await.unwrap(), None);
    std::fs::write(folder.path().join("status.json"), "{").unwrap();
    assert!(matches!(handle.state(), Err(Error::Format { .. })));
}

#[test]
fn a_spec_shows_no_values_of_variables() {
    let mut spec = shell("true");
    if let Work::Process(process) = &mut spec.work {
        process.env.insert("PASSWORD".to_owned(), "hunter2".to_owned());
    }
    let shown = format!("{spec:?}");
    assert!(shown.contains("PASSWORD") && !shown.contains("hunter2"));
}
