//! What must hold on every backend.

use std::fs::File;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use super::super::{Error, Kind, Pool};
use super::{Case, tree, wait};

const MIB: u64 = 1 << 20;

fn entries(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()).collect()
}

pub fn nothing_is_left(case: &Case) {
    let layout = case.pool().layout();
    assert_eq!(entries(&layout.unfinished()), Vec::<PathBuf>::new());
    assert_eq!(entries(&layout.trash()), Vec::<PathBuf>::new());
}

pub fn a_clone_equals_its_source(case: Case) {
    let seed = case.seed("s");
    tree::make(&seed);
    let cloned = case.clone(&seed, "e");
    // A snapshot has sockets and pipes too; nothing can be said with them.
    assert_eq!(tree::describe(&cloned), tree::describe(&seed));
    let inode = |path: &str| std::fs::metadata(cloned.join(path)).expect("there").ino();
    assert_eq!(inode("again"), inode("base/1/deep/and again"));
    let sparse = std::fs::metadata(cloned.join("sparse")).expect("there");
    assert!(sparse.blocks() * 512 < MIB, "the hole was filled: {} bytes", sparse.blocks() * 512);
    // A clone of a clone, and a clone of what was not made by the pool.
    assert_eq!(tree::describe(&case.clone(&cloned, "e2")), tree::describe(&seed));
    let plain = case.disk.path().join("plain");
    std::fs::create_dir(&plain).expect("made");
    tree::make(&plain);
    let to = case.pool().snapshot("p");
    let counted = case.pool().backend().clone_tree(&plain, &to).expect("cloned");
    assert_eq!(tree::describe(&to), tree::describe(&plain));
    assert_eq!(counted.skipped, 2);
    assert_eq!(counted.files, 110);
    nothing_is_left(&case);
}

pub fn a_clone_that_was_answered_survives_a_power_cut(mut case: Case) {
    // Nothing makes this kernel's btrfs forget what it has not written.
    if case.kind == Kind::Btrfs {
        return;
    }
    let seed = case.seed("s");
    tree::make(&seed);
    tree::fill(&seed.join("data"), 4);
    let mut described = tree::describe(&seed);
    let cloned = case.clone(&seed, "e");
    case.pool = None;
    case.disk.cut_power();
    case.open();
    assert_eq!(tree::describe(&cloned), described);
    // Planted: what was not made durable is lost, so the cut was one.
    std::fs::write(cloned.join("late"), vec![1; 100_000]).expect("written");
    case.pool = None;
    case.disk.cut_power();
    case.open();
    described.remove(Path::new(""));
    let mut found = tree::describe(&cloned);
    found.remove(Path::new(""));
    assert_eq!(found, described);
}

pub fn what_is_written_to_one_is_not_seen_in_the_other(case: Case) {
    let seed = case.seed("s");
    tree::fill(&seed.join("data"), 2);
    let before = std::fs::read(seed.join("data")).expect("read");
    let (first, second) = (case.clone(&seed, "a"), case.clone(&seed, "b"));
    let write = |path: &Path, text: &[u8]| {
        File::options().write(true).open(path.join("data")).expect("opened").write_all_at(text, MIB).expect("written");
    };
    write(&first, b"first");
    std::fs::remove_file(second.join("data")).expect("removed");
    assert_eq!(std::fs::read(seed.join("data")).expect("read"), before);
    write(&seed, b"seed");
    let read = std::fs::read(first.join("data")).expect("read");
    assert_eq!(&read[MIB as usize..][..5], b"first");
    assert_eq!(read[..MIB as usize], before[..MIB as usize]);
}

pub fn an_untouched_clone_holds_nothing_of_its_own(case: Case) {
    let seed = case.seed("s");
    tree::fill(&seed.join("data"), 32);
    case.pool().backend().sync(&seed).expect("synced");
    let usage = |path: &Path| {
        case.pool().backend().sync(path).expect("synced");
        case.pool().backend().usage(path).expect("measured")
    };
    assert!(usage(&seed).own_bytes >= 32 * MIB);
    let free = || case.pool().available();
    let before = free();
    let cloned = case.clone(&seed, "e");
    let untouched = usage(&cloned);
    if !case.shares() {
        assert!(untouched.own_bytes >= 32 * MIB && untouched.shared_bytes == 0, "{untouched:?}");
        return;
    }
    assert!(untouched.own_bytes <= MIB, "{untouched:?}");
    assert!(untouched.shared_bytes >= 32 * MIB, "{untouched:?}");
    // Other bytes may have come free meanwhile.
    let gone = before.saturating_sub(free());
    assert!(gone <= MIB, "{gone} bytes went");
    let file = File::options().write(true).open(cloned.join("data")).expect("opened");
    file.write_all_at(&vec![1; 4 << 20], 8 * MIB).expect("written");
    let touched = usage(&cloned);
    assert!((4 * MIB..6 * MIB).contains(&touched.own_bytes), "{touched:?}");
    // What the clone gave up is the seed's alone again; btrfs says so only of whole extents.
    if case.kind == Kind::Reflink {
        assert!((4 * MIB..6 * MIB).contains(&usage(&seed).own_bytes), "{:?}", usage(&seed));
    }
}

