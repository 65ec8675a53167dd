//! The Logs stream: beside the session, so that a flood of lines cannot starve heartbeats.
//!
//! For each key the agent first sends an empty chunk at the offset up to which it knows its bytes to be stored. The
//! coordinator answers with how far it has stored them and how many bytes may follow; whoever writes goes on from there.
//! The stream is opened with the first writer of a session and lasts as long as the session.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use proto::v1;
use tokio::sync::{mpsc, watch};
use tonic::transport::Channel;

mod answer;
mod follow;
#[cfg(test)]
mod follow_tests;
mod read;

pub use answer::answer;

/// Bytes of one chunk.
const CHUNK: usize = 64 << 10;
/// Most keys at once.
const MAX_KEYS: usize = 256;

/// What the coordinator said last about a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Allowed {
    /// Everything before it is stored (or was passed on).
    pub stored: u64,
    /// Nothing at or beyond it may be sent.
    pub limit: u64,
    /// Nobody wants it any more.
    pub stop: bool,
    /// The coordinator has answered at all in this stream.
    pub known: bool,
}

#[derive(Debug)]
struct Key {
    allowed: watch::Sender<Allowed>,
}

/// The Logs stream of the present session, if there is one.
#[derive(Debug)]
pub struct Logs {
    channel: watch::Receiver<Option<Channel>>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    keys: BTreeMap<String, Key>,
    up: Option<mpsc::Sender<v1::AgentLog>>,
}

/// The stream is not there (any more); open the writer again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no session, or it ended.
    #[error("there is no connection to the coordinator")]
    Disconnected,
    /// Nobody wants it any more.
    #[error("nobody wants this log any more")]
    Stopped,
    /// Too many logs at once.
    #[error("more than {MAX_KEYS} logs at once")]
    TooMany,
}

/// Sends one log. Dropping it ends nothing; send a chunk with `end` first.
#[derive(Debug)]
pub struct Writer {
    key: String,
    up: mpsc::Sender<v1::AgentLog>,
    allowed: watch::Receiver<Allowed>,
    logs: Arc<Logs>,
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.logs.inner().keys.remove(&self.key);
    }
}

impl Logs {
    /// Over the session's channel.
    #[must_use]
    pub fn new(channel: watch::Receiver<Option<Channel>>) -> Arc<Self> {
        Arc::new(Self { channel, inner: Mutex::default() })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there is a session.
    pub async fn connected(&self) {
        let mut channel = self.channel.clone();
        let _ = channel.wait_for(Option::is_some).await;
    }

    /// Opens a log: `run:<id>` or `order:<id>`. Answers once the coordinator has said from where to go on
    /// ([`Writer::stored`]). `source` names the log within the key.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn open(self: &Arc<Self>, key: &str, source: &str, stored: u64) -> Result<Writer, Error> {
        let up = self.stream()?;
        let (allowed, seen) = watch::channel(Allowed::default());
        {
            let mut inner = self.inner();
            if inner.keys.len() >= MAX_KEYS {
                return Err(Error::TooMany);
            }
            inner.keys.insert(key.to_owned(), Key { allowed });
        }
        let mut writer = Writer { key: key.to_owned(), up, allowed: seen, logs: Arc::clone(self) };
        let opening = v1::LogChunk { source: source.to_owned(), offset: stored, ..v1::LogChunk::default() };
        writer.put(opening).await?;
        writer.wait(|allowed| allowed.known).await?;
        Ok(writer)
    }

    /// The sending half of the stream, opened if need be.
    fn stream(self: &Arc<Self>) -> Result<mpsc::Sender<v1::AgentLog>, Error> {
        let mut inner = self.inner();
        if let Some(up) = inner.up.as_ref().filter(|up| !up.is_closed()) {
            return Ok(up.clone());
        }
        let channel = self.channel.borrow().clone().ok_or(Error::Disconnected)?;
        let (up, messages) = mpsc::channel(8);
        inner.up = Some(up.clone());
        inner.keys.clear();
        drop(inner);
        tokio::spawn(receive(Arc::clone(self), channel, messages));
        Ok(up)
    }
}

