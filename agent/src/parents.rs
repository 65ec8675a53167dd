//! What the containers of an environment have together: a control group above theirs, with the quota of the stack, and
//! little weight while nobody waits for them. Made before the first container starts and removed after the last; which
//! group a container is in is no part of what it is made from, so nothing is made anew for it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use domain::stack::Quota;

use crate::engine::Engine;
use crate::pool::tool;

/// Length of a period in which CPU time is counted, in microseconds; also what the engine uses.
const PERIOD: u64 = 100_000;
/// Weights of version 1 and 2: of those that nobody waits for, and the usual ones.
const LOW: (u64, u64) = (64, 6);
const USUAL: (u64, u64) = (1024, 100);
/// How long the kernel may take to let go of a group whose last process has ended.
const LEAVES: Duration = Duration::from_secs(1);
/// The group in which the engine puts its containers, so that ours compete with those of everybody.
const ENGINES: &str = "docker";

/// Where systemd keeps what it was told until the next boot.
const SETTINGS: &str = "/run/systemd/system.control";

/// What an environment's containers may have together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Share {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Thousandths of a CPU.
    pub milli_cpus: Option<u64>,
    /// Others come first.
    pub low: bool,
}

impl Share {
    /// That of a stack's quota.
    #[must_use]
    pub fn of(quota: Quota, low: bool) -> Self {
        Self { memory: quota.memory, milli_cpus: quota.milli_cpus, low }
    }

    fn is_limited(&self) -> bool {
        self.memory.is_some() || self.milli_cpus.is_some()
    }
}

/// How groups are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Folders of each controller.
    First,
    /// Folders of the one tree.
    Second,
    /// Slices of systemd, which lets nobody else make folders.
    Slices,
}

/// Groups of environments on this machine.
#[derive(Debug)]
pub struct Parents {
    root: PathBuf,
    /// It has the say about them.
    systemd: bool,
    /// Why limits hold for each container only, by environment.
    why: Mutex<BTreeMap<String, String>>,
}

impl Default for Parents {
    fn default() -> Self {
        let systemd = Path::new("/run/systemd/system").is_dir() && tool::find("systemctl").is_some();
        Self { systemd, ..Self::at(Path::new("/sys/fs/cgroup")) }
    }
}

/// A name that has the id's own digits only.
fn name(id: &str) -> String {
    format!("muster-{}", id.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect::<String>())
}

/// Without dashes, which stand for levels.
fn slice(id: &str) -> String {
    format!("system-muster{}.slice", id.chars().filter(char::is_ascii_alphanumeric).collect::<String>())
}

impl Parents {
    /// Over another tree, without systemd.
    #[must_use]
    pub fn at(root: &Path) -> Self {
        Self { root: root.to_owned(), systemd: false, why: Mutex::default() }
    }

