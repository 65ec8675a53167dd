//! Small files that must be whole or not there at all.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Writes a file that only its owner reads: a temporary beside it, fsync, rename, fsync of the directory.
///
/// # Errors
/// Any step failed; the old file, if there was one, is then still whole.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> io::Result<()> {
    crate::failpoints::effect("file.write");
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let replaced = write_synced(temporary.as_ref(), bytes).and_then(|()| std::fs::rename(&temporary, path));
    if replaced.is_err() {
        // On a full disk half of it would take what room is left.
        let _ = std::fs::remove_file(&temporary);
    }
    replaced?;
    sync_parent(path)
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes a rename or removal in the file's directory durable.
///
/// # Errors
/// The directory cannot be opened or synced.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => Ok(()),
    }
}

/// Reads a file of at most `limit` bytes.
///
/// # Errors
/// It cannot be read, or is longer.
pub fn read_limited(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("longer than {limit} bytes")));
    }
    Ok(bytes)
}

/// Makes a directory, and those above it, that only its owner enters.
///
/// # Errors
/// It cannot be made.
pub fn private_dir(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Removes a file or a whole directory; what is not there is no error. Symbolic links are never followed.
///
/// # Errors
/// It is there and cannot be removed.
pub fn remove_all(path: &Path) -> io::Result<()> {
    let removed = match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The kernel's id of this boot; empty where it cannot be read.
#[must_use]
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|text| text.trim().to_owned()).unwrap_or_default()
}
