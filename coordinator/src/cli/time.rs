//! Times and durations for people.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::error::Error;

/// Now, microseconds since the Unix epoch by this machine's clock.
#[must_use]
pub fn now_micros() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// `4 ms`, `0.31 s`, `6.2 s`, `3 m 20 s`, `12 h`, `9 d`.
#[must_use]
pub fn duration(micros: u64) -> String {
    let d = Duration::from_micros(micros);
    let seconds = d.as_secs();
    match micros {
        0..1_000 => format!("{micros} us"),
        1_000..100_000 => format!("{} ms", d.as_millis()),
        100_000..10_000_000 => format!("{:.2} s", d.as_secs_f64()),
        _ if seconds < 60 => format!("{:.1} s", d.as_secs_f64()),
        _ if seconds < 3_600 => format!("{} m {} s", seconds / 60, seconds % 60),
        _ if seconds < 172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// How long ago `at` (microseconds since the epoch) was; `–` for 0.
#[must_use]
pub fn ago(at: i64) -> String {
    if at == 0 {
        return "–".to_owned();
    }
    let micros = u64::try_from(now_micros().saturating_sub(at)).unwrap_or(0);
    match micros / 1_000_000 {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds @ 60..3_600 => format!("{} m", seconds / 60),
        seconds @ 3_600..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

/// UTC `2026-11-23 09:14:18`; `–` for 0.
#[must_use]
pub fn stamp(at: i64) -> String {
    format_time(at, time::macros::format_description!("[year]-[month]-[day] [hour]:[minute]:[second]"))
}

/// UTC `09:14:18`.
#[must_use]
pub fn clock(at: i64) -> String {
    format_time(at, time::macros::format_description!("[hour]:[minute]:[second]"))
}

fn format_time(at: i64, format: &[time::format_description::BorrowedFormatItem<'_>]) -> String {
    if at == 0 {
        return "–".to_owned();
    }
    time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(at) * 1_000)
        .ok()
        .and_then(|instant| instant.format(format).ok())
        .unwrap_or_else(|| at.to_string())
}

/// Reads a flag such as `10m`.
///
/// # Errors
/// It is not a duration.
pub fn parse(flag: &str, text: &str) -> Result<u64, Error> {
    let duration =
        domain::time::parse_duration(text).map_err(|why| Error::usage("E_DURATION", format!("{flag}: {why}")))?;
    Ok(proto::convert::micros(duration))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_in_the_tour() {
        assert_eq!(duration(4_000), "4 ms");
        assert_eq!(duration(310_000), "0.31 s");
        assert_eq!(duration(10_000_000), "10.0 s");
        assert_eq!(duration(291_000_000), "4 m 51 s");
    }

    #[test]
    fn stamps_are_utc() {
        assert_eq!(stamp(1_763_888_058_000_000), "2025-11-23 08:54:18");
        assert_eq!(stamp(0), "–");
    }
}
