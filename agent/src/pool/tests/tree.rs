//! Trees of files for tests, and everything that can be said about one.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, Timespec, Timestamps, XattrFlags};
use sha2::{Digest as _, Sha256};

/// A tree with everything in it that a clone must keep, and what it must leave out.
pub fn make(root: &Path) {
    let write = |path: &str, text: &[u8]| std::fs::write(root.join(path), text).expect("written");
    std::fs::create_dir_all(root.join("base/1/deep")).expect("made");
    std::fs::create_dir(root.join("empty")).expect("made");
    write("base/1/2601", &vec![3; 300_000]);
    write("base/1/deep/small", b"x");
    write("nothing", b"");
    write("secret", b"key");
    for number in 0..100 {
        write(&format!("base/{number}.dat"), format!("file {number}").as_bytes());
    }
    std::fs::write(root.join(OsStr::from_bytes(b"new\nline \xff")), "odd").expect("written");
    let sparse = File::create(root.join("sparse")).expect("made");
    sparse.set_len(32 << 20).expect("sized");
    sparse.write_all_at(&[5; 8192], 16 << 20).expect("written");
    std::os::unix::fs::symlink("base/1/2601", root.join("inside")).expect("linked");
    std::os::unix::fs::symlink("/nowhere/at all", root.join("dangling")).expect("linked");
    std::fs::hard_link(root.join("base/1/2601"), root.join("again")).expect("linked");
    std::fs::hard_link(root.join("base/1/2601"), root.join("base/1/deep/and again")).expect("linked");
    // What cannot be cloned.
    rustix::fs::mkfifoat(CWD, root.join("pipe"), Mode::from_raw_mode(0o644)).expect("made");
    drop(std::os::unix::net::UnixListener::bind(root.join("socket")).expect("bound"));
    mark(root);
}

/// Owners, modes, attributes and times, in the order in which they do not undo each other.
fn mark(root: &Path) {
    for (path, owner, mode) in [
        ("base", 999, 0o700),
        ("base/1", 999, 0o2770),
        ("base/1/2601", 999, 0o600),
        ("secret", 1001, 0o400),
        ("nothing", 0, 0o4755),
        ("empty", 0, 0o1777),
        ("", 999, 0o750),
    ] {
        let path = root.join(path);
        std::os::unix::fs::chown(&path, Some(owner), Some(owner + 1)).expect("owned");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("marked");
    }
    std::os::unix::fs::lchown(root.join("inside"), Some(7), Some(8)).expect("owned");
    let set = |path: &str, name: &str, value: &[u8]| {
        rustix::fs::lsetxattr(root.join(path), name, value, XattrFlags::empty()).expect("set");
    };
    set("secret", "user.colour", b"red");
    set("secret", "user.long", &[9; 1500]);
    set("base", "user.colour", b"blue");
    set("base", "trusted.mark", b"\0\x01");
    for (path, seconds) in [("base/1/2601", 1_000_000_001), ("empty", 946_684_800), ("base", 1_234_567_890)] {
        let time = Timespec { tv_sec: seconds, tv_nsec: 123_456_000 };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, root.join(path), &times, rustix::fs::AtFlags::empty()).expect("timed");
    }
}

/// Everything that is to be the same in a clone, by path.
pub fn describe(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut names: BTreeMap<u64, PathBuf> = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(path) = open.pop() {
        let meta = std::fs::symlink_metadata(&path).expect("there");
        let relative = path.strip_prefix(root).expect("below").to_owned();
        let kind = meta.file_type();
        let what = if kind.is_dir() {
            open.extend(std::fs::read_dir(&path).expect("a folder").map(|entry| entry.expect("an entry").path()));
            "folder".to_owned()
        } else if kind.is_symlink() {
            format!("-> {:?}", std::fs::read_link(&path).expect("a link"))
        } else if kind.is_file() {
            let bytes = std::fs::read(&path).expect("readable");
            format!("{} bytes {}, {} names", bytes.len(), hex::encode(Sha256::digest(&bytes)), meta.nlink())
        } else {
            continue;
        };
        if kind.is_file() && meta.nlink() > 1 {
            names.entry(meta.ino()).or_insert_with(|| relative.clone());
        }
        let text = format!(
            "{what} {:o} {}:{} {}.{:09} {:?}",
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.mtime(),
            meta.mtime_nsec(),
            extended(&path),
        );
        found.insert(relative, text);
    }
    assert!(names.len() <= 1, "several files where one has several names: {names:?}");
    found
}

fn extended(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut names = vec![0; 4096];
    let length = rustix::fs::llistxattr(path, &mut names[..]).expect("listed");
    let names = names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names
        .map(|name| {
            let mut value = vec![0; 4096];
            let length = rustix::fs::lgetxattr(path, name, &mut value[..]).expect("read");
            value.truncate(length);
            (String::from_utf8_lossy(name).into_owned(), value)
        })
        .collect()
}

/// A file of so many MiB that does not compress and has no holes, written out.
pub fn fill(path: &Path, mib: u64) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = vec![0_u8; 1 << 20];
    for piece in bytes.chunks_exact_mut(8) {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        piece.copy_from_slice(&state.to_ne_bytes());
    }
    let file = File::create(path).expect("made");
    for at in 0..mib {
        for (page, bytes) in (0_u64..).zip(bytes.chunks_exact_mut(4096)) {
            bytes[..8].copy_from_slice(&((at << 8) | page).to_ne_bytes());
        }
        file.write_all_at(&bytes, at << 20).expect("written");
    }
    file.sync_all().expect("synced");
}

/// Writes until the disk has no byte left.
pub fn exhaust(path: &Path) {
    let file = File::create(path).expect("made");
    let mut at = 0;
    for size in [1 << 20, 4096] {
        let bytes = vec![6; size];
        while file.write_all_at(&bytes, at).and_then(|()| file.sync_data()).is_ok() {
            at += size as u64;
        }
    }
}
