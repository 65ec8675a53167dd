//! Message ⇄ domain, one file per noun.

pub mod environment;
pub mod host;
pub mod release;
pub mod run;
pub mod seed;
pub mod step;

/// A message cannot be a domain value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A field that must be there is not.
    #[error("field {0} is missing")]
    Missing(&'static str),
    /// A field has a value that it cannot have.
    #[error("field {field}: {why}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// Why not.
        why: String,
    },
}

impl Error {
    /// A field with a value that it cannot have.
    pub fn invalid(field: &'static str, why: impl std::fmt::Display) -> Self {
        Self::Invalid { field, why: why.to_string() }
    }
}

/// Microseconds on the wire.
#[must_use]
pub fn micros(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// A duration from microseconds on the wire; what is longer than ten years is cut to that.
#[must_use]
pub fn duration(micros: u64) -> std::time::Duration {
    std::time::Duration::from_micros(micros.min(10 * 366 * 86_400 * 1_000_000))
}

/// Reads a typed id out of a field.
///
/// # Errors
/// The text is not an id of that noun.
pub fn id<T: std::str::FromStr<Err = domain::ids::ParseIdError>>(field: &'static str, text: &str) -> Result<T, Error> {
    text.parse().map_err(|why| Error::invalid(field, why))
}

/// `None` for an empty text.
#[must_use]
pub fn optional(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

pub(crate) fn port(field: &'static str, number: u32) -> Result<u16, Error> {
    u16::try_from(number).map_err(|_| Error::invalid(field, "a port is 1 to 65535"))
}
