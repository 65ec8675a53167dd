//! Reading sealed files: what they hold as a whole, and whether a value that must not be there is.

use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use aho_corasick::AhoCorasick;
use sha2::{Digest as _, Sha256};

/// Most canary values.
pub const MAX_CANARIES: usize = 10_000;
/// Shortest canary in bytes: a shorter one is found everywhere.
pub const SHORTEST: usize = 4;
/// Longest canary in bytes.
pub const LONGEST: usize = 1024;
const PIECE: usize = 1 << 20;

/// What a folder holds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tree {
    /// SHA-256 over names, kinds, modes, owners and contents, in the order of names.
    pub hash: String,
    /// Bytes of its files.
    pub bytes: u64,
    /// Its files.
    pub files: u64,
}

/// Values of which no byte sequence may be found.
#[derive(Debug)]
pub struct Canaries {
    search: AhoCorasick,
    /// Longest of them, in bytes.
    longest: usize,
    count: usize,
}

/// Where a canary was found. The value is not told: it is what must not be seen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Find {
    /// Which of the given values, from 1.
    pub number: usize,
    /// The file, below the folder.
    pub file: PathBuf,
    /// Where it ends in the file.
    pub offset: u64,
}

impl Canaries {
    /// Of these values.
    ///
    /// # Errors
    /// Too many, or one that is too short or too long.
    pub fn new(values: &[String]) -> Result<Self, String> {
        if values.len() > MAX_CANARIES {
            return Err(format!("{} canary values; at most {MAX_CANARIES} are looked for", values.len()));
        }
        if let Some(at) = values.iter().position(|value| !(SHORTEST..=LONGEST).contains(&value.len())) {
            return Err(format!("canary value {} is not {SHORTEST} to {LONGEST} bytes long", at + 1));
        }
        let search = AhoCorasick::new(values).map_err(|why| why.to_string())?;
        Ok(Self { search, longest: values.iter().map(String::len).max().unwrap_or(0), count: values.len() })
    }

    /// The number of a value that is in there, from 1.
    #[must_use]
    pub fn find(&self, bytes: &[u8]) -> Option<usize> {
        self.search.find(bytes).map(|found| found.pattern().as_usize() + 1)
    }

    /// Bytes of the longest.
    #[must_use]
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }
}

/// Sees everything that is read, in the order of names.
pub trait Sink {
    /// Something below the folder; `target` is where a symbolic link leads.
    fn entry(&mut self, path: &Path, meta: &Metadata, target: Option<&Path>);
    /// The next bytes of the file that was told last.
    fn data(&mut self, data: &[u8]);
    /// That was all of the file.
    fn end(&mut self);
}

struct Nobody;

impl Sink for Nobody {
    fn entry(&mut self, _path: &Path, _meta: &Metadata, _target: Option<&Path>) {}
    fn data(&mut self, _data: &[u8]) {}
    fn end(&mut self) {}
}

/// Reads everything below `folder`, once. Answers what it holds, or the first canary that was found. Blocks.
///
/// # Errors
/// A file cannot be read.
pub fn read(folder: &Path, canaries: &Canaries) -> io::Result<Result<Tree, Find>> {
    read_into(folder, canaries, &mut Nobody)
}

/// As [`read`], and shows everything to `sink`.
///
/// # Errors
/// As [`read`].
pub fn read_into(folder: &Path, canaries: &Canaries, sink: &mut dyn Sink) -> io::Result<Result<Tree, Find>> {
    let mut reading = Reading { hash: Sha256::new(), tree: Tree::default(), canaries, piece: vec![0; PIECE], sink };
    if let Some(find) = reading.folder(folder, Path::new(""))? {
        return Ok(Err(find));
    }
    let mut tree = reading.tree;
    tree.hash = hex::encode(reading.hash.finalize());
    Ok(Ok(tree))
}

struct Reading<'a> {
    hash: Sha256,
    tree: Tree,
    canaries: &'a Canaries,
    piece: Vec<u8>,
    sink: &'a mut dyn Sink,
}

