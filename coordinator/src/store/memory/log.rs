//! The index of logs in memory.

use async_trait::async_trait;

use super::super::error::{Error, Result};
use super::super::log::{LogReads, LogSegmentRow, LogWrites};
use super::MemoryTx;

impl MemoryTx {
    fn segments_of(&self, key: &str) -> impl DoubleEndedIterator<Item = &LogSegmentRow> {
        let at = |start| (key.to_owned(), start);
        self.state.log_segments.range(at(0)..=at(u64::MAX)).map(|(_, row)| row)
    }
}

#[async_trait]
impl LogReads for MemoryTx {
    async fn log_end(&mut self, key: &str) -> Result<u64> {
        Ok(self.segments_of(key).next_back().map_or(0, |row| row.start + row.bytes))
    }

    async fn log_segment_list(&mut self, key: &str, from: u64, limit: u32) -> Result<Vec<LogSegmentRow>> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let rows = self.segments_of(key).filter(|row| row.start + row.bytes > from);
        Ok(rows.take(limit).cloned().collect())
    }
}

#[async_trait]
impl LogWrites for MemoryTx {
    async fn log_segment_append(&mut self, row: &LogSegmentRow) -> Result<()> {
        if self.log_end(&row.key).await? != row.start {
            return Err(Error::conflict("log_segments", format!("{} {}", row.key, row.start)));
        }
        row.sound()?;
        self.state.log_segments.put((row.key.clone(), row.start), row.clone());
        Ok(())
    }
}
