//! What a seed's files are made of: chunks by their hash, with everything that the seal covers.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::Metadata;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use prost::Message as _;
use proto::v1::{SeedEntry, SeedExtent, SeedIndex};
use proto::{MAX_SEED_CHUNK, MAX_SEED_INDEX};
use rustix::fs::FileType;
use sha2::{Digest as _, Sha256};

use super::cutter::Cutter;
use super::scan::{self, Canaries, Sink};
use super::sealed::{Sealed, volume};
use crate::environments::failure::Failure;
use crate::files;

const FORMAT: u32 = 1;
/// Most entries.
const MOST: usize = 5_000_000;

/// SHA-256 of a chunk.
pub type Hash = [u8; 32];

/// Hash of some bytes.
#[must_use]
pub fn hash(bytes: &[u8]) -> Hash {
    Sha256::digest(bytes).into()
}

/// An index that holds together.
#[derive(Clone, PartialEq, Debug)]
pub struct Index {
    message: SeedIndex,
}

/// What kind of file an entry is.
#[must_use]
pub fn kind(entry: &SeedEntry) -> FileType {
    FileType::from_raw_mode(entry.mode)
}

/// Where an entry lies below the folder of volumes.
#[must_use]
pub fn path(entry: &SeedEntry) -> PathBuf {
    PathBuf::from(std::ffi::OsString::from_vec(entry.path.clone()))
}

impl Index {
    /// Reads what came from elsewhere: nothing in it leads out of the seed's own volumes.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(bytes: &[u8], volumes: &BTreeSet<&str>) -> Result<Self, String> {
        if bytes.len() > MAX_SEED_INDEX {
            return Err(format!("it has more than {MAX_SEED_INDEX} bytes"));
        }
        let message = SeedIndex::decode(bytes).map_err(|why| why.to_string())?;
        check(&message, volumes)?;
        Ok(Self { message })
    }

    /// As it travels.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.message.encode_to_vec()
    }

    /// Files, folders before what lies in them.
    #[must_use]
    pub fn entries(&self) -> &[SeedEntry] {
        &self.message.entries
    }

    /// The hash of a chunk.
    #[must_use]
    pub fn hash(&self, chunk: u32) -> Hash {
        let at = chunk as usize * 32;
        self.message.hashes.get(at..at + 32).and_then(|hash| hash.try_into().ok()).unwrap_or_default()
    }

    /// How long a chunk is, in bytes.
    #[must_use]
    pub fn length(&self, chunk: u32) -> usize {
        self.message.lengths.get(chunk as usize).map_or(0, |length| *length as usize)
    }

    /// The chunks of a file, each with where it begins.
    pub fn spots<'a>(&'a self, entry: &'a SeedEntry) -> impl Iterator<Item = (u64, u32)> + 'a {
        entry.extents.iter().flat_map(move |extent| {
            extent.chunks.iter().scan(extent.offset, move |at, chunk| {
                let begins = *at;
                *at += self.length(*chunk) as u64;
                Some((begins, *chunk))
            })
        })
    }

    /// All hashes, one after the other.
    #[must_use]
    pub fn hashes(&self) -> &[u8] {
        &self.message.hashes
    }

    /// The index of a seed of this host: the one that lies beside it, or a new one, for which everything is read.
    ///
    /// # Errors
    /// The files are not what was sealed, or cannot be read.
    pub fn of_seed(folder: &Path, sealed: &Sealed) -> Result<Self, Failure> {
        let volumes = sealed.parts.iter().map(|part| part.volume.as_str()).collect();
        if let Some(index) = kept(folder, &volumes) {
            return Ok(index);
        }
        let index = build(folder, sealed)?;
        if let Err(why) = index.keep(folder) {
            tracing::warn!(folder = %folder.display(), %why, "the index of a seed is made again next time");
        }
        Ok(index)
    }

    /// Writes it beside a seed.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn keep(&self, folder: &Path) -> io::Result<()> {
        let bytes = self.encode();
        files::write_atomic(&folder.join("index"), &[hash(&bytes).as_slice(), &bytes].concat())
    }
}

fn kept(folder: &Path, volumes: &BTreeSet<&str>) -> Option<Index> {
    let bytes = files::read_limited(&folder.join("index"), MAX_SEED_INDEX as u64 + 32).ok()?;
    let (told, bytes) = bytes.split_at_checked(32)?;
    if hash(bytes) != *told { None } else { Index::decode(bytes, volumes).ok() }
}

fn check(index: &SeedIndex, volumes: &BTreeSet<&str>) -> Result<(), String> {
    if index.format != FORMAT || index.hashes.len() != index.lengths.len() * 32 || index.entries.len() > MOST {
        return Err("its format is not known, or its parts do not fit".to_owned());
    }
    if index.lengths.iter().any(|length| *length == 0 || *length as usize > MAX_SEED_CHUNK) {
        return Err("a chunk has a length that none can have".to_owned());
    }
    let (mut folders, mut regular, mut all) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for entry in &index.entries {
        let wrong = |what: &str| format!("{} {what}", String::from_utf8_lossy(&entry.path));
        let parts: Vec<&[u8]> = entry.path.split(|byte| *byte == b'/').collect();
        if parts.iter().any(|part| matches!(*part, b"" | b"." | b"..") || part.contains(&0)) {
            return Err(wrong("is no path below a volume"));
        }
        let parent = &parts[..parts.len() - 1];
        let known = match parent {
            [] => std::str::from_utf8(&entry.path).is_ok_and(|name| volumes.contains(name)),
            _ => folders.contains(&parent.join(&b'/')),
        };
        if !known || !all.insert(&entry.path) {
            return Err(wrong("lies in no folder of the seed, or twice"));
        }
        match kind(entry) {
            FileType::Directory => {
                folders.insert(entry.path.clone());
            }
            FileType::Symlink | FileType::Fifo | FileType::Socket if !parent.is_empty() => {}
            FileType::RegularFile if !parent.is_empty() => {
                if !entry.same_as.is_empty() && !regular.contains(&entry.same_as) {
                    return Err(wrong("is another name of nothing"));
                }
                extents(index, entry).map_err(wrong)?;
                regular.insert(entry.path.clone());
            }
            _ => return Err(wrong("is of a kind that no seed has")),
        }
    }
    Ok(())
}

