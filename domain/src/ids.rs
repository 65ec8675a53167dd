//! A typed id per noun, so that a host id can never be passed for a run id.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// The text is not an id of the noun.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a {noun} id")]
pub struct ParseIdError {
    /// The noun whose id was expected, for example `host`.
    pub noun: &'static str,
    /// What was given, cut to 64 characters.
    pub text: String,
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $noun:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// Wraps a UUID made at the edge (UUIDv7).
            #[must_use]
            pub const fn new(uuid: Uuid) -> Self { Self(uuid) }
            /// The UUID itself.
            #[must_use]
            pub const fn uuid(self) -> Uuid { self.0 }
            /// The last 12 hexadecimal digits: the first 8 of a UUIDv7 repeat for a minute.
            #[must_use]
            pub fn short(self) -> String {
                let text = self.0.simple().to_string();
                text[20..].to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { self.0.hyphenated().fmt(f) }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($noun, ":{}"), self.0.hyphenated())
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::try_parse(text).map(Self).map_err(|_| ParseIdError {
                    noun: $noun,
                    text: text.chars().take(64).collect(),
                })
            }
        }
    )*};
}

ids! {
    /// A machine with an agent.
    HostId = "host";
    /// A person or a service that acts.
    PrincipalId = "principal";
    /// A secret with which a principal calls.
    ApiTokenId = "api-token";
    /// A one-time secret with which a host joins.
    JoinTokenId = "join-token";
    /// What came out of an app at one commit.
    BuildId = "build";
    /// An immutable, numbered thing that is rolled out to one target.
    ReleaseId = "release";
    /// One running copy of a stack on one host.
    EnvironmentId = "environment";
    /// One execution of named tests for one subject.
    RunId = "run";
    /// The moving of a target's members from their release to another.
    RolloutId = "rollout";
    /// Data for the stores of a stack, or a snapshot of it.
    SeedId = "seed";
    /// One line of the ledger.
    EventId = "event";
}

/// Orders and observations of one object carry its generation; an agent refuses a lower one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Generation(pub u64);

impl Generation {
    /// The generation after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Who orders: agents refuse a lower epoch within an incarnation, and another incarnation of the same number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Fence {
    /// 1 when the cluster is made; raised by `muster restore`.
    pub incarnation: u64,
    /// The random id of that incarnation: the same number with another id is refused.
    pub incarnation_id: Uuid,
    /// Rises at every start or take-over of a coordinator.
    pub epoch: u64,
}
