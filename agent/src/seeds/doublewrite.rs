//! InnoDB's doublewrite buffer: pages as they were when they were last written, whatever was masked since. It is read only
//! after a crash, to repair what was half written; after a clean stop it can be emptied.
//!
//! Where it lies is in the transaction system's page (`TRX_SYS_DOUBLEWRITE` in `trx0sys.h` of MariaDB; MySQL before 8.0.20
//! has it there too, later ones have files of their own).

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::sealed::folder_where;

/// The system tablespace.
const SPACE: &str = "ibdata1";
const PAGE_SIZES: [u64; 5] = [16 << 10, 4 << 10, 8 << 10, 32 << 10, 64 << 10];
/// Number of the page that tells where it is.
const PAGE: u64 = 5;
/// From that page's end back to the first of two copies of: magic number, page number of the first half, and of the second.
const FROM_END: u64 = 200 - 10;
const MAGIC: u32 = 536_853_855;

/// Empties that of a server that was stopped cleanly. False: there is none.
///
/// # Errors
/// The disk refuses.
pub(super) fn empty(volume: &Path) -> io::Result<bool> {
    let is_file = |folder: &Path| fs::symlink_metadata(folder.join(SPACE)).is_ok_and(|found| found.is_file());
    let Some(data) = folder_where(volume, &is_file) else { return Ok(false) };
    let file = File::options().read(true).write(true).open(data.join(SPACE))?;
    let length = file.metadata()?.len();
    for page in PAGE_SIZES.into_iter().filter(|page| (PAGE + 1) * page <= length) {
        let Some(halves) = halves(&file, page)? else { continue };
        // An extent each.
        let half = (1 << 20).max(64 * page);
        let zeros = vec![0; usize::try_from(half).map_err(io::Error::other)?];
        for begins in halves.map(|number| u64::from(number) * page) {
            if begins >= (PAGE + 1) * page && begins + half <= length {
                file.write_all_at(&zeros, begins)?;
            }
        }
        file.sync_all()?;
        return Ok(true);
    }
    Ok(false)
}

/// The first pages of both halves, if pages have this size.
fn halves(file: &File, page: u64) -> io::Result<Option<[u32; 2]>> {
    let mut bytes = [0; 24];
    file.read_exact_at(&mut bytes, (PAGE + 1) * page - FROM_END)?;
    let (first, second) = bytes.split_at(12);
    let number = |at: usize| u32::from_be_bytes([first[at], first[at + 1], first[at + 2], first[at + 3]]);
    Ok((first == second && number(0) == MAGIC).then(|| [number(4), number(8)]))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    const SIZE: usize = 16 << 10;

    /// 200 pages of one byte, with a page that says where the buffer is.
    fn data(folder: &Path, first: u32, second: u32) -> PathBuf {
        let mut bytes = vec![7; 200 * SIZE];
        let head: Vec<u8> = [MAGIC, first, second].iter().flat_map(|number| number.to_be_bytes()).collect();
        bytes[6 * SIZE - 190..6 * SIZE - 166].copy_from_slice(&[head.clone(), head].concat());
        let path = folder.join(SPACE);
        std::fs::write(&path, bytes).expect("written");
        path
    }

    #[test]
    fn both_halves_are_emptied_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let below = folder.path().join("mysql");
        std::fs::create_dir(&below).expect("made");
        let path = data(&below, 64, 128);
        let before = std::fs::read(&path).expect("read");
        assert!(empty(folder.path()).expect("emptied"));
        let after = std::fs::read(&path).expect("read");
        assert!(after[64 * SIZE..192 * SIZE].iter().all(|byte| *byte == 0));
        assert_eq!((&after[..64 * SIZE], &after[192 * SIZE..]), (&before[..64 * SIZE], &before[192 * SIZE..]));
    }

    #[test]
    fn what_says_nothing_or_something_impossible_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(!empty(folder.path()).expect("nothing there"));
        for (first, second) in [(0, 0), (5, 190), (u32::MAX, u32::MAX)] {
            let path = data(folder.path(), first, second);
            let before = std::fs::read(&path).expect("read");
            empty(folder.path()).expect("looked at");
            assert_eq!(std::fs::read(&path).expect("read"), before, "{first} {second}");
        }
        std::fs::write(folder.path().join(SPACE), vec![0; 100 * SIZE]).expect("written");
        assert!(!empty(folder.path()).expect("no magic number"));
    }
}
