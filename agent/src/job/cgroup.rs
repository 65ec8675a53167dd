//! A cgroup of the job's own, where the machine lets it: one write then kills everything in it, however it forks.
//!
//! Only the v2 tree is used, which machines with v1 controllers mount beside them; without it the job walks `/proc`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A cgroup of the job's own.
#[derive(Debug)]
pub(super) struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes one below this process's own. The error's text becomes a note.
    pub(super) fn create(name: &str) -> Result<Self, String> {
        let parent = own().ok_or("no cgroup v2 tree is mounted")?;
        let path = parent.join(name);
        match fs::create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(format!("mkdir {}: {error}", path.display()))
            }
            _ => Ok(Self { path }),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Begins `start` inside the cgroup: this process enters, the child is born there, this process leaves.
    /// So the child is never outside, not even for its first instruction.
    pub(super) fn inside<T>(&self, start: impl FnOnce() -> T) -> Result<T, String> {
        let home = self.path.parent().map(|parent| parent.join("cgroup.procs")).unwrap_or_default();
        fs::write(self.path.join("cgroup.procs"), "0")
            .map_err(|why| format!("enter {}: {why}", self.path.display()))?;
        let started = start();
        fs::write(home, "0").map_err(|why| format!("leave {}: {why}", self.path.display()))?;
        Ok(started)
    }

    /// Kills everything in it.
    pub(super) fn kill(&self) {
        kill(&self.path);
    }

    /// Removes it; it must be empty, which a killed process is a moment later.
    pub(super) fn remove(&self) {
        remove(&self.path);
    }
}

/// Kills everything in the cgroup at `path`.
pub(super) fn kill(path: &Path) {
    fs::write(path.join("cgroup.kill"), "1").ok();
}

/// Removes the cgroup at `path` once it is empty; gives up after a second (a process stuck in the kernel).
pub(super) fn remove(path: &Path) {
    let until = Instant::now() + Duration::from_secs(1);
    while fs::remove_dir(path).is_err_and(|error| error.kind() == io::ErrorKind::ResourceBusy) && Instant::now() < until
    {
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The directory of this process's v2 cgroup.
fn own() -> Option<PathBuf> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let (root, point) = mounts.lines().find_map(mount)?;
    let below = Path::new(own).strip_prefix(root).ok()?;
    Some(Path::new(point).join(below))
}

/// Root and mount point of a line that mounts a cgroup2 tree.
fn mount(line: &str) -> Option<(&str, &str)> {
    let (before, after) = line.split_once(" - ")?;
    let mut fields = before.split(' ');
    after.starts_with("cgroup2 ").then_some((fields.nth(3)?, fields.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_v2_tree_is_found_among_the_mounts() {
        let line = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw";
        assert_eq!(mount(line), Some(("/", "/sys/fs/cgroup/unified")));
        assert_eq!(mount("30 23 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755"), None);
        assert_eq!(mount("garbage"), None);
    }
}