pub fn leftovers_of_a_crash_are_swept_at_the_next_start(mut case: Case) {
    let seed = case.seed("s");
    tree::make(&seed);
    // As a kill leaves them: a clone without its place, and a removal that was not finished.
    let layout = case.pool().layout().clone();
    for leftover in [layout.unfinished().join("half"), layout.trash().join("half")] {
        let cloned = case.clone(&seed, "e");
        std::fs::rename(&cloned, &leftover).expect("moved");
    }
    case.open();
    nothing_is_left(&case);
    assert!(seed.join("base/1/2601").exists());
}

pub fn a_folder_is_removed_while_a_file_in_it_is_open(case: Case) {
    let seed = case.seed("s");
    tree::fill(&seed.join("data"), 1);
    let cloned = case.clone(&seed, "e");
    let file = File::open(cloned.join("data")).expect("opened");
    let environment = case.pool().environment("e");
    case.pool().remove_now(&environment).expect("removed");
    assert!(!environment.exists());
    case.pool().remove_now(&environment).expect("nothing to do");
    nothing_is_left(&case);
    drop(file);
    // Its name is free again.
    assert!(case.clone(&seed, "e").join("data").exists());
}

pub fn removing_a_clone_gives_its_bytes_back(case: Case) {
    let seed = case.seed("s");
    tree::fill(&seed.join("data"), 8);
    let cloned = case.clone(&seed, "e");
    tree::fill(&cloned.join("more"), 24);
    let before = case.pool().available();
    case.pool().remove_now(&case.pool().environment("e")).expect("removed");
    // btrfs frees what a deleted subvolume held a moment later.
    wait("its bytes come back", || {
        case.pool().backend().sync(case.pool().root()).expect("synced");
        case.pool().available() >= before + 20 * MIB
    });
    assert!(seed.join("data").exists());
}

pub fn a_full_disk_leaves_a_whole_clone_or_nothing(case: Case) {
    let seed = case.seed("s");
    tree::make(&seed);
    tree::fill(&seed.join("large"), 60);
    tree::exhaust(&case.disk.path().join("ballast"));
    let to = case.pool().environment("e").join("volumes/data");
    let done = case.pool().backend().clone_tree(&seed, &to);
    match &done {
        Ok(_) => assert_eq!(tree::describe(&to), tree::describe(&seed)),
        Err(_) => assert!(!to.exists()),
    }
    if !case.shares() {
        let why = done.expect_err("there is no room for a copy");
        assert_eq!(why.code(), "E_POOL_FULL");
        assert!(why.to_string().contains("nothing of it was kept"), "{why}");
    }
    nothing_is_left(&case);
    std::fs::remove_file(case.disk.path().join("ballast")).expect("removed");
    // ext4 can use its bytes only when that is written, XFS a moment later.
    wait("there is room", || {
        case.pool().backend().sync(case.pool().root()).expect("synced");
        case.pool().available() >= 80 * MIB
    });
    let again = case.pool().environment("again");
    case.pool().backend().clone_tree(&seed, &again).expect("cloned, now that there is room");
}

pub fn many_files_are_cloned_and_removed(case: Case) {
    let seed = case.seed("s");
    for folder in 0..20 {
        let folder = seed.join(format!("{folder:02}"));
        std::fs::create_dir(&folder).expect("made");
        for file in 0..100 {
            std::fs::write(folder.join(format!("{file:02}")), [file; 64]).expect("written");
        }
    }
    let cloned = case.clone(&seed, "e");
    assert_eq!(tree::describe(&cloned), tree::describe(&seed));
    case.pool().remove_now(&case.pool().environment("e")).expect("removed");
    nothing_is_left(&case);
}

