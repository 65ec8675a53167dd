//! Backends whose clones are ordinary folders: files share their extents, or are copied.

use std::fs::File;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::backend::{Backend, Cloned, Kind, Usage};
use super::contents::Contents;
use super::error::{Error, Result};
use super::layout::Layout;
use super::{usage, walk};
use crate::files;

/// The kernel's number of XFS.
const XFS: i64 = 0x5846_5342;

/// Ordinary folders.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Folders {
    layout: Layout,
    contents: Contents,
}

impl Folders {
    /// Files that share their extents.
    #[must_use]
    pub fn sharing(layout: Layout) -> Self {
        Self { layout, contents: Contents::Shared }
    }

    /// Files that are copied.
    #[must_use]
    pub fn copying(layout: Layout) -> Self {
        Self { layout, contents: Contents::Copied }
    }

    /// Makes a clone that has no place yet.
    pub(super) fn prepare(&self, from: &Path, unfinished: &Path) -> Result<Cloned> {
        let cloned = walk::clone(from, unfinished, self.contents)?;
        // XFS writes its log in order: what makes the clone's new name durable makes all of it durable. Elsewhere, and
        // for bytes that were copied, the whole file system is written out, once.
        let ordered = self.contents == Contents::Shared && is(unfinished, XFS);
        if !ordered {
            self.sync(unfinished)?;
        }
        Ok(cloned)
    }
}

/// Whether a path lies on a file system of this kind.
pub(super) fn is(path: &Path, kind: i64) -> bool {
    // The number's type differs between machines; its value is the same everywhere.
    #[expect(clippy::useless_conversion, reason = "not on every machine")]
    rustix::fs::statfs(path).is_ok_and(|stat| i64::try_from(stat.f_type).is_ok_and(|found| found == kind))
}

/// As open as the engine makes its own volumes: a container's user must be able to enter. The pool itself is private.
pub(super) fn open_to_all(folder: &Path) -> Result<()> {
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder, mode).map_err(Error::at("open", folder))
}

impl Backend for Folders {
    fn kind(&self) -> Kind {
        match self.contents {
            Contents::Shared => Kind::Reflink,
            Contents::Copied => Kind::Copy,
        }
    }

    fn probe(&self) -> Result<()> {
        if self.contents == Contents::Copied {
            return Ok(());
        }
        let folder = self.layout.unfinished();
        let told = |why| Error::at("share extents in", &folder)(why);
        let (from, to) = (tempfile::tempfile_in(&folder).map_err(told)?, tempfile::tempfile_in(&folder).map_err(told)?);
        std::io::Write::write_all(&mut &from, &[7; 8192]).map_err(told)?;
        self.contents.fill(&from, &to, 8192).map_err(told)
    }

    fn create(&self, folder: &Path) -> Result<()> {
        self.layout.inside(folder)?;
        if let Some(parent) = folder.parent() {
            files::private_dir(parent).map_err(Error::at("make", parent))?;
        }
        std::fs::create_dir(folder).map_err(|why| match why.kind() {
            std::io::ErrorKind::AlreadyExists => Error::Exists { path: folder.to_owned() },
            _ => Error::at("make", folder)(why),
        })?;
        open_to_all(folder)
    }

    fn clone_tree(&self, from: &Path, to: &Path) -> Result<Cloned> {
        self.layout.inside(to)?;
        if to.symlink_metadata().is_ok() {
            return Err(Error::Exists { path: to.to_owned() });
        }
        let unfinished = Layout::fresh(&self.layout.unfinished())?;
        let made = self.prepare(from, &unfinished);
        made.and_then(|cloned| self.layout.commit(&unfinished, to).map(|()| cloned)).inspect_err(|_| {
            let _ = files::remove_all(&unfinished);
        })
    }

    fn remove(&self, folder: &Path) -> Result<()> {
        match self.layout.discard(folder)? {
            Some(trash) => files::remove_all(&trash).map_err(Error::at("remove", folder)),
            None => Ok(()),
        }
    }

    fn sweep(&self) -> Result<u64> {
        let found = self.layout.leftovers();
        for path in &found {
            files::remove_all(path).map_err(Error::at("remove", path))?;
        }
        Ok(found.len() as u64)
    }

    fn usage(&self, folder: &Path) -> Result<Usage> {
        usage::measure(folder, self.contents == Contents::Shared)
    }

    fn sync(&self, folder: &Path) -> Result<()> {
        let opened = File::open(folder).map_err(Error::at("open", folder))?;
        rustix::fs::syncfs(opened).map_err(Error::errno("write out", folder))
    }
}
