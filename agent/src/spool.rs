//! The Logs stream: every log that somebody wants, in pieces, with credit and resume by offset. A log that floods
//! waits for its own credit and for nobody else's.

mod entry;
mod link;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use proto::v1;
use tokio::sync::{Notify, watch};
use tonic::transport::Channel;

use entry::{Entry, Source};

/// How often growing files are looked at while something waits for them.
const LOOK: Duration = Duration::from_millis(20);

/// How far a log has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// Everything before this offset is stored by the coordinator.
    pub stored: u64,
    /// All of it is stored, or nobody wants the rest.
    pub done: bool,
}

/// All logs that are sent, or wait for a connection; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Spool {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    entries: Mutex<BTreeMap<String, Entry>>,
    news: Notify,
}

impl Shared {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Spool {
    /// No logs yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sends a file that may still grow, from `stored` on, until `ended` is true and all of it is stored. Sent again
    /// from the last stored offset after each reconnect. A second call with the same key changes nothing.
    ///
    /// `label` names the log to people (`run`, a service).
    pub fn file(
        &self,
        key: &str,
        label: &str,
        path: PathBuf,
        stored: u64,
        ended: watch::Receiver<bool>,
    ) -> watch::Receiver<Progress> {
        let mut entries = self.shared.entries();
        let entry =
            entries.entry(key.to_owned()).or_insert_with(|| Entry::new(label, Source::file(path, ended), stored));
        let progress = entry.progress();
        drop(entries);
        self.shared.news.notify_one();
        progress
    }

    /// Passes a stream on, at the pace of whoever reads it. It ends with the stream, with the connection, or when
    /// nobody wants it any more.
    pub fn live(&self, key: &str, label: &str, stream: BoxStream<'static, Bytes>) {
        let source = Source::live(stream, Arc::clone(&self.shared));
        self.shared.entries().insert(key.to_owned(), Entry::new(label, source, 0));
        self.shared.news.notify_one();
    }

    /// Sends nothing more of a log.
    pub fn stop(&self, key: &str) {
        if let Some(entry) = self.shared.entries().remove(key) {
            entry.finish();
        }
    }

    /// Serves the Logs stream over whatever connection there is, for as long as it is polled.
    pub async fn serve(&self, mut channel: watch::Receiver<Option<Channel>>) {
        loop {
            let Some(current) = channel.borrow_and_update().clone() else {
                if channel.changed().await.is_err() {
                    return;
                }
                continue;
            };
            tokio::select! {
                ended = self.connection(current) => {
                    if let Err(status) = ended {
                        tracing::debug!(%status, "the log stream ended");
                    }
                    // A stream that the coordinator refuses at once must not be asked for in a tight loop.
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
                changed = channel.changed() => if changed.is_err() { return },
            }
        }
    }

    async fn connection(&self, channel: Channel) -> Result<(), tonic::Status> {
        // Without a log there is no stream to keep open.
        while self.shared.entries().is_empty() {
            self.shared.news.notified().await;
        }
        let (up, messages) = tokio::sync::mpsc::channel(8);
        let mut client = crate::session::client(channel);
        let stream = tokio_stream::wrappers::ReceiverStream::new(messages);
        // Pieces flow while the answer's head is still awaited: a server may wait for the first of them.
        let acks = futures::stream::once(async move { client.logs(stream).await.map(tonic::Response::into_inner) });
        let acks = std::pin::pin!(futures::TryStreamExt::try_flatten(acks));
        self.link(up, acks).await
    }

    /// Sends pieces into `up` and takes acknowledgements, until either side ends.
    ///
    /// # Errors
    /// What the stream of acknowledgements ended with.
    pub async fn link(
        &self,
        up: tokio::sync::mpsc::Sender<v1::AgentLog>,
        acks: impl futures::Stream<Item = Result<v1::AgentLogAck, tonic::Status>> + Unpin,
    ) -> Result<(), tonic::Status> {
        link::run(&self.shared, up, acks).await
    }
}

/// Waits until all of a log is stored; false when nothing was stored for `patience` while `connected` was true.
pub async fn stored(
    progress: &mut watch::Receiver<Progress>,
    connected: impl Fn() -> bool,
    patience: Duration,
) -> bool {
    let mut quiet = Duration::ZERO;
    loop {
        let (before, done) = {
            let seen = progress.borrow_and_update();
            (seen.stored, seen.done)
        };
        if done {
            return true;
        }
        match tokio::time::timeout(LOOK * 5, progress.changed()).await {
            Ok(Err(_)) => return progress.borrow().done,
            Ok(Ok(())) if progress.borrow().stored > before => quiet = Duration::ZERO,
            Ok(Ok(())) => {}
            Err(_) if connected() => quiet += LOOK * 5,
            Err(_) => {}
        }
        if quiet >= patience {
            return false;
        }
    }
}

#[cfg(test)]
mod tests;
