//! The ledger in memory.

use async_trait::async_trait;
use domain::event::NewEvent;

use super::super::error::Result;
use super::super::event::{EventFilter, EventReads, EventRow, EventWrites};
use super::{MemoryTx, SEQ};

impl MemoryTx {
    fn events_that_pass(&self, filter: &EventFilter) -> impl DoubleEndedIterator<Item = &EventRow> {
        let from = filter.after.saturating_add(1);
        self.state.events.range(from..).map(|(_, row)| row).filter(move |row| filter.passes(row))
    }
}

#[async_trait]
impl EventReads for MemoryTx {
    async fn event_list_after(&mut self, filter: &EventFilter) -> Result<Vec<EventRow>> {
        let limit = usize::try_from(filter.limit).unwrap_or(usize::MAX);
        Ok(self.events_that_pass(filter).take(limit).cloned().collect())
    }

    async fn event_list_last(&mut self, filter: &EventFilter) -> Result<Vec<EventRow>> {
        let limit = usize::try_from(filter.limit).unwrap_or(usize::MAX);
        let mut rows: Vec<EventRow> = self.events_that_pass(filter).rev().take(limit).cloned().collect();
        rows.reverse();
        Ok(rows)
    }

    async fn event_seq(&mut self) -> Result<u64> {
        Ok(self.state.seq())
    }
}

#[async_trait]
impl EventWrites for MemoryTx {
    async fn event_append(&mut self, project: &str, event: &NewEvent) -> Result<u64> {
        let seq = self.state.seq() + 1;
        self.state.counters.put(SEQ, seq);
        self.state.events.put(seq, EventRow::new(seq, project, event));
        self.seq = Some(seq);
        Ok(seq)
    }
}
