//! The job itself: start, spool, watch the limits, write down the end.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use super::container::Container;
use super::log::Log;
use super::process::Process;
use super::spec::{Spec, Work};
use super::status::{How, Status};
use super::{Error, files, tree};
use crate::probe::boottime_micros;

/// How often the file `cancel` is looked for; a signal is faster.
const LOOK: Duration = Duration::from_millis(250);

/// After KILL without an end (an engine that is away, a process stuck in the kernel) the job ends all the same.
const UNKILLABLE: Duration = Duration::from_secs(60);

/// What the work does.
#[derive(Debug)]
pub(super) enum Event {
    /// It printed something.
    Output(Bytes),
    /// It ended.
    Ended {
        /// By itself, as far as it can tell.
        how: How,
        /// The kernel killed it for want of memory.
        out_of_memory: bool,
    },
}

enum Running {
    Process(Box<Process>),
    Container(Box<Container>),
}

/// Runs the job of a directory to its end.
pub(super) fn run(directory: &Path) -> Result<(), Error> {
    let Some(_lock) = begin(directory)? else { return Ok(()) };
    let spec = Spec::read(directory)?;
    // Fails only for a group leader, which a terminal's shell makes of us: then there is nothing to leave.
    rustix::process::setsid().ok();
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|error| Error::system("become the parent of orphans")(error.into()))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::system("start the runtime"))?;
    runtime.block_on(supervise(directory, &spec))
}

/// Takes the lock and makes the mark that it began. `None`: another job did.
fn begin(directory: &Path) -> Result<Option<File>, Error> {
    let mark = directory.join("began");
    if mark.exists() {
        return Ok(None);
    }
    let path = directory.join("lock");
    let lock = lock_file(&path).map_err(Error::file("open", &path))?;
    // Waits: an agent that asks whether somebody lives holds it for an instant.
    lock.lock().map_err(Error::file("lock", &path))?;
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&mark) {
        Ok(file) => file.sync_all().and_then(|()| files::sync_parent(&mark)).map_err(Error::file("sync", &mark))?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
        Err(error) => return Err(Error::file("make", &mark)(error)),
    }
    let me = rustix::process::getpid().as_raw_nonzero().get();
    let started = tree::stat(me).map_or(0, |stat| stat.started);
    let path = directory.join("pid");
    files::write_atomic(&path, format!("{me}\n{started}\n").as_bytes()).map_err(Error::file("write", &path))?;
    Ok(Some(lock))
}

