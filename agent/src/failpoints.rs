//! Places where a fault test ends the process. Without the feature `failpoints` they are nothing.
//!
//! *Named* failpoints are set by `MUSTER_FAILPOINTS` and hit once. *Effects* are everything that changes something
//! outside this process, counted: a test lists them in one pass of a command, and in the passes after kills the agent
//! before each of them, or has it wait there while something else is killed.

use std::path::{Path, PathBuf};

/// Which failpoints are set, and where their marks lie.
#[derive(Debug, Clone, Default)]
pub struct Failpoints {
    #[cfg(feature = "failpoints")]
    set: std::collections::BTreeSet<String>,
    folder: PathBuf,
}

impl Failpoints {
    /// Reads `MUSTER_FAILPOINTS` (`name=abort,…`); marks of spent ones lie in `state_dir`, as do the files that arm
    /// effects: see [`effect`].
    #[must_use]
    pub fn read(state_dir: &Path) -> Self {
        #[cfg(feature = "failpoints")]
        effects::watch(state_dir);
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
            die();
        }
    }

    /// Nothing: this binary has no failpoints.
    #[cfg(not(feature = "failpoints"))]
    pub fn hit(&self, _name: &str) {
        let _ = &self.folder;
    }
}

/// Something outside this process is about to change. While `STATE_DIR/effects.log` exists its name is added there;
/// when `STATE_DIR/effects.kill` appears with a number `n`, the n-th effect from then on is not reached; when
/// `STATE_DIR/effects.hold` does, the n-th waits until that file is removed, and `effects.here` says that it waits.
#[cfg(feature = "failpoints")]
pub fn effect(name: &str) {
    effects::count(name);
}

/// Nothing: this binary has no failpoints.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub fn effect(_name: &str) {}

#[cfg(feature = "failpoints")]
fn die() {
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
}

#[cfg(feature = "failpoints")]
mod effects {
    use std::io::Write as _;
    use std::path::{Path, PathBuf};
    use std::sync::{Mutex, OnceLock, PoisonError};
    use std::time::{Duration, SystemTime};

    /// How often one that waits looks whether it still has to.
    const LOOK: Duration = Duration::from_millis(5);

    /// Where the agent of this process keeps its state.
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    /// Effects that are left, this one included, while it is armed.
    static LEFT: Mutex<Option<u64>> = Mutex::new(None);

    /// When the file was written that says where to wait, and effects that are left until then; 0: it was reached.
    static HOLD: Mutex<Option<(SystemTime, u64)>> = Mutex::new(None);

    pub fn watch(folder: &Path) {
        let _ = FOLDER.set(folder.to_owned());
    }

    pub fn count(name: &str) {
        let Some(folder) = FOLDER.get() else { return };
        die_here(folder, name);
        let hold = folder.join("effects.hold");
        if waits_here(&hold) && std::fs::write(folder.join("effects.here"), name).is_ok() {
            // Everything else of the agent goes on.
            tokio::task::block_in_place(|| {
                while hold.exists() {
                    std::thread::sleep(LOOK);
                }
            });
        }
    }

    fn waits_here(hold: &Path) -> bool {
        let written = std::fs::metadata(hold).and_then(|file| file.modified());
        let (Ok(written), Ok(text)) = (written, std::fs::read_to_string(hold)) else { return false };
        let Ok(number) = text.trim().parse::<u64>() else { return false };
        let mut known = HOLD.lock().unwrap_or_else(PoisonError::into_inner);
        let left = known.filter(|(at, _)| *at == written).map_or(number, |(_, left)| left);
        *known = Some((written, left.saturating_sub(1)));
        left == 1
    }

    fn die_here(folder: &Path, name: &str) {
        // The lock is held to the end: nobody passes a process that is about to die.
        let mut left = LEFT.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(mut log) = std::fs::OpenOptions::new().append(true).open(folder.join("effects.log")) {
            let _ = writeln!(log, "{name}");
        }
        let kill = folder.join("effects.kill");
        if let Ok(text) = std::fs::read_to_string(&kill) {
            // Removed first: the restarted process is not armed.
            let _ = std::fs::remove_file(&kill);
            *left = text.trim().parse().ok();
        }
        match left.as_mut() {
            Some(0 | 1) => super::die(),
            Some(more) => *more -= 1,
            None => {}
        }
    }
}
