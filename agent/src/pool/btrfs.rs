//! Folders that are btrfs subvolumes: a clone is a snapshot, made at once whatever is in it, and of one instant.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::backend::{Backend, Cloned, Kind, Usage};
use super::error::{Error, Result};
use super::folders::{self, Folders};
use super::layout::Layout;
use super::{tool, usage};
use crate::files;

/// The kernel's number of btrfs.
const BTRFS: i64 = 0x9123_683e;
/// The inode of every subvolume's top.
const TOP: u64 = 256;
/// How deep subvolumes are looked for when a folder is removed; what lies deeper goes file by file.
const DEEPEST: usize = 16;

/// Folders that are btrfs subvolumes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Btrfs {
    layout: Layout,
    folders: Folders,
}

impl Btrfs {
    /// Those of the pool at a place on btrfs.
    #[must_use]
    pub fn new(layout: Layout) -> Self {
        Self { folders: Folders::sharing(layout.clone()), layout }
    }

    fn snapshot(&self, from: &Path, unfinished: &Path) -> Result<Cloned> {
        // A snapshot leaves out subvolumes inside; then, and for plain folders, files are taken one by one.
        if is_subvolume(from) && tool::run_on("btrfs", &["subvolume", "list", "-o"], from)?.is_empty() {
            let arguments = ["subvolume".as_ref(), "snapshot".as_ref(), from.as_os_str(), unfinished.as_os_str()];
            tool::run("btrfs", &arguments)?;
            return Ok(Cloned::default());
        }
        tool::run_on("btrfs", &["subvolume", "create"], unfinished)?;
        self.folders.prepare(from, unfinished)
    }
}

/// Whether `path` lies on btrfs.
pub(super) fn is_btrfs(path: &Path) -> bool {
    folders::is(path, BTRFS)
}

fn is_subvolume(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir() && meta.ino() == TOP) && is_btrfs(path)
}

/// Removes a folder and the subvolumes in it.
fn clear(path: &Path, deep: usize) -> std::io::Result<()> {
    if is_subvolume(path) && tool::run_on("btrfs", &["subvolume", "delete"], path).is_ok() {
        return Ok(());
    }
    if deep > 0
        && let Ok(entries) = std::fs::read_dir(path)
    {
        for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            clear(&entry.path(), deep - 1)?;
        }
    }
    files::remove_all(path)
}

impl Backend for Btrfs {
    fn kind(&self) -> Kind {
        Kind::Btrfs
    }

    fn probe(&self) -> Result<()> {
        let path = Layout::fresh(&self.layout.unfinished())?;
        tool::run_on("btrfs", &["subvolume", "create"], &path)?;
        tool::run_on("btrfs", &["subvolume", "delete"], &path).map(|_| ())
    }

    fn create(&self, folder: &Path) -> Result<()> {
        self.layout.inside(folder)?;
        if folder.symlink_metadata().is_ok() {
            return Err(Error::Exists { path: folder.to_owned() });
        }
        if let Some(parent) = folder.parent() {
            files::private_dir(parent).map_err(Error::at("make", parent))?;
        }
        tool::run_on("btrfs", &["subvolume", "create"], folder)?;
        folders::open_to_all(folder)
    }

    fn clone_tree(&self, from: &Path, to: &Path) -> Result<Cloned> {
        self.layout.inside(to)?;
        if to.symlink_metadata().is_ok() {
            return Err(Error::Exists { path: to.to_owned() });
        }
        let unfinished = Layout::fresh(&self.layout.unfinished())?;
        let made = self.snapshot(from, &unfinished);
        made.and_then(|cloned| self.layout.commit(&unfinished, to).map(|()| cloned)).inspect_err(|_| {
            let _ = clear(&unfinished, DEEPEST);
        })
    }

    fn remove(&self, folder: &Path) -> Result<()> {
        match self.layout.discard(folder)? {
            Some(trash) => clear(&trash, DEEPEST).map_err(Error::at("remove", folder)),
            None => Ok(()),
        }
    }

    fn sweep(&self) -> Result<u64> {
        let found = self.layout.leftovers();
        for path in &found {
            clear(path, DEEPEST).map_err(Error::at("remove", path))?;
        }
        Ok(found.len() as u64)
    }

    fn usage(&self, folder: &Path) -> Result<Usage> {
        usage::measure(folder, true)
    }

    fn sync(&self, folder: &Path) -> Result<()> {
        // More than a sync: it has the kernel begin to free what deleted subvolumes held.
        tool::run_on("btrfs", &["filesystem", "sync"], folder).map(|_| ())
    }
}
