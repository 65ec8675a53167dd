//! Immutable, content-addressed data for the stores of a stack. A snapshot is a seed taken from a live environment.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use crate::ids::{EnvironmentId, HostId, PrincipalId, SeedId};
use crate::name::Name;
use crate::release::Digest;
use crate::stack::{SeedRef, StoreKind};
use crate::time::Timestamp;

mod copy;
mod data;

pub use copy::{Place, SeedCopy};
pub use data::{Begin, Data, DataObserved};

/// The version that stands for the newest one; none can be called so.
pub const LATEST: &str = "latest";

/// State of a seed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub enum SeedState {
    /// Its host makes it.
    Making,
    /// Environments can begin with it.
    Ready,
    /// It could not be made; nothing of it is left.
    Failed,
    /// Its host removes it.
    Removing,
    /// Nothing of it is left.
    Removed,
}

impl SeedState {
    /// Its host has something to do for it.
    #[must_use]
    pub fn pending(self) -> bool {
        matches!(self, Self::Making | Self::Removing)
    }

    /// Nothing of it is left.
    #[must_use]
    pub fn ended(self) -> bool {
        matches!(self, Self::Failed | Self::Removed)
    }
}

/// How an input is fed to its service.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub enum SeedFormat {
    /// SQL text as `pg_dump` and `mysqldump` write it; `.gz` too.
    Sql,
    /// `pg_dump -Fc`.
    PgCustom,
    /// tar (or tar.gz) of the files of a stopped server's data folder.
    Folder,
    /// `dump.rdb` of Redis.
    Rdb,
    /// Elasticsearch bulk lines.
    Bulk,
    /// A script run in a container of the service's image, beside the running service.
    Script,
    /// SQL, or pairs of lines with `_update_by_query`s, run after all inputs, to mask what must not be seen.
    Mask,
}

impl SeedFormat {
    /// The format's name for people, as the command line takes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sql => "sql",
            Self::PgCustom => "custom",
            Self::Folder => "folder",
            Self::Rdb => "rdb",
            Self::Bulk => "bulk",
            Self::Script => "script",
            Self::Mask => "mask",
        }
    }

    /// Whether a service of this kind can be fed with it.
    #[must_use]
    pub fn fits(self, store: Option<StoreKind>) -> bool {
        match self {
            Self::Sql => matches!(store, Some(StoreKind::Postgres | StoreKind::Mysql)),
            Self::Mask => matches!(store, Some(StoreKind::Postgres | StoreKind::Mysql | StoreKind::Elasticsearch)),
            Self::PgCustom => store == Some(StoreKind::Postgres),
            Self::Rdb => store == Some(StoreKind::Redis),
            Self::Bulk => store == Some(StoreKind::Elasticsearch),
            Self::Folder | Self::Script => true,
        }
    }
}

impl fmt::Display for SeedFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The data of one volume.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SeedPart {
    /// The stack's name of the volume; `SERVICE.N` and `SERVICE.image-PATH` for anonymous ones.
    pub volume: String,
    /// The service whose volume it is.
    pub service: String,
    /// `postgres`, `mysql`, `redis`, `elasticsearch`, or empty.
    pub kind: String,
    /// Config digest of the image that wrote it.
    pub image: String,
    /// Of the database engine: `15.8`.
    pub version: String,
    /// Of the C library's collations, where the engine says so.
    pub collation: String,
    /// Size of its files.
    pub bytes: u64,
    /// Number of its files.
    pub files: u64,
}

/// What a service is fed with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SeedInput {
    /// The service.
    pub service: String,
    /// How it is fed.
    pub format: SeedFormat,
    /// The file's name, for messages.
    pub name: String,
    /// Size of the file.
    pub bytes: u64,
    /// SHA-256 of its bytes.
    pub artifact: Digest,
}

/// A seed, or a snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seed {
    /// Its id.
    pub id: SeedId,
    /// Its name; for a snapshot its owner is part of its address.
    pub name: Name,
    /// Its version; empty for a snapshot.
    pub version: String,
    /// Taken from a live environment.
    pub snapshot: bool,
    /// Who made it.
    pub owner: PrincipalId,
    /// The app, if its stack belongs to one.
    pub app: Option<Name>,
    /// The environment that a snapshot was taken of.
    pub environment: Option<EnvironmentId>,
    /// Where it lies.
    pub host: HostId,
    /// What it is made of; empty for a snapshot.
    pub inputs: Vec<SeedInput>,
    /// State.
    pub state: SeedState,
    /// Why it failed, or could not be removed: reason code and text.
    pub reason: Option<(String, String)>,
    /// One line for people: what is being done.
    pub detail: String,
    /// SHA-256 over its manifest; none until it is ready.
    pub digest: Option<Digest>,
    /// Its data, by volume.
    pub parts: Vec<SeedPart>,
    /// Size of its data.
    pub bytes: u64,
    /// Canary values that were looked for in the sealed files.
    pub canaries: u32,
    /// Masking SQL was run.
    pub masked: bool,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it failed or was removed.
    pub ended_at: Option<Timestamp>,
    /// How long it took to make.
    pub took: Option<Duration>,
    /// For how long the environment of a snapshot stood still.
    pub freeze: Option<Duration>,
}

impl Seed {
    /// One that is to be made, of nothing yet.
    #[must_use]
    pub fn new(
        id: SeedId,
        name: Name,
        version: String,
        owner: PrincipalId,
        host: HostId,
        created_at: Timestamp,
    ) -> Self {
        Self {
            id,
            name,
            version,
            snapshot: false,
            owner,
            app: None,
            environment: None,
            host,
            inputs: Vec::new(),
            state: SeedState::Making,
            reason: None,
            detail: "waits for its host".to_owned(),
            digest: None,
            parts: Vec::new(),
            bytes: 0,
            canaries: 0,
            masked: false,
            created_at,
            ended_at: None,
            took: None,
            freeze: None,
        }
    }

