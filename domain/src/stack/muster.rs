//! What Compose lacks: `x-muster` of a stack file.

use std::fmt;
use std::time::Duration;

use crate::name::Name;

/// Settings of the whole stack.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Settings {
    /// The data that stores begin with, unless a service says otherwise.
    pub seed: Option<SeedRef>,
    /// What stores give up for speed.
    pub durability: Durability,
    /// When an unused environment goes to sleep.
    pub idle: Idle,
    /// For how long an unused environment is kept.
    pub ttl: Ttl,
    /// What the environment may use in all.
    pub quota: Quota,
    /// Whose passwords the stores have.
    pub credentials: Credentials,
}

/// A seed by name, with or without its version: `staging`, `staging@2026-10-04`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct SeedRef {
    /// Its name.
    pub name: Name,
    /// 1–63 letters, digits, `.`, `_` and `-`; none: the newest.
    pub version: Option<String>,
}

impl SeedRef {
    /// Reads `NAME` or `NAME@VERSION`; none if it is something else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (name, version) = text.split_once('@').map_or((text, None), |(name, version)| (name, Some(version)));
        let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let good = |version: &str| (1..=63).contains(&version.len()) && version.bytes().all(inner);
        if version.is_some_and(|version| !good(version)) {
            return None;
        }
        Some(Self { name: Name::new("seed", name).ok()?, version: version.map(str::to_owned) })
    }
}

impl fmt::Display for SeedRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.version {
            Some(version) => write!(f, "{}@{version}", self.name),
            None => write!(f, "{}", self.name),
        }
    }
}

/// What stores give up for speed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Durability {
    /// A crash of the host may lose the last second; a crash of a store loses nothing.
    #[default]
    Dev,
    /// As the images set it up.
    Strict,
    /// Nothing is flushed: a crash of the host may cost the environment's data.
    Throwaway,
}

/// When an unused environment goes to sleep.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Idle {
    /// Frozen after so long without use; none: never.
    pub freeze: Option<Duration>,
    /// Stopped after so long without use; none: never.
    pub stop: Option<Duration>,
}

impl Default for Idle {
    fn default() -> Self {
        Self { freeze: Some(Duration::from_secs(10 * 60)), stop: Some(Duration::from_secs(2 * 3600)) }
    }
}

/// For how long an unused environment is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ttl(pub Duration);

impl Default for Ttl {
    fn default() -> Self {
        Self(Duration::from_secs(14 * 86_400))
    }
}

/// What an environment may use in all; none: what its host allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Quota {
    /// Thousandths of a CPU.
    pub milli_cpus: Option<u64>,
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Bytes of its own on disk, beyond what it shares with its seed.
    pub disk: Option<u64>,
}

/// Whose passwords the stores have.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Credentials {
    /// Each environment has random ones.
    #[default]
    Random,
    /// Those that stand in the stack file.
    Keep,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_named_with_or_without_a_version() {
        for text in ["staging", "staging@2026-10-04", "a@latest"] {
            assert_eq!(SeedRef::parse(text).map(|seed| seed.to_string()).as_deref(), Some(text));
        }
        for text in ["", "@x", "a@", "A", "a@b@c", "a@b c", "a/b"] {
            assert_eq!(SeedRef::parse(text), None, "{text:?}");
        }
    }
}
