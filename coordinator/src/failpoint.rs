//! Points at which a test can kill the coordinator; nothing of this is in a build without the feature `failpoints`.
//!
//! `MUSTER_FAILPOINTS="rollout.order.stored=abort,run.assigned=abort"`: the process ends itself by SIGKILL when it
//! first comes to the point; a file in the state directory makes that once.

use std::path::Path;

/// Kills the process here, if a test asked for it and it has not happened yet.
#[cfg(feature = "failpoints")]
pub fn hit(state: Option<&Path>, name: &str) {
    let Some(marker) = marker(state, name) else { return };
    if std::fs::OpenOptions::new().write(true).create_new(true).open(marker).is_ok() {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        std::process::abort();
    }
}

/// Whether a test asked for this point and it has not happened yet.
#[cfg(feature = "failpoints")]
#[must_use]
pub fn armed(state: Option<&Path>, name: &str) -> bool {
    marker(state, name).is_some_and(|marker| !marker.exists())
}

#[cfg(feature = "failpoints")]
fn marker(state: Option<&Path>, name: &str) -> Option<std::path::PathBuf> {
    let asked = std::env::var("MUSTER_FAILPOINTS").ok()?;
    let wanted = asked.split(',').filter_map(|part| part.split_once('=')).any(|point| point == (name, "abort"));
    state.filter(|_| wanted).map(|state| state.join(format!("failpoint.{name}")))
}

/// Nothing.
#[cfg(not(feature = "failpoints"))]
pub fn hit(_state: Option<&Path>, _name: &str) {}
