//! Small files that must be whole or not there at all.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::fs::FlockOperation;
use rustix::io::Errno;

/// How often a lock is asked for. A program that its owner was starting when that was killed has the lock until it runs.
const TRIES: u32 = 50;
/// Between two of them.
const PAUSE: Duration = Duration::from_millis(20);

/// Locks a file for as long as it is open; false: another process has it, also a second later.
///
/// # Errors
/// The file system has no locks.
pub fn lock(file: &File) -> io::Result<bool> {
    for _ in 0..TRIES {
        match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => std::thread::sleep(PAUSE),
            other => return Ok(other.map(|()| true)?),
        }
    }
    Ok(false)
}

/// Makes what was created, renamed or removed in a folder durable.
///
/// # Errors
/// The folder cannot be opened or synced.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

pub use crate::job::files::{boot_id, private_dir, read_limited, remove_all, write_atomic};
