//! A folder made again in another place, by a few threads. The source belongs to whoever fills it, so names are
//! never followed through links and never looked up twice from the top; the new place is private to the agent.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};

use super::attributes::{Attributes, kind};
use super::backend::Cloned;
use super::contents::Contents;
use super::error::{Error, Result};
use super::threads::{self, Queue};

/// Most entries of one tree.
const LIMIT: u64 = 5_000_000;
/// Files that one thread takes at a time.
const BATCH: usize = 32;

/// Something to be made again.
enum Task {
    /// A folder: its parent, its name there, its new place.
    Folder(Option<Arc<OwnedFd>>, CString, PathBuf),
    /// Files of a folder, and the folder's new place.
    Files(Arc<OwnedFd>, Vec<CString>, PathBuf),
}

struct Walk<'a> {
    from: &'a Path,
    contents: Contents,
    /// What folders get when everything is in them: before, it would be changed by that.
    folders: Mutex<Vec<(PathBuf, Attributes)>>,
    /// Files with several names: where the first of them went.
    first: Mutex<BTreeMap<(u64, u64), PathBuf>>,
    /// The other names: the first one's place and the new one.
    links: Mutex<Vec<(PathBuf, PathBuf)>>,
    files: AtomicU64,
    skipped: AtomicU64,
    entries: AtomicU64,
}

/// Makes the folder `from` again as `to`, which is not there, or empty.
///
/// # Errors
/// Something cannot be read or made; what was made already is left to the caller.
pub fn clone(from: &Path, to: &Path, contents: Contents) -> Result<Cloned> {
    let walk = Walk {
        from,
        contents,
        folders: Mutex::default(),
        first: Mutex::default(),
        links: Mutex::default(),
        files: AtomicU64::new(0),
        skipped: AtomicU64::new(0),
        entries: AtomicU64::new(0),
    };
    let name = CString::new(from.as_os_str().as_bytes()).unwrap_or_default();
    threads::run(Task::Folder(None, name, to.to_owned()), |task, queue| walk.make(task, queue))?;
    walk.finish()
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Walk<'_> {
    fn make(&self, task: Task, queue: &Queue<Task>) -> Result<()> {
        match task {
            Task::Folder(parent, name, to) => self.folder(parent.as_deref(), &name, to, queue),
            Task::Files(parent, names, to) => names.iter().try_for_each(|name| self.file(&parent, name, &to)),
        }
    }

    fn folder(&self, parent: Option<&OwnedFd>, name: &CStr, to: PathBuf, queue: &Queue<Task>) -> Result<()> {
        let read = |what| Error::errno(what, self.from);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let at = parent.map_or(CWD, |parent| parent.as_fd());
        let opened = Arc::new(rustix::fs::openat(at, name, flags, Mode::empty()).map_err(read("open a folder of"))?);
        let stat = rustix::fs::fstat(&opened).map_err(read("read a folder of"))?;
        match std::fs::DirBuilder::new().mode(0o700).create(&to) {
            // The top may be made before, as something else than a plain folder.
            Err(why) if why.kind() == std::io::ErrorKind::AlreadyExists && parent.is_none() => {}
            other => other.map_err(Error::at("make", &to))?,
        }
        lock(&self.folders).push((to.clone(), Attributes::read(&opened, &stat, self.from)?));
        let mut files = Vec::new();
        for entry in Dir::read_from(&opened).map_err(read("list"))? {
            let entry = entry.map_err(read("list"))?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            if self.entries.fetch_add(1, Relaxed) >= LIMIT {
                return Err(Error::TooMany { path: self.from.to_owned(), limit: LIMIT });
            }
            let kind = match entry.file_type() {
                FileType::Unknown => kind(
                    &rustix::fs::statat(&opened, name, AtFlags::SYMLINK_NOFOLLOW).map_err(read("read a file of"))?,
                ),
                known => known,
            };
            if kind == FileType::Directory {
                let to = to.join(OsStr::from_bytes(name.to_bytes()));
                queue.push(Task::Folder(Some(Arc::clone(&opened)), name.to_owned(), to));
            } else {
                files.push(name.to_owned());
            }
            if files.len() == BATCH {
                queue.push(Task::Files(Arc::clone(&opened), std::mem::take(&mut files), to.clone()));
            }
        }
        if !files.is_empty() {
            queue.push(Task::Files(opened, files, to));
        }
        Ok(())
    }

    fn file(&self, parent: &OwnedFd, name: &CStr, folder: &Path) -> Result<()> {
        let to = folder.join(OsStr::from_bytes(name.to_bytes()));
        let read = |what| Error::errno(what, self.from);
        let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(read("read a file of"))?;
        match kind(&stat) {
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(parent, name, Vec::new()).map_err(read("read a link of"))?;
                rustix::fs::symlink(&target, &to).map_err(Error::errno("make", &to))?;
                Attributes::of(&stat).give_link(&to)?;
                self.files.fetch_add(1, Relaxed);
                Ok(())
            }
            FileType::RegularFile => {
                self.files.fetch_add(1, Relaxed);
                self.regular(parent, name, to)
            }
            _ => {
                self.skipped.fetch_add(1, Relaxed);
                Ok(())
            }
        }
    }

    fn regular(&self, parent: &OwnedFd, name: &CStr, to: PathBuf) -> Result<()> {
        let read = |what| Error::errno(what, self.from);
        // Not blocking: the name may have become a pipe since it was looked at.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(read("open a file of"))?;
        let stat = rustix::fs::fstat(&opened).map_err(read("read a file of"))?;
        if kind(&stat) != FileType::RegularFile {
            self.skipped.fetch_add(1, Relaxed);
            return Ok(());
        }
        if stat.st_nlink > 1 {
            let mut first = lock(&self.first);
            if let Some(first) = first.get(&(stat.st_dev, stat.st_ino)) {
                lock(&self.links).push((first.clone(), to));
                return Ok(());
            }
            first.insert((stat.st_dev, stat.st_ino), to.clone());
        }
        let attributes = Attributes::read(&opened, &stat, self.from)?;
        let opened = File::from(opened);
        let made = File::options().read(true).write(true).create_new(true).mode(0o600).open(&to);
        let made = made.map_err(Error::at("make", &to))?;
        let length = u64::try_from(stat.st_size).unwrap_or(0);
        self.contents.fill(&opened, &made, length).map_err(Error::at("clone", &to))?;
        attributes.give(&made, &to)
    }

    fn finish(self) -> Result<Cloned> {
        for (first, other) in self.links.into_inner().unwrap_or_else(PoisonError::into_inner) {
            rustix::fs::link(&first, &other).map_err(Error::errno("make", &other))?;
        }
        let folders = self.folders.into_inner().unwrap_or_else(PoisonError::into_inner);
        for (path, attributes) in &folders {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let opened = rustix::fs::open(path, flags, Mode::empty()).map_err(Error::errno("open", path))?;
            attributes.give(opened, path)?;
        }
        Ok(Cloned { files: self.files.into_inner(), folders: folders.len() as u64, skipped: self.skipped.into_inner() })
    }
}
