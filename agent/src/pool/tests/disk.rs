//! Disks for tests: file systems in sparse files, mounted. They go with the value, also when a test fails.

use std::path::{Path, PathBuf};

use super::super::tool;
use super::wait;

/// Whether tests with real file systems run.
///
/// # Panics
/// They are wanted, and this machine cannot have them: then they must not be left out in silence.
pub fn wanted() -> bool {
    if std::env::var("MUSTER_TEST_REAL").is_ok_and(|value| value == "0") {
        eprintln!("left out: this test mounts real file systems (MUSTER_TEST_REAL=0)");
        return false;
    }
    let advice = "MUSTER_TEST_REAL=0 leaves these tests out";
    assert!(rustix::process::geteuid().is_root(), "only root can mount file systems; {advice}");
    for (program, package) in [("mkfs.xfs", "xfsprogs"), ("mkfs.btrfs", "btrfs-progs"), ("mkfs.ext4", "e2fsprogs")] {
        assert!(tool::find(program).is_some(), "{program} is missing: install {package}; {advice}");
    }
    true
}

/// A mounted file system, and a folder beside it.
pub struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    /// Makes and mounts one.
    pub fn new(kind: &str, mib: u64) -> Self {
        let disk = Self { folder: tempfile::tempdir().expect("a folder") };
        let file = std::fs::File::create(disk.image()).expect("made");
        file.set_len(mib << 20).expect("sized");
        let quiet = match kind {
            "xfs" => ["-q", "-m", "reflink=1"].as_slice(),
            "btrfs" => &["-q"],
            _ => &["-q", "-F", "-b", "4096"],
        };
        // mkfs.btrfs looks at every loop device, and fails at one that goes meanwhile.
        let make = || tool::run_on(&format!("mkfs.{kind}"), quiet, &disk.image());
        (1..5).find_map(|_| make().ok()).unwrap_or_else(|| make().expect("a file system"));
        std::fs::create_dir(disk.path()).expect("made");
        disk.mount();
        disk
    }

    /// Mounts it again.
    pub fn mount(&self) {
        let (file, place) = (self.image(), self.path());
        let arguments = ["-o".as_ref(), "loop".as_ref(), file.as_os_str(), place.as_os_str()];
        tool::run("mount", &arguments).expect("mounted");
    }

    /// Unmounts it, as a reboot would leave it; also from under whoever uses it.
    pub fn unmount(&self) {
        tool::run_on("umount", &["-l"], &self.path()).expect("unmounted");
    }

    /// Ends the file system as a power cut does, with nothing written out that was not yet, and mounts it again.
    pub fn cut_power(&self) {
        tool::run_on("xfs_io", &["-x", "-c", "shutdown"], &self.path()).expect("shut down");
        self.unmount();
        // While anybody still has a file of it, mounting would bring back what was shut down.
        wait("its device goes", || loops_below(self.folder.path()) == 0);
        self.mount();
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    /// A folder that is not on it.
    pub fn beside(&self, name: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(&path).expect("made");
        path
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join("image")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        unmount_below(self.folder.path());
    }
}

/// Unmounts everything below a folder, the innermost first.
pub fn unmount_below(folder: &Path) {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut found: Vec<&str> = mounts.lines().filter_map(|line| line.split(' ').nth(4)).collect();
    found.retain(|path| Path::new(path).starts_with(folder));
    for path in found.iter().rev() {
        let _ = tool::run_on("umount", &["-l"], Path::new(path));
    }
}

/// Loop devices whose file lies below a folder.
pub fn loops_below(folder: &Path) -> usize {
    let devices = std::fs::read_dir("/sys/block").expect("block devices").flatten();
    devices
        .filter_map(|device| std::fs::read_to_string(device.path().join("loop/backing_file")).ok())
        .filter(|file| Path::new(file.trim_end()).starts_with(folder))
        .count()
}
