//! Whoever needs an environment awake: a command that runs in it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use domain::environment::EnvironmentState;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard, watch};

use super::View;

/// Who is inside an environment, and whether it goes to sleep.
#[derive(Debug, Default)]
pub(super) struct Door {
    /// Guests there are.
    pub guests: AtomicU64,
    /// Those among them whose stay is no use of it.
    pub quiet: AtomicU64,
    /// It sleeps, or is about to.
    pub leaving: AtomicBool,
    /// Written while everything of it stands still, read while a command enters.
    still: RwLock<()>,
}

/// Keeps an environment awake until it is dropped.
#[derive(Debug)]
pub struct Guest {
    door: Arc<Door>,
    view: watch::Receiver<View>,
    quiet: bool,
}

impl Guest {
    pub(super) fn new(door: &Arc<Door>, view: watch::Receiver<View>, quiet: bool) -> Self {
        if quiet {
            door.quiet.fetch_add(1, SeqCst);
        }
        door.guests.fetch_add(1, SeqCst);
        Self { door: Arc::clone(door), view, quiet }
    }

    /// Waits until it does not sleep and is not on its way up.
    pub async fn awake(&self) {
        let mut view = self.view.clone();
        let there = |view: &View| {
            !self.door.leaving.load(SeqCst)
                && matches!(
                    view.observed.state,
                    EnvironmentState::Ready | EnvironmentState::Failed | EnvironmentState::Gone
                )
        };
        // An error means that nothing of it is left.
        let _ = view.wait_for(there).await;
    }
}

impl Guest {
    /// Waits until no command is just entering; none enters as long as this is held. A container that stands still lets
    /// nobody in: the engine refuses, and the command would end with status 126.
    pub async fn standing_still(&self) -> RwLockWriteGuard<'_, ()> {
        self.door.still.write().await
    }

    /// Waits until nothing stands still; nothing does as long as this is held.
    pub async fn entering(&self) -> RwLockReadGuard<'_, ()> {
        self.door.still.read().await
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.door.guests.fetch_sub(1, SeqCst);
        if self.quiet {
            self.door.quiet.fetch_sub(1, SeqCst);
        }
    }
}
