//! Programs of the operating system, called with argument vectors.

use std::ffi::OsStr;
use std::io::{Read as _, Seek as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::error::{Error, Result};

/// Longest time a program gets.
const LIMIT: Duration = Duration::from_secs(120);
/// Most bytes of its words that are kept.
const WORDS: u64 = 1 << 20;

/// Where a program is; also looked for where administrators' programs are.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(more)
        .map(|folder| folder.join(program))
        .find(|path| std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0))
}

/// Runs a program to its end and answers what it said on standard output.
///
/// # Errors
/// It is not there, fails, or takes longer than two minutes.
pub fn run(program: &str, arguments: &[&OsStr]) -> Result<String> {
    let failed = |why: String| Error::Tool { program: program.to_owned(), why };
    let path = find(program).ok_or_else(|| failed("it is not installed".to_owned()))?;
    let words = |why: std::io::Error| failed(why.to_string());
    let (mut out, mut err) = (tempfile::tempfile().map_err(words)?, tempfile::tempfile().map_err(words)?);
    let mut child = Command::new(path)
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(out.try_clone().map_err(words)?)
        .stderr(err.try_clone().map_err(words)?)
        .spawn()
        .map_err(words)?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if let Some(handle) = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) {
        let limit = Timespec { tv_sec: LIMIT.as_secs().cast_signed(), tv_nsec: 0 };
        let mut waited = [PollFd::new(&handle, PollFlags::IN)];
        if poll(&mut waited, Some(&limit)) == Ok(0) {
            let _ = child.kill();
            let _ = child.wait();
            return Err(failed(format!("it did not end within {} s", LIMIT.as_secs())));
        }
    }
    let status = child.wait().map_err(words)?;
    let said = |file: &mut std::fs::File| {
        let mut bytes = Vec::new();
        let _ = file.rewind().and_then(|()| file.take(WORDS).read_to_end(&mut bytes));
        String::from_utf8_lossy(&bytes).trim().to_owned()
    };
    let (out, err) = (said(&mut out), said(&mut err));
    if status.success() {
        return Ok(out);
    }
    let last = err.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no reason given");
    Err(failed(format!("{last} ({status})")))
}

/// The same with a path as the last argument.
///
/// # Errors
/// As [`run`].
pub fn run_on(program: &str, arguments: &[&str], path: &Path) -> Result<String> {
    let mut all: Vec<&OsStr> = arguments.iter().map(OsStr::new).collect();
    all.push(path.as_os_str());
    run(program, &all)
}
