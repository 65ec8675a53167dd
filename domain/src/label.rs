//! Labels of hosts, and selectors over them.

use std::collections::BTreeMap;
use std::fmt;

/// Why a text is not a label or a selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// A key or value is outside the grammar.
    #[error(
        "{part:?} is not a label key or value; use 1 to 63 characters a-z, A-Z, 0-9, '-', '_' and '.', beginning and ending with a letter or digit"
    )]
    Grammar {
        /// What was given, cut to 64 characters.
        part: String,
    },
    /// A part of the text has no `=`.
    #[error("{part:?} is not KEY=VALUE")]
    NoValue {
        /// The part, cut to 64 characters.
        part: String,
    },
    /// A key stands twice.
    #[error("the key {key:?} stands twice")]
    Twice {
        /// The key.
        key: String,
    },
    /// A selector without any term would match every host.
    #[error("an empty selector would match every host; write at least one KEY=VALUE")]
    Empty,
}

/// Labels of one host: given by the coordinator, never claimed by the agent.
pub type Labels = BTreeMap<String, String>;

/// Reads `a=1,b=2` (also an empty text: no labels).
///
/// # Errors
/// See [`LabelError`].
pub fn parse_labels(text: &str) -> Result<Labels, LabelError> {
    let mut labels = Labels::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (key, value) = pair(part)?;
        if labels.insert(key.clone(), value).is_some() {
            return Err(LabelError::Twice { key });
        }
    }
    Ok(labels)
}

/// All of the pairs must be among a host's labels.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Selector(BTreeMap<String, String>);

impl Selector {
    /// Reads `app=bot,env=production`.
    ///
    /// # Errors
    /// See [`LabelError`]; an empty selector is refused.
    pub fn parse(text: &str) -> Result<Self, LabelError> {
        let terms = parse_labels(text)?;
        if terms.is_empty() { Err(LabelError::Empty) } else { Ok(Self(terms)) }
    }

    /// Whether every term is among `labels`.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|(key, value)| labels.get(key) == Some(value))
    }

    /// The terms that `labels` lack, as `key=value`.
    #[must_use]
    pub fn missing(&self, labels: &Labels) -> Vec<String> {
        let lacks = |(key, value): &(&String, &String)| labels.get(*key) != Some(*value);
        self.0.iter().filter(lacks).map(|(key, value)| format!("{key}={value}")).collect()
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_pairs(&self.0, ",", f)
    }
}

fn write_pairs(pairs: &BTreeMap<String, String>, separator: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (n, (key, value)) in pairs.iter().enumerate() {
        let before = if n == 0 { "" } else { separator };
        write!(f, "{before}{key}={value}")?;
    }
    Ok(())
}

fn pair(part: &str) -> Result<(String, String), LabelError> {
    let cut = || part.chars().take(64).collect();
    let (key, value) = part.split_once('=').ok_or_else(|| LabelError::NoValue { part: cut() })?;
    for text in [key, value] {
        check(text)?;
    }
    Ok((key.to_owned(), value.to_owned()))
}

fn check(text: &str) -> Result<(), LabelError> {
    let bytes = text.as_bytes();
    let inner = |b: &u8| b.is_ascii_alphanumeric() || matches!(*b, b'-' | b'_' | b'.');
    let good = (1..=63).contains(&bytes.len())
        && bytes[0].is_ascii_alphanumeric()
        && bytes[bytes.len() - 1].is_ascii_alphanumeric()
        && bytes.iter().all(inner);
    if good { Ok(()) } else { Err(LabelError::Grammar { part: text.chars().take(64).collect() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_matches_hosts_that_have_all_its_pairs() {
        let labels = parse_labels("app=bot,env=production,zone=a").unwrap();
        assert!(Selector::parse("env=production,app=bot").unwrap().matches(&labels));
        let other = Selector::parse("app=bot,env=staging").unwrap();
        assert!(!other.matches(&labels));
        assert_eq!(other.missing(&labels), vec!["env=staging"]);
    }

    #[test]
    fn malformed_labels_and_selectors_are_refused() {
        assert_eq!(Selector::parse(""), Err(LabelError::Empty));
        for text in ["a", "a=", "=b", "a=b=c", "a=b,a=c", "a=$(x)", "-a=b", "a=é"] {
            assert!(parse_labels(text).is_err(), "{text:?}");
        }
    }
}
