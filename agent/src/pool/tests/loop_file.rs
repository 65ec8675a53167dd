//! The loop file that a machine with an ext4 root gets: made, found again after a reboot, grown, trimmed, unmounted.

use std::sync::Arc;

use super::super::command::{self, Verb};
use super::super::{Kind, Pool, Settings};
use super::choosing::automatic;
use super::disk::{self, Disk, loops_below, unmount_below};
use super::{tree, wait};

const MIB: u64 = 1 << 20;

/// A machine whose only disk is ext4, and its agent's settings.
fn machine() -> Option<(Disk, Settings)> {
    disk::wanted().then(|| {
        let disk = Disk::new("ext4", 1024);
        let settings = automatic(&disk);
        (disk, settings)
    })
}

fn open(settings: &Settings) -> Arc<Pool> {
    Pool::open(settings).expect("opened")
}

fn status(settings: &Settings) -> String {
    command::run(Verb::Status, settings).expect("told")
}

#[test]
fn it_is_made_and_found_again_after_a_reboot() {
    let Some((disk, settings)) = machine() else { return };
    assert!(status(&settings).contains("no pool yet"));
    let pool = open(&settings);
    assert_eq!((pool.kind(), pool.notice()), (Kind::Reflink, None));
    assert!(pool.space().total > 200 * MIB);
    let seed = pool.seed("s");
    pool.backend().create(&seed).expect("made");
    tree::make(&seed);
    let described = tree::describe(&seed);
    assert!(status(&settings).contains("on /dev/loop"), "{}", status(&settings));
    // In use by the agent.
    let refused = command::run(Verb::Unmount, &settings).expect_err("refused");
    assert_eq!(refused.code(), "E_POOL_BUSY");
    drop(pool);
    // A reboot leaves the file and nothing else.
    unmount_below(&settings.own_root());
    assert_eq!(std::fs::read_dir(settings.own_root()).expect("a folder").count(), 0);
    assert!(status(&settings).contains("not mounted"), "{}", status(&settings));
    let pool = open(&settings);
    assert_eq!(tree::describe(&pool.seed("s")), described);
    drop(pool);
    // Nothing is left of it when it is unmounted on request.
    let told = command::run(Verb::Unmount, &settings).expect("unmounted");
    assert!(told.contains("is free"), "{told}");
    assert_eq!(loops_below(&disk.path()), 0);
    assert_eq!(command::run(Verb::Unmount, &settings).expect("nothing to do"), "nothing is mounted");
}

#[test]
fn without_its_file_nothing_is_made_in_the_empty_folder() {
    let Some((_disk, settings)) = machine() else { return };
    drop(open(&settings));
    command::run(Verb::Unmount, &settings).expect("unmounted");
    let (image, away) = (settings.state_dir.join("pool.img"), settings.state_dir.join("away"));
    std::fs::rename(&image, &away).expect("moved");
    let why = Pool::open(&settings).expect_err("refused");
    assert_eq!(why.code(), "E_POOL_MISSING");
    assert_eq!(std::fs::read_dir(settings.own_root()).expect("a folder").count(), 0);
    assert!(!image.exists());
    std::fs::rename(&away, &image).expect("moved");
    open(&settings);
}

#[test]
fn a_lost_record_does_not_lose_the_data() {
    let Some((_disk, settings)) = machine() else { return };
    let pool = open(&settings);
    pool.backend().create(&pool.seed("s")).expect("made");
    drop(pool);
    command::run(Verb::Unmount, &settings).expect("unmounted");
    std::fs::remove_file(settings.state_dir.join("pool.json")).expect("removed");
    assert!(open(&settings).seed("s").exists());
}

#[test]
fn it_grows_when_little_is_left_and_its_disk_has_room() {
    let Some((_disk, settings)) = machine() else { return };
    let pool = open(&settings);
    let seed = pool.seed("s");
    pool.backend().create(&seed).expect("made");
    let before = pool.space();
    tree::fill(&seed.join("data"), (before.available / MIB).saturating_sub(40));
    let described = tree::describe(&seed);
    assert!(pool.available() < before.total / 5);
    pool.look_after();
    let after = pool.space();
    assert!(after.total > before.total + 100 * MIB, "{after:?}");
    assert!(after.available > 140 * MIB, "{after:?}");
    assert_eq!(tree::describe(&seed), described);
    assert!(pool.measured().own_bytes >= 100 * MIB, "{:?}", pool.measured());
    // Never by more than its disk could hold: what is promised inside must be there.
    for _ in 0..10 {
        pool.grow();
    }
    let (size, held) = std::fs::metadata(settings.state_dir.join("pool.img"))
        .map(|meta| (meta.len(), std::os::unix::fs::MetadataExt::blocks(&meta) * 512))
        .expect("there");
    let disk = rustix::fs::statvfs(&settings.state_dir).expect("a disk");
    assert!(size - held <= disk.f_bavail * disk.f_frsize, "{size} bytes, {held} held");
}

#[test]
fn a_floor_that_is_reached_makes_it_grow_before_anything_is_refused() {
    let Some((_disk, mut settings)) = machine() else { return };
    drop(open(&settings));
    settings.floor_bytes = Some(330 * MIB);
    let pool = open(&settings);
    assert!(pool.available() < 330 * MIB);
    pool.check_floor().expect("there is room on its disk");
    assert!(pool.available() >= 330 * MIB);
}

#[test]
fn bytes_that_nothing_uses_go_back_to_its_disk() {
    let Some((_disk, settings)) = machine() else { return };
    let pool = open(&settings);
    let environment = pool.environment("e");
    pool.backend().create(&environment).expect("made");
    tree::fill(&environment.join("data"), 100);
    let held = || {
        let image = std::fs::File::open(settings.state_dir.join("pool.img")).expect("there");
        image.sync_all().expect("synced");
        let meta = image.metadata().expect("there");
        std::os::unix::fs::MetadataExt::blocks(&meta) * 512
    };
    let (before, available) = (held(), pool.available());
    assert!(before >= 100 * MIB);
    assert!(pool.measure().own_bytes >= 100 * MIB);
    pool.remove_now(&environment).expect("removed");
    // XFS frees what removed files held a moment after they are gone.
    wait("the pool has its bytes", || pool.available() >= available + 90 * MIB);
    pool.backend().sync(pool.root()).expect("synced");
    pool.look_after();
    // The kernel answers the request before all of it is done.
    wait("its disk has its bytes", || held() + 90 * MIB <= before);
}
