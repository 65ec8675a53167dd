//! One call of the command line.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::condition::{eventually, within};

/// How long a call may take.
const PATIENCE: Duration = Duration::from_secs(180);

/// A call to be made.
#[derive(Debug)]
pub struct Call {
    command: Command,
    shown: String,
    contexts: PathBuf,
    output: tempfile::TempDir,
}

/// What a call printed and how it ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// The exit code; -1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// From start to end.
    pub took: Duration,
    shown: String,
}

/// A call that was made and has not been waited for.
#[derive(Debug)]
pub struct Running {
    child: Child,
    shown: String,
    output: tempfile::TempDir,
    begun: Instant,
}

impl Call {
    /// `contexts`: the folder with a login context per principal.
    pub(super) fn new(program: &Path, arguments: &[&str], contexts: &Path) -> Self {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null());
        for inherited in ["MUSTER_SERVER", "MUSTER_CA", "MUSTER_TOKEN", "MUSTER_TOKEN_FILE", "MUSTER_AGENT_SOCKET"] {
            command.env_remove(inherited);
        }
        let call = Self {
            command,
            shown: format!("muster {}", arguments.join(" ")),
            contexts: contexts.to_owned(),
            output: tempfile::tempdir().expect("a folder"),
        };
        call.by("admin")
    }

    /// As this principal; default: admin.
    #[must_use]
    pub fn by(mut self, principal: &str) -> Self {
        self.command.env("MUSTER_CONTEXT", self.contexts.join(format!("{principal}.json")));
        self
    }

    /// In this folder.
    #[must_use]
    pub fn within(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// With this environment variable.
    #[must_use]
    pub fn env(mut self, key: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(key, value);
        self
    }

    /// With this file as standard input.
    ///
    /// # Panics
    /// It cannot be opened.
    #[must_use]
    pub fn reads(mut self, file: &Path) -> Self {
        self.command.stdin(File::open(file).expect("standard input"));
        self
    }

    /// Begins the call.
    ///
    /// # Panics
    /// The program cannot be started.
    pub fn begin(mut self) -> Running {
        let open = |name: &str| File::create(self.output.path().join(name)).expect("a file for its output");
        self.command.stdout(open("out")).stderr(open("err"));
        let child = self.command.spawn().unwrap_or_else(|why| panic!("{}: {why}", self.shown));
        Running { child, shown: self.shown, output: self.output, begun: Instant::now() }
    }

    /// Makes the call, however it ends.
    pub fn run(self) -> Output {
        self.begin().finish()
    }

    /// Makes the call, which must end with `code`.
    pub fn code(self, code: i32) -> Output {
        self.run().with_code(code)
    }

    /// Makes the call, which must succeed.
    pub fn ok(self) -> Output {
        self.code(0)
    }

    /// Makes the call with `--output json`, which must succeed; the last message it printed.
    pub fn json(mut self) -> Value {
        self.command.args(["--output", "json"]);
        self.ok().json()
    }
}

impl Running {
    /// What it printed so far.
    #[must_use]
    pub fn so_far(&self) -> String {
        read(&self.output.path().join("out")) + &read(&self.output.path().join("err"))
    }

    /// Whether it has not ended.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until it has printed `text`.
    pub fn printed(&mut self, text: &str) {
        eventually(PATIENCE, &format!("{} prints {text:?}", self.shown), || {
            let so_far = self.so_far();
            if so_far.contains(text) { Ok(()) } else { Err(so_far) }
        });
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// It does not end.
    pub fn finish(mut self) -> Output {
        let ended = || self.child.try_wait().expect("a child of ours");
        let Some(status) = within(PATIENCE, Duration::from_millis(5), ended) else {
            let _ = self.child.kill();
            panic!("{} did not end within {PATIENCE:?}; it printed\n{}", self.shown, self.so_far());
        };
        Output {
            code: status.code().unwrap_or(-1),
            stdout: read(&self.output.path().join("out")),
            stderr: read(&self.output.path().join("err")),
            took: self.begun.elapsed(),
            shown: self.shown.clone(),
        }
    }
}

fn read(path: &Path) -> String {
    std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

impl Output {
    /// Itself, when it ended so.
    ///
    /// # Panics
    /// It ended otherwise.
    pub fn with_code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{} → exit code {}\n{}{}", self.shown, self.code, self.stdout, self.stderr);
        self
    }

    /// The last message of `--output json`.
    ///
    /// # Panics
    /// That is no JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        let last = self.stdout.lines().last().unwrap_or_default();
        serde_json::from_str(last).unwrap_or_else(|why| panic!("{}: {why}\n{}", self.shown, self.stdout))
    }

    /// Both outputs.
    #[must_use]
    pub fn all(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    /// Itself, when it printed this.
    ///
    /// # Panics
    /// It did not.
    pub fn says(self, text: &str) -> Self {
        assert!(self.all().contains(text), "{} did not print {text:?}:\n{}{}", self.shown, self.stdout, self.stderr);
        self
    }
}
