//! A small disk: a file with a file system in it, mounted where a test wants it. `clean` unmounts it with its cluster.

use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Smallest that `mkfs.xfs` makes, in MiB.
pub const SMALLEST_XFS: u64 = 300;

/// A mounted disk of its own.
#[derive(Debug, Clone)]
pub struct Disk {
    root: PathBuf,
}

fn run(program: &str, arguments: &[&str], path: &[&Path]) {
    let out = Command::new(program).args(arguments).args(path).output().expect("it runs");
    assert!(out.status.success(), "{program} {path:?}: {}", String::from_utf8_lossy(&out.stderr));
}

impl Disk {
    /// An ext4 of so many MiB, mounted at `root`.
    ///
    /// # Panics
    /// It cannot be made.
    #[must_use]
    pub fn ext4(root: &Path, mib: u64) -> Self {
        Self::mount(root, mib, "mkfs.ext4", &["-q", "-F", "-m", "0"])
    }

    /// An XFS of so many MiB, mounted at `root`.
    ///
    /// # Panics
    /// It cannot be made.
    #[must_use]
    pub fn xfs(root: &Path, mib: u64) -> Self {
        Self::mount(root, mib.max(SMALLEST_XFS), "mkfs.xfs", &["-q", "-m", "reflink=1"])
    }

    fn mount(root: &Path, mib: u64, program: &str, arguments: &[&str]) -> Self {
        std::fs::create_dir_all(root).expect("a mount point");
        let image = root.with_extension("img");
        let file = std::fs::File::create(&image).expect("an image");
        file.set_len(mib << 20).expect("an image");
        run(program, arguments, &[&image]);
        run("mount", &["-o", "loop"], &[&image, root]);
        Self { root: root.to_owned() }
    }

    fn filler(&self) -> PathBuf {
        self.root.join("filler")
    }

    /// Writes until nothing fits any more, to the last byte.
    ///
    /// # Panics
    /// It fails for another reason.
    pub fn fill(&self) {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(self.filler()).expect("a file");
        for size in [1 << 20, 1 << 12, 1] {
            let bytes = vec![0_u8; size];
            loop {
                match file.write(&bytes) {
                    Ok(_) => {}
                    Err(why) if why.kind() == ErrorKind::StorageFull => break,
                    Err(why) => panic!("{}: {why}", self.filler().display()),
                }
            }
        }
        // What the file system promised it must have.
        let _ = file.sync_all();
    }

    /// Takes away what [`Disk::fill`] wrote.
    ///
    /// # Panics
    /// It cannot.
    pub fn make_room(&self) {
        std::fs::remove_file(self.filler()).expect("removed");
    }
}
