//! Waiting for what should become true.

use std::time::{Duration, Instant};

/// How long whatever should be quick may take on a busy machine.
pub const SOON: Duration = Duration::from_secs(60);

/// The longest pause between two looks at what should become true.
const LONGEST: Duration = Duration::from_millis(300);

/// What `look` finds; none: it found nothing within `limit`. Looks again after each `pause`, or after as long as a look
/// takes: whoever waits by starting programs leaves the processor to those it waits for.
pub fn within<T>(limit: Duration, pause: Duration, look: impl FnMut() -> Option<T>) -> Option<T> {
    looks(limit, |_| pause, look)
}

/// The same with a pause that follows from how long it waits already.
fn looks<T>(limit: Duration, pause: impl Fn(Duration) -> Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let begun = Instant::now();
    loop {
        let began = Instant::now();
        let found = look();
        if found.is_some() || begun.elapsed() >= limit {
            return found;
        }
        std::thread::sleep(began.elapsed().max(pause(begun.elapsed())));
    }
}

/// Looks again and again until `look` has something, the less often the longer it waits: a look mostly starts a
/// program.
///
/// # Panics
/// It had nothing within `limit`; the message names what was waited for and the last reason why not.
pub fn eventually<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let mut last = String::new();
    let pause = |waited: Duration| (waited / 10).clamp(Duration::from_millis(20), LONGEST);
    let found = looks(limit, pause, || look().map_err(|why| last = why).ok());
    found.unwrap_or_else(|| panic!("not within {limit:?}: {what}; last: {last}"))
}

/// Looks again and again until `is` holds.
///
/// # Panics
/// It did not within `limit`.
pub fn until(limit: Duration, what: &str, mut is: impl FnMut() -> bool) {
    eventually(limit, what, || if is() { Ok(()) } else { Err("not so".to_owned()) });
}

/// The same for what is timed: looks every millisecond.
///
/// # Panics
/// It did not hold within [`SOON`].
pub fn closely(what: &str, mut is: impl FnMut() -> bool) {
    assert!(within(SOON, Duration::from_millis(1), || is().then_some(())).is_some(), "not within {SOON:?}: {what}");
}
