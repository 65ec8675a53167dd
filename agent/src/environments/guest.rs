//! Whoever needs an environment awake: a command that runs in it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use domain::environment::EnvironmentState;
use tokio::sync::watch;

use super::View;

/// Keeps an environment awake until it is dropped.
#[derive(Debug)]
pub struct Guest {
    guests: Arc<AtomicU64>,
    view: watch::Receiver<View>,
}

impl Guest {
    pub(super) fn new(guests: &Arc<AtomicU64>, view: watch::Receiver<View>) -> Self {
        guests.fetch_add(1, SeqCst);
        Self { guests: Arc::clone(guests), view }
    }

    /// Waits until it does not sleep and is not on its way up.
    pub async fn awake(&self) {
        let mut view = self.view.clone();
        let there = |view: &View| {
            matches!(view.observed.state, EnvironmentState::Ready | EnvironmentState::Failed | EnvironmentState::Gone)
        };
        // An error means that nothing of it is left.
        let _ = view.wait_for(there).await;
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.guests.fetch_sub(1, SeqCst);
    }
}
