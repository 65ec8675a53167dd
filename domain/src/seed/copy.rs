//! Copies of a seed: on other hosts than the one that made it, and in the coordinator's store.

use std::fmt;
use std::time::Duration;

use super::SeedState;
use crate::ids::{HostId, SeedId};
use crate::release::Digest;
use crate::time::Timestamp;

/// Where a copy lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub enum Place {
    /// In the coordinator's store.
    Store,
    /// In the pool of a host.
    Host(HostId),
}

const STORE: &str = "store";

impl Place {
    /// Reads what [`fmt::Display`] writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text == STORE { Some(Self::Store) } else { text.parse().ok().map(Self::Host) }
    }
}

impl fmt::Display for Place {
    /// `store`, or the host's id.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store => f.write_str(STORE),
            Self::Host(host) => host.fmt(f),
        }
    }
}

/// A copy of a seed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SeedCopy {
    /// Of which seed.
    pub seed: SeedId,
    /// Where.
    pub place: Place,
    /// The host that does what is to be done for it: who pushes, or where it lies.
    pub host: HostId,
    /// The seed's digest.
    pub digest: Digest,
    /// State; what is removed is forgotten.
    pub state: SeedState,
    /// Why it failed: reason code and text.
    pub reason: Option<(String, String)>,
    /// One line for people: what is being done.
    pub detail: String,
    /// Of the store's copy: SHA-256 of the seed's index, once all its chunks are there.
    pub index: Option<Digest>,
    /// Bytes that went over the network for it.
    pub moved: u64,
    /// How long it took.
    pub took: Option<Duration>,
    /// When it was asked for last.
    pub created_at: Timestamp,
}

impl SeedCopy {
    /// One that is to be made.
    #[must_use]
    pub fn new(seed: SeedId, place: Place, host: HostId, digest: Digest, created_at: Timestamp) -> Self {
        Self {
            seed,
            place,
            host,
            digest,
            state: SeedState::Making,
            reason: None,
            detail: String::new(),
            index: None,
            moved: 0,
            took: None,
            created_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn a_place_is_read_as_it_is_written() {
        for place in [Place::Store, Place::Host(HostId::new(Uuid::from_u128(7)))] {
            assert_eq!(Place::parse(&place.to_string()), Some(place));
        }
        for text in ["", "Store", "box"] {
            assert_eq!(Place::parse(text), None, "{text:?}");
        }
    }
}
