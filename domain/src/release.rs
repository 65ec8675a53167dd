//! What came out of an app at one commit, and what is rolled out of it.

use std::collections::BTreeMap;

use crate::app::{Expose, Process};
use crate::ids::{BuildId, ReleaseId};
use crate::name::{Name, TargetRef};
use crate::time::Timestamp;

/// SHA-256, 64 lower-case hexadecimal digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Digest(String);

/// The text is not a SHA-256.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a sha256 digest; write 64 hexadecimal digits, optionally after \"sha256:\"")]
pub struct DigestError {
    /// What was given, cut to 80 characters.
    pub text: String,
}

impl Digest {
    /// Reads 64 hexadecimal digits, with or without `sha256:` before them.
    ///
    /// # Errors
    /// The text is something else.
    pub fn parse(text: &str) -> Result<Self, DigestError> {
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        let good = hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if good { Ok(Self(hex.to_owned())) } else { Err(DigestError { text: text.chars().take(80).collect() }) }
    }

    /// The 64 digits.
    #[must_use]
    pub fn hex(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}

/// A git commit: 40 (or 64) lower-case hexadecimal digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Commit(String);

/// The text is not a full commit id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a commit; write all 40 hexadecimal digits")]
pub struct CommitError {
    /// What was given, cut to 80 characters.
    pub text: String,
}

impl Commit {
    /// Reads a full commit id.
    ///
    /// # Errors
    /// The text is something else.
    pub fn parse(text: &str) -> Result<Self, CommitError> {
        let hex = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if hex && (text.len() == 40 || text.len() == 64) {
            Ok(Self(text.to_owned()))
        } else {
            Err(CommitError { text: text.chars().take(80).collect() })
        }
    }

    /// All digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first seven digits, as git shows it.
    #[must_use]
    pub fn short(&self) -> &str {
        &self.0[..7]
    }
}

impl std::fmt::Display for Commit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the containers of a build are made from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Image {
    /// `repository@sha256:…`, when hosts pull it from a registry.
    pub reference: Option<String>,
    /// SHA-256 of the archive in the artifact store, when hosts load it from there.
    pub archive: Option<Digest>,
    /// Size of that archive in bytes.
    pub archive_bytes: u64,
    /// The image's identity: SHA-256 of its configuration, read from the verified archive or the pulled manifest.
    pub config_digest: Option<Digest>,
    /// Platform, for example `linux/amd64`.
    pub platform: String,
}

/// What came out of an app at one commit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Build {
    /// Its id.
    pub id: BuildId,
    /// The app.
    pub app: Name,
    /// The commit.
    pub commit: Commit,
    /// The processes, copied from `muster.yaml` at the commit.
    pub processes: BTreeMap<Name, Process>,
    /// The image.
    pub image: Image,
    /// `muster.yaml` as registered, for runs at this build.
    pub manifest: String,
    /// When it was registered.
    pub created_at: Timestamp,
}

/// Immutable, numbered per target: what is rolled out and reverted, never a bare build.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Release {
    /// Its id.
    pub id: ReleaseId,
    /// Where it goes.
    pub target: TargetRef,
    /// 1, 2, 3 … within the target.
    pub number: u64,
    /// The build.
    pub build: BuildId,
    /// Its commit.
    pub commit: Commit,
    /// The image of the build.
    pub image: Image,
    /// The processes, copied from `muster.yaml` at the commit.
    pub processes: BTreeMap<Name, Process>,
    /// What is published.
    pub expose: Vec<Expose>,
    /// The revision of the target's config.
    pub config_revision: u64,
    /// The settings of that revision; become environment variables.
    pub config: BTreeMap<String, String>,
    /// Over build, processes, published ports and config: unique per target.
    pub digest: Digest,
    /// When it was made.
    pub created_at: Timestamp,
}
