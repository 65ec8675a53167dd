//! Instants as values that are passed in.

use std::time::Duration;

/// Microseconds since the Unix epoch, by the clock of whoever made it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// This instant moved forward; saturates at the far end.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(micros(by)))
    }

    /// Time from `earlier` until this instant; zero if it lies after.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        let delta = self.0.saturating_sub(earlier.0);
        Duration::from_micros(u64::try_from(delta).unwrap_or(0))
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// Why a text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a duration; write a number and a unit, for example 500ms, 10s, 5m, 1h30m or 14d")]
pub struct ParseDurationError {
    /// What was given, cut to 64 characters.
    pub text: String,
}

/// Reads `1h30m`, `10s`, `500ms`, `14d`: numbers with a unit each, largest first is customary but not required.
/// At most 10 years. A bare `0` is allowed.
///
/// # Errors
/// The text is empty, has a number without a unit, an unknown unit, or is too long a time.
pub fn parse_duration(text: &str) -> Result<Duration, ParseDurationError> {
    let bad = || ParseDurationError { text: text.chars().take(64).collect() };
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    if rest.is_empty() || !rest.is_ascii() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let number: u64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let millis: u64 = match &rest[..end] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(bad()),
        };
        rest = &rest[end..];
        let part = number.checked_mul(millis).map(Duration::from_millis).ok_or_else(bad)?;
        total = total.checked_add(part).ok_or_else(bad)?;
    }
    if total > Duration::from_secs(10 * 366 * 86_400) {
        return Err(bad());
    }
    Ok(total)
}

/// Writes a duration as [`parse_duration`] reads it, with its two largest units: `1h30m`, `500ms`, `14d`.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
    let mut left = duration.as_millis();
    let mut text = String::new();
    let mut parts = 0;
    for (unit, millis) in units {
        if left >= millis && parts < 2 {
            text.push_str(&format!("{}{unit}", left / millis));
            left %= millis;
            parts += 1;
        } else if parts > 0 {
            // Only neighbours: nobody reads `2d5s`.
            break;
        }
    }
    if text.is_empty() { "0".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_their_units() {
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
    }

    #[test]
    fn durations_are_written_as_they_are_read() {
        for text in ["0", "1ms", "500ms", "10s", "1m30s", "10m", "2h", "1h30m", "14d"] {
            assert_eq!(format_duration(parse_duration(text).expect("a duration")), text);
        }
        assert_eq!(format_duration(Duration::from_secs(2 * 86_400 + 5)), "2d");
    }

    #[test]
    fn durations_without_a_unit_or_too_long_are_refused() {
        for text in ["", "10", "-1s", "1y", "s", "99999999999999999999s", "1e9h", "P1D", "４s"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
