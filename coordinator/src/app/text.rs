//! Limits of texts that come from outside.

use std::collections::BTreeMap;

use crate::error::{Code, Error, Result};

/// One line of at most so many characters, without control characters.
#[must_use]
pub fn line(text: &str, chars: usize) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(chars).collect()
}

/// Refuses a text of more than so many bytes.
///
/// # Errors
/// `E_TOO_LARGE`.
pub fn at_most(what: &str, text: &str, bytes: usize) -> Result<()> {
    if text.len() <= bytes {
        return Ok(());
    }
    Err(Error::new(Code::TOO_LARGE, format!("{what} has {} bytes, at most {bytes} are allowed", text.len())))
}

/// Refuses a map with more than so many entries, or more than so many bytes in all.
///
/// # Errors
/// `E_TOO_LARGE`.
pub fn map_at_most(what: &str, map: &BTreeMap<String, String>, entries: usize, bytes: usize) -> Result<()> {
    if map.len() > entries {
        return Err(Error::new(
            Code::TOO_LARGE,
            format!("{what} has {} entries, at most {entries} are allowed", map.len()),
        ));
    }
    let total: usize = map.iter().map(|(key, value)| key.len() + value.len()).sum();
    if total > bytes {
        return Err(Error::new(Code::TOO_LARGE, format!("{what} has {total} bytes, at most {bytes} are allowed")));
    }
    Ok(())
}

/// Refuses what is not one line of at most so many characters.
///
/// # Errors
/// `E_FIELD`, `E_TOO_LARGE`.
pub fn one_line(what: &str, text: &str, chars: usize) -> Result<()> {
    at_most(what, text, chars * 4)?;
    if text.chars().any(char::is_control) {
        return Err(Error::new(Code::FIELD, format!("{what} must be one line without control characters")));
    }
    Ok(())
}

/// What a finer `E_TTL` says, or the lifetime in microseconds; 0 takes the default.
///
/// # Errors
/// `E_TTL` outside 1 s to the maximum.
pub fn ttl(micros: u64, default: std::time::Duration, max: std::time::Duration) -> Result<std::time::Duration> {
    if micros == 0 {
        return Ok(default);
    }
    let asked = std::time::Duration::from_micros(micros);
    if asked < std::time::Duration::from_secs(1) || asked > max {
        let text = format!("a lifetime of {} s is not between 1 s and {} s", asked.as_secs_f64(), max.as_secs());
        return Err(Error::new(Code::TTL, text));
    }
    Ok(asked)
}
