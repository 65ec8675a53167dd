//! A sparse file with XFS in it, mounted as the pool: what gives a machine whose disk is ext4 clones in constant time.

use std::fs::File;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::{Error, Result};
use super::tool;
use crate::files;

/// Smallest that XFS makes.
const SMALLEST: u64 = 300 << 20;
/// Largest that is made unless the settings say more.
const LARGEST: u64 = 256 << 30;
/// What the disk under it must have left for a pool to be worth it.
const WORTH: u64 = 2 << 30;

/// How often, and after which pause, it is tried whether a mount and its device are free.
const GO_TIMES: u32 = 100;
/// See [`GO_TIMES`].
const GO_PAUSE: Duration = Duration::from_millis(20);

/// The loop file and where it is mounted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Image {
    file: PathBuf,
    root: PathBuf,
}

impl Image {
    /// That of the agent with this state folder.
    #[must_use]
    pub fn of(state_dir: &Path) -> Self {
        Self { file: state_dir.join("pool.img"), root: state_dir.join("pool") }
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Whether the file is there.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.file.is_file()
    }

    /// Why one cannot be made here; none: it can.
    #[must_use]
    pub fn impossible(&self, wanted: Option<u64>) -> Option<String> {
        if !rustix::process::geteuid().is_root() {
            return Some("the agent is not root, so it cannot mount one".to_owned());
        }
        for program in ["mkfs.xfs", "mount", "umount", "losetup"] {
            if tool::find(program).is_none() {
                return Some(format!("{program} is not installed"));
            }
        }
        let available = self.host_available();
        let needed = wanted.map_or(WORTH, |wanted| wanted.clamp(SMALLEST, WORTH));
        (available < needed)
            .then(|| format!("its disk has {} MiB left, and a pool needs {} MiB", available >> 20, needed >> 20))
    }

    /// Bytes that the disk under the file has left.
    #[must_use]
    pub fn host_available(&self) -> u64 {
        let folder = self.file.parent().unwrap_or(&self.file);
        rustix::fs::statvfs(folder).map_or(0, |stat| stat.f_bavail * stat.f_frsize)
    }

    /// Makes the file with an empty file system in it.
    ///
    /// # Errors
    /// The disk or `mkfs.xfs` refuses.
    pub fn make(&self, wanted: Option<u64>) -> Result<()> {
        let bytes = wanted.unwrap_or_else(|| (self.host_available() / 2).min(LARGEST)).max(SMALLEST);
        let unfinished = self.file.with_extension("img.tmp");
        let told = |why| Error::at("make", &unfinished)(why);
        files::remove_all(&unfinished).map_err(told)?;
        let file = File::options().write(true).create_new(true).mode(0o600).open(&unfinished).map_err(told)?;
        file.set_len(bytes).map_err(told)?;
        let made = tool::run_on("mkfs.xfs", &["-q", "-m", "reflink=1", "-L", "muster-pool"], &unfinished)
            .and_then(|_| file.sync_all().map_err(told))
            .and_then(|()| std::fs::rename(&unfinished, &self.file).map_err(told));
        made.inspect_err(|_| {
            let _ = files::remove_all(&unfinished);
        })?;
        crate::job::files::sync_parent(&self.file).map_err(Error::at("make", &self.file))
    }

    /// Mounts it unless it is.
    ///
    /// # Errors
    /// `mount` refuses, or something else is mounted there.
    pub fn mount(&self) -> Result<()> {
        files::private_dir(&self.root).map_err(Error::at("make", &self.root))?;
        if let Some(device) = self.device() {
            return if self.backs(&device) {
                Ok(())
            } else {
                Err(Error::Unsuitable {
                    kind: "the loop file",
                    root: self.root.clone(),
                    why: format!("{} is mounted there", device.display()),
                })
            };
        }
        // Not `discard`: it costs at every removal what upkeep does once in a while.
        let arguments = ["-t", "xfs", "-o", "loop,nodev,noatime"].map(AsRef::as_ref);
        let places = [self.file.as_os_str(), self.root.as_os_str()];
        tool::run("mount", &[arguments.as_slice(), &places].concat())?;
        // Past the cache of the disk below, or every page would be in memory twice. Not every disk can.
        if let Some(Err(why)) = self.device().map(|device| tool::run_on("losetup", &["--direct-io=on"], &device)) {
            tracing::debug!(%why, "the loop file is read and written through the cache of its disk");
        }
        Ok(())
    }

