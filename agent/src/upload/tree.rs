//! The uploaded folder itself. Every path is opened beneath it, and no link is followed on the way.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;

use proto::v1;
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Uid};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::List;
use super::entry::{Entry, Kind};
use super::record::{Record, Written};

/// Name of a file while its content comes.
const TEMPORARY: &str = ".muster-upload";

/// The folder, and what was uploaded into it.
#[derive(Debug)]
pub(super) struct Tree {
    root: OwnedFd,
    record: Record,
    /// Files that are mounted by themselves: a container has the file, not its name.
    mounted: BTreeSet<String>,
}

/// A file whose content comes. What is dropped before it has its place leaves nothing.
#[derive(Debug)]
pub(super) struct Incoming {
    entry: Entry,
    bytes: u64,
    hash: String,
    folder: OwnedFd,
    file: File,
    digest: Sha256,
    written: u64,
    placed: bool,
}

fn text(why: Errno) -> String {
    io::Error::from(why).to_string()
}

fn seen(stat: &Stat) -> (u64, i64, u64) {
    #[expect(clippy::useless_conversion, reason = "the fields have other types elsewhere")]
    let nanoseconds = u64::try_from(stat.st_mtime_nsec).unwrap_or(0);
    (u64::try_from(stat.st_size).unwrap_or(0), stat.st_mtime, nanoseconds)
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

impl Tree {
    /// Opens the folder.
    pub fn open(root: &Path, record: Record, mounted: BTreeSet<String>) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, root, flags, Mode::empty())?;
        Ok(Self { root, record, mounted })
    }

    /// What was uploaded.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// What was uploaded, to be changed.
    pub fn record_mut(&mut self) -> &mut Record {
        &mut self.record
    }

    fn folder(&self, path: &str) -> Result<OwnedFd, Errno> {
        let inside = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat2(&self.root, if path.is_empty() { "." } else { path }, flags, Mode::empty(), inside)
    }

    /// The folder above a path; made as far as it is missing.
    fn above(&self, path: &str) -> Result<OwnedFd, Errno> {
        let (above, _) = split(path);
        match self.folder(above) {
            Err(Errno::NOENT) => {}
            other => return other,
        }
        let mut made = String::new();
        for part in above.split('/') {
            let below = self.folder(&made)?;
            match rustix::fs::mkdirat(&below, part, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(why) => return Err(why),
            }
            made = if made.is_empty() { part.to_owned() } else { format!("{made}/{part}") };
        }
        self.folder(above)
    }

    fn stat(&self, path: &str) -> Option<Stat> {
        let (above, name) = split(path);
        rustix::fs::statat(self.folder(above).ok()?, name, AtFlags::SYMLINK_NOFOLLOW).ok()
    }

    /// Does everything of a list that needs no content, and answers whose content is missing.
    pub fn begin(&mut self, list: List) -> (Vec<String>, v1::SyncDone) {
        let mut done = v1::SyncDone { problems: list.refused, ..v1::SyncDone::default() };
        let mut going: BTreeSet<String> = list.removed.into_iter().collect();
        let listed: std::collections::BTreeMap<&str, &Entry> =
            list.entries.iter().map(|entry| (entry.path.as_str(), entry)).collect();
        for (path, written) in &self.record.entries {
            let other =
                |entry: &&Entry| std::mem::discriminant(&entry.kind) != std::mem::discriminant(&written.entry.kind);
            let replaced = listed.get(path.as_str()).is_some_and(other);
            if replaced || (list.whole && !listed.contains_key(path.as_str())) {
                going.insert(path.clone());
            }
        }
        // What lies in a folder goes before it.
        for path in going.iter().rev() {
            match self.remove(path) {
                Ok(true) => done.removed += 1,
                Ok(false) => {}
                Err(why) => done.problems.push(format!("{path}: {why}")),
            }
        }
        let mut missing = Vec::new();
        let mut entries = list.entries;
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        for entry in entries {
            let path = entry.path.clone();
            match self.prepare(entry) {
                Ok(true) => missing.push(path),
                Ok(false) => {}
                Err(why) => done.problems.push(format!("{path}: {why}")),
            }
        }
        (missing, done)
    }

    /// Removes what was uploaded under that path. False: there was nothing of ours.
    fn remove(&mut self, path: &str) -> Result<bool, String> {
        let Some(written) = self.record.entries.get(path) else { return Ok(false) };
        let (above, name) = split(path);
        let flags = if written.entry.kind == Kind::Folder { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        let removed = self.folder(above).and_then(|folder| rustix::fs::unlinkat(folder, name, flags));
        match removed {
            // What a container has put into the folder, or in its place, stays.
            Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::NOTDIR | Errno::ISDIR | Errno::LOOP) => {
                self.record.entries.remove(path);
                Ok(removed.is_ok())
            }
            Err(why) => Err(text(why)),
        }
    }

    /// True: its content is missing.
    fn prepare(&mut self, entry: Entry) -> Result<bool, String> {
        let found = self.stat(&entry.path);
        let kind = found.as_ref().map(|stat| FileType::from_raw_mode(stat.st_mode));
        let before = self.record.entries.get(&entry.path);
        let mut fresh = true;
        match &entry.kind {
            Kind::File { .. } => {
                let same = before.is_some_and(|before| {
                    before.entry.kind == entry.kind && before.seen.is_some() && before.seen == found.as_ref().map(seen)
                });
                if !same || kind != Some(FileType::RegularFile) {
                    self.record.entries.insert(entry.path.clone(), Written { entry, seen: None });
                    return Ok(true);
                }
                fresh = false;
            }
            Kind::Folder if kind == Some(FileType::Directory) => fresh = false,
            Kind::Folder => self.make_folder(&entry, kind)?,
            Kind::Link { target } => {
                let (folder, (_, name)) = (self.above(&entry.path).map_err(text)?, split(&entry.path));
                let leads = rustix::fs::readlinkat(&folder, name, Vec::new()).ok();
                if leads.is_none_or(|leads| leads.as_bytes() != target.as_bytes()) {
                    rustix::fs::unlinkat(&folder, TEMPORARY, AtFlags::empty()).ok();
                    rustix::fs::symlinkat(target.as_str(), &folder, TEMPORARY).map_err(text)?;
                    rustix::fs::renameat(&folder, TEMPORARY, &folder, name).map_err(text)?;
                }
            }
        }
        let changed = before.is_none_or(|before| {
            (before.entry.mode, before.entry.uid, before.entry.gid) != (entry.mode, entry.uid, entry.gid)
        });
        if fresh || changed {
            self.rights(&entry).map_err(text)?;
        }
        let seen = self.stat(&entry.path).as_ref().map(seen);
        self.record.entries.insert(entry.path.clone(), Written { entry, seen });
        Ok(false)
    }

    fn make_folder(&self, entry: &Entry, there: Option<FileType>) -> Result<(), String> {
        let (folder, (_, name)) = (self.above(&entry.path).map_err(text)?, split(&entry.path));
        if there.is_some() {
            return Err("something else has its name in the environment".to_owned());
        }
        rustix::fs::mkdirat(folder, name, Mode::from_raw_mode(0o755)).map_err(text)
    }

    /// Mode and owner of what lies there; a link has an owner only.
    fn rights(&self, entry: &Entry) -> Result<(), Errno> {
        let (above, name) = split(&entry.path);
        let folder = self.folder(above)?;
        let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
        owner(rustix::fs::chownat(&folder, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW))?;
        if matches!(entry.kind, Kind::Link { .. }) {
            return Ok(());
        }
        let inside = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = rustix::fs::openat2(&folder, name, flags, Mode::empty(), inside)?;
        rustix::fs::fchmod(opened, Mode::from_raw_mode(entry.mode))
    }

    /// Begins with the content of a file that is missing.
    pub fn incoming(&self, path: &str) -> Result<Incoming, String> {
        let written = self.record.entries.get(path).ok_or("it is not listed")?;
        let Kind::File { bytes, hash } = &written.entry.kind else { return Err("it is no file".to_owned()) };
        let folder = self.above(path).map_err(text)?;
        // Of a round that broke off.
        rustix::fs::unlinkat(&folder, TEMPORARY, AtFlags::empty()).ok();
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&folder, TEMPORARY, flags, Mode::from_raw_mode(0o600)).map_err(text)?;
        Ok(Incoming {
            entry: written.entry.clone(),
            bytes: *bytes,
            hash: hash.clone(),
            folder,
            file: File::from(file),
            digest: Sha256::new(),
            written: 0,
            placed: false,
        })
    }

    /// Puts a file in its place, all of it at once. Answers its size.
    pub fn finish(&mut self, mut incoming: Incoming) -> Result<u64, String> {
        let digest = std::mem::take(&mut incoming.digest);
        if incoming.written != incoming.bytes || hex::encode(digest.finalize()) != incoming.hash {
            return Err("it changed while it was read".to_owned());
        }
        let stat = self.place(&incoming).map_err(text)?;
        incoming.placed = true;
        let entry = incoming.entry.clone();
        self.record.entries.insert(entry.path.clone(), Written { entry, seen: Some(seen(&stat)) });
        Ok(incoming.bytes)
    }

    fn place(&self, incoming: &Incoming) -> Result<Stat, Errno> {
        let Incoming { entry, folder, file, .. } = incoming;
        owner(rustix::fs::fchown(file, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid))))?;
        rustix::fs::fchmod(file, Mode::from_raw_mode(entry.mode))?;
        let (_, name) = split(&entry.path);
        if self.mounted.contains(&entry.path) && self.stat(&entry.path).is_some() {
            return overwrite(entry, folder, name, file);
        }
        rustix::fs::renameat(folder, TEMPORARY, folder, name)?;
        rustix::fs::fstat(file)
    }
}

