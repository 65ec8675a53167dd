//! What lies in a folder, without what its ignore files leave out. Hashes of files that look as before are not taken again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

use domain::path::stays_within;
use ignore::WalkBuilder;
use proto::v1;
use ring::digest::{Context, SHA256};

use super::super::error::Error;

/// Read before `.gitignore`, with the same syntax.
const IGNORE: &str = ".musterignore";
/// Most entries; the host takes no more.
const MOST_ENTRIES: usize = 50_000;
/// Largest file in bytes; the host takes no larger one.
const MOST_BYTES: u64 = 512 << 20;

/// What a file looked like when it was hashed.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Look {
    bytes: u64,
    changed: Option<SystemTime>,
    hash: Vec<u8>,
}

/// Everything that lies there.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Listing {
    /// By path.
    pub entries: BTreeMap<String, v1::SyncEntry>,
    /// What is left out although no ignore file says so, and why.
    pub notices: BTreeSet<String>,
}

/// Lists a folder again and again.
#[derive(Debug)]
pub struct Scanner {
    folder: PathBuf,
    /// What of it is listed, relative to it.
    used: Vec<String>,
    looks: BTreeMap<String, Look>,
}

impl Scanner {
    /// Lists those files and folders of a folder, with what is in them.
    #[must_use]
    pub fn new(folder: &Path, used: &BTreeSet<String>) -> Self {
        Self { folder: folder.to_owned(), used: used.iter().cloned().collect(), looks: BTreeMap::new() }
    }

    /// Where they lie.
    pub fn places(&self) -> impl Iterator<Item = PathBuf> + '_ {
        self.used.iter().map(|used| self.folder.join(used))
    }

    /// Lists what lies there now. What goes away meanwhile is left out.
    ///
    /// # Errors
    /// `E_SYNC_LIMIT`, or one of the places cannot be read.
    pub fn list(&mut self) -> Result<Listing, Error> {
        let mut listing = Listing::default();
        let mut looks = BTreeMap::new();
        let mut places = self.places();
        let Some(first) = places.next() else { return Ok(listing) };
        let mut walk = WalkBuilder::new(&first);
        for place in places {
            walk.add(place);
        }
        walk.hidden(false).ignore(false).git_global(false).require_git(false).follow_links(false);
        walk.add_custom_ignore_filename(IGNORE).filter_entry(|entry| entry.file_name() != ".git");
        for entry in walk.build() {
            let entry = match entry {
                Ok(entry) => entry,
                // The places themselves must be there, what lies in them may have gone.
                Err(why) if why.depth() == Some(0) || why.depth().is_none() => {
                    return Err(Error::usage("E_SYNC_FOLDER", why.to_string()));
                }
                Err(_) => continue,
            };
            match self.entry(entry.path(), &mut looks) {
                Ok(Some(found)) => {
                    listing.entries.insert(found.path.clone(), found);
                }
                Ok(None) => {}
                Err(notice) => {
                    listing.notices.insert(notice);
                }
            }
            if listing.entries.len() > MOST_ENTRIES {
                let text = format!(
                    "more than {MOST_ENTRIES} files and folders are used of {}; name what is not needed in {IGNORE}",
                    self.folder.display()
                );
                return Err(Error::usage("E_SYNC_LIMIT", text));
            }
        }
        self.looks = looks;
        Ok(listing)
    }

    /// None: the folder itself, or it has gone.
    fn entry(&self, path: &Path, looks: &mut BTreeMap<String, Look>) -> Result<Option<v1::SyncEntry>, String> {
        let Some(name) = relative(&self.folder, path) else {
            return Err(format!("{} is left out: its name is no text", path.display()));
        };
        let Ok(about) = path.symlink_metadata() else { return Ok(None) };
        if name.is_empty() {
            return Ok(None);
        }
        let (uid, gid, mode) = rights(&about);
        let mut entry = v1::SyncEntry { path: name.clone(), mode, uid, gid, ..v1::SyncEntry::default() };
        if about.is_symlink() {
            let Ok(target) = path.read_link() else { return Ok(None) };
            let target = target.to_string_lossy().into_owned();
            if Path::new(&target).is_absolute() || !stays_within(&name, &target) {
                return Err(format!("{name} is left out: the link leads out of the folder, to {target}"));
            }
            entry.set_kind(v1::SyncKind::Link);
            entry.target = target;
        } else if about.is_dir() {
            entry.set_kind(v1::SyncKind::Folder);
        } else if about.is_file() {
            if about.len() > MOST_BYTES {
                return Err(format!("{name} is left out: it is larger than {} MiB", MOST_BYTES >> 20));
            }
            let Some(look) = self.look(&name, path, &about) else { return Ok(None) };
            entry.set_kind(v1::SyncKind::File);
            entry.bytes = look.bytes;
            entry.sha256.clone_from(&look.hash);
            looks.insert(name, look);
        } else {
            return Err(format!("{name} is left out: it is neither file, folder nor link"));
        }
        Ok(Some(entry))
    }

    fn look(&self, name: &str, path: &Path, about: &Metadata) -> Option<Look> {
        let (bytes, changed) = (about.len(), about.modified().ok());
        if let Some(look) = self.looks.get(name).filter(|look| look.bytes == bytes && look.changed == changed) {
            // Within the clock's grain a file can change twice and look the same.
            let settled = changed.and_then(|at| at.elapsed().ok()).is_some_and(|age| age.as_millis() > 50);
            if settled {
                return Some(look.clone());
            }
        }
        let (bytes, hash) = hash(path).ok()?;
        Some(Look { bytes, changed, hash })
    }
}

