//! What the data of an environment began with, and what its host tells about it.

use std::fmt;

use crate::ids::SeedId;
use crate::release::Digest;

/// What the data of an epoch begins with.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Begin {
    /// Empty volumes.
    #[default]
    Nothing,
    /// A seed or snapshot.
    Seed(Digest),
    /// The data as it was when that epoch began to end.
    Epoch(u64),
}

impl Begin {
    /// Reads what [`fmt::Display`] writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once(':') {
            None if text.is_empty() => Some(Self::Nothing),
            Some(("seed", digest)) => Digest::parse(digest).ok().map(Self::Seed),
            Some(("auto", epoch)) => epoch.parse().ok().map(Self::Epoch),
            _ => None,
        }
    }
}

impl fmt::Display for Begin {
    /// `seed:` and 64 hexadecimal digits, `auto:` and a number, or nothing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => Ok(()),
            Self::Seed(digest) => write!(f, "seed:{}", digest.hex()),
            Self::Epoch(epoch) => write!(f, "auto:{epoch}"),
        }
    }
}

/// The data of an environment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Data {
    /// The seed or snapshot that it began with; none: empty volumes.
    pub seed: Option<SeedId>,
    /// Its address, for people.
    pub address: String,
    /// Its digest.
    pub digest: Option<Digest>,
    /// What this epoch begins with.
    pub from: Begin,
    /// Counts resets.
    pub epoch: u64,
    /// What its host told last.
    pub observed: DataObserved,
}

/// What a host tells about the data of an environment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DataObserved {
    /// How it came, for people: `cloned 1.9 GB in 0.11 s (reflink), own disk 0.1 MB`.
    pub line: String,
    /// Bytes on disk of its own.
    pub own_bytes: u64,
    /// Bytes that it shares with its seed or other environments.
    pub shared_bytes: u64,
    /// Epochs that are kept and can be returned to, ascending.
    pub kept: Vec<u64>,
}

impl Data {
    /// It begins with this seed.
    #[must_use]
    pub fn of(seed: SeedId, address: String, digest: Digest) -> Self {
        Self { seed: Some(seed), address, from: Begin::Seed(digest.clone()), digest: Some(digest), ..Self::default() }
    }

    /// What a reset begins with: the same as the environment did.
    #[must_use]
    pub fn origin(&self) -> Begin {
        self.digest.clone().map_or(Begin::Nothing, Begin::Seed)
    }

    /// The newest epoch before this one that can be returned to.
    #[must_use]
    pub fn undo(&self) -> Option<u64> {
        self.observed.kept.iter().copied().filter(|epoch| *epoch < self.epoch).max()
    }

    /// A new epoch that begins with `from`.
    pub fn begin(&mut self, from: Begin) {
        self.from = from;
        self.epoch += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn digest() -> Digest {
        Digest::parse(&"a".repeat(64)).unwrap()
    }

    #[test]
    fn what_data_begins_with_is_read_as_it_is_written() {
        for from in [Begin::Nothing, Begin::Seed(digest()), Begin::Epoch(7)] {
            assert_eq!(Begin::parse(&from.to_string()), Some(from));
        }
        for text in ["x", "seed:", "seed:abc", "auto:", "auto:-1", "auto:x"] {
            assert_eq!(Begin::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_reset_begins_as_the_environment_did_also_after_an_undo() {
        let mut data = Data::of(SeedId::new(Uuid::from_u128(1)), "staging@1".to_owned(), digest());
        data.begin(data.origin());
        assert_eq!((data.epoch, data.undo()), (1, None));
        data.observed.kept = vec![0];
        data.begin(Begin::Epoch(data.undo().unwrap()));
        assert_eq!((data.epoch, data.from.to_string()), (2, "auto:0".to_owned()));
        data.begin(data.origin());
        assert_eq!((data.epoch, data.from.clone()), (3, Begin::Seed(digest())));
    }

    #[test]
    fn an_undo_goes_to_the_newest_epoch_that_is_kept_and_over() {
        let mut data = Data { epoch: 3, ..Data::default() };
        data.observed.kept = vec![0, 1, 3];
        assert_eq!(data.undo(), Some(1));
        data.observed.kept = vec![3, 4];
        assert_eq!(data.undo(), None);
    }
}
