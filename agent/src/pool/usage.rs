//! Bytes of a folder, own and shared.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use fiemap::{Fiemap, FiemapExtentFlags as Flags};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::attributes::kind;
use super::backend::Usage;
use super::error::{Error, Result};
use super::threads::{self, Queue};

/// A folder: its parent and its name there.
type Task = (Option<Arc<OwnedFd>>, CString);

/// Bytes of the files below `folder`; `shares`: extents may belong to several files. What goes away meanwhile does
/// not count: databases are at work in there.
///
/// # Errors
/// It cannot be read.
pub fn measure(folder: &Path, shares: bool) -> Result<Usage> {
    let name = CString::new(folder.as_os_str().as_bytes()).unwrap_or_default();
    let total = Mutex::new(Usage::default());
    let seen = Mutex::new(BTreeSet::new());
    let told = |why| Error::errno("measure", folder)(why);
    threads::run((None, name), |(parent, name): Task, queue: &Queue<Task>| {
        let top = parent.is_none();
        let mut own = Usage::default();
        let opened = match open(parent.as_deref(), &name, OFlags::DIRECTORY) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) if !top => return Ok(()),
            other => Arc::new(other.map_err(told)?),
        };
        for entry in Dir::read_from(&opened).map_err(told)? {
            let entry = entry.map_err(told)?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let stat = match rustix::fs::statat(&opened, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => continue,
                other => other.map_err(told)?,
            };
            match kind(&stat) {
                FileType::Directory => queue.push((Some(Arc::clone(&opened)), name.to_owned())),
                FileType::RegularFile if stat.st_blocks > 0 => {
                    let again = stat.st_nlink > 1
                        && !seen.lock().unwrap_or_else(PoisonError::into_inner).insert((stat.st_dev, stat.st_ino));
                    if !again {
                        own += of_file(&opened, name, &stat, shares).map_err(told)?;
                    }
                }
                _ => {}
            }
        }
        *total.lock().unwrap_or_else(PoisonError::into_inner) += own;
        Ok(())
    })?;
    Ok(total.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn open(parent: Option<&OwnedFd>, name: &std::ffi::CStr, more: OFlags) -> std::result::Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | more;
    rustix::fs::openat(parent.map_or(CWD, |parent| parent.as_fd()), name, flags, Mode::empty())
}

fn of_file(parent: &OwnedFd, name: &std::ffi::CStr, stat: &Stat, shares: bool) -> std::result::Result<Usage, Errno> {
    let blocks = u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
    if !shares {
        return Ok(Usage { own_bytes: blocks, shared_bytes: 0 });
    }
    let opened = match open(Some(parent), name, OFlags::empty()) {
        Err(Errno::NOENT | Errno::LOOP) => return Ok(Usage::default()),
        other => other?,
    };
    let mut usage = Usage::default();
    for extent in Fiemap::new(opened) {
        let extent = extent.map_err(|why| Errno::from_io_error(&why).unwrap_or(Errno::IO))?;
        if extent.fe_flags.contains(Flags::SHARED) {
            usage.shared_bytes += extent.fe_length;
        } else if !extent.fe_flags.contains(Flags::DATA_INLINE) {
            usage.own_bytes += extent.fe_length;
        }
    }
    Ok(usage)
}
