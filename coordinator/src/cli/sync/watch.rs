//! Tells when something in some folders may have changed. What changed is found by listing them again.

use std::path::PathBuf;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

/// So long nothing changes before what changed is looked at: programs write several files at once.
const QUIET: Duration = Duration::from_millis(60);
/// And no longer than this, however much goes on.
const LONGEST: Duration = Duration::from_millis(500);
/// Where the system tells of no changes, it is looked again so often.
const LOOK: Duration = Duration::from_secs(2);

/// Watches.
#[derive(Debug)]
pub struct Changes {
    told: mpsc::Receiver<()>,
    watcher: Option<RecommendedWatcher>,
}

/// Whether it says that something is different: to read a file is no change.
fn matters(event: &notify::Result<notify::Event>) -> bool {
    match event {
        Ok(event) => match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
            EventKind::Access(_) => false,
            _ => true,
        },
        // Something was missed.
        Err(_) => true,
    }
}

impl Changes {
    /// Watches those files and folders, with what is in them. Where that is not possible it is looked from time to time,
    /// and `problem` says why.
    pub fn of(places: impl Iterator<Item = PathBuf>, problem: impl FnOnce(&str)) -> Self {
        // One waits: that something changed is all that is told.
        let (tell, told) = mpsc::channel(1);
        let watching = notify::recommended_watcher(move |event| {
            if matters(&event) {
                let _ = tell.try_send(());
            }
        });
        let watching = watching.and_then(|mut watcher| {
            for place in places {
                watcher.watch(&place, RecursiveMode::Recursive)?;
            }
            Ok(watcher)
        });
        match watching {
            Ok(watcher) => Self { told, watcher: Some(watcher) },
            Err(why) => {
                problem(&why.to_string());
                Self { told, watcher: None }
            }
        }
    }

    /// Waits until something may have changed, and then until it is quiet for a moment.
    pub async fn next(&mut self) {
        if self.watcher.is_none() {
            return tokio::time::sleep(LOOK).await;
        }
        if self.told.recv().await.is_none() {
            return tokio::time::sleep(LOOK).await;
        }
        let until = tokio::time::Instant::now() + LONGEST;
        while tokio::time::Instant::now() < until {
            match tokio::time::timeout(QUIET, self.told.recv()).await {
                Ok(Some(())) => {}
                Ok(None) | Err(_) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_write_is_told_and_a_read_is_not() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("sub")).unwrap();
        std::fs::write(folder.path().join("sub/a"), "1").unwrap();
        let mut changes = Changes::of([folder.path().to_owned()].into_iter(), |why| panic!("{why}"));
        assert_eq!(std::fs::read(folder.path().join("sub/a")).unwrap(), b"1");
        let told = tokio::time::timeout(Duration::from_millis(200), changes.next()).await;
        assert!(told.is_err(), "to read is no change");
        std::fs::write(folder.path().join("sub/a"), "2").unwrap();
        tokio::time::timeout(Duration::from_secs(10), changes.next()).await.expect("told");
    }
}
