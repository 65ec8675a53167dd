//! The example bot: its repository, its commits, and a coordinator's state in which its builds are registered.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::binaries::root;
use super::cluster::Cluster;

/// Repository and commits of v1, v2 and v3.
#[derive(Debug)]
pub struct Example {
    /// The git repository.
    pub repository: PathBuf,
    commits: BTreeMap<String, String>,
}

impl Example {
    /// Made by `examples/bot/releases.sh`, as `./test` does; quick when all is there.
    ///
    /// # Panics
    /// The script fails.
    pub fn get() -> &'static Self {
        static EXAMPLE: OnceLock<Example> = OnceLock::new();
        EXAMPLE.get_or_init(|| {
            let home = std::env::var("HOME").unwrap_or_default();
            let cache = std::env::var("XDG_CACHE_HOME").unwrap_or_else(|_| format!("{home}/.cache"));
            let folder = Path::new(&cache).join("muster/releases");
            let out =
                Command::new(root().join("examples/bot/releases.sh")).arg(&folder).output().expect("releases.sh runs");
            assert!(out.status.success(), "releases.sh: {}", String::from_utf8_lossy(&out.stderr));
            let commits = String::from_utf8_lossy(&out.stdout)
                .lines()
                .filter_map(|line| line.split_once(' '))
                .map(|(version, rest)| (version.to_owned(), rest.split(' ').next().unwrap_or_default().to_owned()))
                .collect();
            Self { repository: folder.join("bot"), commits }
        })
    }

    /// The full commit of `v1`, `v2` or `v3`.
    ///
    /// # Panics
    /// There is no such version.
    #[must_use]
    pub fn commit(&self, version: &str) -> &str {
        self.commits.get(version).unwrap_or_else(|| panic!("the example has no {version}"))
    }

    /// A working copy of a version in `folder`.
    ///
    /// # Panics
    /// git fails.
    #[must_use]
    pub fn checkout(&self, version: &str, folder: &Path) -> PathBuf {
        let copy = folder.join("bot");
        git(&["clone", "-q", &self.repository.to_string_lossy(), &copy.to_string_lossy()]);
        git(&["-C", &copy.to_string_lossy(), "checkout", "-q", version]);
        copy
    }

    /// A commit on top of v1 in a repository of its own in `folder`: files are replaced with these texts.
    ///
    /// # Panics
    /// git fails.
    #[must_use]
    pub fn variant(&self, folder: &Path, files: &[(&str, &str)]) -> (PathBuf, String) {
        let copy = self.checkout("v1", folder);
        for (path, text) in files {
            std::fs::write(copy.join(path), text).expect("a file of the example");
        }
        let at = copy.to_string_lossy().into_owned();
        git(&["-C", &at, "add", "-A"]);
        git(&[
            "-C",
            &at,
            "-c",
            "user.name=Asha",
            "-c",
            "user.email=asha@example.com",
            "commit",
            "-q",
            "-m",
            "A variant",
        ]);
        let commit = git(&["-C", &at, "rev-parse", "HEAD"]);
        (copy, commit)
    }
}

fn git(arguments: &[&str]) -> String {
    let out = Command::new("git").args(arguments).env("GIT_CONFIG_GLOBAL", "/dev/null").output().expect("git runs");
    assert!(out.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

/// Applies the app and registers v1, v2 and v3.
pub(super) fn register(cluster: &Cluster) {
    let example = Example::get();
    let scratch = tempfile::tempdir().expect("a folder");
    let folder = example.checkout("v1", scratch.path());
    let repository = example.repository.to_string_lossy().into_owned();
    // The path of the archive in the caches of test hosts is allowed by their policies.
    cluster.muster(&["app", "apply", "--repository", &repository]).within(&folder).ok();
    for version in ["v1", "v2", "v3"] {
        let archive = scratch.path().join(format!("{version}.tar"));
        super::docker::Engine::default().run(&["save", "-o", &archive.to_string_lossy(), &format!("bot:{version}")]);
        let commit = example.commit(version);
        let archive = archive.to_string_lossy().into_owned();
        cluster
            .muster(&["build", "register", "bot", commit, "--muster-yaml", "muster.yaml", "--archive", &archive])
            .within(&folder)
            .ok();
    }
}
