use std::sync::{Mutex, PoisonError};

use super::*;

/// A coordinator: what it stored, and when its connections break.
#[derive(Debug, Default)]
struct Store {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    stored: Vec<u8>,
    ended: bool,
    opened: u32,
    /// The connection breaks after so many bytes, once.
    breaks_at: Option<usize>,
    stop: bool,
}

impl Store {
    fn with<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> T {
        act(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn until(&self, condition: impl Fn(&Inner) -> bool) {
        crate::waiting::until("what the store should hold", async || self.with(|inner| condition(inner))).await;
    }
}

#[async_trait]
impl Outlet for Arc<Store> {
    async fn connected(&self) {}

    async fn open(&self, key: &str, label: &str, _: u64) -> Result<Box<dyn Line>, Error> {
        assert_eq!((key, label), ("run:1", "run"));
        self.with(|inner| {
            inner.opened += 1;
            if inner.stop { Err(Error::Stopped) } else { Ok(()) }
        })?;
        Ok(Box::new(Arc::clone(self)))
    }
}

#[async_trait]
impl Line for Arc<Store> {
    fn stored(&self) -> u64 {
        self.with(|inner| inner.stored.len() as u64)
    }

    async fn send(&mut self, _: &str, offset: u64, bytes: Bytes) -> Result<(), Error> {
        self.with(|inner| {
            assert_eq!(offset, inner.stored.len() as u64, "no gap and nothing twice");
            if let Some(at) = inner.breaks_at.take() {
                inner.stored.extend_from_slice(&bytes[..at.min(bytes.len())]);
                return Err(Error::Disconnected);
            }
            inner.stored.extend_from_slice(&bytes);
            Ok(())
        })
    }

    async fn end(&mut self, _: &str, offset: u64) -> Result<(), Error> {
        self.with(|inner| {
            assert_eq!(offset, inner.stored.len() as u64);
            inner.ended = true;
        });
        Ok(())
    }
}

struct Log {
    folder: tempfile::TempDir,
    store: Arc<Store>,
}

impl Log {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), store: Arc::default() }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn write(&self, bytes: &[u8]) {
        use std::io::Write as _;
        std::fs::OpenOptions::new().create(true).append(true).open(self.path()).unwrap().write_all(bytes).unwrap();
    }

    fn begin(&self) -> Spool {
        Spool::begin(Arc::new(Arc::clone(&self.store)), "run:1", "run", &self.path())
    }
}

async fn done(spool: &Spool) -> bool {
    spool.stored(|| true, Duration::from_secs(20)).await
}

#[tokio::test]
async fn a_file_is_sent_as_it_grows_until_it_ends() {
    let log = Log::new();
    let spool = log.begin();
    log.write(b"first\n");
    log.store.until(|inner| inner.stored == b"first\n").await;
    log.write(b"second\n");
    log.store.until(|inner| inner.stored == b"first\nsecond\n" && !inner.ended).await;
    log.write(b"last");
    spool.ended();
    assert!(done(&spool).await);
    assert!(log.store.with(|inner| inner.ended && inner.stored == b"first\nsecond\nlast"));
}

#[tokio::test]
async fn a_log_that_was_never_written_ends_too() {
    let log = Log::new();
    let spool = log.begin();
    spool.ended();
    assert!(done(&spool).await && log.store.with(|inner| inner.ended && inner.stored.is_empty()));
}

#[tokio::test]
async fn after_a_reconnect_it_goes_on_where_it_is_stored() {
    let log = Log::new();
    let bytes: Vec<u8> = (0..700_000_u32).flat_map(u32::to_le_bytes).collect();
    log.write(&bytes);
    log.store.with(|inner| inner.breaks_at = Some(1000));
    let spool = log.begin();
    spool.ended();
    assert!(done(&spool).await);
    assert!(log.store.with(|inner| inner.opened == 2 && inner.stored == bytes));
}

#[tokio::test]
async fn what_the_store_has_already_is_not_sent_again() {
    let log = Log::new();
    log.write(b"0123456789");
    log.store.with(|inner| inner.stored.extend_from_slice(b"01234"));
    let spool = log.begin();
    spool.ended();
    assert!(done(&spool).await && log.store.with(|inner| inner.stored == b"0123456789"));
}

#[tokio::test]
async fn a_log_that_nobody_wants_is_done() {
    let log = Log::new();
    log.store.with(|inner| inner.stop = true);
    assert!(done(&log.begin()).await);
}

#[tokio::test]
async fn patience_runs_only_while_connected() {
    let log = Log::new();
    let spool = log.begin();
    assert!(!spool.stored(|| true, Duration::from_millis(100)).await);
    let apart = spool.stored(|| false, Duration::from_millis(100));
    assert!(tokio::time::timeout(Duration::from_millis(600), apart).await.is_err());
}
