//! Work that is a process of this machine.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};

use super::cgroup::Cgroup;
use super::spec::ProcessSpec;
use super::status::How;
use super::supervise::Event;
use super::{Error, files, tree};

/// How long output and processes left behind are waited for after everything was killed.
const LAST: Duration = Duration::from_secs(5);

/// A running process, its output and its confinement.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    pid: i32,
    output: Option<pipe::Receiver>,
    cgroup: Option<Cgroup>,
    pub(super) notes: Vec<String>,
}

impl Process {
    /// Starts it in its own process group and, where that is permitted, its own cgroup.
    pub(super) fn start(spec: &ProcessSpec, directory: &Path) -> Result<Self, How> {
        let refused = |code: &str, text: String| How::NotStarted { code: code.to_owned(), text };
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .and_then(|(reader, writer)| {
                Ok((reader, (writer.try_clone().map_err(|_| rustix::io::Errno::MFILE)?, writer)))
            })
            .map_err(|error| refused("E_JOB_PIPE", error.to_string()))?;
        let Some((program, arguments)) = spec.argv.split_first() else {
            return Err(refused("E_JOB_COMMAND", "the command is empty".to_owned()));
        };
        let mut command = Command::new(program);
        command.args(arguments).env_clear().envs(&spec.env).current_dir(&spec.cwd);
        command.stdin(Stdio::null()).stdout(writer.0).stderr(writer.1).process_group(0);
        if let Some((uid, gid)) = spec.user {
            // Becoming somebody else also drops the supplementary groups.
            command.uid(uid).gid(gid);
        }
        let mut notes = Vec::new();
        let cgroup = confined(&mut notes);
        let spawn = || command.spawn();
        let child = match &cgroup {
            Some(group) => group.inside(spawn).unwrap_or_else(|why| Err(io::Error::other(why))),
            None => command.spawn(),
        };
        let failed = |error: io::Error| {
            if let Some(group) = &cgroup {
                group.remove();
            }
            refused("E_JOB_COMMAND", format!("start {program}: {error}"))
        };
        let child = child.map_err(failed)?;
        // Drops our ends of the pipe, so that its end is seen.
        drop(command);
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).unwrap_or(0);
        let mut process = Self { child, pid, output: None, cgroup, notes };
        process.remember(directory);
        match pipe::Receiver::from_owned_fd(reader) {
            Ok(output) => process.output = Some(output),
            Err(error) => process.notes.push(format!("its output could not be read: {error}")),
        }
        Ok(process)
    }

    /// So that the agent can sweep after this job was itself killed.
    fn remember(&mut self, directory: &Path) {
        let started = tree::stat(self.pid).map_or(0, |stat| stat.started);
        let cgroup = self.cgroup.as_ref().map(|group| group.path().display().to_string()).unwrap_or_default();
        let text = format!("{}\n{started}\n{cgroup}\n", self.pid);
        if let Err(error) = files::write_atomic(&directory.join("child"), text.as_bytes()) {
            self.notes.push(format!("its process could not be noted: {error}"));
        }
    }

    /// Its number.
    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    /// What happens next. Cancel safe.
    pub(super) async fn next(&mut self) -> Event {
        let mut buffer = vec![0_u8; 64 << 10];
        loop {
            let read = async {
                match &mut self.output {
                    Some(output) => output.read(&mut buffer).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                read = read => match read {
                    Ok(count) if count > 0 => {
                        buffer.truncate(count);
                        return Event::Output(buffer.into());
                    }
                    _ => self.output = None,
                },
                status = self.child.wait() => {
                    let how = status.map_or_else(|error| How::Lost { text: format!("wait: {error}") }, how);
                    return Event::Ended { how, out_of_memory: false };
                }
            }
        }
    }

    /// TERM goes to the process group: descendants that left it get KILL only.
    pub(super) fn terminate(&self) {
        self.group(Signal::TERM);
    }

    /// Kills everything that belongs to the work.
    pub(super) fn kill(&self) {
        self.group(Signal::KILL);
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill();
        }
        tree::kill(&tree::below(me()));
    }

    fn group(&self, signal: Signal) {
        // Once reaped and alone, its group's number may belong to others; living members keep it.
        if let Some(pid) = Pid::from_raw(self.pid) {
            kill_process_group(pid, signal).ok();
        }
    }

    /// After the end: kills what it left behind and reads the output to its end.
    pub(super) async fn finish(&mut self, mut output: impl FnMut(&[u8])) {
        let left = tree::below(me());
        if !left.is_empty() {
            self.notes.push(format!("{} processes were left behind and killed", left.len()));
        }
        let cleaned = async {
            loop {
                if let Some(cgroup) = &self.cgroup {
                    cgroup.kill();
                }
                tree::reap_orphans(None);
                if !tree::kill(&tree::below(me())) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        if tokio::time::timeout(LAST, cleaned).await.is_err() {
            self.notes.push("some processes could not be killed".to_owned());
        }
        let drained = async {
            let mut buffer = vec![0_u8; 64 << 10];
            while let Some(pipe) = &mut self.output {
                match pipe.read(&mut buffer).await {
                    Ok(count) if count > 0 => output(&buffer[..count]),
                    _ => self.output = None,
                }
            }
        };
        tokio::time::timeout(LAST, drained).await.ok();
        if let Some(cgroup) = &self.cgroup {
            cgroup.remove();
        }
    }
}

fn confined(notes: &mut Vec<String>) -> Option<Cgroup> {
    let created = Cgroup::create(&format!("muster-job-{}", me()));
    created.map_err(|why| notes.push(format!("no cgroup of its own: {why}"))).ok()
}

fn me() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

fn how(status: ExitStatus) -> How {
    match (status.code(), status.signal()) {
        (Some(code), _) => How::Exited(code),
        (None, Some(signal)) => How::Signalled(signal),
        (None, None) => How::Lost { text: format!("ended strangely: {status}") },
    }
}

/// Kills what a job left behind that was itself killed: the cgroup, or else the process group if it is still the same.
///
/// # Errors
/// The note about the work is there and cannot be read.
pub(super) fn sweep(directory: &Path) -> Result<(), Error> {
    let path = directory.join("child");
    let text = match files::read_limited(&path, 64 << 10) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::file("read", &path)(error)),
    };
    let mut lines = text.lines();
    let pid: i32 = lines.next().and_then(|line| line.parse().ok()).unwrap_or(0);
    let started: u64 = lines.next().and_then(|line| line.parse().ok()).unwrap_or(0);
    let cgroup = lines.next().filter(|line| line.contains("/muster-job-"));
    if tree::stat(pid).is_some_and(|stat| stat.started == started)
        && let Some(pid) = Pid::from_raw(pid)
    {
        kill_process_group(pid, Signal::KILL).ok();
    }
    if let Some(cgroup) = cgroup.map(Path::new) {
        super::cgroup::kill(cgroup);
        super::cgroup::remove(cgroup);
    }
    Ok(())
}
