//! Removing what is old. Every growing table has a limit.

use std::time::Duration;

use async_trait::async_trait;
use domain::time::Timestamp;

use super::error::Result;

const DAY: Duration = Duration::from_secs(86_400);

/// For how long things are kept after they ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Keep {
    /// Events.
    pub events: Duration,
    /// Runs, with the index of their logs.
    pub runs: Duration,
    /// Rollouts, with their steps and evidence.
    pub rollouts: Duration,
    /// The newest so many rollouts of each target are kept whatever their age.
    pub rollouts_per_target: u32,
    /// Environments that are gone, with their sealed credentials.
    pub environments: Duration,
    /// Seeds and snapshots that failed or were removed.
    pub seeds: Duration,
    /// Idempotency keys.
    pub idempotency: Duration,
    /// Tokens that were used, were revoked or have expired.
    pub tokens: Duration,
    /// At most so many rows of a table in one transaction, so that no writer waits long.
    pub batch: u32,
}

impl Default for Keep {
    fn default() -> Self {
        Self {
            events: DAY * 365,
            runs: DAY * 90,
            rollouts: DAY * 365,
            rollouts_per_target: 100,
            environments: DAY * 30,
            seeds: DAY * 7,
            idempotency: DAY * 7,
            tokens: DAY * 90,
            batch: 500,
        }
    }
}

/// What was removed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Removed {
    /// Events.
    pub events: u64,
    /// Runs.
    pub runs: u64,
    /// Rollouts.
    pub rollouts: u64,
    /// Environments.
    pub environments: u64,
    /// Seeds and snapshots.
    pub seeds: u64,
    /// Idempotency keys.
    pub idempotency: u64,
    /// Tokens.
    pub tokens: u64,
    /// Paths in the artifact store whose log segments are no longer indexed: remove them there.
    pub log_paths: Vec<String>,
    /// A table had more than a batch: call again.
    pub more: bool,
}

/// Removing what is old.
#[async_trait]
pub trait RetentionWrites: Send {
    /// Removes what ended longer ago than `keep` says; never what has not ended, and never the steps and evidence of
    /// the newest rollouts of a target.
    async fn retention_run(&mut self, now: Timestamp, keep: &Keep) -> Result<Removed>;
}

/// Instants before which things are old.
pub(crate) struct Cutoffs {
    pub(crate) events: Timestamp,
    pub(crate) runs: Timestamp,
    pub(crate) rollouts: Timestamp,
    pub(crate) environments: Timestamp,
    pub(crate) seeds: Timestamp,
    pub(crate) idempotency: Timestamp,
    pub(crate) tokens: Timestamp,
}

impl Cutoffs {
    pub(crate) fn new(now: Timestamp, keep: &Keep) -> Self {
        let ago = |time: Duration| Timestamp(now.0.saturating_sub(i64::try_from(time.as_micros()).unwrap_or(i64::MAX)));
        Self {
            events: ago(keep.events),
            runs: ago(keep.runs),
            rollouts: ago(keep.rollouts),
            environments: ago(keep.environments),
            seeds: ago(keep.seeds),
            idempotency: ago(keep.idempotency),
            tokens: ago(keep.tokens),
        }
    }
}
