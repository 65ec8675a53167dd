//! Writes what comes while more of it is on its way, in a thread of its own: ten thousand small files are so many waits for
//! the disk, and none of them should wait for the network as well.

use proto::v1;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::tree::Tree;
use crate::environments::failure::Failure;

/// Pieces that wait to be written, 2 MiB at most.
const AHEAD: usize = 32;

/// Writes the contents of one round.
#[derive(Debug)]
pub(super) struct Writer {
    pieces: mpsc::Sender<v1::SyncContent>,
    writing: JoinHandle<Result<(Tree, v1::SyncDone), Failure>>,
}

impl Writer {
    /// Expects the contents of these files, in this order. Dropped before its end, it leaves no half of a file.
    pub fn begin(tree: Tree, missing: Vec<String>, done: v1::SyncDone) -> Self {
        let (pieces, given) = mpsc::channel(AHEAD);
        Self { pieces, writing: tokio::task::spawn_blocking(move || write(tree, &missing, given, done)) }
    }

    /// The next piece. False: it takes no more, and its end tells why.
    pub async fn take(&self, piece: v1::SyncContent) -> bool {
        self.pieces.send(piece).await.is_ok()
    }

    /// What came of it, once everything lies there.
    ///
    /// # Errors
    /// `E_SYNC_BROKEN`: something else came than was asked for.
    pub async fn end(self) -> Result<(Tree, v1::SyncDone), Failure> {
        drop(self.pieces);
        self.writing.await.unwrap_or_else(|why| Err(Failure::passing("E_SYNC_BROKEN", why.to_string())))
    }
}

fn write(
    mut tree: Tree,
    missing: &[String],
    mut given: mpsc::Receiver<v1::SyncContent>,
    mut done: v1::SyncDone,
) -> Result<(Tree, v1::SyncDone), Failure> {
    for name in missing {
        let mut incoming = tree.incoming(name);
        loop {
            let Some(piece) = given.blocking_recv() else { return Err(super::gone()) };
            if piece.path != *name {
                let text = format!("the content of {:?} came where {name:?} was expected", piece.path);
                return Err(Failure::lasting("E_SYNC_BROKEN", text));
            }
            incoming = incoming.and_then(|mut incoming| incoming.write(&piece.data).map(|()| incoming));
            if piece.last {
                break;
            }
        }
        match incoming.and_then(|incoming| tree.finish(incoming)) {
            Ok(bytes) => {
                done.files += 1;
                done.bytes += bytes;
            }
            Err(why) => done.problems.push(format!("{name}: {why}")),
        }
    }
    Ok((tree, done))
}
