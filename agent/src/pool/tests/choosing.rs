//! Which pool is chosen, and what becomes of that choice.

use std::path::Path;
use std::sync::Arc;

use super::super::{Kind, Pool, Setting, Settings};
use super::disk::{self, Disk};

/// Settings for a state folder on the disk, with a small loop file where one is needed.
pub fn automatic(disk: &Disk) -> Settings {
    let state = disk.path().join("state");
    std::fs::create_dir_all(&state).expect("made");
    let mut settings = Settings::new(state, Setting::Auto);
    settings.image_bytes = Some(320 << 20);
    settings.floor_bytes = Some(0);
    settings
}

fn open(settings: &Settings) -> Arc<Pool> {
    Pool::open(settings).expect("opened")
}

#[test]
fn files_that_can_share_extents_do() {
    if !disk::wanted() {
        return;
    }
    for (system, kind) in [("xfs", Kind::Reflink), ("btrfs", Kind::Btrfs)] {
        let disk = Disk::new(system, 320);
        let settings = automatic(&disk);
        let pool = open(&settings);
        assert_eq!(pool.kind(), kind);
        assert_eq!(pool.notice(), None);
        assert!(!settings.state_dir.join("pool.img").exists());
        drop(pool);
        // Found again, not chosen again.
        let record = std::fs::read(settings.state_dir.join("pool.json")).expect("a record");
        assert_eq!(open(&settings).kind(), kind);
        assert_eq!(std::fs::read(settings.state_dir.join("pool.json")).expect("a record"), record);
    }
}

#[test]
fn where_nothing_else_works_data_is_copied_and_that_is_said() {
    if !disk::wanted() {
        return;
    }
    let disk = Disk::new("ext4", 64);
    let settings = automatic(&disk);
    let pool = open(&settings);
    assert_eq!(pool.kind(), Kind::Copy);
    assert!(pool.why().contains("MiB left, and a pool needs"), "{}", pool.why());
    assert!(pool.notice().expect("a notice").contains(pool.why()));
    assert!(!settings.state_dir.join("pool.img").exists());
}

#[test]
fn data_of_an_earlier_version_stays_where_it_is_and_is_found() {
    if !disk::wanted() {
        return;
    }
    let disk = Disk::new("ext4", 1024);
    let settings = automatic(&disk);
    let (id, gone) = ("0189abcd-0000-7000-8000-00000000000a", "0189abcd-0000-7000-8000-00000000000b");
    let old = settings.own_root().join(id);
    std::fs::create_dir_all(old.join("volumes/db")).expect("made");
    std::fs::write(old.join("volumes/db/data"), "kept").expect("written");
    std::os::unix::fs::symlink(format!("environments/{gone}"), settings.own_root().join(gone)).expect("linked");
    let pool = open(&settings);
    assert_eq!(pool.kind(), Kind::Copy, "a loop file would hide it");
    assert_eq!(std::fs::read(pool.environment(id).join("volumes/db/data")).expect("there"), b"kept");
    // Volumes of the engine know the old path.
    assert_eq!(std::fs::read(old.join("volumes/db/data")).expect("there"), b"kept");
    assert!(settings.own_root().join(gone).symlink_metadata().is_err());
}

#[test]
fn another_setting_is_refused_while_there_is_data_and_taken_when_there_is_none() {
    if !disk::wanted() {
        return;
    }
    let disk = Disk::new("xfs", 320);
    let mut settings = automatic(&disk);
    let pool = open(&settings);
    let seed = pool.seed("s");
    pool.backend().create(&seed).expect("made");
    drop(pool);
    let other = disk.beside("copies");
    settings.setting = Setting::Fixed(Kind::Copy, Some(other.clone()));
    let why = Pool::open(&settings).expect_err("refused");
    assert_eq!(why.code(), "E_POOL_CHANGED");
    assert!(why.to_string().contains("reflink:"), "{why}");
    settings.setting = Setting::Auto;
    open(&settings).remove_now(&seed).expect("removed");
    settings.setting = Setting::Fixed(Kind::Copy, Some(other.clone()));
    let pool = open(&settings);
    assert_eq!((pool.kind(), pool.root()), (Kind::Copy, other.as_path()));
    assert!(!settings.own_root().exists());
}

#[test]
fn a_fixed_backend_that_does_not_work_is_an_error_and_never_another_one() {
    if !disk::wanted() {
        return;
    }
    let disk = Disk::new("ext4", 64);
    for kind in [Kind::Reflink, Kind::Btrfs] {
        let mut settings = automatic(&disk);
        settings.setting = Setting::Fixed(kind, Some(disk.path().join(kind.word())));
        let why = Pool::open(&settings).expect_err("refused");
        assert_eq!(why.code(), "E_POOL_UNSUITABLE", "{why}");
        assert!(!settings.state_dir.join("pool.json").exists());
    }
}

#[test]
fn a_pool_of_copies_needs_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = Settings::new(folder.path().to_owned(), Setting::Fixed(Kind::Copy, None));
    let pool = open(&settings);
    let (from, to) = (pool.seed("s"), pool.environment("e"));
    pool.backend().create(&from).expect("made");
    std::fs::write(from.join("file"), "text").expect("written");
    let cloned = pool.backend().clone_tree(&from, &to).expect("cloned");
    assert_eq!((cloned.files, cloned.folders, cloned.skipped), (1, 1, 0));
    assert_eq!(std::fs::read(to.join("file")).expect("read"), b"text");
    assert_eq!(pool.root(), Path::new(&folder.path().join("pool")));
}

#[test]
fn a_record_that_cannot_be_read_is_an_error_and_nothing_is_made() {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = Settings::new(folder.path().to_owned(), Setting::Fixed(Kind::Copy, None));
    for text in ["{", r#"{"id":"1","backend":"tape","root":"/x","image":false,"why":""}"#] {
        std::fs::write(folder.path().join("pool.json"), text).expect("written");
        assert_eq!(Pool::open(&settings).expect_err("refused").code(), "E_POOL");
        assert!(!settings.own_root().exists());
    }
}
