//! What belongs to a file beside its content.

use std::ffi::{CStr, CString};
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::error::{Error, Result};

/// Longest list of names, and longest value: the kernel's own limits.
const LONGEST: usize = 64 << 10;

/// Owner, mode, times and extended attributes.
#[derive(Debug)]
pub struct Attributes {
    owner: Uid,
    group: Gid,
    mode: Mode,
    times: Timestamps,
    extended: Vec<(CString, Vec<u8>)>,
}

impl Attributes {
    /// Those of an open file or folder; `path` is for texts.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn read(file: impl AsFd, stat: &Stat, path: &Path) -> Result<Self> {
        let extended = extended(file.as_fd()).map_err(Error::errno("read extended attributes of", path))?;
        Ok(Self { extended, ..Self::of(stat) })
    }

    /// Those of what cannot be opened: a symbolic link.
    #[must_use]
    pub fn of(stat: &Stat) -> Self {
        Self {
            owner: Uid::from_raw(stat.st_uid),
            group: Gid::from_raw(stat.st_gid),
            mode: Mode::from_raw_mode(stat.st_mode),
            times: times(stat),
            extended: Vec::new(),
        }
    }

    /// Gives them to an open file or folder.
    ///
    /// # Errors
    /// The file system refuses one of them.
    pub fn give(&self, file: impl AsFd, path: &Path) -> Result<()> {
        let file = file.as_fd();
        let errno = |what| Error::errno(what, path);
        // The owner first: a change of it takes capabilities and set-id bits away.
        rustix::fs::fchown(file, Some(self.owner), Some(self.group)).map_err(errno("set the owner of"))?;
        for (name, value) in &self.extended {
            match rustix::fs::fsetxattr(file, name, value, XattrFlags::empty()) {
                // A label of the host's own policy, which gives new files one by itself.
                Err(_) if name.to_bytes() == b"security.selinux" => {}
                other => other.map_err(errno("set an extended attribute of"))?,
            }
        }
        rustix::fs::fchmod(file, self.mode).map_err(errno("set the mode of"))?;
        rustix::fs::futimens(file, &self.times).map_err(errno("set the times of"))
    }

    /// Gives owner and times to a symbolic link.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn give_link(&self, path: &Path) -> Result<()> {
        let errno = |what| Error::errno(what, path);
        let not_followed = AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::chownat(CWD, path, Some(self.owner), Some(self.group), not_followed)
            .map_err(errno("set the owner of"))?;
        rustix::fs::utimensat(CWD, path, &self.times, not_followed).map_err(errno("set the times of"))
    }
}

/// What kind of file it is.
#[must_use]
pub fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

fn times(stat: &Stat) -> Timestamps {
    let nanos = |of: u64| i64::try_from(of).unwrap_or(0);
    Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime, tv_nsec: nanos(stat.st_atime_nsec) },
        last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: nanos(stat.st_mtime_nsec) },
    }
}

fn extended(file: impl AsFd) -> std::result::Result<Vec<(CString, Vec<u8>)>, Errno> {
    let mut short = [0_u8; 512];
    let names = match rustix::fs::flistxattr(&file, &mut short[..]) {
        Ok(0) | Err(Errno::NOTSUP) => return Ok(Vec::new()),
        Ok(length) => short[..length].to_vec(),
        Err(Errno::RANGE) => {
            let mut long = vec![0_u8; LONGEST];
            let length = rustix::fs::flistxattr(&file, &mut long[..])?;
            long.truncate(length);
            long
        }
        Err(why) => return Err(why),
    };
    let mut found = Vec::new();
    for name in names.split_inclusive(|byte| *byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
        let mut value = vec![0_u8; LONGEST];
        match rustix::fs::fgetxattr(&file, name, &mut value[..]) {
            Ok(length) => value.truncate(length),
            // Taken away in between.
            Err(Errno::NODATA) => continue,
            Err(why) => return Err(why),
        }
        found.push((name.to_owned(), value));
    }
    Ok(found)
}
