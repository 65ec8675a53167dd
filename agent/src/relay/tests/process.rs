use std::ffi::OsString;
use std::path::Path;
use std::time::{Duration, Instant};

use clap::Parser;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::rig::{App, KEY, LOOPBACK, Raw, get, route, until};
use crate::relay::client::Client;
use crate::relay::protocol::{Mode, PortRange};
use crate::relay::spawn::{SpawnConfig, SpawnError, Supervised, ensure_running, supervise};
use crate::relay::{Arguments, main};

const ARGUMENTS: &str = "RELAY_TEST_ARGUMENTS";

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    relay: Arguments,
}

/// Not a test: what the tests below run as a process of its own.
#[test]
#[ignore = "the relay process of other tests"]
fn child() {
    let arguments = std::env::var(ARGUMENTS).expect("started by a test");
    let line = Line::parse_from(std::iter::once("relay").chain(arguments.lines()));
    main(line.relay).expect("a clean end");
}

fn spawn_config(dir: &Path) -> SpawnConfig {
    let script = format!(
        "{ARGUMENTS}=$(printf '%s\\n' \"$@\") exec {} --exact relay::tests::process::child --ignored --nocapture",
        std::env::current_exe().expect("a path").display()
    );
    SpawnConfig {
        program: "/bin/sh".into(),
        leading: vec![OsString::from("-c"), script.into(), "relay".into()],
        state_dir: dir.join("state"),
        socket: dir.join("relay.sock"),
        ports: PortRange::DEFAULT,
        foreign: false,
        patience: Duration::from_secs(10),
    }
}

fn kill(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).expect("a process id");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it runs");
}

/// Whether a request succeeds; one to the dying process may not.
async fn answers(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect((LOOPBACK, port)).await else {
        return false;
    };
    let asked = stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut start = [0; 12];
    asked.is_ok() && stream.read_exact(&mut start).await.is_ok() && &start == b"HTTP/1.1 200"
}

async fn next_running(reports: &mut mpsc::UnboundedReceiver<Supervised>) -> Client {
    loop {
        match reports.recv().await.expect("the supervisor runs") {
            Supervised::Running(client) => return client,
            Supervised::Gone => {}
            Supervised::Failed(error) => panic!("{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_relay_is_back_within_a_second_with_the_same_table() {
    let dir = tempfile::tempdir().expect("a folder");
    let (tell, mut reports) = mpsc::unbounded_channel();
    let supervisor = tokio::spawn(supervise(spawn_config(dir.path()), move |report| {
        let _ = tell.send(report);
    }));
    let client = next_running(&mut reports).await;
    let app = App::start("app").await;
    let port = client.allocate_port(KEY, LOOPBACK, None).await.expect("a port");
    client.set_route(route(port, Mode::Http, 1, app.address)).await.expect("a good route");
    assert_eq!(get(port).await.1, "app 0");
    let before = client.table().await.expect("an answer");
    assert_ne!(before.pid, std::process::id());

    let mut open = Vec::new();
    for _ in 0..3 {
        let mut connection = Raw::open(port).await;
        assert_eq!(connection.get().await.0, 200);
        open.push(connection);
    }
    kill(before.pid);
    let killed = Instant::now();
    until("the port's return", || answers(port)).await;
    assert!(killed.elapsed() < Duration::from_secs(1), "{:?}", killed.elapsed());
    assert_eq!(get(port).await.1, "app 0");
    for mut connection in open {
        let end = connection.0.read(&mut [0; 1]).await;
        assert!(matches!(end, Ok(0) | Err(_)), "it was open at that instant");
    }
    let after = next_running(&mut reports).await.table().await.expect("an answer");
    assert_eq!((after.starts, &after.entries[0].route), (before.starts + 1, &before.entries[0].route));
    assert_ne!(after.pid, before.pid);

    supervisor.abort();
    let _ = supervisor.await;
    assert_eq!(get(port).await.1, "app 0", "it outlives its supervisor");
    let found = ensure_running(&spawn_config(dir.path())).await.expect("it answers");
    assert_eq!(found.table().await.expect("an answer").pid, after.pid, "a running one is not started again");
    kill(after.pid);
    client.gone().await;
}

#[tokio::test]
async fn a_relay_that_cannot_start_says_where_to_look() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut config = spawn_config(dir.path());
    config.leading = vec!["-c".into(), "echo broken >&2; exit 3".into()];
    match ensure_running(&config).await {
        Err(SpawnError::Silent { log, ended, .. }) => {
            assert_eq!(std::fs::read_to_string(log).expect("a log"), "broken\n");
            assert!(ended.contains('3'), "{ended}");
        }
        other => panic!("{other:?}"),
    }
    config.program = "/nonexistent/relay".into();
    assert!(matches!(ensure_running(&config).await, Err(SpawnError::Start { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_another_unit_starts_is_waited_for_and_not_started() {
    let dir = tempfile::tempdir().expect("a folder");
    let foreign =
        |patience| SpawnConfig { foreign: true, patience: Duration::from_millis(patience), ..spawn_config(dir.path()) };
    let away = ensure_running(&foreign(10)).await.expect_err("nobody started it");
    assert!(away.to_string().starts_with("E_RELAY_AWAY: "), "{away}");
    assert!(!dir.path().join("state").exists(), "nothing was begun");
    let patient = foreign(60_000);
    let waiting = tokio::spawn(async move { ensure_running(&patient).await });
    let started = ensure_running(&spawn_config(dir.path())).await.expect("it starts");
    let found = waiting.await.expect("it ends").expect("it answers");
    assert_eq!(found.table().await.expect("an answer").pid, started.table().await.expect("an answer").pid);
    kill(started.table().await.expect("an answer").pid);
}
