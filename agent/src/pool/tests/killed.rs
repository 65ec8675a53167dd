//! An agent that is killed in the middle of cloning and removing.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::super::{Kind, Pool, Setting, Settings};
use super::{disk, tree, wait};

/// Where the child finds the state folder, and its setting.
const STATE: &str = "MUSTER_TEST_POOL_STATE";
const SETTING: &str = "MUSTER_TEST_POOL_SETTING";

/// Not a test: the agent that is killed. It clones and removes until then.
#[test]
#[ignore = "the process that other tests kill"]
fn child() {
    let state = PathBuf::from(std::env::var_os(STATE).expect("started by a test"));
    let setting: Setting = std::env::var(SETTING).expect("started by a test").parse().expect("a setting");
    let mut settings = Settings::new(state, setting);
    settings.floor_bytes = Some(0);
    let pool = Pool::open(&settings).expect("opened");
    for number in 0_u64.. {
        let to = |number: u64| pool.environment(&format!("e{number}"));
        pool.backend().clone_tree(&pool.seed("s"), &to(number).join("volumes/data")).expect("cloned");
        pool.remove_now(&to(number.saturating_sub(2))).expect("removed");
    }
}

/// Killed when this test ends, however it does.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(settings: &Settings) -> Killed {
    let mut command = Command::new(std::env::current_exe().expect("a path"));
    command.args(["--exact", "pool::tests::killed::child", "--ignored"]).stdout(Stdio::null()).stderr(Stdio::null());
    command.env(STATE, &settings.state_dir).env(SETTING, settings.setting.to_string());
    Killed(command.spawn().expect("started"))
}

fn wait_for(what: &Path, child: &mut Killed) {
    wait(&format!("something comes to {}", what.display()), || {
        assert!(child.0.try_wait().expect("its state").is_none(), "the child ended by itself");
        !std::fs::read_dir(what).is_ok_and(|mut entries| entries.next().is_none())
    });
}

/// A program that the agent had started goes on to its end.
fn wait_for_programs(root: &Path) {
    let root = root.to_string_lossy().into_owned();
    let named = |process: std::fs::DirEntry| {
        let words = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        words.starts_with(b"/usr") && String::from_utf8_lossy(&words).contains(&root)
    };
    wait("its programs end", || !std::fs::read_dir("/proc").expect("processes").flatten().any(named));
}

fn killed_anywhere_it_leaves_whole_clones_only(kind: Kind) {
    if !disk::wanted() {
        return;
    }
    let mut case = super::Case::new(kind);
    let seed = case.seed("s");
    tree::make(&seed);
    for number in 0..1000 {
        std::fs::write(seed.join(format!("file {number}")), vec![9; 5000]).expect("written");
    }
    let described = tree::describe(&seed);
    let layout = case.pool().layout().clone();
    let places = [layout.unfinished(), layout.environments(), layout.trash()];
    for place in &places {
        case.pool = None;
        let mut child = start(&case.settings);
        wait_for(&layout.environments(), &mut child);
        wait_for(place, &mut child);
        drop(child);
        wait_for_programs(layout.root());
        case.open();
        super::cases::nothing_is_left(&case);
        for environment in std::fs::read_dir(layout.environments()).expect("a folder") {
            let environment = environment.expect("an entry").path();
            // Its clone may not have got its place yet; what has one is whole.
            let data = environment.join("volumes/data");
            if data.exists() {
                assert_eq!(tree::describe(&data), described);
            }
            case.pool().remove_now(&environment).expect("removed");
        }
        assert_eq!(tree::describe(&seed), described);
    }
}

#[test]
fn reflink() {
    killed_anywhere_it_leaves_whole_clones_only(Kind::Reflink);
}

#[test]
fn btrfs() {
    killed_anywhere_it_leaves_whole_clones_only(Kind::Btrfs);
}

#[test]
fn copy() {
    killed_anywhere_it_leaves_whole_clones_only(Kind::Copy);
}
