//! What a coordinator may ask of this host: a root-owned file that it cannot change.

mod repositories;

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use manifest::git::GitUrl;
use serde::Deserialize;

/// Why the policy cannot be used. The agent does not start without one it can trust.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("E_POLICY: cannot read {path}: {why}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        why: std::io::Error,
    },
    /// Others could have written it.
    #[error(
        "E_POLICY: {path} must belong to root (or to the agent's user) and be writable by nobody else; `chown root {path}; chmod 644 {path}`"
    )]
    Owner {
        /// The file.
        path: PathBuf,
    },
    /// It is not what it should be.
    #[error("E_POLICY: {path}: {why}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and what.
        why: String,
    },
}

/// A thing the policy forbids.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} is not allowed on this host; add it to `{key}` in {file}")]
pub struct Denied {
    /// What was asked.
    pub what: String,
    /// The setting that would allow it.
    pub key: &'static str,
    /// The policy file.
    pub file: PathBuf,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Raw {
    registries: Option<Vec<String>>,
    repositories: Option<Vec<String>>,
    mounts: Option<Vec<PathBuf>>,
    exec: Option<bool>,
    warm: Option<u32>,
    warm_load: Option<f64>,
    max_environments: Option<u32>,
    max_environment_bytes: Option<u64>,
}

/// What a coordinator may ask.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    file: PathBuf,
    registries: Vec<String>,
    repositories: Vec<String>,
    mounts: Vec<PathBuf>,
    exec: bool,
    warm: Option<u32>,
    warm_load: f64,
    max_environments: Option<u32>,
    max_environment_bytes: Option<u64>,
}

/// Load per processor above which nothing is made ready that nobody asked for.
const WARM_LOAD: f64 = 0.7;
/// Most slots of one stack.
const MOST_WARM: u32 = 16;

impl Policy {
    /// The policy of a host without a file: images from Docker Hub, repositories over HTTPS and SSH, folders
    /// under `/home` and `/srv`.
    #[must_use]
    pub fn safe(file: &Path) -> Self {
        Self {
            file: file.to_owned(),
            registries: vec!["docker.io".to_owned()],
            repositories: vec!["https://".to_owned(), "ssh://".to_owned()],
            mounts: vec![PathBuf::from("/home"), PathBuf::from("/srv")],
            exec: true,
            warm: None,
            warm_load: WARM_LOAD,
            max_environments: None,
            max_environment_bytes: None,
        }
    }

    /// Reads `file`; a missing one is [`Policy::safe`].
    ///
    /// # Errors
    /// It cannot be read, is not trustworthy, or has an unknown key.
    pub fn read(file: &Path) -> Result<Self, Error> {
        let path = || file.to_owned();
        let meta = match std::fs::metadata(file) {
            Ok(meta) => meta,
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => return Ok(Self::safe(file)),
            Err(why) => return Err(Error::Read { path: path(), why }),
        };
        let me = rustix::process::geteuid().as_raw();
        if (meta.uid() != 0 && meta.uid() != me) || meta.mode() & 0o022 != 0 {
            return Err(Error::Owner { path: path() });
        }
        let text = std::fs::read_to_string(file).map_err(|why| Error::Read { path: path(), why })?;
        let raw: Raw = toml::from_str(&text).map_err(|why| Error::Syntax { path: path(), why: why.to_string() })?;
        let safe = Self::safe(file);
        Ok(Self {
            file: path(),
            registries: raw.registries.unwrap_or(safe.registries),
            repositories: raw.repositories.unwrap_or(safe.repositories),
            mounts: raw.mounts.unwrap_or(safe.mounts),
            exec: raw.exec.unwrap_or(safe.exec),
            warm: raw.warm.map(|slots| slots.min(MOST_WARM)),
            warm_load: raw.warm_load.unwrap_or(safe.warm_load),
            max_environments: raw.max_environments.filter(|most| *most > 0),
            max_environment_bytes: raw.max_environment_bytes.filter(|most| *most > 0),
        })
    }

