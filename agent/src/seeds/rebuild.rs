//! A seed's files made again: from what other seeds of this host hold already, and from chunks that come.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use proto::v1::SeedEntry;
use rustix::fs::{AtFlags, CWD, FallocateFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid};

use super::index::{Hash, Index, hash, kind, path};

/// A seed of this host from which bytes are taken.
#[derive(Debug)]
pub struct Base {
    folder: PathBuf,
    index: Index,
    /// One place of each chunk: the entry, and where it begins there.
    spots: BTreeMap<Hash, (usize, u64)>,
    names: BTreeMap<Vec<u8>, usize>,
}

impl Base {
    /// The seed whose volumes lie in `folder`.
    #[must_use]
    pub fn new(folder: PathBuf, index: Index) -> Self {
        let (mut spots, mut names) = (BTreeMap::new(), BTreeMap::new());
        for (number, entry) in index.entries().iter().enumerate() {
            if kind(entry) != FileType::RegularFile {
                continue;
            }
            names.insert(entry.path.clone(), number);
            for (begins, chunk) in index.spots(entry) {
                spots.entry(index.hash(chunk)).or_insert((number, begins));
            }
        }
        Self { folder, index, spots, names }
    }

    /// The file of the same name.
    fn file(&self, path: &[u8]) -> Option<&SeedEntry> {
        let entry = self.index.entries().get(*self.names.get(path)?)?;
        entry.same_as.is_empty().then_some(entry)
    }

    /// What a file of it holds where.
    fn holds(&self, entry: &SeedEntry) -> BTreeMap<u64, Hash> {
        self.index.spots(entry).map(|(begins, chunk)| (begins, self.index.hash(chunk))).collect()
    }

    /// The bytes of a chunk, if they are still what they were.
    fn read(&self, wanted: &Hash, length: usize) -> Option<Vec<u8>> {
        let (number, begins) = *self.spots.get(wanted)?;
        let file = open(&self.folder, self.index.entries().get(number)?, OFlags::RDONLY).ok()?;
        read(&file, wanted, begins, length)
    }
}

/// A file below `folder`, never through a link.
fn open(folder: &Path, entry: &SeedEntry, flags: OFlags) -> io::Result<File> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(folder.join(path(entry)), flags, Mode::empty())?.into())
}

fn read(file: &File, wanted: &Hash, begins: u64, length: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, begins).ok()?;
    (hash(&bytes) == *wanted).then_some(bytes)
}

/// A chunk that is lacking, and where it belongs: entries, and where it begins there.
pub type Lacking = BTreeMap<u32, Vec<(usize, u64)>>;

/// Bytes that are to be written, whatever comes over the network: what no base has at the same place.
#[must_use]
pub fn needs(index: &Index, bases: &[Base], shares: bool) -> u64 {
    let mut needs = 0;
    for entry in index.entries() {
        let base = bases.iter().find_map(|base| Some((base, base.file(&entry.path)?))).filter(|_| shares);
        let holds = base.map(|(base, entry)| base.holds(entry)).unwrap_or_default();
        for (begins, chunk) in index.spots(entry) {
            if holds.get(&begins) != Some(&index.hash(chunk)) {
                needs += index.length(chunk) as u64;
            }
        }
    }
    needs
}

/// Makes folders and files below `folder`, where volumes' own folders are already, and fills them with what `bases`
/// and an earlier attempt hold. Answers what is lacking.
///
/// # Errors
/// The disk refuses.
pub fn lay(index: &Index, folder: &Path, bases: &[Base]) -> io::Result<Lacking> {
    let mut lacking = Lacking::new();
    for (number, entry) in index.entries().iter().enumerate() {
        match kind(entry) {
            FileType::Directory => match std::fs::create_dir(folder.join(path(entry))) {
                Err(why) if why.kind() != io::ErrorKind::AlreadyExists => return Err(why),
                _ => {}
            },
            FileType::RegularFile if entry.same_as.is_empty() => {
                fill(index, folder, (number, entry), bases, &mut lacking)?;
            }
            _ => {}
        }
    }
    Ok(lacking)
}

