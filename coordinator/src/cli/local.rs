//! The only part of the command line that exists on Unix alone: showing a folder to the agent of this machine.
//!
//! The opened folder goes over the agent's local socket, so that the agent sees that folder and no other; it answers
//! with a one-time grant.

use std::io::{BufRead, BufReader, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::Deserialize;

use super::error::Error;

/// What the agent answers.
#[derive(Deserialize, Debug)]
pub struct Grant {
    /// One-time; holds for 10 minutes.
    pub grant: String,
    /// The host whose agent gave it.
    pub host_id: String,
}

#[derive(Deserialize)]
struct Refusal {
    error: String,
    #[serde(default)]
    text: String,
}

/// The agent's socket: `MUSTER_AGENT_SOCKET`, else where an installed agent has it. None if there is none.
#[must_use]
pub fn socket() -> Option<PathBuf> {
    let path =
        std::env::var_os("MUSTER_AGENT_SOCKET").map_or_else(|| PathBuf::from("/run/muster/agent.sock"), PathBuf::from);
    path.exists().then_some(path)
}

/// Asks the agent behind `socket` for a grant for `folder`.
///
/// # Errors
/// The folder cannot be opened, the agent does not answer, or refuses.
pub fn grant(socket: &Path, folder: &Path) -> Result<Grant, Error> {
    let fail = |why: std::io::Error| Error::usage("E_AGENT_SOCKET", format!("{}: {why}", socket.display()));
    let opened = std::fs::File::open(folder).map_err(|why| Error::file(folder, &why))?;
    let stream = UnixStream::connect(socket).map_err(fail)?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).map_err(fail)?;
    let files = [opened.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&files));
    sendmsg(&stream, &[IoSlice::new(b"G")], &mut control, SendFlags::empty()).map_err(|why| fail(why.into()))?;
    let mut line = String::new();
    let mut reader = BufReader::new(std::io::Read::take(&stream, 64 << 10));
    reader.read_line(&mut line).map_err(fail)?;
    if let Ok(grant) = serde_json::from_str::<Grant>(&line) {
        return Ok(grant);
    }
    match serde_json::from_str::<Refusal>(&line) {
        Ok(refusal) => {
            Err(Error::usage("E_GRANT_REFUSED", format!("{}: {}: {}", folder.display(), refusal.error, refusal.text)))
        }
        Err(_) => {
            Err(Error::usage("E_AGENT_SOCKET", format!("{}: the agent's answer is unreadable", socket.display())))
        }
    }
}
