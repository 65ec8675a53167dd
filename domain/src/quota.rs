//! What a person may hold in all, and what one environment may take of the disk: who is over, by how much, and why
//! something more is refused.

use std::fmt;

/// From so much of a quota on its owner is warned, in percent.
pub const NEAR: u64 = 80;

/// What somebody may hold; none: as much as there is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Limits {
    /// Environments at once.
    pub environments: Option<u32>,
    /// Bytes of memory of all of them.
    pub memory_bytes: Option<u64>,
    /// Bytes of disk that they alone hold.
    pub disk_bytes: Option<u64>,
}

/// What somebody holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Held {
    /// Environments.
    pub environments: u32,
    /// Bytes of memory: what they have, or what they may use where that is said.
    pub memory_bytes: u64,
    /// Bytes of disk that they alone hold, as last measured.
    pub disk_bytes: u64,
}

/// Why something more is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// Too many environments.
    Environments {
        /// Those there are.
        held: u32,
        /// Those there may be.
        limit: u32,
    },
    /// Too much memory.
    Memory {
        /// Bytes that are held.
        held: u64,
        /// Bytes that are asked for.
        asked: u64,
        /// Bytes there may be.
        limit: u64,
    },
    /// No more disk.
    Disk {
        /// Bytes that are held.
        held: u64,
        /// Bytes there may be.
        limit: u64,
    },
}

impl Limits {
    /// Whether one environment more may be held, which may use `memory` bytes (0: not known).
    ///
    /// # Errors
    /// The first limit that is reached.
    pub fn one_more(&self, held: &Held, memory: u64) -> Result<(), Refused> {
        if let Some(limit) = self.environments.filter(|limit| held.environments >= *limit) {
            return Err(Refused::Environments { held: held.environments, limit });
        }
        let memory_bytes = held.memory_bytes.saturating_add(memory);
        if let Some(limit) = self.memory_bytes.filter(|limit| memory_bytes > *limit || held.memory_bytes >= *limit) {
            return Err(Refused::Memory { held: held.memory_bytes, asked: memory, limit });
        }
        self.more_data(held)
    }

    /// Whether more data may be held: a reset, a snapshot.
    ///
    /// # Errors
    /// No more disk.
    pub fn more_data(&self, held: &Held) -> Result<(), Refused> {
        match self.disk_bytes.filter(|limit| held.disk_bytes >= *limit) {
            Some(limit) => Err(Refused::Disk { held: held.disk_bytes, limit }),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environments { held, limit } => write!(f, "{held} of {limit} environments"),
            Self::Memory { held, asked: 0, limit } => write!(f, "{} of {} of memory", size(*held), size(*limit)),
            Self::Memory { held, asked, limit } => {
                write!(f, "{} of {} of memory, and {} more would be needed", size(*held), size(*limit), size(*asked))
            }
            Self::Disk { held, limit } => write!(f, "{} of {} of disk", size(*held), size(*limit)),
        }
    }
}

/// How full a quota is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Fill {
    /// There is room.
    Room,
    /// Its owner is warned.
    Near,
    /// Nothing more.
    Full,
}

/// How full `held` of `limit` is; without a limit there is room.
#[must_use]
pub fn fill(held: u64, limit: Option<u64>) -> Fill {
    match limit {
        Some(limit) if held >= limit => Fill::Full,
        Some(limit) if held.saturating_mul(100) / NEAR >= limit => Fill::Near,
        _ => Fill::Room,
    }
}

/// `1.5 GB`, for people.
#[must_use]
pub fn size(bytes: u64) -> String {
    let tenths = |unit: u64| {
        let tenths = bytes / (unit / 10);
        format!("{}.{}", tenths / 10, tenths % 10)
    };
    match bytes {
        1_000_000_000.. => format!("{} GB", tenths(1_000_000_000)),
        1_000_000.. => format!("{} MB", tenths(1_000_000)),
        _ => format!("{} kB", tenths(1_000)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GB: u64 = 1_000_000_000;

    fn limits() -> Limits {
        Limits { environments: Some(3), memory_bytes: Some(8 * GB), disk_bytes: Some(10 * GB) }
    }

    #[test]
    fn each_limit_refuses_by_itself_and_says_what_is_held() {
        let held = Held { environments: 2, memory_bytes: 6 * GB, disk_bytes: GB };
        let said = |held: &Held, memory| limits().one_more(held, memory).map_err(|why| why.to_string());
        assert_eq!(said(&held, 2 * GB), Ok(()));
        assert_eq!(
            said(&held, 2 * GB + 1),
            Err("6.0 GB of 8.0 GB of memory, and 2.0 GB more would be needed".to_owned())
        );
        assert_eq!(said(&Held { environments: 3, ..held }, 0), Err("3 of 3 environments".to_owned()));
        assert_eq!(said(&Held { memory_bytes: 8 * GB, ..held }, 0), Err("8.0 GB of 8.0 GB of memory".to_owned()));
        assert_eq!(said(&Held { disk_bytes: 11 * GB, ..held }, 0), Err("11.0 GB of 10.0 GB of disk".to_owned()));
        let full = Held { environments: 9, memory_bytes: u64::MAX, disk_bytes: u64::MAX };
        assert_eq!(Limits::default().one_more(&full, u64::MAX), Ok(()));
        assert!(limits().more_data(&Held { environments: 9, ..held }).is_ok());
    }

    #[test]
    fn a_quota_warns_before_it_is_full() {
        let at = |held| fill(held, Some(1000));
        assert_eq!((at(799), at(800), at(999), at(1000)), (Fill::Room, Fill::Near, Fill::Near, Fill::Full));
        assert_eq!((fill(u64::MAX, None), fill(0, Some(0))), (Fill::Room, Fill::Full));
        assert_eq!((size(999), size(1_500_000), size(2 * GB)), ("0.9 kB".into(), "1.5 MB".into(), "2.0 GB".into()));
    }
}
