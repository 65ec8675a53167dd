//! One call of git.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use manifest::git::GitUrl;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

/// Bytes of git's own words that are kept.
const WORDS: u64 = 16 << 10;
/// Settings that win over every file: no hooks, no helpers, nothing in the background.
const SETTINGS: [&str; 8] = [
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.symlinks=true",
    "protocol.ext.allow=never",
    "credential.helper=",
    "gc.auto=0",
    "maintenance.auto=false",
    "fetch.recurseSubmodules=false",
];

/// Why a call failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// git cannot be run.
    Program(io::Error),
    /// Its time was over; it was killed with all its children.
    Late,
    /// It said no: its last words.
    Said(String),
}

/// An argument vector for git in an environment of our own.
#[derive(Debug)]
pub(super) struct Call {
    command: Command,
    limit: Duration,
}

impl Call {
    pub(super) fn new(limit: Duration) -> Self {
        let mut command = Command::new("git");
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.current_dir("/").process_group(0).kill_on_drop(true);
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
        // The home is where ssh finds the host's deploy key; git's own files there are switched off.
        let home = std::env::var_os("HOME").unwrap_or_else(|| "/root".into());
        command.env("PATH", path).env("HOME", home).env("LC_ALL", "C.UTF-8");
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_ATTR_NOSYSTEM", "1");
        command.env("GIT_TERMINAL_PROMPT", "0").env("GIT_ALLOW_PROTOCOL", "");
        command.env("GIT_SSH_COMMAND", "ssh -oBatchMode=yes -oConnectTimeout=20");
        for setting in SETTINGS {
            command.args(["-c", setting]);
        }
        Self { command, limit }
    }

    /// Allows the one transport that the address names.
    pub(super) fn protocol(mut self, url: &GitUrl) -> Self {
        let url = url.as_str();
        let protocol = match url {
            _ if url.starts_with("https://") => "https",
            _ if url.starts_with('/') || url.starts_with("file://") => "file",
            _ => "ssh",
        };
        self.command.env("GIT_ALLOW_PROTOCOL", protocol);
        self
    }

    /// The files go to `folder`, by an index of their own.
    pub(super) fn tree(mut self, folder: &Path, index: &Path) -> Self {
        self.command.env("GIT_WORK_TREE", folder).env("GIT_INDEX_FILE", index).current_dir(folder);
        self
    }

    pub(super) fn args<T: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = T>) -> Self {
        self.command.args(arguments);
        self
    }

    pub(super) fn path(mut self, path: &Path) -> Self {
        self.command.arg(path);
        self
    }

    /// Runs it; its standard output, cut to 16 KiB.
    pub(super) async fn run(mut self) -> Result<String, Failure> {
        let mut child = self.command.spawn().map_err(Failure::Program)?;
        let group = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        let (output, errors) = (child.stdout.take(), child.stderr.take());
        let work = async { tokio::join!(words(output), words(errors), child.wait()) };
        let Ok((output, errors, status)) = tokio::time::timeout(self.limit, work).await else {
            // Its helpers (ssh, index-pack) are in its group.
            if let Some(group) = group {
                kill_process_group(group, Signal::KILL).ok();
            }
            child.wait().await.ok();
            return Err(Failure::Late);
        };
        match status {
            Ok(status) if status.success() => Ok(output),
            Ok(status) => Err(Failure::Said(last_words(&errors, &status.to_string()))),
            Err(error) => Err(Failure::Program(error)),
        }
    }
}

/// The beginning of a stream; the rest is read and forgotten, so that git never waits for us.
async fn words(stream: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut stream) = stream else { return String::new() };
    let mut kept = Vec::new();
    (&mut stream).take(WORDS).read_to_end(&mut kept).await.ok();
    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.ok();
    String::from_utf8_lossy(&kept).into_owned()
}

/// git's last three lines as one, at most 500 characters.
fn last_words(errors: &str, status: &str) -> String {
    let lines: Vec<&str> = errors.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let last = lines[lines.len().saturating_sub(3)..].join("; ");
    let text = if last.is_empty() { status.to_owned() } else { last };
    text.chars().filter(|c| !c.is_control()).take(500).collect()
}
