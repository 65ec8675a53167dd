//! Waiting for what should become true.

use std::time::{Duration, Instant};

/// How long whatever should be quick may take on a busy machine.
pub const SOON: Duration = Duration::from_secs(60);

/// Looks again and again until `look` has something.
///
/// # Panics
/// It had nothing within `limit`; the message names what was waited for and the last reason why not.
pub fn eventually<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + limit;
    loop {
        match look() {
            Ok(found) => return found,
            Err(why) => assert!(Instant::now() < end, "not within {limit:?}: {what}; last: {why}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Looks again and again until `is` holds.
///
/// # Panics
/// It did not within `limit`.
pub fn until(limit: Duration, what: &str, mut is: impl FnMut() -> bool) {
    eventually(limit, what, || if is() { Ok(()) } else { Err("not so".to_owned()) });
}
