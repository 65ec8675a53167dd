//! Freezes and thaws containers by the kernel's freezer, never by the engine: an engine's own pause hangs on commands
//! that run inside (moby#27272). Also tells how much memory a container has.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use crate::failpoints::effect;

/// Longest time until a container's last process has stopped.
const WITHIN: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(2);

/// Why a container was not frozen or thawed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its processes are in no group of their own.
    #[error("process {0} is in no cgroup of its container, so it cannot be frozen")]
    NoGroup(u32),
    /// The kernel says no.
    #[error("{}: {why}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        why: io::Error,
    },
    /// It takes too long.
    #[error("its processes did not stop within {WITHIN:?}")]
    TooSlow,
}

/// A container, as the freezer needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boxed {
    /// The engine's id, which its cgroup is named after.
    pub id: String,
    /// Its first process, in our namespace.
    pub pid: u32,
}

/// Stops processes without their knowing.
#[async_trait]
pub trait Freezer: Send + Sync + std::fmt::Debug {
    /// Freezes a container; when this returns, none of its processes runs. Again is fine.
    async fn freeze(&self, one: &Boxed) -> Result<(), Error>;
    /// Thaws a container; one that is not frozen stays as it is.
    async fn thaw(&self, one: &Boxed) -> Result<(), Error>;
    /// Bytes of memory that it has now, files it read included.
    async fn memory(&self, one: &Boxed) -> Option<u64>;
}

/// The kernel's control groups, version 1 or 2.
#[derive(Debug, Clone)]
pub struct Cgroups {
    proc: PathBuf,
    root: PathBuf,
}

impl Default for Cgroups {
    fn default() -> Self {
        Self { proc: "/proc".into(), root: "/sys/fs/cgroup".into() }
    }
}

/// What to write where.
struct Switch {
    write: PathBuf,
    frozen: &'static str,
    thawed: &'static str,
    /// Where it stands whether that is so, and the line to look for.
    state: PathBuf,
    is_frozen: &'static str,
}

impl Cgroups {
    /// The group of a controller: empty for version 2.
    fn group(&self, one: &Boxed, controller: &str) -> Option<PathBuf> {
        let text = std::fs::read_to_string(self.proc.join(one.pid.to_string()).join("cgroup")).ok()?;
        let path = text.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (_, names, path) = (parts.next()?, parts.next()?, parts.next()?);
            names.split(',').any(|name| name == controller).then_some(path)
        })?;
        // Never a group that other processes are in too.
        let own = path.split('/').any(|part| part.contains(&one.id));
        let inside = !path.split('/').any(|part| part == "..");
        (own && inside && !one.id.is_empty()).then(|| {
            let base = if controller.is_empty() { self.unified() } else { self.root.join(controller) };
            base.join(path.trim_start_matches('/'))
        })
    }

    fn unified(&self) -> PathBuf {
        let hybrid = self.root.join("unified");
        if hybrid.is_dir() { hybrid } else { self.root.clone() }
    }

    fn switch(&self, one: &Boxed) -> Option<Switch> {
        if let Some(group) = self.group(one, "freezer") {
            let state = group.join("freezer.state");
            return Some(Switch {
                write: state.clone(),
                frozen: "FROZEN",
                thawed: "THAWED",
                state,
                is_frozen: "FROZEN",
            });
        }
        let group = self.group(one, "")?;
        let (write, state) = (group.join("cgroup.freeze"), group.join("cgroup.events"));
        Some(Switch { write, frozen: "1", thawed: "0", state, is_frozen: "frozen 1" })
    }
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    std::fs::write(path, text).map_err(|why| Error::Io { path: path.to_owned(), why })
}

fn is_frozen(switch: &Switch) -> Result<bool, Error> {
    let text = std::fs::read_to_string(&switch.state).map_err(|why| Error::Io { path: switch.state.clone(), why })?;
    Ok(text.lines().any(|line| line.trim() == switch.is_frozen))
}

#[async_trait]
impl Freezer for Cgroups {
    async fn freeze(&self, one: &Boxed) -> Result<(), Error> {
        effect("freezer.freeze");
        let switch = self.switch(one).ok_or(Error::NoGroup(one.pid))?;
        write(&switch.write, switch.frozen)?;
        let frozen = tokio::time::timeout(WITHIN, async {
            while !is_frozen(&switch)? {
                // On version 1 a process that forks meanwhile is caught by another try only.
                tokio::time::sleep(LOOK).await;
                write(&switch.write, switch.frozen)?;
            }
            Ok(())
        });
        match frozen.await {
            Ok(result) => result,
            Err(_) => {
                write(&switch.write, switch.thawed)?;
                Err(Error::TooSlow)
            }
        }
    }