impl Reading<'_> {
    fn folder(&mut self, root: &Path, below: &Path) -> io::Result<Option<Find>> {
        let mut entries: Vec<_> = std::fs::read_dir(root.join(below))?.collect::<Result<_, _>>()?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let path = below.join(entry.file_name());
            let meta = std::fs::symlink_metadata(root.join(&path))?;
            self.hash.update(path.as_os_str().as_bytes());
            self.hash.update([0]);
            for number in [meta.mode(), meta.uid(), meta.gid()] {
                self.hash.update(number.to_le_bytes());
            }
            if meta.is_symlink() {
                let target = std::fs::read_link(root.join(&path))?;
                self.sink.entry(&path, &meta, Some(&target));
                self.hash.update(target.as_os_str().as_bytes());
                continue;
            }
            self.sink.entry(&path, &meta, None);
            if meta.is_dir() {
                if let Some(find) = self.folder(root, &path)? {
                    return Ok(Some(find));
                }
            } else if meta.is_file()
                && let Some(find) = self.file(root, &path)?
            {
                return Ok(Some(find));
            }
        }
        Ok(None)
    }

    fn file(&mut self, root: &Path, path: &Path) -> io::Result<Option<Find>> {
        let mut file = File::open(root.join(path))?;
        let mut content = Sha256::new();
        let (mut kept, mut offset) = (0, 0_u64);
        loop {
            // The end of the piece before stays: a value may lie across the border.
            let read = file.read(&mut self.piece[kept..])?;
            if read == 0 {
                break;
            }
            content.update(&self.piece[kept..kept + read]);
            self.sink.data(&self.piece[kept..kept + read]);
            let seen = &self.piece[..kept + read];
            if self.canaries.count > 0
                && let Some(found) = self.canaries.search.find(seen)
            {
                let number = found.pattern().as_usize() + 1;
                let end = offset + found.end() as u64 - kept as u64;
                return Ok(Some(Find { number, file: path.to_owned(), offset: end }));
            }
            offset += read as u64;
            let keep = self.canaries.longest.saturating_sub(1).min(seen.len());
            let from = seen.len() - keep;
            self.piece.copy_within(from..from + keep, 0);
            kept = keep;
        }
        self.hash.update(offset.to_le_bytes());
        self.hash.update(content.finalize());
        self.sink.end();
        self.tree.files += 1;
        self.tree.bytes += offset;
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canaries(values: &[&str]) -> Canaries {
        Canaries::new(&values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>()).expect("good values")
    }

    #[test]
    fn a_value_is_found_wherever_it_lies_also_across_two_reads() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("base")).expect("made");
        let wanted = canaries(&["not there", "alice@example.com"]);
        for at in [0, 100, PIECE - 5, PIECE, 2 * PIECE - 16, 3 * PIECE - 17] {
            let mut content = vec![7; 3 * PIECE];
            content[at..at + 17].copy_from_slice(b"alice@example.com");
            std::fs::write(folder.path().join("base/1"), content).expect("written");
            let find = read(folder.path(), &wanted).expect("read").expect_err("found");
            assert_eq!((find.number, find.offset), (2, at as u64 + 17), "at {at}");
            assert_eq!(find.file, Path::new("base/1"));
        }
        std::fs::write(folder.path().join("base/1"), "alice@example.co").expect("written");
        let tree = read(folder.path(), &wanted).expect("read").expect("clean");
        assert_eq!((tree.files, tree.bytes), (1, 16));
    }

    #[test]
    fn the_hash_changes_with_any_name_mode_or_content_and_with_nothing_else() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a");
        let hash = || read(folder.path(), &canaries(&[])).expect("read").expect("clean").hash;
        std::fs::write(&path, "1").expect("written");
        let first = hash();
        std::fs::write(&path, "1").expect("written");
        assert_eq!(hash(), first);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("set");
        let mode = hash();
        assert_ne!(mode, first);
        std::fs::write(&path, "2").expect("written");
        assert_ne!(hash(), mode);
    }

    #[test]
    fn values_that_mean_nothing_are_refused_by_their_number() {
        let refused = Canaries::new(&["good value".to_owned(), "abc".to_owned()]).expect_err("too short");
        assert!(refused.contains("canary value 2") && !refused.contains("abc"));
    }
}
