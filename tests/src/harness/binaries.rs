//! The shipping binaries, with failpoints, as cargo built them beside this test.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

/// Folders whose files go into the binaries.
const SOURCES: [&str; 8] =
    ["agent", "coordinator", "domain", "manifest", "migrations", "proto", "transport", "Cargo.lock"];

/// The repository's root.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/")).to_owned()
}

/// `muster`.
pub fn muster() -> PathBuf {
    folder().join("muster")
}

/// `muster-agent`.
pub fn agent() -> PathBuf {
    folder().join("muster-agent")
}

/// The folder they lie in; built first when they are older than their sources. `MUSTER_TEST_BIN` names another.
///
/// # Panics
/// They cannot be built.
pub fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        if let Some(given) = std::env::var_os("MUSTER_TEST_BIN") {
            return PathBuf::from(given);
        }
        let here = std::env::current_exe().expect("the path of this test");
        let folder = here.ancestors().nth(2).expect("tests lie in target/PROFILE/deps").to_owned();
        if is_stale(&folder) {
            build();
        }
        folder
    })
}

fn is_stale(folder: &Path) -> bool {
    let built = ["muster", "muster-agent"].iter().map(|name| modified(&folder.join(name))).min().flatten();
    let newest = SOURCES.iter().filter_map(|part| newest(&root().join(part))).max();
    built.is_none() || newest > built
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|found| found.modified()).ok()
}

fn newest(path: &Path) -> Option<SystemTime> {
    let Ok(entries) = std::fs::read_dir(path) else { return modified(path) };
    entries.flatten().filter_map(|entry| newest(&entry.path())).max()
}

/// All of the workspace with all features, as `./test` builds it: other features would build every dependency again.
fn build() {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let built = Command::new(cargo)
        .args(["build", "--quiet", "--workspace", "--bins", "--all-features"])
        .current_dir(root())
        .status()
        .expect("cargo runs");
    assert!(built.success(), "the binaries cannot be built");
}
