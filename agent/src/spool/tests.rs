use futures::StreamExt as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::*;

/// The coordinator's end of one connection.
struct Peer {
    pieces: mpsc::Receiver<v1::AgentLog>,
    acks: mpsc::Sender<Result<v1::AgentLogAck, tonic::Status>>,
    task: tokio::task::JoinHandle<Result<(), tonic::Status>>,
}

impl Peer {
    fn connect(spool: &Spool) -> Self {
        let (up, pieces) = mpsc::channel(1);
        let (acks, receiver) = mpsc::channel(64);
        let spool = spool.clone();
        let task = tokio::spawn(async move { spool.link(up, ReceiverStream::new(receiver)).await });
        Self { pieces, acks, task }
    }

    async fn piece(&mut self) -> (String, v1::LogChunk) {
        let piece = tokio::time::timeout(Duration::from_secs(20), self.pieces.recv()).await.unwrap().unwrap();
        (piece.key, piece.chunk.unwrap())
    }

    async fn ack(&self, key: &str, offset: u64, credit: u64) {
        self.acks.send(Ok(v1::AgentLogAck { key: key.to_owned(), offset, credit, stop: false })).await.unwrap();
    }

    /// Reads until a log ends, acknowledging everything.
    async fn all(&mut self, key: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        loop {
            let (from, chunk) = self.piece().await;
            assert_eq!((from.as_str(), chunk.offset), (key, bytes.len() as u64));
            bytes.extend_from_slice(&chunk.data);
            self.ack(key, bytes.len() as u64, 512 << 10).await;
            if chunk.end {
                return bytes;
            }
        }
    }

    async fn hang_up(self) {
        drop((self.acks, self.pieces));
        self.task.await.unwrap().unwrap();
    }
}

struct Log {
    folder: tempfile::TempDir,
    ended: watch::Sender<bool>,
}

impl Log {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), ended: watch::Sender::new(false) }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn write(&self, bytes: &[u8]) {
        use std::io::Write as _;
        std::fs::OpenOptions::new().create(true).append(true).open(self.path()).unwrap().write_all(bytes).unwrap();
    }

    fn add(&self, spool: &Spool, stored: u64) -> watch::Receiver<Progress> {
        spool.file("run:1", "run", self.path(), stored, self.ended.subscribe())
    }
}

#[tokio::test]
async fn a_file_is_sent_as_it_grows_until_it_ends() {
    let (spool, log) = (Spool::new(), Log::new());
    let mut progress = log.add(&spool, 0);
    let mut peer = Peer::connect(&spool);
    log.write(b"first\n");
    let (key, chunk) = peer.piece().await;
    assert_eq!((key.as_str(), &chunk.data[..], chunk.offset, chunk.end), ("run:1", b"first\n".as_slice(), 0, false));
    peer.ack("run:1", 6, 1000).await;
    log.write(b"second\n");
    log.ended.send_replace(true);
    let (_, chunk) = peer.piece().await;
    assert_eq!((&chunk.data[..], chunk.offset, chunk.end), (b"second\n".as_slice(), 6, true));
    assert!(!progress.borrow().done);
    peer.ack("run:1", 13, 1000).await;
    assert!(stored(&mut progress, || true, Duration::from_secs(20)).await);
    assert_eq!(*progress.borrow(), Progress { stored: 13, done: true });
}

#[tokio::test]
async fn an_empty_log_ends_too() {
    let (spool, log) = (Spool::new(), Log::new());
    log.ended.send_replace(true);
    let mut progress = log.add(&spool, 0);
    let mut peer = Peer::connect(&spool);
    assert_eq!(peer.all("run:1").await, b"");
    assert!(stored(&mut progress, || true, Duration::from_secs(20)).await);
}

#[tokio::test]
async fn what_was_not_stored_is_sent_again_after_a_reconnect() {
    let (spool, log) = (Spool::new(), Log::new());
    log.write(b"0123456789");
    log.add(&spool, 4);
    let mut peer = Peer::connect(&spool);
    assert_eq!(peer.piece().await.1.offset, 4, "an agent that restarts goes on where it was stored");
    peer.hang_up().await;
    let mut peer = Peer::connect(&spool);
    let (_, chunk) = peer.piece().await;
    assert_eq!((chunk.offset, &chunk.data[..]), (4, b"456789".as_slice()));
    peer.ack("run:1", 2, 1000).await;
    let (_, chunk) = peer.piece().await;
    assert_eq!((chunk.offset, &chunk.data[..]), (2, b"23456789".as_slice()), "the store knows best, at the start");
}

#[tokio::test]
async fn nothing_goes_beyond_the_credit_and_a_flood_starves_nobody() {
    let (spool, log) = (Spool::new(), Log::new());
    log.write(&vec![b'x'; 2 << 20]);
    log.add(&spool, 0);
    let mut peer = Peer::connect(&spool);
    let mut sent = 0;
    while sent < 256 << 10 {
        sent += peer.piece().await.1.data.len();
    }
    assert_eq!(sent, 256 << 10);
    spool.live("order:2", "web", futures::stream::iter([Bytes::from_static(b"hello")]).boxed());
    let (key, chunk) = peer.piece().await;
    assert_eq!((key.as_str(), &chunk.data[..]), ("order:2", b"hello".as_slice()));
    let (key, chunk) = peer.piece().await;
    assert_eq!((key.as_str(), chunk.end), ("order:2", true));
    peer.ack("run:1", 256 << 10, 10).await;
    let (key, chunk) = peer.piece().await;
    assert_eq!((key.as_str(), chunk.offset, chunk.data.len()), ("run:1", 256 << 10, 10));
}

#[tokio::test]
async fn a_log_nobody_wants_is_stopped() {
    let (spool, log) = (Spool::new(), Log::new());
    log.write(b"x");
    let mut progress = log.add(&spool, 0);
    let mut peer = Peer::connect(&spool);
    peer.piece().await;
    let stop = v1::AgentLogAck { key: "run:1".to_owned(), stop: true, ..Default::default() };
    peer.acks.send(Ok(stop)).await.unwrap();
    assert!(stored(&mut progress, || true, Duration::from_secs(20)).await);
}

#[tokio::test]
async fn patience_runs_only_while_connected() {
    let (spool, log) = (Spool::new(), Log::new());
    let mut progress = log.add(&spool, 0);
    assert!(!stored(&mut progress, || true, Duration::from_millis(100)).await);
    let apart = stored(&mut progress, || false, Duration::from_millis(100));
    assert!(tokio::time::timeout(Duration::from_millis(600), apart).await.is_err());
}