fn extents(index: &SeedIndex, entry: &SeedEntry) -> Result<(), &'static str> {
    let mut end = 0_u64;
    for extent in &entry.extents {
        if extent.offset < end {
            return Err("has chunks that overlap");
        }
        end = extent.offset;
        for chunk in &extent.chunks {
            let length = index.lengths.get(*chunk as usize).ok_or("names a chunk that there is not")?;
            end = end.checked_add(u64::from(*length)).ok_or("is too long")?;
        }
    }
    if end > entry.length || entry.length > i64::MAX.unsigned_abs() {
        Err("is shorter than its chunks")
    } else {
        Ok(())
    }
}

/// Reads all files of a seed.
fn build(folder: &Path, sealed: &Sealed) -> Result<Index, Failure> {
    let mut builder = Builder::default();
    let none = Canaries::new(&[]).map_err(|why| Failure::lasting("E_SEED_CANARY", why))?;
    for part in &sealed.parts {
        let from = volume(folder, &part.volume);
        let failed = |why: io::Error| Failure::passing("E_POOL", format!("{}: {why}", from.display()));
        builder.volume(&part.volume, &std::fs::symlink_metadata(&from).map_err(failed)?);
        let tree = scan::read_into(&from, &none, &mut builder).map_err(failed)?;
        if tree.is_ok_and(|tree| tree.hash != part.tree) {
            return Err(changed(&part.volume));
        }
    }
    Ok(Index { message: builder.index })
}

/// The seed is not what was sealed.
pub(super) fn changed(volume: &str) -> Failure {
    let text =
        format!("the volume {volume} of the seed holds other data than was sealed; remove the seed and make it again");
    Failure::lasting("E_SEED_DIGEST", text)
}

#[derive(Default)]
struct Builder {
    index: SeedIndex,
    numbers: BTreeMap<Hash, u32>,
    volume: Vec<u8>,
    cutter: Cutter,
    /// Files with several names: the first of them.
    first: BTreeMap<(u64, u64), Vec<u8>>,
    /// Where the last chunk of the file ends.
    end: u64,
}

impl Builder {
    fn volume(&mut self, name: &str, meta: &Metadata) {
        self.index.format = FORMAT;
        self.volume = name.as_bytes().to_vec();
        self.push(self.volume.clone(), meta, None);
    }

    fn push(&mut self, path: Vec<u8>, meta: &Metadata, target: Option<&Path>) {
        let mut entry = SeedEntry {
            path,
            mode: meta.mode(),
            uid: meta.uid(),
            gid: meta.gid(),
            modified: meta.mtime().saturating_mul(1_000_000_000).saturating_add(meta.mtime_nsec()),
            target: target.map(|target| target.as_os_str().as_bytes().to_vec()).unwrap_or_default(),
            length: if meta.is_file() { meta.len() } else { 0 },
            ..SeedEntry::default()
        };
        if meta.is_file() && meta.nlink() > 1 {
            match self.first.get(&(meta.dev(), meta.ino())) {
                Some(first) => entry.same_as.clone_from(first),
                None => {
                    self.first.insert((meta.dev(), meta.ino()), entry.path.clone());
                }
            }
        }
        self.end = u64::MAX;
        self.index.entries.push(entry);
    }

    /// Cuts, unless the bytes were seen under another name.
    fn cut(&mut self, work: impl FnOnce(&mut Cutter, &mut dyn FnMut(u64, &[u8]))) {
        let Self { index, numbers, cutter, end, .. } = self;
        let Some(entry) = index.entries.last_mut().filter(|entry| entry.same_as.is_empty()) else { return };
        let (hashes, lengths) = (&mut index.hashes, &mut index.lengths);
        work(cutter, &mut |offset, piece| {
            let hash = hash(piece);
            let number = *numbers.entry(hash).or_insert_with(|| {
                hashes.extend_from_slice(&hash);
                lengths.push(u32::try_from(piece.len()).unwrap_or(u32::MAX));
                u32::try_from(lengths.len() - 1).unwrap_or(u32::MAX)
            });
            match entry.extents.last_mut().filter(|_| *end == offset) {
                Some(extent) => extent.chunks.push(number),
                None => entry.extents.push(SeedExtent { offset, chunks: vec![number] }),
            }
            *end = offset + piece.len() as u64;
        });
    }
}

impl Sink for Builder {
    fn entry(&mut self, path: &Path, meta: &Metadata, target: Option<&Path>) {
        let path = [self.volume.as_slice(), b"/", path.as_os_str().as_bytes()].concat();
        self.push(path, meta, target);
    }

    fn data(&mut self, data: &[u8]) {
        self.cut(|cutter, mut emit| cutter.write(data, &mut emit));
    }

    fn end(&mut self) {
        self.cut(|cutter, mut emit| cutter.finish(&mut emit));
    }
}