pub fn below_the_floor_nothing_new_is_made(mut case: Case) {
    let seed = case.seed("s");
    let (kept, next) = (case.clone(&seed, "kept"), case.pool().environment("next"));
    case.settings.floor_bytes = Some(1 << 40);
    case.open();
    let pool = case.pool();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    for refused in [
        runtime.block_on(pool.create_dir(next.clone())),
        runtime.block_on(pool.clone_tree(seed.clone(), next.clone())).map(|_| ()),
    ] {
        let why = refused.expect_err("refused");
        assert_eq!(why.code(), "E_POOL_FULL");
        let text = why.to_string();
        assert!(text.contains("1048576 MiB are kept free") && text.contains("muster env list"), "{text}");
    }
    assert!(!next.exists());
    // What is there can be used, and removed.
    runtime.block_on(pool.usage(kept.clone())).expect("measured");
    runtime.block_on(pool.remove(kept.clone())).expect("removed");
    assert!(!kept.exists());
}

pub fn a_pool_that_is_not_mounted_is_refused_and_nothing_is_made_there(mut case: Case) {
    let seed = case.seed("s");
    tree::fill(&seed.join("data"), 1);
    case.pool = None;
    case.disk.unmount();
    let why = Pool::open(&case.settings).expect_err("refused");
    assert_eq!(why.code(), "E_POOL_MISSING");
    assert!(why.to_string().contains("pool.json"), "{why}");
    assert_eq!(entries(&case.disk.path()), Vec::<PathBuf>::new());
    // The same when something else has its place.
    let other = case.disk.path().join("pool");
    std::fs::create_dir(&other).expect("made");
    std::fs::write(other.join(".muster-pool"), r#"{"id":"other"}"#).expect("written");
    assert_eq!(Pool::open(&case.settings).expect_err("refused").code(), "E_POOL_MISSING");
    assert_eq!(entries(&other).len(), 1);
    case.disk.mount();
    case.open();
    assert!(case.pool().seed("s").join("data").exists());
}

pub fn a_pool_that_goes_away_while_it_is_open_is_noticed(case: Case) {
    let seed = case.seed("s");
    case.disk.unmount();
    std::fs::create_dir_all(case.pool().root()).expect("made");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let made = runtime.block_on(case.pool().create_dir(case.pool().environment("e")));
    assert_eq!(made.expect_err("refused").code(), "E_POOL_MISSING");
    assert_eq!(case.pool().remove_now(&seed).expect_err("refused").code(), "E_POOL_MISSING");
    assert_eq!(entries(case.pool().root()), Vec::<PathBuf>::new());
}

pub fn one_agent_at_a_time_has_the_pool(mut case: Case) {
    assert_eq!(Pool::open(&case.settings).expect_err("refused").code(), "E_POOL_LOCKED");
    // Another agent, with its own state, and the same pool.
    let mut other = case.settings.clone();
    other.state_dir = case.disk.beside("other");
    assert_eq!(Pool::open(&other).expect_err("refused").code(), "E_POOL_LOCKED");
    case.pool = None;
    Pool::open(&other).expect("it is free now");
}

pub fn paths_outside_and_paths_that_are_taken_are_refused(case: Case) {
    let seed = case.seed("s");
    let (pool, backend) = (case.pool(), case.pool().backend());
    let outside = case.disk.path().join("elsewhere");
    let around = pool.root().join("environments/../../elsewhere");
    for path in [&outside, &around, &pool.root().to_owned()] {
        for refused in [backend.create(path), backend.clone_tree(&seed, path).map(|_| ()), backend.remove(path)] {
            assert!(matches!(refused, Err(Error::Outside { .. })), "{refused:?}");
        }
    }
    let taken = case.clone(&seed, "e");
    for refused in [backend.create(&taken), backend.clone_tree(&seed, &taken).map(|_| ())] {
        assert!(matches!(refused, Err(Error::Exists { .. })), "{refused:?}");
    }
    nothing_is_left(&case);
}

pub fn a_source_that_is_no_folder_is_refused(case: Case) {
    let place = case.disk.path();
    std::fs::write(place.join("file"), "x").expect("written");
    std::os::unix::fs::symlink(case.seed("s"), place.join("link")).expect("linked");
    for source in ["nothing", "file", "link"] {
        let to = case.pool().environment("e");
        let why = case.pool().backend().clone_tree(&place.join(source), &to).expect_err("refused");
        assert_eq!(why.code(), "E_POOL", "{why}");
        assert!(!to.exists());
    }
    nothing_is_left(&case);
}
