//! Starting the relay as a process of its own, and starting it again when it is gone.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::{Instant, sleep};

use super::client::Client;
use super::protocol::PortRange;

/// How long a relay may take until it answers, on a machine that is very busy.
const START_PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(5);
const PING: Duration = Duration::from_millis(50);
/// Pause between failed starts, at first and at most; the sum of the first ones stays below a second.
const RESTART_PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(5));
/// A log that is larger at a start is moved aside.
const MAX_LOG_BYTES: u64 = 4 << 20;

/// How the relay is started.
#[derive(Debug, Clone)]
pub struct SpawnConfig {
    /// The binary.
    pub program: PathBuf,
    /// What stands before the relay's own arguments, for example `relay`.
    pub leading: Vec<OsString>,
    /// The folder of table, lock and log.
    pub state_dir: PathBuf,
    /// The control socket.
    pub socket: PathBuf,
    /// Where automatic ports come from.
    pub ports: PortRange,
    /// Somebody else starts it and keeps it running: it is waited for.
    pub foreign: bool,
    /// How long it may take until it answers.
    pub patience: Duration,
}

impl SpawnConfig {
    /// The relay as `relay` subcommand of the running binary.
    ///
    /// # Errors
    /// When the running binary has no path.
    pub fn this_binary(state_dir: impl Into<PathBuf>, socket: impl Into<PathBuf>) -> io::Result<Self> {
        Ok(Self {
            program: this_program()?,
            leading: vec!["relay".into()],
            state_dir: state_dir.into(),
            socket: socket.into(),
            ports: PortRange::DEFAULT,
            foreign: false,
            patience: START_PATIENCE,
        })
    }

    fn arguments(&self) -> Vec<OsString> {
        let mut arguments = self.leading.clone();
        arguments.extend(["--state-dir".into(), self.state_dir.clone().into_os_string()]);
        arguments.extend(["--socket".into(), self.socket.clone().into_os_string()]);
        let ports = format!("{}-{}", self.ports.first, self.ports.last);
        arguments.extend(["--ports".into(), ports.into(), "--own-session".into()]);
        arguments
    }
}

/// The running binary's path; after it was replaced on disk, the path of the new one.
fn this_program() -> io::Result<PathBuf> {
    let path = std::env::current_exe()?;
    let text = path.to_string_lossy();
    match text.strip_suffix(" (deleted)") {
        Some(replaced) if Path::new(replaced).exists() => Ok(PathBuf::from(replaced)),
        _ => Ok(path),
    }
}

/// Why the relay does not run.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The process could not be started.
    #[error("E_RELAY_START: cannot start {}: {source}", .program.display())]
    Start {
        /// The binary, or the file that was in the way.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It was started, but does not answer.
    #[error("E_RELAY_START: the relay does not answer within {after:?} ({ended}); see {}", .log.display())]
    Silent {
        /// It was waited for so long.
        after: Duration,
        /// Where it says why.
        log: PathBuf,
        /// Whether it ended.
        ended: String,
    },
    /// It is not ours to start, and none answers.
    #[error(
        "E_RELAY_AWAY: no relay answers at {} within {after:?}, and `start_relay = false` leaves its start to another unit; see `systemctl status muster-relay`",
        .socket.display()
    )]
    Away {
        /// It was waited for so long.
        after: Duration,
        /// Its control socket.
        socket: PathBuf,
    },
}

/// Connects to the relay, or starts it, unless somebody else does, and waits until it answers. The relay outlives the caller.
///
/// # Errors
/// When it neither answers nor can be started.
pub async fn ensure_running(config: &SpawnConfig) -> Result<Client, SpawnError> {
    let client = Client::new(&config.socket);
    if client.ping(Duration::from_millis(200)).await.is_ok() {
        return Ok(client);
    }
    if config.foreign {
        return awaited(config, client).await;
    }
    let log = config.state_dir.join("relay.log");
    let failed = |source| SpawnError::Start { program: config.program.clone(), source };
    let output = open_log(&config.state_dir, &log).map_err(failed)?;
    let errors = output.try_clone().map_err(failed)?;
    let mut command = Command::new(&config.program);
    command
        .args(config.arguments())
        // The agent's environment may hold what the relay has no business with.
        .env_clear()
        .envs(["RUST_LOG", "RUST_BACKTRACE", "PATH"].iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors);
    let mut child = command.spawn().map_err(failed)?;
    let until = Instant::now() + config.patience;
    loop {
        // Looked at before the question: when ours ended because another one runs, that one answers.
        let ended = child.try_wait().ok().flatten();
        if client.ping(PING).await.is_ok() {
            // Reaped when it ends while we live; otherwise by whoever inherits it.
            tokio::spawn(async move { child.wait().await });
            return Ok(client);
        }
        if ended.is_some() || Instant::now() >= until {
            let ended = ended.map_or("it runs".to_owned(), |status| status.to_string());
            let _ = child.start_kill();
            tokio::spawn(async move { child.wait().await });
            return Err(SpawnError::Silent { after: config.patience, log, ended });
        }
        sleep(POLL).await;
    }
}

async fn awaited(config: &SpawnConfig, client: Client) -> Result<Client, SpawnError> {
    let until = Instant::now() + config.patience;
    while client.ping(PING).await.is_err() {
        if Instant::now() >= until {
            return Err(SpawnError::Away { after: config.patience, socket: config.socket.clone() });
        }
        sleep(POLL).await;
    }
    Ok(client)
}

fn open_log(dir: &Path, log: &Path) -> io::Result<File> {
    super::make_private(dir)?;
    if fs::metadata(log).is_ok_and(|found| found.len() > MAX_LOG_BYTES) {
        fs::rename(log, log.with_extension("log.1"))?;
    }
    OpenOptions::new().append(true).create(true).mode(0o600).open(log)
}

/// What a supervisor saw.
#[derive(Debug)]
pub enum Supervised {
    /// The relay answers; `Client::table` says how often it was started.
    Running(Client),
    /// It is gone; it is started again, or waited for, at once.
    Gone,
    /// It could not be started; tried again after a pause.
    Failed(SpawnError),
}

/// Keeps the relay running for as long as this future is polled: one that dies is back within a second.
/// Dropping it leaves the relay running.
pub async fn supervise(config: SpawnConfig, mut report: impl FnMut(Supervised)) {
    let mut pause = RESTART_PAUSES.0;
    loop {
        match ensure_running(&config).await {
            Ok(client) => {
                pause = RESTART_PAUSES.0;
                report(Supervised::Running(client.clone()));
                client.gone().await;
                report(Supervised::Gone);
            }
            Err(error) => {
                report(Supervised::Failed(error));
                sleep(pause).await;
                pause = (pause * 2).min(RESTART_PAUSES.1);
            }
        }
    }
}
