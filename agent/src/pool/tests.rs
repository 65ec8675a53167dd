//! The pool on real file systems. The same cases run over every backend.

mod cases;
mod choosing;
mod disk;
mod killed;
mod loop_file;
mod tree;

use std::path::PathBuf;
use std::sync::Arc;

use disk::Disk;

use super::{Kind, Pool, Setting, Settings};
use crate::waiting::until;

/// A pool of one kind on a disk of its own.
struct Case {
    kind: Kind,
    pool: Option<Arc<Pool>>,
    settings: Settings,
    disk: Disk,
}

impl Case {
    /// A pool on a disk hardly larger than the smallest that `mkfs.xfs` makes.
    fn new(kind: Kind) -> Self {
        let system = match kind {
            Kind::Reflink => "xfs",
            Kind::Btrfs => "btrfs",
            Kind::Copy => "ext4",
        };
        let disk = Disk::new(system, 320);
        let root = disk.path().join("pool");
        let mut settings = Settings::new(disk.beside("state"), Setting::Fixed(kind, Some(root)));
        // Disks as small as these have their floor in the way.
        settings.floor_bytes = Some(0);
        let mut case = Self { kind, pool: None, settings, disk };
        case.open();
        case
    }

    fn pool(&self) -> &Arc<Pool> {
        self.pool.as_ref().expect("open")
    }

    fn open(&mut self) {
        self.pool = None;
        self.pool = Some(Pool::open(&self.settings).expect("opened"));
    }

    /// A new folder in the pool, for a seed.
    fn seed(&self, name: &str) -> PathBuf {
        let path = self.pool().seed(name);
        self.pool().backend().create(&path).expect("made");
        path
    }

    fn clone(&self, from: &std::path::Path, id: &str) -> PathBuf {
        let to = self.pool().environment(id).join("volumes/data");
        self.pool().backend().clone_tree(from, &to).expect("cloned");
        to
    }

    fn shares(&self) -> bool {
        self.kind != Kind::Copy
    }
}

/// Waits until something holds.
fn wait(what: &str, mut holds: impl FnMut() -> bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(until(what, async || holds()));
}

/// Runs a case on a pool of this kind, unless real parts are not wanted.
fn run(kind: Kind, case: impl FnOnce(Case)) {
    if disk::wanted() {
        case(Case::new(kind));
    }
}

macro_rules! on_every_backend {
    ($($name:ident,)*) => {
        mod reflink {
            $(#[test] fn $name() { super::run(super::Kind::Reflink, super::cases::$name); })*
        }
        mod btrfs {
            $(#[test] fn $name() { super::run(super::Kind::Btrfs, super::cases::$name); })*
        }
        mod copy {
            $(#[test] fn $name() { super::run(super::Kind::Copy, super::cases::$name); })*
        }
    };
}

on_every_backend! {
    a_clone_equals_its_source,
    a_clone_that_was_answered_survives_a_power_cut,
    what_is_written_to_one_is_not_seen_in_the_other,
    an_untouched_clone_holds_nothing_of_its_own,
    leftovers_of_a_crash_are_swept_at_the_next_start,
    a_folder_is_removed_while_a_file_in_it_is_open,
    removing_a_clone_gives_its_bytes_back,
    a_full_disk_leaves_a_whole_clone_or_nothing,
    many_files_are_cloned_and_removed,
    below_the_floor_nothing_new_is_made,
    a_pool_that_is_not_mounted_is_refused_and_nothing_is_made_there,
    a_pool_that_goes_away_while_it_is_open_is_noticed,
    one_agent_at_a_time_has_the_pool,
    paths_outside_and_paths_that_are_taken_are_refused,
    a_source_that_is_no_folder_is_refused,
}