    fn why(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.why.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the group of an environment and gives it its share. Answers what its containers have as their parent; none:
    /// nothing is asked for, or it is not possible here.
    pub async fn parent(&self, engine: &dyn Engine, id: &str, share: Share) -> Option<String> {
        let way = match self.found(id) {
            Some(way) => Ok(way),
            None if share == Share::default() => return None,
            None => self.way(engine).await,
        };
        let made = match way {
            Ok(way) => self.make(way, id, share).await,
            Err(why) => Err(why),
        };
        match made {
            Ok(parent) => {
                self.why().remove(id);
                Some(parent)
            }
            Err(why) => {
                tracing::debug!(environment = id, %why, "its containers have no group together");
                if share.is_limited() {
                    self.why().insert(id.to_owned(), why);
                }
                // Containers of this environment may be there already.
                self.found(id).map(|way| parent_of(way, id))
            }
        }
    }

    /// Gives it the usual weight: somebody waits for it from now on.
    pub async fn raise(&self, id: &str) {
        let Some(way) = self.found(id) else { return };
        let done = match way {
            Way::First => write(&self.folder("cpu", id), "cpu.shares", &USUAL.0.to_string()),
            Way::Second => write(&self.folder("", id), "cpu.weight", &USUAL.1.to_string()),
            Way::Slices => systemctl(&["set-property", "--runtime", &slice(id), "CPUWeight=100"]).await,
        };
        if let Err(why) = done {
            tracing::warn!(environment = id, %why, "it keeps the weight of one that nobody waits for");
        }
    }

    /// Looks whether a container is where it was put.
    pub fn look(&self, id: &str, service: &str, pid: u32) {
        let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let (folder, slice) = (format!("/{}/", name(id)), format!("/{}/", slice(id)));
        if !text.is_empty() && !text.contains(&folder) && !text.contains(&slice) {
            let why = format!("{service} was made before that, or by an engine with other control groups");
            self.why().insert(id.to_owned(), why);
        }
    }

    /// What its owner is told.
    #[must_use]
    pub fn notice(&self, id: &str) -> Option<String> {
        let why = self.why().get(id)?.clone();
        Some(format!("cpu and memory in quota hold for each container, not for all of them together: {why}"))
    }

    /// Removes the group of an environment whose containers are gone.
    pub async fn remove(&self, id: &str) {
        self.why().remove(id);
        if self.has_slice(id) {
            let done = systemctl(&["revert", &slice(id)]).await;
            let done = done.and(systemctl(&["stop", &slice(id)]).await);
            if let Err(why) = done {
                tracing::warn!(environment = id, %why, "its slice stays");
            }
        }
        let until = Instant::now() + LEAVES;
        let folders: Vec<PathBuf> = self.trees().into_iter().map(|tree| tree.join(ENGINES).join(name(id))).collect();
        for folder in folders {
            loop {
                match std::fs::remove_dir(&folder) {
                    Err(why) if why.kind() == io::ErrorKind::ResourceBusy && Instant::now() < until => {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                    Err(why) if why.kind() != io::ErrorKind::NotFound => {
                        tracing::warn!(environment = id, folder = %folder.display(), %why, "its control group stays");
                        break;
                    }
                    _ => break,
                }
            }
        }
    }

    /// The trees in which the engine may have made folders.
    fn trees(&self) -> Vec<PathBuf> {
        let below = std::fs::read_dir(&self.root).into_iter().flatten().flatten().map(|entry| entry.path());
        std::iter::once(self.root.clone()).chain(below.filter(|path| path.join("cgroup.procs").exists())).collect()
    }

    fn folder(&self, controller: &str, id: &str) -> PathBuf {
        self.root.join(controller).join(ENGINES).join(name(id))
    }

    /// How the group was made that is there.
    fn found(&self, id: &str) -> Option<Way> {
        if self.folder("cpu", id).is_dir() {
            return Some(Way::First);
        }
        if self.folder("", id).is_dir() {
            return Some(Way::Second);
        }
        self.has_slice(id).then_some(Way::Slices)
    }

    /// Whether systemd has the slice, or settings of it.
    fn has_slice(&self, id: &str) -> bool {
        let (below, slice) = (self.root.join("system.slice"), slice(id));
        self.systemd && (below.join(&slice).is_dir() || Path::new(SETTINGS).join(format!("{slice}.d")).is_dir())
    }

    async fn way(&self, engine: &dyn Engine) -> Result<Way, String> {
        let told = engine.cgroups().await.map_err(|why| why.to_string())?;
        let foreign = || "the engine's control groups are not those of this machine".to_owned();
        let one = self.root.join("cgroup.controllers").exists();
        let many = self.root.join("memory/cgroup.procs").exists() && self.root.join("cpu/cgroup.procs").exists();
        match (told.driver.as_str(), told.version.as_str()) {
            ("systemd", _) if self.systemd => Ok(Way::Slices),
            ("cgroupfs", "1") if many => Ok(Way::First),
            ("cgroupfs", "2") if one => Ok(Way::Second),
            ("cgroupfs" | "systemd", _) => Err(foreign()),
            (other, _) => Err(format!("the engine's control groups ({other}) cannot be used")),
        }
    }

    async fn make(&self, way: Way, id: &str, share: Share) -> Result<String, String> {
        match way {
            Way::First => self.first(id, share)?,
            Way::Second => self.second(id, share)?,
            Way::Slices => {
                let unit = slice(id);
                let mut words = vec!["set-property".to_owned(), "--runtime".to_owned(), unit];
                words.extend(properties(share));
                systemctl(&words.iter().map(String::as_str).collect::<Vec<_>>()).await?;
            }
        }
        Ok(parent_of(way, id))
    }

    fn first(&self, id: &str, share: Share) -> Result<(), String> {
        let (memory, cpu) = (self.folder("memory", id), self.folder("cpu", id));
        for folder in [&memory, &cpu] {
            std::fs::create_dir_all(folder).map_err(|why| format!("{}: {why}", folder.display()))?;
        }
        let or_none = |limit: Option<u64>| limit.map_or_else(|| "-1".to_owned(), |limit| limit.to_string());
        write(&memory, "memory.limit_in_bytes", &or_none(share.memory))?;
        write(&cpu, "cpu.cfs_period_us", &PERIOD.to_string())?;
        write(&cpu, "cpu.cfs_quota_us", &or_none(share.milli_cpus.map(quota_us)))?;
        write(&cpu, "cpu.shares", &(if share.low { LOW } else { USUAL }).0.to_string())
    }

    fn second(&self, id: &str, share: Share) -> Result<(), String> {
        let folder = self.folder("", id);
        std::fs::create_dir_all(&folder).map_err(|why| format!("{}: {why}", folder.display()))?;
        for above in [self.root.clone(), self.root.join(ENGINES)] {
            write(&above, "cgroup.subtree_control", "+memory +cpu")?;
        }
        let or_none = |limit: Option<u64>| limit.map_or_else(|| "max".to_owned(), |limit| limit.to_string());
        write(&folder, "memory.max", &or_none(share.memory))?;
        write(&folder, "cpu.max", &format!("{} {PERIOD}", or_none(share.milli_cpus.map(quota_us))))?;
        write(&folder, "cpu.weight", &(if share.low { LOW } else { USUAL }).1.to_string())
    }
}

/// Microseconds of CPU time in a period; the kernel takes no less than a thousandth of a second.
fn quota_us(milli_cpus: u64) -> u64 {
    milli_cpus.saturating_mul(PERIOD / 1000).max(1000)
}

/// As the engine is told.
fn parent_of(way: Way, id: &str) -> String {
    match way {
        Way::First | Way::Second => format!("/{ENGINES}/{}", name(id)),
        Way::Slices => slice(id),
    }
}

/// Settings of a slice.
fn properties(share: Share) -> [String; 3] {
    let memory = share.memory.map_or_else(|| "infinity".to_owned(), |bytes| bytes.to_string());
    let cpus = share.milli_cpus.map_or_else(String::new, |milli| format!("{}%", milli.div_ceil(10).max(1)));
    let weight = if share.low { LOW.1 } else { USUAL.1 };
    [format!("MemoryMax={memory}"), format!("CPUQuota={cpus}"), format!("CPUWeight={weight}")]
}

fn write(folder: &Path, file: &str, text: &str) -> Result<(), String> {
    let path = folder.join(file);
    std::fs::write(&path, text).map_err(|why| format!("{}: {why}", path.display()))
}

async fn systemctl(words: &[&str]) -> Result<(), String> {
    let words: Vec<std::ffi::OsString> = words.iter().map(Into::into).collect();
    let done = tokio::task::spawn_blocking(move || {
        tool::run("systemctl", &words.iter().map(OsStr::new).collect::<Vec<_>>()).map_err(|why| why.to_string())
    });
    done.await.map_err(|why| why.to_string())?.map(|_| ())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::engine::Cgroups;
    use crate::engine::fake::Fake;

    const ID: &str = "0189abcd-0000-7000-8000-0000000000aa";
    const HALF: Share = Share { memory: Some(64 << 20), milli_cpus: Some(500), low: false };

    /// A tree with the files that the kernel would show in new folders.
    fn tree(files: &[&str]) -> (tempfile::TempDir, Parents) {
        let folder = tempfile::tempdir().expect("a folder");
        for file in files {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            std::fs::write(path, "").expect("written");
        }
        let parents = Parents::at(folder.path());
        (folder, parents)
    }

    fn engine(driver: &str, version: &str) -> Arc<Fake> {
        let fake = Fake::new();
        fake.set_cgroups(Cgroups { driver: driver.to_owned(), version: version.to_owned() });
        Arc::new(fake)
    }

    #[tokio::test]
    async fn version_1_has_limits_in_two_trees_and_loses_them_with_the_quota() {
        let (folder, parents) = tree(&["memory/cgroup.procs", "cpu/cgroup.procs"]);
        let engine = engine("cgroupfs", "1");
        let parent = parents.parent(engine.as_ref(), ID, HALF).await;
        assert_eq!(parent, Some(format!("/docker/muster-{ID}")));
        let read = |path: &str| {
            let path = folder.path().join(path.replace("GROUP", &format!("docker/muster-{ID}")));
            std::fs::read_to_string(path).expect("there")
        };
        assert_eq!(read("memory/GROUP/memory.limit_in_bytes"), (64_u64 << 20).to_string());
        assert_eq!(
            (read("cpu/GROUP/cpu.cfs_quota_us"), read("cpu/GROUP/cpu.cfs_period_us")),
            ("50000".into(), "100000".into())
        );
        assert_eq!(parents.parent(engine.as_ref(), ID, Share::default()).await, parent, "it stays with its containers");
        assert_eq!(
            (read("memory/GROUP/memory.limit_in_bytes"), read("cpu/GROUP/cpu.cfs_quota_us")),
            ("-1".into(), "-1".into())
        );
        assert_eq!(parents.parent(engine.as_ref(), "another", Share::default()).await, None, "nothing is asked for");
    }

    #[tokio::test]
    async fn version_2_has_one_group_that_weighs_little_until_somebody_waits_for_it() {
        let (folder, parents) = tree(&["cgroup.controllers"]);
        let parent = parents.parent(engine("cgroupfs", "2").as_ref(), ID, Share { low: true, ..HALF }).await;
        assert_eq!(parent, Some(format!("/docker/muster-{ID}")));
        let read = |name: &str| std::fs::read_to_string(folder.path().join("docker").join(self::name(ID)).join(name));
        assert_eq!(read("memory.max").expect("there"), (64_u64 << 20).to_string());
        assert_eq!(read("cpu.max").expect("there"), "50000 100000");
        assert_eq!(read("cpu.weight").expect("there"), "6");
        parents.raise(ID).await;
        assert_eq!(read("cpu.weight").expect("there"), "100");
    }

    #[tokio::test]
    async fn where_it_is_not_possible_its_owner_is_told_why() {
        for (driver, version) in [("cgroupfs", "1"), ("none", ""), ("systemd", "1")] {
            let (_folder, parents) = tree(&["cgroup.controllers"]);
            assert_eq!(parents.parent(engine(driver, version).as_ref(), ID, HALF).await, None, "{driver}");
            let notice = parents.notice(ID).expect("a notice");
            assert!(notice.contains("not for all of them together: the engine's control groups"), "{notice}");
            let low = Share { low: true, ..Share::default() };
            assert_eq!(parents.parent(engine(driver, version).as_ref(), "slot", low).await, None);
            assert_eq!(parents.notice("slot"), None, "nobody asked for it");
        }
    }

    #[tokio::test]
    async fn groups_go_in_every_tree() {
        let (folder, parents) = tree(&["memory/cgroup.procs", "cpu/cgroup.procs", "pids/cgroup.procs"]);
        let own = |tree: &str| folder.path().join(tree).join("docker").join(name(ID));
        for tree in ["memory", "cpu", "pids"] {
            std::fs::create_dir_all(own(tree)).expect("made");
        }
        parents.remove(ID).await;
        assert!(["memory", "cpu", "pids"].iter().all(|tree| !own(tree).exists()));
    }

    #[test]
    fn a_slice_is_one_level_below_the_system_and_has_its_limits_as_properties() {
        assert_eq!(slice(ID), "system-muster0189abcd0000700080000000000000aa.slice");
        assert_eq!(properties(HALF), ["MemoryMax=67108864", "CPUQuota=50%", "CPUWeight=100"]);
        assert_eq!(
            properties(Share { low: true, ..Share::default() }),
            ["MemoryMax=infinity", "CPUQuota=", "CPUWeight=6"]
        );
    }
}
