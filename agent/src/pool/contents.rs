//! How a file gets the content of another.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use rustix::fs::{IFlags, SeekFrom};
use rustix::io::Errno;

/// How a file gets the content of another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Contents {
    /// By sharing its extents; never by copying in silence.
    Shared,
    /// By copying what is not a hole.
    Copied,
}

/// Most bytes of one call: the kernel may take the disk's time for each.
const PIECE: usize = 64 << 20;
/// Bytes of a piece that goes through this process.
const BUFFER: usize = 1 << 20;

impl Contents {
    /// Fills the empty file `to` with what is in `from`, `length` bytes.
    ///
    /// # Errors
    /// The file system refuses, or cannot share extents.
    pub fn fill(self, from: &File, to: &File, length: u64) -> io::Result<()> {
        match self {
            Self::Shared => share(from, to),
            Self::Copied => copy(from, to, length),
        }
    }
}

fn share(from: &File, to: &File) -> io::Result<()> {
    match rustix::fs::ioctl_ficlone(to, from) {
        // btrfs shares only among files that are alike in being written in place or not.
        Err(Errno::INVAL) => {
            let flags = rustix::fs::ioctl_getflags(from)?;
            if !flags.contains(IFlags::NOCOW) {
                return Err(Errno::INVAL.into());
            }
            rustix::fs::ioctl_setflags(to, rustix::fs::ioctl_getflags(to)? | IFlags::NOCOW)?;
            Ok(rustix::fs::ioctl_ficlone(to, from)?)
        }
        other => Ok(other?),
    }
}

fn copy(from: &File, to: &File, length: u64) -> io::Result<()> {
    to.set_len(length)?;
    let mut at = 0;
    while at < length {
        let begin = match rustix::fs::seek(from, SeekFrom::Data(at)) {
            Ok(begin) => begin.min(length),
            // Nothing but a hole is left.
            Err(Errno::NXIO) => break,
            // A file system that knows no holes.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => at,
            Err(why) => return Err(why.into()),
        };
        let end = rustix::fs::seek(from, SeekFrom::Hole(begin)).unwrap_or(length).clamp(begin, length);
        if begin == end {
            break;
        }
        copy_range(from, to, begin, end)?;
        at = end;
    }
    Ok(())
}

fn copy_range(from: &File, to: &File, begin: u64, end: u64) -> io::Result<()> {
    let mut at = begin;
    while at < end {
        let (mut read, mut write) = (at, at);
        let piece = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
        match rustix::fs::copy_file_range(from, Some(&mut read), to, Some(&mut write), piece) {
            // It became shorter meanwhile.
            Ok(0) => return Ok(()),
            Ok(done) => at += done as u64,
            Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL) => return through(from, to, at, end),
            Err(why) => return Err(why.into()),
        }
    }
    Ok(())
}

/// Where the kernel does not copy by itself: between some file systems.
fn through(from: &File, to: &File, begin: u64, end: u64) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    let mut at = begin;
    while at < end {
        let piece = usize::try_from(end - at).unwrap_or(BUFFER).min(BUFFER);
        let read = from.read_at(&mut buffer[..piece], at)?;
        if read == 0 {
            return Ok(());
        }
        to.write_all_at(&buffer[..read], at)?;
        at += read as u64;
    }
    Ok(())
}
