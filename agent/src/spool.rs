//! A growing file on the Logs stream: sent as it grows, again from where it is stored after each reconnect, until all of
//! it is stored.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::logs::{Error, Logs, Writer};

/// How often the file is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// Pieces smaller than this wait for more: each becomes a row at the coordinator.
const SMALL: usize = 32 << 10;
/// How long they wait.
const GATHER: Duration = Duration::from_millis(60);
/// Most bytes that are read at once.
const PIECE: usize = 256 << 10;
/// Pause after a stream that ended, beside the session's own.
const PAUSE: Duration = Duration::from_millis(200);

/// Where logs go: the Logs stream, or a list in tests.
#[async_trait]
pub trait Outlet: Send + Sync + std::fmt::Debug {
    /// Waits until there is a connection.
    async fn connected(&self);
    /// Begins a log, which is known to be stored up to `stored`.
    async fn open(&self, key: &str, label: &str, stored: u64) -> Result<Box<dyn Line>, Error>;
}

/// One log on one connection.
#[async_trait]
pub trait Line: Send {
    /// Everything before this offset is stored.
    fn stored(&self) -> u64;
    /// Sends bytes that begin at `offset`.
    async fn send(&mut self, label: &str, offset: u64, bytes: Bytes) -> Result<(), Error>;
    /// Nothing comes after `offset`; answers when everything before it is stored.
    async fn end(&mut self, label: &str, offset: u64) -> Result<(), Error>;
}

#[async_trait]
impl Outlet for Arc<Logs> {
    async fn connected(&self) {
        Logs::connected(self).await;
    }

    async fn open(&self, key: &str, label: &str, stored: u64) -> Result<Box<dyn Line>, Error> {
        Ok(Box::new(Logs::open(self, key, label, stored).await?))
    }
}

#[async_trait]
impl Line for Writer {
    fn stored(&self) -> u64 {
        Self::stored(self)
    }

    async fn send(&mut self, label: &str, offset: u64, bytes: Bytes) -> Result<(), Error> {
        Self::send(self, label, offset, bytes).await
    }

    async fn end(&mut self, label: &str, offset: u64) -> Result<(), Error> {
        Self::end(self, label, offset).await?;
        self.stored_until(offset).await
    }
}

/// How far a log has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// Everything before this offset was taken by the coordinator.
    pub stored: u64,
    /// All of it is stored, or nobody wants the rest.
    pub done: bool,
}

/// A file that is being sent. Dropping it ends the sending.
#[derive(Debug)]
pub struct Spool {
    progress: watch::Receiver<Progress>,
    ended: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Spool {
    /// Sends the file under `key`; `label` names it to people. It need not exist yet, and may grow until
    /// [`Spool::ended`]. Must be called inside a tokio runtime.
    #[must_use]
    pub fn begin(outlet: Arc<dyn Outlet>, key: &str, label: &str, path: &Path) -> Self {
        let (tell, progress) = watch::channel(Progress::default());
        let (ended, end) = watch::channel(false);
        let sending =
            Sending { outlet, key: key.to_owned(), label: label.to_owned(), path: path.to_owned(), end, tell };
        Self { progress, ended, task: tokio::spawn(sending.run()) }
    }

    /// Nothing is written to the file any more.
    pub fn ended(&self) {
        self.ended.send_replace(true);
    }

    /// Waits until all of it is stored. False when nothing was taken for `patience` while `connected` was true: time
    /// without a connection does not count.
    pub async fn stored(&self, connected: impl Fn() -> bool, patience: Duration) -> bool {
        let mut progress = self.progress.clone();
        let mut quiet = Duration::ZERO;
        loop {
            let before = *progress.borrow_and_update();
            if before.done {
                return true;
            }
            match tokio::time::timeout(LOOK * 5, progress.changed()).await {
                Ok(Err(_)) => return progress.borrow().done,
                Ok(Ok(())) => quiet = Duration::ZERO,
                Err(_) if connected() => quiet += LOOK * 5,
                Err(_) => {}
            }
            if quiet >= patience {
                return false;
            }
        }
    }
}

struct Sending {
    outlet: Arc<dyn Outlet>,
    key: String,
    label: String,
    path: PathBuf,
    end: watch::Receiver<bool>,
    tell: watch::Sender<Progress>,
}

impl Sending {
    async fn run(mut self) {
        loop {
            self.outlet.connected().await;
            match self.connection().await {
                Ok(()) | Err(Error::Stopped) => break,
                Err(Error::Disconnected | Error::TooMany) => tokio::time::sleep(PAUSE).await,
            }
        }
        self.tell.send_modify(|progress| progress.done = true);
    }

    async fn connection(&mut self) -> Result<(), Error> {
        let stored = self.tell.borrow().stored;
        let mut line = self.outlet.open(&self.key, &self.label, stored).await?;
        // The coordinator's store decides: it may have more than we know of, or (an old backup) less.
        let mut offset = line.stored();
        loop {
            let (bytes, last) = self.next(offset).await;
            offset += bytes.len() as u64;
            if !bytes.is_empty() {
                line.send(&self.label, offset - bytes.len() as u64, bytes).await?;
            }
            self.tell
                .send_if_modified(|progress| std::mem::replace(&mut progress.stored, line.stored()) != line.stored());
            if last {
                return line.end(&self.label, offset).await;
            }
        }
    }

    /// The next bytes at `offset`; whether nothing comes after them.
    async fn next(&self, offset: u64) -> (Bytes, bool) {
        let began = tokio::time::Instant::now();
        loop {
            // Before reading: what is written until the end is said is then seen.
            let over = *self.end.borrow();
            let bytes = read_at(&self.path, offset);
            let last = over && bytes.len() < PIECE;
            // The first bytes do not wait: somebody looks at an empty screen.
            let enough = offset == 0 || bytes.len() >= SMALL || began.elapsed() >= GATHER;
            if last || (enough && !bytes.is_empty()) {
                return (bytes, last);
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

fn read_at(path: &Path, offset: u64) -> Bytes {
    let Ok(file) = File::open(path) else { return Bytes::new() };
    let size = file.metadata().map(|meta| meta.len()).unwrap_or(0);
    let most = usize::try_from(size.saturating_sub(offset)).unwrap_or(PIECE).min(PIECE);
    let mut buffer = vec![0; most];
    let mut filled = 0;
    while filled < most {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(count) if count > 0 => filled += count,
            _ => break,
        }
    }
    buffer.truncate(filled);
    buffer.into()
}

#[cfg(test)]
mod tests;
