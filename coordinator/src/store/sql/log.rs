//! The index of logs in SQL.

use async_trait::async_trait;

use super::super::error::{Error, Result};
use super::super::log::{LogReads, LogSegmentRow, LogWrites};
use super::{Columns, FromRow, SqlTx, values};

impl FromRow for LogSegmentRow {
    const TABLE: &'static str = "log_segments";
    const KEY: &'static [&'static str] = &["log", "first_byte"];

    fn from_row(row: &Columns<'_>) -> Result<Self> {
        Ok(Self {
            project: row.text("project")?,
            key: row.text("log")?,
            start: row.number("first_byte")?,
            bytes: row.number("bytes")?,
            path: row.text("path")?,
            created_at: row.at("created_at")?,
        })
    }
}

#[async_trait]
impl LogReads for SqlTx {
    async fn log_end(&mut self, key: &str) -> Result<u64> {
        let sql = "SELECT * FROM log_segments WHERE log = $1 ORDER BY first_byte DESC LIMIT 1";
        let last: Option<LogSegmentRow> = self.one(sql, values![key]).await?;
        Ok(last.map_or(0, |row| row.start.saturating_add(row.bytes)))
    }

    async fn log_segment_list(&mut self, key: &str, from: u64, limit: u32) -> Result<Vec<LogSegmentRow>> {
        let sql = "SELECT * FROM log_segments WHERE log = $1 AND first_byte + bytes > $2 ORDER BY first_byte LIMIT $3";
        self.list(sql, values![key, from, limit]).await
    }
}

#[async_trait]
impl LogWrites for SqlTx {
    async fn log_segment_append(&mut self, row: &LogSegmentRow) -> Result<()> {
        if self.log_end(&row.key).await? != row.start {
            return Err(Error::conflict("log_segments", format!("{} {}", row.key, row.start)));
        }
        row.sound()?;
        let sql = "INSERT INTO log_segments (log, first_byte, bytes, project, path, created_at) \
                   VALUES ($1, $2, $3, $4, $5, $6)";
        let values = values![&row.key, row.start, row.bytes, &row.project, &row.path, row.created_at];
        self.execute("log_segments", sql, values).await?;
        Ok(())
    }
}