async fn receive(logs: Arc<Logs>, channel: Channel, messages: mpsc::Receiver<v1::AgentLog>) {
    let mut calls = crate::session::client(channel);
    let up = tokio_stream::wrappers::ReceiverStream::new(messages);
    if let Ok(answer) = calls.logs(up).await {
        let mut down = answer.into_inner();
        while let Ok(Some(ack)) = down.message().await {
            if let Some(key) = logs.inner().keys.get(&ack.key) {
                key.allowed.send_replace(Allowed {
                    stored: ack.offset,
                    limit: ack.offset.saturating_add(ack.credit),
                    stop: ack.stop,
                    known: true,
                });
            }
        }
    }
    // Writers learn of the end by their closed watch.
    let mut inner = logs.inner();
    inner.keys.clear();
    inner.up = None;
}

impl Writer {
    /// Everything before this offset is stored.
    #[must_use]
    pub fn stored(&self) -> u64 {
        self.allowed.borrow().stored
    }

    async fn put(&self, chunk: v1::LogChunk) -> Result<(), Error> {
        let message = v1::AgentLog { key: self.key.clone(), chunk: Some(chunk) };
        self.up.send(message).await.map_err(|_| Error::Disconnected)
    }

    async fn wait(&mut self, enough: impl Fn(&Allowed) -> bool) -> Result<Allowed, Error> {
        let allowed =
            *self.allowed.wait_for(|allowed| allowed.stop || enough(allowed)).await.map_err(|_| Error::Disconnected)?;
        if allowed.stop { Err(Error::Stopped) } else { Ok(allowed) }
    }

    /// Sends bytes that begin at `offset`, as the coordinator allows it. Answers once they are on their way.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn send(&mut self, source: &str, mut offset: u64, mut bytes: Bytes) -> Result<(), Error> {
        while !bytes.is_empty() {
            let allowed = self.wait(|allowed| allowed.limit > offset).await?;
            let room = usize::try_from(allowed.limit - offset).unwrap_or(usize::MAX);
            let piece = bytes.split_to(bytes.len().min(CHUNK).min(room));
            let length = piece.len() as u64;
            let chunk = v1::LogChunk { source: source.to_owned(), offset, data: piece, ..v1::LogChunk::default() };
            self.put(chunk).await?;
            offset += length;
        }
        Ok(())
    }

    /// Sends lines, which are not torn: those who read begin anew after the last `at`. Only one that is longer than a
    /// chunk comes in several, of which the last has it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn send_lines(&mut self, mut lines: v1::LogChunk) -> Result<(), Error> {
        while lines.data.len() > CHUNK {
            let data = lines.data.split_to(CHUNK);
            let length = data.len() as u64;
            self.send_whole(v1::LogChunk { data, at: 0, ..lines.clone() }).await?;
            lines.offset += length;
        }
        self.send_whole(lines).await
    }

    async fn send_whole(&mut self, chunk: v1::LogChunk) -> Result<(), Error> {
        let end = chunk.offset + chunk.data.len() as u64;
        self.wait(|allowed| allowed.limit >= end).await?;
        self.put(chunk).await
    }

    /// Waits until nobody wants it any more, or the stream is gone.
    pub async fn gone(&mut self) {
        let _ = self.wait(|_| false).await;
    }

    /// Says that nothing comes after `offset`.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn end(&mut self, source: &str, offset: u64) -> Result<(), Error> {
        let chunk = v1::LogChunk { source: source.to_owned(), offset, end: true, ..v1::LogChunk::default() };
        self.put(chunk).await
    }

    /// Waits until everything before `offset` is stored.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn stored_until(&mut self, offset: u64) -> Result<(), Error> {
        self.wait(|allowed| allowed.stored >= offset).await.map(drop)
    }
}
