//! Where what lies in the pool.

use std::io;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, RenameFlags};

use super::error::{Error, Result};
use crate::files;

/// Folders of the pool; nothing else in it is the pool's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// That of the pool at `root`, an absolute path.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The pool itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Environments: one folder each, by id.
    #[must_use]
    pub fn environments(&self) -> PathBuf {
        self.root.join("environments")
    }

    /// Seeds: one folder each, by digest.
    #[must_use]
    pub fn seeds(&self) -> PathBuf {
        self.root.join("seeds")
    }

    /// Snapshots: one folder each, by id.
    #[must_use]
    pub fn snapshots(&self) -> PathBuf {
        self.root.join("snapshots")
    }

    /// What is being made.
    pub(super) fn unfinished(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// What is being removed.
    pub(super) fn trash(&self) -> PathBuf {
        self.root.join("trash")
    }

    /// Makes the folders that are not there.
    pub(super) fn make(&self) -> Result<()> {
        for folder in [self.environments(), self.seeds(), self.snapshots(), self.unfinished(), self.trash()] {
            files::private_dir(&folder).map_err(Error::at("make", &folder))?;
        }
        Ok(())
    }

    /// Whether nothing is kept in the pool.
    pub(super) fn is_empty(&self) -> bool {
        let none = |folder: &PathBuf| std::fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_none());
        [self.environments(), self.seeds(), self.snapshots()].iter().all(none)
    }

    /// Whether somebody else keeps something here, or the pool does.
    pub(super) fn is_used(&self) -> bool {
        let own = [self.environments(), self.seeds(), self.snapshots(), self.unfinished(), self.trash()];
        let entries = std::fs::read_dir(&self.root).into_iter().flatten().flatten();
        let foreign = |path: &PathBuf| !own.contains(path);
        !self.is_empty() || entries.map(|entry| entry.path()).any(|path| foreign(&path))
    }

    /// Takes an empty pool away. What somebody else keeps in its folder stays, and the folder with it.
    pub(super) fn unmake(&self) -> Result<()> {
        if !self.is_empty() {
            return Ok(());
        }
        for folder in [self.environments(), self.seeds(), self.snapshots(), self.unfinished(), self.trash()] {
            files::remove_all(&folder).map_err(Error::at("remove", &folder))?;
        }
        let mark = super::record::mark_path(&self.root);
        files::remove_all(&mark).map_err(Error::at("remove", &mark))?;
        match std::fs::remove_dir(&self.root) {
            Err(why) if why.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
            other => other.map_err(Error::at("remove", &self.root)),
        }
    }

    /// Refuses what does not lie below the root.
    pub(super) fn inside(&self, path: &Path) -> Result<()> {
        let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        if plain && path.starts_with(&self.root) && path != self.root {
            return Ok(());
        }
        Err(Error::Outside { path: path.to_owned(), root: self.root.clone() })
    }

    /// A path that is not taken, in one of the pool's own folders.
    pub(super) fn fresh(folder: &Path) -> Result<PathBuf> {
        let name = crate::clock::random::<12>().map_err(Error::at("name something in", folder))?;
        Ok(folder.join(hex::encode(name)))
    }

    /// Gives what was made its place; durable when this returns, with everything that the file system has written
    /// down before.
    pub(super) fn commit(&self, made: &Path, to: &Path) -> Result<()> {
        let parent = to.parent().unwrap_or(&self.root);
        files::private_dir(parent).map_err(Error::at("make", parent))?;
        rustix::fs::renameat_with(CWD, made, CWD, to, RenameFlags::NOREPLACE).map_err(|why| match why {
            rustix::io::Errno::EXIST | rustix::io::Errno::NOTEMPTY => Error::Exists { path: to.to_owned() },
            why => Error::errno("make", to)(why),
        })?;
        files::sync_folder(parent).map_err(Error::at("make", to))
    }

    /// Takes a folder out of its place and answers where it is now; none: there was nothing.
    pub(super) fn discard(&self, folder: &Path) -> Result<Option<PathBuf>> {
        self.inside(folder)?;
        let trash = Self::fresh(&self.trash())?;
        match std::fs::rename(folder, &trash) {
            Ok(()) => Ok(Some(trash)),
            Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(None),
            // A plain folder inside a btrfs subvolume cannot leave it; it goes where it is.
            Err(why) if why.kind() == io::ErrorKind::CrossesDevices => Ok(Some(folder.to_owned())),
            Err(why) => Err(Error::at("remove", folder)(why)),
        }
    }

    /// Moves environments of an earlier version, which lay in the root, to their place. Volumes of the engine know the
    /// old path, so it goes on to lead there.
    pub(super) fn take_old(&self) {
        for entry in std::fs::read_dir(&self.root).into_iter().flatten().flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            let is_id = name.to_str().is_some_and(|name| name.parse::<domain::ids::EnvironmentId>().is_ok());
            let Ok(kind) = entry.file_type() else { continue };
            if !is_id {
                continue;
            }
            if kind.is_symlink() && !path.exists() {
                let _ = std::fs::remove_file(&path);
            } else if kind.is_dir() {
                let moved = std::fs::rename(&path, self.environments().join(&name))
                    .and_then(|()| std::os::unix::fs::symlink(Path::new("environments").join(&name), &path));
                if let Err(why) = moved {
                    tracing::error!(environment = ?name, %why, "data of an earlier version cannot be moved to its place");
                }
            }
        }
    }

    /// What earlier calls that did not come to their end have left.
    pub(super) fn leftovers(&self) -> Vec<PathBuf> {
        let entries = [self.unfinished(), self.trash()].into_iter().filter_map(|folder| std::fs::read_dir(folder).ok());
        entries.flatten().flatten().map(|entry| entry.path()).collect()
    }
}
