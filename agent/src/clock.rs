//! The machine's clocks. Everything that decides gets its time from here and passes it on.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use domain::time::Timestamp;
use rustix::time::{ClockId, clock_gettime};

/// Wall clock, microseconds since 1970. Only for people and for files; deadlines use [`boot_time`].
#[must_use]
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// Time since boot, sleep included (`CLOCK_BOOTTIME`): comparable within one boot only.
#[must_use]
pub fn boot_time() -> Duration {
    let at = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(at.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(at.tv_nsec).unwrap_or(0);
    Duration::new(seconds, nanos)
}

/// Fills with random bytes of the operating system.
///
/// # Errors
/// The operating system gives none.
pub fn random<const N: usize>() -> std::io::Result<[u8; N]> {
    let mut bytes = [0_u8; N];
    getrandom::fill(&mut bytes).map_err(|why| std::io::Error::other(why.to_string()))?;
    Ok(bytes)
}

/// A random duration from zero up to `limit`; for jitter only.
#[must_use]
pub fn jitter(limit: Duration) -> Duration {
    let bytes = random::<8>().unwrap_or_default();
    let share = u64::from_le_bytes(bytes) >> 11;
    // 53 bits are what a double holds exactly.
    #[expect(clippy::cast_precision_loss, reason = "at most 53 bits")]
    let share = share as f64 / (1_u64 << 53) as f64;
    limit.mul_f64(share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_below_its_limit_and_differs() {
        let limit = Duration::from_secs(2);
        let drawn: Vec<_> = (0..20).map(|_| jitter(limit)).collect();
        assert!(drawn.iter().all(|one| *one < limit));
        assert!(drawn.iter().any(|one| *one != drawn[0]));
    }
}
