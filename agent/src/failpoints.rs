//! Places where a fault test ends the process, once. Without the feature `failpoints` they are nothing.

use std::path::{Path, PathBuf};

/// Which failpoints are set, and where their marks lie.
#[derive(Debug, Clone, Default)]
pub struct Failpoints {
    #[cfg(feature = "failpoints")]
    set: std::collections::BTreeSet<String>,
    folder: PathBuf,
}

impl Failpoints {
    /// Reads `MUSTER_FAILPOINTS` (`name=abort,…`); marks of spent ones lie in `state_dir`.
    #[must_use]
    pub fn read(state_dir: &Path) -> Self {
        Self {
            #[cfg(feature = "failpoints")]
            set: std::env::var("MUSTER_FAILPOINTS")
                .unwrap_or_default()
                .split(',')
                .filter_map(|item| item.trim().strip_suffix("=abort").map(str::to_owned))
                .collect(),
            folder: state_dir.to_owned(),
        }
    }

    /// Kills this process when `name` is set and was not hit before.
    #[cfg(feature = "failpoints")]
    pub fn hit(&self, name: &str) {
        if !self.set.contains(name) {
            return;
        }
        // The mark makes it once: the restarted process goes on.
        let mark = self.folder.join(format!("failpoint.{name}"));
        if std::fs::OpenOptions::new().write(true).create_new(true).open(&mark).is_ok() {
            let _ = crate::files::sync_folder(&self.folder);
            let me = rustix::process::getpid();
            let _ = rustix::process::kill_process(me, rustix::process::Signal::KILL);
        }
    }

    /// Nothing: this binary has no failpoints.
    #[cfg(not(feature = "failpoints"))]
    pub fn hit(&self, _name: &str) {
        let _ = &self.folder;
    }
}
