//! Durations as people write them: `500ms`, `10s`, `1m30s`, `2h`, `1d`.

use std::time::Duration;

const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60 * 1_000_000_000),
    ("h", 3_600 * 1_000_000_000),
    ("d", 86_400 * 1_000_000_000),
];

/// The text is not a duration.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a duration; write a number with its unit, for example 500ms, 10s, 1m30s or 2h")]
pub struct DurationError;

/// Reads one or more numbers with units (ns, us, ms, s, m, h, d), or a bare `0`. At most 64 characters, 584 years.
///
/// # Errors
/// The text is something else; a number without a unit, for example.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if text.is_empty() || text.len() > 64 {
        return Err(DurationError);
    }
    let mut rest = text;
    let mut nanos: u64 = 0;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or(DurationError)?;
        let (number, tail) = rest.split_at(number_end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let factor = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor).ok_or(DurationError)?;
        nanos = nanos.checked_add(scaled(number, factor).ok_or(DurationError)?).ok_or(DurationError)?;
        rest = tail;
    }
    Ok(Duration::from_nanos(nanos))
}

/// A decimal number times `factor`, rounded down; also reads sizes and CPUs.
pub(crate) fn scaled(number: &str, factor: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if whole.len() + fraction.len() == 0 || !digits(whole) || !digits(fraction) {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut part: u128 = 0;
    let mut scale: u128 = 1;
    for digit in fraction.bytes().take(18) {
        part = part * 10 + u128::from(digit - b'0');
        scale *= 10;
    }
    let part = u64::try_from(part * u128::from(factor) / scale).ok()?;
    whole.checked_mul(factor)?.checked_add(part)
}

/// A duration in the form that [`parse`] reads, in the largest units that keep it exact to the millisecond.
#[must_use]
pub fn human(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
    let mut rest = millis;
    let mut text = String::new();
    for (unit, size) in units {
        if rest >= size {
            text.push_str(&format!("{}{unit}", rest / size));
            rest %= size;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_their_units() {
        for (text, millis) in [
            ("0", 0),
            ("500ms", 500),
            ("10s", 10_000),
            ("1m30s", 90_000),
            ("1.5s", 1500),
            ("1d", 86_400_000),
            ("90000us", 90),
            (".5h", 1_800_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text:?}");
        }
        for text in
            ["", "10", "s", "10 s", "-1s", "1.2.3s", "1y", "9999999999999999999s", "1s5", "inf", &"1s".repeat(40)]
        {
            assert_eq!(parse(text), Err(DurationError), "{text:?}");
        }
    }

    #[test]
    fn durations_are_shown_as_they_are_read() {
        for text in ["0s", "500ms", "1m30s", "2h", "1d1ms"] {
            assert_eq!(human(parse(text).unwrap()), text);
        }
    }
}
