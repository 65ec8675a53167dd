//! Which files a pattern names. Nothing here follows a symbolic link: the tests' container may have left some.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};

/// Files of one pattern that are read.
const FILES: usize = 1000;
/// Entries that are looked at for one pattern.
const ENTRIES: usize = 500_000;
/// Folders within folders.
const DEPTH: usize = 32;

/// The text is not a pattern of files below the checkout.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a pattern of files in the checkout: {why}")]
pub struct PatternError {
    /// What was given.
    pub text: String,
    /// What is wrong.
    pub why: &'static str,
}

/// A pattern such as `reports/*.xml` or `**/TEST-*.xml`, relative to the checkout.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pattern {
    parts: Vec<String>,
}

/// What a pattern names at this moment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Found {
    /// Paths relative to the root, sorted.
    pub files: Vec<String>,
    /// There were more than are listed.
    pub cut: bool,
}

/// What lay there before the tests ran: reports that came with the commit say nothing about this run.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Snapshot {
    files: BTreeMap<String, (u64, u64, i64, i64)>,
}

impl Pattern {
    /// Reads a pattern: `*` and `?` within a name, `**` for any folders.
    ///
    /// # Errors
    /// It is empty, absolute, leaves the checkout, or is too long.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let bad = |why| PatternError { text: text.chars().take(80).collect(), why };
        if text.is_empty() || text.len() > 1024 || text.contains('\0') {
            return Err(bad("write 1 to 1024 characters"));
        }
        if text.starts_with('/') {
            return Err(bad("it must be relative"));
        }
        let parts: Vec<String> =
            text.split('/').filter(|part| !part.is_empty() && *part != ".").map(str::to_owned).collect();
        if parts.is_empty() || parts.len() > DEPTH {
            return Err(bad("it has no name, or too many folders"));
        }
        if parts.iter().any(|part| part == "..") {
            return Err(bad("it leaves the checkout"));
        }
        Ok(Self { parts })
    }

    /// The folders (or the file) before the first wildcard: all it can name lies below. Empty: the root itself.
    #[must_use]
    pub fn prefix(&self) -> String {
        let fixed = self.parts.iter().take_while(|part| !part.contains(['*', '?'])).count();
        self.parts[..fixed.min(self.parts.len() - 1)].join("/")
    }

    /// Whether it names a path that is relative to the root.
    #[must_use]
    pub fn names(&self, path: &str) -> bool {
        let path: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
        let parts: Vec<&str> = self.parts.iter().map(String::as_str).collect();
        path.len() <= DEPTH * 2 && !path.contains(&"..") && names(&parts, &path)
    }

    /// Regular files below `root` that it names.
    #[must_use]
    pub fn find(&self, root: &Path) -> Found {
        let mut walk = Walk { found: Found::default(), looked: 0 };
        let parts: Vec<&str> = self.parts.iter().map(String::as_str).collect();
        walk.folder(root, "", &parts, 0);
        walk.found.files.sort();
        walk.found.files.dedup();
        walk.found
    }

    /// What it names now, to be left out later unless it was changed.
    #[must_use]
    pub fn snapshot(&self, root: &Path) -> Snapshot {
        let files = self.find(root).files;
        Snapshot { files: files.into_iter().filter_map(|name| Some((name.clone(), state(root, &name)?))).collect() }
    }

    /// What it names that is new or was changed since the snapshot.
    #[must_use]
    pub fn find_new(&self, root: &Path, before: &Snapshot) -> Found {
        let mut found = self.find(root);
        found.files.retain(|name| match before.files.get(name) {
            Some(old) => state(root, name).as_ref() != Some(old),
            None => true,
        });
        found
    }
}

fn state(root: &Path, name: &str) -> Option<(u64, u64, i64, i64)> {
    let meta = std::fs::symlink_metadata(root.join(name)).ok()?;
    Some((meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec()))
}

struct Walk {
    found: Found,
    looked: usize,
}

impl Walk {
    fn folder(&mut self, folder: &Path, prefix: &str, parts: &[&str], depth: usize) {
        let Some((first, rest)) = parts.split_first() else { return };
        if *first == "**" {
            self.folder(folder, prefix, rest, depth);
        }
        let Ok(entries) = std::fs::read_dir(folder) else { return };
        for entry in entries.flatten() {
            self.looked += 1;
            if self.looked > ENTRIES || depth > DEPTH || self.found.files.len() >= FILES {
                self.found.cut = true;
                return;
            }
            // The entry's own type: a link is neither a file nor a folder.
            let (Ok(kind), Some(name)) = (entry.file_type(), entry.file_name().to_str().map(str::to_owned)) else {
                continue;
            };
            let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}/{name}") };
            match (*first, kind.is_dir()) {
                ("**", true) if name != ".git" => self.folder(&entry.path(), &path, parts, depth + 1),
                ("**", _) => {}
                (pattern, _) if !matches(pattern.as_bytes(), name.as_bytes()) => {}
                (_, true) => self.folder(&entry.path(), &path, rest, depth + 1),
                (_, false) if rest.is_empty() && kind.is_file() => self.found.files.push(path),
                (_, false) => {}
            }
        }
    }
}