    fn denied(&self, what: String, key: &'static str) -> Denied {
        Denied { what, key, file: self.file.clone() }
    }

    /// Whether an image may be pulled. Images that are on the host already need no permission.
    ///
    /// # Errors
    /// Its registry is not listed.
    pub fn pull(&self, image: &str) -> Result<(), Denied> {
        let registry = registry(image);
        if self.registries.iter().any(|one| one == "*" || one == registry) {
            Ok(())
        } else {
            Err(self.denied(format!("pulling {image} from {registry}"), "registries"))
        }
    }

    /// Whether a run may fetch from a repository: its address begins with a listed prefix, which ends where a component
    /// of the address does.
    ///
    /// # Errors
    /// No listed prefix fits.
    pub fn repository(&self, url: &GitUrl) -> Result<(), Denied> {
        let url = url.as_str();
        if self.repositories.iter().any(|prefix| repositories::within(prefix, url)) {
            Ok(())
        } else {
            Err(self.denied(format!("fetching from {url}"), "repositories"))
        }
    }

    /// Whether commands may be run in containers of environments.
    ///
    /// # Errors
    /// The file says `exec = false`.
    pub fn exec(&self) -> Result<(), Denied> {
        if self.exec { Ok(()) } else { Err(self.denied("running commands in containers".to_owned(), "exec")) }
    }

    /// Slots of each hot stack that are kept ready; none: it depends on the pool.
    #[must_use]
    pub fn warm(&self) -> Option<u32> {
        self.warm
    }

    /// Environments at once, slots of the warm pool included; none: as many as come.
    #[must_use]
    pub fn max_environments(&self) -> Option<u32> {
        self.max_environments
    }

    /// Bytes of memory of all environments; none: what there is.
    #[must_use]
    pub fn max_environment_bytes(&self) -> Option<u64> {
        self.max_environment_bytes
    }

    /// Load per processor above which none is made.
    #[must_use]
    pub fn warm_load(&self) -> f64 {
        self.warm_load
    }

    /// Whether a folder (already resolved, absolute) may be mounted into containers.
    ///
    /// # Errors
    /// It lies under no listed root.
    pub fn mount(&self, folder: &Path) -> Result<(), Denied> {
        if self.mounts.iter().any(|root| folder.starts_with(root)) {
            Ok(())
        } else {
            Err(self.denied(format!("mounting {}", folder.display()), "mounts"))
        }
    }
}

/// The registry of an image reference, as Docker reads it.
fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => first,
        _ => "docker.io",
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use manifest::git::LocalPaths;

    use super::*;

    #[test]
    fn a_missing_file_is_the_safe_policy() {
        let policy = Policy::read(Path::new("/nonexistent/policy.toml")).expect("safe");
        assert!(policy.pull("postgres:15").is_ok());
        assert!(policy.pull("evil.example/x").is_err());
        let repository = |url| policy.repository(&GitUrl::parse(url, LocalPaths::Allowed).expect("a URL"));
        assert!(repository("https://git.example/team/bot").is_ok());
        assert!(repository("ssh://git@git.example/team/bot").is_ok());
        assert!(repository("file:///etc").is_err());
        assert!(repository("/etc").is_err());
        assert!(policy.mount(Path::new("/home/asha/bot")).is_ok());
        assert!(policy.mount(Path::new("/homework")).is_err());
        assert!(policy.mount(Path::new("/etc")).is_err());
    }

    #[test]
    fn a_file_that_others_can_write_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("policy.toml");
        std::fs::write(&path, "mounts = [\"/data\"]\n").expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("set");
        let policy = Policy::read(&path).expect("trusted");
        assert!(policy.mount(Path::new("/data/x")).is_ok());
        assert!(policy.exec().is_ok());
        assert!(policy.mount(Path::new("/home/x")).is_err());
        std::fs::write(&path, "exec = false\n").expect("written");
        assert!(Policy::read(&path).expect("trusted").exec().is_err());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).expect("set");
        assert!(matches!(Policy::read(&path), Err(Error::Owner { .. })));
    }
}
