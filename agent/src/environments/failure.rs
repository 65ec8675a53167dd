//! Why something of an environment could not be done.

use crate::{engine, pool, routes, state};

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
        Self::passing("E_STATE", why.to_string())
    }
}

impl From<crate::policy::Denied> for Failure {
    fn from(why: crate::policy::Denied) -> Self {
        Self::lasting("E_POLICY", why.to_string())
    }
}