/// A table over suffixes: many `**` cost no more than their product with the path's length.
fn names(parts: &[&str], path: &[&str]) -> bool {
    let mut reachable = vec![false; path.len() + 1];
    reachable[0] = true;
    for part in parts {
        let mut next = vec![false; path.len() + 1];
        for at in 0..=path.len() {
            if *part == "**" {
                next[at] = reachable[at] || (at > 0 && next[at - 1]);
            } else if at > 0 {
                next[at] = reachable[at - 1] && matches(part.as_bytes(), path[at - 1].as_bytes());
            }
        }
        reachable = next;
    }
    reachable[path.len()]
}

/// `*` and `?` within one name; linear, by going back to the last star only.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, n));
                p += 1;
            }
            Some(b'?') => (p, n) = (p + 1, n + 1),
            Some(byte) if *byte == name[n] => (p, n) = (p + 1, n + 1),
            _ => match &mut star {
                Some((after, from)) => {
                    *from += 1;
                    (p, n) = (*after, *from);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// Opens a regular file below `root`; no part of its path may be a link, not even one made this instant.
pub(super) fn open(root: &Path, name: &str) -> io::Result<File> {
    let folder = File::open(root)?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = File::from(rustix::fs::openat2(folder, name, flags, Mode::empty(), resolve)?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(names: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for name in names {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }
        root
    }

    #[test]
    fn patterns_name_files_of_the_checkout_only() {
        let root = tree(&["a.xml", "reports/b.xml", "reports/c.txt", "reports/deep/d.xml", "x/y/z/TEST-e.xml"]);
        std::os::unix::fs::symlink("/etc/passwd", root.path().join("reports/evil.xml")).unwrap();
        std::os::unix::fs::symlink("/etc", root.path().join("etc")).unwrap();
        let found = |text: &str| Pattern::parse(text).unwrap().find(root.path()).files.join(" ");
        assert_eq!(found("*.xml"), "a.xml");
        assert_eq!(found("reports/*.xml"), "reports/b.xml");
        assert_eq!(found("./reports//?.xml"), "reports/b.xml");
        assert_eq!(found("**/*.xml"), "a.xml reports/b.xml reports/deep/d.xml x/y/z/TEST-e.xml");
        assert_eq!(found("**/TEST-*.xml"), "x/y/z/TEST-e.xml");
        assert_eq!(found("x/**/TEST-*.xml"), "x/y/z/TEST-e.xml");
        assert_eq!(found("reports"), "");
        assert_eq!(found("etc/*"), "");
        assert!(open(root.path(), "etc/passwd").is_err() && open(root.path(), "reports/evil.xml").is_err());
        assert!(open(root.path(), "reports/b.xml").is_ok());
    }

    #[test]
    fn patterns_that_leave_the_checkout_are_refused() {
        for text in ["", "/etc/*.xml", "../*.xml", "a/../../b", "./", &"a/".repeat(200), "a\0b"] {
            assert!(Pattern::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn paths_are_named_by_the_same_rules() {
        let names = |pattern: &str, path: &str| Pattern::parse(pattern).unwrap().names(path);
        assert!(names("reports/*.xml", "reports/a.xml") && names("reports/*.xml", "./reports/a.xml"));
        assert!(!names("reports/*.xml", "reports/b/a.xml") && !names("reports/*.xml", "x/reports/a.xml"));
        assert!(names("**/*.xml", "a.xml") && names("**/*.xml", "x/y/a.xml") && names("x/**/a.xml", "x/a.xml"));
        assert!(!names("x/**/a.xml", "a.xml") && !names("**", "../a"));
        let prefix = |pattern: &str| Pattern::parse(pattern).unwrap().prefix();
        assert_eq!(
            [prefix("reports/*.xml"), prefix("a/b/c.xml"), prefix("**/x"), prefix("x.xml")],
            ["reports", "a/b", "", ""]
        );
    }

    #[test]
    fn many_stars_do_not_cost_exponential_time() {
        assert!(!matches(&b"*a".repeat(400), &[b'a'; 399]));
        assert!(matches(b"a*b?c*", b"a--bxc"));
    }

    #[test]
    fn reports_that_came_with_the_commit_are_left_out_unless_written_again() {
        let root = tree(&["reports/old.xml", "reports/again.xml"]);
        let pattern = Pattern::parse("reports/*.xml").unwrap();
        let before = pattern.snapshot(root.path());
        std::fs::write(root.path().join("reports/again.xml"), "longer").unwrap();
        std::fs::write(root.path().join("reports/new.xml"), "x").unwrap();
        assert_eq!(pattern.find_new(root.path(), &before).files, ["reports/again.xml", "reports/new.xml"]);
    }
}