    async fn thaw(&self, one: &Boxed) -> Result<(), Error> {
        effect("freezer.thaw");
        match self.switch(one) {
            Some(switch) => match write(&switch.write, switch.thawed) {
                Err(Error::Io { why, .. }) if why.kind() == io::ErrorKind::NotFound => Ok(()),
                other => other,
            },
            // It was never frozen by us, or it is gone.
            None => Ok(()),
        }
    }

    async fn memory(&self, one: &Boxed) -> Option<u64> {
        let file = match self.group(one, "memory") {
            Some(group) => group.join("memory.usage_in_bytes"),
            None => self.group(one, "")?.join("memory.current"),
        };
        std::fs::read_to_string(file).ok()?.trim().parse().ok()
    }
}

/// A freezer in memory, for tests.
#[derive(Debug, Default)]
pub struct Memory {
    frozen: Mutex<BTreeMap<String, bool>>,
}

impl Memory {
    fn frozen(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, bool>> {
        self.frozen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ids of the containers that are frozen.
    #[must_use]
    pub fn all(&self) -> Vec<String> {
        self.frozen().iter().filter(|(_, frozen)| **frozen).map(|(id, _)| id.clone()).collect()
    }
}

#[async_trait]
impl Freezer for Memory {
    async fn freeze(&self, one: &Boxed) -> Result<(), Error> {
        self.frozen().insert(one.id.clone(), true);
        Ok(())
    }

    async fn thaw(&self, one: &Boxed) -> Result<(), Error> {
        self.frozen().insert(one.id.clone(), false);
        Ok(())
    }

    async fn memory(&self, _one: &Boxed) -> Option<u64> {
        Some(1 << 20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4f1c2e0d";

    fn boxed() -> Boxed {
        Boxed { id: ID.to_owned(), pid: 7 }
    }

    /// A tree as the kernel shows it: `cgroup` is the process's own file.
    fn tree(cgroup: &str, files: &[(&str, &str)]) -> (tempfile::TempDir, Cgroups) {
        let folder = tempfile::tempdir().expect("a folder");
        let (proc, root) = (folder.path().join("proc"), folder.path().join("cgroup"));
        std::fs::create_dir_all(proc.join("7")).expect("made");
        std::fs::write(proc.join("7/cgroup"), cgroup).expect("written");
        for (path, text) in files {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            std::fs::write(path, text).expect("written");
        }
        (folder, Cgroups { proc, root })
    }

    #[tokio::test]
    async fn version_1_is_frozen_by_its_state() {
        let path = format!("freezer/docker/{ID}/freezer.state");
        let memory = format!("memory/docker/{ID}/memory.usage_in_bytes");
        let cgroup = format!("9:freezer:/docker/{ID}\n4:memory:/docker/{ID}\n0::/docker/{ID}\n");
        let (folder, cgroups) = tree(&cgroup, &[(&path, "THAWED\n"), (&memory, "4096\n")]);
        cgroups.freeze(&boxed()).await.expect("frozen");
        let state = || std::fs::read_to_string(folder.path().join("cgroup").join(&path)).expect("there");
        assert_eq!(state(), "FROZEN");
        cgroups.thaw(&boxed()).await.expect("thawed");
        assert_eq!(state(), "THAWED");
        assert_eq!(cgroups.memory(&boxed()).await, Some(4096));
    }

    #[tokio::test]
    async fn version_2_is_frozen_by_a_switch_and_tells_when() {
        let group = format!("system.slice/docker-{ID}.scope");
        let (switch, events) = (format!("{group}/cgroup.freeze"), format!("{group}/cgroup.events"));
        let cgroup = format!("0::/{group}\n");
        let (folder, cgroups) = tree(&cgroup, &[(&switch, "0"), (&events, "populated 1\nfrozen 1\n")]);
        cgroups.freeze(&boxed()).await.expect("frozen");
        assert_eq!(std::fs::read_to_string(folder.path().join("cgroup").join(&switch)).expect("there"), "1");
    }

    #[tokio::test]
    async fn a_group_that_is_not_the_containers_own_is_never_touched() {
        for path in ["/", "/docker", "/user.slice/session-1.scope", "/../docker/4f1c2e0d"] {
            let (folder, cgroups) = tree(&format!("9:freezer:{path}\n"), &[("freezer/freezer.state", "THAWED")]);
            assert!(matches!(cgroups.freeze(&boxed()).await, Err(Error::NoGroup(7))), "{path}");
            let state = std::fs::read_to_string(folder.path().join("cgroup/freezer/freezer.state")).expect("there");
            assert_eq!(state, "THAWED");
        }
    }
}
