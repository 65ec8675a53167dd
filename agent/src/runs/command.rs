//! The command under its job, seen from an agent that may have been born after it.

use std::time::Duration;

use proto::v1;
use tokio::sync::watch;

use super::Shared;
use super::record::{Folder, Record};
use crate::job::{Error, Handle, Launcher, Spec, State};

/// How often the job is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// A job that has not begun after so long is started again; it begins at most once.
const BEGIN: Duration = Duration::from_secs(10);
/// Starts before it is given up.
const STARTS: u32 = 3;

/// What became of the job; the error says why it could not even be started.
pub(super) async fn follow(
    shared: &Shared,
    record: &Record,
    folder: &Folder,
    cancel: &mut watch::Receiver<bool>,
) -> Result<State, String> {
    let handle = Handle::attach(&folder.job());
    let id = &record.order.id;
    let mut seen = Seen::default();
    let state = loop {
        let state = handle.state().map_err(|why| why.to_string())?;
        match &state {
            State::NotBegun => start(&handle, &shared.setup.launcher, &mut seen)?,
            State::Running => {}
            State::Ended(_) | State::Lost => break state,
        }
        if *cancel.borrow() && !seen.cancelled {
            handle.cancel().map_err(|why| why.to_string())?;
            seen.cancelled = true;
        }
        tell(shared, id, &handle, &state, &mut seen);
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            _ = cancel.changed(), if !seen.cancelled => {}
        }
    };
    if state == State::Lost {
        handle.sweep().map_err(|why| why.to_string())?;
    }
    // A short command may have printed and ended between two looks.
    tell(shared, id, &handle, &State::Running, &mut seen);
    Ok(state)
}

#[derive(Default)]
struct Seen {
    cancelled: bool,
    running: bool,
    line: bool,
    starts: u32,
    last: Option<tokio::time::Instant>,
}

fn start(handle: &Handle, launcher: &Launcher, seen: &mut Seen) -> Result<(), String> {
    let now = tokio::time::Instant::now();
    if seen.last.is_some_and(|last| now < last + BEGIN) {
        return Ok(());
    }
    if seen.starts == STARTS {
        return Err(handle.complaint().unwrap_or_else(|| "the job does not begin".to_owned()));
    }
    seen.starts += 1;
    seen.last = Some(now);
    Handle::start(handle.directory(), launcher).map_err(|why: Error| why.to_string())
}

fn tell(shared: &Shared, id: &str, handle: &Handle, state: &State, seen: &mut Seen) {
    let line = seen.line || std::fs::metadata(handle.log()).is_ok_and(|meta| meta.len() > 0);
    let running = seen.running || *state == State::Running;
    if (line, running) == (seen.line, seen.running) {
        return;
    }
    let first = line && !seen.line;
    (seen.line, seen.running) = (line, running);
    shared.tell(v1::RunReport {
        id: id.to_owned(),
        state: v1::RunState::Running.into(),
        first_line: line,
        detail: "the command runs".to_owned(),
        ..Default::default()
    });
    if first {
        shared.setup.host.failpoints.hit("run.command.started");
    }
}

/// Writes what the job is to do, before anything says that it was begun.
pub(super) fn write(folder: &Folder, spec: &Spec) -> Result<(), String> {
    Handle::prepare(&folder.job(), spec).map_err(|why| why.to_string())
}