fn fill(
    index: &Index,
    folder: &Path,
    (number, entry): (usize, &SeedEntry),
    bases: &[Base],
    lacking: &mut Lacking,
) -> io::Result<()> {
    let at = folder.join(path(entry));
    let fresh = File::options().read(true).write(true).create_new(true).mode(0o600).open(&at);
    let (file, again) = match fresh {
        Ok(file) => (file, false),
        Err(why) if why.kind() == io::ErrorKind::AlreadyExists => (open(folder, entry, OFlags::RDWR)?, true),
        Err(why) => return Err(why),
    };
    let holds = if again { BTreeMap::new() } else { shared(&file, entry, bases) };
    file.set_len(entry.length)?;
    let mut end = 0;
    for (begins, chunk) in index.spots(entry) {
        let (wanted, length) = (index.hash(chunk), index.length(chunk));
        if again || !holds.is_empty() {
            clear(&file, end, begins)?;
        }
        end = begins + length as u64;
        let there = holds.get(&begins) == Some(&wanted) || (again && read(&file, &wanted, begins, length).is_some());
        if there {
            continue;
        }
        match bases.iter().find_map(|base| base.read(&wanted, length)) {
            Some(bytes) => file.write_all_at(&bytes, begins)?,
            None => lacking.entry(chunk).or_default().push((number, begins)),
        }
    }
    if again || !holds.is_empty() {
        clear(&file, end, entry.length)?;
    }
    Ok(())
}

/// Begins a new file as a clone of the one of the same name, where the file system can. Answers what it holds then.
fn shared(file: &File, entry: &SeedEntry, bases: &[Base]) -> BTreeMap<u64, Hash> {
    for base in bases {
        let Some(same) = base.file(&entry.path) else { continue };
        let Ok(from) = open(&base.folder, same, OFlags::RDONLY) else { continue };
        if rustix::fs::ioctl_ficlone(file, &from).is_ok() {
            return base.holds(same);
        }
    }
    BTreeMap::new()
}

/// Makes a range zeros.
fn clear(file: &File, begin: u64, end: u64) -> io::Result<()> {
    if begin >= end {
        return Ok(());
    }
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    if rustix::fs::fallocate(file, flags, begin, end - begin).is_ok() {
        return Ok(());
    }
    let zeros = vec![0; 64 << 10];
    let mut at = begin;
    while at < end {
        let some = usize::try_from(end - at).unwrap_or(zeros.len()).min(zeros.len());
        file.write_all_at(&zeros[..some], at)?;
        at += some as u64;
    }
    Ok(())
}

/// Writes a chunk wherever it belongs.
///
/// # Errors
/// The disk refuses.
pub fn put(index: &Index, folder: &Path, spots: &[(usize, u64)], bytes: &[u8]) -> io::Result<()> {
    for (number, begins) in spots {
        let Some(entry) = index.entries().get(*number) else { continue };
        open(folder, entry, OFlags::WRONLY)?.write_all_at(bytes, *begins)?;
    }
    Ok(())
}

/// Makes what is left when all bytes are there: links, other names, owners, modes, times.
///
/// # Errors
/// The disk refuses.
pub fn finish(index: &Index, folder: &Path) -> io::Result<()> {
    for entry in index.entries() {
        let at = folder.join(path(entry));
        let fresh = match kind(entry) {
            FileType::Symlink => rustix::fs::symlink(entry.target.as_slice(), &at),
            FileType::RegularFile if !entry.same_as.is_empty() => {
                let first = SeedEntry { path: entry.same_as.clone(), ..SeedEntry::default() };
                rustix::fs::link(folder.join(path(&first)), &at)
            }
            special @ (FileType::Fifo | FileType::Socket) => {
                rustix::fs::mknodat(CWD, &at, special, Mode::RUSR | Mode::WUSR, 0)
            }
            _ => Ok(()),
        };
        match fresh {
            // Of an earlier attempt.
            Err(rustix::io::Errno::EXIST) => {}
            other => other?,
        }
    }
    // What lies in a folder is given its attributes before the folder is.
    for entry in index.entries().iter().rev() {
        give(entry, &folder.join(path(entry)))?;
    }
    Ok(())
}

fn give(entry: &SeedEntry, at: &Path) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    let not_followed = AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::chownat(CWD, at, Some(uid), Some(gid), not_followed)?;
    if kind(entry) != FileType::Symlink {
        rustix::fs::chmodat(CWD, at, Mode::from_raw_mode(entry.mode), AtFlags::empty())?;
    }
    let second = 1_000_000_000;
    let time = Timespec { tv_sec: entry.modified.div_euclid(second), tv_nsec: entry.modified.rem_euclid(second) };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(rustix::fs::utimensat(CWD, at, &times, not_followed)?)
}

#[cfg(test)]
mod tests;
