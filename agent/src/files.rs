//! Small files that must be whole or not there at all.

use std::fs::File;
use std::io;
use std::path::Path;

/// Makes what was created, renamed or removed in a folder durable.
///
/// # Errors
/// The folder cannot be opened or synced.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

pub use crate::job::files::{boot_id, private_dir, read_limited, remove_all, write_atomic};
