//! The agent's side of a job. Everything about it is in its directory: a handle can be made anew at any time.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::spec::Spec;
use super::status::Status;
use super::supervise::is_locked;
use super::{Error, files, process, tree};

/// How often a job's files are looked at.
const LOOK: Duration = Duration::from_millis(20);

/// The program that is a job: `program arguments… DIRECTORY`.
#[derive(Clone, Debug)]
pub struct Launcher {
    /// The program.
    pub program: PathBuf,
    /// Words before the directory.
    pub arguments: Vec<OsString>,
    /// Further variables of its environment.
    pub variables: Vec<(OsString, OsString)>,
}

impl Launcher {
    /// This very binary, also after its file was replaced by an upgrade.
    #[must_use]
    pub fn own() -> Self {
        Self { program: PathBuf::from("/proc/self/exe"), arguments: vec!["job".into()], variables: Vec::new() }
    }
}

/// What has become of a job.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum State {
    /// It has not begun; spawning it (again) is safe, it begins at most once.
    NotBegun,
    /// It lives.
    Running,
    /// It wrote down how the work ended.
    Ended(Box<Status>),
    /// It, or the boot, is gone without a status: the outcome is not known.
    Lost,
}

/// A job's directory.
#[derive(Clone, Debug)]
pub struct Handle {
    directory: PathBuf,
}

impl Handle {
    /// The job of a directory, whatever has become of it.
    #[must_use]
    pub fn attach(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// Writes the spec, unless there is one: what was ordered once stays so.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn prepare(directory: &Path, spec: &Spec) -> Result<(), Error> {
        files::private_dir(directory).map_err(Error::file("make", directory))?;
        if !directory.join("spec.json").exists() {
            spec.write(directory)?;
        }
        Ok(())
    }

    /// Starts the parent process of a prepared directory; it outlives this process. Called twice it begins once.
    ///
    /// Must be called inside a tokio runtime, which reaps it.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start(directory: &Path, launcher: &Launcher) -> Result<(), Error> {
        let mut command = std::process::Command::new(&launcher.program);
        command.arg0("muster-agent").args(&launcher.arguments).arg(directory).current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.envs(launcher.variables.iter().map(|(key, value)| (key, value)));
        // No secret of the agent, and none of its traps.
        command.env_remove("MUSTER_JOIN_TOKEN").env_remove("MUSTER_FAILPOINTS");
        let failed = |source| Error::Launch { program: launcher.program.clone(), source };
        let mut child = tokio::process::Command::from(command).kill_on_drop(false).spawn().map_err(failed)?;
        tokio::spawn(async move { child.wait().await });
        Ok(())
    }

    /// [`Handle::prepare`] and [`Handle::start`].
    ///
    /// # Errors
    /// See those.
    pub fn spawn(directory: &Path, spec: &Spec, launcher: &Launcher) -> Result<Self, Error> {
        Self::prepare(directory, spec)?;
        Self::start(directory, launcher)?;
        Ok(Self::attach(directory))
    }

    /// Its directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where its output is.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// What has become of it.
    ///
    /// # Errors
    /// Its files cannot be read.
    pub fn state(&self) -> Result<State, Error> {
        if let Some(status) = Status::read(&self.directory)? {
            return Ok(State::Ended(Box::new(status)));
        }
        let path = self.directory.join("lock");
        if is_locked(&path).map_err(Error::file("lock", &path))? {
            return Ok(State::Running);
        }
        // It may have ended between the two looks.
        if let Some(status) = Status::read(&self.directory)? {
            return Ok(State::Ended(Box::new(status)));
        }
        Ok(if self.directory.join("began").exists() { State::Lost } else { State::NotBegun })
    }

    /// Waits until it has ended or is lost; `None` when it has not begun within `patience`. Cancel safe.
    ///
    /// # Errors
    /// Its files cannot be read.
    pub async fn ended(&self, patience: Duration) -> Result<Option<State>, Error> {
        let until = tokio::time::Instant::now() + patience;
        loop {
            match self.state()? {
                State::NotBegun if tokio::time::Instant::now() >= until => return Ok(None),
                State::NotBegun | State::Running => tokio::time::sleep(LOOK).await,
                over => return Ok(Some(over)),
            }
        }
    }

    /// Why the job itself could not work, if it said so.
    #[must_use]
    pub fn complaint(&self) -> Option<String> {
        let bytes = files::read_limited(&self.directory.join("error"), 64 << 10).ok()?;
        Some(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// Asks it to end the work: TERM, grace, KILL. A job that has not begun will not begin its work.
    ///
    /// # Errors
    /// The wish cannot be written.
    pub fn cancel(&self) -> Result<(), Error> {
        let path = self.directory.join("cancel");
        files::write_atomic(&path, b"").map_err(Error::file("write", &path))?;
        if let Some(pid) = self.living() {
            kill_process(pid, Signal::TERM).ok();
        }
        Ok(())
    }

    /// Kills what a lost job left running. Containers are their owner's to remove, by name and labels.
    ///
    /// # Errors
    /// The note about the work is there and cannot be read.
    pub fn sweep(&self) -> Result<(), Error> {
        if let Some(pid) = self.living() {
            kill_process(pid, Signal::KILL).ok();
        }
        process::sweep(&self.directory)
    }

    /// Its process, if it is still the same one.
    fn living(&self) -> Option<Pid> {
        let text = files::read_limited(&self.directory.join("pid"), 4096).ok()?;
        let text = String::from_utf8_lossy(&text).into_owned();
        let mut lines = text.lines();
        let pid: i32 = lines.next()?.parse().ok()?;
        let started: u64 = lines.next()?.parse().ok()?;
        let same = tree::stat(pid).is_some_and(|stat| stat.started == started && !stat.zombie);
        same.then(|| Pid::from_raw(pid)).flatten()
    }
}
