//! The one grammar of names that people give: apps, targets, processes, services, hosts, environments.

use std::fmt;

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{what} {text:?} is not a name; use 1 to 63 characters a-z, 0-9 and '-', beginning with a letter and not ending with '-'"
)]
pub struct NameError {
    /// What was to be named, for example `app`.
    pub what: &'static str,
    /// What was given, cut to 64 characters; shown escaped.
    pub text: String,
}

/// A checked name: 1–63 characters `a-z`, `0-9`, `-`, beginning with a letter, not ending with `-`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

impl Name {
    /// Checks `text`; `what` names the thing in the error.
    ///
    /// # Errors
    /// The text does not follow the grammar.
    pub fn new(what: &'static str, text: &str) -> Result<Self, NameError> {
        let bytes = text.as_bytes();
        let allowed = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
        let good = (1..=63).contains(&bytes.len())
            && bytes[0].is_ascii_lowercase()
            && bytes[bytes.len() - 1] != b'-'
            && bytes.iter().all(allowed);
        if good { Ok(Self(text.to_owned())) } else { Err(NameError { what, text: text.chars().take(64).collect() }) }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// Where an app goes: `bot/production`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TargetRef {
    /// The app.
    pub app: Name,
    /// The target's name within the app.
    pub target: Name,
}

impl TargetRef {
    /// Reads `APP/TARGET`.
    ///
    /// # Errors
    /// There is not exactly one `/`, or a part is not a name.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let (app, target) = text
            .split_once('/')
            .ok_or_else(|| NameError { what: "target (APP/TARGET)", text: text.chars().take(64).collect() })?;
        Ok(Self { app: Name::new("app", app)?, target: Name::new("target", target)? })
    }
}

impl fmt::Display for TargetRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.app, self.target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_outside_the_grammar_are_refused() {
        for text in
            ["", "-rf", "A", "a b", "../x", "a/b", "é", "a-", "1a", &"a".repeat(64), "a\n", "$(x)", "a\u{202e}b"]
        {
            assert!(Name::new("app", text).is_err(), "{text:?}");
        }
        for text in ["a", "bot", "web-1", &"a".repeat(63)] {
            assert!(Name::new("app", text).is_ok(), "{text:?}");
        }
    }

    #[test]
    fn a_target_is_an_app_and_a_name() {
        assert_eq!(TargetRef::parse("bot/production").map(|t| t.to_string()), Ok("bot/production".to_owned()));
        for text in ["bot", "bot/", "/production", "a/b/c"] {
            assert!(TargetRef::parse(text).is_err(), "{text:?}");
        }
    }
}
