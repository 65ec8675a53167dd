//! What lies in an uploaded folder, as its owner lists it: checked before anything is done with it.

use domain::path::stays_within;
use proto::v1;
use serde::{Deserialize, Serialize};

/// Largest file in bytes.
const MOST_BYTES: u64 = 512 << 20;
/// Longest path in bytes.
const MOST_PATH: usize = 2048;
/// How deep folders are nested.
const MOST_DEPTH: usize = 64;

/// What an entry is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum Kind {
    /// A file: its size and the SHA-256 of its content in hexadecimal digits.
    File { bytes: u64, hash: String },
    /// A folder.
    Folder,
    /// A link, and where it leads.
    Link { target: String },
}

/// One entry.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Entry {
    /// Relative, with `/`.
    pub path: String,
    /// What it is.
    pub kind: Kind,
    /// Permission bits; none that give rights to who runs it.
    pub mode: u32,
    /// Whose it is.
    pub uid: u32,
    /// And whose group's.
    pub gid: u32,
}

/// A relative path without `.`, `..` and empty parts. None: it leads out, or is no path of a folder's content.
pub(super) fn clean(path: &str) -> Option<String> {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" if path.starts_with('/') => return None,
            "" | "." => {}
            ".." => return None,
            part => parts.push(part),
        }
    }
    let fits = path.len() <= MOST_PATH && parts.len() <= MOST_DEPTH && !path.contains('\0');
    (fits && !parts.is_empty()).then(|| parts.join("/"))
}

/// Whether a link's target is one that is taken, and is within the folder.
fn leads_inside(path: &str, target: &str) -> bool {
    target.len() <= MOST_PATH && !target.contains('\0') && stays_within(path, target)
}

impl Entry {
    /// Reads what the owner lists.
    ///
    /// # Errors
    /// Why it is not taken, with its path.
    pub fn read(message: v1::SyncEntry) -> Result<Self, String> {
        let shown: String = message.path.chars().filter(|c| !c.is_control()).take(200).collect();
        let refused = |why: &str| Err(format!("{shown}: {why}"));
        if clean(&message.path).as_deref() != Some(message.path.as_str()) {
            return refused("no path within the folder");
        }
        let kind = match message.kind() {
            v1::SyncKind::File if message.bytes > MOST_BYTES => return refused("larger than 512 MiB"),
            v1::SyncKind::File if message.sha256.len() != 32 => return refused("without a hash"),
            v1::SyncKind::File => Kind::File { bytes: message.bytes, hash: hex::encode(&message.sha256) },
            v1::SyncKind::Folder => Kind::Folder,
            v1::SyncKind::Link if !leads_inside(&message.path, &message.target) => {
                return refused("the link leads out of the folder");
            }
            v1::SyncKind::Link => Kind::Link { target: message.target },
            v1::SyncKind::Unspecified => return refused("neither file, folder nor link"),
        };
        Ok(Self { path: message.path, kind, mode: message.mode & 0o777, uid: message.uid, gid: message.gid })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, kind: v1::SyncKind, target: &str) -> v1::SyncEntry {
        v1::SyncEntry {
            path: path.to_owned(),
            kind: kind.into(),
            mode: 0o104_755,
            sha256: vec![0; 32],
            target: target.to_owned(),
            ..v1::SyncEntry::default()
        }
    }

    #[test]
    fn only_paths_within_the_folder_are_taken() {
        for path in ["", ".", "..", "a/../b", "/etc/passwd", "a//b", "./a", "a/", "a/..", "a\0b", &"a/".repeat(100)] {
            assert!(Entry::read(entry(path, v1::SyncKind::File, "")).is_err(), "{path:?}");
        }
        let taken = Entry::read(entry("src/..a/b c", v1::SyncKind::File, "")).expect("a path");
        assert_eq!((taken.path.as_str(), taken.mode), ("src/..a/b c", 0o755), "nothing that gives rights");
        assert_eq!(clean("./src/").as_deref(), Some("src"));
        assert_eq!(clean("."), None);
    }

    #[test]
    fn links_stay_within_the_folder() {
        for (path, target) in [("a", "/etc"), ("a", ".."), ("d/a", "../../x"), ("a", ""), ("d/a", "x/../../../y")] {
            assert!(Entry::read(entry(path, v1::SyncKind::Link, target)).is_err(), "{path} -> {target}");
        }
        for (path, target) in [("a", "b"), ("d/a", "../b"), ("d/a", "./c/../b")] {
            assert!(Entry::read(entry(path, v1::SyncKind::Link, target)).is_ok(), "{path} -> {target}");
        }
    }

    #[test]
    fn what_is_too_large_or_of_no_kind_is_refused() {
        let large = v1::SyncEntry { bytes: MOST_BYTES + 1, ..entry("a", v1::SyncKind::File, "") };
        assert!(Entry::read(large).is_err());
        assert!(Entry::read(entry("a", v1::SyncKind::Unspecified, "")).is_err());
        assert!(Entry::read(v1::SyncEntry { sha256: vec![1], ..entry("a", v1::SyncKind::File, "") }).is_err());
    }
}