pub(super) fn lock_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Whether a living process holds the lock.
pub(super) fn is_locked(path: &Path) -> io::Result<bool> {
    let file = match OpenOptions::new().read(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

async fn supervise(directory: &Path, spec: &Spec) -> Result<(), Error> {
    let path = directory.join("log");
    let mut log = Log::create(&path, spec.log_bytes).map_err(Error::file("make", &path))?;
    let started_micros = boottime_micros();
    let started_unix = rustix::time::clock_gettime(rustix::time::ClockId::Realtime).tv_sec;
    let mut job = Job { directory, spec, log: &mut log, cause: None, killed: false, started: None };
    let ended = job.carry_out().await?;
    let killed = job.killed;
    // The engine's own time to make a container is not the command's.
    let started_micros = job.started.unwrap_or(started_micros);
    let (log_bytes, dropped_bytes) = log.finish();
    let status = Status {
        how: ended.how,
        out_of_memory: ended.out_of_memory,
        killed,
        started_micros,
        started_unix,
        ended_micros: boottime_micros(),
        boot_id: files::boot_id(),
        log_bytes,
        dropped_bytes,
        collect_failed: ended.collect_failed,
        notes: ended.notes,
    };
    status.write(directory)
}

struct Ended {
    how: How,
    out_of_memory: bool,
    collect_failed: Option<String>,
    notes: Vec<String>,
}

impl Ended {
    fn at_once(how: How) -> Self {
        Self { how, out_of_memory: false, collect_failed: None, notes: Vec::new() }
    }
}

struct Job<'a> {
    directory: &'a Path,
    spec: &'a Spec,
    log: &'a mut Log,
    /// Why the work was told to end, if it was.
    cause: Option<How>,
    killed: bool,
    /// When the work ran.
    started: Option<u64>,
}

impl Job<'_> {
    async fn carry_out(&mut self) -> Result<Ended, Error> {
        let mut terminated = signal(SignalKind::terminate()).map_err(Error::system("listen for TERM"))?;
        // A terminal's Ctrl-C reaches a job that could not leave its session; it is the agent's to answer.
        let _interrupted = signal(SignalKind::interrupt()).map_err(Error::system("listen for INT"))?;
        if self.cancelled() {
            return Ok(Ended::at_once(How::Cancelled));
        }
        let started = match &self.spec.work {
            Work::Process(process) => {
                Process::start(process, self.directory).map(|made| Running::Process(Box::new(made)))
            }
            Work::Container(container) => {
                Container::start(container).await.map(|made| Running::Container(Box::new(made)))
            }
        };
        let mut running = match started {
            Ok(running) => running,
            Err(how) => return Ok(Ended::at_once(how)),
        };
        self.started = Some(boottime_micros());
        let (how, out_of_memory) = self.watch(&mut running, &mut terminated).await;
        let log = &mut *self.log;
        let mut collect_failed = None;
        let notes = match &mut running {
            Running::Process(process) => {
                process.finish(|bytes| log.append(bytes)).await;
                std::mem::take(&mut process.notes)
            }
            Running::Container(container) => {
                collect_failed = container.finish(self.directory, |bytes| log.append(bytes)).await;
                std::mem::take(&mut container.notes)
            }
        };
        // Whatever status it ended with after TERM, it ended because it was told to.
        let how = self.cause.take().unwrap_or(how);
        Ok(Ended { how, out_of_memory, collect_failed, notes })
    }

    async fn watch(&mut self, running: &mut Running, terminated: &mut tokio::signal::unix::Signal) -> (How, bool) {
        let end = Instant::now() + self.spec.timeout();
        let mut heard = Instant::now();
        let mut kill_at: Option<Instant> = None;
        let mut give_up: Option<Instant> = None;
        let mut look = tokio::time::interval(LOOK);
        loop {
            let quiet = self.spec.no_output().map(|limit| heard + limit);
            let open = self.cause.is_none();
            let event = async {
                match running {
                    Running::Process(process) => process.next().await,
                    Running::Container(container) => container.next().await,
                }
            };
            let cause = tokio::select! {
                event = event => match event {
                    Event::Output(bytes) => {
                        heard = Instant::now();
                        self.log.append(&bytes);
                        continue;
                    }
                    Event::Ended { how, out_of_memory } => return (how, out_of_memory),
                },
                () = sleep_until(end), if open => How::TimedOut,
                () = until(quiet), if open => How::NoOutput,
                () = until(kill_at), if !open => {
                    kill_at = None;
                    give_up = Some(Instant::now() + UNKILLABLE);
                    self.killed = true;
                    running.kill();
                    continue;
                }
                () = until(give_up), if !open => return (How::Lost { text: "it could not be killed".to_owned() }, false),
                _ = terminated.recv(), if open => if self.cancelled() { How::Cancelled } else { How::Stopped },
                _ = look.tick(), if open => {
                    tree::reap_orphans(running.main());
                    if !self.cancelled() {
                        continue;
                    }
                    How::Cancelled
                }
            };
            self.cause = Some(cause);
            kill_at = Some(Instant::now() + self.spec.grace());
            running.terminate();
        }
    }

    fn cancelled(&self) -> bool {
        self.directory.join("cancel").exists()
    }
}

impl Running {
    fn terminate(&self) {
        match self {
            Self::Process(process) => process.terminate(),
            Self::Container(container) => container.terminate(),
        }
    }

    fn kill(&self) {
        match self {
            Self::Process(process) => process.kill(),
            Self::Container(container) => container.kill(),
        }
    }

    fn main(&self) -> Option<i32> {
        match self {
            Self::Process(process) => Some(process.pid()),
            Self::Container(_) => None,
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
