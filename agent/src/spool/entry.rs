//! One log: what was sent, what was stored, and where the rest comes from.

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use proto::v1;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::{Progress, Shared};

/// Largest piece, in bytes.
const PIECE: usize = 64 << 10;
/// Pieces that are not acknowledged yet.
const IN_FLIGHT: usize = 64;
/// What may be sent before the first acknowledgement, in bytes.
const FIRST_CREDIT: u64 = 256 << 10;
/// Small pieces wait for more so long: each becomes a row at the coordinator.
const GATHER: Duration = Duration::from_millis(50);

/// Where a log comes from.
#[derive(Debug)]
pub(super) enum Source {
    File { path: PathBuf, ended: watch::Receiver<bool> },
    Live { pieces: mpsc::Receiver<Bytes>, pump: AbortHandle, rest: Bytes },
}

/// One log.
#[derive(Debug)]
pub(super) struct Entry {
    label: String,
    source: Source,
    sent: u64,
    /// Nothing beyond may be sent.
    limit: u64,
    /// Ends of pieces that are not acknowledged.
    in_flight: VecDeque<u64>,
    end_sent: bool,
    last: Option<Instant>,
    /// Nothing was acknowledged on this connection yet.
    fresh: bool,
    progress: watch::Sender<Progress>,
}

impl Source {
    pub(super) fn file(path: PathBuf, ended: watch::Receiver<bool>) -> Self {
        Self::File { path, ended }
    }

    pub(super) fn live(mut stream: BoxStream<'static, Bytes>, shared: Arc<Shared>) -> Self {
        let (sender, pieces) = mpsc::channel(4);
        let pump = tokio::spawn(async move {
            while let Some(bytes) = stream.next().await {
                if sender.send(bytes).await.is_err() {
                    return;
                }
                shared.news.notify_one();
            }
            drop(sender);
            shared.news.notify_one();
        });
        Self::Live { pieces, pump: pump.abort_handle(), rest: Bytes::new() }
    }

    /// Up to `most` bytes at `offset`, and whether the log ends with them.
    fn read(&mut self, offset: u64, most: usize) -> (Bytes, bool) {
        match self {
            Self::File { path, ended } => {
                // Before reading: what is written until the end is set is then seen.
                let ended = *ended.borrow();
                let bytes = read_at(path, offset, most);
                let end = ended && bytes.len() < most;
                (bytes, end)
            }
            Self::Live { pieces, rest, .. } => {
                let mut over = false;
                if rest.is_empty() {
                    match pieces.try_recv() {
                        Ok(bytes) => *rest = bytes,
                        Err(mpsc::error::TryRecvError::Empty) => {}
                        Err(mpsc::error::TryRecvError::Disconnected) => over = true,
                    }
                }
                (rest.split_to(most.min(rest.len())), over)
            }
        }
    }
}

fn read_at(path: &PathBuf, offset: u64, most: usize) -> Bytes {
    let mut buffer = vec![0; most];
    let mut filled = 0;
    if let Ok(file) = File::open(path) {
        while filled < most {
            match file.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(count) if count > 0 => filled += count,
                _ => break,
            }
        }
    }
    buffer.truncate(filled);
    buffer.into()
}

impl Entry {
    pub(super) fn new(label: &str, source: Source, stored: u64) -> Self {
        Self {
            label: label.to_owned(),
            source,
            sent: stored,
            limit: stored + FIRST_CREDIT,
            in_flight: VecDeque::new(),
            end_sent: false,
            last: None,
            fresh: true,
            progress: watch::Sender::new(Progress { stored, done: false }),
        }
    }

    pub(super) fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// When its last piece was sent.
    pub(super) fn served(&self) -> Option<Instant> {
        self.last
    }

    /// Whether it has to be looked at again and again.
    pub(super) fn is_file(&self) -> bool {
        matches!(self.source, Source::File { .. })
    }

    /// A new connection: everything that was not stored is sent again. False: that is not possible.
    pub(super) fn restart(&mut self) -> bool {
        let stored = self.progress.borrow().stored;
        if !self.is_file() && self.sent > 0 {
            return false;
        }
        self.sent = stored;
        self.limit = stored + FIRST_CREDIT;
        self.in_flight.clear();
        self.end_sent = false;
        self.fresh = true;
        true
    }

    /// The next piece, if there is one and credit for it.
    pub(super) fn next(&mut self, now: Instant) -> Option<v1::LogChunk> {
        let room = usize::try_from(self.limit.saturating_sub(self.sent)).unwrap_or(usize::MAX).min(PIECE);
        if self.end_sent || self.in_flight.len() >= IN_FLIGHT || room == 0 {
            return None;
        }
        if self.last.is_some_and(|last| now < last + GATHER) && self.waits_for_more(room) {
            return None;
        }
        let (data, end) = self.source.read(self.sent, room);
        if data.is_empty() && !end {
            return None;
        }
        let offset = self.sent;
        self.sent += data.len() as u64;
        self.end_sent = end;
        self.last = Some(now);
        self.in_flight.push_back(self.sent);
        Some(v1::LogChunk { source: self.label.clone(), offset, data, end, dropped: 0 })
    }

    /// A small piece soon after another waits, unless it is the last.
    fn waits_for_more(&self, room: usize) -> bool {
        match &self.source {
            Source::File { path, ended } => {
                let size = std::fs::metadata(path).map(|meta| meta.len()).unwrap_or(0);
                !*ended.borrow() && size.saturating_sub(self.sent) < room as u64
            }
            Source::Live { .. } => false,
        }
    }

    /// True: it is done, and is to be forgotten.
    pub(super) fn acknowledged(&mut self, ack: &v1::AgentLogAck) -> bool {
        if ack.stop {
            return true;
        }
        self.limit = ack.offset.saturating_add(ack.credit);
        // The coordinator's store decides: it may have more than we know of, or (an old backup) less.
        if ack.offset > self.sent || (self.fresh && ack.offset < self.progress.borrow().stored && self.is_file()) {
            self.sent = ack.offset;
            self.in_flight.clear();
            self.end_sent = false;
        }
        self.fresh = false;
        while self.in_flight.front().is_some_and(|end| *end <= ack.offset) {
            self.in_flight.pop_front();
        }
        self.progress.send_if_modified(|progress| std::mem::replace(&mut progress.stored, ack.offset) != ack.offset);
        self.end_sent && self.in_flight.is_empty()
    }

    /// Nothing more is sent.
    pub(super) fn finish(&self) {
        if let Source::Live { pump, .. } = &self.source {
            pump.abort();
        }
        self.progress.send_modify(|progress| progress.done = true);
    }
}
