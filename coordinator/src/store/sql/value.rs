//! Values bound to statements.

use std::time::Duration;

use domain::ids::{
    ApiTokenId, BuildId, EnvironmentId, EventId, Generation, HostId, JoinTokenId, PrincipalId, ReleaseId, RolloutId,
    RunId, SeedId,
};
use domain::name::Name;
use domain::release::{Commit, Digest};
use domain::time::Timestamp;
use sqlx::Any;
use sqlx::any::AnyArguments;
use sqlx::query::Query;

use super::super::document::{self, Document, Word};
use super::super::error::{Error, Result};

/// A value bound to a statement. Any driver knows these three, and their absence.
pub(crate) enum Value {
    Text(Option<String>),
    Int(Option<i64>),
    Bytes(Vec<u8>),
    /// It cannot be stored: why.
    Bad(String),
}

/// A list of values.
macro_rules! values {
    ($($value:expr),* $(,)?) => { vec![$($crate::store::sql::Value::from($value)),*] };
}
pub(crate) use values;

/// Binds values in order.
pub(super) fn bind(
    table: &'static str,
    mut query: Query<'static, Any, AnyArguments>,
    values: Vec<Value>,
) -> Result<Query<'static, Any, AnyArguments>> {
    for value in values {
        query = match value {
            // PostgreSQL has no NUL in text; what people and programs write must not fail a transaction.
            Value::Text(text) => query.bind(text.map(|text| text.replace('\0', "\u{fffd}"))),
            Value::Int(number) => query.bind(number),
            Value::Bytes(bytes) => query.bind(bytes),
            Value::Bad(what) => return Err(Error::Unstorable { table, key: String::new(), what }),
        };
    }
    Ok(query)
}

impl Value {
    /// The JSON text of a value.
    pub(crate) fn json<T: Document>(value: &T) -> Self {
        match document::write(value) {
            Ok(text) => Self::Text(Some(text)),
            Err(what) => Self::Bad(what),
        }
    }

    /// The JSON text of a value, if there is one.
    pub(crate) fn json_or_null<T: Document>(value: Option<&T>) -> Self {
        value.map_or(Self::Text(None), Self::json)
    }

    /// A word.
    pub(crate) fn word<T: Word>(value: T) -> Self {
        Self::Text(Some(value.word().to_owned()))
    }

    /// A word, if there is one.
    pub(crate) fn word_or_null<T: Word>(value: Option<T>) -> Self {
        Self::Text(value.map(|value| value.word().to_owned()))
    }

    fn unsigned(number: u64) -> Self {
        match i64::try_from(number) {
            Ok(number) => Self::Int(Some(number)),
            Err(_) => Self::Bad(format!("{number} is above 2^63")),
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(Some(text.to_owned()))
    }
}

impl From<&String> for Value {
    fn from(text: &String) -> Self {
        Self::Text(Some(text.clone()))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(Some(text))
    }
}

impl From<Option<String>> for Value {
    fn from(text: Option<String>) -> Self {
        Self::Text(text)
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Int(Some(i64::from(flag)))
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Int(Some(i64::from(number)))
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(Some(number))
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::unsigned(number)
    }
}

impl From<Option<i32>> for Value {
    fn from(number: Option<i32>) -> Self {
        Self::Int(number.map(i64::from))
    }
}

impl From<Generation> for Value {
    fn from(generation: Generation) -> Self {
        Self::unsigned(generation.0)
    }
}

impl From<Timestamp> for Value {
    fn from(at: Timestamp) -> Self {
        Self::Int(Some(at.0))
    }
}

impl From<Option<Timestamp>> for Value {
    fn from(at: Option<Timestamp>) -> Self {
        Self::Int(at.map(|at| at.0))
    }
}

impl From<Option<Duration>> for Value {
    fn from(time: Option<Duration>) -> Self {
        Self::Int(time.map(|time| i64::try_from(time.as_micros()).unwrap_or(i64::MAX)))
    }
}

impl From<&Digest> for Value {
    fn from(digest: &Digest) -> Self {
        Self::from(digest.hex())
    }
}

impl From<Option<&Digest>> for Value {
    fn from(digest: Option<&Digest>) -> Self {
        Self::Text(digest.map(|digest| digest.hex().to_owned()))
    }
}

impl From<&Commit> for Value {
    fn from(commit: &Commit) -> Self {
        Self::from(commit.as_str())
    }
}

impl From<&Name> for Value {
    fn from(name: &Name) -> Self {
        Self::from(name.as_str())
    }
}

impl From<Option<&Name>> for Value {
    fn from(name: Option<&Name>) -> Self {
        Self::Text(name.map(ToString::to_string))
    }
}

macro_rules! ids {
    ($($id:ty),*) => {$(
        impl From<$id> for Value {
            fn from(id: $id) -> Self {
                Self::Text(Some(id.to_string()))
            }
        }

        impl From<Option<$id>> for Value {
            fn from(id: Option<$id>) -> Self {
                Self::Text(id.map(|id| id.to_string()))
            }
        }
    )*};
}
ids!(
    ApiTokenId,
    BuildId,
    EnvironmentId,
    EventId,
    HostId,
    JoinTokenId,
    PrincipalId,
    ReleaseId,
    RolloutId,
    RunId,
    SeedId
);