/// Copies into the file that is there: a container that mounts it would not see another one.
fn overwrite(entry: &Entry, folder: &OwnedFd, name: &str, mut from: &File) -> Result<Stat, Errno> {
    let flags = OFlags::WRONLY | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut to = File::from(rustix::fs::openat(folder, name, flags, Mode::empty())?);
    let io = |why: io::Error| Errno::from_io_error(&why).unwrap_or(Errno::IO);
    io::Seek::rewind(&mut from).map_err(io)?;
    io::copy(&mut from, &mut to).map_err(io)?;
    rustix::fs::unlinkat(folder, TEMPORARY, AtFlags::empty())?;
    owner(rustix::fs::fchown(&to, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid))))?;
    rustix::fs::fchmod(&to, Mode::from_raw_mode(entry.mode))?;
    rustix::fs::fstat(&to)
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if !self.placed {
            rustix::fs::unlinkat(&self.folder, TEMPORARY, AtFlags::empty()).ok();
        }
    }
}

/// Without the right to give files away they stay the agent's own.
fn owner(given: Result<(), Errno>) -> Result<(), Errno> {
    match given {
        Err(Errno::PERM) => Ok(()),
        other => other,
    }
}

impl Incoming {
    /// A piece of its content.
    pub fn write(&mut self, piece: &[u8]) -> Result<(), String> {
        self.written += piece.len() as u64;
        self.digest.update(piece);
        let written = if self.written > self.bytes {
            Err("it changed while it was read".to_owned())
        } else {
            self.file.write_all(piece).map_err(|why| why.to_string())
        };
        if written.is_err() {
            // Nobody finishes it: a half must not stay.
            rustix::fs::unlinkat(&self.folder, TEMPORARY, AtFlags::empty()).ok();
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
    use std::path::PathBuf;

    struct Place {
        home: tempfile::TempDir,
        tree: Tree,
    }

    fn file(path: &str, content: &str) -> Entry {
        let hash = hex::encode(Sha256::digest(content));
        let kind = Kind::File { bytes: content.len() as u64, hash };
        let uid = rustix::process::getuid().as_raw();
        Entry { path: path.to_owned(), kind, mode: 0o640, uid, gid: rustix::process::getgid().as_raw() }
    }

    fn other(path: &str, kind: Kind) -> Entry {
        Entry { kind, mode: 0o755, ..file(path, "") }
    }

    impl Place {
        fn new() -> Self {
            let home = tempfile::tempdir().expect("a folder");
            let tree = Tree::open(home.path(), Record::default(), ["one.conf".to_owned()].into()).expect("opened");
            Self { home, tree }
        }

        fn at(&self, path: &str) -> PathBuf {
            self.home.path().join(path)
        }

        /// One round; answers what was wanted, and what could not be done.
        fn round(&mut self, entries: Vec<(Entry, &str)>, removed: &[&str], whole: bool) -> (Vec<String>, Vec<String>) {
            let contents: Vec<(String, String)> =
                entries.iter().map(|(entry, content)| (entry.path.clone(), (*content).to_owned())).collect();
            let list = List {
                entries: entries.into_iter().map(|(entry, _)| entry).collect(),
                removed: removed.iter().map(|path| (*path).to_owned()).collect(),
                whole,
                refused: Vec::new(),
            };
            let (missing, mut done) = self.tree.begin(list);
            for path in &missing {
                let content = &contents.iter().find(|(name, _)| name == path).expect("listed").1;
                let came = self.tree.incoming(path).and_then(|mut incoming| {
                    incoming.write(content.as_bytes())?;
                    self.tree.finish(incoming)
                });
                if let Err(why) = came {
                    done.problems.push(format!("{path}: {why}"));
                }
            }
            (missing, done.problems)
        }
    }

    #[test]
    fn only_what_differs_is_wanted_and_only_what_was_uploaded_is_removed() {
        let mut place = Place::new();
        let all = || {
            vec![(file("src/a.py", "a"), "a"), (file("src/deep/b.py", "b"), "b"), (other("empty", Kind::Folder), "")]
        };
        assert_eq!(place.round(all(), &[], true).0, ["src/a.py", "src/deep/b.py"]);
        assert_eq!(std::fs::read_to_string(place.at("src/deep/b.py")).expect("read"), "b");
        assert_eq!(std::fs::metadata(place.at("src/a.py")).expect("there").permissions().mode() & 0o777, 0o640);
        std::fs::write(place.at("src/made.pyc"), "made by a container").expect("written");
        assert_eq!(place.round(all(), &[], true), (vec![], vec![]));
        // Changed by a container: what the owner has holds.
        std::fs::write(place.at("src/a.py"), "other").expect("written");
        let changed = vec![(file("src/a.py", "a"), "a"), (file("src/c.py", "c"), "c")];
        assert_eq!(place.round(changed, &[], true).0, ["src/a.py", "src/c.py"]);
        assert!(!place.at("src/deep/b.py").exists() && !place.at("empty").exists());
        assert!(place.at("src/made.pyc").exists() && place.at("src/c.py").exists());
        place.round(Vec::new(), &["src/c.py", "src/made.pyc", "nothing"], false);
        assert!(!place.at("src/c.py").exists() && place.at("src/made.pyc").exists());
        let mode = Entry { mode: 0o755, ..file("src/a.py", "a") };
        assert_eq!(place.round(vec![(mode, "a")], &[], false), (vec![], vec![]));
        assert_eq!(std::fs::metadata(place.at("src/a.py")).expect("there").permissions().mode() & 0o777, 0o755);
    }

    #[test]
    fn links_that_containers_make_lead_nobody_out() {
        let mut place = Place::new();
        let outside = tempfile::tempdir().expect("a folder");
        std::fs::write(outside.path().join("x"), "untouched").expect("written");
        symlink(outside.path(), place.at("src")).expect("linked");
        symlink(outside.path().join("x"), place.at("x")).expect("linked");
        let (_, problems) = place.round(vec![(file("src/x", "evil"), "evil"), (file("x", "mine"), "mine")], &[], false);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(std::fs::read_to_string(outside.path().join("x")).expect("read"), "untouched");
        assert_eq!(std::fs::symlink_metadata(place.at("x")).expect("there").len(), 4, "replaced, not followed");
        let mode = Entry { mode: 0o777, ..other("src", Kind::Folder) };
        assert_eq!(place.round(vec![(mode, "")], &[], false).1.len(), 1);
    }

    #[test]
    fn a_kind_may_change_and_half_of_a_file_is_never_seen() {
        let mut place = Place::new();
        place.round(vec![(file("a", "1"), "1"), (other("b", Kind::Folder), ""), (file("b/c", "2"), "2")], &[], true);
        let link = other("link", Kind::Link { target: "b".to_owned() });
        let next = vec![(other("a", Kind::Folder), ""), (file("a/d", "3"), "3"), (file("b", "4"), "4"), (link, "")];
        assert_eq!(place.round(next, &[], true).1, Vec::<String>::new());
        assert_eq!(std::fs::read_to_string(place.at("b")).expect("read"), "4");
        assert_eq!(std::fs::read_link(place.at("link")).expect("a link"), PathBuf::from("b"));
        let (wanted, problems) = place.round(vec![(file("b", "new content"), "other content")], &[], false);
        assert_eq!((wanted.len(), problems.len()), (1, 1));
        assert_eq!(std::fs::read_to_string(place.at("b")).expect("read"), "4");
        assert!(!place.at(TEMPORARY).exists());
        // It was not written: it comes again.
        assert_eq!(place.round(vec![(file("b", "5"), "5")], &[], false).0, ["b"]);
    }

    #[test]
    fn a_file_that_is_mounted_by_itself_stays_the_same_file() {
        let mut place = Place::new();
        place.round(vec![(file("one.conf", "1"), "1"), (file("two.conf", "1"), "1")], &[], true);
        let inode = |place: &Place, name: &str| std::fs::metadata(place.at(name)).expect("there").ino();
        let (one, two) = (inode(&place, "one.conf"), inode(&place, "two.conf"));
        place.round(vec![(file("one.conf", "22"), "22"), (file("two.conf", "22"), "22")], &[], false);
        assert_eq!(std::fs::read_to_string(place.at("one.conf")).expect("read"), "22");
        assert_eq!(inode(&place, "one.conf"), one);
        assert_ne!(inode(&place, "two.conf"), two);
        assert_eq!(place.round(vec![(file("one.conf", "22"), "22")], &[], false).0, Vec::<String>::new());
    }
}
