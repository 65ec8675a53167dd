//! What the pool needs now and then: room, bytes given back, and figures.

use std::path::PathBuf;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Pool;
use super::backend::Usage;

/// How often it is looked whether something is needed.
const EVERY: Duration = Duration::from_secs(30);
/// How often bytes are given back at most.
const TRIM_EVERY: Duration = Duration::from_secs(600);
/// How often everything is measured.
const MEASURE_EVERY: Duration = Duration::from_secs(300);

/// What is remembered between two looks.
#[derive(Debug, Default)]
pub struct Upkeep {
    /// Bytes of everything, as last measured.
    pub measured: Usage,
    /// Something was removed since bytes were last given back.
    pub removed: bool,
    /// It was below its floor at the last look.
    low: bool,
    trimmed_at: Option<Instant>,
    measured_at: Option<Instant>,
}

impl Pool {
    /// Looks after the pool for as long as it is polled.
    pub async fn keep(self: Arc<Self>) {
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let done = self
                .blocking(|pool| {
                    pool.check()?;
                    pool.look_after();
                    Ok(())
                })
                .await;
            if let Err(why) = done {
                tracing::error!(code = why.code(), %why, "the pool cannot be looked after");
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, Upkeep> {
        self.upkeep.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One look.
    pub(super) fn look_after(&self) {
        let space = self.space();
        if space.available < space.total / 5 {
            self.grow();
        }
        self.warn();
        let due = |last: Option<Instant>, every: Duration| last.is_none_or(|last| last.elapsed() >= every);
        let (trim, measure) = {
            let state = self.state();
            (state.removed && due(state.trimmed_at, TRIM_EVERY), due(state.measured_at, MEASURE_EVERY))
        };
        if trim {
            self.trim();
        }
        if measure {
            let measured = self.measure();
            let mut state = self.state();
            (state.measured, state.measured_at) = (measured, Some(Instant::now()));
        }
    }

    /// Says once that nothing new can be made, and once that it can again.
    fn warn(&self) {
        let (available, floor) = (self.available(), self.floor());
        let low = available < floor;
        if std::mem::replace(&mut self.state().low, low) == low {
            return;
        }
        let (available_mib, floor_mib) = (available >> 20, floor >> 20);
        if low {
            tracing::warn!(available_mib, floor_mib, "the pool is below its floor; nothing new is made in it");
        } else {
            tracing::info!(available_mib, "the pool has room again");
        }
    }

    /// Makes a loop file larger, if the disk under it has room for that.
    pub(super) fn grow(&self) {
        let Some(image) = &self.image else { return };
        match image.grow(self.floor()) {
            Ok(None) => tracing::debug!("the disk under the pool has no room for a larger one"),
            Ok(Some(bytes)) => tracing::info!(mib = bytes >> 20, "the pool was made larger"),
            Err(why) => tracing::warn!(code = why.code(), %why, "the pool cannot be made larger"),
        }
    }

    /// Gives bytes that nothing uses any more back to the disk under a loop file.
    pub(super) fn trim(&self) {
        {
            let mut state = self.state();
            (state.removed, state.trimmed_at) = (false, Some(Instant::now()));
        }
        if let Some(image) = &self.image
            && let Err(why) = image.trim()
        {
            tracing::warn!(code = why.code(), %why, "the pool's free bytes cannot be given back to its disk");
        }
    }

    /// Bytes of everything that is kept. What is removed meanwhile does not count.
    pub(super) fn measure(&self) -> Usage {
        let mut total = Usage::default();
        for folder in self.kept() {
            match self.backend.usage(&folder) {
                Ok(usage) => total += usage,
                Err(why) => tracing::debug!(folder = %folder.display(), %why, "not measured"),
            }
        }
        total
    }

    fn kept(&self) -> Vec<PathBuf> {
        let layout = self.layout();
        let folders = [layout.environments(), layout.seeds(), layout.snapshots()];
        let entries = folders.into_iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    }
}