    /// Ends the mount, and the loop device with it.
    ///
    /// # Errors
    /// `E_POOL_BUSY` while somebody uses it.
    pub fn unmount(&self) -> Result<()> {
        let Some(device) = self.device() else { return Ok(()) };
        let busy = |why| Error::Busy { root: self.root.clone(), why };
        // Whoever starts a program shares its open files with it for an instant.
        let mut unmounted = Ok(String::new());
        patiently(|| {
            unmounted = tool::run_on("umount", &[], &self.root);
            !unmounted.as_ref().is_err_and(|why| why.to_string().contains("target is busy"))
        });
        unmounted.map_err(|why| busy(why.to_string()))?;
        // The kernel lets go of the device by itself, a moment later.
        if patiently(|| !self.backs(&device)) {
            return Ok(());
        }
        Err(busy("a container still has a folder of it".to_owned()))
    }

    /// The device that is mounted at the root.
    #[must_use]
    pub fn device(&self) -> Option<PathBuf> {
        let root = self.root.canonicalize().ok()?;
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
        // The last one hides those before it.
        mounts.lines().rev().find_map(|line| mounted_at(line, &root))
    }

    fn backs(&self, device: &Path) -> bool {
        let Some(name) = device.file_name() else { return false };
        let path = Path::new("/sys/block").join(name).join("loop/backing_file");
        let backing = std::fs::read_to_string(path).unwrap_or_default();
        self.file.canonicalize().is_ok_and(|file| Path::new(backing.trim_end()) == file)
    }

    /// Bytes of the file, and those that its disk really holds for it.
    #[must_use]
    pub fn size(&self) -> (u64, u64) {
        std::fs::metadata(&self.file).map_or((0, 0), |meta| (meta.len(), meta.blocks() * 512))
    }

    /// Makes it larger by half if its disk can hold that with `spare` bytes left over. Answers the new size in bytes.
    ///
    /// # Errors
    /// A step of it fails; the rest is done at the next call.
    pub fn grow(&self, spare: u64) -> Result<Option<u64>> {
        let (size, held) = self.size();
        let promised = size.saturating_sub(held);
        let room = self.host_available().saturating_sub(promised).saturating_sub(spare);
        let more = (size / 2).min(room) & !((1 << 20) - 1);
        // Less would not be worth the work, and the next call comes soon.
        if more < size / 10 || more == 0 {
            return Ok(None);
        }
        let Some(device) = self.device() else { return Ok(None) };
        let file = File::options().write(true).open(&self.file).map_err(Error::at("open", &self.file))?;
        file.set_len(size + more).map_err(Error::at("grow", &self.file))?;
        tool::run_on("losetup", &["-c"], &device)?;
        tool::run_on("xfs_growfs", &[], &self.root)?;
        Ok(Some(size + more))
    }

    /// Gives bytes that nothing in the pool uses back to the disk under it.
    ///
    /// # Errors
    /// `fstrim` refuses.
    pub fn trim(&self) -> Result<()> {
        tool::run_on("fstrim", &[], &self.root).map(|_| ())
    }
}

/// Whether it is so at once or soon.
fn patiently(mut is: impl FnMut() -> bool) -> bool {
    for _ in 1..GO_TIMES {
        if is() {
            return true;
        }
        std::thread::sleep(GO_PAUSE);
    }
    is()
}

/// The source of the mount that a line of `mountinfo` is about, if it is at `root`.
fn mounted_at(line: &str, root: &Path) -> Option<PathBuf> {
    let (before, after) = line.split_once(" - ")?;
    let place = plain(before.split(' ').nth(4)?);
    (Path::new(&place) == root).then(|| after.split(' ').nth(1).map(|source| PathBuf::from(plain(source))))?
}

/// `mountinfo` writes some characters as octal numbers.
fn plain(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (written, meant)| text.replace(written, meant))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_found_by_its_place_alone() {
        let line = "36 28 7:0 / /var/lib/a\\040b/pool rw,nodev,noatime shared:9 - xfs /dev/loop0 rw,attr2";
        assert_eq!(mounted_at(line, Path::new("/var/lib/a b/pool")), Some(PathBuf::from("/dev/loop0")));
        assert_eq!(mounted_at(line, Path::new("/var/lib/a b")), None);
        assert_eq!(mounted_at("", Path::new("/")), None);
    }
}
