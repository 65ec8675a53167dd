//! What a cluster begins with, made once per process and then copied: principals with their tokens, and the example's
//! three archives, which have half a gigabyte.

use std::path::Path;
use std::sync::OnceLock;

use super::cluster::{Cluster, Options};
use super::{clean, example};

/// Of a cluster's folder: state, tokens and login contexts, of a coordinator that was stopped.
#[derive(Debug)]
pub struct Template(tempfile::TempDir);

/// With the principals of every cluster.
pub fn with_principals() -> &'static Template {
    static MADE: OnceLock<Template> = OnceLock::new();
    MADE.get_or_init(|| Template::of(Cluster::with(&Options { bare: true, ..Options::default() })))
}

/// With the example app as well, applied, and v1, v2 and v3 registered.
pub fn with_example() -> &'static Template {
    static MADE: OnceLock<Template> = OnceLock::new();
    MADE.get_or_init(|| {
        let cluster = Cluster::start();
        example::register(&cluster);
        Template::of(cluster)
    })
}

impl Template {
    fn of(mut cluster: Cluster) -> Self {
        cluster.coordinator.stop();
        let prefix = format!("{}{}-template-", clean::PREFIX, std::process::id());
        let kept = tempfile::Builder::new().prefix(&prefix).tempdir().expect("a folder");
        for entry in std::fs::read_dir(cluster.folder()).expect("the cluster's folder").flatten() {
            // What belongs to one address, and what was printed.
            if !matches!(entry.path().extension().and_then(|end| end.to_str()), Some("toml" | "log")) {
                copy(&entry.path(), &kept.path().join(entry.file_name()));
            }
        }
        Self(kept)
    }

    /// Copies it into a cluster's folder.
    pub fn copy_to(&self, folder: &Path) {
        copy(self.0.path(), folder);
    }
}

/// A file, or a folder with what is in it. Large files are linked: artifacts are never written again.
fn copy(from: &Path, to: &Path) {
    let found = std::fs::symlink_metadata(from).expect("it is there");
    if found.is_dir() {
        std::fs::create_dir_all(to).expect("a folder");
        std::fs::set_permissions(to, found.permissions()).expect("its mode");
        for entry in std::fs::read_dir(from).expect("a folder").flatten() {
            copy(&entry.path(), &to.join(entry.file_name()));
        }
    } else if found.is_file() {
        let large = found.len() > 1 << 20 && !from.ends_with("muster.db");
        if !large || std::fs::hard_link(from, to).is_err() {
            std::fs::copy(from, to).expect("a copy");
        }
    }
}