    /// `NAME@VERSION`, or `OWNER/NAME` for a snapshot.
    #[must_use]
    pub fn address(&self, owner: &str) -> String {
        if self.snapshot { format!("{owner}/{}", self.name) } else { format!("{}@{}", self.name, self.version) }
    }
}

/// What people write to say which seed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SeedAddress {
    /// By its id.
    Id(SeedId),
    /// `NAME` or `NAME@VERSION`; `latest` and no version are the newest.
    Seed(SeedRef),
    /// `OWNER/NAME`.
    Snapshot {
        /// Whose snapshot.
        owner: Name,
        /// Its name.
        name: Name,
    },
}

impl SeedAddress {
    /// Reads an id, `NAME[@VERSION]` or `OWNER/NAME`; none if it is something else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(id) = text.parse() {
            return Some(Self::Id(id));
        }
        if let Some((owner, name)) = text.split_once('/') {
            let (owner, name) = (Name::new("owner", owner).ok()?, Name::new("snapshot", name).ok()?);
            return Some(Self::Snapshot { owner, name });
        }
        SeedRef::parse(text).map(|seed| Self::Seed(newest(seed)))
    }
}

/// `latest` is the same as no version.
#[must_use]
pub fn newest(seed: SeedRef) -> SeedRef {
    let version = seed.version.filter(|version| version != LATEST);
    SeedRef { version, ..seed }
}

/// Whether a seed's version can be called so: 1–63 letters, digits, `.`, `_` and `-`, and not `latest`.
#[must_use]
pub fn is_version(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    (1..=63).contains(&text.len()) && text.bytes().all(inner) && text != LATEST
}

/// The day, or the day with `.2`, `.3`, … when it is taken.
#[must_use]
pub fn free_version(day: &str, taken: &BTreeSet<String>) -> String {
    if !taken.contains(day) {
        return day.to_owned();
    }
    // One more than there are: one of these is free.
    let last = taken.len() + 2;
    (2..=last).map(|n| format!("{day}.{n}")).find(|version| !taken.contains(version)).unwrap_or_else(|| day.to_owned())
}

/// The text that is most like `wanted`, if one is like it at all.
#[must_use]
pub fn nearest<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (wanted.chars().count() / 3).max(2);
    let near = known.into_iter().map(|text| (distance(wanted, text), text));
    near.filter(|(distance, _)| *distance <= limit).min().map(|(_, text)| text)
}

/// How many characters must be changed, added or left out to make one text of the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(160).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().take(160).enumerate() {
        let mut before = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let changed = before + usize::from(from != *to);
            before = row[j + 1];
            row[j + 1] = changed.min(before + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_the_day_until_it_is_taken() {
        let taken = |all: &[&str]| all.iter().map(|text| (*text).to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(free_version("2026-11-23", &taken(&[])), "2026-11-23");
        assert_eq!(free_version("2026-11-23", &taken(&["2026-11-23"])), "2026-11-23.2");
        assert_eq!(free_version("2026-11-23", &taken(&["2026-11-23", "2026-11-23.2", "2026-11-23.4"])), "2026-11-23.3");
    }

    #[test]
    fn latest_and_what_is_no_word_are_no_versions() {
        for text in ["2026-11-23.2", "v1", "A_b-c.d", "1"] {
            assert!(is_version(text), "{text:?}");
        }
        for text in ["", "latest", "a b", "a/b", "a@b", "é", &"a".repeat(64)] {
            assert!(!is_version(text), "{text:?}");
        }
    }

    #[test]
    fn an_address_is_a_seed_a_snapshot_or_an_id() {
        let name = |text| Name::new("name", text).unwrap();
        let snapshot = SeedAddress::Snapshot { owner: name("asha"), name: name("bug-4711") };
        assert_eq!(SeedAddress::parse("asha/bug-4711"), Some(snapshot));
        let seed = |version: Option<&str>| {
            Some(SeedAddress::Seed(SeedRef { name: name("staging"), version: version.map(str::to_owned) }))
        };
        assert_eq!(SeedAddress::parse("staging"), seed(None));
        assert_eq!(SeedAddress::parse("staging@latest"), seed(None));
        assert_eq!(SeedAddress::parse("staging@2026-11-23"), seed(Some("2026-11-23")));
        assert!(matches!(SeedAddress::parse("0190b5a0-0000-7000-8000-000000000001"), Some(SeedAddress::Id(_))));
        for text in ["", "a/b/c", "/a", "a/", "A", "a@", "a b"] {
            assert_eq!(SeedAddress::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn the_nearest_is_told_only_if_it_is_near() {
        let known = ["staging", "demo", "asha/bug-4711"];
        assert_eq!(nearest("stagin", known), Some("staging"));
        assert_eq!(nearest("stgaing", known), Some("staging"));
        assert_eq!(nearest("asha/bug-4712", known), Some("asha/bug-4711"));
        assert_eq!(nearest("production", known), None);
        assert_eq!(distance("kitten", "sitting"), 3);
    }

    #[test]
    fn a_format_fits_only_the_stores_that_read_it() {
        assert!(SeedFormat::Sql.fits(Some(StoreKind::Mysql)));
        assert!(!SeedFormat::PgCustom.fits(Some(StoreKind::Mysql)));
        assert!(!SeedFormat::Rdb.fits(None));
        assert!(SeedFormat::Folder.fits(None));
    }
}
