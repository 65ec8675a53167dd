//! A process that stays: coordinator, agent, client under test.

use std::fs::OpenOptions;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::condition::eventually;

/// How to start it again, and the process while it runs. Killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    words: Vec<String>,
    environment: Vec<(String, String)>,
    log: PathBuf,
    child: Option<Child>,
}

impl Daemon {
    /// `words`: program and arguments; output goes to the end of `FOLDER/NAME.log`.
    pub fn new(folder: &Path, name: &str, words: Vec<String>) -> Self {
        let log = folder.join(format!("{name}.log"));
        Self { name: name.to_owned(), words, environment: Vec::new(), log, child: None }
    }

    /// Environment of every later start.
    pub fn set(&mut self, key: &str, value: &str) {
        self.environment.retain(|(known, _)| known != key);
        self.environment.push((key.to_owned(), value.to_owned()));
    }

    /// Starts it, unless it runs.
    ///
    /// # Panics
    /// It cannot be started.
    pub fn start(&mut self) {
        if self.child.is_some() {
            return;
        }
        let log = OpenOptions::new().create(true).append(true).open(&self.log).expect("a log file");
        let errors = log.try_clone().expect("a log file");
        let (program, arguments) = self.words.split_first().expect("a program");
        let child = Command::new(program)
            .args(arguments)
            .envs(self.environment.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .unwrap_or_else(|why| panic!("{program}: {why}"));
        self.child = Some(child);
    }

    /// Its process id while it was not seen to end.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw) {
            let _ = kill_process(pid, signal);
        }
    }

    /// SIGKILL, and waits for its end.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.reap();
    }

    /// SIGTERM, and waits for its end.
    ///
    /// # Panics
    /// It still runs after 20 s.
    pub fn stop(&mut self) -> Option<ExitStatus> {
        self.child.as_ref()?;
        self.signal(Signal::TERM);
        Some(self.ended(Duration::from_secs(20)))
    }

    fn reap(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.wait();
        }
    }

    /// Whether it runs.
    pub fn runs(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Waits until it has ended by itself.
    ///
    /// # Panics
    /// It did not within `limit`, or was not started.
    pub fn ended(&mut self, limit: Duration) -> ExitStatus {
        let name = self.name.clone();
        let child = self.child.as_mut().expect("it was started");
        let status = eventually(limit, &format!("{name} ends"), || {
            child.try_wait().map_err(|why| why.to_string())?.ok_or_else(|| "it runs".to_owned())
        });
        self.child = None;
        status
    }

    /// Waits until a failpoint has killed it.
    ///
    /// # Panics
    /// It did not end within `limit`, or ended in another way.
    pub fn killed_itself(&mut self, limit: Duration) {
        let status = self.ended(limit);
        assert_eq!(status.signal(), Some(Signal::KILL.as_raw()), "{}: {status}, not a failpoint", self.name);
    }

    /// All it printed since its first start.
    #[must_use]
    pub fn printed(&self) -> String {
        std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}
