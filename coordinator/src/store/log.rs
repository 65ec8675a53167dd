//! Index of logs: their bytes lie in the artifact store as segments, rows hold offsets.

use async_trait::async_trait;
use domain::time::Timestamp;

use super::error::Result;

/// A piece of a log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogSegmentRow {
    /// The project.
    pub project: String,
    /// Which log, for example `run:<id>`.
    pub key: String,
    /// Offset of its first byte in the log.
    pub start: u64,
    /// How many bytes.
    pub bytes: u64,
    /// Where it lies in the artifact store.
    pub path: String,
    /// When it was stored.
    pub created_at: Timestamp,
}

/// Reading the index of logs.
#[async_trait]
pub trait LogReads: Send {
    /// The offset after the last stored byte; 0: none.
    async fn log_end(&mut self, key: &str) -> Result<u64>;
    /// The first `limit` segments that hold bytes at or after `from`, in order.
    async fn log_segment_list(&mut self, key: &str, from: u64, limit: u32) -> Result<Vec<LogSegmentRow>>;
}

/// Changing the index of logs.
#[async_trait]
pub trait LogWrites: Send {
    /// Appends a segment; `Conflict` unless it begins where the log ends.
    async fn log_segment_append(&mut self, row: &LogSegmentRow) -> Result<()>;
}
