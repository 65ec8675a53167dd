//! Why something of an environment could not be done.

use std::io;
use std::path::Path;

use crate::{engine, pool, routes, state};

/// Of a pool without room.
const NO_ROOM: &str = "E_POOL_FULL";

/// A reason code with a text for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {text}")]
pub struct Failure {
    /// Stable.
    pub code: String,
    /// What happened, where, and what to do.
    pub text: String,
    /// Trying again may help.
    pub passes: bool,
}

impl Failure {
    /// One that stays until something else is ordered.
    pub fn lasting(code: &str, text: impl Into<String>) -> Self {
        Self { code: code.to_owned(), text: text.into(), passes: false }
    }

    /// One that may be gone at the next attempt.
    pub fn passing(code: &str, text: impl Into<String>) -> Self {
        Self { code: code.to_owned(), text: text.into(), passes: true }
    }

    /// What `what` ran into at `path` in the pool; a full disk is told as such.
    pub fn at(what: &str, path: &Path, why: io::Error) -> Self {
        pool::Error::at(what, path)(why).into()
    }

    /// It passes only when somebody makes room: whoever waits is told, and it is tried again now and then.
    #[must_use]
    pub fn needs_room(&self) -> bool {
        self.code == NO_ROOM
    }
}

impl From<engine::Error> for Failure {
    fn from(why: engine::Error) -> Self {
        let passes = matches!(why, engine::Error::Away(_));
        Self { code: why.code().to_owned(), text: why.to_string(), passes }
    }
}

impl From<routes::Error> for Failure {
    fn from(why: routes::Error) -> Self {
        Self { code: why.code().to_owned(), text: why.to_string(), passes: true }
    }
}

impl From<pool::Error> for Failure {
    fn from(why: pool::Error) -> Self {
        Self { code: why.code().to_owned(), text: why.to_string(), passes: why.passes() }
    }
}

impl From<state::Error> for Failure {
    fn from(why: state::Error) -> Self {
        let text = why.to_string();
        let text = text.strip_prefix(why.code()).map_or(text.as_str(), |rest| rest.trim_start_matches(": "));
        Self::passing(why.code(), text)
    }
}

impl From<crate::policy::Denied> for Failure {
    fn from(why: crate::policy::Denied) -> Self {
        Self::lasting("E_POLICY", why.to_string())
    }
}