fn hash(path: &Path) -> io::Result<(u64, Vec<u8>)> {
    let mut file = File::open(path)?;
    let (mut digest, mut bytes) = (Context::new(&SHA256), 0_u64);
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok((bytes, digest.finish().as_ref().to_vec()));
        }
        digest.update(&buffer[..count]);
        bytes += count as u64;
    }
}

/// With `/`; none: not text.
fn relative(folder: &Path, path: &Path) -> Option<String> {
    let parts = path.strip_prefix(folder).ok()?.components().filter_map(|part| match part {
        Component::Normal(part) => Some(part.to_str()),
        _ => None,
    });
    parts.collect::<Option<Vec<_>>>().map(|parts| parts.join("/"))
}

#[cfg(unix)]
fn rights(about: &Metadata) -> (u32, u32, u32) {
    use std::os::unix::fs::MetadataExt as _;
    (about.uid(), about.gid(), about.mode() & 0o777)
}

#[cfg(not(unix))]
fn rights(about: &Metadata) -> (u32, u32, u32) {
    (1000, 1000, if about.is_dir() { 0o755 } else { 0o644 })
}

/// What changed from one listing to the next: what is new or other, and what is gone.
#[must_use]
pub fn changes(before: &Listing, after: &Listing) -> (Vec<v1::SyncEntry>, Vec<String>) {
    let new = after.entries.iter().filter(|(path, entry)| before.entries.get(*path) != Some(entry));
    let gone = before.entries.keys().filter(|path| !after.entries.contains_key(*path));
    (new.map(|(_, entry)| entry.clone()).collect(), gone.cloned().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(listing: &Listing) -> Vec<&str> {
        listing.entries.keys().map(String::as_str).collect()
    }

    #[test]
    fn ignored_files_and_what_nothing_uses_are_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        for path in ["src/deep", "src/.git", "src/node_modules", "other"] {
            std::fs::create_dir_all(at(path)).unwrap();
        }
        for path in [
            "src/a.py",
            "src/.hidden",
            "src/a.pyc",
            "src/node_modules/x",
            "src/.git/x",
            "src/deep/big.log",
            "other/x",
            "one.conf",
        ] {
            std::fs::write(at(path), path).unwrap();
        }
        std::fs::write(at(".gitignore"), "*.pyc\nnode_modules/\n").unwrap();
        std::fs::write(at("src/.musterignore"), "*.log\n").unwrap();
        let used = ["src".to_owned(), "one.conf".to_owned()].into();
        let listing = Scanner::new(folder.path(), &used).list().unwrap();
        assert_eq!(names(&listing), ["one.conf", "src", "src/.hidden", "src/.musterignore", "src/a.py", "src/deep"]);
        let entry = &listing.entries["src/a.py"];
        assert_eq!((entry.bytes, entry.sha256.len(), entry.kind()), (8, 32, v1::SyncKind::File));
        assert!(Scanner::new(folder.path(), &["missing".to_owned()].into()).list().is_err());
    }

    #[test]
    fn a_change_is_seen_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a", "b", "c"] {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        let mut scanner = Scanner::new(folder.path(), &[String::new()].into());
        let before = scanner.list().unwrap();
        assert_eq!(scanner.list().unwrap(), before);
        std::fs::write(folder.path().join("a"), "x").unwrap();
        std::fs::remove_file(folder.path().join("b")).unwrap();
        let after = scanner.list().unwrap();
        let (new, gone) = changes(&before, &after);
        assert_eq!((new.len(), new[0].path.as_str(), gone), (1, "a", vec!["b".to_owned()]));
    }

    #[cfg(unix)]
    #[test]
    fn links_that_lead_out_are_left_out_with_a_notice() {
        let folder = tempfile::tempdir().unwrap();
        for (name, target) in [("in", "sub"), ("out", "../x"), ("root", "/etc")] {
            std::os::unix::fs::symlink(target, folder.path().join(name)).unwrap();
        }
        let listing = Scanner::new(folder.path(), &[String::new()].into()).list().unwrap();
        assert_eq!(names(&listing), ["in"]);
        assert_eq!(listing.notices.len(), 2);
        assert!(listing.notices.iter().any(|notice| notice.contains("/etc")), "{:?}", listing.notices);
    }
}
