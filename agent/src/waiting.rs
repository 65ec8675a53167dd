//! Waiting in tests for what another task or process brings about.

use std::time::{Duration, Instant};

/// Longer than anything in a test takes.
const LONG: Duration = Duration::from_secs(30);
/// Between two looks at something that cannot tell by itself: a file, a process, another program's answer.
const LOOK: Duration = Duration::from_millis(3);

/// What `condition` gives, as soon as it gives something.
///
/// # Panics
/// It gave nothing within 30 s.
pub async fn wait_for<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + LONG;
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(Instant::now() < end, "{what}: not within {LONG:?}");
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits until `condition` holds.
///
/// # Panics
/// It did not within 30 s.
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    wait_for(what, async || condition().await.then_some(())).await;
}
