//! Index of logs: their bytes lie in the artifact store as segments, rows hold offsets.

use async_trait::async_trait;
use domain::time::Timestamp;

use super::error::{Error, Result};

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

impl LogSegmentRow {
    /// It has bytes, and its end is a number that every backend can hold.
    pub(crate) fn sound(&self) -> Result<()> {
        let end = self.start.checked_add(self.bytes).filter(|end| i64::try_from(*end).is_ok());
        if self.bytes > 0 && end.is_some() {
            return Ok(());
        }
        let what = format!("{} bytes at {}", self.bytes, self.start);
        Err(Error::Unstorable { table: "log_segments", key: self.key.clone(), what })
    }
}
