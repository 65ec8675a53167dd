//! The example bot: its repository, its commits, and a coordinator's state in which its builds are registered.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::binaries::root;
use super::cluster::Cluster;
use super::docker::Engine;

/// Repository, commits and images of v1, v2 and v3.
#[derive(Debug)]
pub struct Example {
    /// The git repository.
    pub repository: PathBuf,
    /// By version, the commit and the id of the image.
    versions: BTreeMap<String, (String, String)>,
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
            let printed = String::from_utf8_lossy(&out.stdout);
            let words = printed.lines().map(|line| line.split(' ').collect::<Vec<_>>());
            let versions = words.filter_map(|words| match words[..] {
                [version, commit, image] => Some((version.to_owned(), (commit.to_owned(), image.to_owned()))),
                _ => None,
            });
            Self { repository: folder.join("bot"), versions: versions.collect() }
        })
    }

    /// The full commit of `v1`, `v2` or `v3`.
    ///
    /// # Panics
    /// There is no such version.
    #[must_use]
    pub fn commit(&self, version: &str) -> &str {
        &self.version(version).0
    }

    fn version(&self, version: &str) -> &(String, String) {
        self.versions.get(version).unwrap_or_else(|| panic!("the example has no {version}"))
    }

    /// The archive of a version's image: to write one takes a second of processor time, so it lies beside the repository
    /// until the image is another.
    fn archive(&self, version: &str) -> PathBuf {
        let folder = self.repository.with_file_name("archives");
        let image = self.version(version).1.trim_start_matches("sha256:");
        let start = format!("{version}-");
        let archive = folder.join(format!("{start}{image}.tar"));
        if !archive.exists() {
            std::fs::create_dir_all(&folder).expect("a folder");
            for old in std::fs::read_dir(&folder).expect("a folder").flatten() {
                if old.file_name().to_string_lossy().starts_with(&start) {
                    let _ = std::fs::remove_file(old.path());
                }
            }
            let unfinished = tempfile::NamedTempFile::new_in(&folder).expect("a file");
            let path = unfinished.path().to_string_lossy();
            Engine::default().run(&["save", "-o", &path, &format!("bot:{version}")]);
            // Whole, or not at all; `docker save` has replaced the file by another of its name.
            std::fs::rename(unfinished.path(), &archive).expect("moved");
        }
        archive
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
        let (archive, commit) = (example.archive(version), example.commit(version));
        let build = ["build", "register", "bot", commit, "--muster-yaml", "muster.yaml", "--archive"];
        cluster.muster(&[build.as_slice(), &[&archive.to_string_lossy()]].concat()).within(&folder).ok();
    }
}
